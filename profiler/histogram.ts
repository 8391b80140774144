// Histograms of durations and of other amounts: a thin layer over hdr-histogram-js that fixes range and precision, and keeps
// count, sum and extremes exactly, which the buckets alone do not. It knows nothing of events or ops.

import type * as zlib from "node:zlib";
import type * as hdr from "hdr-histogram-js";
import type { AmountRow } from "./report.ts";

/** Decimal digits that a percentile is right to: 3 means within a thousandth of the recorded value. */
export const SIGNIFICANT_DIGITS = 3;

/** The largest amount a bucket exists for; 104 days in nanoseconds. Larger ones count in its last bucket. */
export const HIGHEST_AMOUNT = Number.MAX_SAFE_INTEGER;

/**
 * Where the buckets end at first. They grow towards `HIGHEST_AMOUNT` with what is recorded: 28 KiB up to 65,535, 4 KiB more for
 * each doubling, 133 KiB at one hour in nanoseconds, which for the few hundred ops of a model makes the difference between 10
 * and 35 MB.
 */
const FIRST_HIGHEST = 2 ** 16 - 1;

/** Amounts below this have a bucket each; above it, each doubling has half as many buckets. */
const SINGLE = 2048;

/** Amounts below this are told from each other with 32 bits. */
const NARROW_AMOUNT = 2 ** 31;

/** Amounts from which on one bucket of 32 bits might not hold them: the buckets then get 64. */
const NARROW_COUNT_MAX = 2 ** 32 - 1;

/** Sums are kept in two parts, so that they are exact beyond 2^53: a multiple of this, and the rest. */
const TOTAL_PART = 2 ** 52;

// The library's plain JavaScript mode, not its WebAssembly mode: over 250 histograms recorded in turn, as the ops of a step
// are, Bun 1.4.5 on two shared Zen 4 cores took 75 to 120 ns a record in either mode (200 to 300 ns before the JIT compiler
// had seen it), so WebAssembly would buy nothing for its 19 ms of start-up and its memory, which never shrinks.
// Measured by timing 500,000 records, 1 µs to 1 ms, round robin; the library's "packed" buckets took 550 ns and more. What it
// takes beyond counting, powers and logarithms to find the bucket, is left out for amounts below 2^31: `record` finds it itself.

/** What is counted. */
export type HistogramUnit = AmountRow["unit"];

/** A histogram as plain data. `encoded` is HdrHistogram's own compressed V2 format in base64, which its tools in other languages read. */
export interface HistogramData {
  readonly unit: HistogramUnit;
  readonly count: number;
  /** The double that is nearest to the sum. */
  readonly total: number;
  /** What is to be added to `total` for the exact sum, if that is beyond 2^53. */
  readonly totalRest?: number;
  /** 0 when nothing was recorded. */
  readonly min: number;
  readonly max: number;
  readonly encoded: string;
}

/** First words of the compressed V2 format and of what it unpacks to; four bits tell the size of words, which does not vary. */
const COMPRESSED_COOKIE = 0x1c849304;
const COOKIE = 0x1c849303;
const COOKIE_SIZE_BITS = 0xf0;
const COMPRESSED_HEADER_BYTES = 8;
const HEADER_BYTES = 40;

/** What buckets unpack to at most: every one up to `HIGHEST_AMOUNT` with a count of 8 bytes. */
const UNPACKED_BYTES_MAX = HEADER_BYTES + 8 * (placeOf(HIGHEST_AMOUNT) + 1);
/** Characters of base64: what cannot be compressed grows by less than a thousandth. */
const ENCODED_LENGTH_MAX = Math.ceil((UNPACKED_BYTES_MAX * 1.001 + 1024) / 3) * 4;

