// When warming up is over, told from the times of the iterations alone: when the latter half of them shows no trend any more, and
// is long enough that one that matters would show.
//
// Simulated, 400 rows each: times that are steady from the begin and scatter by 0.5, 2 and 10 % are called so after 10, 12 and 40
// iterations (medians). Times that begin slower by 50 %, which falls by a factor of e in 10 iterations, and scatter by 2 % are after 63,
// with 0.1 % left. What falls so slowly that 10 iterations show little of it (e in 60, scatter 2 %) is missed half of the time.

import { drift } from "./series.ts";
import { median } from "./summary.ts";

export interface SteadyOptions {
  /** After so many iterations it is over, steady or not; at least 1. Default 200. */
  readonly iterationsMax?: number;
}

export interface Steady {
  /** How many iterations belong to warming up. */
  readonly iterations: number;
  /** False: the bound was reached, or the times ended, before they were steady. */
  readonly steady: boolean;
}

/** With fewer times in the latter half no trend could be told from chance. */
const halfMin = 8;
/** More than these would be looked at for long, and say no more. */
const halfMax = 60;
/** So often in a row there must be no trend, because one look may miss it. */
const looks = 3;
/** A trend that chance alone would show less often than this counts. */
const chance = 0.2;
/** From the begin to the end of the half, as a part: less is steady even if it is no chance. */
const changeMin = 0.01;
/** More might hide in the times' scatter: then there are too few of them. Or one and a half times what they scatter, where that is more. */
const hiddenMax = 0.05;

/** Is given a time after each iteration, and says when no more are needed. */
export class SteadyDetector {
  readonly #iterationsMax: number;
  readonly #times: number[] = [];
  #without = 0;

  constructor({ iterationsMax = 200 }: SteadyOptions = {}) {
    this.#iterationsMax = iterationsMax;
  }

  /**
   * @param time of the iteration, in any unit, above 0.
   * @returns whether warming up is over: steady, or at its bound.
   */
  add(time: number): boolean {
    if (this.over) return true;
    this.#times.push(time);
    const half = Math.min(halfMax, Math.max(halfMin, this.#times.length >> 1));
    if (this.#times.length >= half) {
      this.#without = isWithoutTrend(this.#times.slice(-half)) ? this.#without + 1 : 0;
    }
    return this.over;
  }

  /** How many times it was given until it was over. */
  get iterations(): number {
    return this.#times.length;
  }

  get steady(): boolean {
    return this.#without >= looks;
  }

  get over(): boolean {
    return this.steady || this.#times.length >= this.#iterationsMax;
  }
}

function isWithoutTrend(times: readonly number[]): boolean {
  const { rise, change, pValue } = drift(times, { independent: true });
  if (pValue <= chance && Math.abs(change) > changeMin) return false;
  const level = median(times);
  const left = times.map((time, index) => time - level - (rise * index) / (times.length - 1));
  const middle = median(left);
  const scatter = (1.4826 * median(left.map((value) => Math.abs(value - middle)))) / level;
  // The standard error of a line's rise is √12 times that of a mean; nine times in ten it is off by less than 1.28 of them to one side.
  const error = (1.28 * Math.sqrt(12) * scatter) / Math.sqrt(times.length);
  return Math.abs(change) + error <= Math.max(hiddenMax, 1.5 * scatter);
}

/** The same of times that are all there. */
export function steadyFrom(times: readonly number[], options?: SteadyOptions): Steady {
  const detector = new SteadyDetector(options);
  for (const time of times) if (detector.add(time)) break;
  return { iterations: detector.iterations, steady: detector.steady };
}
