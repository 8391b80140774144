// The charts of benchmark pages: changes with their intervals, how samples are distributed, and how they followed each other. They
// are ECharts' options as the profiler's page draws them.

import { axisBase, namesAxis, xAxis, yAxis } from "../../../profiler/page/axes.ts";
import { chart, colorAt } from "../../../profiler/page/chart.ts";
import type { ChartBlock, Tip } from "../../../profiler/page/model.ts";
import { quantile } from "../statistics/summary.ts";
import { figureText, levelText, percentText } from "./words.ts";

/** One change beside others. */
export interface Change {
  readonly name: string;
  readonly verdict: "faster" | "slower" | "undecided";
  /** Parts, as in a comparison. */
  readonly change: number;
  readonly low: number;
  readonly high: number;
  readonly tip: Tip;
}

const verdicts = [
  { verdict: "faster", name: "better", color: "var(--better)" },
  { verdict: "slower", name: "worse", color: "var(--warning)" },
  { verdict: "undecided", name: "no difference shown", color: "var(--dim)" },
] as const;

const rowHeight = 24;

/**
 * A line for each change from one end of its interval to the other, with the change marked, and where nothing changed.
 * @param level of the intervals, as a part.
 */
export function changesChart(id: string, title: string, changes: readonly Change[], level: number): ChartBlock {
  const series = verdicts.flatMap(({ verdict, name, color }, place) => {
    const data = changes.flatMap((each, row) => {
      if (each.verdict !== verdict) return [];
      const end = (part: number) => ({ value: [100 * part, row], symbol: "rect", symbolSize: [2, 9], tip: each.tip });
      return [
        end(each.low),
        { value: [100 * each.change, row], symbol: "circle", symbolSize: 9, tip: each.tip },
        end(each.high),
        // The line ends here; the next one is of another row.
        { value: [null, row] },
      ];
    });
    const zero = place === 0 ? { markLine: zeroLine } : {};
    if (data.length === 0 && place > 0) return [];
    return [{ type: "line" as const, name, data, lineStyle: { color, width: 2 }, itemStyle: { color }, ...zero }];
  });
  return chart(
    id,
    title,
    {
      grid: { left: 8, right: 24, top: 34, bottom: 44 },
      legend: { data: series.flatMap(({ name, data }) => (data.length > 0 ? [name] : [])) },
      xAxis: { ...xAxis("change, % (to the right: better)"), splitLine: axisBase.splitLine, scale: true },
      yAxis: namesAxis(changes.map(({ name }) => name)),
      series,
    },
    {
      height: changes.length * rowHeight + 90,
      note: `The dot is the change, the line its ${levelText(level)} interval. Colours are the verdicts, after correction for being many.`,
    },
  );
}

const zeroLine = {
  symbol: "none" as const,
  silent: true,
  lineStyle: { color: "var(--text)", type: "dashed" as const, width: 1 },
  label: { show: false },
  data: [{ xAxis: 0 }],
};

/** Samples of one metric under the name of what they are of. */
export interface Sampled {
  readonly name: string;
  /** In the order in which they were measured. */
  readonly samples: readonly number[];
}

/** Steps that a distribution is drawn with at most. */
const stepsMax = 200;

/** Which share of the samples lie at or below a value. */
export function distributionChart(
  id: string,
  title: string,
  unit: string,
  sampled: readonly Sampled[],
  note: string,
): ChartBlock {
  return chart(
    id,
    title,
    {
      ...framed(sampled),
      xAxis: { ...xAxis(unit), scale: true },
      yAxis: { ...yAxis("% of samples at or below"), min: 0, max: 100, nameGap: 10 },
      series: sampled.map(({ name, samples }, place) => ({
        type: "line",
        name,
        step: "end",
        showSymbol: false,
        symbolSize: 6,
        lineStyle: { width: 2, color: colorAt(place) },
        itemStyle: { color: colorAt(place) },
        data: stepsOf(samples).map(([value, part]) => ({
          value: [value, 100 * part],
          tip: {
            title: name,
            lines: [
              ["at or below", figureText(value, unit)],
              ["of the samples", percentText(part)],
            ] as const,
          },
        })),
      })),
    },
    { half: true, height: 260, note },
  );
}

