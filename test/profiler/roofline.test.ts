// Ops on the roofline of machines that are made up: which limit holds each, and what the same time and cost give by hand.

import { describe, expect, test } from "bun:test";
import type { OpInfo } from "../../profiler/events.ts";
import type { KindRow, OpRow } from "../../profiler/profile.ts";
import type { CacheStatistics, MachineRoofs } from "../../profiler/report.ts";
import { arithmeticOf, type Demand, judge, peakOf, placeOnRoofline } from "../../profiler/roofline.ts";

const KiB = 2 ** 10;
const MiB = 2 ** 20;
const machine: MachineRoofs = {
  measuredAt: "2026-01-01T00:00:00.000Z",
  level: "avx512_vnni",
  threads: 2,
  bandwidth: [
    { name: "L1D", workingBytes: 16 * KiB, read: 1000, write: 500, copy: 800 },
    { name: "L2", workingBytes: 512 * KiB, read: 400, write: 300, copy: 300 },
    { name: "L3", workingBytes: 4 * MiB, read: 200, write: 150, copy: 150 },
    { name: "memory", workingBytes: 256 * MiB, read: 50, write: 30, copy: 40 },
  ],
  peaks: { float: 500, int8: 2000, int16: 1000, bf16: 0 },
  sweep: [{ bytes: 16 * KiB, read: 1000 }],
  lastLevelBytes: 16 * MiB,
};

interface Made {
  readonly kind?: string;
  readonly kernel?: string;
  readonly bytesPerStep?: number;
  readonly otherBytes?: number;
  readonly operations?: number;
  readonly wallNs: number;
  readonly count?: number;
}

/** A profile of ops that ran `count` times each, with costs of all steps together. */
function profileOf(made: readonly Made[]) {
  const time = { totalNs: 0, share: 0, p50Ns: 0, p90Ns: 0, p99Ns: 0, maxNs: 0, waitNs: 0 };
  const rates = { gigabytesPerSecond: null, gigaflopsPerSecond: null };
  const infos = made.map((op, index): OpInfo => {
    const { kind = "matmul", kernel = "matmul.q8_0.avx512_vnni", bytesPerStep = 0 } = op;
    const static_ = { bytesPerStep, bytesPerRow: 0, operationsPerRow: 0 };
    return { index, name: `op ${index}`, kind, kernel, layer: index, ...static_ };
  });
  const byOp = made.map(({ bytesPerStep = 0, otherBytes = 0, operations = 0, wallNs, count = 1 }, index): OpRow => {
    const { name, kind, kernel, layer } = infos[index] as OpInfo;
    const bytes = bytesPerStep * count + otherBytes;
    return { index, name, kind, kernel, layer, rows: count, count, bytes, operations, wallNs, ...time, ...rates };
  });
  const byKind = [...new Set(byOp.map(({ kind }) => kind))].map((kind): KindRow => {
    const rows = byOp.filter((row) => row.kind === kind);
    const sum = (field: "bytes" | "operations" | "wallNs" | "count") =>
      rows.reduce((total, row) => total + row[field], 0);
    const sums = { bytes: sum("bytes"), operations: sum("operations"), wallNs: sum("wallNs"), count: sum("count") };
    return { kind, ops: rows.length, ...sums, ...time, ...rates };
  });
  return { infos, profile: { byOp, byKind } };
}

function placed(made: readonly Made[], cache: CacheStatistics | null = null, on = machine) {
  const { infos, profile } = profileOf(made);
  return placeOnRoofline(profile, infos, on, cache, "generation");
}

describe("the roof of a demand", () => {
  const memory: Demand = { bound: "memory", amount: 1e6, roof: 20 };
  const int8: Demand = { bound: "int8", amount: 2e6, roof: 400 };

  test("is memory where bytes take longer than operations", () => {
    const verdict = judge([memory, int8], 100_000);
    expect(verdict).toEqual({ bound: "memory", unit: "GB/s", achieved: 10, roof: 20, roofNs: 50_000, share: 0.5 });
  });

  test("is the instructions' where many tokens share what is read", () => {
    const many = { ...int8, amount: 1e9 };
    expect(judge([memory, many], 1e7)).toMatchObject({ bound: "int8", unit: "GOP/s", achieved: 100, share: 0.25 });
    const float: Demand = { bound: "float", amount: 1e9, roof: 100 };
    expect(judge([memory, float], 1e7)).toMatchObject({ bound: "float", unit: "GFLOP/s", share: 1 });
  });

  test("of int16 is that of float32 where no instruction multiplies int16", () => {
    expect(peakOf("int16", machine.peaks)).toMatchObject({ bound: "int16", roof: 1000 });
    expect(peakOf("int16", { ...machine.peaks, int16: 0 })).toMatchObject({ bound: "float", roof: 500 });
  });
});

