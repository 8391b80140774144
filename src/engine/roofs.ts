// What this machine does at most, on as many threads as the engine's and with one level's instructions: how fast it reads, writes
// and copies at each cache level and in memory, how fast it multiplies, and how much its last level really holds. It measures,
// and stores nothing.

import type { CacheGeometry, CacheName, MachineRoofs } from "../../profiler/report.ts";
import { type BandwidthMeter, measurableBytes, openBandwidth } from "./bandwidth.ts";
import { findCaches } from "./caches.ts";
import type { Library } from "./library.ts";
import { openStand } from "./stand.ts";

export interface RoofOptions {
  /** Index of the instruction-set level in `library.levels`. */
  readonly level: number;
  readonly threadCount: number;
  /** Asked before every few milliseconds of measuring; true: it gives up. */
  readonly giveUp?: (() => boolean) | undefined;
  /** Bytes that may be taken for a moment; at least 64 MiB are. */
  readonly freeBytes: number;
}

type Peak = keyof MachineRoofs["peaks"];
type SweepPoint = MachineRoofs["sweep"][number];
export const peakNames = ["float", "int8", "int16", "bf16"] as const satisfies readonly Peak[];

/**
 * The sweep goes up by √2 from 16 KiB to 512 MiB. A chip that reports 480 MiB of last level gives a virtual machine 64 to 128 MiB
 * of it.
 */
const sweepBytesMin = 16 << 10;
const sweepBytesMax = 512 << 20;
const memoryBytes = 1 << 30;
const memoryBytesMin = 64 << 20;
/** Of free memory, what is taken at most. */
const freePart = 0.5;
/** A run is this long where its working set allows: long beside starting it (2 µs), short beside what interrupts it (10 ms). */
const runTime_ns = 1e6;
const runs = 5;
/** Longer than that, and pages are so slow to come by that memory is measured on those that are there. */
const sweepTimeMax_ms = 1200;

/**
 * The most that a peak of the level does on so many threads, 10^9 operations a second, of runs that take about `time_ns`
 * together; 0 where the level has no such instructions.
 */
export function measurePeak(
  library: Library,
  peak: Peak,
  options: Omit<RoofOptions, "freeBytes">,
  time_ns = 20e6,
): number {
  const stand = openStand(library, { kernel: `peak_${peak}` }, options);
  try {
    let best = 0;
    for (let spent_ns = 0, run = 0; spent_ns < time_ns || run < runs; run++) {
      const run_ns = stand.run(1);
      if (stand.counted === 0) return 0;
      best = Math.max(best, stand.counted / run_ns);
      spent_ns += run_ns;
    }
    return best;
  } finally {
    stand.close();
  }
}

/**
 * Measures all of it, in 1 to 3 s: each figure is the best of several short runs, for a roof is what is possible, and the others
 * were interrupted.
 * @returns undefined if it gave up.
 * @throws {EngineError} if memory or threads are refused.
 */
export async function measureRoofs(library: Library, options: RoofOptions): Promise<MachineRoofs | undefined> {
  const { level, threadCount, giveUp, freeBytes } = options;
  const largest = Math.max(memoryBytesMin, Math.min(memoryBytes, freeBytes * freePart));
  const pause = async (): Promise<boolean> => {
    await new Promise((resolve) => setImmediate(resolve));
    return giveUp?.() ?? false;
  };
  const peaks: Record<Peak, number> = { float: 0, int8: 0, int16: 0, bf16: 0 };
  for (const name of peakNames) {
    if (await pause()) return undefined;
    peaks[name] = measurePeak(library, name, options);
  }
  const meter = openBandwidth(library, { level, threadCount, bytesMax: Math.ceil(largest / threadCount) });
  try {
    const began = performance.now();
    const sweep: SweepPoint[] = [];
    const reported = findCaches({ threads: threadCount }).levels;
    for (const bytes of sweepSizes(threadCount, Math.min(sweepBytesMax, largest))) {
      if (await pause()) return undefined;
      sweep.push({ bytes, read: bestOf(meter, "read", bytes, threadCount) });
    }
    const lastLevelBytes = findKnee(sweep, totalBytes(reported, "L2", threadCount));
    const swept = sweep.at(-1)?.bytes ?? largest;
    const memory = performance.now() - began > sweepTimeMax_ms ? swept : largest;
    const { levels } = findCaches({ threads: threadCount, lastLevelBytes });
    const bandwidth: MachineRoofs["bandwidth"][number][] = [];
    for (const { name, bytes } of workingSets(levels, threadCount, memory)) {
      const best = { read: 0, write: 0, copy: 0 };
      for (const traffic of ["read", "write", "copy"] as const) {
        if (await pause()) return undefined;
        best[traffic] = bestOf(meter, traffic, bytes, threadCount);
      }
      bandwidth.push({ name, workingBytes: measurableBytes(bytes / threadCount), ...best });
    }
    return {
      measuredAt: new Date().toISOString(),
      level: library.levels[level]?.name ?? "",
      threads: threadCount,
      bandwidth,
      peaks,
      sweep,
      lastLevelBytes,
    };
  } finally {
    meter.close();
  }
}

