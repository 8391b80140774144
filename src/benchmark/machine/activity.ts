// What a machine does, counted by Linux since it was started: two readings and what lies between them. Elsewhere only what CPUs do is
// counted. It reads some files and judges nothing.

import { join, relative } from "node:path";
import { groupsOf } from "../../engine/cgroup.ts";
import { usableCpus } from "../../engine/cpu.ts";
import { type CpuTicks, readCpuTicks } from "./cpu-ticks.ts";
import { listFolder, readFields, readNumber, readText } from "./system-files.ts";

/** Counts as they are now; null: the system does not tell. */
export interface Activity {
  readonly atMs: number;
  /** Of the CPUs that the process may use. */
  readonly cpu: CpuTicks | null;
  /** CPU time of this process, in ms. */
  readonly ownMs: number;
  /** CPU time of other processes, in ms. */
  readonly processes: ReadonlyMap<number, ProcessTime>;
  /** Pages that were written to swap space or read from it. */
  readonly swappedPages: number | null;
  /** Bytes sent and received, but not within the machine. */
  readonly networkBytes: number | null;
  /** Of the control groups that this process is in. */
  readonly throttled: Throttling | null;
  /** How often CPUs slowed down since they were too hot. */
  readonly thermalEvents: number | null;
}

export interface ProcessTime {
  readonly name: string;
  /** When it was started: another one may have its number later. */
  readonly started: string;
  readonly ms: number;
}

export interface Throttling {
  /** Periods in which the groups were held up. */
  readonly periods: number;
  readonly ms: number;
}

export interface ActivityOptions {
  /** Where the system's files begin; another than "/" is for tests. */
  readonly root?: string;
  /** CPUs that count; default those that the process may use. */
  readonly cpus?: readonly number[] | undefined;
  /** CPU time of this process, in ms; another than its own is for tests. */
  readonly ownMs?: number;
  readonly atMs?: number;
}

/** Linux counts the times of processes in hundredths of a second for programs, on every machine that TinyAI runs on. */
const processTickMs = 10;

/** Reads what is counted: some files, and one for every process. */
export function readActivity(options: ActivityOptions = {}): Activity {
  const { root = "/" } = options;
  const { user, system } = process.cpuUsage();
  return {
    atMs: options.atMs ?? performance.now(),
    cpu: readCpuTicks(options.cpus ?? usableCpus(), root),
    ownMs: options.ownMs ?? (user + system) / 1000,
    processes: readProcesses(root),
    swappedPages: readSwapped(root),
    networkBytes: readNetwork(root),
    throttled: readThrottling(root),
    thermalEvents: readThermalEvents(root),
  };
}

function readProcesses(root: string): Map<number, ProcessTime> {
  const processes = new Map<number, ProcessTime>();
  for (const entry of listFolder(root, "proc")) {
    const number = Number(entry);
    if (!Number.isInteger(number) || (root === "/" && number === process.pid)) continue;
    // A name may hold anything, brackets too.
    const [, name, counts = ""] = /^\d+ \((.*)\) (.*)$/s.exec(readText(root, `proc/${entry}/stat`)) ?? [];
    if (name === undefined) continue; // It has ended.
    const fields = counts.split(" ");
    const started = fields[19] ?? "";
    processes.set(number, { name, started, ms: (Number(fields[11]) + Number(fields[12])) * processTickMs });
  }
  return processes;
}

function readSwapped(root: string): number | null {
  const fields = readFields(root, "proc/vmstat");
  const [read, written] = [fields.get("pswpin"), fields.get("pswpout")];
  return read === undefined || written === undefined ? null : read + written;
}

function readNetwork(root: string): number | null {
  const text = readText(root, "proc/net/dev");
  if (text === "") return null;
  let bytes = 0;
  for (const [, name, counts = ""] of text.matchAll(/^\s*([^\s:]+):\s*(.*)$/gm)) {
    const fields = counts.trim().split(/\s+/).map(Number);
    if (name !== "lo") bytes += (fields[0] ?? 0) + (fields[8] ?? 0);
  }
  return bytes;
}

