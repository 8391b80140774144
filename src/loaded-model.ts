// A loaded model: what a user calls. Each thing it does is in a module of its own, loaded with the model only if every program needs it.

import { basename } from "node:path";
import type { OpInfo } from "../profiler/events.ts";
import type { CountedOp } from "../profiler/memory.ts";
import type { CacheStatistics, Report, RunInfo, TraceData } from "../profiler/report.ts";
import { type BatchSizeRecommendation, recommendFor } from "./batch-size.ts";
import { checkBoolean, checkInteger, checkKeys, describe } from "./check.ts";
import type * as embedModule from "./embed/embed.ts";
import type { EmbedInput } from "./embed/embed.ts";
import type { Matrix } from "./embed/matrix.ts";
import type { EmbeddingShape, EmbedOptions, EmbedStreamOptions } from "./embed/options.ts";
import type { Engine } from "./engine/engine.ts";
import type { EngineMemory } from "./engine/footprint.ts";
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
import type * as sessionPoolModule from "./generate/session-pool.ts";
import type { SessionPool, SessionPoolOptions } from "./generate/session-pool.ts";
import {
  type CacheConfiguration,
  type CacheOptimization,
  type CacheState,
  cacheOptimizationOf,
  configureCache,
} from "./knobs/cache.ts";
import type { CacheStats } from "./knobs/cache-stats.ts";
import type * as layerSchedulerModule from "./knobs/layer-scheduler.ts";
import type { LayerScheduler } from "./knobs/layer-scheduler.ts";
import type { Limits, ModelLimits } from "./knobs/limits.ts";
import type * as memoryEstimateModule from "./knobs/memory-estimate.ts";
import type { MemoryEstimate } from "./knobs/memory-estimate.ts";
import type { MemoryLayout } from "./knobs/memory-layout.ts";
import type * as monitoringModule from "./knobs/monitoring.ts";
import type * as metricsModule from "./knobs/performance-metrics.ts";
import type { PerformanceMetrics, PerformanceMetricsOptions } from "./knobs/performance-metrics.ts";
import type * as poolModule from "./knobs/pool.ts";
import type { ResourcePool } from "./knobs/pool.ts";
import type { SchedulerConfig, SchedulerOptions } from "./knobs/scheduler.ts";
import {
  describeSimd,
  enableSimd,
  levelNames,
  levelsInWords,
  type Simd,
  type SimdOp,
  type SimdState,
  setSimdOptimizationLevel,
} from "./knobs/simd.ts";
import { setThreadAffinity, setThreadCount } from "./knobs/threads.ts";
import { ResourceMeter, type ResourceUsage } from "./knobs/usage.ts";
import { withoutEffect } from "./knobs/without-effect.ts";
import type { CheckedLoadOptions } from "./load-options.ts";
import type { ModelFile } from "./model/file.ts";
import type { ModelSettings, TuningSource } from "./model-tuning.ts";
import { type Family, familyOf } from "./plan/layout.ts";
import { explainPlan, type Plan } from "./plan/plan.ts";
import { type Preparation, type Preparing, type Stamp, sourceHash } from "./prepared.ts";
import type * as profilingModule from "./profiling/index.ts";
import type {
  Monitor,
  MonitorOptions,
  ProfiledRun,
  ProfileOptions,
  Recorded,
  RecordedModel,
  Recording,
} from "./profiling/index.ts";
import type { ChatMessage } from "./tokenizer/chat.ts";
import type { Tokenizer } from "./tokenizer/index.ts";
import { modelClosing, modelOpened, type WatchedModel } from "./watched.ts";

