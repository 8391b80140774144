// Trends as a chart, for a page and for a picture: a line for each series with its intervals as a band, lines across where a level or
// something else changed, with what it was at their tops.

import type { EChartsOption, LegendComponentOption, LineSeriesOption } from "echarts";
import { axisBase, decimalSteps, logAxis, tickNumber } from "../../profiler/page/axes.ts";
import { chart } from "../../profiler/page/chart.ts";
import type { ChartBlock, Tick, Tip } from "../../profiler/page/model.ts";
import { plain } from "../../profiler/words.ts";
import type { Interval } from "./results.ts";
import { changeText, dateText, figureText, quantityText, shortened, timeText } from "./trend-words.ts";
import type { TrendChange, TrendPoint, TrendSeries, Trends } from "./trends.ts";

/** How the chart is laid out. */
export interface TrendLook {
  /** Of the axes' words, CSS pixels. */
  readonly fontSize: number;
  /** CSS pixels that the chart is about as wide as: places of labels and how many dates there is room for. */
  readonly width: number;
  /** What stays free at the top for a title, CSS pixels. */
  readonly top: number;
  /** Of the legend. */
  readonly left: number;
  readonly bottom: number;
  /** Whether a part of the files can be chosen below the chart. */
  readonly zoom: boolean;
}

/** Colours of the page that do not look like those of a regression or an improvement. */
const seriesColors = [0, 1, 3, 4, 7, 6, 9, 8].map((color) => `var(--c${color})`);
const changeColors = { regression: "var(--warning)", improvement: "var(--better)", change: "var(--dim)" } as const;

/** Letters of a series' name that the legend shows. */
const nameLetters = 48;
/** Series differ so much that they are shown by their logarithms. */
const logarithmicFrom = 20;
/** Files from which on a part of them can be chosen. */
const zoomFrom = 40;

/** How wide a letter is about, as a part of the font's size. */
const letterWidth = 0.56;

export function trendChart(trends: Trends, look: TrendLook): ChartBlock {
  const { fontSize, width, top, bottom, zoom } = look;
  const { metric, files, series } = trends;
  const scale = scaleOf(trends);
  const names = series.map(({ name }) => shortened(plain(name), nameLetters));
  const legendRows = series.length > 1 ? rowsOf(names, fontSize, width) : 0;
  const labels = labelsOf(trends, look);
  const labelRows = Math.max(0, ...labels.map(({ row }) => row + 1));
  const legendHeight = legendRows * fontSize * 1.8;
  const zoomed = zoom && files.length >= zoomFrom;
  const font = { color: "var(--dim)", fontSize };
  // Where a part can be chosen, every file may have its date; those that would overlap are not shown.
  const ticks = timeTicks(trends, zoomed ? files.length : Math.max(2, Math.floor(width / (fontSize * 11))));
  const twoLines = ticks.some(({ text }) => text.includes("\n"));
  const option: EChartsOption = {
    grid: {
      left: 12 + fontSize * 1.4,
      right: fontSize * 4,
      top: top + legendHeight + labelRows * rowHeight(fontSize) + fontSize,
      bottom: bottom + fontSize * (twoLines ? 4.6 : 3.5) + (zoomed ? 36 : 0),
    },
    ...(series.length > 1 ? { legend: legendOf(names, look) } : {}),
    xAxis: {
      ...axisBase,
      type: "value",
      min: -0.5,
      max: files.length - 0.5,
      name: "files in the order of their time (UTC)",
      nameLocation: "middle",
      nameGap: fontSize * (twoLines ? 3.3 : 2.2),
      nameTextStyle: font,
      splitLine: { show: false },
      axisTick: { ...axisBase.axisTick, show: !zoomed, customValues: ticks.map(({ at }) => at) },
      axisLabel: { ...font, lineHeight: fontSize * 1.25, hideOverlap: true, customValues: ticks.map(({ at }) => at) },
    },
    yAxis: {
      ...axisBase,
      type: "value",
      name: metric.unit === "" ? metric.title : `${metric.title}, ${metric.unit}`,
      nameLocation: "middle",
      nameGap: fontSize * 0.6,
      nameTextStyle: { ...font, fontSize: fontSize * 1.1 },
      ...scale.axis,
      axisLabel: { ...scale.axis.axisLabel, ...font },
    },
    ...(zoomed ? { dataZoom: [{ type: "slider", xAxisIndex: 0, bottom: 6, height: 20 }] } : {}),
    series: [
      ...series.flatMap((each, place) => bandSeries(each, colorOf(place), scale)),
      ...series.flatMap((each, place) => levelSeries(each, colorOf(place), scale.at)),
      ...series.map((each, place) => lineSeries(trends, each, names[place] ?? "", colorOf(place), scale.at)),
      linesAcross(labels, fontSize),
    ],
  };
  return chart("trend", "", option, {
    height: 460,
    ticks: { x: ticks, ...(scale.ticks ? { y: scale.ticks } : {}) },
  });
}

