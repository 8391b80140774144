// `loadModel`: ties the readers, the planner, the engine, the tokenizer and the profiler together into a Model.

import { existsSync, realpathSync, statSync } from "node:fs";
import { basename } from "node:path";
import manifest from "../package.json" with { type: "json" };
import { checkKeys, describe } from "./check.ts";
import type { EmbeddingShape } from "./embed/options.ts";
import { type ChosenLevel, chooseLevel, cpu } from "./engine/cpu.ts";
import { Engine } from "./engine/engine.ts";
import {
  type Library,
  type MappedHead,
  type MappedWeights,
  mapHead,
  mapWeights,
  openLibrary,
} from "./engine/library.ts";
import { EngineError, OptionError } from "./errors.ts";
import type { Graph } from "./graph/graph.ts";
import { type CheckedLoadOptions, checkLoadOptions, type LoadOptions } from "./load-options.ts";
import { Model, type ModelParts } from "./loaded-model.ts";
import { checkHeadWidths, contextMinimum, planForMemory } from "./memory.ts";
import { buildGraph } from "./model/architectures/index.ts";
import { findBundled } from "./model/bundled.ts";
import { dataFilesOf, type ModelFile, type PackedWeights } from "./model/file.ts";
import { isPrepared, type ReadHead, readHead } from "./model/prepared.ts";
import { resolveModel } from "./model/resolve.ts";
import { stepRowsMax } from "./plan/layout.ts";
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
export async function loadModel(model: string, options: LoadOptions = {}): Promise<Model> {
  const startedMs = performance.now();
  const checked = checkLoadOptions(model, options);
  options.signal?.throwIfAborted();
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
  // Packed weights come into memory while all that follows is being decided.
  const mapped = file.packedWeights && openWeights(library, file, file.packedWeights);
  let graph: Graph;
  let plan: Plan;
  let level: ChosenLevel;
  try {
    graph = buildGraph(file);
    if (checked.contextLength !== undefined && checked.contextLength > graph.contextLength) {
      const problem = `is ${checked.contextLength}, but the model was made for ${graph.contextLength} positions`;
      throw new OptionError("contextLength", problem);
    }
    if (checked.contextLength !== undefined && checked.contextLength > stepRowsMax && !graph.causal) {
      const problem = `is ${checked.contextLength}, but a text that is computed whole has at most ${stepRowsMax} positions`;
      throw new OptionError("contextLength", problem);
    }
    checkHeadWidths(graph, checked.kvDtype);
    const problem = checked.screening ? screenProblem(graph) : undefined;
    if (problem !== undefined) throw new OptionError("screening", `is true, but ${problem}; leave it out`);
    level = chooseLevel(library, checked.simdLevel);
    plan = planForMemory(file, graph, checked);
  } catch (error) {
    mapped?.close();
    throw error;
  }
  const contextLength = plan.options.contextMax;
  const { tuning, source } = findTuning(library, level.index, checked.threadCount, checked.tuning);
  // The engine's threads read weights while this one builds the tokenizer.
  const starting = Engine.create(library, plan, {
    threadCount: checked.threadCount,
    level: level.index,
    affinity: checked.affinity,
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
  // The machine is measured beside the first copy that is made on it.
  const tunes = preparation.state === "making" && source === "fixed" && checked.tuning === "measured" && mayTune();
  let closing = false;
  const surroundings = { busy: () => engine.pending > 0, closing: () => closing };
  const tuned = tunes
    ? preparing.done.then(() => tuneWhenIdle(library, level.index, checked.threadCount, surroundings))
    : preparing.done;
  return new Model({
    path,
    name: basename(inside ? model : path),
    library,
    run: describeRun(file, graph, plan, level, checked, source),
    file,
    preparing,
    settle: () => {
      closing = true;
      return tuned;
    },
    engine,
    tokenizer,
    embedding: embeddingOf(file, graph, plan),
    plan,
    level,
    contextLength,
    batchSize: plan.options.batchMax,
    prefixCache: checked.keptBytesMax > 0,
    loadMs: performance.now() - startedMs,
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
  const plan = planForMemory(file, graph, { ...checked, contextLength: Math.min(contextMinimum, graph.contextLength) });
  const engine = await Engine.create(library, plan, {
    threadCount: checked.threadCount,
    level: chooseLevel(library, undefined).index,
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
  if (tunes && findTuning(library, index, checked.threadCount, "measured").source === "fixed") {
    await tuneWhenIdle(library, index, checked.threadCount, { busy: () => false, closing: () => false });
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
  level: ChosenLevel,
  checked: CheckedLoadOptions,
  tuning: "measured" | "fixed",
): ModelParts["run"] {
  return () => ({
    architecture: file.metadata.string("general.architecture"),
    weightsBytes: plan.weightsBytes,
    level: level.name,
    threads: checked.threadCount,
    contextLength: plan.options.contextMax,
    batchSize: plan.options.batchMax,
    options: {
      screening: checked.screening,
      screeningProblem: screenProblem(graph) ?? null,
      kvCache: checked.kvDtype === "F16" ? "f16" : "q8_0",
      prefixCache: checked.keptBytesMax > 0,
      prepared: checked.prepared,
      tuning,
      widestLevel: level.widest,
      usableCpus: cpu.cores,
    },
    version: manifest.version,
  });
}
