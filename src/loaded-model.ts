// A loaded model: what a user calls. Each thing it does is in a module of its own, loaded with the model only if every program needs it.

import { basename } from "node:path";
import type { OpInfo } from "../profiler/events.ts";
import type { RunInfo } from "../profiler/report.ts";
import { checkBoolean, checkInteger, checkKeys, describe } from "./check.ts";
import type * as embedModule from "./embed/embed.ts";
import type { EmbedInput } from "./embed/embed.ts";
import type { Matrix } from "./embed/matrix.ts";
import type { EmbeddingShape, EmbedOptions, EmbedStreamOptions } from "./embed/options.ts";
import type { ChosenLevel } from "./engine/cpu.ts";
import type { Engine } from "./engine/engine.ts";
import type { Library } from "./engine/library.ts";
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
import type { ModelFile } from "./model/file.ts";
import type { Plan } from "./plan/plan.ts";
import { type Preparation, type Preparing, sourceHash } from "./prepared.ts";
import type * as profilingModule from "./profiling/index.ts";
import type { Monitor, MonitorOptions, ProfiledRun, ProfileOptions, Recorded, Recording } from "./profiling/index.ts";
import type { ChatMessage } from "./tokenizer/chat.ts";
import type { Tokenizer } from "./tokenizer/index.ts";
import { modelClosing, modelOpened, type WatchedModel } from "./watched.ts";

/** What a model is made of. */
export interface ModelParts {
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
