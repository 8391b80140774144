// How durations spread, from their HDR histograms: steps by phase, first tokens, the time between tokens.

import { type Bucket, bucketsOf } from "../buckets.ts";
import type { TimeRow } from "../profile.ts";
import type { Report } from "../report.ts";
import { count, duration, grouped, percent } from "../words.ts";
import { decimalSteps, logAxis, MARK_DIGITS, tickDuration, xAxis, yAxis } from "./axes.ts";
import { chart } from "./chart.ts";
import type { Block, ChartBlock } from "./model.ts";

export function latencyBlocks(report: Report): Block[] {
  const named: readonly (readonly [id: string, title: string, noun: string, row: TimeRow])[] = [
    ["first-tokens", "From the call to the first token", "request", report.firstTokens],
    ["between-tokens", "From one token to the next", "token", report.betweenTokens],
    ...report.phases.map((row) => [`steps-${row.phase}`, `Steps of ${row.phase}`, "step", row] as const),
  ];
  return named.flatMap(([id, title, noun, row]) => histogramChart(id, title, noun, row));
}

/** Bars over all the durations; at most so many in ten times the duration, which is 1.2 % a bar. */
const BINS_MAX = 200;
const BINS_MIN = 12;
/** Bars from the shortest to the longest duration, if they are that far apart. */
const BINS_WANTED = 48;

interface Bin {
  /** Logarithms to base 10. */
  readonly from: number;
  readonly to: number;
  readonly count: number;
}

/** Equal steps of the logarithm, from an empty one below the shortest duration to one above the longest. */
export function binned(buckets: readonly Bucket[]): Bin[] {
  const logarithms = buckets.map(({ value, count }) => ({ at: Math.log10(Math.max(value, 1)), count }));
  const first = logarithms[0]?.at ?? 0;
  const decades = (logarithms.at(-1)?.at ?? 0) - first;
  const perDecade = Math.min(BINS_MAX, Math.max(BINS_MIN, Math.round(BINS_WANTED / Math.max(decades, 1e-9))));
  const placeOf = (at: number): number => Math.floor(at * perDecade + 1e-9);
  const lowest = placeOf(first) - 1;
  const counts = new Array<number>(placeOf(first + decades) - lowest + 2).fill(0);
  for (const { at, count } of logarithms) counts[placeOf(at) - lowest] = (counts[placeOf(at) - lowest] ?? 0) + count;
  return counts.map((sum, place) => ({
    from: (lowest + place) / perDecade,
    to: (lowest + place + 1) / perDecade,
    count: sum,
  }));
}

/** How far the axis goes beyond the durations at least. */
const MARGIN = 1.1;
/** Marks nearer than this part of the axis share a label. */
const LABEL_GAP = 0.09;

function histogramChart(id: string, title: string, noun: string, row: TimeRow): ChartBlock[] {
  if (row.count === 0 || row.histogram === undefined) return [];
  const bins = binned(bucketsOf(row.histogram));
  const min = 10 ** (bins[0]?.from ?? 0) / MARGIN;
  const max = 10 ** (bins.at(-1)?.to ?? 0) * MARGIN;
  const { axis, ticks } = logAxis(min, max, decimalSteps(min, max), tickDuration);
  const marks = (
    [
      ["p50", row.p50Ns],
      ["p90", row.p90Ns],
      ["p99", row.p99Ns],
      ["max", row.maxNs],
    ] as const
  ).map(([name, ns]) => ({ name, at: Math.log10(Math.max(ns, 1)) }));
  const span = Math.log10(max) - Math.log10(min);
  const groups: { name: string; at: number }[][] = [];
  for (const mark of marks) {
    const last = groups.at(-1)?.[0];
    if (last && mark.at - last.at < LABEL_GAP * span) groups.at(-1)?.push(mark);
    else groups.push([mark]);
  }
  // Of marks that lie together the first has all names; in front of the right border they would be cut.
  const lines = groups.flatMap((group) =>
    group.map(({ at }, place) => ({
      xAxis: at,
      label: { formatter: place === 0 ? group.map(({ name }) => name).join(", ") : "" },
    })),
  );
  return [
    chart(
      id,
      title,
      {
        grid: { left: 8, right: 24, top: 52, bottom: 44 },
        tooltip: { trigger: "axis" },
        xAxis: { ...xAxis("duration, logarithmic"), ...axis },
        yAxis: { ...yAxis(`${noun}s`), nameGap: 26, minInterval: 1 },
        series: [
          {
            type: "line",
            step: "middle",
            showSymbol: false,
            lineStyle: { width: 1, color: "var(--c0)" },
            itemStyle: { color: "var(--c0)" },
            areaStyle: { color: "var(--c0)", opacity: 0.45 },
            data: bins.map((bin) => ({
              value: [(bin.from + bin.to) / 2, bin.count],
              tip: {
                title: `${duration(Math.round(10 ** bin.from))} to ${duration(Math.round(10 ** bin.to))}`,
                lines: [
                  [`${noun}s`, grouped(bin.count, 0)],
                  ["of all", percent(bin.count / row.count)],
                ],
              },
            })),
            markLine: {
              symbol: "none",
              // ECharts would round logarithms to two digits.
              precision: MARK_DIGITS,
              silent: true,
              lineStyle: { color: "var(--text)", type: "dashed", width: 1 },
              label: { color: "var(--text)", fontSize: 11, position: "end" },
              data: lines,
            },
          },
        ],
      },
      {
        height: 240,
        half: true,
        ticks: { x: ticks },
        note: `${count(row.count, noun)}: p50 ${duration(row.p50Ns)}, p90 ${duration(row.p90Ns)}, p99 ${duration(row.p99Ns)}, max ${duration(row.maxNs)}.`,
      },
    ),
  ];
}
