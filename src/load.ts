// `loadModel`: ties the readers, the planner, the engine, the tokenizer and the profiler together into a Model.

import { existsSync, realpathSync, statSync } from "node:fs";
import { basename } from "node:path";
import manifest from "../package.json" with { type: "json" };
import { checkKeys, describe } from "./check.ts";
import type { EmbeddingShape } from "./embed/options.ts";
import { chooseLevel, cpu } from "./engine/cpu.ts";
import { Engine } from "./engine/engine.ts";
import {
  type Library,
  type MappedHead,
  type MappedWeights,
  mapHead,
  mapWeights,
  openLibrary,
} from "./engine/library.ts";
import { levelsOf } from "./engine/settings.ts";
import type { Tuning } from "./engine/tuning.ts";
import { EngineError, MemoryLimitError, OptionError } from "./errors.ts";
import type { Graph } from "./graph/graph.ts";
import { tunedTo } from "./knobs/cache.ts";
import { engineCpuPercent, ModelLimits, memoryLeft } from "./knobs/limits.ts";
import { levelsInWords, levelsOfSimd, type SimdState, startSimd } from "./knobs/simd.ts";
import { type CheckedLoadOptions, checkLoadOptions, type LoadOptions } from "./load-options.ts";
import { Model, type ModelParts } from "./loaded-model.ts";
import { contextMinimum, limitRemedy, planForMemory, planModel } from "./memory.ts";
import { buildGraph } from "./model/architectures/index.ts";
import { findBundled } from "./model/bundled.ts";
import { dataFilesOf, type ModelFile, type PackedWeights } from "./model/file.ts";
import { isPrepared, type ReadHead, readHead } from "./model/prepared.ts";
import { resolveModel } from "./model/resolve.ts";
import { findSettings, type ModelSettings } from "./model-tuning.ts";
import type { Plan } from "./plan/plan.ts";
import { screenProblem } from "./plan/screen.ts";
import { findModel, findPrepared, openSource, preparedPath, stampOf, startPreparing } from "./prepared.ts";
import { createTokenizer, type Tokenizer } from "./tokenizer/index.ts";
import { findTuning, mayTune, tuneWhenIdle } from "./tuning.ts";

const embeddingLengthKey = "tinyai.embedding.max_length";

/**
 * Opens a model. One that is inside the program, which `tinyai bundle` made, comes before files of that name.
 * @param model a path to a GGUF or `.tinyai` file or to a sentence-transformers folder, or the name of a model that `tinyai pull`
 * has brought.
 * @throws {ModelFileError} if the file is missing, damaged, or of a kind that is not supported.
 * @throws {OptionError} if an option is out of its bounds, or there is no model of that name.
 * @throws {EngineError} if the system refuses memory or threads.
 * @throws {LibraryError} if the native library is missing or of another version.
 * @example
 * await using model = await loadModel("gemma3-270m");
 * for await (const piece of model.stream("Once upon a time")) process.stdout.write(piece.text);
 */
export function loadModel(model: string, options: LoadOptions = {}): Promise<Model> {
  return load(model, options, true);
}

/** @internal The same of a model that is only measured: no analysis watches it. */
export function loadUnwatched(model: string, options: LoadOptions): Promise<Model> {
  return load(model, options, false);
}

