// Two sets of samples compared by their order alone, so that neither their distribution nor a single slow moment decides.

import { normalBeyond } from "./normal.ts";
import { tieSizes } from "./series.ts";

export interface RankTest {
  /** Of Mann and Whitney: in how many pairs the first sample is above the second, ties by half. Of Wilcoxon: the ranks above 0 summed. */
  readonly statistic: number;
  /** Two-sided: how often chance alone gives a statistic as far out. */
  readonly pValue: number;
}

export interface RankTestOptions {
  /** How many times as much the statistic varies as that of independent samples, because these depend on each other. Default 1. */
  readonly inflation?: number;
}

/** Each value's place in ascending order, from 1; values that are alike share the mean of their places. */
export function ranks(values: readonly number[]): number[] {
  const order = values.map((value, index) => ({ value, index })).sort((a, b) => a.value - b.value);
  const places = new Array<number>(values.length);
  for (let from = 0; from < order.length; ) {
    let to = from + 1;
    while (to < order.length && order[to]?.value === order[from]?.value) to++;
    for (const { index } of order.slice(from, to)) places[index] = (from + 1 + to) / 2;
    from = to;
  }
  return places;
}

/** Up to so many samples on one side, without ties, the chances are counted; else they are those of a normal distribution. */
const countedMax = 8;
/** So are they where that many pairs would make counting long. */
const pairsMax = 10_000;

/**
 * The test of Mann and Whitney: is a sample of the one above one of the other as often as below? The normal distribution is corrected
 * for ties and for continuity.
 */
export function mannWhitney(
  first: readonly number[],
  second: readonly number[],
  { inflation = 1 }: RankTestOptions = {},
): RankTest {
  const [n, m] = [first.length, second.length];
  const all = [...first, ...second];
  const places = ranks(all);
  const statistic = places.slice(0, n).reduce((sum, place) => sum + place, 0) - (n * (n + 1)) / 2;
  const ties = tieSizes(all);
  if (Math.min(n, m) <= countedMax && n * m <= pairsMax && ties.length === 0 && inflation === 1) {
    const counts = countsOfU(n, m);
    return { statistic, pValue: twoSided(counts, Math.min(statistic, n * m - statistic)) };
  }
  const tied = ties.reduce((sum, size) => sum + (size ** 3 - size), 0);
  const variance = ((n * m) / 12) * (n + m + 1 - tied / ((n + m) * (n + m - 1)));
  return { statistic, pValue: beyond(statistic - (n * m) / 2, variance * inflation) };
}

/** Wilcoxon's signed-rank test: do values lie around 0? Those that are 0 say nothing. Ranks of up to 50 values are counted. */
export function signedRank(values: readonly number[], { inflation = 1 }: RankTestOptions = {}): RankTest {
  const signed = values.filter((value) => value !== 0);
  const n = signed.length;
  const sizes = signed.map(Math.abs);
  const places = ranks(sizes);
  const statistic = signed.reduce((sum, value, index) => sum + (value > 0 ? (places[index] ?? 0) : 0), 0);
  const ties = tieSizes(sizes);
  const most = (n * (n + 1)) / 2;
  if (n <= 50 && ties.length === 0 && inflation === 1) {
    return { statistic, pValue: twoSided(countsOfSums(n), Math.min(statistic, most - statistic)) };
  }
  const tied = ties.reduce((sum, size) => sum + (size ** 3 - size), 0);
  const variance = (n * (n + 1) * (2 * n + 1)) / 24 - tied / 48;
  return { statistic, pValue: beyond(statistic - most / 2, variance * inflation) };
}

function beyond(distance: number, variance: number): number {
  return variance > 0 ? normalBeyond(Math.max(0, Math.abs(distance) - 0.5) / Math.sqrt(variance)) : 1;
}

/** Both tails up to `least`, of a distribution that is symmetric. */
function twoSided(counts: readonly bigint[], least: number): number {
  const sum = (part: readonly bigint[]) => part.reduce((total, count) => total + count, 0n);
  return Math.min(1, (2 * Number(sum(counts.slice(0, least + 1)))) / Number(sum(counts)));
}

/**
 * In how many of the orders of `n` and `m` samples U is 0, 1, …: the coefficients of ∏ (1 - q^(m + i)) / (1 - q^i), i from 1 to the
 * smaller number. Whole numbers, since the quotients of large ones would lose what counts.
 */
function countsOfU(n: number, m: number): bigint[] {
  const counts: bigint[] = Array.from({ length: n * m + 1 }, (_, index) => (index === 0 ? 1n : 0n));
  const [few, many] = [Math.min(n, m), Math.max(n, m)];
  for (let i = 1; i <= few; i++) {
    for (let at = n * m; at >= many + i; at--) counts[at] = (counts[at] ?? 0n) - (counts[at - many - i] ?? 0n);
    for (let at = i; at <= n * m; at++) counts[at] = (counts[at] ?? 0n) + (counts[at - i] ?? 0n);
  }
  return counts;
}