/** What a model is made of. */
export interface ModelParts {
  readonly path: string;
  /** What `loadModel` finds it by: the path, or the name of a model inside the program. */
  readonly source: string;
  /** What reports call it. */
  readonly name: string;
  readonly library: Library;
  /** What reports say of it; asked for when one is made. */
  readonly run: () => Omit<RunInfo, "startedAt" | "wallMs" | "model">;
  readonly file: ModelFile;
  /** Of the file, from before it was opened; undefined where it is prepared. */
  readonly stamp: Stamp | undefined;
  preparing: Preparing;
  /** Lets what is being prepared or measured come to an end, never with an error. */
  readonly settle: () => Promise<void>;
  readonly engine: Engine;
  readonly limits: ModelLimits;
  readonly tokenizer: Tokenizer;
  readonly plan: Plan;
  readonly simd: SimdState;
  readonly cache: CacheState;
  readonly contextLength: number;
  readonly embedding: EmbeddingShape | undefined;
  readonly batchSize: number;
  readonly prefixCache: boolean;
  /** How many sessions are in use. */
  readonly sessions: { count: number };
  /** What was asked for when it was loaded. */
  readonly loadOptions: CheckedLoadOptions;
  /** What it was loaded with, as was measured or asked for. */
  readonly settings: ModelSettings;
  readonly loadMs: number;
  /** Whether who watches all models watches this one. */
  readonly watched: boolean;
}

/** @internal What a model is made of, for what is done with it in a module of its own. */
export let partsOf: (model: Model) => ModelParts;

/** A loaded model. Close it when done, best with `await using`. */
export class Model implements AsyncDisposable {
  static {
    partsOf = (model) => model.#parts;
  }

  readonly #parts: ModelParts;
  #recording: Recording | undefined;
  /** What an analysis of all models records. */
  #analysed: Recording | undefined;
  readonly #watched: WatchedModel = {
    source: () => this.#parts.source,
    model: () => this,
    start: (options) => {
      this.#analysed = this.#record(options);
    },
    sample: (anew) => running(this.#analysed).sample(anew),
    finish: () => this.#report(this.#stopAnalysed()),
    cancel: () => this.#stopAnalysed(),
  };
  readonly #monitors = new Set<Monitor>();
  #monitoringIntervalMs: number | undefined;
  #sourceHash: Promise<string> | undefined;
  readonly #meter: ResourceMeter;
  /** Of the last report that has any since the caches, the levels or the number of threads were changed. */
  #cacheRecorded: CacheStatistics | undefined;