test("products of quantized weights are of int8, those of 16 bits of int16, and all else is float", () => {
  const of = (kind: string, kernel: string) => arithmeticOf({ kind, kernel });
  expect(of("matmul", "matmul.q4_k.avx2")).toBe("int8");
  expect(of("matmul", "matmul.f32.avx2")).toBe("float");
  expect(of("matmul", "matmul.bf16.avx2")).toBe("int16");
  expect(of("screen", "screen.q8_0.avx2")).toBe("int8");
  expect(of("attention", "attention.q8_0.avx2")).toBe("float");
  expect(of("norm", "norm.avx2")).toBe("float");
});

describe("without cache statistics", () => {
  test("weights that the last level does not hold together come from memory, however small each matrix is", () => {
    const { byOp } = placed([
      { bytesPerStep: 10 * MiB, wallNs: 10 * 500_000, count: 10 },
      { bytesPerStep: 7 * MiB, wallNs: 10 * 200_000, count: 10 },
    ]);
    expect(byOp.map(({ bound }) => bound)).toEqual(["memory", "memory"]);
    expect(byOp[0]).toMatchObject({ unit: "GB/s", roof: 50, roofNs: (100 * MiB) / 50, phase: "generation" });
    expect(byOp[0]?.achieved).toBeCloseTo((10 * MiB) / 500_000, 9);
    expect(byOp[0]?.share).toBeCloseTo((10 * MiB) / 500_000 / 50, 9);
  });

  test("weights that a level holds come from there", () => {
    expect(placed([{ bytesPerStep: 10 * MiB, wallNs: 1e6 }]).byOp[0]).toMatchObject({ bound: "L3", roof: 200 });
    expect(placed([{ bytesPerStep: 2 * MiB, wallNs: 1e6 }]).byOp[0]).toMatchObject({ bound: "L2", roof: 400 });
    // A machine without a third level.
    const two = { ...machine, bandwidth: machine.bandwidth.filter(({ name }) => name !== "L3") };
    expect(placed([{ bytesPerStep: 10 * MiB, wallNs: 1e6 }], null, two).byOp[0]).toMatchObject({ bound: "memory" });
  });

  test("a prompt's product is held by its arithmetic", () => {
    const prompt = { bytesPerStep: MiB, operations: 2 * MiB * 512, wallNs: 2e6 };
    expect(placed([prompt]).byOp[0]).toMatchObject({ bound: "int8", unit: "GOP/s", roof: 2000, intensity: 1024 });
    const wide = { ...prompt, kernel: "matmul.f16.avx512_vnni" };
    expect(placed([wide]).byOp[0]).toMatchObject({ bound: "int16", roof: 1000 });
    const none = { ...machine, peaks: { ...machine.peaks, int16: 0 } };
    expect(placed([wide], null, none).byOp[0]).toMatchObject({ bound: "float", unit: "GFLOP/s", roof: 500 });
  });
});

describe("overhead", () => {
  const norm = { kind: "norm", kernel: "norm.avx2", otherBytes: 100 * 4000, count: 100 };

  test("is what holds an op that takes microseconds, and hardly any at its roof", () => {
    expect(placed([{ ...norm, wallNs: 100 * 3000 }]).byOp[0]).toMatchObject({
      bound: "overhead",
      roof: 400,
      unit: "GB/s",
    });
  });

  test("is not what holds one that takes long, or one near its roof", () => {
    expect(placed([{ ...norm, wallNs: 100 * 30_000 }]).byOp[0]?.bound).toBe("L2");
    expect(placed([{ ...norm, wallNs: 100 * 20 }]).byOp[0]?.bound).toBe("L2");
  });
});

