// What may be said of two sets of samples: whether one is better, by how much, with which certainty; and if nothing can be said, which
// difference would have been seen. A difference is said only if two ways of looking agree on it: the interval, by drawing again, and
// a test of ranks. Both know of samples that depend on each other, and of drift.
//
// Simulated, 200 comparisons of two sets drawn alike for each number of samples from 6 to 1000, a difference was said in: 0.5 to 4.5 %
// of normal and skewed ones, 1.5 to 5 % with heavy tails (4.1 % of 1600 with 200 samples); of sets that follow each other with a
// correlation of 0.6, 3 to 4.5 % from 20 samples on, 7.5 % below; in pairs taken in turns on a machine that drifts by 20 % or whose state lasts (0.9), 0.5 to 5 %.
// Not in pairs, a machine that grows slower from the first set to the second cannot be told from a slower program where its drift is
// as small as what one sample scatters: there up to 30 % (20 samples) were said to differ. Turns are for that.

import type { Interval } from "../results.ts";
import { defaultLevel, quantileInterval } from "./bootstrap.ts";
import { samplesMin } from "./describe.ts";
import { holm } from "./multiple.ts";
import { normalQuantile } from "./normal.ts";
import { type Random, seededRandom } from "./random.ts";
import { cliffsDelta, mannWhitney, signedRank } from "./rank.ts";
import { shiftBetween, shiftOfPairs } from "./shift.ts";
import { quantile } from "./summary.ts";

export interface Comparison {
  /** Of the second beside the first; of memory as well, where "faster" means better. */
  readonly verdict: "faster" | "slower" | "undecided";
  /** What changed, as a part of the first: 0.041 is better by 4.1 %, whichever way is better. */
  readonly change: number;
  /** Of the change; missing where the samples are too few to give one. */
  readonly interval?: Interval;
  /** The least change that would have been shown four times in five, as a part; null: none would, however large. */
  readonly detectable: number | null;
  /** Of the test, after correction over all comparisons that were made together. */
  readonly pValue: number;
  /** The least that the test gives so many samples, however far apart they are; corrected as well. */
  readonly pValueLeast: number;
  /** Cliff's delta, -1 to 1, above 0: the second is better. */
  readonly effect: number;
  /** "faster by 4.1 % (95 % interval 3.2 to 5.0)" */
  readonly sentence: string;
  /** How its sentence says better and worse. */
  readonly words: Words;
}

export interface Words {
  readonly better: string;
  readonly worse: string;
}

export const speedWords: Words = { better: "faster", worse: "slower" };
export const memoryWords: Words = { better: "less memory", worse: "more memory" };

export interface CompareOptions {
  /** Less of milliseconds and of megabytes, more of tokens a second. */
  readonly better: "less" | "more";
  /** Of the interval; 1 - level is how often a difference may be said where there is none. Default 0.95. */
  readonly level?: number;
  /** The samples of the same index were measured in the same turn; both are as many then. */
  readonly paired?: boolean;
  /**
   * The samples had nothing to do with each other, as medians of separate loadings: else a few whose order looks like dependence count
   * as fewer. Default false.
   */
  readonly independent?: boolean;
  /** Default: seeded, the same for each call. */
  readonly random?: Random;
  /** Default: `speedWords`. */
  readonly words?: Words;
}

/**
 * Compares samples, all above 0, in the order in which they were measured, at least one of each. The change is Hodges and Lehmann's:
 * the median of the ratios of all pairs; if `paired`, the pseudo-median of the turns' ratios.
 * @throws {RangeError} if a sample is not above 0, or there is none, or they cannot be paired.
 */
export function compareSamples(
  first: readonly number[],
  second: readonly number[],
  options: CompareOptions,
): Comparison {
  const { level = defaultLevel, paired = false, independent = false, random = seededRandom() } = options;
  const [from, to] = [logarithms(first), logarithms(second)];
  if (paired && from.length !== to.length) {
    throw new RangeError(`${from.length} samples against ${to.length}: each turn needs both`);
  }
  const ratios = to.map((value, index) => value - (from[index] ?? Number.NaN));
  const { shift, low, high, inflation } = paired
    ? shiftOfPairs(ratios, { level, random, independent })
    : shiftBetween(from, to, { level, random, independent });
  if (Math.min(first.length, second.length) < samplesMin) return judge(first, second, { shift }, options);
  const test = (one: readonly number[], other: readonly number[]) =>
    (paired
      ? signedRank(
          one.map((value, index) => value - (other[index] ?? 0)),
          { inflation },
        )
      : mannWhitney(one, other, { inflation })
    ).pValue;
  // Farther apart than by having no sample in common no samples can be.
  const apart = [from.map((_, index) => -1 - index), to.map((_, index) => index)] as const;
  return judge(first, second, { shift, low, high, pValue: test(from, to), pValueLeast: test(...apart) }, options);
}

/**
 * The same of the value below which `part` of the samples lie: 0.99 for the 99th percentile. Its interval is put together from those
 * of the two percentiles, by their ranks (Zou and Donner 2008, "Construction of Confidence Limits about Effect Measures"), as if the
 * samples were not paired; undecided where they are too few.
 * @throws {RangeError} as `compareSamples` does.
 */
