// What a histogram's plain data holds, as buckets to draw or to export. Percentiles are histogram.ts's affair.

import * as hdr from "hdr-histogram-js";
import type { HistogramData } from "./histogram.ts";

/** Values of a histogram that count as equal. */
export interface Bucket {
  /** Largest of them. */
  readonly value: number;
  readonly count: number;
}

/** hdr-histogram-js's iterator over what was recorded, which its types do not list for decoded histograms. */
interface Recorded {
  readonly recordedValuesIterator: {
    reset(): void;
    hasNext(): boolean;
    next(): { readonly valueIteratedTo: number; readonly countAtValueIteratedTo: number };
  };
}

/** Every value with how often it was recorded, ascending; none lies above the histogram's maximum. */
export function bucketsOf(data: HistogramData): Bucket[] {
  if (data.count === 0) return [];
  const { recordedValuesIterator: recorded } = hdr.decodeFromCompressedBase64(data.encoded, 32) as unknown as Recorded;
  const buckets: Bucket[] = [];
  recorded.reset();
  while (recorded.hasNext()) {
    const { valueIteratedTo, countAtValueIteratedTo } = recorded.next();
    buckets.push({ value: Math.min(valueIteratedTo, data.max), count: countAtValueIteratedTo });
  }
  return buckets;
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