  /** @internal `loadModel` makes models. */
  constructor(parts: ModelParts) {
    this.#parts = parts;
    if (parts.watched) modelOpened(this.#watched);
    this.#meter = new ResourceMeter(parts.engine);
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

  /** The instruction-set level in use and why, and for which operations. */
  get simd(): Simd {
    return describeSimd(this.#parts);
  }

  /** How the model's prepared copy stands: whether it was used, or is being made, or why there is none. */
  get preparation(): Preparation {
    return this.#parts.preparing.state;
  }

  /** How long loading took. */
  get loadMs(): number {
    return this.#parts.loadMs;
  }

  /** What runs, in order, what memory it takes, and which knobs have no effect on it. */
  plan(): Plan {
    return explainPlan(this.#parts.plan, { withoutEffect: withoutEffect(this.#parts) });
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

  /**
   * Sessions by key, such as a user's name, each kept for its next turn; turns of one session wait for each other.
   * @throws {OptionError} if an option is out of its bounds, or the model makes no texts.
   */
  sessionPool(options?: SessionPoolOptions): SessionPool {
    this.#checkGenerates();
    const { SessionPool }: typeof sessionPoolModule = require("./generate/session-pool.ts");
    return new SessionPool(this.#sessionModel, options);
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
   * @throws {EngineError} if recording has begun already.
   * @throws {OptionError} if an option is out of its bounds.
   */
  startProfiling(options: ProfileOptions = {}): void {
    if (this.#recording) throw new EngineError("profiling has already been started; stop it first");
    this.#recording = this.#record(options);
  }

  #record(options: ProfileOptions): Recording {
    checkProfileOptions(options);
    const { Recording }: typeof profilingModule = require("./profiling/index.ts");
    const model = this.#recordedModel;
    // Kernels keep the names that they have now: levels may change before the report is made.
    return new Recording({ ...model, ops: model.ops.map((op) => ({ ...op })) }, options);
  }

  get #recordedModel(): RecordedModel {
    const { engine, library, name, run } = this.#parts;
    const { threadCount: threads, settings } = engine;
    const about = { model: name, ...run(), threads };
    return { library, engine, levels: settings.levels, ops: this.#countedOps(), run: about };
  }

  #countedOps(): CountedOp[] {
    const { countedOps, opSignatures }: typeof profilingModule = require("./profiling/index.ts");
    return countedOps(describeOps(this.#parts), opSignatures(this.#parts.plan.program));
  }

  /**
   * Ends recording and gives what was recorded. Steps are run once more to count their loads and stores, a few to simulate caches,
   * which takes a moment; `profile` does it in turns with the event loop. The machine's roofs are in it if they were measured
   * before.
   * @throws {EngineError} if recording has not begun.
   */
  stopProfiling(): ProfiledRun {
    const recorded = this.#stopRecording();
    return this.#profiled(recorded.report(this.#knownRoofs(recorded)), recorded.trace);
  }

  /** The same in turns with the event loop. @throws {EngineError} as `stopProfiling`. */
  async finishProfiling(): Promise<ProfiledRun> {
    return this.#report(this.#stopRecording());
  }

  /** Ends recording without a report. @throws {EngineError} as `stopProfiling`. */
  cancelProfiling(): void {
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
    const { library, engine } = this.#parts;
    const { machineRoofs }: typeof profilingModule = require("./profiling/index.ts");
    const level = engine.settings.levels.matmul;
    const recorded = this.#stopRecording();
    const wantsRoofs = options.roofline !== false && options.deterministic !== true && options.time !== false;
    const giveUp = () => engine.pending > 0;
    const roofs = wantsRoofs ? await machineRoofs(library, level, engine.threadCount, giveUp) : undefined;
    return this.#profiled(await recorded.reportInTurns(roofs), recorded.trace);
  }

  async #report(recorded: Recorded): Promise<ProfiledRun> {
    return this.#profiled(await recorded.reportInTurns(this.#knownRoofs(recorded)), recorded.trace);
  }

  #profiled(report: Report, trace: TraceData): ProfiledRun {
    const { profiledRun }: typeof profilingModule = require("./profiling/index.ts");
    this.#cacheRecorded = report.cache ?? this.#cacheRecorded;
    return profiledRun(report, trace);
  }

  #knownRoofs({ options, levels }: Recorded) {
    const { library, engine } = this.#parts;
    const { findRoofs }: typeof profilingModule = require("./profiling/index.ts");
    const wanted = options.roofline !== false && options.time !== false;
    return wanted ? findRoofs(library, levels.matmul, engine.threadCount) : undefined;
  }

  #stopRecording(): Recorded {
    const recording = running(this.#recording);
    this.#recording = undefined;
    return recording.stop();
  }

  #stopAnalysed(): Recorded {
    const recording = running(this.#analysed);
    this.#analysed = undefined;
    return recording.stop();
  }

  /**
   * Watches the model for as long as the process runs: times by op, kind and phase, and requests, of the last windows of time and of
   * everything, in memory that does not grow. Read as an iterable it gives samples of how the model does. Profiles may be taken
   * meanwhile. It ends with `close`, with its signal, and with the model.
   * @throws {OptionError} if an option is out of its bounds, or `cacheUsage` is wanted and nothing can tell of caches.
   * @example
   * using monitor = model.monitor({ windowMs: 60_000 });
   * await model.generate("Once upon a time");
   * console.log(monitor.everything().firstTokens.p99Ns / 1e6);
   * @example
   * for await (const { tokensPerSecond, queueDepth } of model.monitor({ intervalMs: 500, signal })) {
   *   console.log(`${tokensPerSecond.toFixed(1)} tokens/s, ${queueDepth} requests wait`);
   * }
   */
  monitor(options: MonitorOptions = {}): Monitor {
    const { openMonitor }: typeof monitoringModule = require("./knobs/monitoring.ts");
    const ended = (monitor: Monitor) => this.#monitors.delete(monitor);
    const monitor = openMonitor(this.#parts, this.#recordedModel, options, ended);
    if (options.intervalMs === undefined && this.#monitoringIntervalMs !== undefined) {
      monitor.intervalMs = this.#monitoringIntervalMs;
    }
    this.#monitors.add(monitor);
    return monitor;
  }

  /**
   * Sets the time between two samples of the model's monitors, of those there are and of those that are begun later without an
   * `intervalMs` of their own. The samples of an analysis (`sampleIntervalMs`) are its own affair.
   * @param intervalMs 10 to 3,600,000.
   * @throws {OptionError} if it is out of its bounds.
   */
  setMonitoringInterval(intervalMs: number): void {
    const { checkInterval }: typeof monitoringModule = require("./knobs/monitoring.ts");
    this.#monitoringIntervalMs = checkInterval("intervalMs", intervalMs);
    for (const monitor of this.#monitors) monitor.intervalMs = intervalMs;
  }

  /**
   * How fast the model has answered lately, from what the engine counts anyway: no monitor and no profile has to run.
   * @throws {OptionError} if an option is out of its bounds.
   * @example
   * await model.generate("Once upon a time");
   * const { inferenceTime, throughput } = model.performanceMetrics();
   * console.log(`${inferenceTime.toFixed(2)} ms, ${throughput.toFixed(2)} tokens/s`);
   */
  performanceMetrics(options: PerformanceMetricsOptions = {}): PerformanceMetrics {
    const { performanceMetrics }: typeof metricsModule = require("./knobs/performance-metrics.ts");
    return performanceMetrics(this.#parts, options);
  }

  /**
   * Switches an operation's wide kernels on or off; off, its kernels are scalar. Results differ by rounding between the two, so nothing
   * that was kept of prompts is used any more; what runs goes on. Resolves once it holds, which is between two steps.
   * @throws {OptionError} if there is no such operation, or `TINYAI_SIMD` forces a level.
   * @throws {EngineError} while a profile or an analysis records the model: its counts are of one level.
   * @example
   * await model.enableSimd("attention", false);
   */
  async enableSimd(op: SimdOp, on: boolean): Promise<void> {
    this.#checkNotRecorded();
    await enableSimd(this.#parts, op, on);
    this.#cacheRecorded = undefined;
  }

  /**
   * Sets the instruction-set level of all operations that are not switched off: 0 scalar, 1 128-bit, 2 256-bit, 3 the widest. As
   * `enableSimd` does, it changes results by rounding.
   * @throws {OptionError} if this CPU does not run the level, or `TINYAI_SIMD` forces one.
   * @throws {EngineError} while a profile or an analysis records the model: its counts are of one level.
   */
  async setSimdOptimizationLevel(level: number): Promise<void> {
    this.#checkNotRecorded();
    await setSimdOptimizationLevel(this.#parts, level);
    this.#cacheRecorded = undefined;
  }

  #checkNotRecorded(): void {
    if (!this.#recording && !this.#analysed) return;
    const who = this.#recording ? "a profile records the model: end it" : "an analysis records the model: close it";
    throw new EngineError(`${who} first; what it counts is of the threads and the level that it began with`);
  }

  /** How many sequences a step should have where many prompts run at once: as `tinyai tune --model` found here, else by the model's size. */
  get recommendedBatchSize(): BatchSizeRecommendation {
    return recommendFor(this.#parts.file, this.#parts.settings.batchSize);
  }

  /** Where the settings come from that it was loaded with, and that no result depends on. */
  get tuningSource(): TuningSource {
    return this.#parts.settings.source;
  }

  /** The CPU of each thread that computes; null: where the system puts it. */
  get threadAffinity(): readonly (number | null)[] {
    const { engine } = this.#parts;
    return Array.from({ length: engine.threadCount }, (_, thread) => engine.settings.affinity[thread] ?? null);
  }

  /**
   * Changes how many threads compute, 1 to `cpu.cores`; what runs goes on, and no result changes. Resolves once it holds, which is
   * between two steps.
   * @throws {OptionError} if the process may not use so many CPUs.
   * @throws {EngineError} if a profile or an analysis records the model, or a thread cannot be started: there are as many as before then.
   * @throws {MemoryLimitError} if memory's limit leaves none for more threads.
   */
  async setThreadCount(count: number): Promise<void> {
    this.#checkNotRecorded();
    await setThreadCount(this.#parts, count);
    this.#cacheRecorded = undefined;
  }

  /**
   * Keeps a thread on one CPU, or with null lets the system place it again; what runs goes on. A thread keeps its CPU for when there
   * are fewer threads for a while.
   * @param thread its number, from 0.
   * @throws {OptionError} if there is no such thread, or the process may not use that CPU.
   * @throws {EngineError} if the system refuses it: threads stay where they were then.
   */
  async setThreadAffinity(thread: number, core: number | null): Promise<void> {
    await setThreadAffinity(this.#parts, thread, core);
  }

  /** Limits of what the model may use. */
  get limits(): Limits {
    const { cpuPercent, memoryPercent } = this.#parts.limits;
    return { cpuPercent, memoryPercent };
  }

  /**
   * Holds the threads that compute to a share of CPU time, also while they do. @see LimitOptions.cpuPercent
   * @param percent of the CPU time of all CPUs that the process may use, 0.01 to 100; 100: no limit.
   * @throws {OptionError} if it is out of its bounds.
   */
  async setCpuLimit(percent: number): Promise<void> {
    await this.#parts.limits.setCpu(percent);
  }

  /**
   * Refuses what would make the process take more memory than this from now on; what runs goes on, and keys and values that are only
   * kept make room. A limit below what it takes beside those refuses every request that needs some, until it is raised.
   * @see LimitOptions.memoryPercent
   * @param percent of the memory that the process may use, 0.01 to 100; 100: no limit.
   * @throws {OptionError} if it is out of its bounds.
   */
  async setMemoryLimit(percent: number): Promise<void> {
    this.#parts.limits.setMemory(percent);
  }

  /** What the model and its process use of the machine, of CPU time since the last call. */
  resourceUsage(): ResourceUsage {
    return this.#meter.read();
  }

  /** What the layer scheduler was told when the model was loaded, and of the rest what is so by default. It holds as long as the model. */
  get scheduler(): SchedulerConfig {
    return { ...this.#parts.loadOptions.scheduler };
  }

  /** How kernels use the caches, and where each value comes from. */
  get cacheOptimization(): CacheOptimization {
    return cacheOptimizationOf(this.#parts);
  }

  /**
   * Changes how kernels use the caches; what is not given stays as it is. Results stay the same, bit for bit. Resolves once it holds,
   * which is between two steps.
   * @throws {OptionError} for values out of bounds, naming the range; nothing is changed then.
   * @throws {EngineError} if the model is closed.
   * @example
   * await model.configureCacheOptimization({ blockSize: 64, cacheLineSize: 64, enablePrefetch: true, prefetchDistance: 2 });
   */
  async configureCacheOptimization(configuration: CacheConfiguration): Promise<void> {
    await configureCache(this.#parts, configuration);
    this.#cacheRecorded = undefined;
  }

  /**
   * Keeps the weights in the layout that kernels read as a file in the cache, if the model was packed while it was loaded
   * (`prepared: false`): the next opening maps it, in a fraction of the time, and shares it with other processes. This model
   * goes on with its own memory, which has the same layout. Where there is such a file already, it says what lies where.
   * @throws {EngineError} if the model is closed, its file has changed since it was opened, or the copy cannot be written.
   * @example
   * const { already, bytesMoved, path } = await model.optimizeMemoryLayout();
   */
  async optimizeMemoryLayout(): Promise<MemoryLayout> {
    const { optimizeLayout } = await import("./knobs/memory-layout.ts");
    return optimizeLayout(this.#parts);
  }

  /**
   * How often what the kernels read and wrote was in a cache, over all steps of the last profile or analysis of this model
   * that has cache statistics: from hardware counters where the system shows them, else simulated. If nothing was recorded since
   * the caches, the levels or the number of threads were changed, one step is simulated as they are now: a token behind 255 others, or,
   * of a model that only makes vectors, a text of 64 tokens. That takes a second for each GB of weights, in turns with the event loop.
   * @throws {EngineError} if the model is closed, or memory for a second set of activations is refused.
   * @throws {MemoryLimitError} if memory's limit leaves none for them.
   * @example
   * const stats = await model.cacheStats();
   * console.log(`Cache hit rate: ${(stats.hitRate * 100).toFixed(2)} %`);
   */
  async cacheStats(): Promise<CacheStats> {
    const { cacheStatsOf } = await import("./knobs/cache-stats.ts");
    return cacheStatsOf(this.#parts, this.#countedOps(), this.#cacheRecorded);
  }

  /**
   * What the model keeps for reuse, and how it stands: pages of keys and values, the arena, places for requests, sessions.
   * @throws {EngineError} if the model is closed.
   */
  get resourcePool(): ResourcePool {
    const { resourcePool }: typeof poolModule = require("./knobs/pool.ts");
    return resourcePool(this.#parts);
  }

  /**
   * A planner of how the model's layers are executed, within limits of memory. It changes nothing that is loaded: what it plans is run by a
   * model that is loaded with the same options (`scheduler`).
   * @throws {OptionError} if an option is out of its bounds.
   * @example
   * const scheduler = model.createLayerScheduler({ memorySpeedTradeoff: 0.7, maxActivationMemory: 256 * 2 ** 20 });
   * console.log(String(scheduler.createExecutionPlan()), scheduler.estimateMemoryUsage().maxMemory);
   */
  createLayerScheduler(options: SchedulerOptions = {}): LayerScheduler {
    const { createLayerScheduler }: typeof layerSchedulerModule = require("./knobs/layer-scheduler.ts");
    return createLayerScheduler(this.#parts, options);
  }

  /** What the engine takes of memory at least and at most, from its plan alone; `memoryInUse` measures it. Bytes. */
  estimateMemory(): MemoryEstimate {
    const { estimatePlan }: typeof memoryEstimateModule = require("./knobs/memory-estimate.ts");
    const { library, plan, engine } = this.#parts;
    // Threads that have ended leave their memory to those that may come.
    return estimatePlan(library, plan, engine.threadsMax);
  }

  /**
   * What the engine has set aside, and what of it is in memory, in bytes by what it is for. Where the system does not tell what is
   * in memory (other than Linux), all counts as if it were.
   * @throws {EngineError} if the model is closed.
   */
  memoryInUse(): EngineMemory {
    return this.#parts.engine.memory();
  }

  /** Ends what is running and frees the model's memory, once its prepared copy is made if that was begun. */
  async close(): Promise<void> {
    try {
      await modelClosing(this.#watched);
    } finally {
      await this.#parts.settle();
      await this.#parts.preparing.done;
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
    const { file, plan } = this.#parts;
    const binding = async () => {
      this.#sourceHash ??= sourceHash(file);
      return { model: await this.#sourceHash, level: levelsInWords(this.#parts), groups: plan.kvGroups };
    };
    return { ...this.#parts, binding };
  }

  async #start(prompt: Prompt, checked: CheckedOptions, option: string) {
    return streamTokens(this.#generator, await encodePrompt(this.#generator, prompt, checked, option), checked);
  }
}

function running(recording: Recording | undefined): Recording {
  if (recording) return recording;
  throw new EngineError("profiling has not been started");
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

/**
 * The op list as the profiler wants it: costs by rows, where attention's rows are positions attended to, and a screened product's groups.
 * Kernels are named by the levels of the time when somebody looks: a monitor's may change while it watches.
 */
export function describeOps({ plan, library, engine }: Pick<ModelParts, "plan" | "library" | "engine">): OpInfo[] {
  const levelOf = (family: Family) => levelNames(library, engine.settings.levels)[family];
  return plan.ops.map((op) => {
    const attends = op.kind === "attention" || op.kind === "encode";
    return {
      index: op.index,
      name: op.name,
      kind: op.kind,
      get kernel() {
        return [op.kind, op.format, levelOf(familyOf[op.kind])].filter(Boolean).join(".");
      },
      layer: op.layer,
      bytesPerStep: op.bytesPerStep,
      bytesPerRow: attends ? op.bytesPerPosition : op.bytesPerRow,
      operationsPerRow: attends ? op.operationsPerPosition : op.operationsPerRow,
    };
  });
}

function checkProfileOptions(options: ProfileOptions): void {
  checkKeys("options", options, ["time", "cache", "prefetcher", "roofline", "deterministic", "sampleIntervalMs"]);
  for (const name of ["time", "cache", "prefetcher", "roofline", "deterministic"] as const) {
    if (options[name] !== undefined) checkBoolean(name, options[name]);
  }
  const { sampleIntervalMs } = options;
  if (sampleIntervalMs !== undefined && sampleIntervalMs !== 0) {
    checkInteger("sampleIntervalMs", sampleIntervalMs, 10, 60_000);
  }
}