function legendOf(names: readonly string[], { top, left, fontSize }: TrendLook): LegendComponentOption {
  return {
    top,
    left,
    icon: "roundRect",
    itemWidth: fontSize,
    itemHeight: fontSize,
    itemGap: fontSize * 1.4,
    data: [...names],
    textStyle: { fontSize, color: "var(--text)" },
  };
}

function colorOf(place: number): string {
  return seriesColors[place % seriesColors.length] ?? "";
}

/** The vertical axis: where a value lies on it, and its ticks where they are words. */
interface Scale {
  readonly axis: { readonly axisLabel?: object; readonly [option: string]: unknown };
  readonly at: (value: number) => number;
  /** Whether some of an interval lies on it. */
  readonly shows: (interval: Interval) => boolean;
  readonly ticks?: readonly Tick[];
}

/** From a little below the least to a little above the most; noise alone is not stretched over all of it. */
function scaleOf({ series }: Trends): Scale {
  const points = series.flatMap((each) => each.points);
  const values = points.map(({ value }) => value);
  const [least, most] = [Math.min(...values), Math.max(...values)];
  // An interval may be far wider than what happened; it is cut. It may lie beside its figure as well, where a file says so.
  const room = Math.max(most - least, Math.abs(most) * 0.1);
  const low = Math.max(least - room, Math.min(least, ...points.map(({ value, interval }) => interval?.low ?? value)));
  const high = Math.min(most + room, Math.max(most, ...points.map(({ value, interval }) => interval?.high ?? value)));
  if (least > 0 && most / least > logarithmicFrom) {
    const [min, max] = [Math.max(low, least / 2) / 1.3, high * 1.3];
    const { axis, ticks } = logAxis(min, max, decimalSteps(min, max), tickNumber);
    const at = (value: number) => Math.log10(Math.max(value, min));
    return { axis: { ...axis, splitLine: axisBase.splitLine }, at, shows: between(min, max), ticks };
  }
  const middle = (low + high) / 2;
  const half = Math.max(((high - low) / 2) * 1.1, Math.abs(middle) * 0.05) || 1;
  const wanted = (2 * half) / 5;
  const power = Math.floor(Math.log10(wanted));
  const step =
    [1, 2, 2.5, 5, 10].map((factor) => Number(`${factor}e${power}`)).find((each) => each >= wanted) ?? wanted;
  const bottom = rounded(Math.floor((middle - half) / step + 1e-9) * step);
  const min = low >= 0 && (bottom < 0 || low < high * 0.35) ? 0 : bottom;
  const max = rounded(Math.ceil((middle + half) / step - 1e-9) * step);
  return { axis: { min, max, interval: step }, at: (value) => value, shows: between(min, max) };
}

function between(min: number, max: number): Scale["shows"] {
  return ({ low, high }) => low <= max && high >= min;
}

/** Without what binary fractions leave behind the decimal point. */
function rounded(value: number): number {
  return Number(value.toPrecision(12));
}

