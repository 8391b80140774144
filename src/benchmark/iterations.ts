// How often something is measured: iterations that warm up, until their times are steady, and iterations that count, until there are as
// many as asked for, the time is over, or their mean is known well enough. It knows nothing of what an iteration does.

import type { Settings } from "./results.ts";
import { precisionOf } from "./statistics/describe.ts";
import { mannWhitney } from "./statistics/rank.ts";
import { SteadyDetector } from "./statistics/steady.ts";
import { median } from "./statistics/summary.ts";

export interface Timed {
  readonly latencyMs: number;
}

/** What was measured, in order. */
export interface Iterations<Sample extends Timed> {
  readonly samples: readonly Sample[];
  /** How many iterations came before, and whether their times, or the first that count, had become steady. */
  readonly warmup: { readonly iterations: number; readonly steady: boolean };
  /** What ended it. */
  readonly ended: "count" | "time" | "precision" | "signal";
}

export type IterationSettings = Pick<Settings, "iterations" | "time_s" | "precision" | "warmup">;

export interface IterationOptions {
  readonly signal?: AbortSignal | undefined;
  /** Called when it has warmed up, and what counts begins. */
  readonly onWarm?: (() => void) | undefined;
  /** Called between iterations with what is done of those that count, 0 to 1. */
  readonly onProgress?: ((share: number) => void) | undefined;
}

/** Fewer iterations never end it by their precision. */
export const iterationsForPrecision = 10;
/** Whether the precision is reached is asked again when there are so many times as many iterations: the answer takes a while. */
const growth = 1.1;
/** However long it takes, no more are measured. */
const iterationsMax = 1_000_000;
/** Warming up ends here, steady or not, but not before the least number of iterations. */
const warmupBounds = { ms: 10_000, iterationsMin: 3 } as const;
/** Whether a number of iterations that was given warmed up is seen from those that count: whether the first are slower than the next. */
const settling = { first: 5, next: 55, slower: 1.02, pValue: 0.01 } as const;

/**
 * Measures until it is enough, or the signal ends it: what was measured until then is kept.
 * @throws what an iteration throws, if not because of the signal.
 */
export async function takeIterations<Sample extends Timed>(
  iterate: () => Promise<Sample>,
  settings: IterationSettings,
  options: IterationOptions = {},
): Promise<Iterations<Sample>> {
  const { signal } = options;
  const samples: Sample[] = [];
  const warmupMs: number[] = [];
  let ended: Iterations<Sample>["ended"];
  let steady = false;
  try {
    steady = await warmUp(iterate, settings.warmup, warmupMs, signal);
    options.onWarm?.();
    ended = await measure(iterate, settings, samples, options);
  } catch (error) {
    if (!signal?.aborted) throw error;
    ended = "signal";
  }
  if (settings.warmup !== null) steady = !isSettling(samples.map(({ latencyMs }) => latencyMs));
  return { samples, warmup: { iterations: warmupMs.length, steady }, ended };
}

/** @returns whether the times have become steady. */
async function warmUp(
  iterate: () => Promise<Timed>,
  count: number | null,
  timesMs: number[],
  signal: AbortSignal | undefined,
): Promise<boolean> {
  const detector = new SteadyDetector();
  const beganMs = performance.now();
  const isOver = () => {
    if (count !== null) return timesMs.length >= count;
    if (detector.over) return true;
    return timesMs.length >= warmupBounds.iterationsMin && performance.now() - beganMs >= warmupBounds.ms;
  };
  while (!isOver()) {
    signal?.throwIfAborted();
    const { latencyMs } = await iterate();
    timesMs.push(latencyMs);
    detector.add(latencyMs);
  }
  return detector.steady;
}

async function measure<Sample extends Timed>(
  iterate: () => Promise<Sample>,
  { iterations, time_s, precision }: IterationSettings,
  samples: Sample[],
  { signal, onProgress }: IterationOptions,
): Promise<"count" | "time" | "precision"> {
  const countMax = iterations ?? iterationsMax;
  const limitMs = (time_s ?? Number.POSITIVE_INFINITY) * 1000;
  const beganMs = performance.now();
  let checkAt = iterationsForPrecision;
  /** How many it will take, as the last check says. */
  let expected = Number.POSITIVE_INFINITY;
  for (;;) {
    signal?.throwIfAborted();
    samples.push(await iterate());
    const elapsedMs = performance.now() - beganMs;
    if (samples.length >= countMax) return "count";
    if (elapsedMs >= limitMs) return "time";
    if (iterations === null && precision > 0 && samples.length >= checkAt) {
      const reached = precisionOf(samples.map(({ latencyMs }) => latencyMs));
      if (reached <= precision) return "precision";
      checkAt = Math.ceil(samples.length * growth);
      // Four times as many halve an interval.
      expected = samples.length * (reached / precision) ** 2;
    }
    onProgress?.(Math.min(1, Math.max(samples.length / Math.min(countMax, expected), elapsedMs / limitMs)));
  }
}

function isSettling(timesMs: readonly number[]): boolean {
  const first = timesMs.slice(0, settling.first);
  const next = timesMs.slice(settling.first, settling.first + settling.next);
  if (next.length < settling.first || median(first) <= settling.slower * median(next)) return false;
  return mannWhitney(first, next).pValue < settling.pValue;
}