/** Working sets of all threads together, ascending. */
function sweepSizes(threadCount: number, bytesMax: number): number[] {
  const sizes = new Set<number>();
  for (let bytes = sweepBytesMin; bytes <= bytesMax * 1.001; bytes *= Math.SQRT2) {
    sizes.add(measurableBytes(bytes / threadCount) * threadCount);
  }
  return [...sizes];
}

/** Best of `runs` after one that brings the working set to where it stays; `bytes` of all threads together. */
function bestOf(meter: BandwidthMeter, traffic: "read" | "write" | "copy", bytes: number, threadCount: number): number {
  const share = bytes / threadCount;
  // GB/s are bytes a nanosecond.
  const speed = meter.measure(traffic, share, bytes);
  const total = Math.max(bytes, speed * runTime_ns);
  let best = 0;
  for (let run = 0; run < runs; run++) best = Math.max(best, meter.measure(traffic, share, total));
  return best;
}

/** Bytes of all caches of a level that the threads use. */
function totalBytes(levels: readonly CacheGeometry[], name: CacheName, threadCount: number): number {
  const level = levels.find((each) => each.name === name);
  return level ? level.bytes * Math.ceil(threadCount / level.sharedBy) : 0;
}

/** Half of each level, and memory; of all threads together. */
function workingSets(
  levels: readonly CacheGeometry[],
  threadCount: number,
  memory: number,
): { readonly name: CacheName | "memory"; readonly bytes: number }[] {
  const sets = levels.map(({ name }) => ({ name, bytes: totalBytes(levels, name, threadCount) / 2 }));
  return [...sets, { name: "memory" as const, bytes: memory }];
}

/** Of the way from the last level's bandwidth down to the memory's. */
const kneePart = 1 / 3;
/** Sizes behind the second level's that tell the last level's bandwidth. */
const plateauSizes = 4;
/** Where memory is read that fast beside the last level, there is nothing to tell them apart by. */
const kneeRatioMin = 1.25;

/**
 * The working set at which reading leaves the last level: where bandwidth has gone a third of the way from what it is behind
 * the second level down to what it is at the sweep's end, and stays below. Between two sizes it lies by their bandwidths.
 * Where there is no such place, what the second level holds.
 * @param secondLevelBytes what the threads' second-level caches hold together.
 */
export function findKnee(sweep: readonly SweepPoint[], secondLevelBytes: number): number {
  const behind = sweep.filter(({ bytes }) => bytes >= 2 * secondLevelBytes);
  const end = behind.at(-1);
  if (!end) return secondLevelBytes;
  // The second best: one size alone may be lucky, and those behind a small last level are no longer of it.
  const best = behind
    .slice(0, plateauSizes)
    .map(({ read }) => read)
    .sort((a, b) => b - a);
  const plateau = best[1] ?? end.read;
  if (plateau < end.read * kneeRatioMin) return secondLevelBytes;
  const limit = plateau - (plateau - end.read) * kneePart;
  const at = behind.findLastIndex(({ read }) => read >= limit);
  const [inside, outside] = [behind[at], behind[at + 1]];
  if (!inside || !outside) return secondLevelBytes;
  const part = (inside.read - limit) / (inside.read - outside.read);
  return Math.round(inside.bytes * (outside.bytes / inside.bytes) ** part);
}
