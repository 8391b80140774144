// By how much one set of samples lies above another, or pairs lie above 0: Hodges and Lehmann's estimates, which a single slow moment
// does not move, each with its bootstrap interval. Of logarithms, so that a shift is a ratio.

import { ends, redraw, widening } from "./bootstrap.ts";
import { normalBeyond, normalQuantile } from "./normal.ts";
import type { Random } from "./random.ts";
import { medianDifference, medianMean, ranks } from "./rank.ts";
import { type Dependence, dependenceOf, drift } from "./series.ts";

export interface Shift {
  readonly shift: number;
  readonly low: number;
  readonly high: number;
  /** How many times as much it varies as that of independent samples. */
  readonly inflation: number;
}

export interface ShiftOptions {
  readonly level: number;
  readonly random: Random;
  /** Samples that had nothing to do with each other, whatever their order looks like. Default false. */
  readonly independent?: boolean;
}

/** Of the second samples over the first. */
export function shiftBetween(first: readonly number[], second: readonly number[], options: ShiftOptions): Shift {
  const { independent = false } = options;
  const sets = [new Resampled(first, independent), new Resampled(second, independent)] as const;
  const found = shiftOf(sets, () => medianDifference(sets[0].drawn, sets[1].drawn), options);
  // Samples that drift do not say at which moment they are to be taken: at worst it was the begin of the one and the end of the other.
  const drifted = independent ? 0 : driftOf(first, second) / 2;
  return { ...found, low: found.low - drifted, high: found.high + drifted };
}

/** Of the values over 0. */
export function shiftOfPairs(values: readonly number[], options: ShiftOptions): Shift {
  const set = new Resampled(values, options.independent ?? false);
  return shiftOf([set], () => medianMean(set.drawn), options);
}

function shiftOf(sets: readonly Resampled[], figure: () => number, { level, random }: ShiftOptions): Shift {
  const shift = figure();
  const figures = Float64Array.from({ length: resamples }, () => {
    for (const set of sets) set.redraw(random);
    return figure();
  }).sort();
  const dependences = sets.map(({ dependence }) => dependence);
  const size = sets.reduce((sum, set) => sum + set.size, 0);
  const { low, high } = ends(figures, shift, widening(level, size, dependences));
  const inflation =
    dependences.reduce((sum, { effective }) => sum + 1 / effective, 0) /
    sets.reduce((sum, set) => sum + 1 / set.size, 0);
  return { shift, low, high, inflation };
}

/**
 * How far both sets together rise or fall, each from its first value to its last: of one what is no chance (5 %), of both if they do it
 * together (10 %), as on a machine that grows slower from the one to the other.
 */
function driftOf(first: readonly number[], second: readonly number[]): number {
  const drifts = [drift(first), drift(second)];
  const z = drifts.reduce((sum, { rise, pValue }) => sum - Math.sign(rise) * normalQuantile(pValue / 2), 0);
  const together = normalBeyond(z / Math.sqrt(drifts.length)) < 0.1;
  return drifts.reduce((sum, { rise, pValue }) => sum + (together || pValue < 0.05 ? Math.abs(rise) : 0), 0);
}

/** The ends of an interval by 2000 instead are no nearer than a thirtieth of it. */
const resamples = 1000;
/** Of more samples than this, as many quantiles stand for them while they are drawn again: an odd number, whose pairs have one middle. */
const drawnMax = 63;

/** A set of samples that is drawn again and again without being sorted again. */
class Resampled {
  readonly size: number;
  readonly dependence: Dependence;
  /** The samples, or what was drawn last, ascending. */
  drawn: Float64Array;
  readonly #sorted: Float64Array;
  /** Of each sample, in the order of measuring, its place among the sorted. */
  readonly #places: Uint32Array;
  readonly #indices: Uint32Array;
  readonly #counts: Uint32Array;
  readonly #quantiles: Float64Array;

  constructor(values: readonly number[], independent: boolean) {
    this.size = values.length;
    // Of ranks, because what varies is a figure of ranks.
    this.dependence = independent ? { effective: this.size, block: 1, kept: this.size } : dependenceOf(ranks(values));
    const order = Uint32Array.from(values.keys()).sort((a, b) => (values[a] ?? 0) - (values[b] ?? 0));
    this.#sorted = Float64Array.from(order, (index) => values[index] ?? 0);
    this.#places = new Uint32Array(this.size);
    for (const [place, index] of order.entries()) this.#places[index] = place;
    this.#indices = new Uint32Array(this.size);
    this.#counts = new Uint32Array(this.size);
    this.#quantiles = new Float64Array(Math.min(this.size, drawnMax));
    this.drawn = this.#sorted;
  }

  redraw(random: Random): void {
    redraw(this.#indices, this.dependence.block, random);
    const counts = this.#counts.fill(0);
    for (let at = 0; at < this.size; at++) {
      const place = this.#places[this.#indices[at] ?? 0] ?? 0;
      counts[place] = (counts[place] ?? 0) + 1;
    }
    const step = this.size / this.#quantiles.length;
    let passed = 0;
    let next = 0;
    for (let place = 0; place < this.size; place++) {
      passed += counts[place] ?? 0;
      for (; (next + 0.5) * step < passed; next++) this.#quantiles[next] = this.#sorted[place] ?? 0;
    }
    this.drawn = this.#quantiles;
  }
}
