// Watches a model for as long as the process runs: times and requests of the last windows and of everything, in memory that does
// not grow, and samples for who reads them (sampling.ts). What is watched waits until the engine is idle, or until so much has come
// together that it must be looked at.

import { EVENT_WORDS, EventKind, EventWord, eventWords, type OpInfo } from "../../profiler/events.ts";
import type { Metrics, MetricsModel, MetricsSource } from "../../profiler/metrics.ts";
import type { RequestEnding, RequestSubmission } from "../../profiler/requests.ts";
import { StepTally } from "../../profiler/tally.ts";
import { ProfilerWindows, type WindowProfile } from "../../profiler/windows.ts";
import { checkInteger } from "../check.ts";
import type { Engine } from "../engine/engine.ts";
import type { RequestMetrics } from "../engine/work.ts";
import type { LiveCaches } from "./live-caches.ts";
import { type MonitorSample, SampleReaders, Sampler } from "./sampling.ts";

/** Options of `model.monitor`. */
export interface MonitorOptions {
  /**
   * Between two samples, ms, 10 to 3,600,000. Default what `model.setMonitoringInterval` says, or 1,000. Samples are only taken while
   * somebody reads them.
   */
  readonly intervalMs?: number | undefined;
  /**
   * Whether it is told where steps spend their time. Default true; false: the engine writes no events, and windows tell of requests
   * alone.
   */
  readonly executionTime?: boolean | undefined;
  /**
   * Whether samples have cache statistics. Default false. They come from the CPU's counters, where the system gives them: a read of
   * them a sample. Else a step like the last one is simulated while the engine rests, at most once a minute and in at most 1 % of the
   * time, which takes 1 to 2 s of the event loop's thread for a gigabyte of weights, in turns, and a second set of activations.
   */
  readonly cacheUsage?: boolean | undefined;
  /** Ends it. */
  readonly signal?: AbortSignal | undefined;
  /** How long a window is, ms; 100 to a day. Default a minute. */
  readonly windowMs?: number | undefined;
  /** Windows kept once they have ended, 1 to 10,000; each takes about 1 KB for each op of the model. Default 60. */
  readonly windows?: number | undefined;
  /** What metrics call the model, in their label `model`; at least one character. Default the file's name. */
  readonly name?: string | undefined;
}

/**
 * What waits to be looked at, at most: a second of Gemma's events. To look at those of a token takes 0.1 ms and more beside an
 * engine that wants the same caches and CPUs (two cores of a Xeon, the thread's CPU time), so between requests is the time for it.
 */
const WAITING_BYTES_MAX = 4 << 20;
/** Where there is no such time, of one step in so many the ops are looked at; of the others, the step and whose it was. */
const DETAILED_STEPS = 16;
/** About what comes at once while the engine works. */
const BUSY_EVENTS_BYTES = 128 << 10;
/** How long it may go on at once: while the engine works and too much is waiting, and when the event loop would have a turn. */
const BUSY_MS = 2;
const TURN_MS = 5;
/** Between two looks at the time and at what the rings still hold. */
const TICK_MS = 1000;
/** Between two samples, ms. */
export const monitoringIntervalsMs = { default: 1000, min: 10, max: 3_600_000 } as const;

/** What a monitor tells those who listen, with `on`. */
export interface MonitorEvents {
  /** A sample was taken. */
  readonly sample: MonitorSample;
  /** A request ended. */
  readonly request: RequestMetrics;
  /** So many events were not kept, since nobody took them over in time: the windows' times are less than they were. */
  readonly lost: { readonly events: number };
  /** It has ended. */
  readonly close: undefined;
}

type Listeners = { readonly [Name in keyof MonitorEvents]: Set<(event: MonitorEvents[Name]) => void> };

/** What is watched. */
export interface MonitoredModel {
  readonly engine: Pick<Engine, "nowNs" | "pending" | "eventsLost" | "closed" | "drainEvents" | "watch" | "work">;
  readonly ops: readonly OpInfo[];
  readonly batchSize: number;
  readonly model: MetricsModel;
  /** What tells of its caches. The monitor's from then on. */
  readonly caches?: LiveCaches | undefined;
  /** Memory that the native library holds now. */
  readonly nativeBytes: () => number;
  /** Calls `tick` every so many ms until what it returns is called. Default a timer that keeps no process alive. */
  readonly every?: (intervalMs: number, tick: () => void) => () => void;
}

