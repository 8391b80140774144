// Ops on the machine's roofline, and the machine's bandwidth by working set.

import type { EChartsOption } from "echarts";
import type { MachineRoofs, Report, RooflineRow } from "../report.ts";
import { boundName, kibibytes } from "../sections.ts";
import { duration, grouped, percent, plain } from "../words.ts";
import { axisBase, decimalSteps, logAxis, MARK_DIGITS, powers, tickNumber, xAxis, yAxis } from "./axes.ts";
import { chart } from "./chart.ts";
import type { Block, ChartBlock } from "./model.ts";
import { kindColor } from "./time.ts";

export function rooflineBlocks(report: Report): Block[] {
  if (report.roofline === null) return [];
  const { machine, byOp, byKind } = report.roofline;
  return [...points(report, machine, [...byOp, ...byKind]), ...sweep(machine)];
}

/** Room beyond the outermost points, as a factor. */
const MARGIN = 2;
/** Peaks nearer than this factor are drawn as one. */
const SAME_PEAK = 1.15;

/**
 * Where a row stands: as far below its own roof as it stays behind it. Bytes that came out of caches are not those of the
 * intensity, so the height of an op held by a bandwidth is not its operations a second.
 */
function heightOf(row: RooflineRow): number {
  return row.unit === "GB/s" ? row.achieved * row.intensity : row.achieved;
}

function points(report: Report, machine: MachineRoofs, all: readonly RooflineRow[]): ChartBlock[] {
  const rows = all.filter((row) => row.intensity > 0 && row.achieved > 0);
  const peaks = Object.entries(machine.peaks).filter(([, peak]) => peak > 0);
  if (rows.length === 0 || peaks.length === 0 || machine.bandwidth.length === 0) return [];
  const highest = Math.max(...peaks.map(([, peak]) => peak));
  const slowest = Math.min(...machine.bandwidth.map(({ read }) => read));
  const minX = Math.min(...rows.map(({ intensity }) => intensity)) / MARGIN;
  const maxX = MARGIN * Math.max(highest / slowest, ...rows.map(({ intensity }) => intensity));
  const minY = Math.min(...rows.map(heightOf)) / MARGIN;
  const maxY = MARGIN * Math.max(highest, ...rows.map(heightOf));
  const x = logAxis(minX, maxX, decimalSteps(minX, maxX), tickNumber);
  const y = logAxis(minY, maxY, decimalSteps(minY, maxY), tickNumber);
  const log = Math.log10;

  const color = kindColor(report);
  const kinds = [...new Set(rows.map(({ kind }) => kind))];
  const longest = Math.max(...rows.map(({ wallNs }) => wallNs));
  const scatter = kinds.map((kind) => ({
    type: "scatter" as const,
    name: plain(kind),
    itemStyle: { color: color(kind), opacity: 0.75, borderColor: "var(--panel)", borderWidth: 1 },
    z: 3,
    data: rows
      .filter((row) => row.kind === kind)
      .map((row) => ({
        value: [log(row.intensity), log(heightOf(row))],
        symbol: row.index < 0 ? "diamond" : row.phase === "prompt" ? "triangle" : "circle",
        symbolSize: 6 + 22 * Math.sqrt(row.wallNs / longest),
        tip: {
          title: plain(row.name) + (row.index < 0 ? ", all ops" : ""),
          lines: [
            ["phase", row.phase],
            ["held by", boundName(row.bound)],
            ["reached", `${grouped(row.achieved, 1)} ${row.unit}`],
            ["roof", `${grouped(row.roof, 1)} ${row.unit}`],
            ["of the roof", percent(row.share)],
            ["wall time", duration(Math.round(row.wallNs))],
            ["at the roof", duration(Math.round(row.roofNs))],
            ["intensity", `${grouped(row.intensity, 2)} operations a byte`],
          ],
        },
      })),
  }));
  // Words stand under the lower end of a bandwidth, and over the right end of a peak.
  const roof = (name: string, ends: readonly (readonly [number, number])[], peak: boolean) => ({
    type: "line" as const,
    name,
    silent: true,
    showSymbol: false,
    lineStyle: { color: "var(--dim)", width: 1.5, type: peak ? ("dashed" as const) : ("solid" as const) },
    data: ends.map(([atX, atY]) => ({ value: [log(atX), log(atY)] })),
    markPoint: {
      silent: true,
      symbol: "circle",
      symbolSize: 0.1,
      data: ends.slice(-1).map(([atX, atY]) => ({ name, coord: [log(atX), log(atY)] })),
      label: {
        show: true,
        formatter: name,
        color: "var(--dim)",
        backgroundColor: "var(--panel)",
        fontSize: 11,
        position: peak ? ("left" as const) : ("right" as const),
        offset: peak ? [0, -8] : [4, 4],
      },
    },
  });
  const bandwidths = machine.bandwidth.map(({ name, read }) => {
    const startX = Math.max(minX, minY / read);
    const ridge = [highest / read, highest] as const;
    return roof(`${name} ${grouped(read, 0)} GB/s`, [ridge, [startX, startX * read]], false);
  });
  const fastest = Math.max(...machine.bandwidth.map(({ read }) => read));
  // Peaks that lie on one another share their words.
  const groups: { names: string[]; peak: number }[] = [];
  for (const [name, peak] of peaks.sort(([, a], [, b]) => a - b)) {
    const last = groups.at(-1);
    if (last && peak < last.peak * SAME_PEAK) last.names.push(name);
    else groups.push({ names: [name], peak });
  }
  const flat = groups.map(({ names, peak }) => {
    const name = names.join(", ");
    const unit = name.startsWith("int") ? "GOP/s" : "GFLOP/s";
    return roof(
      `${name} ${grouped(peak, 0)} ${unit}`,
      [
        [peak / fastest, peak],
        [maxX, peak],
      ],
      true,
    );
  });
  const option: EChartsOption = {
    legend: { data: kinds.map(plain), type: "scroll" },
    grid: { left: 8, right: 24, top: 60, bottom: 44 },
    xAxis: { ...xAxis("operations a byte, logarithmic"), ...x.axis },
    yAxis: { ...yAxis("10⁹ operations a second, logarithmic"), ...y.axis },
    dataZoom: [
      { type: "inside", xAxisIndex: 0, filterMode: "none", zoomOnMouseWheel: "ctrl" },
      { type: "inside", yAxisIndex: 0, filterMode: "none", zoomOnMouseWheel: "ctrl" },
    ],
    series: [...bandwidths, ...flat, ...scatter],
  };
  const left = all.length - rows.length;
  const absent =
    left === 0
      ? ""
      : ` ${left === 1 ? "One op does" : `${left} ops do`} no arithmetic or had no time, and stand in the tables only.`;
  return [
    chart("roofline-points", "Roofline", option, {
      height: 480,
      ticks: { x: x.ticks, y: y.ticks },
      note: `A point stands as far below its roof as it stays behind it; it is the larger, the longer it took. Circles are ops (triangles: in prompts), diamonds all ops of a kind. Ctrl and the wheel zoom, dragging moves.${absent}`,
    }),
  ];
}