describe("with cache statistics", () => {
  const line = 64;
  function statistics(misses: readonly [number, number, number], memoryBytes: number): CacheStatistics {
    const names = ["L1D", "L2", "L3"] as const;
    const levels = names.map((name, index) => ({
      name,
      accesses: 1e6,
      hits: 1e6 - (misses[index] ?? 0),
      misses: misses[index] ?? 0,
      hitRate: 1,
    }));
    return {
      source: "simulator",
      description: "",
      hitRate: 1,
      geometry: names.map((name) => ({ name, bytes: MiB, ways: 16, lineBytes: line, sharedBy: 1 })),
      levels,
      byOp: [{ index: 0, levels, memoryBytes }],
      memoryBytes,
      prefetcher: true,
      simulatedSteps: 1,
      steps: 1,
      missesPerStep: [],
      cycles: null,
      instructions: null,
      tlbMisses: null,
    };
  }
  const op = { bytesPerStep: 64 * MiB, wallNs: 4e6 };

  test("an op is held by the level that its bytes came out of", () => {
    // All of it passed the first two levels; nothing came from memory.
    const lines = MiB;
    const cases = [
      { counted: statistics([0, 0, 0], 0), bound: "L1D", roof: 1000 },
      { counted: statistics([lines, 0, 0], 0), bound: "L2", roof: 400 },
      { counted: statistics([lines, lines, 0], 0), bound: "L3", roof: 200 },
      { counted: statistics([lines, lines, lines], lines * line), bound: "memory", roof: 50 },
    ] as const;
    for (const { counted, bound, roof } of cases) {
      const [row] = placed([op], counted).byOp;
      expect(row).toMatchObject({ bound, roof, roofNs: (64 * MiB) / roof });
      expect(row?.share).toBeCloseTo((64 * MiB) / roof / 4e6, 9);
    }
  });

  test("what a prefetcher brought came from memory, though nothing missed there", () => {
    expect(placed([op], statistics([MiB, 0, 0], 64 * MiB)).byOp[0]?.bound).toBe("memory");
  });

  test("counters of the CPU, which do not tell ops apart, leave bytes to where the weights fit", () => {
    const counted = { ...statistics([MiB, MiB, MiB], 64 * MiB), source: "hardware counters" as const, byOp: [] };
    const made = [op, { bytesPerStep: MiB, operations: 2 * MiB * 512, wallNs: 2e6 }];
    const roofline = placed(made, counted);
    expect(roofline.byOp.map(({ bound }) => bound)).toEqual(["memory", "int8"]);
    expect(roofline).toEqual(placed(made));
  });

  test("a quarter from memory is held by the last level where that takes longer", () => {
    // 64 MiB through the third level at 200 GB/s, 12 MiB from memory at 50.
    expect(placed([op], statistics([MiB, MiB, 0], 12 * MiB)).byOp[0]?.bound).toBe("L3");
    expect(placed([op], statistics([MiB, MiB, 0], 20 * MiB)).byOp[0]?.bound).toBe("memory");
  });
});

describe("a kind", () => {
  test("is its ops together: the time that they would take at their roofs, and the bound of most of it", () => {
    const { byKind, byOp } = placed([
      { bytesPerStep: 50 * MiB, wallNs: 2e6 },
      { bytesPerStep: MiB, operations: 1e9, wallNs: 1e6 },
      { kind: "norm", kernel: "norm.avx2", otherBytes: 4000, wallNs: 3000 },
    ]);
    expect(byKind.map(({ name, index, layer }) => [name, index, layer])).toEqual([
      ["matmul", -1, -1],
      ["norm", -1, -1],
    ]);
    const roofNs = (byOp[0]?.roofNs ?? 0) + (byOp[1]?.roofNs ?? 0);
    expect(byKind[0]).toMatchObject({ bound: "memory", unit: "GB/s", wallNs: 3e6, roofNs, share: roofNs / 3e6 });
    expect(byKind[0]?.achieved).toBeCloseTo((roofNs / 3e6) * 50, 9);
    expect(byKind[1]?.bound).toBe("overhead");
  });

  test("that did not run, and an op that took no time, are left out", () => {
    const { byKind, byOp } = placed([{ bytesPerStep: MiB, wallNs: 0 }]);
    expect([byKind.length, byOp.length]).toEqual([0, 0]);
  });
});
