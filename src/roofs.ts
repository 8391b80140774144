// A machine's roofs: measured once for an instruction-set level and a number of threads, and kept. Nothing is measured unless a
// report asks for it.

import { freemem } from "node:os";
import type { MachineRoofs } from "../profiler/report.ts";
import { isRecord } from "./check.ts";
import { groupMemoryLeft } from "./engine/cgroup.ts";
import type { Library } from "./engine/library.ts";
import { measureRoofs, peakNames } from "./engine/roofs.ts";
import { EngineError } from "./errors.ts";
import { type KeptKind, keptPath, machineKey, readKept, storeKept } from "./kept.ts";

/** The version changes whenever something is measured otherwise. */
const kept: KeptKind<MachineRoofs> = { folder: "roofs", field: "roofs", version: 1, check: isRoofs };

/** Where the roofs of this machine, level and number of threads are kept, or would be. */
export function roofsPath(library: Library, level: number, threads: number): string {
  return keptPath(kept, machineKey(kept, library, level, threads));
}

/** What was measured on this machine before; undefined if nothing was. */
export function findRoofs(library: Library, level: number, threads: number): MachineRoofs | undefined {
  const key = machineKey(kept, library, level, threads);
  return readKept(kept, keptPath(kept, key), key);
}

/**
 * Measures this machine, in 1 to 3 s on all of `threads`, and keeps the result where it can be written.
 * @returns undefined if it gave up.
 * @throws {EngineError} if memory or threads are refused.
 */
export async function measureMachine(
  library: Library,
  level: number,
  threads: number,
  giveUp?: () => boolean,
): Promise<MachineRoofs | undefined> {
  const roofs = await measureRoofs(library, { level, threadCount: threads, giveUp, freeBytes: freeBytes() });
  if (!roofs) return undefined;
  const key = machineKey(kept, library, level, threads);
  try {
    await storeKept(kept, keptPath(kept, key), key, roofs);
  } catch (error) {
    // What was measured is good for this report, and the next one measures again.
    if (!(error instanceof EngineError)) throw error;
  }
  return roofs;
}

/** What was measured before, else what is measured now. */
export async function machineRoofs(
  library: Library,
  level: number,
  threads: number,
  giveUp?: () => boolean,
): Promise<MachineRoofs | undefined> {
  return findRoofs(library, level, threads) ?? (await measureMachine(library, level, threads, giveUp));
}

function freeBytes(): number {
  return Math.max(0, Math.min(process.availableMemory(), freemem(), groupMemoryLeft("/", "idle")));
}

const sweepLengthMax = 256;

/** Whether it has every figure, each of them a number that can be. */
function isRoofs(value: unknown): value is MachineRoofs {
  if (!isRecord(value)) return false;
  const { measuredAt, level, threads, bandwidth, peaks, sweep, lastLevelBytes } = value;
  return (
    typeof measuredAt === "string" &&
    typeof level === "string" &&
    isPositive(threads) &&
    isPositive(lastLevelBytes) &&
    isRecord(peaks) &&
    peakNames.every((name) => peaks[name] === 0 || isPositive(peaks[name])) &&
    isPositive(peaks["float"]) &&
    isPositive(peaks["int8"]) &&
    isList(bandwidth, 4, isBandwidth) &&
    isRecord(bandwidth.at(-1)) &&
    bandwidth.at(-1)?.["name"] === "memory" &&
    isList(sweep, sweepLengthMax, (point) => isRecord(point) && isPositive(point["bytes"]) && isPositive(point["read"]))
  );
}

const bandwidthNames: readonly unknown[] = ["L1D", "L2", "L3", "memory"];

function isBandwidth(value: unknown): boolean {
  if (!isRecord(value) || !bandwidthNames.includes(value["name"])) return false;
  return ["workingBytes", "read", "write", "copy"].every((name) => isPositive(value[name]));
}

function isList(
  value: unknown,
  lengthMax: number,
  check: (item: unknown) => boolean,
): value is Readonly<Record<string, unknown>>[] {
  return Array.isArray(value) && value.length >= 1 && value.length <= lengthMax && value.every(check);
}

function isPositive(value: unknown): boolean {
  return typeof value === "number" && Number.isFinite(value) && value > 0;
}