function sweep(machine: MachineRoofs): ChartBlock[] {
  const rows = machine.sweep.filter(({ bytes, read }) => bytes > 0 && read > 0);
  if (rows.length < 2) return [];
  const sizes = rows.map(({ bytes }) => bytes);
  const minX = Math.min(...sizes) / 1.2;
  const maxX = Math.max(...sizes) * 1.2;
  const rates = rows.map(({ read }) => read);
  const [minY, maxY] = [Math.min(...rates) / 1.3, Math.max(...rates) * 1.3];
  const x = logAxis(minX, maxX, powers(4, minX, maxX), kibibytes);
  const y = logAxis(minY, maxY, decimalSteps(minY, maxY), tickNumber);
  const edge = machine.lastLevelBytes;
  const marks = edge > minX && edge < maxX ? [{ xAxis: Math.log10(edge) }] : [];
  return [
    chart(
      "sweep",
      "Reading bandwidth by working set",
      {
        grid: { left: 8, right: 24, top: 40, bottom: 44 },
        tooltip: { trigger: "axis" },
        xAxis: { ...xAxis("working set of all threads together, logarithmic"), ...x.axis },
        yAxis: { ...yAxis("GB/s, logarithmic"), ...y.axis, splitLine: axisBase.splitLine },
        series: [
          {
            type: "line",
            symbolSize: 5,
            itemStyle: { color: "var(--c0)" },
            lineStyle: { color: "var(--c0)" },
            data: rows.map(({ bytes, read }) => ({
              value: [Math.log10(bytes), Math.log10(read)],
              tip: { title: kibibytes(bytes), lines: [["read", `${grouped(read, 1)} GB/s`]] },
            })),
            markLine: {
              symbol: "none",
              precision: MARK_DIGITS,
              silent: true,
              lineStyle: { color: "var(--text)", type: "dashed" },
              label: { formatter: `last cache in effect, ${kibibytes(edge)}`, color: "var(--text)", fontSize: 11 },
              data: marks,
            },
          },
        ],
      },
      {
        height: 260,
        ticks: { x: x.ticks, y: y.ticks },
        note: `Measured on ${machine.threads} threads at ${plain(machine.level)}.`,
      },
    ),
  ];
}