/** Something that happened, in its place between the others. */
type Waiting =
  | { readonly events: Uint8Array }
  | { readonly submitted: number; readonly submission: RequestSubmission }
  | { readonly ended: number; readonly ending: RequestEnding }
  | { readonly lost: number }
  | { readonly windowEndNs: number };

/** Bytes that count for what is no events. */
const NOTE_BYTES = 256;

/**
 * Watches from its making to `close`. What it has gathered can be asked for then, too.
 *
 * Steps, phases and requests are all there, with all their times. Where an engine has worked for a second without a pause, ops are
 * those of one step in 16: their rows count that many fewer, and the other steps' time is `unattributed` (`attributedShare` says how
 * much). What the rings could not hold is counted as lost.
 *
 * Read as an iterable it gives a sample each `intervalMs`. A reader who is slow has up to 64 samples waiting; of more, the oldest are
 * dropped, and the next one says how many (`missed`). The loop ends when the monitor does.
 */
export class Monitor implements MetricsSource, Disposable, AsyncIterable<MonitorSample> {
  readonly #watched: MonitoredModel;
  readonly #windows: ProfilerWindows;
  readonly #kept: number;
  readonly #endWatching: () => void;
  readonly #endTicking: () => void;
  readonly #onClose: () => void;
  #waiting: Waiting[] = [];
  #waitingBytes = 0;
  /** What is being worked off, a piece at a time. */
  readonly #work: Generator<boolean, never, void>;
  #turns = false;
  #eventsLost: number;
  /** Where events are thinned. */
  #room = new Uint32Array(0);
  /** Whether the end of the window under way is waiting, too. */
  #windowEnds = false;
  #closedNs: number | undefined;
  readonly #every: (intervalMs: number, tick: () => void) => () => void;
  readonly #tally: StepTally | undefined;
  readonly #listeners: Listeners = { sample: new Set(), request: new Set(), lost: new Set(), close: new Set() };
  readonly #readers = new SampleReaders(() => this.#switchSampling());
  #intervalMs: number;
  /** While somebody reads samples. */
  #sampler: Sampler | undefined;
  #endSampling = () => {};

