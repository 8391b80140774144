// Intervals in which a figure of the whole lies, found by drawing from the samples again and again (Efron 1987, "Better Bootstrap
// Confidence Intervals": BCa), and for quantiles from the ranks of the samples, which needs no drawing.
//
// The ends are taken as far out as Student's distribution asks instead of the normal one, because few samples spread less than what
// they were drawn from (Hesterberg 2015, "What Teachers Should Know about the Bootstrap"). Samples that depend on those before them are
// drawn in blocks of neighbours, around the end; what blocks still spread too little is made up by the ratio that the autocorrelation
// gives.
//
// How often 95 % intervals held the true value, simulated with 300 to 1500 sets for each number of samples from 6 to 1000: of means of
// normal samples 93.6 to 95.3 %, of exponential ones 90.6 % (6 samples), 92.4 to 95.6 % from 10 on, of lognormal ones (0.5) 91.6 %, then
// 92.9 to 95.4 %. Plain percentiles of the resamples held 81 to 86 % with 6 samples, BCa alone 83 to 87 %. Of samples that follow each
// other with a correlation of 0.6: 81.4 % with 6, 85.3 % with 20, 92.1 to 96.2 % from 50 on. Intervals of quantiles by ranks: 95.5 to
// 97.5 %.

import type { Interval } from "../results.ts";
import { incompleteBeta, normalBelow, normalQuantile, studentQuantile } from "./normal.ts";
import { type Random, seededRandom } from "./random.ts";
import { type Dependence, dependenceOf, grouped } from "./series.ts";
import { quantile } from "./summary.ts";

export interface IntervalOptions {
  /** How often such intervals shall hold the true value. Default 0.95. */
  readonly level?: number;
  /** Default: seeded, the same for each call. */
  readonly random?: Random;
  /** Default 2000. */
  readonly resamples?: number;
  /** How many samples in a row are drawn together. Default: by their autocorrelation, 1 where there is none. */
  readonly block?: number;
}

export type Statistic = (values: Float64Array) => number;

export const defaultLevel = 0.95;
const defaultResamples = 2000;

/** The interval of any statistic of samples, of which there are at least two; their order is that of measuring. */
export function interval(
  samples: readonly number[],
  statistic: Statistic,
  { level = defaultLevel, random = seededRandom(), resamples = defaultResamples, block }: IntervalOptions = {},
): Interval {
  const values = Float64Array.from(samples);
  const size = values.length;
  const dependence =
    block === undefined ? dependenceOf(samples) : { effective: size / block, block, kept: size / block };
  const places = new Uint32Array(size);
  const drawn = new Float64Array(size);
  const figures = new Float64Array(resamples);
  for (let index = 0; index < resamples; index++) {
    redraw(places, dependence.block, random);
    for (let to = 0; to < size; to++) drawn[to] = values[places[to] ?? 0] ?? 0;
    figures[index] = statistic(drawn);
  }
  const estimate = statistic(values);
  return {
    level,
    ...ends(figures.sort(), estimate, {
      ...widening(level, size, [dependence]),
      bias: normalQuantile(shareBelow(figures, estimate)),
      acceleration: acceleration(values, statistic, dependence.block),
    }),
  };
}

/** Of twice as many samples and more, means of neighbours are drawn: their mean is the same, and so is its spread. */
const meanGroups = 2000;

/** Of the mean. */
export function meanInterval(samples: readonly number[], options: IntervalOptions = {}): Interval {
  const groups = options.block === undefined ? grouped(samples, meanGroups) : samples;
  return interval(groups, meanOf, options);
}

function meanOf(values: Float64Array): number {
  let sum = 0;
  for (let index = 0; index < values.length; index++) sum += values[index] ?? 0;
  return sum / values.length;
}

/** Fills `places` with as many places drawn from 0 on, in blocks of neighbours; after the last place comes the first. */
export function redraw(places: Uint32Array, block: number, random: Random): void {
  const size = places.length;
  for (let to = 0; to < size; ) {
    let from = Math.floor(random() * size);
    for (const end = Math.min(size, to + block); to < end; to++) {
      places[to] = from;
      if (++from === size) from = 0;
    }
  }
}

/** How the ends of an interval are taken from resampled figures. */
export interface Ends {
  /** How far out, in standard deviations. */
  readonly z: number;
  /** By what distances from the estimate are multiplied. */
  readonly stretch: number;
  /** z of the estimate among the resamples. Default 0. */
  readonly bias?: number;
  /** How fast the spread grows with the figure. Default 0. */
  readonly acceleration?: number;
}

