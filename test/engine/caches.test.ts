// This machine's caches: what is read from descriptions that are made up, whole and damaged, and what is taken where they say
// nothing.

import { describe, expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { findCaches, machineLineSize } from "../../src/engine/caches.ts";
import { usableCpus } from "../../src/engine/cpu.ts";
import { temporaryFolder } from "../support/folder.ts";

const folder = temporaryFolder();
let machines = 0;

type Files = Readonly<Record<string, string>>;
const l1 = { level: "1", type: "Data", size: "48K", ways_of_associativity: "12", coherency_line_size: "64" };
const code = { level: "1", type: "Instruction", size: "32K", ways_of_associativity: "8", coherency_line_size: "64" };
const l2 = { level: "2", type: "Unified", size: "1024K", ways_of_associativity: "16", coherency_line_size: "64" };
const l3 = { level: "3", type: "Unified", size: "20480K", ways_of_associativity: "20", coherency_line_size: "64" };

/** The folder of a machine whose CPUs have these caches. */
function machine(cpuCount: number, caches: (cpu: number) => readonly Files[]): { folder: string; cpus: number[] } {
  const root = folder.file(`machine${machines++}`);
  const cpus = Array.from({ length: cpuCount }, (_, cpu) => cpu);
  for (const cpu of cpus) {
    for (const [index, files] of caches(cpu).entries()) {
      const path = join(root, `cpu${cpu}`, "cache", `index${index}`);
      mkdirSync(path, { recursive: true });
      for (const [name, text] of Object.entries(files)) writeFileSync(join(path, name), `${text}\n`);
    }
  }
  return { folder: root, cpus };
}

const mask = (...cpus: number[]) => ({ shared_cpu_map: cpus.reduce((sum, cpu) => sum + 2 ** cpu, 0).toString(16) });
const usual = (cpu: number, changed: Partial<Record<"l1" | "l2" | "l3", Files>> = {}) => [
  { ...l1, ...mask(cpu), ...changed.l1 },
  { ...code, ...mask(cpu) },
  { ...l2, ...mask(cpu), ...changed.l2 },
  { ...l3, ...mask(0, 1), ...changed.l3 },
];

describe("a machine that describes its caches", () => {
  test("has the data caches that it says, each shared by as many threads as it must", () => {
    const { levels, description } = findCaches({ threads: 2, ...machine(2, usual) });
    expect(levels).toEqual([
      { name: "L1D", bytes: 48 << 10, ways: 12, lineBytes: 64, sharedBy: 1 },
      { name: "L2", bytes: 1 << 20, ways: 16, lineBytes: 64, sharedBy: 1 },
      { name: "L3", bytes: 20 << 20, ways: 20, lineBytes: 64, sharedBy: 2 },
    ]);
    expect(description).toBe("Caches as the system describes them, and a last level of 20.0 MiB, not measured.");
  });

  test("spreads threads over caches before two share one", () => {
    // Four CPUs on two cores, and two last levels.
    const cores = machine(4, (cpu) => {
      const core = cpu < 2 ? mask(0, 1) : mask(2, 3);
      return usual(cpu, { l1: core, l2: core, l3: core });
    });
    const sharedBy = (threads: number) => findCaches({ threads, ...cores }).levels.map((level) => level.sharedBy);
    expect([1, 2, 3, 4, 8].map(sharedBy)).toEqual([
      [1, 1, 1],
      [1, 1, 1],
      [2, 2, 2],
      [2, 2, 2],
      [4, 4, 4],
    ]);
    // What was measured is of all last levels together.
    const sizes = [1, 2].map((threads) => findCaches({ threads, ...cores, lastLevelBytes: 20 << 20 }).levels[2]?.bytes);
    expect(sizes).toEqual([20 << 20, 10 << 20]);
  });

  test("has the last level that was measured, in whole sets, whatever it reports", () => {
    const chip = machine(2, (cpu) => usual(cpu, { l3: { size: "491520K", ways_of_associativity: "16" } }));
    const measured = findCaches({ threads: 2, ...chip, lastLevelBytes: 27_000_000 });
    const bytes = measured.levels[2]?.bytes ?? 0;
    expect(bytes % (16 * 64)).toBe(0);
    expect(Math.abs(bytes - 27_000_000)).toBeLessThan(16 * 64);
    expect(measured.description).toContain("a last level of 25.7 MiB, which was measured");
    // Not measured, 480 MiB are not believed.
    expect(findCaches({ threads: 2, ...chip }).levels[2]?.bytes).toBe(32 << 20);
  });

  test("has no last level where none is described, or the measured one holds no more than the second ones", () => {
    const two = machine(2, (cpu) => usual(cpu).slice(0, 3));
    expect(findCaches({ threads: 2, ...two }).levels.map(({ name }) => name)).toEqual(["L1D", "L2"]);
    expect(findCaches({ threads: 2, ...two, lastLevelBytes: 2 << 20 }).levels.length).toBe(2);
    expect(findCaches({ threads: 2, ...two, lastLevelBytes: 12 << 20 }).levels[2]).toMatchObject({
      name: "L3",
      ways: 16,
    });
  });
});

describe("what cannot be", () => {
  const wrong: readonly (readonly [keyof Files, string])[] = [
    ["size", ""],
    ["size", "0K"],
    ["size", "-1K"],
    ["size", "99999999G"],
    ["size", "lots"],
    ["ways_of_associativity", "0"],
    ["ways_of_associativity", "4096"],
    ["ways_of_associativity", ""],
    ["coherency_line_size", "0"],
    ["coherency_line_size", "48"],
    ["coherency_line_size", "1.5"],
    ["shared_cpu_map", ""],
  ];

  test("is replaced by what is typical, so that every geometry has whole sets of lines that are powers of two", () => {
    for (const level of ["l1", "l2", "l3"] as const) {
      for (const [name, text] of wrong) {
        const { levels } = findCaches({
          threads: 2,
          ...machine(2, (cpu) => usual(cpu, { [level]: { [name]: text } })),
        });
        expect(levels.length).toBe(3);
        for (const { bytes, ways, lineBytes, sharedBy } of levels) {
          expect(bytes).toBeGreaterThan(0);
          expect(ways).toBeGreaterThan(0);
          expect(bytes % (ways * lineBytes)).toBe(0);
          expect(Math.log2(lineBytes) % 1).toBe(0);
          expect(sharedBy).toBeGreaterThan(0);
        }
      }
    }
    const { levels, description } = findCaches({
      threads: 1,
      ...machine(1, (cpu) => usual(cpu, { l2: { size: "0K", ways_of_associativity: "0" } })),
    });
    expect(levels[1]).toMatchObject({ bytes: 1 << 20, ways: 16 });
    expect(description).toContain("with a typical L2 where it does not");
  });

  test("may be everything: a system that describes nothing has typical caches, and says so", () => {
    const { levels, description } = findCaches({ threads: 4, folder: folder.file("nothing"), cpus: [0, 1, 2, 3] });
    expect(levels.map(({ bytes, sharedBy }) => [bytes, sharedBy])).toEqual([
      [32 << 10, 1],
      [1 << 20, 1],
      [16 << 20, 4],
    ]);
    expect(description).toContain("of typical sizes, since the system describes none");
  });
});

describe("the size of a line", () => {
  /** What a process on such a machine takes, whose system says nothing. */
  async function typicalOn(platform: string, arch: string): Promise<string> {
    const source = `
      for (const [key, value] of Object.entries(${JSON.stringify({ platform, arch })})) {
        Object.defineProperty(process, key, { value });
      }
      const { machineLineSize } = await import(${JSON.stringify(join(import.meta.dir, "../../src/engine/caches.ts"))});
      const { bytes, source } = machineLineSize(${JSON.stringify(folder.file("nothing"))});
      console.log(bytes, source);`;
    const child = Bun.spawn([process.execPath, "-e", source], { stdout: "pipe" });
    return (await new Response(child.stdout).text()).trim();
  }

  test("is the system's, and where it says nothing 64 bytes, or 128 on Apple's processors", async () => {
    const { folder: described } = machine(1, () => [{ ...l1, coherency_line_size: "128" }]);
    const [cpu] = usableCpus() ?? [];
    if (cpu === 0) expect(machineLineSize(described)).toEqual({ bytes: 128, source: "system" });
    const typical = await Promise.all([
      typicalOn("linux", "x64"),
      typicalOn("linux", "arm64"),
      typicalOn("darwin", "arm64"),
    ]);
    expect(typical).toEqual(["64 typical", "64 typical", "128 typical"]);
  });
});

test("this machine has caches, each larger than the one before", () => {
  const { levels } = findCaches({ threads: 1 });
  const sizes = levels.map(({ bytes }) => bytes);
  expect(sizes.length).toBeGreaterThan(1);
  expect([...sizes].sort((a, b) => a - b)).toEqual(sizes);
});
