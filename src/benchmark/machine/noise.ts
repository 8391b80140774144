// How far the times of the same work spread on this machine: a matrix product of the library's, on as many threads as a model has.

import { chooseLevel } from "../../engine/cpu.ts";
import { openLibrary } from "../../engine/library.ts";
import { openStand } from "../../engine/stand.ts";
import { defaultThreads } from "../../knobs/threads.ts";
import { median } from "../statistics/summary.ts";

/** How far times spread. */
export interface Noise {
  /** Coefficient of variation: the standard deviation as a part of the mean. */
  readonly variation: number;
  /** The same from the median of the distances to the median, which single outliers do not move. */
  readonly robust: number;
  readonly repetitions: number;
}

/** Weights as those of a small model's layer, several times over, so that they come from memory as a model's do. */
const product = {
  kernel: "matmul",
  format: "Q8_0",
  rows: 2048,
  columns: 2048,
  tokens: 1,
  workingBytes: 64 << 20,
} as const;
const repetitions = 200;
/** A repetition is about as long as a small model's token, and all of them take a second. */
const repetition_ns = 5e6;
/** Runs before the first that counts; the fastest of some series of them tells how many make a repetition. */
const warmupRuns = 5;
const warmupSeries = 8;
/** Repetitions between two looks at whether it is to end. */
const breath = 10;

/**
 * Measures it, in about a second.
 * @throws {EngineError} if memory or threads are refused. @throws the signal's reason if it is aborted.
 */
export async function measureNoise(signal?: AbortSignal): Promise<Noise> {
  const library = openLibrary();
  const { index } = chooseLevel(library, undefined);
  const stand = openStand(library, product, { level: index, threadCount: defaultThreads() });
  try {
    const warmups = Array.from({ length: warmupSeries }, () => stand.run(warmupRuns));
    const runs = Math.max(1, Math.round((repetition_ns * warmupRuns) / Math.min(...warmups)));
    const times: number[] = [];
    while (times.length < repetitions) {
      if (times.length % breath === 0) await new Promise((resolve) => setImmediate(resolve));
      signal?.throwIfAborted();
      times.push(stand.run(runs));
    }
    return noiseOf(times);
  } finally {
    stand.close();
  }
}

/** Of a normal distribution, the standard deviation beside the median of the distances to its median. */
const normalRatio = 1.4826;

/** @param times at least two. */
export function noiseOf(times: readonly number[]): Noise {
  const mean = times.reduce((sum, time) => sum + time, 0) / times.length;
  const deviation = Math.sqrt(times.reduce((sum, time) => sum + (time - mean) ** 2, 0) / (times.length - 1));
  const middle = median(times);
  const distance = median(times.map((time) => Math.abs(time - middle)));
  return { variation: deviation / mean, robust: (normalRatio * distance) / middle, repetitions: times.length };
}