/** For sets of samples that were drawn each by itself, `size` in all, one of those in `dependences` each. */
export function widening(level: number, size: number, dependences: readonly Dependence[]): Pick<Ends, "z" | "stretch"> {
  const sum = (of: (each: Dependence) => number) => dependences.reduce((all, each) => all + of(each), 0);
  const variance = sum(({ effective }) => 1 / effective);
  // Welch and Satterthwaite's degrees of freedom.
  const freedom = Math.max(
    1,
    variance ** 2 / sum(({ effective }) => 1 / effective ** 2 / Math.max(0.5, effective - 1)),
  );
  const few = Math.sqrt(size / (size - dependences.length));
  return {
    z: few * studentQuantile((1 + level) / 2, freedom),
    stretch: Math.sqrt(variance / sum(({ kept }) => 1 / kept)),
  };
}

/** @param figures ascending. */
export function ends(
  figures: Float64Array,
  estimate: number,
  { z, stretch, bias = 0, acceleration = 0 }: Ends,
): { readonly low: number; readonly high: number } {
  const at = (far: number): number => {
    const reach = 1 - acceleration * (bias + far);
    // So skewed that the formula turns over: as far as there are figures.
    const part = reach > 0 ? normalBelow(bias + (bias + far) / reach) : far > 0 ? 1 : 0;
    return estimate + (quantile(figures, part) - estimate) * stretch;
  };
  return { low: at(-z), high: at(z) };
}

/** The part of ascending figures below a value, those like it by half; never 0 or 1. */
export function shareBelow(figures: Float64Array, value: number): number {
  let below = 0;
  for (const figure of figures) below += figure < value ? 1 : figure === value ? 0.5 : 0;
  return (below + 0.5) / (figures.length + 1);
}

const leftOutMax = 200;

/** From the figures without one sample each, or without a group of neighbours where there are many. */
function acceleration(values: Float64Array, statistic: Statistic, block: number): number {
  const size = Math.max(Math.ceil(values.length / leftOutMax), block);
  const figures: number[] = [];
  for (let from = 0; from + size <= values.length && size < values.length; from += size) {
    const rest = new Float64Array(values.length - size);
    rest.set(values.subarray(0, from));
    rest.set(values.subarray(from + size), from);
    figures.push(statistic(rest));
  }
  const mean = figures.reduce((sum, value) => sum + value, 0) / figures.length;
  const power = (exponent: number) => figures.reduce((sum, value) => sum + (mean - value) ** exponent, 0);
  const squares = power(2);
  return squares > 0 ? power(3) / (6 * squares ** 1.5) : 0;
}

/**
 * Of the value below which `part` of all lies: between those two samples whose ranks the binomial distribution gives, whatever the
 * samples' own distribution. Undefined if even the least and the most do not span it: with a level of 95 %, the median takes 6 samples,
 * the 90th percentile 36, the 95th 72, the 99th 368.
 */
export function quantileInterval(
  samples: readonly number[],
  part: number,
  { level = defaultLevel }: Pick<IntervalOptions, "level"> = {},
): Interval | undefined {
  const sorted = Float64Array.from(samples).sort();
  const value = quantile(sorted, part);
  const count = Math.round(dependenceOf(samples.map((each) => (each <= value ? 1 : 0))).effective);
  const tail = (1 - level) / 2;
  const below = largest(count, (rank) => binomialUpTo(rank, count, part) <= tail);
  const above = largest(count, (rank) => binomialUpTo(rank, count, 1 - part) <= tail);
  if (below === undefined || above === undefined) return undefined;
  // Ranks among all samples, of which not as many count.
  const scale = sorted.length / count;
  const [low, high] = [Math.floor(below * scale), sorted.length - 1 - Math.floor(above * scale)];
  return { level, low: sorted[low] ?? Number.NaN, high: sorted[high] ?? Number.NaN };
}

/** The largest of 0 … `count` - 1 that holds, where those that hold come first; undefined: none does. */
function largest(count: number, holds: (value: number) => boolean): number | undefined {
  let [known, beyond] = [-1, count];
  while (beyond - known > 1) {
    const middle = (known + beyond) >> 1;
    if (holds(middle)) known = middle;
    else beyond = middle;
  }
  return known < 0 ? undefined : known;
}

/** How likely at most `below` of `count` are, each with probability `part`. */
function binomialUpTo(below: number, count: number, part: number): number {
  return below < 0 ? 0 : below >= count ? 1 : incompleteBeta(1 - part, count - below, below + 1);
}
