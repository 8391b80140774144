// Whether a figure in a file is what its samples give, and whether its parts can be together at all.

import type { Interval, Latency, MemoryUsage, Statistics } from "./results.ts";

type Figure = Statistics | Latency | MemoryUsage;
/** Of samples. */
export type Computed = Statistics & Partial<Pick<Latency, "percentiles">>;

/** Rounding of whoever wrote the file, as a part. */
const tolerance = 1e-4;
/** Intervals are drawn: their ends may lie this part of their width off. */
const drawnTolerance = 0.35;

/**
 * What is wrong with a figure, each in words; nothing where it is sound.
 * @param computed the same from its samples, where it has some.
 */
export function checkFigure(figure: Figure, computed: Computed | undefined): string[] {
  return computed ? besideSamples(figure, computed) : withinItself(figure);
}

/** What differs from the samples. */
function besideSamples(figure: Figure, computed: Computed): string[] {
  const { mean, std, min, max, interval } = computed;
  const expected: [name: string, found: number | undefined, value: number][] = [
    ["mean", figure.mean, mean],
    ["std", figure.std, std],
    ["min", figure.min, min],
    ["max", figure.max, max],
  ];
  if ("percentiles" in figure && computed.percentiles) {
    for (const [name, value] of Object.entries(computed.percentiles)) {
      expected.push([`percentile ${name}`, figure.percentiles[name as keyof Latency["percentiles"]], value]);
    }
  }
  const scale = Math.max(Math.abs(min), Math.abs(max));
  const problems = expected.flatMap(([name, found, value]) => {
    if (found === undefined || Math.abs(found - value) <= tolerance * scale) return [];
    return [`its ${name} is ${found}, but that of its samples is ${value}`];
  });
  if ("peak" in figure && figure.peak < max * (1 - tolerance)) {
    problems.push(`its peak is ${figure.peak}, but a sample is ${max}`);
  }
  if (interval && figure.interval) problems.push(...checkInterval(figure.interval, interval, scale));
  return problems;
}

function checkInterval(found: Interval, drawn: Interval, scale: number): string[] {
  const allowed = drawnTolerance * (drawn.high - drawn.low) + tolerance * scale;
  const isNear = Math.abs(drawn.low - found.low) <= allowed && Math.abs(drawn.high - found.high) <= allowed;
  if (found.level !== drawn.level || isNear) return [];
  const about = `${drawn.low.toPrecision(5)} to ${drawn.high.toPrecision(5)}`;
  return [`its interval is ${found.low} to ${found.high}, but its samples give about ${about}`];
}

/** What cannot be together. */
function withinItself(figure: Figure): string[] {
  const { mean, std, min, max, interval } = figure;
  const ascending: [name: string, value: number | undefined][] = [["min", min]];
  if ("percentiles" in figure) {
    for (const [name, value] of Object.entries(figure.percentiles)) ascending.push([`percentile ${name}`, value]);
  }
  ascending.push(["max", max]);
  const there = ascending.filter((entry): entry is [string, number] => entry[1] !== undefined);
  const problems: string[] = [];
  for (const [index, [name, value]] of there.entries()) {
    const [before, less] = there[index - 1] ?? [];
    if (less !== undefined && less > value) problems.push(`its ${before}, ${less}, is above its ${name}, ${value}`);
  }
  if (min !== undefined && mean < min) problems.push(`its mean, ${mean}, is below its min, ${min}`);
  if (max !== undefined && mean > max) problems.push(`its mean, ${mean}, is above its max, ${max}`);
  if (min !== undefined && max !== undefined && std > max - min) {
    problems.push(`its std, ${std}, is more than its values span`);
  }
  if ("peak" in figure && figure.peak < mean) problems.push(`its peak, ${figure.peak}, is below its mean, ${mean}`);
  if (interval && (interval.low > mean || interval.high < mean)) {
    problems.push(`its mean, ${mean}, is outside its interval`);
  }
  return problems;
}