  /** @param onClose called once, when it has ended. */
  constructor(watched: MonitoredModel, options: MonitorOptions = {}, onClose: () => void = () => {}) {
    const { engine, ops, caches } = watched;
    const { windowMs = 60_000, windows = 60, executionTime = true, signal } = options;
    this.#watched = watched;
    this.#kept = windows;
    this.#intervalMs = options.intervalMs ?? monitoringIntervalsMs.default;
    this.#every = watched.every ?? everyUnattended;
    const onStep = caches && { onStep: caches.step.bind(caches) };
    this.#windows = new ProfilerWindows(ops, engine.nowNs, { windowMs, windows, outlines: true, ...onStep });
    this.#work = this.#working();
    this.#tally = executionTime ? new StepTally(ops) : undefined;
    this.#eventsLost = engine.eventsLost;
    const endWatching = engine.watch({
      ...(executionTime
        ? { events: (events, thread) => this.#keep(events, thread), detail: (thread) => this.#detail(thread) }
        : {}),
      requests: {
        submitted: (id, submission, request) => {
          caches?.submitted(id, request);
          this.#push({ submitted: id, submission }, NOTE_BYTES);
        },
        ended: (id, ending) => this.#push({ ended: id, ending }, NOTE_BYTES),
      },
    });
    const endTelling = engine.work.onEnd((request) => this.#tell("request", request));
    const abort = () => this.close();
    signal?.addEventListener("abort", abort, { once: true });
    this.#endWatching = () => {
      signal?.removeEventListener("abort", abort);
      endTelling();
      endWatching();
    };
    this.#onClose = onClose;
    this.#endTicking = this.#every(Math.min(TICK_MS, windowMs), () => this.#tick());
  }

  /** Between two samples, ms. */
  get intervalMs(): number {
    return this.#intervalMs;
  }

  /** @throws {OptionError} if it is not 10 to 3,600,000. */
  set intervalMs(intervalMs: number) {
    this.#intervalMs = checkInterval("intervalMs", intervalMs);
    if (!this.#sampler) return;
    this.#endSampling();
    this.#endSampling = this.#every(this.#intervalMs, () => this.#sample());
  }

  /** The samples that are taken from now on. Several may read; each gets all. Leaving the loop ends the reading, not the monitor. */
  [Symbol.asyncIterator](): AsyncGenerator<MonitorSample, void, undefined> {
    return this.#readers.read();
  }

  /**
   * Calls `listener` whenever something of this name happens. What it throws is an uncaught exception, and holds nothing up.
   * @returns what ends that.
   * @example
   * const end = monitor.on("request", ({ inferenceTime }) => console.log(`${inferenceTime.toFixed(1)} ms`));
   */
  on<Name extends keyof MonitorEvents>(name: Name, listener: (event: MonitorEvents[Name]) => void): () => void {
    const listeners: Set<(event: MonitorEvents[Name]) => void> = this.#listeners[name];
    listeners.add(listener);
    this.#switchSampling();
    return () => {
      listeners.delete(listener);
      this.#switchSampling();
    };
  }

  /**
   * The last `count` windows that have ended, as one; its rows have histograms. A step belongs to the window in which its events
   * came, a request to the one in which it ended.
   * @throws {OptionError} if fewer windows are kept.
   */
  last(count = 1): WindowProfile {
    checkInteger("count", count, 1, this.#kept);
    this.#settle();
    return this.#windows.last(count);
  }

  /** Everything since it began to watch, the window under way included. */
  everything(): WindowProfile {
    const nowNs = this.#settle();
    return this.#windows.everything(nowNs);
  }

  /** What exporters tell: sums since it began to watch, and what the process holds now. */
  metrics(): Metrics {
    this.#settle();
    const { model, nativeBytes } = this.#watched;
    const held = { residentBytes: process.memoryUsage.rss(), nativeBytes: nativeBytes() };
    return { ...this.#windows.sums(), model, memory: null, ...held };
  }

  /** Bytes of what waits to be looked at, and of histograms. Windows that have ended are beside it. */
  get footprintBytes(): number {
    return this.#waitingBytes + this.#windows.footprintBytes;
  }

  /** Whether it has ended. */
  get closed(): boolean {
    return this.#closedNs !== undefined;
  }

  /** Ends watching; events are not written any more if nobody else watches. */
  close(): void {
    if (this.#closedNs !== undefined) return;
    this.#endTicking();
    this.#endWatching();
    this.#closedNs = this.#settle();
    this.#switchSampling();
    this.#watched.caches?.close();
    this.#readers.end();
    this.#tell("close", undefined);
    this.#onClose();
  }

  /** As `close`. */
  [Symbol.dispose](): void {
    this.close();
  }

  #tell<Name extends keyof MonitorEvents>(name: Name, event: MonitorEvents[Name]): void {
    // Not now: whoever tells of it has something under way.
    for (const listener of this.#listeners[name]) queueMicrotask(() => listener(event));
  }

  /** Samples are taken as long as somebody reads or hears them. */
  #switchSampling(): void {
    const wanted = !this.closed && this.#readers.count + this.#listeners.sample.size > 0;
    if (wanted === (this.#sampler !== undefined)) return;
    this.#endSampling();
    this.#endSampling = () => {};
    this.#sampler?.close();
    this.#sampler = undefined;
    if (!wanted) return;
    const { engine, batchSize, nativeBytes, caches } = this.#watched;
    engine.drainEvents();
    const eventsLost = () => engine.eventsLost;
    this.#sampler = new Sampler({ work: engine.work, batchSize, nativeBytes, tally: this.#tally, caches, eventsLost });
    this.#endSampling = this.#every(this.#intervalMs, () => this.#sample());
  }

  #sample(): void {
    this.#take();
    const sample = this.#sampler?.take();
    if (!sample) return;
    this.#readers.push(sample);
    this.#tell("sample", sample);
  }

  /** The tally is made of all that the engine thread does. Of other threads what would be thinned need not come. */
  #detail(thread: number): number {
    return thread > 0 && this.#thins(BUSY_EVENTS_BYTES) ? DETAILED_STEPS : 1;
  }

  /** Whether so much waits, with so many bytes of events more, that not all steps' ops are looked at. */
  #thins(bytes: number): boolean {
    return this.#waitingBytes + bytes > WAITING_BYTES_MAX;
  }

  #keep(events: Uint8Array, thread: number): void {
    if (thread === 0) this.#tally?.add(events);
    const kept = this.#thins(events.length) ? this.#thinned(events) : events.slice();
    if (kept.length > 0) this.#push({ events: kept }, kept.length);
  }

  /** The events without those of ops in steps that are not looked at closely. */
  #thinned(events: Uint8Array): Uint8Array {
    const words = eventWords(events);
    // One piece of memory for all: to have it anew takes longer than to look at the events.
    if (this.#room.length < words.length) this.#room = new Uint32Array(words.length);
    const kept = this.#room;
    let length = 0;
    for (let at = 0; at < words.length; at += EVENT_WORDS) {
      const kind = ((words[at + EventWord.place] as number) >>> 16) & 0xff;
      const whole = (words[at + EventWord.step] as number) % DETAILED_STEPS === 0;
      if (!whole && kind !== EventKind.step && kind !== EventKind.share) continue;
      for (let word = 0; word < EVENT_WORDS; word++) kept[length++] = words[at + word] as number;
    }
    return new Uint8Array(kept.slice(0, length).buffer);
  }

  #push(waiting: Waiting, bytes: number): void {
    this.#waiting.push(waiting);
    this.#waitingBytes += bytes;
    if (this.#waitingBytes <= WAITING_BYTES_MAX) return;
    const untilMs = performance.now() + BUSY_MS;
    while (this.#waitingBytes > WAITING_BYTES_MAX) {
      if (this.#waitingBytes <= 2 * WAITING_BYTES_MAX && performance.now() >= untilMs) return;
      this.#work.next();
    }
  }

  #tick(): void {
    this.#take();
    if (this.#turns) return;
    this.#turns = true;
    this.#turn();
  }

  /** Works on while the engine does not, or until a window has ended whose time has come, in turns with the event loop. */
  #turn(): void {
    const untilMs = performance.now() + TURN_MS;
    while (this.#windowEnds || this.#watched.engine.pending === 0) {
      if (this.#work.next().value) break;
      if (performance.now() < untilMs) continue;
      setImmediate(() => this.#turn());
      return;
    }
    this.#turns = false;
  }

  /** Takes over what the rings hold and what time it is. */
  #take(): number {
    if (this.#closedNs !== undefined) return this.#closedNs;
    const { engine } = this.#watched;
    engine.drainEvents();
    const lost = engine.eventsLost - this.#eventsLost;
    this.#eventsLost += lost;
    if (lost > 0) {
      this.#push({ lost }, NOTE_BYTES);
      this.#tell("lost", { events: lost });
    }
    const { nowNs } = engine;
    if (!this.#windowEnds && this.#windows.isDue(nowNs)) {
      this.#windowEnds = true;
      this.#push({ windowEndNs: nowNs }, NOTE_BYTES);
    }
    return nowNs;
  }

  /** Takes over everything and works it off. */
  #settle(): number {
    const nowNs = this.#take();
    while (!this.#work.next().value);
    return nowNs;
  }

  /** Works off what waits, in its order. Gives after each piece whether nothing is left. */
  *#working(): Generator<boolean, never, void> {
    const { profiler } = this.#windows;
    for (;;) {
      const taken = this.#waiting;
      this.#waiting = [];
      for (const next of taken) {
        if ("events" in next) profiler.drain(next.events);
        else if ("submitted" in next) profiler.requestSubmitted(next.submitted, next.submission);
        else if ("ended" in next) profiler.requestEnded(next.ended, next.ending);
        else if ("lost" in next) profiler.drain(new Uint8Array(0), next.lost);
        else {
          for (const _ of this.#windows.advanceInTurns(next.windowEndNs)) yield false;
          this.#windowEnds = false;
        }
        this.#waitingBytes -= "events" in next ? next.events.length : NOTE_BYTES;
        yield false;
      }
      if (this.#waiting.length === 0) yield true;
    }
  }
}

/** @throws {OptionError} if it is no time between two samples. */
export function checkInterval(option: string, intervalMs: unknown): number {
  return checkInteger(option, intervalMs, monitoringIntervalsMs.min, monitoringIntervalsMs.max);
}

function everyUnattended(intervalMs: number, tick: () => void): () => void {
  const timer = setInterval(tick, intervalMs);
  timer.unref();
  return () => clearInterval(timer);
}