/** Dates below the axis, evenly spaced, with the time of day where the day alone would come again. */
function timeTicks({ files }: Trends, count: number): Tick[] {
  const every = Math.ceil(files.length / count);
  const shown = files.map(({ timestamp }, at) => ({ at, timestamp })).filter(({ at }) => at % every === 0);
  const days = new Set(shown.map(({ timestamp }) => dateText(timestamp)));
  return shown.map(({ at, timestamp }) => ({
    at,
    text: days.size === shown.length ? dateText(timestamp) : timeText(timestamp).replace(" ", "\n"),
  }));
}

/** Rows that a legend takes. */
function rowsOf(names: readonly string[], fontSize: number, width: number): number {
  let rows = 1;
  let used = 0;
  for (const name of names) {
    const size = name.length * fontSize * letterWidth + 36;
    if (used > 0 && used + size > width - 80) {
      rows++;
      used = 0;
    }
    used += size;
  }
  return rows;
}

function lineSeries(
  { metric, files }: Trends,
  { name, points, changes }: TrendSeries,
  shown: string,
  color: string,
  at: Scale["at"],
): LineSeriesOption {
  const changed = new Map(changes.map((change) => [change.place, change]));
  const symbolSize = files.length <= 40 ? 9 : files.length <= 150 ? 6 : 4;
  return {
    type: "line",
    name: shown,
    z: 4,
    symbol: "circle",
    symbolSize,
    showAllSymbol: true,
    lineStyle: { color, width: files.length <= 150 ? 2 : 1.5 },
    itemStyle: { color },
    data: points.map((point) => {
      const change = changed.get(point.place);
      return {
        value: [point.place, at(point.value)],
        tip: tipOf(name, point, metric.unit, change),
        ...(change ? { symbolSize: symbolSize + 4, itemStyle: { color: changeColors[change.kind] } } : {}),
      };
    }),
  };
}

function tipOf(name: string, point: TrendPoint, unit: string, change: TrendChange | undefined): Tip {
  const { file, timestamp, value, interval, samples } = point;
  return {
    title: plain(file),
    lines: [
      ["time", timeText(timestamp)],
      ["series", plain(name)],
      ["figure", quantityText(value, unit)],
      ...(interval
        ? [
            [
              `${Math.round(interval.level * 100)} % interval`,
              `${figureText(interval.low)} to ${figureText(interval.high)}`,
            ] as const,
          ]
        : []),
      ...(samples === null ? [] : [["samples", `${samples}`] as const]),
      ...(change ? [[change.kind, change.sentence] as const] : []),
    ],
  };
}

/** Part of the way to the next file that a band goes where its neighbours have no interval. */
const loneBand = 0.1;

/** The intervals: up to their lower ends nothing is drawn, from there on to their upper ones the band. */
function bandSeries({ points, name }: TrendSeries, color: string, { at, shows }: Scale): LineSeriesOption[] {
  const ends: { readonly x: number; readonly interval: TrendPoint["interval"] }[] = [];
  // What a file says may lie beside its figure, and resvg fails at a band that lies wholly outside of the axes.
  const bands = points.map(({ place, interval }) => ({
    place,
    interval: interval && shows(interval) ? interval : null,
  }));
  for (const [index, { place, interval }] of bands.entries()) {
    const isLone = interval && !bands[index - 1]?.interval && !bands[index + 1]?.interval;
    if (isLone) ends.push({ x: place - loneBand, interval }, { x: place + loneBand, interval });
    else ends.push({ x: place, interval });
    // A gap, so that two that stand alone are not joined.
    if (isLone) ends.push({ x: place + loneBand, interval: null });
  }
  if (ends.every(({ interval }) => !interval)) return [];
  const base: LineSeriesOption = {
    type: "line",
    stack: `band of ${name}`,
    // What lies below 0, as logarithms may, is stacked as well.
    stackStrategy: "all",
    z: 2,
    silent: true,
    symbol: "none",
    // Not one that does not show: resvg fails at a line that lies wholly outside of the axes.
    lineStyle: { width: 0 },
    tooltip: { show: false },
  };
  const low = ends.map(({ x, interval }) => [x, interval ? at(interval.low) : null]);
  const size = ends.map(({ x, interval }) => [x, interval ? at(interval.high) - at(interval.low) : null]);
  return [
    { ...base, data: low },
    { ...base, data: size, areaStyle: { color, opacity: 0.22 } },
  ];
}

