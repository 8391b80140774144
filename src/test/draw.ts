// Draws how values spread, as bars of text with a limit marked, for the messages of matchers. It computes no statistics.

import type { Bucket } from "../../profiler/buckets.ts";
import { bar, cut, duration, pad, percent } from "../../profiler/words.ts";
import { amountOf, percentile } from "./run.ts";

/** Bars a drawing has at most, on each side of the limit. */
const barsMax = 8;
const barSize = 30;
const besideSize = 18;
/** On either side of two distributions, what is rarer than this, percent of both, is drawn into the last bar. */
const rare = 1;

/** Where a line is drawn across a histogram. */
export interface DrawnLimit {
  readonly value: number;
  readonly text: string;
}

/**
 * A histogram of values (ascending, at least one), largest last, with a line where the limit is: no bar stands on both sides of it.
 * Bars are as wide as each other in ratio, since durations and sizes spread so.
 */
export function drawSpread(values: readonly Bucket[], word: (value: number) => string, limit?: DrawnLimit): string[] {
  const above = limit ? values.filter(({ value }) => value > limit.value) : [];
  const within = values.slice(0, values.length - above.length);
  const [least, most] = [Math.max(1, values[0]?.value ?? 1), Math.max(1, values.at(-1)?.value ?? 1)];
  // A tenth is what the eye tells apart; where values spread further, bars are wider.
  const ratio = Math.max(1.1, (most / least) ** (1 / barsMax));
  const bins = [...binsOf(within, ratio), ...(limit ? [undefined] : []), ...binsOf(above, ratio)];
  const tallest = Math.max(...bins.map((bin) => bin?.count ?? 0));
  const label = ({ from, to }: Bin): string => (from === to ? word(to) : `${word(from)} to ${word(to)}`);
  const size = Math.max(...bins.map((bin) => (bin ? label(bin).length : 0)));
  return bins.map((bin) => {
    if (!bin) return `  ${"─".repeat(size)} ${limit?.text}`;
    return `  ${pad(label(bin), size)} ${bar(bin.count / tallest, barSize)} ${bin.count}`;
  });
}

interface Bin {
  readonly from: number;
  readonly to: number;
  readonly count: number;
}

/** Ascending values, put together while the largest is at most `ratio` times the smallest. */
function binsOf(values: readonly Bucket[], ratio: number): Bin[] {
  const bins: Bin[] = [];
  for (const { value, count } of values) {
    const last = bins.at(-1);
    if (last && value <= Math.max(1, last.from) * ratio) {
      bins[bins.length - 1] = { from: last.from, to: value, count: last.count + count };
    } else bins.push({ from: value, to: value, count });
  }
  return bins;
}

/**
 * Two distributions of durations (ns, ascending, neither empty) beside each other, as shares of their own: what was expected and what
 * was measured.
 */
export function drawBeside(expected: readonly Bucket[], measured: readonly Bucket[]): string[] {
  const both = [expected, measured];
  const least = Math.max(1, Math.min(...both.map((buckets) => percentile(buckets, rare))));
  const most = Math.max(least, ...both.map((buckets) => percentile(buckets, 100 - rare)));
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

/** Shares of the values that are at most each bound, and above the one before. */
function sharesWithin(buckets: readonly Bucket[], bounds: readonly number[]): number[] {
  const all = amountOf(buckets);
  const counts = bounds.map(() => 0);
  for (const { value, count } of buckets) {
    const bin = bounds.findIndex((bound) => value <= bound);
    counts[bin] = (counts[bin] ?? 0) + count;
  }
  return counts.map((count) => count / all);
}