async function load(model: string, options: LoadOptions, watched: boolean): Promise<Model> {
  const startedMs = performance.now();
  const checked = checkLoadOptions(model, options);
  options.signal?.throwIfAborted();
  // Before anything of the model counts.
  const left = memoryLeft(checked.limits.memoryPercent);
  const inside = findBundled(model);
  const path = inside?.path ?? resolveModel(model);
  let head: MappedHead | undefined;
  const read = async (): Promise<ReadHead> => {
    const opened = await openLibrary();
    return (copy, bytes, offset) => {
      head = mapHead(opened, copy, bytes, offset);
      return head?.bytes ?? readHead(copy, bytes, offset);
    };
  };
  const { file, stamp, preparation } = await findModel(path, checked.prepared, read, inside);
  // It has been checked from end to end; of the tokenizer's tables little is read again.
  head?.release();
  const library = await openLibrary();
  const { packedWeights } = file;
  if (packedWeights && packedWeights.bytes > left)
    throw new MemoryLimitError(path, packedWeights.bytes, Math.max(0, left), limitRemedy);
  // Packed weights come into memory while all that follows is being decided.
  const mapped = packedWeights && openWeights(library, file, packedWeights);
  let graph: Graph;
  let plan: Plan;
  let simd: SimdState;
  let settings: ModelSettings;
  let tuning: Tuning;
  try {
    graph = buildGraph(file);
    simd = startSimd(library, checked.simd);
    settings = findSettings(library, levelsOfSimd(simd).matmul, file, checked);
    tuning = tunedTo(settings.found.tuning, checked.cache);
    plan = planModel(file, graph, checked, { library, threadCount: settings.threadCount, limit: left });
  } catch (error) {
    mapped?.close();
    throw error;
  }
  const contextLength = plan.options.contextMax;
  const levels = levelsOfSimd(simd);
  const { threadCount, found } = settings;
  // The engine's threads read weights while this one builds the tokenizer.
  const starting = Engine.create(library, plan, {
    threadCount,
    levels,
    affinity: checked.affinity,
    cpuPercent: engineCpuPercent(checked.limits.cpuPercent),
    tuning,
    events: false,
    sourcePaths: dataFilesOf(file).map((part) => part.path),
    mapped,
    onLoadProgress: options.onProgress,
    signal: options.signal,
  });
  let tokenizer: Tokenizer;
  try {
    tokenizer = createModelTokenizer(file, graph.vocabulary);
  } catch (error) {
    await starting.then((engine) => engine.close()).catch(() => {});
    throw error;
  }
  const engine = await starting;
  const preparing =
    stamp && preparation.state === "making"
      ? startPreparing(preparation.path, { file, stamp, plan, weights: engine.weights }, options.signal)
      : { state: preparation, done: Promise.resolve() };
  // The machine is measured beside the first copy that is made on it, unless that would use more CPU time than the model may.
  const unlimited = checked.limits.cpuPercent === 100;
  const tunes =
    preparation.state === "making" &&
    found.source === "fixed" &&
    checked.tuning === "measured" &&
    unlimited &&
    mayTune();
  let closing = false;
  const surroundings = { busy: () => engine.pending > 0, closing: () => closing };
  const tuned = tunes
    ? preparing.done.then(() => tuneWhenIdle(library, levels.matmul, threadCount, surroundings))
    : preparing.done;
  return new Model({
    path,
    source: inside ? model : path,
    name: basename(inside ? model : path),
    library,
    run: describeRun(file, graph, plan, { library, simd }, { ...checked, threadCount }, found.source),
    file,
    stamp,
    preparing,
    settle: () => {
      closing = true;
      return tuned;
    },
    engine,
    limits: new ModelLimits(engine, checked.limits),
    tokenizer,
    embedding: embeddingOf(file, graph, plan),
    plan,
    simd,
    cache: { choice: checked.tuning, found, given: checked.cache },
    contextLength,
    batchSize: plan.options.batchMax,
    prefixCache: checked.keptBytesMax !== 0,
    sessions: { count: 0 },
    loadOptions: checked,
    settings,
    loadMs: performance.now() - startedMs,
    watched,
  });
}

function openWeights(
  library: Library,
  { path, startsAt = 0 }: ModelFile,
  { offset, bytes }: PackedWeights,
): MappedWeights {
  const mapped = mapWeights(library, path, startsAt + offset, bytes);
  if (mapped) return mapped;
  throw new EngineError(
    `${path}: the system refused to map its ${Math.ceil(bytes / 1e6)} MB; raise the limit (ulimit -v)`,
  );
}

