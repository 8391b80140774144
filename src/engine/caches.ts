// This machine's data caches, as the simulator (zig/cache.zig) and the roofs need them: sizes, ways, lines, and how many of the
// engine's threads share one. Linux says what there is; elsewhere, and where it says nothing or what cannot be, typical sizes
// are taken, and the description says so. What a virtual machine reports of its last level can be the whole chip's: a measured
// effective size (src/engine/roofs.ts) wins over it.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { CacheGeometry, CacheName } from "../../profiler/report.ts";
import { cpu, usableCpus } from "./cpu.ts";
import { lineSizes } from "./tuning.ts";

/** This machine's caches, nearest first, and in a sentence where that is known from. */
export interface Caches {
  readonly levels: readonly CacheGeometry[];
  readonly description: string;
}

export interface CacheOptions {
  /** Threads of the engine. */
  readonly threads: number;
  /** Effective size of the last level, of all of those that the threads use, as it was measured. */
  readonly lastLevelBytes?: number | undefined;
  /** Where the system describes its CPUs. */
  readonly folder?: string;
  /** CPUs that the process may use. */
  readonly cpus?: readonly number[];
}

interface Typical {
  readonly name: CacheName;
  readonly bytes: number;
  readonly ways: number;
  /** What can be. */
  readonly bytesMin: number;
  readonly bytesMax: number;
  /** Whether CPUs have one each; else all of them share one. */
  readonly own: boolean;
}

const KiB = 1 << 10;
const MiB = 1 << 20;
const typical: readonly Typical[] = [
  { name: "L1D", bytes: 32 * KiB, ways: 8, bytesMin: 4 * KiB, bytesMax: MiB, own: true },
  { name: "L2", bytes: MiB, ways: 16, bytesMin: 64 * KiB, bytesMax: 64 * MiB, own: true },
  { name: "L3", bytes: 16 * MiB, ways: 16, bytesMin: MiB, bytesMax: 1024 * MiB, own: false },
];
/** Nearly all CPUs have 64; Apple's have 128, and macOS has no files that say so. */
const typicalLineBytes = process.platform === "darwin" && process.arch === "arm64" ? 128 : 64;
const waysMax = 64;
/**
 * A last level that is reported larger and was not measured is taken for this large: a process on a virtual machine has a part
 * of it, and few chips give one of their last-level caches more.
 */
const unmeasuredLastBytesMax = 32 * MiB;

/** What one CPU's folder says of one cache. NaN: nothing. */
export interface ReportedCache {
  readonly level: number;
  /** `Data`, `Instruction` or `Unified`. */
  readonly type: string;
  readonly bytes: number;
  readonly ways: number;
  readonly lineBytes: number;
  /** The CPUs that share it, as the system writes them; each cache once. */
  readonly sharers: string;
}

/** Bytes of this machine's cache lines, and whether the system said so; else what is typical. */
export function machineLineSize(folder = "/sys/devices/system/cpu"): {
  readonly bytes: number;
  readonly source: "system" | "typical";
} {
  const [cpu = 0] = usableCpus() ?? [];
  const bytes = wholeOf(readText(join(folder, `cpu${cpu}`, "cache", "index0", "coherency_line_size")));
  return lineSizes.includes(bytes) ? { bytes, source: "system" } : { bytes: typicalLineBytes, source: "typical" };
}