/** The library's buckets, with what its types list for its own classes alone. */
interface Buckets extends hdr.Histogram {
  incrementCountAtIndex(index: number): void;
  setCountAtIndex(index: number, count: number): void;
  setTotalCount(count: number): void;
  updateMinAndMax(value: number): void;
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

/** Buckets up to `highest`, which is 2^n - 1 and as low as what is recorded allows: equal amounts are then encoded equally. */
function emptyBuckets(highest: number, bits: 32 | 64): Buckets {
  const buckets = library().build({
    lowestDiscernibleValue: 1,
    highestTrackableValue: highest,
    numberOfSignificantValueDigits: SIGNIFICANT_DIGITS,
    bitBucketSize: bits,
    autoResize: false,
  });
  return buckets as Buckets;
}

/** The place of the bucket that an amount up to `HIGHEST_AMOUNT` counts in. */
function placeOf(amount: number): number {
  // Where the logarithm is rounded up to the next doubling, the place comes out the same.
  const shift = amount < SINGLE ? 0 : Math.floor(Math.log2(amount)) - 10;
  return shift * (SINGLE / 2) + Math.floor(amount / 2 ** shift);
}

/** What a bucket holds. */
export interface PlaceCount {
  readonly place: number;
  /** Largest amount that counts in it. */
  readonly value: number;
  readonly count: number;
}

/**
 * The buckets of a histogram's plain data that are not empty, in ascending order. Whatever the data are, it takes
 * 20 ms at most (timed with counts in all 45,056 buckets, on a shared Zen 4 core) and a few megabytes: all lengths are checked
 * before anything is made from them.
 * @throws {RangeError} when a field is damaged, or the buckets hold another number of amounts than `count`.
 */
export function decodeBuckets(data: HistogramData): PlaceCount[] {
  const { count, total, totalRest = 0, min, max } = data;
  for (const [field, value] of Object.entries({ count, total, totalRest, min, max })) {
    if (Number.isFinite(value) && (value >= 0 || field === "totalRest")) continue;
    throw new RangeError(`histogram: the field ${field} is no such number; write it again with toJSON()`);
  }
  if (count === 0) return [];
  let buckets: PlaceCount[];
  try {
    buckets = readBuckets(unpack(data.encoded), placeOf(Math.min(max, HIGHEST_AMOUNT)));
  } catch (cause) {
    throw new RangeError(
      "histogram: the field encoded is not HdrHistogram's compressed V2 format in base64, or of another range than this one's; write it again with toJSON()",
      { cause },
    );
  }
  const held = buckets.reduce((sum, bucket) => sum + bucket.count, 0);
  if (held === count) return buckets;
  throw new RangeError(`histogram: the field count says ${count} but the buckets hold ${held} values`);
}

/** The counts of the buckets as the format packs them, from what is in base64. */
function unpack(encoded: string): Uint8Array {
  if (typeof encoded !== "string") throw new Error("it is no text");
  if (encoded.length > ENCODED_LENGTH_MAX) throw new Error("it is too long");
  const packed = Buffer.from(encoded, "base64");
  const lengthGiven = packed.readInt32BE(4);
  if ((packed.readInt32BE(0) & ~COOKIE_SIZE_BITS) !== COMPRESSED_COOKIE) throw new Error("it is of another format");
  if (lengthGiven !== packed.length - COMPRESSED_HEADER_BYTES) throw new Error(`it says to have ${lengthGiven} bytes`);
  const { inflateSync } = require("node:zlib") as typeof zlib;
  const bytes = inflateSync(packed.subarray(COMPRESSED_HEADER_BYTES), { maxOutputLength: UNPACKED_BYTES_MAX });
  const highest = bytes.readBigInt64BE(24);
  if ((bytes.readInt32BE(0) & ~COOKIE_SIZE_BITS) !== COOKIE) throw new Error("it unpacks to another format");
  if (bytes.readInt32BE(4) !== bytes.length - HEADER_BYTES)
    throw new Error("it unpacks to another length than it says");
  if (bytes.readInt32BE(12) !== SIGNIFICANT_DIGITS) throw new Error("it has another precision");
  if (bytes.readBigInt64BE(16) !== 1n) throw new Error("its lowest amount is not 1");
  if (highest < 2n || highest > BigInt(HIGHEST_AMOUNT)) throw new Error(`its highest amount is ${highest}`);
  return bytes.subarray(HEADER_BYTES);
}

/**
 * Counts of 7 bits a byte, lowest first, of which an odd one n stands for (n + 1) / 2 empty buckets and an even one n for a
 * bucket with n / 2 amounts. None lies beyond the bucket at `last`.
 */
function readBuckets(bytes: Uint8Array, last: number): PlaceCount[] {
  const buckets: PlaceCount[] = [];
  let place = 0;
  for (let at = 0; at < bytes.length; ) {
    let word = 0;
    for (let scale = 1, more = true; more; scale *= 128) {
      const byte = bytes[at++];
      if (byte === undefined) throw new Error("it ends inside a count");
      word += (byte & 127) * scale;
      if (word > 2 * Number.MAX_SAFE_INTEGER) throw new Error("it has a count beyond 2^53");
      more = byte > 127;
    }
    const count = word % 2 === 0 ? word / 2 : 0;
    if (count > 0) {
      const shift = place < SINGLE ? 0 : Math.floor(place / (SINGLE / 2)) - 1;
      const value = (place - shift * (SINGLE / 2) + 1) * 2 ** shift - 1;
      buckets.push({ place, value, count });
    }
    place += word % 2 === 0 ? 1 : (word + 1) / 2;
    if (place > last + 1) throw new Error("it has buckets beyond the largest amount");
  }
  return buckets;
}

/** Whole amounts from 0 to 2^53 to 3 significant digits. Count, total, minimum and maximum are exact. */
export class Histogram {
  readonly unit: HistogramUnit;
  /** The largest amount that there is a bucket for; none yet. */
  #highest = -1;
  #bits: 32 | 64 = 32;
  /** From the first amount on: a program's hundreds of histograms are made when it begins to be watched, and some stay empty. */
  #buckets: Buckets | undefined;
  #count = 0;
  #totalParts = 0;
  #totalRest = 0;
  #min = Number.POSITIVE_INFINITY;
  #max = 0;

