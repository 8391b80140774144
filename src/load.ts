// `loadModel`: ties the readers, the planner, the engine, the tokenizer and the profiler together into a Model.

import { existsSync, readFileSync, realpathSync, statSync } from "node:fs";
import { freemem } from "node:os";
import { basename } from "node:path";
import manifest from "../package.json" with { type: "json" };
import type { OpInfo } from "../profiler/events.ts";
import type { RunInfo } from "../profiler/report.ts";
import { checkBoolean, checkInteger, checkKeys, describe } from "./check.ts";
import type * as embedModule from "./embed/embed.ts";
import type { EmbedInput } from "./embed/embed.ts";
import type { Matrix } from "./embed/matrix.ts";
import type { EmbeddingShape, EmbedOptions, EmbedStreamOptions } from "./embed/options.ts";
import { type ChosenLevel, chooseLevel, cpu, usableCpus } from "./engine/cpu.ts";
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
import {
  complete,
  encodePrompt,
  type GenerateResult,
  type Generator,
  type Piece,
  type Prompt,
  streamTokens,
} from "./generate/generate.ts";
import { type CheckedOptions, checkGenerateOptions, type GenerateOptions } from "./generate/options.ts";
import { type ScoreOptions, type ScoreResult, scoreTokens } from "./generate/score.ts";
import type { Session, SessionModel } from "./generate/session.ts";
import type { Graph } from "./graph/graph.ts";
import { buildGraph } from "./model/architectures/index.ts";
import { findBundled } from "./model/bundled.ts";
import { dataFilesOf, type ModelFile, type PackedWeights } from "./model/file.ts";
import { isPrepared, type ReadHead, readHead } from "./model/prepared.ts";
import { resolveModel } from "./model/resolve.ts";
import { type KvDType, kvBlock } from "./plan/formats.ts";
import { sequencesMax, stepRowsMax } from "./plan/layout.ts";
import { type Plan, planProgram } from "./plan/plan.ts";
import { screenProblem } from "./plan/screen.ts";
import {
  findModel,
  findPrepared,
  openSource,
  type Preparation,
  type Preparing,
  preparedPath,
  sourceHash,
  stampOf,
  startPreparing,
} from "./prepared.ts";
import type * as profilingModule from "./profiling/index.ts";
import type { Monitor, MonitorOptions, ProfiledRun, ProfileOptions, Recorded, Recording } from "./profiling/index.ts";
import type { ChatMessage } from "./tokenizer/chat.ts";
import { createTokenizer, type Tokenizer } from "./tokenizer/index.ts";
import { chooseTuning, findTuning, mayTune, type TuningChoice, tuneWhenIdle } from "./tuning.ts";
import { modelClosing, modelOpened, type WatchedModel } from "./watched.ts";

