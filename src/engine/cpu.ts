// What this machine's CPU can do, and the choice of an instruction-set level.

import { readFileSync } from "node:fs";
import { availableParallelism, cpus } from "node:os";
import { OptionError } from "../errors.ts";
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

export type CpuFeature = (typeof featureNames)[number];

/** The machine, as far as it can be told without opening the library. */
export const cpu = {
  /** Logical CPUs that this process may use. */
  get cores(): number {
    return availableParallelism();
  },
  /** The CPU's name as the system reports it. */
  get model(): string {
    return cpus()[0]?.model ?? "unknown";
  },
};

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
  readonly reason: string;
  /** The widest that this CPU runs. */
  readonly widest: string;
}

/**
 * `TINYAI_SIMD` (a name), else `simdLevel` (0 to 3), else the widest that this CPU runs.
 * @throws {OptionError} if the level asked for is not in the library or the CPU lacks its instructions.
 */
export function chooseLevel(library: Library, simdLevel: number | undefined): ChosenLevel {
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
    return { index, name: forced, reason: "forced by TINYAI_SIMD", widest };
  }
  if (simdLevel === undefined || simdLevel === 3) {
    return { index: last, name: widest, reason: "the widest level that this CPU runs", widest };
  }
  const wanted = namesOfLevel[simdLevel] ?? [];
  const index = levels.findIndex((level) => wanted.includes(level.name) && level.supported);
  if (index < 0) {
    throw new OptionError(
      "simd.level",
      `level ${simdLevel} (${wanted.join(" or ")}) does not run on this CPU; the widest is ${widest}`,
    );
  }
  return { index, name: levels[index]?.name ?? "", reason: `simd.level ${simdLevel}`, widest };
}
