// Draws how values spread, as bars of text with a limit marked, for the messages of matchers. It computes no statistics.

import type { Bucket } from "../../profiler/buckets.ts";
import { bar, cut, duration, pad, percent } from "../../profiler/words.ts";

/** Bars a drawing has at most, on each side of the limit. */
const barsMax = 8;
const barSize = 30;
const besideSize = 18;
/** On either side of two distributions, what is rarer than this part of both is drawn into the last bar. */
const rare = 0.01;

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

/**
 * Two distributions of durations (ns, ascending, neither empty) beside each other, as shares of their own: what was expected and what
 * was measured.
 */
export function drawBeside(expected: readonly Bucket[], measured: readonly Bucket[]): string[] {
  const both = [expected, measured];
  const least = Math.max(1, Math.min(...both.map((buckets) => valueAt(buckets, rare))));
  const most = Math.max(least, ...both.map((buckets) => valueAt(buckets, 1 - rare)));
  const ratio = (most / least) ** (1 / barsMax);
  const bounds = Array.from({ length: barsMax }, (_, bin) =>
    bin + 1 < barsMax ? least * ratio ** (bin + 1) : Infinity,
  );
  const [before = [], now = []] = both.map((buckets) => sharesWithin(buckets, bounds));
  const tallest = Math.max(...before, ...now);
  const labels = bounds.map((bound) => (bound === Infinity ? "above" : `to ${duration(Math.round(bound))}`));
  const size = Math.max(...labels.map((label) => label.length));
  const column = (share: number): string =>
    cut(`${bar(share / tallest, besideSize - 8)} ${percent(share)}`, besideSize);
  return [
    `  ${pad("", size)} ${cut("expected", besideSize)} measured`,
    ...labels.map((label, bin) =>
      `  ${pad(label, size)} ${column(before[bin] ?? 0)} ${column(now[bin] ?? 0)}`.trimEnd(),
    ),
  ];
}

function total(buckets: readonly Bucket[]): number {
  return buckets.reduce((sum, { count }) => sum + count, 0);
}

/** The value that `part` of the values do not exceed. */
function valueAt(buckets: readonly Bucket[], part: number): number {
  const wanted = part * total(buckets);
  let passed = 0;
  for (const { value, count } of buckets) {
    passed += count;
    if (passed >= wanted) return value;
  }
  return buckets.at(-1)?.value ?? 0;
}

/** Shares of the values that are at most each bound, and above the one before. */
function sharesWithin(buckets: readonly Bucket[], bounds: readonly number[]): number[] {
  const all = total(buckets);
  const counts = bounds.map(() => 0);
  for (const { value, count } of buckets) {
    const bin = bounds.findIndex((bound) => value <= bound);
    counts[bin] = (counts[bin] ?? 0) + count;
  }
  return counts.map((count) => count / all);
}
