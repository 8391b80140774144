// Limits of what a model may use, in percent of what the process may use of the machine: CPU time, to which the engine's threads are held
// (zig/throttle.zig), and memory, past which nothing begins.

import { totalmem } from "node:os";
import { checkKeys, checkNumber } from "../check.ts";
import { groupLimits } from "../engine/cgroup.ts";
import { cpuCapacity } from "../engine/cpu.ts";
import type { Engine, EngineUsage } from "../engine/engine.ts";
import { MemoryLimitError } from "../errors.ts";
import type { ModelParts } from "../loaded-model.ts";
import { threadsMax } from "../plan/layout.ts";

/** A hundredth of a percent of a large machine is little enough for any model. */
const percentMin = 0.01;

/** Limits as options of `loadModel`. */
export interface LimitOptions {
  /**
   * Percent of the CPU time of all CPUs that the process may use, 0.01 to 100: the threads that compute use no more of it together. They
   * sleep for some milliseconds now and then, so that tokens come evenly; the result is the same. Default 100: no limit.
   */
  readonly cpuPercent?: number | undefined;
  /**
   * Percent of the memory that the process may use, 0.01 to 100: the machine's, or less in a control group. What would make the process
   * take more is refused before it does, with a MemoryLimitError: a model, more threads, a request's keys and values, a simulation of
   * caches. Keys and values that are only kept make room for a request's. Default 100: no limit but what is free.
   */
  readonly memoryPercent?: number | undefined;
}

/** Limits that hold, in percent; 100: no limit. */
export interface Limits {
  readonly cpuPercent: number;
  readonly memoryPercent: number;
}

/** @throws {OptionError} if a limit is out of its bounds. */
export function checkLimits(limits: LimitOptions = {}): Limits {
  checkKeys("limits", limits, ["cpuPercent", "memoryPercent"]);
  const { cpuPercent = 100, memoryPercent = 100 } = limits;
  return {
    cpuPercent: checkPercent("limits.cpuPercent", cpuPercent),
    memoryPercent: checkPercent("limits.memoryPercent", memoryPercent),
  };
}

/** Bytes of memory that the process may use: the machine's, or less in a control group. */
export function usableMemory(): number {
  return Math.min(totalmem(), groupLimits().memoryBytes);
}

/** What a limit of memory leaves to the process, in bytes: Infinity for no limit, and below 0 where it takes more already. */
export function memoryLeft(memoryPercent: number): number {
  if (memoryPercent === 100) return Number.POSITIVE_INFINITY;
  return (memoryPercent / 100) * usableMemory() - process.memoryUsage.rss();
}

/** A limit as the engine has it: percent of one CPU's time, 0 for none. */
export function engineCpuPercent(cpuPercent: number): number {
  if (cpuPercent === 100) return 0;
  // More than all threads together can use limits nothing, however many CPUs there are.
  return Math.min(100 * threadsMax, Math.max(1, Math.round(cpuPercent * cpuCapacity())));
}

/** Limits that change nothing, and why. */
export function limitsWithoutEffect({ engine }: ModelParts): { readonly knob: string; readonly reason: string }[] {
  const { threadCount, settings } = engine;
  if (settings.cpuPercent === 0 || settings.cpuPercent < 100 * threadCount) return [];
  const threads = threadCount === 1 ? "one thread uses" : `${threadCount} threads use`;
  const most = Math.round((100 * threadCount) / cpuCapacity());
  return [
    { knob: "limits.cpuPercent", reason: `${threads} at most ${most} % of the CPU time that the process may use` },
  ];
}

/** The limits of a loaded model. */
export class ModelLimits implements Limits {
  readonly #engine: Engine;
  #cpuPercent: number;
  #memoryPercent: number;

  /** @param limits those that the engine was made with. */
  constructor(engine: Engine, { cpuPercent, memoryPercent }: Limits) {
    this.#engine = engine;
    engine.requireMemory = (what, bytes, remedy) => this.requireMemory(what, bytes, remedy);
    this.#cpuPercent = cpuPercent;
    this.#memoryPercent = memoryPercent;
    if (memoryPercent !== 100) this.setMemory(memoryPercent);
  }

  get cpuPercent(): number {
    return this.#cpuPercent;
  }

  get memoryPercent(): number {
    return this.#memoryPercent;
  }

  async setCpu(percent: unknown): Promise<void> {
    const checked = checkPercent("percent", percent);
    await this.#engine.configure({ cpuPercent: engineCpuPercent(checked) });
    this.#cpuPercent = checked;
  }

  setMemory(percent: unknown): void {
    this.#memoryPercent = checkPercent("percent", percent);
    // What the rest of the process takes changes, so it is looked at again before each request.
    this.#engine.beforeSubmit = this.#memoryPercent === 100 ? undefined : () => this.#limitKv();
    this.#limitKv();
  }

  /** @throws {MemoryLimitError} if the limit does not leave `bytes` for `what`. */
  requireMemory(what: string, bytes: number, remedy: string): void {
    if (this.#memoryPercent === 100) return;
    const left = this.#left(this.#engine.usage);
    if (bytes > left) throw new MemoryLimitError(what, bytes, Math.max(0, left), remedy);
  }

  /** Keys and values may take what they have and what is left. */
  #limitKv(): void {
    const { usage } = this.#engine;
    this.#engine.limitKv(Math.max(0, usage.kvBytes + this.#left(usage)));
  }

  /** What is left beside all that the engine has set aside, in memory or not; keys and values count as far as they are. */
  #left({ plannedBytes, residentBytes }: EngineUsage): number {
    return memoryLeft(this.#memoryPercent) - (plannedBytes - residentBytes);
  }
}

function checkPercent(option: string, percent: unknown): number {
  return checkNumber(option, percent, percentMin, 100);
}
