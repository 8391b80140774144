// What the system gave over time: memory, CPU and page faults; and native allocations.

import type { EChartsOption } from "echarts";
import type { AmountRow, Report } from "../report.ts";
import { bytes, duration, grouped } from "../words.ts";
import { scaleOf, unitOf, xAxis, yAxis } from "./axes.ts";
import { bars, chart } from "./chart.ts";
import type { Block, ChartBlock, Tip } from "./model.ts";

export function systemBlocks({ system }: Report): Block[] {
  if (system === null) return [];
  return [...timeline(system.samples), ...allocations(system.allocations)];
}

type Samples = NonNullable<Report["system"]>["samples"];

function timeline(samples: Samples): ChartBlock[] {
  if (samples.length < 2) return [];
  const seconds = (samples.at(-1)?.atMs ?? 0) >= 10_000;
  const at = (ms: number): number => (seconds ? ms / 1000 : ms);
  const tip = (sample: Samples[number]): Tip => ({
    title: `after ${duration(Math.round(sample.atMs * 1e6))}`,
    lines: [
      ["resident", bytes(sample.residentBytes)],
      ["JavaScript's heap", bytes(sample.heapBytes)],
      ["native", bytes(sample.nativeBytes)],
      ["CPU", `${grouped(sample.cpuPercent, 0)} %`],
      ["minor faults", grouped(sample.minorFaults, 0)],
      ["major faults", grouped(sample.majorFaults, 0)],
    ],
  });
  const data = (figureOf: (sample: Samples[number]) => number, skip = 0) =>
    samples.slice(skip).map((sample) => ({ value: [at(sample.atMs), figureOf(sample)], tip: tip(sample) }));
  const line = (name: string, color: string, grid: number, points: ReturnType<typeof data>, area = 0) => ({
    type: "line" as const,
    name,
    xAxisIndex: grid,
    yAxisIndex: grid,
    showSymbol: samples.length < 60,
    symbolSize: 4,
    itemStyle: { color },
    lineStyle: { color, width: 1.5 },
    areaStyle: { color, opacity: area },
    data: points,
  });
  const faults = (name: string, color: string, key: "minorFaults" | "majorFaults") => ({
    type: "bar" as const,
    name,
    stack: "faults",
    xAxisIndex: 2,
    yAxisIndex: 2,
    barMaxWidth: 6,
    itemStyle: { color },
    data: data((sample) => sample[key], 1),
  });
  const grids = [
    { top: 58, height: 150 },
    { top: 246, height: 70 },
    { top: 354, height: 70 },
  ];
  const max = at(samples.at(-1)?.atMs ?? 0);
  const option: EChartsOption = {
    legend: { type: "scroll" },
    tooltip: { trigger: "axis" },
    axisPointer: { link: [{ xAxisIndex: "all" }] },
    grid: grids.map((grid) => ({ ...grid, left: 60, right: 24, outerBoundsMode: "none" as const })),
    xAxis: grids.map((_, index) => ({
      ...xAxis(index === 2 ? `since profiling began, ${seconds ? "s" : "ms"}` : ""),
      gridIndex: index,
      min: 0,
      max,
      // Or the axis with bars would be longer than those above it.
      containShape: false,
      axisLabel: { ...xAxis("").axisLabel, show: index === 2, hideOverlap: true, showMaxLabel: false },
    })),
    yAxis: ["MB", "CPU, % of one", "page faults"].map((name, index) => ({
      ...yAxis(name),
      gridIndex: index,
      min: 0,
      splitNumber: index === 0 ? 4 : 2,
      minInterval: 1,
    })),
    dataZoom: [{ type: "slider", xAxisIndex: [0, 1, 2], height: 16, bottom: 8, filterMode: "none" }],
    series: [
      line(
        "resident",
        "var(--c0)",
        0,
        data((sample) => sample.residentBytes / 1e6),
        0.12,
      ),
      line(
        "JavaScript's heap",
        "var(--c1)",
        0,
        data((sample) => sample.heapBytes / 1e6),
      ),
      line(
        "native",
        "var(--c2)",
        0,
        data((sample) => sample.nativeBytes / 1e6),
      ),
      line(
        "CPU",
        "var(--c3)",
        1,
        data((sample) => sample.cpuPercent, 1),
        0.12,
      ),
      faults("minor faults", "var(--c4)", "minorFaults"),
      faults("major faults", "var(--c5)", "majorFaults"),
    ],
  };
  return [
    chart("timeline", "Memory and CPU over time", option, {
      height: 510,
      note: "CPU and faults are those since the sample before; 100 % is one CPU. Native memory is what the library holds, without files that are mapped.",
    }),
  ];
}

function allocations(row: NonNullable<Report["system"]>["allocations"]): ChartBlock[] {
  const spread = (id: string, title: string, values: AmountRow, color: string): ChartBlock[] => {
    if (values.count === 0) return [];
    const word = (value: number): string => (values.unit === "ns" ? duration(Math.round(value)) : bytes(value));
    const unit =
      values.unit === "ns"
        ? { name: unitOf(values.max).name, size: unitOf(values.max).ns }
        : scaleOf(values.max, ["B", "KB", "MB", "GB"]);
    const figures = (["min", "p50", "p90", "p99", "max"] as const).map((name) => ({ name, value: values[name] }));
    const series = {
      name: title,
      color,
      values: figures.map(({ name, value }) => ({
        value: value / unit.size,
        label: word(value),
        tip: { title: `${name} of ${grouped(values.count, 0)}`, lines: [[title, word(value)]] as const },
      })),
    };
    const names = figures.map(({ name }) => name);
    return [bars(id, title, names, [series], unit, { half: true })];
  };
  return [
    ...spread("allocation-sizes", "Sizes of native allocations", row.sizes, "var(--c0)"),
    ...spread("allocation-lifetimes", "Lifetimes of what was freed", row.lifetimes, "var(--c2)"),
  ];
}