function readThrottling(root: string): Throttling | null {
  let [groups, periods, ms] = [0, 0, 0];
  for (const { controller, folder } of groupsOf(root)) {
    if (controller !== "" && controller !== "cpu") continue;
    const fields = readFields(root, join(relative(root, folder), "cpu.stat"));
    const throttled = fields.get("nr_throttled");
    if (throttled === undefined) continue;
    groups++;
    periods += throttled;
    // Microseconds in version 2, nanoseconds in version 1.
    ms += (fields.get("throttled_usec") ?? 0) / 1e3 + (fields.get("throttled_time") ?? 0) / 1e6;
  }
  return groups > 0 ? { periods, ms } : null;
}

function readThermalEvents(root: string): number | null {
  const counts = listFolder(root, "sys/devices/system/cpu")
    .filter((name) => /^cpu\d+$/.test(name))
    .flatMap((name) => [
      readNumber(root, `sys/devices/system/cpu/${name}/thermal_throttle/core_throttle_count`),
      readNumber(root, `sys/devices/system/cpu/${name}/thermal_throttle/package_throttle_count`),
    ])
    .filter((count) => count !== null);
  return counts.length > 0 ? counts.reduce((sum, count) => sum + count, 0) : null;
}

/** What happened between two readings; null: the system does not tell. */
export interface Meanwhile {
  readonly seconds: number;
  /** The part of the CPUs' time that others had, 0 to 1. */
  readonly foreign: number | null;
  readonly cpus: number;
  /** Other processes, busiest first, and how much of one CPU each had. */
  readonly busiest: readonly { readonly name: string; readonly share: number }[];
  /** The part of the CPUs' time that went to other virtual machines, 0 to 1. */
  readonly stolen: number | null;
  /** Since the machine was started, some was. */
  readonly everStolen: boolean;
  readonly swappedPages: number | null;
  /** Bytes/s. */
  readonly network: number | null;
  readonly throttled: Throttling | null;
  readonly thermalEvents: number | null;
}

/** Processes that had less of a CPU are not named. */
const namedShareMin = 0.02;
/** Linux counts in hundredths of a second: shares of less time than this, in ms, say nothing. */
const shareMsMin = 100;

export function between(before: Activity, after: Activity): Meanwhile {
  const ms = Math.max(after.atMs - before.atMs, 1e-3);
  const count = after.cpu?.cpus ?? 0;
  const long = ms >= shareMsMin;
  const total = long && before.cpu && after.cpu ? after.cpu.total - before.cpu.total : 0;
  const part = (first: number | null | undefined, second: number | null | undefined): number | null =>
    typeof first === "number" && typeof second === "number" && total > 0 ? (second - first) / total : null;
  const busy = part(before.cpu?.busy, after.cpu?.busy);
  // Some kernels take back what they counted.
  const taken = part(before.cpu?.stolen, after.cpu?.stolen);
  const stolen = taken === null ? null : Math.max(0, taken);
  const own = (after.ownMs - before.ownMs) / (ms * count);
  const difference = (first: number | null, second: number | null): number | null =>
    first === null || second === null ? null : second - first;
  const bytes = difference(before.networkBytes, after.networkBytes);
  const busiest = [...after.processes]
    .map(([number, { name, started, ms: now }]) => {
      const then = before.processes.get(number);
      return { name, share: (now - (then?.started === started ? then.ms : 0)) / ms };
    })
    .filter(({ share }) => share >= namedShareMin)
    .sort((a, b) => b.share - a.share);
  return {
    seconds: ms / 1000,
    foreign: busy === null ? null : Math.min(1, Math.max(0, busy - own)),
    cpus: count,
    busiest,
    stolen,
    everStolen: (after.cpu?.stolen ?? 0) > 0,
    swappedPages: difference(before.swappedPages, after.swappedPages),
    network: bytes === null || !long ? null : (bytes * 1000) / ms,
    throttled:
      before.throttled && after.throttled
        ? {
            periods: after.throttled.periods - before.throttled.periods,
            ms: after.throttled.ms - before.throttled.ms,
          }
        : null,
    thermalEvents: difference(before.thermalEvents, after.thermalEvents),
  };
}