export function compareQuantiles(
  first: readonly number[],
  second: readonly number[],
  part: number,
  options: CompareOptions,
): Comparison {
  const { level = defaultLevel } = options;
  const [from, to] = [logarithms(first), logarithms(second)];
  const [one, other] = [from, to].map((values) => quantile(Float64Array.from(values).sort(), part));
  const shift = (other ?? Number.NaN) - (one ?? Number.NaN);
  const at = (wanted: number): { readonly low: number; readonly high: number } | undefined => {
    const ranges = [from, to].map((values) => quantileInterval(values, part, { level: wanted }));
    const [ofOne, ofOther] = ranges;
    if (!ofOne || !ofOther || one === undefined || other === undefined) return undefined;
    return {
      low: shift - Math.hypot(other - ofOther.low, ofOne.high - one),
      high: shift + Math.hypot(ofOther.high - other, one - ofOne.low),
    };
  };
  const range = at(level);
  if (!range) return judge(first, second, { shift }, options);
  const without = lastLevel((wanted) => {
    const { low, high } = at(wanted) ?? { low: Number.NEGATIVE_INFINITY, high: Number.POSITIVE_INFINITY };
    return low > 0 || high < 0;
  });
  const pValueLeast = 1 - lastLevel((wanted) => at(wanted) !== undefined);
  return judge(first, second, { shift, ...range, pValue: 1 - without, pValueLeast }, options);
}

/** The largest level that holds, where those that hold come first. */
function lastLevel(holds: (level: number) => boolean): number {
  let [known, beyond] = [0, 1];
  for (let step = 0; step < 20; step++) {
    const middle = (known + beyond) / 2;
    if (holds(middle)) known = middle;
    else beyond = middle;
  }
  return known;
}

/** Comparisons that were made together, each with its p-value, verdict and sentence after Holm's correction. */
export function correct(comparisons: readonly Comparison[]): Comparison[] {
  const pValues = holm(comparisons.map(({ pValue }) => pValue));
  return comparisons.map((comparison, index) => {
    const { interval, detectable } = comparison;
    const level = interval?.level ?? defaultLevel;
    // At worst each is tested at the level divided by their number.
    const pValueLeast = Math.min(1, comparison.pValueLeast * comparisons.length);
    const farther = power(1 - (1 - level) / comparisons.length) / power(level);
    return worded({
      ...comparison,
      pValue: pValues[index] ?? 1,
      pValueLeast,
      detectable: detectable === null || pValueLeast > 1 - level ? null : Math.expm1(Math.log1p(detectable) * farther),
    });
  });
}

/** How many standard errors off a difference must be to be shown four times in five. */
function power(level: number): number {
  return normalQuantile((1 + level) / 2) + normalQuantile(0.8);
}

/** Of logarithms: the second over the first. */
interface Found {
  readonly shift: number;
  readonly low?: number;
  readonly high?: number;
  readonly pValue?: number;
  readonly pValueLeast?: number;
}

function judge(
  first: readonly number[],
  second: readonly number[],
  { shift, low, high, pValue = 1, pValueLeast = 1 }: Found,
  { better, level = defaultLevel, words = speedWords }: CompareOptions,
): Comparison {
  const part = (logarithm: number) => (better === "more" ? Math.expm1(logarithm) : -Math.expm1(logarithm));
  const figures = {
    change: part(shift),
    pValue,
    pValueLeast,
    effect: cliffsDelta(first, second).delta * (better === "more" ? 1 : -1),
    words,
  };
  if (low === undefined || high === undefined) return worded({ ...figures, detectable: null });
  const [worst, best] = better === "more" ? [low, high] : [high, low];
  const error = (high - low) / 2 / normalQuantile((1 + level) / 2);
  return worded({
    ...figures,
    interval: { level, low: part(worst), high: part(best) },
    detectable: pValueLeast > 1 - level ? null : Math.expm1(error * power(level)),
  });
}

function worded(figures: Omit<Comparison, "verdict" | "sentence">): Comparison {
  const { change, interval, detectable, pValue, words } = figures;
  if (!interval) return { ...figures, verdict: "undecided", sentence: "undecided: too few samples to tell" };
  const { level, low, high } = interval;
  if (pValue > 1 - level || (low <= 0 && high >= 0)) {
    return { ...figures, verdict: "undecided", sentence: `no difference could be shown${seen(detectable)}` };
  }
  const [nearer, further] = low > 0 ? [low, high] : [-high, -low];
  const range = `${Number((100 * level).toFixed(2))} % interval ${percent(nearer, nearer)} to ${percent(further, nearer)}`;
  return {
    ...figures,
    verdict: low > 0 ? "faster" : "slower",
    sentence: `${low > 0 ? words.better : words.worse} by ${percent(Math.abs(change), nearer)} % (${range})`,
  };
}

function seen(detectable: number | null): string {
  if (detectable === null) return ": so few samples cannot show one";
  if (detectable === 0) return ": all samples are alike";
  return detectable > 1 ? ": the samples vary too much" : `; one of ${percent(detectable)} % would have been`;
}

/** With a digit after the point, or with as many as `smallest` needs to be told from 0. */
function percent(part: number, smallest = part): string {
  const digits = smallest > 0 ? Math.min(6, Math.max(1, Math.ceil(-Math.log10(100 * smallest)))) : 1;
  return (100 * part).toFixed(digits);
}

function logarithms(samples: readonly number[]): number[] {
  const found = samples.map(Math.log);
  if (found.length === 0 || !found.every(Number.isFinite)) throw new RangeError("samples above 0 are needed");
  return found;
}
