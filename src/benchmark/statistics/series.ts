// What the order of samples tells: whether each is like the one before, so that they say less than as many independent ones, and
// whether they drift.

import { normalBeyond } from "./normal.ts";
import { median } from "./summary.ts";

/** Correlations of the values with those 1 … `lagMax` later, each from -1 to 1; 0 where all values are alike. */
export function autocorrelation(values: readonly number[], lagMax: number): number[] {
  const correlate = correlation(values);
  return Array.from({ length: Math.min(lagMax, values.length - 1) }, (_, index) => correlate(index + 1));
}

function correlation(values: readonly number[]): (lag: number) => number {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const centred = Float64Array.from(values, (value) => value - mean);
  const whole = centred.reduce((sum, value) => sum + value * value, 0);
  return (lag) => {
    let sum = 0;
    for (let at = lag; at < centred.length; at++) sum += (centred[at] ?? 0) * (centred[at - lag] ?? 0);
    return whole > 0 ? sum / whole : 0;
  };
}

/** How much samples in a row depend on each other. */
export interface Dependence {
  /** How many independent samples would say as much of their mean: from 1 to their count. */
  readonly effective: number;
  /** How many in a row are to be drawn together, so that a resample has their dependence: 1 where they have none. */
  readonly block: number;
  /** How many independent samples such resamples look like: the ends of the blocks cut dependence, so it is more than `effective`. */
  readonly kept: number;
}

const lagsMax = 500;

/**
 * From their autocorrelation, if that of neighbours is above its standard error (else they count as independent): the count is divided
 * by 1 + 2 Σ autocorrelation, summed as long as pairs of neighbouring lags are above 0 (Geyer 1992, "Practical Markov Chain Monte
 * Carlo"). Few samples make that sum too small; so it is at least what a process whose correlation falls by the same factor with each
 * lag has, its factor freed of its bias (Marriott and Pope 1954).
 */
export function dependenceOf(values: readonly number[]): Dependence {
  const n = values.length;
  const independent = { effective: n, block: 1, kept: n };
  if (n < 6) return independent;
  const correlate = correlation(values);
  const first = correlate(1);
  if (first <= (n < 20 ? -1 / n : 1 / Math.sqrt(n))) return independent;
  const correlations = [first];
  let sum = first;
  for (let lag = 2; lag + 1 <= Math.min(n / 2, lagsMax); lag += 2) {
    const pair = [correlate(lag), correlate(lag + 1)] as const;
    if (pair[0] + pair[1] <= 0) break;
    correlations.push(...pair);
    sum += pair[0] + pair[1];
  }
  const factor = Math.min(0.99, (n * first + 1) / (n - 3));
  const inflation = Math.max(1 + 2 * sum, (1 + factor) / (1 - factor));
  const effective = Math.max(1.5, n / inflation);
  const block = Math.max(1, Math.min(Math.ceil(2 * inflation), Math.floor(n / 4)));
  const within = correlations.slice(0, block - 1);
  const inBlocks = within.reduce((all, each, index) => all + 2 * (1 - (index + 1) / block) * each, 1);
  return { effective, block, kept: Math.max(effective, n / Math.max(1, inBlocks)) };
}

/** How many independent samples say as much of the mean as these, in the order in which they were measured: from 1 to their count. */
export function effectiveSize(values: readonly number[]): number {
  return dependenceOf(values).effective;
}

export interface Drift {
  /** By how much a straight line through the values rises from the first to the last; below 0: it falls. */
  readonly rise: number;
  /** The same as a part of their median: 0.03 is 3 %. */
  readonly change: number;
  /** How often values without drift would show as much. */
  readonly pValue: number;
}

/** Of twice as many values and more, means of neighbours are looked at: each pair is compared, and drift is slow. */
const driftGroups = 150;

export interface DriftOptions {
  /** That neighbours resemble each other is taken for drift, which bends, not for chance. Default false. */
  readonly independent?: boolean;
}

/**
 * Theil and Sen's slope, with the test of Mann and Kendall, whose variance takes ties and dependence into account (Yue and Wang 2004,
 * from what the line leaves). No drift is told from fewer than six values.
 */
export function drift(values: readonly number[], { independent = false }: DriftOptions = {}): Drift {
  const groups = grouped(values, driftGroups);
  const n = groups.length;
  if (n < 6) return { rise: 0, change: 0, pValue: 1 };
  const slopes: number[] = [];
  let sum = 0;
  for (const [later, value] of groups.entries()) {
    for (let earlier = 0; earlier < later; earlier++) {
      const rise = value - (groups[earlier] ?? 0);
      slopes.push(rise / (later - earlier));
      sum += Math.sign(rise);
    }
  }
  const slope = median(slopes);
  const left = groups.map((value, index) => value - slope * index);
  const effective = independent ? n : dependenceOf(left).effective;
  const ties = tieSizes(groups).reduce((all, size) => all + size * (size - 1) * (2 * size + 5), 0);
  const variance = ((n * (n - 1) * (2 * n + 5) - ties) / 18) * (n / effective);
  const z = variance > 0 ? Math.max(0, Math.abs(sum) - 1) / Math.sqrt(variance) : 0;
  // A group's middle stands for it: from the first value to the last it is as far as from the begin of the first group to the end of
  // the last one, less one value.
  const rise = slope * n * (1 - 1 / values.length);
  return { rise, change: rise / median(values), pValue: normalBeyond(z) };
}

/** Means of groups of neighbours, of which there are from `count` to twice as many; the values themselves if they are fewer than that. */
export function grouped(values: readonly number[], count: number): readonly number[] {
  const size = Math.floor(values.length / count);
  if (size < 2) return values;
  const groups = Math.floor(values.length / size);
  return Array.from({ length: groups }, (_, index) => {
    // The last one takes what is left over.
    const end = index === groups - 1 ? values.length : (index + 1) * size;
    let sum = 0;
    for (let at = index * size; at < end; at++) sum += values[at] ?? 0;
    return sum / (end - index * size);
  });
}

/** How often each value is there that is there more than once. */
export function tieSizes(values: readonly number[]): number[] {
  const counts = new Map<number, number>();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return [...counts.values()].filter((count) => count > 1);
}
