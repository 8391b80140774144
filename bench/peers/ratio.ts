// What may be said of two programs measured in turns: their ratio with an interval, and whether the data carry a difference.
// A round's two figures were measured right after each other, so the rounds are compared in pairs: a slow moment of the
// machine is then in both. It measures nothing.

/** TinyAI's figure over the peer's. */
export interface Ratio {
  /** The geometric mean of the rounds' ratios. */
  readonly ratio: number;
  /** The 95 % interval of that mean; null with fewer than two rounds. */
  readonly interval: readonly [low: number, high: number] | null;
  readonly verdict: Verdict;
}

/** `ahead`: TinyAI is better. `draw`: the interval holds 1. `unknown`: one round says nothing of chance. */
export type Verdict = "ahead" | "behind" | "draw" | "unknown";

/** Student's t for a two-sided 95 % interval, by degrees of freedom from 1; beyond the list it is taken as its last. */
const student = [
  12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.16, 2.145, 2.131, 2.12, 2.11,
  2.101, 2.093, 2.086, 2.08, 2.074, 2.069, 2.064, 2.06, 2.056, 2.052, 2.048, 2.045, 2.042,
] as const;

/**
 * Compares figures of the same rounds, pair by pair, by Student's interval of the mean logarithm of their ratios. Figures are
 * above 0; both lists have the same length, at least one.
 * @param better whether more (tokens/s) or less (seconds, bytes) is better.
 * @throws {RangeError} if the lists cannot be paired, or a figure has no logarithm.
 */
export function compare(tinyai: readonly number[], peer: readonly number[], better: "more" | "less"): Ratio {
  if (tinyai.length !== peer.length || tinyai.length === 0) {
    throw new RangeError(`${tinyai.length} figures against ${peer.length}: each round needs both`);
  }
  const logarithms = tinyai.map((value, index) => Math.log(value / (peer[index] ?? Number.NaN)));
  if (!logarithms.every(Number.isFinite)) throw new RangeError("a figure is not above 0");
  const count = logarithms.length;
  const mean = logarithms.reduce((sum, value) => sum + value, 0) / count;
  const ratio = Math.exp(mean);
  if (count < 2) return { ratio, interval: null, verdict: "unknown" };
  const variance = logarithms.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (count - 1);
  const critical = student[Math.min(count - 1, student.length) - 1] ?? Number.NaN;
  const half = critical * Math.sqrt(variance / count);
  const interval = [Math.exp(mean - half), Math.exp(mean + half)] as const;
  return { ratio, interval, verdict: judge(interval, better) };
}

function judge([low, high]: readonly [number, number], better: "more" | "less"): Verdict {
  if (low <= 1 && high >= 1) return "draw";
  return low > 1 === (better === "more") ? "ahead" : "behind";
}

/** "1.25 (1.20 to 1.31) ahead", or "draw (0.97 to 1.04)": a ratio that the data do not carry is not shown. */
export function showRatio({ ratio, interval, verdict }: Ratio): string {
  if (interval === null) return `${ratio.toFixed(2)} (one round)`;
  const range = interval.map((end) => end.toFixed(2)).join(" to ");
  return verdict === "draw" ? `draw (${range})` : `${ratio.toFixed(2)} (${range}) ${verdict}`;
}

/** The geometric mean of values above 0, of which there is at least one. */
export function geometricMean(values: readonly number[]): number {
  return Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length);
}
