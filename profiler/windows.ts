// Profiles of a process that runs for days: of the last window of time, of the last few, of everything. Windows that have ended
// are kept as plain data, about a kilobyte a row, and only so many of them: memory does not grow. It has no timer and no clock
// of its own; whoever drains the rings says what time it is.

import type { OpInfo } from "./events.ts";
import { Histogram, type HistogramData, type HistogramUnit } from "./histogram.ts";
import { type MetricSums, metricSums } from "./metrics.ts";
import { type Profile, Profiler, type ProfilerOptions } from "./profile.ts";
import { RequestFigures, type RequestReport } from "./requests.ts";
import { mergeProfiles, Totals } from "./totals.ts";

export interface WindowOptions {
  /** How long a window is. Default one minute. */
  readonly windowMs?: number;
  /** Windows that are kept once they have ended. Default 60. */
  readonly windows?: number;
}

/** A piece of time. ns of the clock that events are stamped with. */
export interface TimeSpan {
  readonly startNs: number;
  readonly endNs: number;
}

/** What happened in one window or in several. Its rows have histograms, so that it can be merged with others. */
export interface WindowProfile extends TimeSpan, Omit<RequestReport, "requests"> {
  readonly profile: Profile;
}

/** The windows that have ended, and when the one under way ends. */
class Windows<Ended> {
  readonly #windowNs: number;
  readonly #kept: number;
  readonly #ended: (TimeSpan & { readonly what: Ended })[] = [];
  readonly #beginNs: number;
  #startNs: number;

  constructor(startNs: number, { windowMs = 60_000, windows = 60 }: WindowOptions) {
    if (!Number.isFinite(windowMs) || windowMs <= 0) {
      throw new RangeError(`windows options.windowMs: ${windowMs} is not a time above 0`);
    }
    if (!Number.isInteger(windows) || windows < 1) {
      throw new RangeError(`windows options.windows: ${windows} is not a whole number above 0`);
    }
    this.#windowNs = windowMs * 1e6;
    this.#kept = windows;
    this.#beginNs = this.#startNs = startNs;
  }

  get beginNs(): number {
    return this.#beginNs;
  }

