// Files of results over time, made up. It is not a test.

import type { BenchmarkInfo, Statistics } from "../../src/benchmark/results.ts";
import { seededRandom } from "../../src/benchmark/statistics/random.ts";
import type { TrendFile } from "../../src/benchmark/trends.ts";
import { madeUpInfo } from "./benchmark-results.ts";

/** The time of a day of 2026, from 0. */
export function dayOf(day: number): string {
  return new Date(Date.UTC(2026, 0, 1 + day, 3)).toISOString();
}

/** A file of each day, its latencies around what `meanOf` says of its place; its throughput is a thousand divided by them. */
export function dailyFiles(
  count: number,
  meanOf: (place: number) => number,
  infoOf: (place: number) => Partial<BenchmarkInfo> = () => ({}),
): TrendFile[] {
  const random = seededRandom(7);
  /** From run to run 0.5 % about, as machines have it; within a run 3 %. */
  const around = (middle: number, part: number) => middle * (1 + part * (random() + random() + random() - 1.5) * 2);
  return Array.from({ length: count }, (_, place): TrendFile => {
    const mean = around(meanOf(place), 0.005);
    const latencies = Array.from({ length: 12 }, () => around(mean, 0.03));
    return {
      file: `results_${`${place}`.padStart(3, "0")}.json`,
      results: {
        benchmark_info: { ...madeUpInfo, warnings: [], timestamp: dayOf(place), ...infoOf(place) },
        results: {
          latency: { ...figuresOf(latencies), percentiles: { "50": mean, "90": mean, "95": mean, "99": mean } },
          throughput: figuresOf(latencies.map((latency) => 1000 / (latency || 1))),
        },
      },
    };
  });
}

/** With an interval as of a normal distribution, which takes no time. */
function figuresOf(samples: readonly number[]): Statistics {
  const mean = samples.reduce((sum, value) => sum + value, 0) / samples.length;
  const std = Math.sqrt(samples.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (samples.length - 1));
  const half = (2 * std) / Math.sqrt(samples.length);
  const interval = { level: 0.95, low: mean - half, high: mean + half };
  return { mean, std, min: Math.min(...samples), max: Math.max(...samples), interval, samples };
}

/** The made-up machine, but for what is given. */
export function machine(changes: Partial<NonNullable<BenchmarkInfo["fingerprint"]>>): Partial<BenchmarkInfo> {
  const { fingerprint } = madeUpInfo;
  if (!fingerprint) throw new Error("the made-up results have no fingerprint");
  return { fingerprint: { ...fingerprint, ...changes } };
}