/** Options of `loadModel`. */
export interface LoadOptions {
  readonly threads?:
    | {
        /** Threads that compute, at most the CPUs this process may use, which is the default. */
        readonly count?: number | undefined;
        /** The CPU of each thread; threads stay where the system puts them if not given. */
        readonly affinity?: readonly number[] | undefined;
      }
    | undefined;
  readonly simd?:
    | {
        /** 0 scalar, 1 128-bit, 2 256-bit, 3 the widest (default). `TINYAI_SIMD` wins over it. */
        readonly level?: number | undefined;
      }
    | undefined;
  /** Positions a sequence may have. Default the model's own limit, or less where memory is short. */
  readonly contextLength?: number | undefined;
  /** Sequences that run in one step at most, 1 to 64. Default 16, or 64 for a model that only embeds. */
  readonly batchSize?: number | undefined;
  /**
   * Whether prompts that begin with tokens which another sequence has computed start from its keys and values, also after
   * that sequence has ended: the result is the same, its first token comes sooner. What ended sequences leave is kept in
   * memory that no running one needs, up to `maxBytes`; the longest unused gives way. Default true, with 256 MiB.
   */
  readonly prefixCache?: boolean | { readonly maxBytes?: number | undefined } | undefined;
  /**
   * How keys and values are kept: "f16", or "q8_0", which takes little more than half the memory and rounds them to 8 bits.
   * The latter needs heads whose width is a multiple of 32, as all but the oddest models have. Default "f16".
   */
  readonly kvCache?: "f16" | "q8_0" | undefined;
  /**
   * Whether the model's prepared copy in the cache is used, and made after the first opening. It opens in a fraction of the
   * time and is shared between processes. Default true.
   */
  readonly prepared?: boolean | undefined;
  /**
   * Whether kernels work as was measured to be best on this machine, or as a table says, which is also what is done where
   * nothing was measured. No result depends on it. Default "measured"; `TINYAI_TUNING=off` wins over it.
   */
  readonly tuning?: TuningChoice | undefined;
  /**
   * Whether the output head is screened: most of its rows are ruled out by a copy with half the bytes, and only the others are
   * read. The tokens are the same, bit for bit; they come sooner where the vocabulary is large. It holds for draws that take the
   * most likely token (`temperature: 0`) or one of the `topK` most likely (1 to 256), in steps of few sequences; what their
   * tokens' log-probabilities are is then not known, unless `topLogprobs` asks for some. The copy takes memory
   * (`plan.screenBytes`) and is made while the model loads. Heads in Q8_0 and Q6_K have a screen. Default false.
   */
  readonly screening?: boolean | undefined;
  /** Called while the model is being loaded, with bytes done and in all. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

const embeddingLengthKey = "tinyai.embedding.max_length";
const batchSizeDefault = 16;
const keptBytesDefault = 256 * 2 ** 20;
/** Kept keys and values take at most this part of what memory is free. */
const keptPart = 1 / 8;
/** Where memory is short, a context is not halved below this many positions. */
const contextMinimum = 512;
/** Rows of a step: enough that each weight read from memory is used many times, few enough that others wait at most for one. */
const stepRows = 256;
/** The same where texts are computed whole, whose steps nobody waits for to draw a token. Longer texts have a step to themselves. */
const encoderStepRows = 512;
/** Rows of logits of a step: with Gemma's vocabulary each takes 1 MB. */
const scoreRows = 32;

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

interface ModelParts {
  readonly path: string;
  /** What reports call it. */
  readonly name: string;
  readonly library: Library;
  /** What reports say of it; asked for when one is made. */
  readonly run: () => Omit<RunInfo, "startedAt" | "wallMs" | "model">;
  readonly file: ModelFile;
  readonly preparing: Preparing;
  /** Lets what is being prepared or measured come to an end, never with an error. */
  readonly settle: () => Promise<void>;
  readonly engine: Engine;
  readonly tokenizer: Tokenizer;
  readonly plan: Plan;
  readonly level: ChosenLevel;
  readonly contextLength: number;
  readonly embedding: EmbeddingShape | undefined;
  readonly batchSize: number;
  readonly prefixCache: boolean;
  readonly loadMs: number;
}

/** A loaded model. Close it when done, best with `await using`. */
export class Model implements AsyncDisposable {
  readonly #parts: ModelParts;
  #recording: Recording | undefined;
  /** Whether it is an analysis of all models that records. */
  #analysed = false;
  readonly #watched: WatchedModel = {
    start: (options) => {
      this.#startRecording(options);
      this.#analysed = true;
    },
    finish: () => this.#report(this.#stopRecording()),
    cancel: () => this.#stopRecording(),
  };
  readonly #monitors = new Set<Monitor>();
  #sourceHash: Promise<string> | undefined;

