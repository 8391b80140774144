// How much faster the library's own threads make its own work, by their number: the product of a matrix in 4 bits with a prompt's
// activations, as models compute it, on 1 to n threads in turns, and Amdahl's law fitted to that.

import { cpu, cpuCapacity } from "../../engine/cpu.ts";
import type { Library } from "../../engine/library.ts";
import { type Measurement, openStand, type Stand } from "../../engine/stand.ts";
import type { Part, PartOptions } from "../part.ts";
import type { ThreadFigures, ThreadPoint } from "../results.ts";
import { eventLoopTurn, takeRounds } from "../rounds.ts";
import { interval } from "../statistics/bootstrap.ts";
import { samplesMin, statisticsOf } from "../statistics/describe.ts";
import { seededRandom } from "../statistics/random.ts";
import { fitAmdahl, speedupsOf } from "./amdahl.ts";

export interface ThreadOptions extends PartOptions {
  readonly library: Library;
  /** Index of the instruction-set level in `library.levels`. */
  readonly level: number;
  /** The most threads; undefined: as many as CPUs may be used. */
  readonly threads?: number | undefined;
}

/** Its weights take 2.4 MB: more than a first-level cache, less than what threads share. */
const work = {
  kernel: "matmul",
  format: "Q4_0",
  rows: 2048,
  columns: 2048,
  tokens: 128,
} as const satisfies Measurement;
const operations = 2 * work.rows * work.columns * work.tokens;
/** The event loop has a turn after so long, where one run is not longer. */
const turnMs = 20;
/** The library's own bound. */
const threadsMax = 64;

/** @throws {EngineError} if memory or threads are refused. */
export async function measureThreads(options: ThreadOptions): Promise<Part<ThreadFigures>> {
  const { library, level, seed, signal } = options;
  const counts = threadCounts(Math.min(threadsMax, options.threads ?? cpu.cores));
  const stands: Stand[] = [];
  try {
    for (const threadCount of counts) {
      stands.push(openStand(library, work, { level, threadCount }));
      await eventLoopTurn();
    }
    // Warms up: operands come into the caches, and clocks rise.
    for (const stand of stands) await rateOf(stand, turnMs, signal);
    const takes = stands.map((stand) => (sliceMs: number) => rateOf(stand, sliceMs, signal));
    const samples = await takeRounds(takes, { ...options, random: seededRandom(seed) });
    if (samples[0]?.length === 0) return { methodology: [], warnings: [] };
    const about = {
      kernel: `product of a ${work.rows} × ${work.columns} matrix (${work.format}) with the activations of ${work.tokens} tokens`,
      simd: library.levels[level]?.name ?? "",
    };
    return { figures: { ...about, ...curveOf(counts, samples, seed) }, methodology, warnings: warningsOf(counts) };
  } finally {
    for (const stand of stands) stand.close();
  }
}

const methodology = [
  "Threads were measured by the library's own: a product that models compute, on each number of threads in turns in a drawn order; a sample is a slice of time. A speed-up is the ratio of mean rates, and its interval that of rounds drawn again and again.",
  "Amdahl's law was fitted to the speed-ups by least squares of the times, 1 / speed-up: the serial part holds what limits more threads, be it waiting, memory, or cores that share their units.",
];

/** 1 to `most`: each up to 8, then by steps of a third to a half. */
export function threadCounts(most: number): number[] {
  const usual = [1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32, 48, 64];
  return [...new Set([...usual.filter((count) => count < most), most])];
}

/** 10^9 operations a second, of runs that take so long together. */
async function rateOf(stand: Stand, sliceMs: number, signal: AbortSignal | undefined): Promise<number> {
  let runs = 0;
  let spentMs = 0;
  let count = 1;
  do {
    const ms = stand.run(count) / 1e6;
    runs += count;
    spentMs += ms;
    count = Math.max(1, Math.min(count * 2, Math.floor((turnMs * count) / ms)));
    await eventLoopTurn();
  } while (spentMs < sliceMs && !signal?.aborted);
  return (runs * operations) / spentMs / 1e6;
}

/** @param samples of each number of threads, by round. */
export function curveOf(
  counts: readonly number[],
  samples: readonly (readonly number[])[],
  seed: number,
): Pick<ThreadFigures, "curve" | "amdahl"> {
  const rounds = Array.from({ length: samples[0]?.length ?? 0 }, (_, round) => round);
  const over =
    <T>(of: (speedups: readonly number[]) => T) =>
    (drawn: ArrayLike<number>): T =>
      of(speedupsOf(samples, Array.from(drawn)));
  // Rounds are drawn, not samples: those of one round were measured beside each other.
  const intervalOf = (of: (speedups: readonly number[]) => number) =>
    rounds.length < samplesMin
      ? {}
      : { interval: interval(rounds, over(of), { random: seededRandom(seed), block: 1 }) };
  const speedups = speedupsOf(samples, rounds);
  const curve = counts.map((threads, place): ThreadPoint => {
    const speedup = speedups[place] ?? Number.NaN;
    const { interval: speedup_interval } = threads === 1 ? {} : intervalOf((drawn) => drawn[place] ?? Number.NaN);
    return {
      threads,
      rate: statisticsOf(samples[place] ?? [], seededRandom(seed)),
      speedup,
      ...(speedup_interval && { speedup_interval }),
      efficiency: speedup / threads,
    };
  });
  if (counts.length < 2) return { curve };
  const fit = fitAmdahl(counts, speedups);
  const { interval: ofSerial } = intervalOf((drawn) => fitAmdahl(counts, drawn).serial);
  return {
    curve,
    amdahl: {
      serial: fit.serial,
      ...(ofSerial && { interval: ofSerial }),
      speedup_max: fit.serial > 0 ? 1 / fit.serial : null,
      residual: fit.residual,
    },
  };
}

function warningsOf(counts: readonly number[]): string[] {
  const warnings: string[] = [];
  const most = counts.at(-1) ?? 1;
  const capacity = cpuCapacity();
  if (counts.length < 2)
    warnings.push("Only one thread was measured, for the process may use one CPU: nothing can be said of scaling.");
  if (capacity < most) {
    warnings.push(`The process may use ${capacity} CPUs' time, so that ${most} threads wait for it in turns.`);
  }
  if (cpu.physicalCores < most) {
    warnings.push(`${most} threads run on ${cpu.physicalCores} cores, some of which run two: those share their units.`);
  }
  return warnings;
}