/** The distribution function of samples: values ascending, each with the share at or below it. */
export function stepsOf(samples: readonly number[]): (readonly [value: number, part: number])[] {
  const sorted = [...samples].sort((a, b) => a - b);
  const count = Math.min(sorted.length, stepsMax);
  const steps = Array.from({ length: count }, (_, step) => {
    const at = Math.ceil(((step + 1) * sorted.length) / count) - 1;
    return [sorted[at] ?? Number.NaN, (at + 1) / sorted.length] as const;
  });
  return [[sorted[0] ?? Number.NaN, 0], ...steps];
}

/** Samples that are drawn at most, of each series. */
const pointsMax = 1000;
/** Pieces that the line of medians has. */
const piecesMax = 24;

/** Samples in the order in which they were measured, and the medians of pieces of them: a drift shows as a slope. */
export function timeChart(
  id: string,
  title: string,
  unit: string,
  sampled: readonly Sampled[],
  of: "iteration" | "round",
): ChartBlock {
  const thinned = sampled.some(({ samples }) => samples.length > pointsMax);
  const point = (name: string, at: number, value: number) => ({
    value: [at + 1, value],
    tip: { title: name, lines: [[of, `${at + 1}`] as const, ["measured", figureText(value, unit)] as const] },
  });
  return chart(
    id,
    title,
    {
      ...framed(sampled),
      xAxis: { ...xAxis(of), min: 1, max: "dataMax", minInterval: 1 },
      yAxis: { ...yAxis(unit), scale: true, nameGap: 10 },
      series: sampled.flatMap(({ name, samples }, place) => [
        {
          type: "scatter" as const,
          name,
          symbolSize: 4,
          itemStyle: { color: colorAt(place), opacity: 0.55 },
          data: thinnedOf(samples).map((at) => point(name, at, samples[at] ?? Number.NaN)),
        },
        {
          type: "line" as const,
          name,
          symbol: "none",
          silent: true,
          lineStyle: { color: colorAt(place), width: 2 },
          itemStyle: { color: colorAt(place) },
          data: mediansOf(samples).map(([at, value]) => [at + 1, value]),
        },
      ]),
    },
    {
      half: true,
      height: 260,
      note: `Lines: medians of pieces of the samples${thinned ? `; of more than ${pointsMax} samples the least and the greatest of each piece are drawn` : ""}.`,
    },
  );
}

/** Indexes of samples that are drawn: all, or the least and the greatest of each of equal pieces, so that none of the far ones is lost. */
export function thinnedOf(samples: readonly number[]): number[] {
  if (samples.length <= pointsMax) return [...samples.keys()];
  const pieces = pointsMax / 2;
  return Array.from({ length: pieces }, (_, piece) => {
    const from = Math.floor((piece * samples.length) / pieces);
    const to = Math.floor(((piece + 1) * samples.length) / pieces);
    let [least, most] = [from, from];
    for (let at = from; at < to; at++) {
      if ((samples[at] ?? 0) < (samples[least] ?? 0)) least = at;
      if ((samples[at] ?? 0) > (samples[most] ?? 0)) most = at;
    }
    return least === most ? [least] : [least, most].sort((a, b) => a - b);
  }).flat();
}

/** The middle index of each piece, and the median of its samples. */
function mediansOf(samples: readonly number[]): (readonly [at: number, value: number])[] {
  const pieces = Math.min(piecesMax, Math.floor(samples.length / 5));
  return Array.from({ length: pieces }, (_, piece) => {
    const from = Math.floor((piece * samples.length) / pieces);
    const to = Math.floor(((piece + 1) * samples.length) / pieces);
    const sorted = samples.slice(from, to).sort((a, b) => a - b);
    return [(from + to - 1) / 2, quantile(sorted, 0.5)] as const;
  });
}

function framed(sampled: readonly Sampled[]) {
  const legend = sampled.length > 1;
  return {
    grid: { left: 8, right: 24, top: legend ? 58 : 34, bottom: 44 },
    ...(legend ? { legend: { type: "scroll" as const, data: sampled.map(({ name }) => name) } } : {}),
  };
}