  constructor(unit: HistogramUnit) {
    this.unit = unit;
    // Not when the first amount is recorded, in the middle of what is watched.
    library();
  }

  /** Amounts recorded. */
  get count(): number {
    return this.#count;
  }

  /** Sum of the amounts; beyond 2^53 the nearest double. */
  get total(): number {
    return this.#totalParts * TOTAL_PART + this.#totalRest;
  }

  /** Smallest amount; 0 when nothing was recorded. */
  get min(): number {
    return this.#count === 0 ? 0 : this.#min;
  }

  /** Largest amount; 0 when nothing was recorded. */
  get max(): number {
    return this.#max;
  }

  /** Bytes that the buckets take. */
  get footprintBytes(): number {
    return this.#buckets?.estimatedFootprintInBytes ?? 0;
  }

  /**
   * Records an amount, `times` times.
   * @param amount whole, not negative; beyond 2^53 it counts in the last bucket, while total and max keep it.
   */
  record(amount: number, times = 1): void {
    const counted = Math.min(amount, HIGHEST_AMOUNT);
    if (this.#buckets === undefined || counted > this.#highest || this.#count + times > NARROW_COUNT_MAX) {
      this.#fit(counted, this.#count + times);
    }
    const buckets = this.#buckets as Buckets;
    if (times === 1 && amount < NARROW_AMOUNT) {
      const shift = amount < SINGLE ? 0 : 21 - Math.clz32(amount);
      buckets.incrementCountAtIndex(shift * (SINGLE / 2) + (amount >>> shift));
    } else buckets.recordValueWithCount(counted, times);
    this.#count += times;
    if (times === 1) this.#add(amount);
    else this.#addTimes(amount, times);
    if (amount < this.#min) this.#min = amount;
    if (amount > this.#max) this.#max = amount;
  }

  /**
   * The smallest amount that `percent` per cent of the recorded ones do not exceed, at most a thousandth too high.
   * 0 when nothing was recorded.
   */
  percentile(percent: number): number {
    if (this.#count === 0) return 0;
    // The library answers with the upper end of a bucket, which can lie above everything that was recorded.
    return Math.min(this.#told().getValueAtPercentile(percent), this.#max);
  }

  /**
   * Adds every amount of `other`: the same as having recorded them here.
   * @throws {RangeError} when they are of another unit.
   */
  merge(other: Histogram): void {
    if (other.unit !== this.unit) {
      throw new RangeError(`histogram: ${other.unit} cannot be added to ${this.unit}; merge amounts of one unit`);
    }
    if (other.#count === 0) return;
    this.#fit(other.#highest, this.#count + other.#count);
    this.#told().add(other.#told());
    this.#count += other.#count;
    this.#totalParts += other.#totalParts;
    this.#add(other.#totalRest);
    this.#min = Math.min(this.#min, other.#min);
    this.#max = Math.max(this.#max, other.#max);
  }

  /** Forgets everything recorded, and gives the buckets back. */
  reset(): void {
    this.#highest = -1;
    this.#bits = 32;
    this.#buckets = undefined;
    this.#count = this.#totalParts = this.#totalRest = 0;
    this.#min = Number.POSITIVE_INFINITY;
    this.#max = 0;
  }

  /** The amounts in figures; with all of them when `histogram` asks for it. */
  row(options: { readonly histogram?: boolean } = {}): AmountRow {
    return {
      unit: this.unit,
      count: this.#count,
      total: this.total,
      min: this.min,
      p50: this.percentile(50),
      p90: this.percentile(90),
      p99: this.percentile(99),
      max: this.#max,
      ...(options.histogram === true ? { histogram: this.toJSON() } : {}),
    };
  }

  /** Plain data that `fromJSON` turns back into an equal histogram. */
  toJSON(): HistogramData {
    const { total } = this;
    // Exact, since the parts are the larger of the two (Dekker 1971).
    const totalRest = this.#totalRest - (total - this.#totalParts * TOTAL_PART);
    return {
      unit: this.unit,
      count: this.#count,
      total,
      ...(totalRest === 0 ? {} : { totalRest }),
      min: this.min,
      max: this.#max,
      encoded: library().encodeIntoCompressedBase64(this.#told()),
    };
  }

  /**
   * The histogram that `toJSON` described.
   * @throws {RangeError} when a field is damaged, or the buckets hold another number of amounts than `count`.
   */
  static fromJSON(data: HistogramData): Histogram {
    const histogram = new Histogram(data.unit);
    const buckets = decodeBuckets(data);
    if (data.count === 0) return histogram;
    histogram.#fit(Math.min(data.max, HIGHEST_AMOUNT), data.count);
    for (const { place, count } of buckets) histogram.#buckets?.setCountAtIndex(place, count);
    histogram.#count = data.count;
    histogram.#add(data.total);
    histogram.#add(data.totalRest ?? 0);
    histogram.#min = data.min;
    histogram.#max = data.max;
    return histogram;
  }

  /** The buckets, told what `record` kept from them: how many amounts there are, and the largest. */
  #told(): Buckets {
    const buckets = this.#buckets ?? emptyBuckets(FIRST_HIGHEST, 32);
    if (this.#count > 0) buckets.updateMinAndMax(Math.min(this.#max, HIGHEST_AMOUNT));
    buckets.setTotalCount(this.#count);
    return buckets;
  }

  /** Adds to the sum, exactly. */
  #add(amount: number): void {
    let rest = amount;
    if (rest >= TOTAL_PART || rest < 0) {
      const parts = Math.floor(rest / TOTAL_PART);
      this.#totalParts += parts;
      rest -= parts * TOTAL_PART;
    }
    this.#totalRest += rest;
    if (this.#totalRest < TOTAL_PART) return;
    this.#totalRest -= TOTAL_PART;
    this.#totalParts++;
  }

  /** Adds `amount` · `times` to the sum, exactly. */
  #addTimes(amount: number, times: number): void {
    const product = BigInt(amount) * BigInt(times);
    const parts = product / BigInt(TOTAL_PART);
    this.#totalParts += Number(parts);
    this.#add(Number(product - parts * BigInt(TOTAL_PART)));
  }

  /** Makes the buckets reach to `amount`, and large enough for `count` amounts. */
  #fit(amount: number, count: number): void {
    let highest = Math.max(this.#highest, FIRST_HIGHEST);
    while (highest < amount) highest = highest * 2 + 1;
    const bits = count > NARROW_COUNT_MAX ? 64 : this.#bits;
    if (highest === this.#highest && bits === this.#bits) return;
    const buckets = emptyBuckets(highest, bits);
    if (this.#count > 0) buckets.add(this.#told());
    this.#highest = highest;
    this.#bits = bits;
    this.#buckets = buckets;
  }
}

/** Durations in whole nanoseconds. */
export class DurationHistogram extends Histogram {
  constructor() {
    super("ns");
  }
}
