// The engine as TypeScript sees it: a program goes in, requests go in, records come out. Whenever an engine thread rings the
// bell (bell.ts), all records that are there are drained and handed to their requests. It knows tokens, not text.

import type { JavaScriptListener } from "../../profiler/javascript.ts";
import { JavaScriptWork } from "../../profiler/javascript-work.ts";
import { EngineError, MemoryLimitError } from "../errors.ts";
import type { PoolingName } from "../graph/graph.ts";
import * as layout from "../plan/layout.ts";
import { type Plan, pagesNeeded } from "../plan/plan.ts";
import { Bell } from "./bell.ts";
import { type CallCounts, noCalls } from "./calls.ts";
import { type EngineMemory, engineMemory } from "./footprint.ts";
import { type Library, type MappedWeights, type Pointer, viewMemory } from "./library.ts";
import { type EngineSettings, encodeSettings } from "./settings.ts";
import { Tracer, type TracerOptions } from "./tracer.ts";
import { fixedTuning, type Tuning } from "./tuning.ts";
import { type EngineWatcher, type RequestObserver, Watching } from "./watching.ts";
import { type CountedRequest, WorkMeter } from "./work.ts";

export interface EngineOptions {
  readonly threadCount: number;
  readonly levels: EngineSettings["levels"];
  /** CPU of each thread, in order, if threads are to be pinned; undefined, and threads beyond the list: where the system puts them. */
  readonly affinity: EngineSettings["affinity"] | undefined;
  /** Percent of one CPU's time that all threads together may use. Default 0: all that they can. */
  readonly cpuPercent?: number | undefined;
  /** Default what the level's table says. */
  readonly tuning?: Tuning | undefined;
  /** Whether events are written from the start. */
  readonly events: boolean;
  /** The model's files, in the order in which offsets count through them. */
  readonly sourcePaths: readonly string[];
  /** Its packed weights, if it holds such. They are `create`'s from then on, whatever comes of it. */
  readonly mapped?: MappedWeights | undefined;
  /** Called about every 50 ms while weights are read, with bytes done and in all. */
  readonly onLoadProgress?: ((done: number, total: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** What is asked of the engine. Bounds were checked by the caller. */
export interface EngineRequest {
  readonly kind: keyof typeof layout.requestKinds;
  readonly tokens: Uint32Array;
  readonly generateMax: number;
  readonly seed: bigint;
  readonly temperature: number;
  readonly topP: number;
  readonly minP: number;
  readonly topK: number;
  readonly repeatPenalty: number;
  readonly repeatLast: number;
  readonly stopTokens: readonly number[];
  /** Best candidates reported with every token. */
  readonly topCount: number;
  /** Rows of the prompt a step may take; 0: as many as fit. */
  readonly chunkRows: number;
  /** Whether `onLogits` is called with every row of logits (score only). */
  readonly dumpLogits: boolean;
  /** Guessing by lookup, without effect on what is drawn. */
  readonly speculation?: Lookup | undefined;
  /** Whether it may begin with keys and values that others computed, and others with its own; without effect on what is drawn. */
  readonly sharesPrefix: boolean;
  /** What a text's vector is made of (embed only). Default the mean. */
  readonly pooling?: PoolingName | undefined;
  /** Whether it gets length 1 (embed only). */
  readonly normalise?: boolean | undefined;
}

/** What a request says of drawing tokens if it draws none. */
export const drawsNothing = {
  generateMax: 0,
  seed: 0n,
  temperature: 0,
  topP: 1,
  minP: 0,
  topK: 0,
  repeatPenalty: 1,
  repeatLast: 0,
  stopTokens: [],
} as const satisfies Partial<EngineRequest>;

export interface Lookup {
  /** Tokens guessed in a step at most. */
  readonly maxDraft: number;
  /** Tokens that must agree for a guess. */
  readonly minMatch: number;
}

/** A token that could have been drawn, and how likely it was. */
export interface Candidate {
  readonly token: number;
  readonly logprob: number;
}

/** A token that was drawn or scored. */
export interface EngineToken {
  readonly token: number;
  /** Undefined where it is not known: for draws that a screened model need not see all logits for. */
  readonly logprob: number | undefined;
  /** Position of the token in its sequence. For the row after a scored text's last token, `token` is `layout.none`. */
  readonly position: number;
  readonly step: number;
  /** Sequences that ran in the same step. */
  readonly sequences: number;
  /** When the step's result was there, on the monotonic clock. */
  readonly timeNs: number;
  /** Best first; empty unless asked for. */
  readonly top: readonly Candidate[];
  /** Tokens that the step guessed; told with the first of the tokens that it gave. */
  readonly drafted: number;
}

export type Finish = Exclude<(typeof layout.finishes)[number], "not_finite" | "no_memory">;

/** What an engine uses now. */
export interface EngineUsage {
  /** CPU time of its threads since it began, also of those that have ended. */
  readonly cpuNs: number;
  /** What is in memory of all that was set aside, beside keys and values, and how much that is. */
  readonly residentBytes: number;
  readonly plannedBytes: number;
  /** What keys and values take in memory. */
  readonly kvBytes: number;
  /** What each thread has to itself. */
  readonly threadBytes: number;
}

/** Pages of keys and values, 64 positions each. */
export interface PageCounts {
  readonly total: number;
  /** Held by a sequence that runs. */
  readonly inUse: number;
  /** Held by nobody, but what they hold is kept for a prompt that begins alike, until the page is needed. */
  readonly kept: number;
  readonly empty: number;
  /** Taken, and not given back to the system since: no others cost memory. */
  readonly touched: number;
}

/** How a request's owner hears of it. `onFinish` or `onError` is the last call. */
export interface RequestListener {
  onToken(token: EngineToken): void;
  /** The prompt's first positions, which need not be computed: before any progress, and only if there are some. */
  onReused?(positions: number): void;
  /** Positions of the prompt computed so far. */
  onProgress?(positions: number, timeNs: number): void;
  onLogits?(rows: Float32Array, rowCount: number): void;
  /** The text's vector, as wide as the plan's `embeddingWidth`; `onFinish("embedded")` follows (embed only). */
  onEmbedding?(values: Float32Array<ArrayBuffer>): void;
  /** The pages of a `hold` or `restore` can be copied from now on. */
  onHeld?(): void;
  onFinish(finish: Finish): void;
  onError(error: EngineError): void;
}

/** A request under way. */
export interface RequestHandle {
  /** What records and events name it by; no other request under way has it. */
  readonly id: number;
  /** Asks the engine to end the request; `onFinish("cancelled")` follows unless it has ended already. */
  cancel(): void;
  /** Copies a page of a held sequence, as many bytes as its group's pages have: out of a `hold`, into a `restore`. */
  copyPage(group: number, block: number, bytes: Uint8Array): void;
  /** Tells that every page of a `restore` was written; `onFinish("restored")` follows. */
  commit(): void;
}

/** Who waits for changed settings to hold. */
interface Configuring {
  /** Of the settings that hold when it is its turn. */
  readonly change: (settings: EngineSettings) => Partial<EngineSettings>;
  readonly resolve: () => void;
  readonly reject: (error: EngineError) => void;
}

interface Live {
  readonly id: number;
  slot: number;
  readonly request: EngineRequest;
  readonly listener: RequestListener;
  readonly counted: CountedRequest | undefined;
  top: Candidate[];
  cancelled: boolean;
}

const recordsPerDrain = 512;
const eventsPerDrain = 8192;
/**
 * A thread's ring holds half a minute of a model of 300 MB, and 1.6 s of the smallest models' events: so many slots, of which an event
 * takes one, or three where it does not follow the one before. Its memory is taken as it fills, a little ahead, and given back as it is
 * drained; where the system does not do so, rings are a quarter as large.
 */
export const eventCapacity = process.platform === "linux" ? 1 << 20 : 1 << 18;
export const eventSlotBytes = 16;
/** Events are handed over once a ring has so many slots of them: to look at them more often costs more than the events themselves. */
const eventsWaitingMax = 1 << 13;
/**
 * The same for those who can wait, as most recordings then do to their end: an event comes from memory that is in no cache, which
 * takes three times as long as to write it did.
 */
const eventsWaitingPatiently = (eventCapacity / 4) * 3;
/** Slots of each thread at a time, so that the event loop is not held up where many wait. */
const eventsPerTurn = 1 << 12;
/** Threads spin this long for each other, then yield for 40 times as long before they sleep; an op takes 10 to 100 µs. */
const spinUs = 50;

export class Engine {
  readonly plan: Plan;
  /** What it has done, in sums. */
  readonly work: WorkMeter;
  /** Who is told what JavaScript does for requests, while somebody profiles. */
  javascript: JavaScriptListener | undefined;
  /** Called before every request is handed in. */
  beforeSubmit: (() => void) | undefined;
  /** Called before memory is taken that was not planned; throws where there may not be so much more. */
  requireMemory: ((what: string, bytes: number, remedy: string) => void) | undefined;
  readonly #library: Library;
  readonly #handle: Pointer;
  readonly #bell: Bell;
  readonly #ring = () => this.#rung();
  readonly #sourcePath: string;
  readonly #records = new Uint8Array(recordsPerDrain * layout.Record.size);
  readonly #recordView = new DataView(this.#records.buffer);
  /** Where events are drained to, once they are written. */
  #events: Uint8Array | undefined;
  readonly #live = new Map<number, Live>();
  readonly #waiting: Live[] = [];
  readonly #freeSlots = Array.from({ length: layout.slotsMax }, (_, index) => layout.slotsMax - 1 - index);
  #nextId = 1;
  #closed = false;
  #eventsLostAtEnd = 0;
  #ended: Promise<void> | undefined;
  #loaded: { resolve: () => void; reject: (error: EngineError) => void } | undefined;
  /** Those that hold, and all that is to be changed. */
  #settings: EngineSettings;
  #held: EngineSettings;
  /** Of the settings that the engine was handed last. */
  #settingsVersion = 0;
  /** In order; the engine has the first, and the others wait for what comes of it. */
  readonly #configuring: Configuring[] = [];
  #threadsMax: number;
  #kvBytesMax = Number.POSITIVE_INFINITY;
  readonly #tracers = new Set<Tracer>();
  readonly #watching = new Watching();
  readonly #calls = noCalls();
  /** The step whose records were taken over last; 0: none, or what follows comes with a drain of its own. */
  #takenStep = 0;

  private constructor(
    library: Library,
    plan: Plan,
    options: EngineOptions,
    settings: EngineSettings,
    handle: Pointer,
    bell: Bell,
  ) {
    this.#library = library;
    this.plan = plan;
    this.#sourcePath = options.sourcePaths.join(", ");
    this.#settings = settings;
    this.#held = settings;
    this.#threadsMax = settings.threadCount;
    this.#handle = handle;
    this.#bell = bell;
    if (options.events) this.#events = new Uint8Array(eventsPerDrain * layout.Event.size);
    this.work = new WorkMeter(() => this.nowNs);
  }

  /**
   * Starts an engine and waits until the weights are in memory.
   * @throws {EngineError} if memory is refused, a thread cannot start, or the model file cannot be read or was cut short.
   */
  static async create(library: Library, plan: Plan, options: EngineOptions): Promise<Engine> {
    const bell = Bell.take(library);
    const config = new Uint8Array(layout.Config.size);
    layout.Config.write(new DataView(config.buffer), 0, {
      spin_us: spinUs,
      event_capacity: eventCapacity,
      events_enabled: options.events ? 1 : 0,
      notify_fd: bell.writeEnd,
    });
    const settings: EngineSettings = {
      threadCount: options.threadCount,
      levels: options.levels,
      affinity: options.affinity ?? [],
      cpuPercent: options.cpuPercent ?? 0,
      tuning: tuningOf(library, options),
    };
    const failure = new Uint32Array(1);
    const paths = Buffer.from(`${options.sourcePaths.join("\0")}\0\0`, "utf8");
    const { program } = plan;
    const handle = library.symbols.tinyai_engine_create(
      program,
      program.length,
      config,
      encodeSettings(settings, 0),
      paths,
      options.mapped?.handle ?? null,
      failure,
    );
    if (!handle) {
      bell.release();
      options.mapped?.close();
      throw failed(failure[0] ?? 0, plan, options.sourcePaths.join(", "));
    }
    if (typeof handle === "bigint") throw new EngineError("the engine's address is beyond 2^53");

    const engine = new Engine(library, plan, options, settings, handle, bell);
    const { onLoadProgress, signal } = options;
    const abort = () => library.symbols.tinyai_engine_stop(handle);
    let thrown: { readonly error: unknown } | undefined;
    const report = () => {
      try {
        onLoadProgress?.(engine.packedBytes, plan.sourceBytes);
      } catch (error) {
        // The caller's own error ends the loading, and is what loading fails with.
        thrown ??= { error };
        abort();
      }
    };
    const timer = onLoadProgress ? setInterval(report, 50) : undefined;
    signal?.addEventListener("abort", abort, { once: true });
    if (signal?.aborted) abort();
    try {
      await engine.#awaitLoad();
      onLoadProgress?.(plan.sourceBytes, plan.sourceBytes);
      if (thrown) throw thrown.error;
      signal?.throwIfAborted();
    } catch (error) {
      await engine.close();
      throw error;
    } finally {
      clearInterval(timer);
      signal?.removeEventListener("abort", abort);
    }
    return engine;
  }

  /** Bytes of the model file packed so far. */
  get packedBytes(): number {
    return Number(this.#library.symbols.tinyai_engine_packed_bytes(this.#handle));
  }

  /** The weights region as it is in memory, for reading, until the engine is closed. */
  get weights(): Uint8Array {
    if (this.#closed) throw new EngineError("the model is closed; load it again");
    const address = this.#library.symbols.tinyai_engine_weights(this.#handle);
    if (!address || typeof address === "bigint") throw new EngineError("the weights' address is beyond 2^53");
    return viewMemory(address, this.plan.weightsBytes);
  }

  /** What it has set aside, and what of it is in memory. */
  memory(): EngineMemory {
    if (this.#closed) throw new EngineError("the model is closed; load it again");
    return engineMemory(this.#library, this.#handle);
  }

  /** Calls that requests have needed so far. */
  get calls(): CallCounts {
    return { ...this.#calls };
  }

  /** Now, in ns of the clock that tokens, progress and events are stamped with. */
  get nowNs(): number {
    return this.#library.symbols.tinyai_clock_now();
  }

  /** Threads that compute. */
  get threadCount(): number {
    return this.#settings.threadCount;
  }

  /** What holds, or shall soon. */
  get settings(): EngineSettings {
    return this.#settings;
  }

  /**
   * Changes settings; what runs meanwhile goes on. Resolves once they hold, which is between two steps; a limit of CPU time holds at
   * once. Each call is judged by itself, after those before it.
   * @throws {EngineError} if the engine is closed, there is no memory for so many threads, one cannot be started, or cannot have its CPU.
   * Nothing is changed then but the limit of CPU time.
   */
  async configure(changes: Partial<EngineSettings>): Promise<void> {
    if (this.#closed) throw new EngineError("the model is closed; load it again");
    const { cpuPercent = this.#held.cpuPercent, ...others } = changes;
    if (cpuPercent !== this.#held.cpuPercent) {
      this.#held = { ...this.#held, cpuPercent };
      const [first] = this.#configuring;
      // The same once more for the limit, which does not wait: whether the engine has taken the rest or not makes no difference.
      if (first) this.#handOverSettings(first);
    }
    return this.configureBy(() => others);
  }

  /**
   * The same for changes that depend on the settings before them: those that hold when it is their turn. Called as often as settings are
   * foreseen.
   * @throws {EngineError} as `configure`.
   */
  async configureBy(change: (settings: EngineSettings) => Partial<Omit<EngineSettings, "cpuPercent">>): Promise<void> {
    if (this.#closed) throw new EngineError("the model is closed; load it again");
    const settled = new Promise<void>((resolve, reject) => {
      this.#configuring.push({ change, resolve, reject });
    });
    this.#foreseeSettings();
    if (this.#configuring.length === 1) this.#configureNext();
    this.#bell.add(this.#ring);
    return settled;
  }

  #foreseeSettings(): void {
    this.#settings = this.#held;
    for (const { change } of this.#configuring) this.#settings = { ...this.#settings, ...change(this.#settings) };
  }

  #configureNext(): void {
    for (let next = this.#configuring[0]; next; next = this.#configuring[0]) {
      this.#settingsVersion = (this.#settingsVersion % 0xfffffff0) + 1;
      const failure = this.#handOverSettings(next);
      if (failure === 0) return;
      this.#settle(failure);
    }
  }

  /** @returns 0, or why they cannot be had. */
  #handOverSettings({ change }: Configuring): number {
    const settings = { ...this.#held, ...change(this.#held) };
    const encoded = encodeSettings(settings, this.#settingsVersion);
    const failure = this.#library.symbols.tinyai_engine_configure(this.#handle, encoded);
    if (failure === 0) this.#threadsMax = Math.max(this.#threadsMax, settings.threadCount);
    return failure;
  }

  /** The first of those who wait is told what came of it. */
  #settle(failure: number): void {
    const settled = this.#configuring.shift();
    if (!settled) return;
    if (failure === 0) this.#held = { ...this.#held, ...settled.change(this.#held) };
    this.#foreseeSettings();
    if (failure === 0) settled.resolve();
    else settled.reject(unsettled(failure));
  }

  /** The system's ids of the threads that compute, in their order; 0 where the system has none. */
  get threadIds(): readonly number[] {
    if (this.#closed) throw new EngineError("the model is closed; load it again");
    const { symbols } = this.#library;
    return Array.from({ length: this.threadCount }, (_, thread) =>
      symbols.tinyai_engine_thread_id(this.#handle, thread),
    );
  }

  /** How pages stood when the records handed over last were written, by group of layers. */
  get pages(): readonly PageCounts[] {
    if (this.#closed) throw new EngineError("the model is closed; load it again");
    const counts = new Uint32Array(4);
    return this.plan.kvGroups.map((_, group) => {
      this.#library.symbols.tinyai_engine_read_pages(this.#handle, group, counts);
      const [total = 0, empty = 0, kept = 0, touched = 0] = counts;
      return { total, inUse: total - empty - kept, kept, empty, touched };
    });
  }

  /** The most threads that there have been: so many have memory of their own. */
  get threadsMax(): number {
    return this.#threadsMax;
  }

  /** What the engine uses now. */
  get usage(): EngineUsage {
    if (this.#closed) throw new EngineError("the model is closed; load it again");
    const view = new DataView(new ArrayBuffer(layout.Usage.size));
    this.#library.symbols.tinyai_engine_usage(this.#handle, new Uint8Array(view.buffer));
    const read = (field: Parameters<typeof layout.Usage.offset>[0]) =>
      Number(view.getBigUint64(layout.Usage.offset(field), true));
    return {
      cpuNs: read("cpu_ns"),
      residentBytes: read("resident_bytes"),
      plannedBytes: read("planned_bytes"),
      kvBytes: read("kv_bytes"),
      threadBytes: read("thread_bytes"),
    };
  }

  /**
   * Keys and values may take `bytes` of memory from the next request on that begins; Infinity: all that was planned. A request that
   * could not be served within that even alone fails with a MemoryLimitError; what is only kept makes room.
   */
  limitKv(bytes: number): void {
    if (this.#closed) throw new EngineError("the model is closed; load it again");
    this.#kvBytesMax = bytes;
    const limit = Number.isFinite(bytes) ? BigInt(Math.max(0, Math.floor(bytes))) : 2n ** 64n - 1n;
    this.#library.symbols.tinyai_engine_limit_kv(this.#handle, limit);
  }

  /**
   * Counts what steps load and store, beside the engine; closed with it.
   * @throws {EngineError} if memory is refused, or a cache is none that can be simulated.
   * @throws {MemoryLimitError} if memory's limit leaves less than it takes.
   */
  tracer(
    options: Omit<TracerOptions, "levels" | "tuning"> & Partial<Pick<TracerOptions, "levels" | "tuning">>,
  ): Tracer {
    if (this.#closed) throw new EngineError("the model is closed; load it again");
    const remedy = "raise the limit (setMemoryLimit), or do without (cache: false)";
    this.requireMemory?.(
      "a second set of activations, to count memory operations,",
      this.#tracerBytes(options),
      remedy,
    );
    const { levels, tuning } = this.#settings;
    const tracer = Tracer.create(this.#library, this.#handle, this.plan.ops.length, { levels, tuning, ...options });
    this.#tracers.add(tracer);
    return tracer;
  }

  /** What a tracer takes: activations, keys and values of a step, lists of pages, what each thread has, and a word for each line. */
  #tracerBytes({ threadCount, caches }: Pick<TracerOptions, "threadCount" | "caches">): number {
    const { arenaBytes, kvGroups, options } = this.plan;
    const { rowsMax } = options;
    const kvBytes = kvGroups.reduce(
      (sum, { window, pageBytes }) => sum + pagesNeeded(window, rowsMax, rowsMax) * pageBytes,
      0,
    );
    const lineBytes = caches.reduce(
      (sum, { bytes, lineBytes, sharedBy }) => sum + Math.ceil(threadCount / sharedBy) * (bytes / lineBytes) * 8,
      0,
    );
    return arenaBytes + kvBytes + this.memory().taken.pageLists + threadCount * this.usage.threadBytes + lineBytes;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Gives a tracer's memory back before the engine is closed. */
  closeTracer(tracer: Tracer): void {
    this.#tracers.delete(tracer);
    tracer.close();
  }

  /** Requests that have not finished. */
  get pending(): number {
    return this.#live.size;
  }

  /** Hands a request to the engine. More than 64 wait here for a free slot, in order. */
  submit(request: EngineRequest, listener: RequestListener): RequestHandle {
    const { javascript } = this;
    javascript?.enter(JavaScriptWork.submitting);
    try {
      return this.#submit(request, listener);
    } finally {
      javascript?.leave();
    }
  }

  #submit(request: EngineRequest, listener: RequestListener): RequestHandle {
    if (this.#closed) throw new EngineError("the model is closed; load it again");
    this.beforeSubmit?.();
    const counted = this.work.begin(request);
    const live: Live = { id: this.#nextId, slot: -1, request, listener, counted, top: [], cancelled: false };
    this.#nextId = (this.#nextId % 0xfffffff0) + 1;
    this.#live.set(live.id, live);
    this.#waiting.push(live);
    this.#fillSlots();
    this.#bell.add(this.#ring);
    return {
      id: live.id,
      cancel: () => this.#cancel(live),
      copyPage: (group, block, bytes) => this.#copyPage(live, group, block, bytes),
      commit: () => this.#commit(live),
    };
  }

  /**
   * Tells `watcher` of all that happens from now on, beside others who watch; events are written as long as somebody wants them.
   * @returns what ends it, once the watcher has had all events so far.
   */
  watch(watcher: EngineWatcher): () => void {
    if (this.#closed) throw new EngineError("the model is closed; load it again");
    // What was written before is for those who watched then. All of it: what is left out tells nothing of the step that is under way.
    this.#handOver(Number.POSITIVE_INFINITY, true);
    this.#switchEvents(() => this.#watching.add(watcher));
    return () => {
      this.drainEvents();
      this.#switchEvents(() => this.#watching.remove(watcher));
    };
  }

  /** Has events written as long as somebody wants them, who may be another after `change`. */
  #switchEvents(change: () => void): void {
    const before = this.#watching.wantsEvents;
    change();
    const wanted = this.#watching.wantsEvents;
    if (wanted === before || this.#closed) return;
    this.#events ??= new Uint8Array(eventsPerDrain * layout.Event.size);
    this.#library.symbols.tinyai_engine_set_events(this.#handle, wanted ? 1 : 0);
  }

  /** Slots of events that were not handed over yet, of the thread that has most. Takes memory for the next ones. */
  get eventsWaiting(): number {
    if (this.#closed) return 0;
    return this.#library.symbols.tinyai_engine_events_waiting(this.#handle);
  }

  /** Who is to be told of requests from the call to the end; undefined while nobody watches. */
  get requests(): RequestObserver | undefined {
    return this.#watching.count > 0 ? this.#watching.requests : undefined;
  }

  /** Hands over all events written so far; when nobody watches they are dropped. */
  drainEvents(): void {
    this.#handOver(Number.POSITIVE_INFINITY);
  }

  get #eventsWaitingMax(): number {
    return this.#watching.patient ? eventsWaitingPatiently : eventsWaitingMax;
  }

  /**
   * @param most slots of each thread.
   * @param whole whether all events are told, whatever detail is wanted.
   */
  #handOver(most: number, whole = false): void {
    const javascript = this.#watching.count > 0 ? this.javascript : undefined;
    javascript?.enter(JavaScriptWork.profiling);
    try {
      this.#drainEvents(most, whole);
    } finally {
      javascript?.leave();
    }
  }

  #drainEvents(most: number, whole: boolean): void {
    const events = this.#events;
    if (this.#closed || !events) return;
    const { symbols } = this.#library;
    for (let thread = 0; thread < this.#threadsMax; thread++) {
      const detail = whole ? 1 : this.#watching.detail(thread);
      for (let left = most, more = true; more && left > 0; ) {
        const slots = Math.min(left, eventsPerDrain);
        const drained = symbols.tinyai_engine_drain_events(this.#handle, thread, events, slots, detail);
        const count = drained & 0xffff;
        if (count > 0) this.#watching.events(events.subarray(0, count * layout.Event.size), thread);
        more = drained >>> 16 > 0;
        left -= slots;
      }
    }
  }

  /** Events that were not kept because nobody drained them in time, since the engine began. */
  get eventsLost(): number {
    if (this.#closed) return this.#eventsLostAtEnd;
    return Number(this.#library.symbols.tinyai_engine_events_lost(this.#handle));
  }

  /** Ends what is running after its step and frees the engine. Pending requests fail with an EngineError. */
  async close(): Promise<void> {
    if (this.#ended) return this.#ended;
    const { symbols } = this.#library;
    this.drainEvents();
    this.#eventsLostAtEnd = this.eventsLost;
    this.#closed = true;
    symbols.tinyai_engine_stop(this.#handle);
    this.#ended = (async () => {
      // The engine thread rings when it has ended, so joining it does not hold the event loop up.
      this.#bell.remove(this.#ring);
      await this.#bell.until(() => symbols.tinyai_engine_ended(this.#handle) === 1);
      for (const tracer of this.#tracers) tracer.close();
      symbols.tinyai_engine_destroy(this.#handle);
      this.#bell.release();
      const error = new EngineError("the model was closed while a request was running");
      for (const live of this.#live.values()) {
        this.#end(live, "failed");
        live.listener.onError(error);
      }
      for (const { reject } of this.#configuring.splice(0)) reject(new EngineError("the model was closed"));
    })();
    return this.#ended;
  }

  #awaitLoad(): Promise<void> {
    const loaded = new Promise<void>((resolve, reject) => {
      this.#loaded = { resolve, reject };
    });
    this.#bell.add(this.#ring);
    return loaded;
  }

  #fillSlots(): void {
    while (this.#waiting.length > 0 && this.#freeSlots.length > 0) {
      const live = this.#waiting.shift();
      const slot = this.#freeSlots.pop();
      if (!live || slot === undefined) return;
      if (live.cancelled) {
        this.#freeSlots.push(slot);
        this.#end(live, "cancelled");
        live.listener.onFinish("cancelled");
        continue;
      }
      live.slot = slot;
      const { request } = live;
      const bytes = new Uint8Array(layout.Request.size);
      layout.Request.write(new DataView(bytes.buffer), 0, {
        id: live.id,
        kind: layout.requestKinds[request.kind],
        token_count: request.tokens.length,
        generate_max: request.generateMax,
        seed: BigInt.asUintN(64, request.seed),
        temperature: request.temperature,
        top_p: request.topP,
        min_p: request.minP,
        repeat_penalty: request.repeatPenalty,
        top_k: request.topK,
        repeat_last: request.repeatLast,
        top_count: request.topCount,
        chunk_rows: request.chunkRows,
        stop_token_count: request.stopTokens.length,
        dump_logits: request.dumpLogits ? 1 : 0,
        stop_tokens: request.stopTokens,
        draft_max: request.speculation?.maxDraft ?? 0,
        match_min: request.speculation?.minMatch ?? 0,
        shares_prefix: request.sharesPrefix ? 1 : 0,
        pooling: layout.poolings[request.pooling ?? "mean"],
        normalise: request.normalise ? 1 : 0,
      });
      const { symbols } = this.#library;
      this.#calls.requests++;
      if (symbols.tinyai_engine_submit(this.#handle, slot, bytes, request.tokens, request.tokens.length) === 1)
        continue;
      this.#freeSlots.push(slot);
      this.#end(live, "failed");
      live.listener.onError(
        new EngineError(
          "the engine refused a request: it has too many tokens for the context, a token outside the vocabulary, or the model " +
            "does not do what it asks for",
        ),
      );
    }
  }

  /** A request is over; who asked for it is told next. */
  #end(live: Live, finish: Finish | "no_memory" | "failed"): void {
    this.#live.delete(live.id);
    if (live.counted && finish !== "restored") this.work.end(live.counted, finish);
  }

  #cancel(live: Live): void {
    if (this.#closed || !this.#live.has(live.id) || live.cancelled) return;
    live.cancelled = true;
    if (live.slot >= 0) {
      this.#calls.cancelled++;
      this.#library.symbols.tinyai_engine_cancel(this.#handle, live.slot, live.id);
    } else {
      this.#waiting.splice(this.#waiting.indexOf(live), 1);
      this.#end(live, "cancelled");
      queueMicrotask(() => live.listener.onFinish("cancelled"));
    }
  }

  #copyPage({ slot, id, request }: Live, group: number, block: number, bytes: Uint8Array): void {
    if (this.#closed) throw new EngineError("the model was closed while a session was being copied");
    const into = request.kind === "restore" ? 1 : 0;
    const { symbols } = this.#library;
    this.#calls.sessions++;
    if (symbols.tinyai_engine_copy_page(this.#handle, slot, id, group, block, bytes, bytes.length, into) === 1) return;
    throw new RangeError(`there is no page ${block} of group ${group} with ${bytes.length} bytes`);
  }

  #commit({ slot, id }: Live): void {
    if (this.#closed) throw new EngineError("the model was closed while a session was being copied");
    this.#calls.sessions++;
    if (this.#library.symbols.tinyai_engine_commit(this.#handle, slot, id) === 1) return;
    throw new RangeError("there is nothing to commit");
  }

  /** Something may have happened. Between requests nobody listens, so that a script can end. */
  #rung(): void {
    if (this.#closed) return;
    const { javascript } = this;
    javascript?.endTurn();
    javascript?.enter(JavaScriptWork.records);
    try {
      this.#drainRecords();
    } finally {
      javascript?.leave();
    }
    const awaited = this.#live.size > 0 || this.#configuring.length > 0 || this.#loaded;
    if (!awaited && !this.#closed) this.#bell.remove(this.#ring);
  }

  #drainRecords(): void {
    const { symbols } = this.#library;
    let eventsWaiting = 0;
    for (;;) {
      const drained = symbols.tinyai_engine_drain_records(this.#handle, this.#records, recordsPerDrain);
      const count = drained & 0xffff;
      eventsWaiting = (drained >>> 16) << 8;
      for (let index = 0; index < count; index++) this.#dispatch(index * layout.Record.size);
      if (this.#closed || count < recordsPerDrain) break;
    }
    if (this.#closed) return;
    if (this.#watching.wantsEvents && eventsWaiting >= this.#eventsWaitingMax) this.#handOver(eventsPerTurn);
    this.#fillSlots();
  }

  #dispatch(base: number): void {
    const { recordKinds } = layout;
    const kind = this.#u32(base, "kind");
    if (kind === recordKinds.loaded || kind === recordKinds.loadFailed) {
      const waiting = this.#loaded;
      this.#loaded = undefined;
      if (kind === recordKinds.loaded) waiting?.resolve();
      else waiting?.reject(failed(this.#u32(base, "value"), this.plan, this.#sourcePath, this.#u32(base, "token")));
      return;
    }
    if (kind === recordKinds.configured) {
      this.#settle(this.#u32(base, "token"));
      this.#configureNext();
      return;
    }
    const live = this.#live.get(this.#u32(base, "request"));
    if (!live) return;
    // How many steps a drain finds depends on time; that each needs one does not. What belongs to no step comes with another's.
    const step = this.#u32(base, "step");
    if (step !== this.#takenStep && step !== 0) {
      this.#takenStep = step;
      this.#calls.steps++;
    }
    const token = this.#u32(base, "token");
    const logprob = this.#recordView.getFloat32(base + layout.Record.offset("logprob"), true);
    switch (kind) {
      case recordKinds.candidate:
        live.top.push({ token, logprob });
        break;
      case recordKinds.token: {
        const timeNs = this.#timeNs(base);
        if (live.counted) this.work.token(live.counted, timeNs);
        const top = live.top;
        live.top = [];
        live.listener.onToken({
          token,
          logprob: Number.isNaN(logprob) ? undefined : logprob,
          position: this.#u32(base, "position"),
          step,
          sequences: this.#u32(base, "sequences"),
          timeNs,
          top,
          drafted: this.#u32(base, "value"),
        });
        break;
      }
      case recordKinds.progress:
        live.listener.onProgress?.(this.#u32(base, "position"), this.#timeNs(base));
        break;
      case recordKinds.reused:
        live.listener.onReused?.(this.#u32(base, "value"));
        break;
      case recordKinds.held:
        live.listener.onHeld?.();
        break;
      case recordKinds.logits:
        this.#readLogits(live, token, this.#u32(base, "value"));
        break;
      case recordKinds.finished: {
        const finish = layout.finishes[this.#u32(base, "value")];
        // Before the slot is another's.
        const embedding = finish === "embedded" ? this.#readEmbedding(live.slot) : undefined;
        this.#end(live, finish === undefined || finish === "not_finite" ? "failed" : finish);
        this.#freeSlots.push(live.slot);
        if (embedding) live.listener.onEmbedding?.(embedding);
        this.#finish(live, finish);
        break;
      }
    }
  }

  /** Rows of the step's logits, which the engine keeps until they are read; a cancelled request's it does not keep. */
  #readLogits(live: Live, firstRow: number, rowCount: number): void {
    if (live.cancelled) return;
    const rows = new Float32Array(rowCount * this.plan.vocabulary);
    this.#calls.logits++;
    // The rest of the step's records comes only now.
    this.#takenStep = 0;
    this.#library.symbols.tinyai_engine_read_logits(this.#handle, firstRow, rowCount, rows, 1);
    live.listener.onLogits?.(rows, rowCount);
  }

  #readEmbedding(slot: number): Float32Array<ArrayBuffer> {
    const values = new Float32Array(this.plan.embeddingWidth ?? 0);
    this.#calls.vectors++;
    this.#library.symbols.tinyai_engine_read_embedding(this.#handle, slot, values, values.length);
    return values;
  }

  #finish(live: Live, finish: (typeof layout.finishes)[number] | undefined): void {
    if (finish === "no_memory") {
      live.listener.onError(this.#noMemory(live.request));
      return;
    }
    if (finish !== undefined && finish !== "not_finite") {
      live.listener.onFinish(finish);
      return;
    }
    const problem = "the model's output is not a finite number: its weights are damaged; get the file again";
    live.listener.onError(new EngineError(`${this.#sourcePath}: ${problem}`));
  }

  #noMemory({ tokens, generateMax }: EngineRequest): MemoryLimitError {
    const positions = tokens.length + generateMax;
    const { kvGroups, options } = this.plan;
    const bytes = kvGroups.map(({ window, pageBytes }) => pagesNeeded(window, positions, options.rowsMax) * pageBytes);
    return new MemoryLimitError(
      `keys and values of ${positions} positions`,
      bytes.reduce((sum, each) => sum + each, 0),
      this.#kvBytesMax,
      "ask for fewer tokens (maxLength), or raise the limit (setMemoryLimit)",
    );
  }

  #u32(base: number, field: Parameters<typeof layout.Record.offset>[0]): number {
    return this.#recordView.getUint32(base + layout.Record.offset(field), true);
  }

  #timeNs(base: number): number {
    return Number(this.#recordView.getBigUint64(base + layout.Record.offset("time_ns"), true));
  }
}

/** Why settings do not hold, in words. */
function unsettled(failure: number): EngineError {
  switch (layout.failures[failure]) {
    case "out_of_memory":
      return new EngineError("the system refused the memory for so many threads; use fewer, or free memory");
    case "threads":
      return new EngineError(
        "a thread could not be started: the system's limit is reached; the model goes on with as many threads as before",
      );
    case "pin":
      return new EngineError(
        "the system refused a thread its CPU; the model's threads stay where they were: choose another CPU, or none",
      );
    default:
      return new EngineError("the engine refused its settings: this is a bug in TinyAI; please report them");
  }
}

/** How the kernels work: as was measured, else as a table says. */
function tuningOf(library: Library, { tuning, levels }: EngineOptions): Tuning {
  return tuning ?? fixedTuning(library.levels[levels.matmul]?.name ?? "");
}

/** The name in the file of the tensor with this number in the program. */
function nameOf(plan: Plan, tensor: number | undefined): string {
  return plan.matrices.find((matrix) => matrix.tensor === tensor)?.name ?? "of unknown name";
}

/** The engine's failure in words; `tensor` was being packed. */
function failed(failure: number, plan: Plan, path: string, tensor?: number): EngineError {
  const megabytes = (bytes: number) => `${Math.ceil(bytes / 1e6)} MB`;
  switch (layout.failures[failure]) {
    case "out_of_memory":
      return new EngineError(
        `${path}: the system refused the memory for it: ${megabytes(plan.weightsBytes)} of weights, ${megabytes(plan.arenaBytes)} of ` +
          "activations and the address space of the KV cache; free memory, raise the limit (ulimit -v), or use a shorter context",
      );
    case "open":
      return new EngineError(
        `${path}: cannot be opened by the engine: it was moved, or its permissions changed while it was being loaded`,
      );
    case "read":
      return new EngineError(`${path}: reading failed: the disk or the network file system reported an error`);
    case "cut_short":
      return new EngineError(
        `${path}: ends before its tensors do: the file was cut short while it was being loaded; get it again`,
      );
    case "not_finite":
    case "out_of_range":
      return new EngineError(
        `${path}: tensor ${nameOf(plan, tensor)} holds values that are not finite numbers: the file is damaged; get it again`,
      );
    case "threads":
      return new EngineError(
        "a thread could not be started: the system's limit is reached; use fewer threads (threads.count)",
      );
    default:
      return new EngineError(
        `the engine refused its program (failure ${failure}): this is a bug in TinyAI; please report it with the model's name`,
      );
  }
}