/** The caches that `threads` threads of the engine see, spread over the CPUs that the process may use. */
export function findCaches({ threads, lastLevelBytes, folder, cpus }: CacheOptions): Caches {
  const numbers = cpus ?? usableCpus() ?? Array.from({ length: cpu.cores }, (_, index) => index);
  const reported = numbers
    .flatMap((number) => readCaches(join(folder ?? "/sys/devices/system/cpu", `cpu${number}`)))
    .filter(({ type }) => type !== "Instruction");
  const guessed: string[] = [];
  const levels: CacheGeometry[] = [];
  let lineBytes = 0;
  let outer = 0;
  for (const [index, usual] of typical.entries()) {
    const found = reported.filter(({ level }) => level === index + 1);
    const last = usual.name === "L3";
    // A machine that describes its other caches has no third level, unless one was measured.
    if (last && found.length === 0 && reported.length > 0 && lastLevelBytes === undefined) continue;
    const [first] = found;
    const sharers = new Set(found.map((cache) => cache.sharers)).size || (usual.own ? numbers.length : 1);
    const used = Math.max(1, Math.min(sharers, threads));
    const ways = isWhole(first?.ways, 1, waysMax) ? first.ways : usual.ways;
    const line =
      isWhole(first?.lineBytes, 16, 4096) && isPowerOfTwo(first.lineBytes) ? first.lineBytes : typicalLineBytes;
    lineBytes = Math.max(lineBytes, line);
    let bytes = usual.bytes;
    if (last && lastLevelBytes !== undefined) bytes = lastLevelBytes / used;
    else if (isWhole(first?.bytes, usual.bytesMin, usual.bytesMax)) {
      bytes = last ? Math.min(first.bytes, unmeasuredLastBytesMax) : first.bytes;
    } else guessed.push(usual.name);
    // Whole sets. The number of sets need not be a power of two.
    bytes = Math.max(1, Math.round(bytes / (ways * lineBytes))) * ways * lineBytes;
    // A last level that holds no more than those before it adds nothing.
    if (last && bytes * used <= outer) continue;
    levels.push({ name: usual.name, bytes, ways, lineBytes, sharedBy: Math.ceil(threads / used) });
    outer = bytes * used;
  }
  return { levels, description: describe(reported.length > 0, guessed, levels, lastLevelBytes !== undefined) };
}

function describe(
  described: boolean,
  guessed: readonly string[],
  levels: readonly CacheGeometry[],
  measured: boolean,
): string {
  const from = described ? "as the system describes them" : "of typical sizes, since the system describes none";
  const parts = [`Caches ${from}`];
  if (described && guessed.length > 0) parts.push(`, with a typical ${guessed.join(" and ")} where it does not`);
  const last = levels.at(-1);
  if (last?.name === "L3") {
    const size = `${(last.bytes / MiB).toFixed(1)} MiB`;
    parts.push(
      measured ? `, and a last level of ${size}, which was measured` : `, and a last level of ${size}, not measured`,
    );
  }
  return `${parts.join("")}.`;
}

/** The caches of one CPU, by the files of its folder. */
export function readCaches(folder: string): ReportedCache[] {
  const caches: ReportedCache[] = [];
  for (let index = 0; index < 16; index++) {
    const read = (name: string): string => readText(join(folder, "cache", `index${index}`, name));
    const level = wholeOf(read("level"));
    if (Number.isNaN(level)) break;
    caches.push({
      level,
      type: read("type"),
      bytes: bytesOf(read("size")),
      ways: wholeOf(read("ways_of_associativity")),
      lineBytes: wholeOf(read("coherency_line_size")),
      // Where it is missing, each CPU is taken to have its own.
      sharers: read("shared_cpu_map") || read("shared_cpu_list") || folder,
    });
  }
  return caches;
}

/** Nothing where there is no such file. */
function readText(path: string): string {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return "";
  }
}

function wholeOf(text: string): number {
  return /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
}

/** Such as `48K`. */
function bytesOf(text: string): number {
  const [, number = "", unit = ""] = /^(\d{1,9})([KMG]?)$/.exec(text) ?? [];
  const factor = { "": 1, K: KiB, M: MiB, G: 1024 * MiB }[unit] ?? Number.NaN;
  return number === "" ? Number.NaN : Number(number) * factor;
}

function isWhole(value: number | undefined, minimum: number, maximum: number): value is number {
  return value !== undefined && Number.isInteger(value) && value >= minimum && value <= maximum;
}

function isPowerOfTwo(value: number): boolean {
  return (value & (value - 1)) === 0;
}