/** In how many choices out of the ranks 1 … n their sum is 0, 1, …: the coefficients of ∏ (1 + q^i). */
function countsOfSums(n: number): bigint[] {
  const most = (n * (n + 1)) / 2;
  const counts: bigint[] = Array.from({ length: most + 1 }, (_, index) => (index === 0 ? 1n : 0n));
  for (let i = 1; i <= n; i++)
    for (let at = most; at >= i; at--) counts[at] = (counts[at] ?? 0n) + (counts[at - i] ?? 0n);
  return counts;
}

export interface CliffsDelta {
  /** How much more often a sample of the second is above one of the first than below: -1 to 1. */
  readonly delta: number;
  readonly magnitude: "negligible" | "small" | "medium" | "large";
}

/** The words are those of Romano and others 2006: from 0.147, 0.33 and 0.474. */
export function cliffsDelta(first: readonly number[], second: readonly number[]): CliffsDelta {
  const pairs = first.length * second.length;
  const places = ranks([...first, ...second]).slice(0, first.length);
  const above = places.reduce((sum, place) => sum + place, 0) - (first.length * (first.length + 1)) / 2;
  const delta = 1 - (2 * above) / pairs;
  const size = Math.abs(delta);
  return {
    delta,
    magnitude: size < 0.147 ? "negligible" : size < 0.33 ? "small" : size < 0.474 ? "medium" : "large",
  };
}

/** By how much the second samples lie above the first: the median of all differences (Hodges and Lehmann 1963). */
export function hodgesLehmann(first: readonly number[], second: readonly number[]): number {
  return medianDifference(Float64Array.from(first).sort(), Float64Array.from(second).sort());
}

/** The second samples over the first, all above 0: the shift of their logarithms. */
export function hodgesLehmannRatio(first: readonly number[], second: readonly number[]): number {
  return Math.exp(hodgesLehmann(first.map(Math.log), second.map(Math.log)));
}

/** The median of the means of all pairs, each value with itself as well: what a median is, with less scatter. */
export function pseudoMedian(values: readonly number[]): number {
  return medianMean(Float64Array.from(values).sort());
}

/** The same of ascending values. */
export function medianDifference(first: Float64Array, second: Float64Array): number {
  const split = (value: number): Split => {
    let [count, largest, next] = [0, Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY];
    let from = 0;
    for (let index = 0; index < second.length; index++) {
      const above = second[index] ?? 0;
      // The first samples from here on are no further below.
      while (from < first.length && above - (first[from] ?? 0) > value) from++;
      count += first.length - from;
      if (from < first.length) largest = Math.max(largest, above - (first[from] ?? 0));
      if (from > 0) next = Math.min(next, above - (first[from - 1] ?? 0));
    }
    return { count, largest, next };
  };
  const low = (second[0] ?? Number.NaN) - (first.at(-1) ?? Number.NaN);
  const high = (second.at(-1) ?? Number.NaN) - (first[0] ?? Number.NaN);
  return middleOf(first.length * second.length, split, low, high);
}

/** The same of ascending values. */
export function medianMean(values: Float64Array): number {
  const split = (value: number): Split => {
    let [count, largest, next] = [0, Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY];
    let to = values.length - 1;
    for (let index = 0; index < values.length; index++) {
      const one = values[index] ?? 0;
      // Up to here the means with it are no larger; of each pair the first comes first.
      while (to >= 0 && (one + (values[to] ?? 0)) / 2 > value) to--;
      if (to >= index) {
        count += to - index + 1;
        largest = Math.max(largest, (one + (values[to] ?? 0)) / 2);
      }
      const after = Math.max(index, to + 1);
      if (after < values.length) next = Math.min(next, (one + (values[after] ?? 0)) / 2);
    }
    return { count, largest, next };
  };
  const pairs = (values.length * (values.length + 1)) / 2;
  return middleOf(pairs, split, values[0] ?? Number.NaN, values.at(-1) ?? Number.NaN);
}

/** What is known of figures that are never made: how many are at most a value, the largest of those, and the next larger one. */
interface Split {
  readonly count: number;
  readonly largest: number;
  readonly next: number;
}

/** The median of `count` figures from `low` to `high`. */
function middleOf(count: number, split: (value: number) => Split, low: number, high: number): number {
  const half = Math.ceil(count / 2);
  let [least, most] = [low, high];
  while (least < most) {
    const middle = least + (most - least) / 2;
    // Between neighbouring numbers there is no middle.
    const found = split(middle < most ? middle : least);
    if (found.count >= half) most = found.largest;
    else least = found.next;
  }
  if (count % 2 === 1) return least;
  const lower = split(least);
  return lower.count > half ? least : (least + lower.next) / 2;
}
