// Samples as the figures that a results file has of them.

import type { Interval, Latency, MemoryUsage, Statistics } from "../results.ts";
import { meanInterval, quantileInterval } from "./bootstrap.ts";
import { studentQuantile } from "./normal.ts";
import { type Random, seededRandom } from "./random.ts";
import { dependenceOf } from "./series.ts";
import { quantile } from "./summary.ts";

/** With fewer samples no interval is given. */
export const samplesMin = 6;

/** @param samples in the order in which they were measured, at least one. */
export function statisticsOf(samples: readonly number[], random: Random = seededRandom()): Statistics {
  return {
    ...moments(samples),
    min: samples.reduce((least, value) => Math.min(least, value), Number.POSITIVE_INFINITY),
    max: samples.reduce((most, value) => Math.max(most, value), Number.NEGATIVE_INFINITY),
    ...(samples.length >= samplesMin && { interval: meanInterval(samples, { random }) }),
    samples,
  };
}

function moments(samples: readonly number[]): { readonly mean: number; readonly std: number } {
  const mean = samples.reduce((sum, value) => sum + value, 0) / samples.length;
  const squares = samples.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { mean, std: samples.length > 1 ? Math.sqrt(squares / (samples.length - 1)) : 0 };
}

/** The same with percentiles, and with intervals of those that the samples span. */
export function latencyOf(samples: readonly number[], random: Random = seededRandom()): Latency {
  const sorted = Float64Array.from(samples).sort();
  const intervals: Record<string, Interval> = {};
  for (const percent of [50, 90, 95, 99]) {
    const found = quantileInterval(samples, percent / 100);
    if (found) intervals[percent] = found;
  }
  return {
    ...statisticsOf(samples, random),
    percentiles: {
      "50": quantile(sorted, 0.5),
      "90": quantile(sorted, 0.9),
      "95": quantile(sorted, 0.95),
      "99": quantile(sorted, 0.99),
    },
    ...(Object.keys(intervals).length > 0 && { percentile_intervals: intervals }),
  };
}

export interface MemoryUsageOptions {
  /** The process's own highest figure, where the system keeps it: samples may miss it. */
  readonly peak?: number;
  readonly random?: Random;
}

/** @param samples MB. */
export function memoryUsageOf(samples: readonly number[], { peak = 0, random }: MemoryUsageOptions = {}): MemoryUsage {
  const figures = statisticsOf(samples, random);
  return { peak: Math.max(peak, figures.max), ...figures };
}

/**
 * Half the 95 % interval of the mean, as a part of the mean, by Student's distribution: cheap enough to ask after each sample whether
 * there are enough. Infinity with fewer than six samples.
 */
export function precisionOf(samples: readonly number[]): number {
  if (samples.length < samplesMin) return Number.POSITIVE_INFINITY;
  const { mean, std } = moments(samples);
  const { effective } = dependenceOf(samples);
  return (studentQuantile(0.975, Math.max(1, effective - 1)) * std) / Math.sqrt(effective) / Math.abs(mean);
}
