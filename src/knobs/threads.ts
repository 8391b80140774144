// Threads of a model: how many compute, and on which CPUs, as it is loaded and while it runs.

import { checkInteger, checkKeys, describe } from "../check.ts";
import { cpu, usableCpus } from "../engine/cpu.ts";
import { OptionError } from "../errors.ts";
import type { ModelParts } from "../loaded-model.ts";
import { retune } from "./retune.ts";

/** Threads that a model computes with, as options of `loadModel`. */
export interface ThreadOptions {
  /**
   * Threads that compute, at most the CPUs this process may use. Default as `tinyai tune --model` found best for the model, else one
   * fewer, which leaves a CPU to the rest of the program; all where there are one or two.
   */
  readonly count?: number | undefined;
  /** The CPU of each thread, in order; null, and threads beyond the list: where the system puts them. */
  readonly affinity?: readonly (number | null)[] | undefined;
}

/** Threads that compute if nobody says how many, 1 to 64. @param cores the machine's; others are for tests. */
export function defaultThreads(cores = cpu.cores): number {
  return Math.min(cores > 2 ? cores - 1 : cores, 64);
}

/** @throws {OptionError} if they are more than there are CPUs, or a CPU is none that the process may use. */
export function checkThreads(threads: ThreadOptions = {}) {
  checkKeys("threads", threads, ["count", "affinity"]);
  const threadCount = threads.count === undefined ? defaultThreads() : checkCount("threads.count", threads.count);
  return { threadCount, affinity: checkAffinity(threads.affinity, threadCount) };
}

/**
 * Kernels then work as was measured best for as many threads.
 * @throws {OptionError} as `checkThreads`. @throws {MemoryLimitError} if memory's limit leaves none for them.
 */
export async function setThreadCount(parts: ModelParts, count: unknown): Promise<void> {
  const { engine, limits } = parts;
  const threadCount = checkCount("count", count);
  const more = threadCount - engine.threadsMax;
  if (more > 0) {
    const remedy = "use fewer threads, or raise the limit (setMemoryLimit)";
    limits.requireMemory(`what ${more} more threads need`, more * engine.usage.threadBytes, remedy);
  }
  await retune(parts, { threadCount });
}

/** @throws {OptionError} if there is no such thread, or the process may not use that CPU. */
export async function setThreadAffinity({ engine }: ModelParts, thread: unknown, core: unknown): Promise<void> {
  const index = checkInteger("thread", thread, 0, engine.threadCount - 1);
  const own = core === null ? undefined : checkCore("core", core);
  // Beside those that hold by then: one that is refused meanwhile is not asked for again.
  await engine.configureBy(({ affinity: before }) => {
    const affinity = Array.from({ length: Math.max(before.length, index + 1) }, (_, each) => before[each]);
    affinity[index] = own;
    return { affinity };
  });
}

function checkCount(option: string, count: unknown): number {
  return checkInteger(option, count, 1, Math.min(cpu.cores, 64));
}

function checkAffinity(affinity: unknown, threadCount: number): readonly (number | undefined)[] {
  if (affinity === undefined) return [];
  if (!Array.isArray(affinity)) {
    throw new OptionError("threads.affinity", `is ${describe(affinity)}; a list of CPU numbers is expected`);
  }
  if (affinity.length > threadCount) {
    const problem = `names ${affinity.length} CPUs for ${threadCount} threads; name at most one for each`;
    throw new OptionError("threads.affinity", problem);
  }
  return affinity.map((core: unknown, index) =>
    core === null ? undefined : checkCore(`threads.affinity[${index}]`, core),
  );
}

function checkCore(option: string, core: unknown): number {
  const checked = checkInteger(option, core, 0, 1023);
  if (process.platform === "darwin") {
    throw new OptionError(option, `is ${checked}, but macOS has no call that keeps a thread on a CPU; leave it out`);
  }
  const usable = usableCpus();
  if (usable && !usable.includes(checked)) {
    throw new OptionError(option, `is ${checked}; this process may use the CPUs ${usable.join(", ")}`);
  }
  return checked;
}
