// Draws how values spread, as bars of text with a limit marked, for the messages of matchers. It computes no statistics.

import { bar, duration, pad } from "../../profiler/words.ts";

/** Bars a drawing has at most, on each side of the limit. */
const barsMax = 8;
const barSize = 30;

/**
 * A histogram of durations (ns, in any order, at least one), slowest last, with a line where the limit is: no bar stands on both
 * sides of it. Bars are as wide as each other in ratio, since durations spread so.
 */
export function drawDurations(values: readonly number[], limitNs: number): string[] {
  const sorted = [...values].sort((a, b) => a - b);
  const firstAbove = sorted.findIndex((value) => value > limitNs);
  const within = firstAbove < 0 ? sorted : sorted.slice(0, firstAbove);
  const above = firstAbove < 0 ? [] : sorted.slice(firstAbove);
  const [least, most] = [Math.max(1, sorted[0] ?? 1), Math.max(1, sorted.at(-1) ?? 1)];
  // A tenth is what the eye tells apart; where values spread further, bars are wider.
  const ratio = Math.max(1.1, (most / least) ** (1 / barsMax));
  const bins = [...binsOf(within, ratio), undefined, ...binsOf(above, ratio)];
  const tallest = Math.max(...bins.map((bin) => bin?.count ?? 0));
  const label = (bin: Bin): string =>
    bin.from === bin.to ? duration(bin.to) : `${duration(bin.from)} to ${duration(bin.to)}`;
  const size = Math.max(...bins.map((bin) => (bin ? label(bin).length : 0)));
  return bins.map((bin) => {
    if (!bin) return `  ${"─".repeat(size)} limit ${duration(limitNs)}`;
    return `  ${pad(label(bin), size)} ${bar(bin.count / tallest, barSize)} ${bin.count}`;
  });
}

interface Bin {
  readonly from: number;
  readonly to: number;
  readonly count: number;
}

/** Ascending values, put together while the largest is at most `ratio` times the smallest. */
function binsOf(sorted: readonly number[], ratio: number): Bin[] {
  const bins: Bin[] = [];
  let begin = 0;
  for (let at = 1; at <= sorted.length; at++) {
    const from = sorted[begin] ?? 0;
    if (at < sorted.length && (sorted[at] ?? 0) <= Math.max(1, from) * ratio) continue;
    bins.push({ from, to: sorted[at - 1] ?? 0, count: at - begin });
    begin = at;
  }
  return bins;
}
