// What may be said of two programs, or two settings of one, measured in turns: their ratio with an interval, and whether the data
// carry a difference. A turn's two figures were measured soon after each other, so the turns are compared in pairs: a slow moment of
// the machine is then in both. A moment that only one of them had does not move a median as it would a mean. It measures nothing.

import { quantile } from "./statistics/summary.ts";

/** One figure over the other; of peers, TinyAI's over the peer's. */
export interface Ratio {
  /** The median of the turns' ratios. */
  readonly ratio: number;
  /** The 95 % interval of that median; null with fewer than six turns, which cannot carry one. */
  readonly interval: readonly [low: number, high: number] | null;
  readonly verdict: Verdict;
}

/** `ahead`: the one is better. `draw`: the interval holds 1. `unknown`: so few turns say nothing of chance. */
export type Verdict = "ahead" | "behind" | "draw" | "unknown";

/**
 * Compares figures of the same turns, pair by pair: the median of their ratios, with the interval that its order statistics
 * give, whatever the ratios' distribution. Figures are above 0; both lists have the same length, at least one.
 * @param better whether more (tokens/s) or less (seconds, bytes) is better.
 * @throws {RangeError} if the lists cannot be paired, or a figure has no logarithm.
 */
export function compare(one: readonly number[], other: readonly number[], better: "more" | "less"): Ratio {
  if (one.length !== other.length || one.length === 0) {
    throw new RangeError(`${one.length} figures against ${other.length}: each turn needs both`);
  }
  // The middle of two ratios is their geometric mean: that of the reciprocals is then its reciprocal.
  const logarithms = one.map((value, index) => Math.log(value / (other[index] ?? Number.NaN)));
  if (!logarithms.every(Number.isFinite)) throw new RangeError("a figure is not above 0");
  logarithms.sort((a, b) => a - b);
  const ratio = Math.exp(quantile(logarithms, 0.5));
  const outside = outsideInterval(logarithms.length);
  if (outside === undefined) return { ratio, interval: null, verdict: "unknown" };
  const [low, high] = [logarithms[outside], logarithms.at(-1 - outside)].map((end) => Math.exp(end ?? Number.NaN));
  const interval = [low ?? Number.NaN, high ?? Number.NaN] as const;
  return { ratio, interval, verdict: judge(interval, better) };
}

/**
 * How many of `count` ascending values may be left out at either end, so that the rest still spans the median with 95 %:
 * half of all values lie below it, so how many do is binomial. Undefined if even all of them do not.
 */
function outsideInterval(count: number): number | undefined {
  let least: number | undefined;
  // Of many values, those of the first are too small to be told from 0 but by their logarithms.
  let logarithm = -count * Math.LN2;
  for (let below = 0, sum = Math.exp(logarithm); sum <= 0.025; sum += Math.exp(logarithm)) {
    least = below;
    logarithm += Math.log((count - below) / (below + 1));
    below++;
  }
  return least;
}

function judge([low, high]: readonly [number, number], better: "more" | "less"): Verdict {
  if (low <= 1 && high >= 1) return "draw";
  return low > 1 === (better === "more") ? "ahead" : "behind";
}

/** "1.25 (1.20 to 1.31) ahead", or "draw (0.97 to 1.04)": a ratio that the data do not carry is not shown. */
export function showRatio({ ratio, interval, verdict }: Ratio): string {
  if (interval === null) return `${ratio.toFixed(2)} (few turns)`;
  const range = interval.map((end) => end.toFixed(2)).join(" to ");
  return verdict === "draw" ? `draw (${range})` : `${ratio.toFixed(2)} (${range}) ${verdict}`;
}

/** The geometric mean of values above 0, of which there is at least one. */
export function geometricMean(values: readonly number[]): number {
  return Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length);
}
