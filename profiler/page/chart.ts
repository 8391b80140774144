// What the page's charts have in common: how a block is made from an option, horizontal bars, and colours by name.

import type { EChartsOption } from "echarts";
import { axisBase, namesAxis, xAxis } from "./axes.ts";
import { type ChartBlock, COLORS, type Tip } from "./model.ts";

/** The page's colour of a place in a list; they come again when there are more places than colours. */
export function colorAt(place: number): string {
  return `var(--c${place % COLORS})`;
}

export function chart(
  id: string,
  title: string,
  option: EChartsOption,
  rest: Partial<Omit<ChartBlock, "type" | "id" | "title" | "option">> = {},
): ChartBlock {
  return { type: "chart", id, title, note: "", height: 280, half: false, ticks: {}, option, ...rest };
}

/** Series of bars, a bar for each name; its figure stands at its end where it has a label. */
export interface BarSeries {
  readonly name: string;
  readonly color: string;
  readonly values: readonly { readonly value: number; readonly tip: Tip; readonly label?: string }[];
}

/** Rows of bars that are shown at once; the others are scrolled to. */
const ROWS_SHOWN = 20;
const ROW_HEIGHT = 24;

/** Horizontal bars, the first name on top; several series stand one after the other (`stacked`) or below one another. */
export function bars(
  id: string,
  title: string,
  names: readonly string[],
  series: readonly BarSeries[],
  axis: { readonly name: string; readonly max?: number },
  rest: { readonly note?: string; readonly half?: boolean; readonly stacked?: boolean } = {},
): ChartBlock {
  const { stacked = false, ...others } = rest;
  const legend = series.length > 1;
  const scrolled = names.length > ROWS_SHOWN;
  const rows = Math.min(names.length, ROWS_SHOWN) * (stacked ? 1 : series.length ** 0.7);
  const labelled = series.some(({ values }) => values.some(({ label }) => label !== undefined));
  const option: EChartsOption = {
    grid: { left: 8, right: labelled ? 96 : scrolled ? 40 : 24, top: legend ? 34 : 8, bottom: 44 },
    ...(legend ? { legend: {} } : {}),
    xAxis: {
      ...xAxis(axis.name),
      min: 0,
      ...(axis.max === undefined ? {} : { max: axis.max }),
      splitLine: axisBase.splitLine,
    },
    yAxis: namesAxis(names),
    ...(scrolled
      ? { dataZoom: [{ type: "slider", yAxisIndex: 0, startValue: 0, endValue: ROWS_SHOWN - 1, width: 14, right: 6 }] }
      : {}),
    series: series.map(({ name, color, values }) => ({
      type: "bar",
      name,
      ...(stacked ? { stack: "all" } : {}),
      barMaxWidth: 18,
      itemStyle: { color },
      label: { show: labelled, position: "right", color: "var(--text)", fontSize: 11 },
      data: values.map(({ label = "", ...value }) => ({ ...value, label: { formatter: label } })),
    })),
  };
  return chart(id, title, option, { ...others, height: Math.ceil(rows * ROW_HEIGHT) + (legend ? 90 : 64) });
}