/** The levels before and after each change. */
function levelSeries({ points, changes }: TrendSeries, color: string, at: Scale["at"]): LineSeriesOption[] {
  if (changes.length === 0) return [];
  const data = changes.flatMap((change, index) => {
    const next = changes[index + 1];
    const last = next ? before(points, next.place) : (points.at(-1)?.place ?? change.place);
    const start = index === 0 ? [[points[0]?.place ?? 0, at(change.before)] as const] : [];
    return [
      ...(index === 0 ? [...start, [before(points, change.place), at(change.before)] as const] : []),
      [change.place, null] as const,
      [change.place, at(change.after)] as const,
      [last, at(change.after)] as const,
    ];
  });
  return [
    {
      type: "line",
      z: 3,
      silent: true,
      symbol: "none",
      lineStyle: { color, width: 1.5, type: "dashed" },
      tooltip: { show: false },
      data: data.map((each) => [...each]),
    },
  ];
}

/** The place of the point before the one at a place. */
function before(points: readonly TrendPoint[], place: number): number {
  return points.findLast((point) => point.place < place)?.place ?? place;
}

/** A line across the chart with words at its top. */
interface Across {
  readonly x: number;
  readonly text: string;
  readonly color: string;
  readonly isChange: boolean;
  /** Of its words, from below. */
  readonly row: number;
  /** What it is, in full. */
  readonly whole: string;
}

/** Rows of words at the top; what has no room is a line without. */
const labelRowsMax = 4;

function rowHeight(fontSize: number): number {
  return fontSize + 12;
}

function labelsOf({ series, marks, files }: Trends, { fontSize, width }: TrendLook): Across[] {
  const wanted = [
    ...series.flatMap(({ points, changes }) =>
      changes.map((change) => ({
        x: (before(points, change.place) + change.place) / 2,
        text: change.sentence.replace(/ \(.*/, ""),
        color: changeColors[change.kind],
        isChange: true,
        whole: changeText(change),
      })),
    ),
    ...marks.map(({ place, changes }, index) => ({
      x: place - 0.5,
      text: `${index + 1}`,
      color: "var(--dim)",
      isChange: false,
      whole: changes.join("; "),
    })),
  ].sort((a, b) => a.x - b.x);
  /** Where the last words of each row end. */
  const ends: number[] = [];
  return wanted.map((each): Across => {
    const middle = ((each.x + 0.5) / files.length) * (width - fontSize * 9);
    const half = (each.text.length * fontSize * letterWidth + 20) / 2;
    const free = ends.findIndex((end) => end < middle - half);
    const row = free >= 0 ? free : ends.length;
    ends[row] = middle + half;
    return { ...each, row: row < labelRowsMax ? row : -1 };
  });
}

function linesAcross(labels: readonly Across[], fontSize: number): LineSeriesOption {
  return {
    type: "line",
    z: 5,
    data: [],
    markLine: {
      symbol: "none",
      silent: true,
      precision: 3,
      data: labels.map(({ x, text, color, isChange, row }) => ({
        xAxis: x,
        lineStyle: { color, width: isChange ? 2 : 1.2, type: isChange ? "solid" : "dashed" },
        label: {
          show: row >= 0,
          position: "end",
          distance: 4 + row * rowHeight(fontSize),
          formatter: text,
          fontSize,
          color: "var(--panel)",
          backgroundColor: color,
          borderRadius: 4,
          padding: [3, 6],
        },
      })),
    },
  };
}
