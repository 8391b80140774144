// Axes of the charts: their colours, their names with units, and logarithmic ones with ticks at 1, 2 and 5, which ECharts' own
// have at powers of ten only. A logarithmic axis holds logarithms; its ticks' words stand beside the option (`ChartBlock.ticks`).

import { grouped, MICROSECONDS, MILLISECONDS, SECONDS, type Unit } from "../words.ts";
import type { Tick } from "./model.ts";

const label = { color: "var(--dim)", fontSize: 11 } as const;
const line = { lineStyle: { color: "var(--line)" } } as const;

/** What all axes have. */
export const axisBase = {
  nameTextStyle: { color: "var(--dim)", fontSize: 11 },
  axisLabel: label,
  axisLine: { ...line, show: true, onZero: false },
  axisTick: line,
  splitLine: line,
} as const;

/** Under the axis, in its middle. */
const below = { nameLocation: "middle", nameGap: 28 } as const;

export function xAxis(name: string) {
  return { ...axisBase, ...below, type: "value" as const, name, splitLine: { show: false } };
}

export function yAxis(name: string) {
  return {
    ...axisBase,
    type: "value" as const,
    name,
    nameTextStyle: { ...axisBase.nameTextStyle, align: "left" as const },
  };
}

/** Names from the top to the bottom, the first on top; the longest are cut, their tips have them whole. */
export function namesAxis(names: readonly string[]) {
  return {
    ...axisBase,
    type: "category" as const,
    data: [...names],
    inverse: true,
    splitLine: { show: false },
    axisTick: { show: false },
    axisLabel: { ...label, color: "var(--text)", width: 170, overflow: "truncate" as const, interval: 0 },
  };
}

/** Decimals of a logarithm that a line across the chart is drawn at. */
export const MARK_DIGITS = 9;

/** A logarithmic axis from `min` to `max`, both above 0: the option for logarithms to base 10, and its ticks. */
export function logAxis(min: number, max: number, steps: readonly number[], word: (value: number) => string) {
  const ticks: Tick[] = steps
    .filter((value) => value >= min * 0.999 && value <= max * 1.001)
    .map((value) => ({ at: Math.log10(value), text: word(value) }));
  const values = ticks.map(({ at }) => at);
  return {
    axis: {
      min: Math.log10(min),
      max: Math.log10(max),
      axisTick: { ...line, customValues: values },
      axisLabel: { ...label, customValues: values, hideOverlap: true },
      splitLine: { show: false },
    },
    ticks,
  };
}

/**
 * Round numbers around `min` and `max` and between: 1, 2 and 5 times the powers of ten, more of them within one power, of more than
 * three powers only those themselves, and in less than half of one those of a ruler with equal steps.
 */
export function decimalSteps(min: number, max: number): number[] {
  if (max / min < 3) {
    const step = [1, 2, 5, 10].map((factor) => factor * 10 ** Math.floor(Math.log10((max - min) / 5)));
    const wide = step.find((each) => (max - min) / each <= 6) ?? max;
    const first = Math.ceil(min / wide);
    return Array.from({ length: Math.floor(max / wide) - first + 1 }, (_, index) => rounded((first + index) * wide));
  }
  const factors = max / min > 1000 ? [1] : max / min > 10 ? [1, 2, 5] : [1, 2, 3, 4, 5, 7];
  const first = Math.floor(Math.log10(min));
  const powers = Array.from({ length: Math.ceil(Math.log10(max)) - first + 1 }, (_, index) => first + index);
  return powers.flatMap((power) => factors.map((factor) => Number(`${factor}e${power}`)));
}

/** Without what binary fractions leave behind the decimal point. */
function rounded(value: number): number {
  return Number(value.toPrecision(6));
}

/** Powers of `base` from `min` to `max`. */
export function powers(base: number, min: number, max: number): number[] {
  const values: number[] = [];
  for (let power = Math.ceil(Math.log(min) / Math.log(base) - 1e-9); base ** power <= max * 1.001; power++) {
    values.push(base ** power);
  }
  return values;
}

/** A duration that is a round number, as ticks are. */
export function tickDuration(ns: number): string {
  if (ns < 1e3) return `${tickNumber(ns)} ns`;
  const unit = unitOf(ns);
  return `${tickNumber(rounded(ns / unit.ns))} ${unit.name}`;
}

/** The unit in which the largest of some durations reads best. */
export function unitOf(ns: number): Unit {
  return ns < 1e6 ? MICROSECONDS : ns < 1e9 ? MILLISECONDS : SECONDS;
}

/** What many of something are counted in: a thousand, a million, a billion, as bytes or in words. */
export function scaleOf(largest: number, names: readonly [string, string, string, string]) {
  const power = largest < 1e3 ? 0 : largest < 1e6 ? 1 : largest < 1e9 ? 2 : 3;
  return { size: 1000 ** power, name: names[power] ?? "" };
}

/** A round number with the digits that it has: `0.01`, `1.5`, `1,000`. */
export function tickNumber(value: number): string {
  const digits = `${value}`.split(".")[1]?.length ?? 0;
  return grouped(value, digits);
}
