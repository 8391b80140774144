// What a histogram's plain data holds, as buckets to draw or to export. Percentiles are histogram.ts's affair.

import { decodeBuckets, type HistogramData } from "./histogram.ts";

/** Values of a histogram that count as equal. */
export interface Bucket {
  /** Largest of them. */
  readonly value: number;
  readonly count: number;
}

/**
 * Every value with how often it was recorded, ascending; none lies above the histogram's maximum.
 * @throws {RangeError} as `Histogram.fromJSON`.
 */
export function bucketsOf(data: HistogramData): Bucket[] {
  return decodeBuckets(data).map(({ value, count }) => ({ value: Math.min(value, data.max), count }));
}

/** How many values lie at or below each of `bounds` (ascending), and in all. */
export function cumulative(data: HistogramData, bounds: readonly number[]): number[] {
  const counts = new Array<number>(bounds.length).fill(0);
  for (const { value, count } of bucketsOf(data)) {
    const first = bounds.findIndex((bound) => value <= bound);
    if (first >= 0) counts[first] = (counts[first] ?? 0) + count;
  }
  let sum = 0;
  return counts.map((count) => (sum += count));
}
