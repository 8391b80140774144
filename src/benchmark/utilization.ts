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
  const meter = new UtilizationMeter(options);
  meter.start();
  return {
    stop() {
      meter.stop();
      return meter.figures();
    },
  };
}

/** Watches again and again, and tells of all these times together. */
export class UtilizationMeter {
  readonly #gpus: GpuMeter | undefined;
  readonly #seed: number | undefined;
  readonly #periodMs: number;
  readonly #numbers = usableCpus();
  /** Of each time, in their order. */
  readonly #times: Look[][] = [];
  #timer: ReturnType<typeof setInterval> | undefined;

  constructor({ gpus, seed, periodMs = utilizationPeriodMs }: UtilizationOptions = {}) {
    this.#gpus = gpus;
    this.#seed = seed;
    this.#periodMs = periodMs;
  }

  start(): void {
    this.stop();
    const looks = [look(this.#numbers, this.#gpus)];
    this.#times.push(looks);
    this.#timer = setInterval(() => looks.push(look(this.#numbers, this.#gpus)), this.#periodMs);
    this.#timer.unref();
  }

  /** Does nothing if it does not watch. */
  stop(): void {
    const looks = this.#times.at(-1);
    if (this.#timer === undefined || !looks) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
    const last = looks.at(-1)?.atMs ?? 0;
    // What is left of a period says less than a whole one, but more than nothing.
    if (looks.length === 1 || performance.now() - last >= this.#periodMs / 2)
      looks.push(look(this.#numbers, this.#gpus));
  }

  /** Of what was looked at. */
  figures(): Utilization {
    return utilizationOf(this.#times, this.#periodMs, this.#seed);
  }
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
 * The figures of times of which each has looks that followed each other; two at least. A period that ended late, as when the program was
 * held up, counts as so many as it lasted: the mean is that of the whole time.
 * @param capacity CPUs that the process may use. Default those of this one.
 */
export function utilizationOf(
  times: readonly (readonly Look[])[],
  periodMs: number,
  seed?: number,
  capacity = cpuCapacity(),
): Utilization {
  const taken = { cpu: [] as number[], machine: [] as number[], gpu: [] as number[] };
  for (const { ms, processMs, machine, gpu } of periodsOf(times, periodMs)) {
    const count = Math.max(1, Math.round(ms / periodMs));
    const add = (samples: number[], share: number) => {
      for (let period = 0; period < count; period++) samples.push(share);
    };
    add(taken.cpu, percent(processMs, ms * capacity));
    // Between two ticks of the system's clock nothing is known.
    if (machine.total > 0) add(taken.machine, percent(machine.busy, machine.total));
    if (gpu !== undefined) taken.gpu.push(gpu);
  }
  const figures = Object.entries(taken).filter(([, samples]) => samples.length > 0);
  return Object.fromEntries(figures.map(([name, samples]) => [name, statisticsOf(samples, seededRandom(seed))]));
}

/** What was counted from one look to the next. */
interface Period {
  readonly ms: number;
  readonly processMs: number;
  readonly machine: { readonly busy: number; readonly total: number };
  readonly gpu: number | undefined;
}

/** Periods of all times; short ones, of times that were soon over, are put together until they are half as long as others. */
function periodsOf(times: readonly (readonly Look[])[], periodMs: number): readonly Period[] {
  const periods: Period[] = [];
  let pending: Period | undefined;
  for (const looks of times) {
    for (const [index, now] of looks.entries()) {
      const before = looks[index - 1];
      if (!before) continue;
      const told = now.machine !== null && before.machine !== null;
      pending = {
        ms: (pending?.ms ?? 0) + now.atMs - before.atMs,
        processMs: (pending?.processMs ?? 0) + now.processMs - before.processMs,
        machine: {
          busy: (pending?.machine.busy ?? 0) + (told ? (now.machine?.busy ?? 0) - (before.machine?.busy ?? 0) : 0),
          total: (pending?.machine.total ?? 0) + (told ? (now.machine?.total ?? 0) - (before.machine?.total ?? 0) : 0),
        },
        gpu: now.gpu,
      };
      if (pending.ms < periodMs / 2) continue;
      periods.push(pending);
      pending = undefined;
    }
  }
  return pending && periods.length === 0 ? [pending] : periods;
}

function percent(part: number, whole: number): number {
  return whole > 0 ? Math.min(100, Math.max(0, (100 * part) / whole)) : 0;
}