  /** Whether the time of the window under way has come. Windows begin at multiples of their length. */
  isDue(nowNs: number): boolean {
    const index = Math.floor((this.#startNs - this.#beginNs) / this.#windowNs);
    return nowNs >= this.#beginNs + (index + 1) * this.#windowNs;
  }

  /** Ends the window under way, in which this happened. */
  end(nowNs: number, what: Ended): void {
    this.#ended.push({ startNs: this.#startNs, endNs: nowNs, what });
    this.#startNs = nowNs;
    if (this.#ended.length > this.#kept) this.#ended.shift();
  }

  /** The last `count` that have ended, oldest first. */
  last(count: number): readonly (TimeSpan & { readonly what: Ended })[] {
    if (!Number.isInteger(count) || count < 1 || count > this.#kept) {
      throw new RangeError(
        `windows: the last ${count} were asked for; a whole number from 1 to ${this.#kept} is expected`,
      );
    }
    return this.#ended.slice(-count);
  }

  /** From the first one's start to the last one's end. */
  spanOf(ended: readonly TimeSpan[]): TimeSpan {
    return { startNs: ended[0]?.startNs ?? this.#startNs, endNs: ended.at(-1)?.endNs ?? this.#startNs };
  }
}

/**
 * A profiler for as long as the process runs. Drain into `profiler` as into any other, and call `advance` once all rings are
 * drained; a step belongs to the window in which it was drained. To end a window takes about as long as `result`.
 */
export class ProfilerWindows {
  /** Of the window under way. */
  readonly profiler: Profiler;
  readonly #ops: readonly OpInfo[];
  readonly #windows: Windows<Omit<WindowProfile, keyof TimeSpan>>;
  /** Of all windows that have ended, those that are no longer kept too. */
  readonly #past: Totals;
  readonly #pastRequests = new RequestFigures();

  /** @param startNs now, on the clock that events are stamped with. */
  constructor(ops: readonly OpInfo[], startNs: number, options: ProfilerOptions & WindowOptions = {}) {
    this.#ops = ops;
    this.profiler = new Profiler(ops, options);
    this.#windows = new Windows(startNs, options);
    this.#past = new Totals(ops);
  }

  /** Bytes that all buckets take. Windows that have ended take about a kilobyte a row beside it. */
  get footprintBytes(): number {
    return this.#past.footprintBytes + this.profiler.footprintBytes;
  }

  /** Whether the window's time has come. */
  isDue(nowNs: number): boolean {
    return this.#windows.isDue(nowNs);
  }

  /** Ends the window if its time has come: all rings have been drained, and it is `nowNs`. */
  advance(nowNs: number): void {
    for (const _ of this.advanceInTurns(nowNs));
  }

  /** The same in small pieces, between which nothing may be drained. */
  *advanceInTurns(nowNs: number): Generator<void, void, void> {
    if (!this.#windows.isDue(nowNs)) return;
    const profile = yield* this.profiler.resultInTurns({ histograms: true });
    const { requests: _, ...figures } = this.profiler.requests({ histograms: true });
    yield* this.profiler.moveInTurns(this.#past, this.#pastRequests);
    this.#windows.end(nowNs, { profile, ...figures });
  }

  /** The last `count` windows that have ended, as one. */
  last(count = 1): WindowProfile {
    const ended = this.#windows.last(count);
    const [only] = ended;
    const span = this.#windows.spanOf(ended);
    if (ended.length === 1 && only !== undefined) return { ...span, ...only.what };
    const figures = new RequestFigures();
    for (const [index, { what }] of ended.entries()) figures.add(what, `windows[${index}]`);
    return { ...span, profile: mergeProfiles(ended.map(({ what }) => what.profile)), ...figures.report(true) };
  }

  /** Everything since the beginning, the window under way included. */
  everything(nowNs: number): WindowProfile {
    const totals = new Totals(this.#ops);
    const figures = new RequestFigures();
    totals.merge(this.#past);
    figures.merge(this.#pastRequests);
    this.profiler.addTo(totals, figures);
    const span = { startNs: this.#windows.beginNs, endNs: nowNs };
    return { ...span, profile: totals.result({ histograms: true }), ...figures.report(true) };
  }

  /** What exporters tell of everything since the beginning. */
  sums(): MetricSums {
    return metricSums([this.profiler.gathered(), { totals: this.#past, figures: this.#pastRequests }]);
  }
}

/** A histogram of amounts that goes on for as long as the process runs. */
export class WindowedHistogram {
  readonly #windows: Windows<HistogramData>;
  readonly #current: Histogram;
  readonly #past: Histogram;

  constructor(unit: HistogramUnit, startNs: number, options: WindowOptions = {}) {
    this.#windows = new Windows(startNs, options);
    this.#current = new Histogram(unit);
    this.#past = new Histogram(unit);
  }

  /** As a histogram does, in the window under way. */
  record(amount: number, times = 1): void {
    this.#current.record(amount, times);
  }

  /** Ends the window if its time has come. */
  advance(nowNs: number): void {
    if (!this.#windows.isDue(nowNs)) return;
    this.#windows.end(nowNs, this.#current.toJSON());
    this.#past.merge(this.#current);
    this.#current.reset();
  }

  /** The last `count` windows that have ended, as one. */
  last(count = 1): Histogram {
    const merged = new Histogram(this.#current.unit);
    for (const { what } of this.#windows.last(count)) merged.merge(Histogram.fromJSON(what));
    return merged;
  }

  /** Everything since the beginning, the window under way included. */
  everything(): Histogram {
    const merged = new Histogram(this.#current.unit);
    merged.merge(this.#past);
    merged.merge(this.#current);
    return merged;
  }
}
