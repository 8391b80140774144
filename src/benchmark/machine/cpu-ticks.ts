// What CPUs did since the machine was started, as the system counts it.

import { cpus } from "node:os";
import { readText } from "./system-files.ts";

/** Of some CPUs together, in ticks of any length. */
export interface CpuTicks {
  readonly cpus: number;
  readonly busy: number;
  /** Given to other virtual machines, and not part of `busy`; null where the system does not count it. */
  readonly stolen: number | null;
  readonly total: number;
}

/**
 * Reads them.
 * @param numbers of the CPUs that count; undefined: all.
 * @param root where the system's files begin; another than "/" is for tests.
 * @returns null where the system does not tell.
 */
export function readCpuTicks(numbers: readonly number[] | undefined, root = "/"): CpuTicks | null {
  return root === "/" && process.platform !== "linux" ? ticksOfOthers() : ticksOfLinux(numbers, root);
}

function ticksOfLinux(numbers: readonly number[] | undefined, root: string): CpuTicks | null {
  let [count, busy, stolen, total] = [0, 0, 0, 0];
  for (const [, number, counts = ""] of readText(root, "proc/stat").matchAll(/^cpu(\d+) (.*)$/gm)) {
    if (numbers && !numbers.includes(Number(number))) continue;
    // What guests use is part of `user` and `nice`.
    const [user = 0, nice = 0, system = 0, idle = 0, wait = 0, interrupts = 0, soft = 0, steal = 0] = counts
      .split(" ")
      .map(Number);
    count++;
    busy += user + nice + system + interrupts + soft;
    stolen += steal;
    total += user + nice + system + idle + wait + interrupts + soft + steal;
  }
  return total > 0 ? { cpus: count, busy, stolen, total } : null;
}

/** Where there is no /proc: all CPUs, and nothing of what was stolen. */
function ticksOfOthers(): CpuTicks | null {
  let [busy, total] = [0, 0];
  const all = cpus();
  for (const { times } of all) {
    busy += times.user + times.nice + times.sys + times.irq;
    total += times.user + times.nice + times.sys + times.irq + times.idle;
  }
  return total > 0 ? { cpus: all.length, busy, stolen: null, total } : null;
}
