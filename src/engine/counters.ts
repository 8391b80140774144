// The CPU's own counters over the engine's threads, as cache statistics; or in words why the system does not give them.

import { readFileSync } from "node:fs";
import type { CacheCounts, CacheGeometry, CacheStatistics } from "../../profiler/report.ts";
import type { Library, Pointer } from "./library.ts";

/** An event as perf_event_open names it. */
export interface CounterEvent {
  readonly type: number;
  readonly config: number;
}

const hardware = (config: number): CounterEvent => ({ type: 0, config });
const software = (config: number): CounterEvent => ({ type: 1, config });
/** Reads, or with `result` 1 those of them that missed. */
const cache = (which: number, result: number): CounterEvent => ({ type: 3, config: which | (result << 16) });

/** Events of a group are counted in the same time. One group's events fit the counters of every CPU of ten years. */
const groups = {
  core: {
    cycles: hardware(0),
    instructions: hardware(1),
    l1Reads: cache(0, 0),
    l1Misses: cache(0, 1),
  },
  outer: {
    lastLevelReads: cache(2, 0),
    lastLevelMisses: cache(2, 1),
    tlbMisses: cache(3, 1),
  },
} as const;

/** What the kernel itself counts, whatever the CPU: for tests of the way there. */
export const softwareEvents = {
  taskClockNs: software(1),
  pageFaults: software(2),
  contextSwitches: software(3),
  cpuMigrations: software(4),
} as const;

/** A group that is being counted over threads. */
export interface CounterGroup<Name extends string> {
  /** Sums over the threads since it was opened, scaled up to all of their time; null: the system does not have that event. */
  read(): { readonly counts: Readonly<Record<Name, number | null>>; readonly countedShare: number };
  close(): void;
}

/** The system's error number. */
export interface Refusal {
  readonly refused: number;
}

const readingWords = 10;

/** Counts `events` for threads by the system's ids; threads that begin later are not counted. */
export function openGroup<Name extends string>(
  { symbols }: Library,
  threadIds: readonly number[],
  events: Readonly<Record<Name, CounterEvent>>,
): CounterGroup<Name> | Refusal {
  const names = Object.keys(events) as Name[];
  const words = BigUint64Array.from(names.flatMap((name) => [BigInt(events[name].type), BigInt(events[name].config)]));
  const failure = new Uint32Array(1);
  const handle = symbols.tinyai_counters_open(
    Uint32Array.from(threadIds),
    threadIds.length,
    words,
    names.length,
    failure,
  );
  if (!handle || typeof handle === "bigint") return { refused: failure[0] ?? 0 };
  return groupOf(symbols, handle, names);
}

function groupOf<Name extends string>(
  symbols: Library["symbols"],
  handle: Pointer,
  names: readonly Name[],
): CounterGroup<Name> {
  const given = symbols.tinyai_counters_given(handle);
  let open = true;
  return {
    read() {
      if (!open) throw new RangeError("the counters are closed");
      const words = new BigUint64Array(readingWords);
      symbols.tinyai_counters_read(handle, words);
      const values = Array.from(words, Number);
      const counts = Object.fromEntries(
        names.map((name, index) => [name, given & (1 << index) ? (values[index] ?? 0) : null]),
      ) as Record<Name, number | null>;
      const [enabledNs = 0, runningNs = 0] = values.slice(8);
      return { counts, countedShare: enabledNs > 0 ? runningNs / enabledNs : 1 };
    },
    close() {
      if (open) symbols.tinyai_counters_close(handle);
      open = false;
    },
  };
}

/** Sums of the events; null: the CPU or the system does not have that one. */
export interface HardwareCounts {
  readonly cycles: number | null;
  readonly instructions: number | null;
  readonly l1Reads: number | null;
  readonly l1Misses: number | null;
  readonly lastLevelReads: number | null;
  readonly lastLevelMisses: number | null;
  readonly tlbMisses: number | null;
  /** The share of the threads' time in which the events were counted; the counts are scaled up from it. */
  readonly countedShare: number;
}

export interface HardwareCounters {
  read(): HardwareCounts;
  close(): void;
}