  /** @internal `loadModel` makes models. */
  constructor(parts: ModelParts) {
    this.#parts = parts;
    modelOpened(this.#watched);
  }

  /** The file it was loaded from: the program itself, if that has it inside. */
  get path(): string {
    return this.#parts.path;
  }

  /** Turns texts into the model's tokens and back. */
  get tokenizer(): Tokenizer {
    return this.#parts.tokenizer;
  }

  /** Positions a sequence may have. */
  get contextLength(): number {
    return this.#parts.contextLength;
  }

  /** Values of a text's vector; undefined for a model that gives none. */
  get embeddingWidth(): number | undefined {
    return this.#parts.embedding?.width;
  }

  /** Tokens of a text that its vector is made of at most, special ones included; undefined for a model that gives none. */
  get embeddingLength(): number | undefined {
    return this.#parts.embedding?.lengthMax;
  }

  /** Sequences that run in one step at most. */
  get batchSize(): number {
    return this.#parts.batchSize;
  }

  /** Threads that compute. */
  get threadCount(): number {
    return this.#parts.engine.threadCount;
  }

  /** The instruction-set level in use and why. */
  get simdLevel(): { readonly name: string; readonly reason: string } {
    return this.#parts.level;
  }

  /** How the model's prepared copy stands: whether it was used, or is being made, or why there is none. */
  get preparation(): Preparation {
    return this.#parts.preparing.state;
  }

  /** How long loading took. */
  get loadMs(): number {
    return this.#parts.loadMs;
  }

  /** What runs, in order, and what memory it takes. */
  get plan(): Plan {
    return this.#parts.plan;
  }

  /**
   * Generates to the end. Several prompts run side by side and come back in their order; each gives what it gives alone.
   * @throws {OptionError} for options or prompts out of bounds, before any work.
   */
  generate(prompt: Prompt, options?: GenerateOptions): Promise<GenerateResult>;
  generate(prompts: readonly Prompt[], options?: GenerateOptions): Promise<GenerateResult[]>;
  async generate(
    input: Prompt | readonly Prompt[],
    options: GenerateOptions = {},
  ): Promise<GenerateResult | GenerateResult[]> {
    this.#checkGenerates();
    const checked = checkGenerateOptions(options, this.batchSize);
    if (!isBatch(input)) return complete(await this.#start(input, checked, "prompt"));
    const encoded: Awaited<ReturnType<typeof encodePrompt>>[] = [];
    for (const [index, prompt] of input.entries()) {
      encoded.push(await encodePrompt(this.#generator, prompt, checked, `prompt[${index}]`));
    }
    const results = new Array<GenerateResult>(encoded.length);
    // The first failure ends the whole batch.
    const failure = new AbortController();
    const signal = checked.signal ? AbortSignal.any([checked.signal, failure.signal]) : failure.signal;
    let next = 0;
    const lane = async () => {
      for (let index = next++; index < encoded.length; index = next++) {
        const prompt = encoded[index];
        if (prompt) results[index] = await complete(streamTokens(this.#generator, prompt, { ...checked, signal }));
      }
    };
    const lanes = Array.from({ length: Math.min(checked.batchSize, encoded.length) }, lane);
    await Promise.all(lanes).catch((error: unknown) => {
      failure.abort(error);
      throw error;
    });
    return results;
  }

  /**
   * Generates piece by piece. Leaving the loop ends the generation.
   * @throws {OptionError} as `generate`, when the first piece is asked for.
   */
  async *stream(prompt: Prompt, options: GenerateOptions = {}): AsyncGenerator<Piece, GenerateResult, undefined> {
    this.#checkGenerates();
    const checked = checkGenerateOptions(options, this.batchSize);
    return yield* await this.#start(prompt, checked, "prompt");
  }

  /** A new session: a text that grows turn by turn and can be saved to a file. */
  async session(): Promise<Session> {
    this.#checkGenerates();
    const { Session } = await import("./generate/session.ts");
    return new Session(this.#sessionModel);
  }

  /**
   * A session that was saved to a file. Its first turn computes nothing of what the file holds.
   * @throws {SessionFileError} if the file cannot be read, is damaged or cut short, or was saved with another model, another
   * instruction-set level, or another layout of keys and values.
   */
  async loadSession(path: string): Promise<Session> {
    this.#checkGenerates();
    const { Session } = await import("./generate/session.ts");
    return Session.load(this.#sessionModel, path);
  }

  /** Log-probabilities of a text's own tokens, or of tokens as they are. */
  async score(text: string | Uint32Array, options: ScoreOptions = {}): Promise<ScoreResult> {
    this.#checkGenerates();
    if (typeof text !== "string" && !(text instanceof Uint32Array)) {
      throw new OptionError("text", `is ${describe(text)}; a text or a Uint32Array of tokens is expected`);
    }
    const tokens = typeof text === "string" ? this.tokenizer.encode(text, { addSpecial: true }) : text;
    return scoreTokens(this.#generator, tokens, options);
  }

  /**
   * Vectors of texts, or of tokens as they are: the more alike two texts are, the larger their vectors' cosine (`similarity`). Texts
   * run side by side; each gives what it gives alone. A list of texts gives a list of vectors, or a matrix of them.
   * @throws {OptionError} for options or texts out of bounds, or a model that gives no vectors.
   * @example
   * const [a, b] = await model.embed(["The cat sleeps.", "A kitten is napping."]);
   */
  embed(text: EmbedInput, options?: EmbedOptions): Promise<Float32Array>;
  embed(texts: readonly EmbedInput[], options: EmbedOptions & { readonly as: "matrix" }): Promise<Matrix>;
  embed(
    texts: readonly EmbedInput[],
    options?: EmbedOptions & { readonly as?: "vectors" | undefined },
  ): Promise<Float32Array[]>;
  async embed(
    input: EmbedInput | readonly EmbedInput[],
    options: EmbedOptions = {},
  ): Promise<Float32Array | Float32Array[] | Matrix> {
    const embedder = this.#embedder;
    const { embedList, embedOne }: typeof embedModule = require("./embed/embed.ts");
    return isList(input) ? embedList(embedder, input, options) : embedOne(embedder, input, options);
  }

  /**
   * Vectors of any number of texts, in their order and in bounded memory: texts are taken from the iterable as vectors are taken from
   * the stream. Leaving the loop ends it.
   * @throws {OptionError} as `embed`, in the text's place; for options when the first vector is asked for.
   * @example
   * for await (const vector of model.embedStream(readLines("texts.txt"))) store(vector);
   */
  async *embedStream(
    texts: Iterable<EmbedInput> | AsyncIterable<EmbedInput>,
    options: EmbedStreamOptions = {},
  ): AsyncGenerator<Float32Array, void, undefined> {
    const embedder = this.#embedder;
    const { embedStream }: typeof embedModule = require("./embed/embed.ts");
    yield* embedStream(embedder, texts, options);
  }

  /**
   * Begins to record where time and bytes go.
   * @param options what is recorded; all is by default, and the system every 250 ms (`sampleIntervalMs`).
   * @throws {EngineError} if recording has begun already, or an analysis records the model.
   * @throws {OptionError} if an option is out of its bounds.
   */
  startProfiling(options: ProfileOptions = {}): void {
    this.#checkNotAnalysed();
    this.#startRecording(options);
  }

  #startRecording(options: ProfileOptions): void {
    if (this.#recording) throw new EngineError("profiling has already been started; stop it first");
    checkProfileOptions(options);
    const { engine, library, plan, level, name, run } = this.#parts;
    const { Recording, countedOps, opSignatures }: typeof profilingModule = require("./profiling/index.ts");
    const ops = countedOps(describeOps(plan, level.name), opSignatures(plan.program));
    const model = { library, engine, level: level.index, ops, run: { model: name, ...run() } };
    this.#recording = new Recording(model, options);
  }

  /**
   * Ends recording and gives what was recorded. Steps are run once more to count their loads and stores, a few to simulate caches,
   * which takes a moment; `profile` does it in turns with the event loop. The machine's roofs are in it if they were measured
   * before.
   * @throws {EngineError} if recording has not begun, or an analysis records the model.
   */
  stopProfiling(): ProfiledRun {
    this.#checkNotAnalysed();
    const { profiledRun }: typeof profilingModule = require("./profiling/index.ts");
    const recorded = this.#stopRecording();
    return profiledRun(recorded.report(this.#knownRoofs(recorded)), recorded.trace);
  }

  /** The same in turns with the event loop. @throws {EngineError} as `stopProfiling`. */
  async finishProfiling(): Promise<ProfiledRun> {
    this.#checkNotAnalysed();
    return this.#report(this.#stopRecording());
  }

  /** Ends recording without a report. @throws {EngineError} as `stopProfiling`. */
  cancelProfiling(): void {
    this.#checkNotAnalysed();
    this.#stopRecording();
  }

  /**
   * Profiles what happens while `work` runs.
   * @param options what is recorded; all is by default, and the system every 250 ms (`sampleIntervalMs`).
   * @throws {OptionError} if `work` is no function, or an option is out of its bounds.
   * @throws {EngineError} if the model is being profiled already, or `work` ended the recording.
   * @throws whatever `work` throws; nothing is recorded any more then.
   */
  async profile(work: () => Promise<unknown> | unknown, options: ProfileOptions = {}): Promise<ProfiledRun> {
    if (typeof work !== "function") {
      const what = (work as unknown) instanceof Promise ? "a promise, whose work has begun" : describe(work);
      throw new OptionError("work", `is ${what}; give a function that does the work: model.profile(() => …)`);
    }
    this.startProfiling(options);
    const recording = this.#recording;
    try {
      await work();
    } catch (error) {
      // Work that ended it itself fails with its own error too.
      if (this.#recording === recording) this.#stopRecording();
      throw error;
    }
    if (this.#recording !== recording) {
      throw new EngineError("the work ended the recording that `profile` had begun; let `profile` end it");
    }
    const { library, engine, level } = this.#parts;
    const { machineRoofs, profiledRun }: typeof profilingModule = require("./profiling/index.ts");
    const recorded = this.#stopRecording();
    const wantsRoofs = options.roofline !== false && options.deterministic !== true && options.time !== false;
    const giveUp = () => engine.pending > 0;
    const roofs = wantsRoofs ? await machineRoofs(library, level.index, engine.threadCount, giveUp) : undefined;
    return profiledRun(await recorded.reportInTurns(roofs), recorded.trace);
  }

  /**
   * Watches the model for as long as the process runs: times by op, kind and phase, and requests, of the last windows of time and of
   * everything, in memory that does not grow. Profiles may be taken meanwhile. It ends with `close`, and with the model.
   * @throws {OptionError} if an option is out of its bounds.
   * @example
   * using monitor = model.monitor({ windowMs: 60_000 });
   * await model.generate("Once upon a time");
   * console.log(monitor.everything().firstTokens.p99Ns / 1e6);
   */
  monitor(options: MonitorOptions = {}): Monitor {
    checkMonitorOptions(options);
    const { library, engine, name, run } = this.#parts;
    const { Monitor, nativeMemory }: typeof profilingModule = require("./profiling/index.ts");
    const { architecture, level, version, threads } = run();
    const watched = {
      engine,
      ops: describeOps(this.#parts.plan, this.#parts.level.name),
      model: { model: options.name ?? name, architecture, level, version, threads },
      memory: () => ({
        residentBytes: process.memoryUsage.rss(),
        nativeBytes: nativeMemory(library).liveBytes,
      }),
    };
    const monitor: Monitor = new Monitor(watched, options, () => this.#monitors.delete(monitor));
    this.#monitors.add(monitor);
    return monitor;
  }

  async #report(recorded: Recorded): Promise<ProfiledRun> {
    const { profiledRun }: typeof profilingModule = require("./profiling/index.ts");
    return profiledRun(await recorded.reportInTurns(this.#knownRoofs(recorded)), recorded.trace);
  }

  #knownRoofs({ options }: Recorded) {
    const { library, engine, level } = this.#parts;
    const { findRoofs }: typeof profilingModule = require("./profiling/index.ts");
    const wanted = options.roofline !== false && options.time !== false;
    return wanted ? findRoofs(library, level.index, engine.threadCount) : undefined;
  }

  #stopRecording(): Recorded {
    const recording = this.#recording;
    if (!recording) throw new EngineError("profiling has not been started");
    this.#recording = undefined;
    this.#analysed = false;
    return recording.stop();
  }

  #checkNotAnalysed(): void {
    if (!this.#analysed) return;
    throw new EngineError(
      "an analysis (createPerformanceAnalysis) records this model until it is closed; use its generateReport, or close it first",
    );
  }

  /** Ends what is running and frees the model's memory, once its prepared copy is made if that was begun. */
  async close(): Promise<void> {
    try {
      await modelClosing(this.#watched);
    } finally {
      await this.#parts.settle();
      for (const monitor of this.#monitors) monitor.close();
      await this.#parts.engine.close();
    }
  }

  /** As `close`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  get #generator(): Generator {
    return this.#parts;
  }

  get #embedder(): embedModule.Embedder {
    const { embedding } = this.#parts;
    if (embedding) return { ...this.#parts, embedding };
    throw new OptionError("model", `${basename(this.path)} gives no vectors; load an embedder, or a language model`);
  }

  #checkGenerates(): void {
    if (!this.#parts.plan.wholePrompts) return;
    const problem = `${basename(this.path)} makes vectors of texts and no texts; call embed (\`tinyai embed\`)`;
    throw new OptionError("model", `${problem}, or load a language model`);
  }

  get #sessionModel(): SessionModel {
    const { file, plan, level } = this.#parts;
    const binding = async () => {
      this.#sourceHash ??= sourceHash(file);
      return { model: await this.#sourceHash, level: level.name, groups: plan.kvGroups };
    };
    return { ...this.#parts, binding };
  }

  async #start(prompt: Prompt, checked: CheckedOptions, option: string) {
    return streamTokens(this.#generator, await encodePrompt(this.#generator, prompt, checked, option), checked);
  }
}

/** Texts and token lists are prompts, and so is a list of messages; a list of prompts is a batch. */
function isBatch(input: Prompt | readonly Prompt[]): input is readonly Prompt[] {
  if (!Array.isArray(input)) return false;
  const [first]: readonly (Prompt | ChatMessage | undefined)[] = input;
  return input.length === 0 || typeof first === "string" || Array.isArray(first) || first instanceof Uint32Array;
}

function isList(input: EmbedInput | readonly EmbedInput[]): input is readonly EmbedInput[] {
  return Array.isArray(input);
}

/** The op list as the profiler wants it: costs by rows, where attention's rows are positions attended to, and a screened product's groups. */
function describeOps(plan: Plan, level: string): OpInfo[] {
  return plan.ops.map((op) => {
    const attends = op.kind === "attention" || op.kind === "encode";
    return {
      index: op.index,
      name: op.name,
      kind: op.kind,
      kernel: [op.kind, op.format, level].filter(Boolean).join("."),
      layer: op.layer,
      bytesPerStep: op.bytesPerStep,
      bytesPerRow: attends ? op.bytesPerPosition : op.bytesPerRow,
      operationsPerRow: attends ? op.operationsPerPosition : op.operationsPerRow,
    };
  });
}

/** What reports say of a model, read when one is made. */
function describeRun(
  file: ModelFile,
  graph: Graph,
  plan: Plan,
  level: ChosenLevel,
  checked: ReturnType<typeof checkLoadOptions>,
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

function checkProfileOptions(options: ProfileOptions): void {
  checkKeys("options", options, ["time", "cache", "roofline", "deterministic", "sampleIntervalMs"]);
  for (const name of ["time", "cache", "roofline", "deterministic"] as const) {
    if (options[name] !== undefined) checkBoolean(name, options[name]);
  }
  const { sampleIntervalMs } = options;
  if (sampleIntervalMs !== undefined && sampleIntervalMs !== 0) {
    checkInteger("sampleIntervalMs", sampleIntervalMs, 10, 60_000);
  }
}

function checkMonitorOptions(options: MonitorOptions): void {
  checkKeys("options", options, ["windowMs", "windows", "name"]);
  const { windowMs, windows, name } = options;
  if (windowMs !== undefined) checkInteger("windowMs", windowMs, 100, 86_400_000);
  if (windows !== undefined) checkInteger("windows", windows, 1, 10_000);
  if (name !== undefined && (typeof name !== "string" || name === "")) {
    throw new OptionError("name", `is ${describe(name)}; a text of at least one character is expected`);
  }
}

const loadKeys = [
  "threads",
  "simd",
  "contextLength",
  "batchSize",
  "prefixCache",
  "kvCache",
  "prepared",
  "tuning",
  "screening",
  "onProgress",
  "signal",
] as const;

function checkLoadOptions(model: unknown, options: LoadOptions) {
  if (typeof model !== "string" || model.length === 0 || model.includes("\0")) {
    throw new OptionError("model", `is ${describe(model)}; a path or the name of a model is expected`);
  }
  checkKeys("options", options, loadKeys);
  const { threads = {}, simd = {}, prepared = true, screening = false, onProgress, signal } = options;
  if (onProgress !== undefined && typeof onProgress !== "function") {
    throw new OptionError("onProgress", `is ${describe(onProgress)}; a function is expected`);
  }
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw new OptionError("signal", `is ${describe(signal)}; an AbortSignal is expected`);
  }
  checkKeys("threads", threads, ["count", "affinity"]);
  checkKeys("simd", simd, ["level"]);
  const threadCount =
    threads.count === undefined
      ? Math.min(cpu.cores, 64)
      : checkInteger("threads.count", threads.count, 1, Math.min(cpu.cores, 64));
  const affinity = checkAffinity(threads.affinity);
  if (affinity && affinity.length !== threadCount) {
    throw new OptionError(
      "threads.affinity",
      `names ${affinity.length} CPUs for ${threadCount} threads; name one for each`,
    );
  }
  return {
    threadCount,
    affinity,
    simdLevel: simd.level === undefined ? undefined : checkInteger("simd.level", simd.level, 0, 3),
    contextLength:
      options.contextLength === undefined
        ? undefined
        : checkInteger("contextLength", options.contextLength, 16, 1 << 24),
    batchSize:
      options.batchSize === undefined ? undefined : checkInteger("batchSize", options.batchSize, 1, sequencesMax),
    keptBytesMax: checkPrefixCache(options.prefixCache),
    kvDtype: checkKvCache(options.kvCache),
    prepared: checkBoolean("prepared", prepared),
    tuning: chooseTuning(checkTuning(options.tuning)),
    screening: checkBoolean("screening", screening),
  };
}

function checkTuning(option: unknown): TuningChoice | undefined {
  if (option === undefined || option === "measured" || option === "fixed") return option;
  throw new OptionError("tuning", `is ${describe(option)}; "measured" or "fixed" is expected`);
}

/** Bytes that may be kept; 0: nothing is. */
function checkPrefixCache(option: LoadOptions["prefixCache"] = true): number {
  if (typeof option === "boolean") return option ? keptBytesDefault : 0;
  if (typeof option !== "object" || option === null) {
    throw new OptionError("prefixCache", `is ${describe(option)}; true, false or an object with maxBytes is expected`);
  }
  checkKeys("prefixCache", option, ["maxBytes"]);
  return checkInteger("prefixCache.maxBytes", option.maxBytes ?? keptBytesDefault, 1, 2 ** 44);
}

function checkKvCache(option: unknown = "f16"): KvDType {
  if (option === "f16") return "F16";
  if (option === "q8_0") return "Q8_0";
  throw new OptionError("kvCache", `is ${describe(option)}; "f16" or "q8_0" is expected`);
}

function checkHeadWidths(graph: Graph, kvDtype: KvDType): void {
  const block = kvBlock(kvDtype);
  for (const node of graph.nodes) {
    if (node.kind !== "attention" || node.shape.headWidth % block === 0) continue;
    const widths = `needs heads whose width is a multiple of ${block}, and those of ${node.name} have ${node.shape.headWidth}`;
    throw new OptionError("kvCache", `is "${kvDtype.toLowerCase()}", which ${widths}; leave it out`);
  }
}

function checkAffinity(affinity: unknown): readonly number[] | undefined {
  if (affinity === undefined) return undefined;
  if (!Array.isArray(affinity)) {
    throw new OptionError("threads.affinity", `is ${describe(affinity)}; a list of CPU numbers is expected`);
  }
  const usable = usableCpus();
  return affinity.map((core: unknown, index) => {
    const option = `threads.affinity[${index}]`;
    const checked = checkInteger(option, core, 0, 1023);
    if (usable && !usable.includes(checked)) {
      throw new OptionError(option, `is ${checked}; this process may use the CPUs ${usable.join(", ")}`);
    }
    return checked;
  });
}

/** Memory that can be had without pushing others out: the system's estimate, and the control group's limit. */
function availableMemory(): number {
  let available = freemem();
  try {
    const line = /^MemAvailable:\s+(\d+) kB/m.exec(readFileSync("/proc/meminfo", "utf8"));
    if (line) available = Number(line[1]) * 1024;
    const limit = Number(readFileSync("/sys/fs/cgroup/memory.max", "utf8"));
    const used = Number(readFileSync("/sys/fs/cgroup/memory.current", "utf8"));
    // Cached files count as used but make room when memory is asked for.
    const statistics = readFileSync("/sys/fs/cgroup/memory.stat", "utf8");
    const cached = ["active_file", "inactive_file"].map((name) =>
      Number(new RegExp(`^${name} (\\d+)$`, "m").exec(statistics)?.[1] ?? 0),
    );
    const free = limit - used + cached.reduce((sum, bytes) => sum + bytes, 0);
    if (Number.isFinite(free)) available = Math.min(available, free);
  } catch {
    // Not Linux, or no control group: the system's figure stands.
  }
  return available;
}

/**
 * The plan for the context asked for; if none was, for the model's own, halved until a sequence of it fits into memory.
 * @throws {EngineError} if it does not fit.
 */
function planForMemory(file: ModelFile, graph: Graph, checked: ReturnType<typeof checkLoadOptions>): Plan {
  const available = availableMemory();
  const longest = graph.causal ? graph.contextLength : Math.min(graph.contextLength, stepRowsMax);
  let contextMax = checked.contextLength ?? longest;
  for (;;) {
    const planFor = (kvBytesMax: number) =>
      planProgram(graph, {
        contextMax,
        ...stepSizes(graph, contextMax, checked.batchSize),
        kvBytesMax,
        keptBytesMax: Math.min(checked.keptBytesMax, available * keptPart),
        kvDtype: checked.kvDtype,
        packedWeights: file.packedWeights,
        screening: checked.screening,
      });
    const roomy = planFor(available / 2);
    // What the weights leave; one sequence always has its pages.
    const left = available - ownBytes(roomy);
    const plan = left < available / 2 ? planFor(Math.max(0, left)) : roomy;
    const needed = ownBytes(plan) + plan.kvBytesPerSequence;
    if (needed <= available) return plan;
    if (checked.contextLength !== undefined || contextMax < 2 * contextMinimum)
      throw tooLarge(file.path, plan, needed, available);
    contextMax = Math.floor(contextMax / 2);
  }
}

/** What a step may have. */
function stepSizes(graph: Graph, contextMax: number, batchSize: number | undefined) {
  if (graph.causal) {
    const batchMax = batchSize ?? batchSizeDefault;
    const rowsMax = Math.max(stepRows, batchMax);
    return { batchMax, rowsMax, logitsRowsMax: Math.max(scoreRows, batchMax), chunkPositions: stepRows };
  }
  const batchMax = batchSize ?? sequencesMax;
  const rowsMax = Math.max(encoderStepRows, contextMax);
  return { batchMax, rowsMax, logitsRowsMax: batchMax, chunkPositions: encoderStepRows };
}

/** What a plan takes beside the KV cache. */
function ownBytes(plan: Plan): number {
  return plan.weightsBytes + plan.screenBytes + plan.constantsBytes + plan.arenaBytes;
}

function tooLarge(path: string, plan: Plan, needed: number, available: number): EngineError {
  const megabytes = (bytes: number) => `${Math.ceil(bytes / 1e6)} MB`;
  return new EngineError(
    `${path}: needs ${megabytes(needed)} of memory (${megabytes(plan.weightsBytes)} of weights, ${megabytes(plan.arenaBytes)} of activations, ` +
      `${megabytes(plan.kvBytesPerSequence)} of KV cache for ${plan.options.contextMax} positions), but ${megabytes(available)} are available; ` +
      "use a shorter context (contextLength, --context), keys and values of 8 bits (kvCache, --kv-cache q8_0), a smaller model, or free memory",
  );
}
