// What this machine's CPU can do, and the choice of an instruction-set level.

import { readFileSync } from "node:fs";
import { availableParallelism, cpus } from "node:os";
import { join } from "node:path";
import { OptionError } from "../errors.ts";
import { groupLimits } from "./cgroup.ts";
import type * as libraryModule from "./library.ts";
import type { Library } from "./library.ts";

/** Feature names by bit, in the order of `Feature` in zig/cpu.zig. */
const featureNames = [
  "sse42",
  "avx",
  "avx2",
  "fma",
  "f16c",
  "avx512f",
  "avx512bw",
  "avx512vl",
  "avx512dq",
  "avx512vnni",
  "avx512bf16",
  "avx512fp16",
  "avxVnni",
  "amxTile",
  "amxInt8",
  "amxBf16",
  "neon",
  "dotprod",
  "i8mm",
  "bf16",
  "invariantTsc",
] as const;

/** What kernels look for in a CPU, by the names that CPUs' makers give it. */
export type CpuFeature = (typeof featureNames)[number];

/** What the CPU's vector instructions are, each feature by name, and which kernels are for them. */
export interface SimdCapabilities extends Readonly<Record<CpuFeature, boolean>> {
  /** Whether kernels may use registers of 512 bits: `avx512f` with `avx512bw`, `avx512vl` and `avx512dq`. */
  readonly avx512: boolean;
  /** Name of the level that a model's kernels have unless it is loaded otherwise. */
  readonly level: string;
  /** Why it is that one. */
  readonly reason: string;
  /** The levels in the library, narrowest first, and whether each may run on this CPU. */
  readonly levels: readonly { readonly name: string; readonly supported: boolean }[];
}

/** The machine. */
export const cpu = {
  /** Logical CPUs that this process may use, by its affinity mask and its control groups' quota, rounded up. */
  get cores(): number {
    return Math.ceil(cpuCapacity());
  },
  /**
   * Cores that these CPUs are on, where the system tells them apart: fewer where a core runs several threads. Never more than `cores`:
   * of many cores, a quota leaves the time of a few.
   */
  get physicalCores(): number {
    const { cores } = cpu;
    return Math.min(countPhysicalCores(usableCpus()) ?? cores, cores);
  },
  /** The CPU's name as the system reports it. */
  get model(): string {
    return cpus()[0]?.model ?? "unknown";
  },
  /**
   * What vector instructions the CPU has, and the level of kernels chosen for it. Opens the native library.
   * @throws {LibraryError} if the library is missing or of another version.
   * @throws {OptionError} if `TINYAI_SIMD` names a level that is not there.
   */
  get simd(): SimdCapabilities {
    const { openLibrary }: typeof libraryModule = require("./library.ts");
    const library = openLibrary();
    const features = cpuFeatures(library);
    const { name, reason } = chooseLevel(library, undefined);
    const avx512 = features.avx512f && features.avx512bw && features.avx512vl && features.avx512dq;
    return { ...features, avx512, level: name, reason, levels: library.levels };
  },
};

/** CPUs' worth of time that this process may use: a fraction where a quota says so. */
export function cpuCapacity(): number {
  return Math.min(usableCpus()?.length ?? availableParallelism(), groupLimits().cpus);
}

/**
 * Cores that `numbers` of logical CPUs are on; undefined where the system does not say.
 * @param root where the system's files begin; another than "/" is for tests.
 */
export function countPhysicalCores(numbers: readonly number[] | undefined, root = "/"): number | undefined {
  if (process.platform === "darwin") {
    const { stdout } = Bun.spawnSync(["sysctl", "-n", "hw.physicalcpu"]);
    return Number(stdout.toString()) || undefined;
  }
  try {
    const topology = (number: number) =>
      join(root, `sys/devices/system/cpu/cpu${number}/topology/thread_siblings_list`);
    return numbers && new Set(numbers.map((number) => readFileSync(topology(number), "utf8"))).size;
  } catch {
    return undefined;
  }
}

/** Numbers of the logical CPUs that this process may use, where the system tells them (Linux). */
export function usableCpus(): number[] | undefined {
  try {
    const list = /^Cpus_allowed_list:\s*(.+)$/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1];
    return list?.split(",").flatMap((range) => {
      const [first = 0, last = first] = range.split("-").map(Number);
      return Array.from({ length: last - first + 1 }, (_, index) => first + index);
    });
  } catch {
    return undefined;
  }
}

/** Every feature by name. */
export function cpuFeatures(library: Library): Record<CpuFeature, boolean> {
  const entries = featureNames.map((name, bit) => [name, (library.features >> BigInt(bit)) % 2n === 1n] as const);
  return Object.fromEntries(entries) as Record<CpuFeature, boolean>;
}

/** Names of a numeric level's levels, narrowest first: 0 scalar, 1 128-bit, 2 256-bit, 3 the widest. */
const namesOfLevel: readonly (readonly string[])[] = [
  ["scalar", "neon"],
  ["x86_64_v2", "neon"],
  ["avx2", "neon_dotprod"],
  [],
];

/** The level chosen and why. */
export interface ChosenLevel {
  readonly index: number;
  readonly name: string;
  /** 0 scalar, 1 128-bit, 2 256-bit, 3 the widest. */
  readonly number: number;
  readonly reason: string;
  /** Whether `TINYAI_SIMD` chose it. */
  readonly forced: boolean;
  /** The widest that this CPU runs. */
  readonly widest: string;
}

/**
 * `TINYAI_SIMD` (a name), else `simdLevel` (0 to 3), else the widest that this CPU runs.
 * @param option what `simdLevel` is called where it was given.
 * @throws {OptionError} if the level asked for is not in the library or the CPU lacks its instructions.
 */
export function chooseLevel(library: Library, simdLevel: number | undefined, option = "simd.level"): ChosenLevel {
  const forced = process.env["TINYAI_SIMD"];
  const { levels } = library;
  const last = levels.findLastIndex(({ supported }) => supported);
  const widest = levels[last]?.name ?? "";
  if (forced) {
    const index = levels.findIndex(({ name }) => name === forced);
    if (index < 0) {
      throw new OptionError(
        "TINYAI_SIMD",
        `there is no level ${JSON.stringify(forced)}; there are ${levels.map(({ name }) => name).join(", ")}`,
      );
    }
    if (!levels[index]?.supported)
      throw new OptionError("TINYAI_SIMD", `this CPU lacks the instructions of level ${forced}`);
    const known = namesOfLevel.findIndex((names) => names.includes(forced));
    const number = index === last || known < 0 ? 3 : known;
    return { index, name: forced, number, reason: "forced by TINYAI_SIMD", forced: true, widest };
  }
  if (simdLevel === undefined || simdLevel === 3) {
    const reason = "the widest level that this CPU runs";
    return { index: last, name: widest, number: 3, reason, forced: false, widest };
  }
  const wanted = namesOfLevel[simdLevel] ?? [];
  const index = levels.findIndex((level) => wanted.includes(level.name) && level.supported);
  if (index < 0) {
    throw new OptionError(
      option,
      `level ${simdLevel} (${wanted.join(" or ")}) does not run on this CPU; the widest is ${widest}`,
    );
  }
  const name = levels[index]?.name ?? "";
  return { index, name, number: simdLevel, reason: `simd.level ${simdLevel}`, forced: false, widest };
}