/** Options of `prepareModel`. */
export interface PrepareOptions {
  /** Where the prepared file is written. Default its place in the cache, where opening the model finds it. */
  readonly output?: string | undefined;
  /** Called with bytes written and in all. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** A prepared file, and whether it was made now or found whole. */
export interface PreparedModel {
  readonly path: string;
  readonly bytes: number;
  readonly made: boolean;
}

/**
 * Makes a model's prepared file: the matrices as the engine reads them, the tokenizer's tables flat. Opening it maps it.
 * @param model a path to a GGUF file or a sentence-transformers folder, or the name of a pulled model.
 * @throws {ModelFileError} if the file is missing, damaged, or of a kind that is not supported.
 * @throws {OptionError} if an option is out of its bounds, or there is no model of that name.
 * @throws {EngineError} if there is not the memory or the disk for it, or another process is making it.
 */
export async function prepareModel(model: string, options: PrepareOptions = {}): Promise<PreparedModel> {
  checkKeys("options", options, ["output", "onProgress", "signal"]);
  const { output, onProgress, signal } = options;
  if (output !== undefined && (typeof output !== "string" || output.length === 0 || output.includes("\0"))) {
    throw new OptionError("output", `is ${describe(output)}; a path is expected`);
  }
  const checked = checkLoadOptions(model, { batchSize: 1, onProgress, signal });
  const source = resolveModel(model);
  const stamp = stampOf(source);
  if (!stamp) throw new OptionError("model", `there is no file ${describe(source)}`);
  if (isPrepared(source)) throw new OptionError("model", "is a prepared file already");
  const path = output ?? preparedPath(source);
  if (output !== undefined && existsSync(output) && realpathSync(output) === realpathSync(source)) {
    throw new OptionError("output", "is the model itself; name another file");
  }
  const found = output === undefined ? await findPrepared(source, stamp, readHead) : undefined;
  if (found) return { path, bytes: found.byteLength, made: false };
  const file = openSource(source);
  const graph = buildGraph(file);
  createModelTokenizer(file, graph.vocabulary);
  const library = await openLibrary();
  const { threadCount } = checked;
  const short = { ...checked, contextLength: Math.min(contextMinimum, graph.contextLength) };
  const plan = planForMemory(file, graph, short, { library, threadCount, limit: Number.POSITIVE_INFINITY });
  const engine = await Engine.create(library, plan, {
    threadCount,
    levels: levelsOf(chooseLevel(library, undefined).index),
    affinity: undefined,
    events: false,
    sourcePaths: dataFilesOf(file).map((part) => part.path),
    signal,
  });
  try {
    const { writePrepared } = await import("./prepare.ts");
    const reason = await writePrepared(path, { file, stamp, plan, weights: engine.weights }, { onProgress, signal });
    if (reason !== undefined) throw new EngineError(`${path}: was not made: ${reason}`);
  } finally {
    await engine.close();
  }
  const { index } = chooseLevel(library, undefined);
  const tunes = mayTune() && checked.tuning === "measured";
  if (tunes && findTuning(library, index, threadCount, "measured").source === "fixed") {
    await tuneWhenIdle(library, index, threadCount, { busy: () => false, closing: () => false });
  }
  return { path, bytes: statSync(path).size, made: true };
}

function createModelTokenizer(file: ModelFile, vocabulary: number): Tokenizer {
  const tokenizer = createTokenizer(file.metadata);
  if (tokenizer.vocabularySize === vocabulary) return tokenizer;
  const problem = `has ${tokenizer.vocabularySize} tokens, but the model's head has ${vocabulary} rows`;
  throw file.metadata.error("tokenizer.ggml.tokens", problem);
}

/** What the model's vectors are like, as its file says; undefined if it gives none. */
function embeddingOf(file: ModelFile, graph: Graph, plan: Plan): EmbeddingShape | undefined {
  const { embeddingWidth: width, options } = plan;
  if (width === undefined) return undefined;
  const lengthMax = file.metadata.integer(embeddingLengthKey, { minimum: 2 }, options.contextMax);
  return {
    width,
    pooling: graph.pooling ?? "mean",
    normalise: graph.normalise,
    lengthMax: Math.min(lengthMax, options.contextMax),
  };
}

/** What reports say of a model, read when one is made. */
function describeRun(
  file: ModelFile,
  graph: Graph,
  plan: Plan,
  { library, simd }: Pick<ModelParts, "library" | "simd">,
  checked: CheckedLoadOptions,
  tuning: "measured" | "fixed",
): ModelParts["run"] {
  return () => ({
    architecture: file.metadata.string("general.architecture"),
    weightsBytes: plan.weightsBytes,
    level: levelsInWords({ library, plan, simd }),
    threads: checked.threadCount,
    contextLength: plan.options.contextMax,
    batchSize: plan.options.batchMax,
    options: {
      screening: plan.options.screening === true,
      screeningProblem: screenProblem(graph) ?? null,
      kvCache: plan.options.kvDtype === "Q8_0" ? "q8_0" : "f16",
      prefixCache: checked.keptBytesMax !== 0,
      prepared: checked.prepared,
      tuning,
      widestLevel: simd.level.widest,
      usableCpus: cpu.cores,
    },
    version: manifest.version,
  });
}
