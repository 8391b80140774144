// Histograms of durations: a thin layer over hdr-histogram-js that fixes unit, range and precision, and keeps count, sum
// and extremes exactly, which the buckets alone do not. It knows nothing of events or ops.

import type * as hdr from "hdr-histogram-js";

/** Decimal digits that a percentile is right to: 3 means within a thousandth of the recorded value. */
export const SIGNIFICANT_DIGITS = 3;

/** The longest duration a bucket exists for, one hour in nanoseconds. Longer ones count in its last bucket. */
export const HIGHEST_NS = 3_600_000_000_000;

/**
 * Where the buckets end at first. They grow towards `HIGHEST_NS` with what is recorded: 28 KiB up to 65 µs, 4 KiB more for
 * each doubling, 133 KiB at one hour, which for the few hundred ops of a model makes the difference between 10 and 35 MB.
 */
const FIRST_HIGHEST_NS = 2 ** 16 - 1;

// The library's plain JavaScript mode, not its WebAssembly mode: over 250 histograms recorded in turn, as the ops of a step
// are, Bun 1.4.5 on two shared Zen 4 cores took 75 to 120 ns a record in either mode (200 to 300 ns before the JIT compiler
// had seen it), so WebAssembly would buy nothing for its 19 ms of start-up and its memory, which never shrinks.
// Measured by timing 500,000 records, 1 µs to 1 ms, round robin; the library's "packed" buckets took 550 ns and more.

/** A histogram as plain data. `encoded` is HdrHistogram's own compressed V2 format in base64, which its tools in other languages read. */
export interface HistogramData {
  readonly unit: "ns";
  readonly count: number;
  readonly total: number;
  /** 0 when nothing was recorded. */
  readonly min: number;
  readonly max: number;
  readonly encoded: string;
}

let loaded: typeof hdr | undefined;

/**
 * hdr-histogram-js, loaded with the first histogram: that takes 20 to 40 ms (timed in a fresh process), which a program that
 * never profiles shall not pay. `require`, because a histogram is made synchronously; `bun build --compile` bundles it too.
 */
function library(): typeof hdr {
  loaded ??= require("hdr-histogram-js") as typeof hdr;
  return loaded;
}

function emptyBuckets(): hdr.Histogram {
  return library().build({
    lowestDiscernibleValue: 1,
    highestTrackableValue: FIRST_HIGHEST_NS,
    numberOfSignificantValueDigits: SIGNIFICANT_DIGITS,
    bitBucketSize: 32,
    autoResize: true,
  });
}

/** Durations in whole nanoseconds, 0 to one hour, to 3 significant digits. Count, total, minimum and maximum are exact. */
export class DurationHistogram {
  #buckets = emptyBuckets();
  #count = 0;
  #total = 0;
  #min = Number.POSITIVE_INFINITY;
  #max = 0;

  /** Durations recorded. */
  get count(): number {
    return this.#count;
  }

  /** Sum of the durations, ns; exact up to 2^53 ns (104 days). */
  get total(): number {
    return this.#total;
  }

  /** Shortest duration, ns; 0 when nothing was recorded. */
  get min(): number {
    return this.#count === 0 ? 0 : this.#min;
  }

  /** Longest duration, ns; 0 when nothing was recorded. */
  get max(): number {
    return this.#max;
  }

  /** Bytes that the buckets take. */
  get footprintBytes(): number {
    return this.#buckets.estimatedFootprintInBytes;
  }

  /**
   * Records one duration.
   * @param ns whole nanoseconds, not negative; above one hour it counts in the last bucket, while total and max keep it.
   */
  record(ns: number): void {
    this.#buckets.recordValue(Math.min(ns, HIGHEST_NS));
    this.#count++;
    this.#total += ns;
    if (ns < this.#min) this.#min = ns;
    if (ns > this.#max) this.#max = ns;
  }

  /**
   * The smallest duration that `percent` per cent of the recorded ones do not exceed, ns, at most a thousandth too high.
   * 0 when nothing was recorded.
   */
  percentile(percent: number): number {
    if (this.#count === 0) return 0;
    // The library answers with the upper end of a bucket, which can lie above everything that was recorded.
    return Math.min(this.#buckets.getValueAtPercentile(percent), this.#max);
  }

  /** Adds every duration of `other`: the same as having recorded them here. */
  merge(other: DurationHistogram): void {
    if (other.#count === 0) return;
    this.#buckets.add(other.#buckets);
    this.#count += other.#count;
    this.#total += other.#total;
    this.#min = Math.min(this.#min, other.#min);
    this.#max = Math.max(this.#max, other.#max);
  }

  /** Forgets everything recorded, and gives the grown buckets back. */
  reset(): void {
    this.#buckets = emptyBuckets();
    this.#count = 0;
    this.#total = 0;
    this.#min = Number.POSITIVE_INFINITY;
    this.#max = 0;
  }

  /** Plain data that `fromJSON` turns back into an equal histogram. */
  toJSON(): HistogramData {
    const encoded = library().encodeIntoCompressedBase64(this.#buckets);
    return { unit: "ns", count: this.#count, total: this.#total, min: this.min, max: this.#max, encoded };
  }

  /**
   * The histogram that `toJSON` described.
   * @throws {RangeError} when the buckets cannot be decoded or hold another number of values than `count`.
   */
  static fromJSON(data: HistogramData): DurationHistogram {
    const histogram = new DurationHistogram();
    if (data.count === 0) return histogram;
    let decodedCount: number;
    try {
      const decoded = library().decodeFromCompressedBase64(data.encoded, 32);
      decodedCount = decoded.totalCount;
      histogram.#buckets.add(decoded);
    } catch (cause) {
      throw new RangeError(
        "histogram: the field encoded is not HdrHistogram's compressed V2 format in base64; write it again with toJSON()",
        { cause },
      );
    }
    if (decodedCount !== data.count) {
      throw new RangeError(`histogram: the field count says ${data.count} but the buckets hold ${decodedCount} values`);
    }
    histogram.#count = data.count;
    histogram.#total = data.total;
    histogram.#min = data.min;
    histogram.#max = data.max;
    return histogram;
  }
}
