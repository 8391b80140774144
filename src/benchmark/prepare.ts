// Makes a model ready to be measured: its prepared file where the user works, quantized before if the configuration says so, and what is
// measured once beforehand. What the configuration says of measuring is checked with the model, so that it fails now and not later.

import { existsSync, realpathSync, rmSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { chooseLevel } from "../engine/cpu.ts";
import { openLibrary } from "../engine/library.ts";
import { ModelFileError, OptionError } from "../errors.ts";
import { defaultThreads } from "../knobs/threads.ts";
import { prepareModel } from "../load.ts";
import { isPrepared } from "../model/prepared.ts";
import { resolveModel } from "../model/resolve.ts";
import { modelTuningPath, storeModelTuning } from "../model-tuning.ts";
import { hashModel, isCopy, openModelFile, stampOf } from "../prepared.ts";
import { checkFilePath, writeFile } from "../profiling/file.ts";
import { quantizeModel } from "../quantize/quantize.ts";
import type { QuantizationType } from "../quantize/types.ts";
import { measureMachine, roofsPath } from "../roofs.ts";
import { type BenchmarkConfig, resolveSettings } from "./config.ts";
import type { Settings } from "./results.ts";
import { openSubject } from "./subject.ts";
import { tuneModel } from "./tune.ts";

export interface PrepareBenchmarkOptions {
  readonly config?: BenchmarkConfig | undefined;
  /** Default the model's name with `.tinyai`, in the working folder. */
  readonly output?: string | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Called with what is done of it, 0 to 1, and what is being done. */
  readonly onProgress?: ((share: number, doing: string) => void) | undefined;
}

/** What was done. */
export interface PreparedBenchmark {
  readonly model: string;
  /** The file that is ready. */
  readonly path: string;
  /** `kept`: it was there, made of the same model; `copied`: of a prepared file elsewhere. */
  readonly file: "made" | "copied" | "kept";
  readonly bytes: number;
  /** The file it was made of, a quantized one's included, in lower-case hexadecimal. */
  readonly sourceSha256: string;
  /** Null: it was left as it was. */
  readonly quantized: { readonly type: QuantizationType; readonly bytesBefore: number; readonly bytes: number } | null;
  /** What is kept of tuning and used from now on; null: it was not asked for. */
  readonly tuned: { readonly threads: number; readonly batchSize: number; readonly path: string } | null;
  /** Where the machine's bandwidth and arithmetic are kept; null: they were not asked for. */
  readonly roofs: string | null;
  /** What an inference benchmark of it has with this configuration. */
  readonly settings: Settings;
  /** Whether it was ended before all was measured; the file is ready nevertheless. */
  readonly interrupted: boolean;
}

/**
 * Makes a model ready to be measured.
 * @param model a path to a GGUF or `.tinyai` file or a model's folder, or the name of a pulled model.
 * @throws {OptionError} if there is no such model, the configuration does not suit it, or there can be no file of the output's path.
 * @throws {ModelFileError} if the model is damaged.
 * @throws {EngineError} if there is not the memory or the disk for it.
 */
export async function prepareBenchmark(
  model: string,
  options: PrepareBenchmarkOptions = {},
): Promise<PreparedBenchmark> {
  const { config = {}, signal, onProgress } = options;
  resolveSettings("inference", config);
  const source = resolveModel(model);
  if (!existsSync(source)) throw new OptionError("--model", `there is no file ${source}; check the path`);
  const path = options.output ?? join(process.cwd(), `${nameOf(model)}.tinyai`);
  checkOutput(path, source, model);
  const tell = tellerOf(secondsOf(source, config), onProgress);
  const made = await makeFile(source, path, config.quantize ?? null, { signal, tell });
  // Opening it is what shows whether it is whole, and whether the configuration suits it.
  tell("opening it", 0);
  const settings = await checkSettings(path, config, signal);
  let tuned: PreparedBenchmark["tuned"] = null;
  let roofs: string | null = null;
  let interrupted = false;
  try {
    if (config.tune_s) tuned = await tune(path, config.tune_s, { signal, tell });
    if (config.measure_roofs) roofs = await measureRoofs({ signal, tell });
  } catch (error) {
    if (!signal?.aborted) throw error;
    interrupted = true;
  }
  const { size } = Bun.file(path);
  return { model, path, bytes: size, sourceSha256: sourceOf(path), ...made, tuned, roofs, settings, interrupted };
}

/** In the order in which they follow each other; of `copying` and `preparing` there is one. */
const steps = ["quantizing", "copying", "preparing", "opening it", "trying settings", "measuring the machine"] as const;
type Step = (typeof steps)[number];

/** Tells how far a step is. */
type Tell = (step: Step, share: number) => void;

interface StepOptions {
  readonly signal: AbortSignal | undefined;
  readonly tell: Tell;
}

/** Bytes of the model's file, roughly, that a step gets done in a second. */
const bytesPerSecond = { quantizing: 1e8, copying: 1e9, preparing: 3e8, opening: 1e9 } as const;
const roofsSeconds = 3;

/** How long each step takes, about: as much of the whole is done when it is. */
function secondsOf(source: string, { quantize, tune_s = 0, measure_roofs }: BenchmarkConfig): Record<Step, number> {
  const bytes = stampOf(source)?.bytes ?? 0;
  const copied = isPrepared(source);
  return {
    quantizing: quantize ? bytes / bytesPerSecond.quantizing : 0,
    copying: copied ? bytes / bytesPerSecond.copying : 0,
    preparing: copied ? 0 : bytes / bytesPerSecond.preparing,
    "opening it": bytes / bytesPerSecond.opening,
    "trying settings": tune_s,
    "measuring the machine": measure_roofs ? roofsSeconds : 0,
  };
}

function tellerOf(seconds: Readonly<Record<Step, number>>, onProgress: PrepareBenchmarkOptions["onProgress"]): Tell {
  const before = (end: number) => steps.slice(0, end).reduce((sum, step) => sum + seconds[step], 0);
  const whole = before(steps.length);
  return (step, share) => {
    const done = before(steps.indexOf(step)) + share * seconds[step];
    onProgress?.(whole > 0 ? Math.min(1, done / whole) : 0, step);
  };
}

/** What the file is called after: the name of a pulled model, or a file's without its ending. */
function nameOf(model: string): string {
  return basename(resolve(model)).replace(/\.(gguf|tinyai)$/i, "");
}

/** Nothing but a prepared file is replaced, and the model itself never. */
function checkOutput(path: string, source: string, model: string): void {
  checkFilePath("--output", path);
  if (!existsSync(path)) return;
  if (realpathSync(path) === realpathSync(source)) {
    if (isPrepared(source)) return;
    throw new OptionError("--output", `${path} is the model itself; name another file`);
  }
  if (!isPrepared(path)) {
    throw new OptionError("--output", `${path} is there and is no prepared model; name another file for ${model}`);
  }
}

async function makeFile(
  source: string,
  path: string,
  quantize: QuantizationType | null,
  { signal, tell }: StepOptions,
): Promise<Pick<PreparedBenchmark, "file" | "quantized">> {
  if (isPrepared(source)) {
    if (quantize !== null) {
      throw new OptionError("quantize", `${source} is a prepared file; give the GGUF file that it was made from`);
    }
    // One that is damaged is told here, and not copied.
    const made = sourceOf(source);
    if (existsSync(path) && isMadeFrom(path, made)) return { file: "kept", quantized: null };
    await writeFile(
      path,
      piecesOf(source, signal, (share) => tell("copying", share)),
    );
    return { file: "copied", quantized: null };
  }
  const preparing = (done: number, total: number) => tell("preparing", done / total);
  if (quantize === null) {
    if (existsSync(path) && isMadeFrom(path, await hashModel(source, signal))) return { file: "kept", quantized: null };
    await prepareModel(source, { output: path, signal, onProgress: preparing });
    return { file: "made", quantized: null };
  }
  const between = `${dirname(path)}/tinyai-${crypto.randomUUID().slice(-12)}.gguf`;
  const remove = () => rmSync(between, { force: true });
  process.once("exit", remove);
  try {
    const { bytesBefore, bytes } = await quantizeModel(source, between, {
      type: quantize,
      signal,
      onProgress: (done, total) => tell("quantizing", done / total),
    });
    await prepareModel(between, { output: path, signal, onProgress: preparing });
    return { file: "made", quantized: { type: quantize, bytesBefore, bytes } };
  } finally {
    remove();
    process.off("exit", remove);
  }
}

/** Whether a prepared file is whole and made from what has this hash; one that is damaged is made anew. */
function isMadeFrom(path: string, sha256: string): boolean {
  try {
    return sourceOf(path) === sha256;
  } catch (error) {
    if (error instanceof ModelFileError) return false;
    throw error;
  }
}

/** The hash of what a prepared file was made from. @throws {ModelFileError} if it is none, or damaged. */
function sourceOf(path: string): string {
  const file = openModelFile(path);
  if (isCopy(file)) return file.source.sha256;
  throw new ModelFileError(path, "file", "is no prepared file");
}

async function* piecesOf(
  path: string,
  signal: AbortSignal | undefined,
  onShare: (share: number) => void,
): AsyncGenerator<Uint8Array> {
  const file = Bun.file(path);
  let done = 0;
  for await (const piece of file.stream()) {
    signal?.throwIfAborted();
    yield piece;
    done += piece.length;
    onShare(done / file.size);
  }
}

/** The configuration's settings for this model. @throws {OptionError} if they do not suit it, as where its context is too short. */
async function checkSettings(
  path: string,
  config: BenchmarkConfig,
  signal: AbortSignal | undefined,
): Promise<Settings> {
  const subject = await openSubject(path, resolveSettings("inference", config), { signal });
  await subject.close();
  return resolveSettings("inference", config, {}, subject.embeds);
}

async function tune(path: string, seconds: number, { signal, tell }: StepOptions): Promise<PreparedBenchmark["tuned"]> {
  const { key, tuning } = await tuneModel(path, {
    budgetMs: Math.round(1000 * seconds),
    signal,
    onProgress: (share) => tell("trying settings", share),
  });
  signal?.throwIfAborted();
  if (!tuning) return null;
  await storeModelTuning(key, tuning);
  return { threads: tuning.threadCount, batchSize: tuning.batchSize, path: modelTuningPath(key) };
}

async function measureRoofs({ signal, tell }: StepOptions): Promise<string | null> {
  tell("measuring the machine", 0);
  const library = await openLibrary();
  const { index } = chooseLevel(library, undefined);
  const threads = defaultThreads();
  const roofs = await measureMachine(library, index, threads, () => signal?.aborted === true);
  signal?.throwIfAborted();
  return roofs ? roofsPath(library, index, threads) : null;
}
