// Samples that lie far out, by name. They stay in all figures: a slow moment was a moment of the program as well, and who leaves it out
// must say so.

import { median } from "./summary.ts";

export interface Outlier {
  /** Of the samples, from 0. */
  readonly index: number;
  readonly value: number;
  /** "9.3 deviations above the median" */
  readonly why: string;
}

/** Deviations from the median. Of a normal distribution, one sample in two million lies further out. */
export const outlierLimit = 5;

/**
 * In the order of the samples. A deviation is the median distance from the median, times 1.4826, with which it is the standard
 * deviation of a normal distribution (Iglewicz and Hoaglin 1993); of the samples above and of those below each by itself, because times
 * have a long side. Where more than half of a side are as the median is, it is the mean distance times 1.2533. None of fewer than six.
 */
export function outliers(samples: readonly number[], limit: number = outlierLimit): Outlier[] {
  if (samples.length < 6) return [];
  const middle = median(samples);
  const above = deviation(samples.filter((value) => value >= middle).map((value) => value - middle));
  const below = deviation(samples.filter((value) => value <= middle).map((value) => middle - value));
  return samples.flatMap((value, index) => {
    const far = value > middle ? (value - middle) / above : (middle - value) / below;
    if (!(far > limit)) return [];
    return [{ index, value, why: `${far.toFixed(1)} deviations ${value > middle ? "above" : "below"} the median` }];
  });
}

function deviation(distances: readonly number[]): number {
  const middle = median(distances);
  if (middle > 0) return 1.4826 * middle;
  return (1.2533 * distances.reduce((sum, value) => sum + value, 0)) / distances.length;
}
