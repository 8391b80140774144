// What is used of the machine while something is measured: processors by this process and by all, and GPUs. It looks a few times a
// second, for some 10 µs each time, so that it is not seen in what is measured.

import { cpuCapacity, usableCpus } from "../engine/cpu.ts";
import type { GpuMeter } from "../engine/nvml.ts";
import { type CpuTicks, readCpuTicks } from "./machine/cpu-ticks.ts";
import type { Utilization } from "./results.ts";
import { statisticsOf } from "./statistics/describe.ts";
import { seededRandom } from "./statistics/random.ts";

/** The system counts time in hundredths of a second: shorter periods say less. */
export const utilizationPeriodMs = 250;

export interface UtilizationWatch {
  /** Ends it. @returns the figures of what was looked at. */
  stop(): Utilization;
}

export interface UtilizationOptions {
  /** Where there are any; it is not closed. */
  readonly gpus?: GpuMeter | undefined;
  /** Draws the resamples of the intervals. */
  readonly seed?: number;
  /** Between two looks. Default `utilizationPeriodMs`. */
  readonly periodMs?: number;
}

/** What was counted until some moment. */
export interface Look {
  readonly atMs: number;
  /** CPU time of this process. */
  readonly processMs: number;
  /** Of the CPUs that it may use; null: not told. */
  readonly machine: Pick<CpuTicks, "busy" | "total"> | null;
  /** How busy GPUs are at that moment, percent, in the mean of those that tell. */
  readonly gpu?: number;
}

/** Watches until it is stopped. */
export function watchUtilization(options: UtilizationOptions = {}): UtilizationWatch {
  const { gpus, seed, periodMs = utilizationPeriodMs } = options;
  const numbers = usableCpus();
  const looks = [look(numbers, gpus)];
  const timer = setInterval(() => looks.push(look(numbers, gpus)), periodMs);
  timer.unref();
  let found: Utilization | undefined;
  return {
    stop() {
      clearInterval(timer);
      if (found) return found;
      const last = looks.at(-1)?.atMs ?? 0;
      // What is left of a period says less than a whole one, but more than nothing.
      if (looks.length === 1 || performance.now() - last >= periodMs / 2) looks.push(look(numbers, gpus));
      found = utilizationOf(looks, periodMs, seed);
      return found;
    },
  };
}

function look(numbers: readonly number[] | undefined, gpus: GpuMeter | undefined): Look {
  const { user, system } = process.cpuUsage();
  const shares = gpus?.read().flatMap(({ utilization }) => utilization ?? []) ?? [];
  return {
    atMs: performance.now(),
    processMs: (user + system) / 1000,
    machine: readCpuTicks(numbers),
    ...(shares.length > 0 && { gpu: shares.reduce((sum, share) => sum + share, 0) / shares.length }),
  };
}

/**
 * The figures of looks that followed each other; two at least. A period that ended late, as when the program was held up, counts as so
 * many as it lasted: the mean is that of the whole time.
 * @param capacity CPUs that the process may use. Default those of this one.
 */
export function utilizationOf(
  looks: readonly Look[],
  periodMs: number,
  seed?: number,
  capacity = cpuCapacity(),
): Utilization {
  const taken = { cpu: [] as number[], machine: [] as number[], gpu: [] as number[] };
  for (const [index, now] of looks.entries()) {
    const before = looks[index - 1];
    if (!before) continue;
    const ms = now.atMs - before.atMs;
    const periods = Math.max(1, Math.round(ms / periodMs));
    const add = (samples: number[], share: number) => {
      for (let period = 0; period < periods; period++) samples.push(share);
    };
    add(taken.cpu, percent(now.processMs - before.processMs, ms * capacity));
    // Between two ticks of the system's clock nothing is known.
    const total = now.machine && before.machine ? now.machine.total - before.machine.total : 0;
    if (now.machine && before.machine && total > 0) {
      add(taken.machine, percent(now.machine.busy - before.machine.busy, total));
    }
    if (now.gpu !== undefined) taken.gpu.push(now.gpu);
  }
  const figures = Object.entries(taken).filter(([, samples]) => samples.length > 0);
  return Object.fromEntries(figures.map(([name, samples]) => [name, statisticsOf(samples, seededRandom(seed))]));
}

function percent(part: number, whole: number): number {
  return whole > 0 ? Math.min(100, Math.max(0, (100 * part) / whole)) : 0;
}