/** Counts from now on, or says why not. First-level reads and misses are there if it counts at all. */
export function openHardwareCounters(
  library: Library,
  threadIds: readonly number[],
): HardwareCounters | { readonly reason: string } {
  if (process.platform !== "linux") return { reason: "hardware counters can be read on Linux only" };
  if (threadIds.length === 0 || threadIds.includes(0)) return { reason: "the engine's threads have not begun" };
  const core = openGroup(library, threadIds, groups.core);
  if ("refused" in core) return { reason: reasonOf(core.refused) };
  const { l1Reads, l1Misses } = core.read().counts;
  if (l1Reads === null || l1Misses === null) {
    core.close();
    return { reason: "this CPU does not count reads and misses of its first-level cache" };
  }
  const opened = openGroup(library, threadIds, groups.outer);
  const outer = "refused" in opened ? undefined : opened;
  return {
    read() {
      const first = core.read();
      const second = outer?.read();
      const missing = { lastLevelReads: null, lastLevelMisses: null, tlbMisses: null };
      const countedShare = Math.min(first.countedShare, second?.countedShare ?? 1);
      return { ...first.counts, ...missing, ...second?.counts, countedShare };
    },
    close() {
      core.close();
      outer?.close();
    },
  };
}

/** A refusal in words. */
export function reasonOf(errorNumber: number): string {
  switch (errorNumber) {
    case 1: // EPERM
    case 13: // EACCES
      return `the system forbids hardware counters to this process${paranoid()}; sysctl kernel.perf_event_paranoid=2 allows them, in containers with the capability CAP_PERFMON`;
    case 2: // ENOENT
    case 19: // ENODEV
    case 95: // EOPNOTSUPP
      return "this machine shows no hardware counters: most virtual machines have none";
    case 3: // ESRCH
      return "a thread of the engine has ended";
    case 24: // EMFILE
      return "the process has too many open files for hardware counters (ulimit -n)";
    case 38: // ENOSYS
      return "this system has no perf_event_open";
    default:
      return `the system refused hardware counters (error ${errorNumber})`;
  }
}

function paranoid(): string {
  try {
    return ` (kernel.perf_event_paranoid is ${readFileSync("/proc/sys/kernel/perf_event_paranoid", "utf8").trim()})`;
  } catch {
    return "";
  }
}

/** What was counted over `steps` steps as cache statistics. Counters do not tell ops apart, nor one step from another. */
export function hardwareCacheStatistics(
  counts: HardwareCounts,
  geometry: readonly CacheGeometry[],
  steps: number,
): CacheStatistics {
  const { l1Reads, l1Misses, lastLevelReads, lastLevelMisses } = counts;
  const levels: CacheCounts[] = [level("L1D", l1Reads ?? 0, l1Misses ?? 0)];
  if (lastLevelReads !== null && lastLevelMisses !== null) levels.push(level("L3", lastLevelReads, lastLevelMisses));
  const lineBytes = geometry.at(-1)?.lineBytes ?? 64;
  const scaled =
    counts.countedShare < 0.999
      ? `, counted in ${Math.round(counts.countedShare * 100)} % of the time and scaled up, since the CPU has too few counters`
      : "";
  const outer =
    levels.length > 1
      ? "The second level is not counted; its misses are the last level's accesses."
      : "This CPU counts no accesses of its last level, so bytes from memory are not known (0).";
  return {
    source: "hardware counters",
    description: `Reads of the engine's threads in user mode, as the CPU counted them${scaled}. ${outer}`,
    hitRate: levels[0]?.hitRate ?? 1,
    geometry,
    levels,
    byOp: [],
    memoryBytes: (lastLevelMisses ?? 0) * lineBytes,
    prefetcher: true,
    simulatedSteps: 0,
    steps,
    missesPerStep: [],
    cycles: counts.cycles,
    instructions: counts.instructions,
    tlbMisses: counts.tlbMisses,
  };
}

/** Scaled counts of two events may disagree by a little: there are never more misses than accesses. */
function level(name: CacheCounts["name"], accesses: number, counted: number): CacheCounts {
  const misses = Math.min(counted, accesses);
  const hits = accesses - misses;
  return { name, accesses, hits, misses, hitRate: accesses === 0 ? 1 : hits / accesses };
}
