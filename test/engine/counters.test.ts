// The CPU's counters: opening, grouping and reading with the kernel's own events, which need no hardware; the refusal in words
// where there is no hardware for them; and what becomes of counts.

import { afterAll, describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import type { CacheGeometry } from "../../profiler/report.ts";
import {
  hardwareCacheStatistics,
  openGroup,
  openHardwareCounters,
  reasonOf,
  softwareEvents,
} from "../../src/engine/counters.ts";
import { openLibrary } from "../../src/engine/library.ts";
import { complete, encodePrompt, streamTokens } from "../../src/generate/generate.ts";
import { checkGenerateOptions } from "../../src/generate/options.ts";
import { openEngine } from "../support/engine.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyModel } from "../support/gguf-writer.ts";

const folder = temporaryFolder();
const path = folder.file("tiny.gguf");
writeTinyModel(path);
const library = await openLibrary();
const opened = await openEngine(path, {}, { threadCount: 2 });
afterAll(() => opened.engine.close());
const { threadIds } = opened.engine;
const linux = process.platform === "linux";

async function generate(): Promise<void> {
  const options = checkGenerateOptions({ maxLength: 60, ignoreEos: true, seed: 3n }, 16);
  await complete(streamTokens(opened, await encodePrompt(opened, "hello", options), options));
}

test.if(linux)("the threads of an engine are threads of this process, each another", () => {
  const all = readdirSync("/proc/self/task").map(Number);
  expect(threadIds).toHaveLength(2);
  expect(new Set(threadIds).size).toBe(2);
  for (const id of threadIds) expect(all).toContain(id);
});

describe.if(linux)("events that the kernel counts", () => {
  const group = openGroup(library, threadIds, softwareEvents);
  const refused = "refused" in group ? group.refused : 0;
  if (refused !== 0) console.log(`counters: not run: software events are refused here: ${reasonOf(refused)}`);

  test.if(refused === 0)("are read as a group over the threads, and grow with work", async () => {
    if ("refused" in group) return;
    await generate();
    const first = group.read();
    await generate();
    const second = group.read();
    expect(first.counts.taskClockNs).toBeGreaterThan(0);
    expect(second.counts.taskClockNs).toBeGreaterThan(first.counts.taskClockNs ?? 0);
    expect(second.counts.contextSwitches).toBeGreaterThanOrEqual(first.counts.contextSwitches ?? 0);
    expect(second.countedShare).toBeCloseTo(1, 1);
    group.close();
    group.close();
    expect(() => group.read()).toThrow("closed");
  });

  test.if(refused === 0)(
    "leave an event out that the system does not have, and count the others in their places",
    async () => {
      const unknown = { type: 1, config: 9999 };
      const { taskClockNs, contextSwitches } = softwareEvents;
      const mixed = openGroup(library, threadIds, { unknown, taskClockNs, other: unknown, contextSwitches });
      if ("refused" in mixed) throw new Error("refused");
      await generate();
      const { counts } = mixed.read();
      mixed.close();
      expect(counts).toMatchObject({ unknown: null, other: null });
      expect(counts.taskClockNs).toBeGreaterThan(0);
      expect(counts.contextSwitches).not.toBeNull();
    },
  );

  test("leave no file open when they are closed or refused", () => {
    const count = () => readdirSync("/proc/self/fd").length;
    const before = count();
    for (let index = 0; index < 10; index++) {
      const some = openGroup(library, threadIds, softwareEvents);
      if (!("refused" in some)) some.close();
      openGroup(library, threadIds, { unknown: { type: 1, config: 9999 } });
    }
    expect(count()).toBeLessThanOrEqual(before);
  });
});

test("of a thread that is not there, none are counted", () => {
  const group = openGroup(library, [0x7ffffff0], softwareEvents);
  if (!("refused" in group)) throw new Error("a refusal is expected");
  expect(reasonOf(group.refused).length).toBeGreaterThan(10);
});

test("hardware counters either count, or say in words why not", async () => {
  const counters = openHardwareCounters(library, threadIds);
  if ("reason" in counters) {
    console.log(`counters: hardware events not run: ${counters.reason}`);
    expect(counters.reason).toMatch(/hardware counters|first-level cache|perf_event_open/);
    return;
  }
  await generate();
  const counts = counters.read();
  counters.close();
  expect(counts.l1Reads).toBeGreaterThan(counts.l1Misses ?? 0);
});

test("each refusal has its own words", () => {
  expect(reasonOf(13)).toContain("perf_event_paranoid=2");
  expect(reasonOf(2)).toContain("virtual machines");
  expect(reasonOf(38)).toContain("perf_event_open");
  expect(reasonOf(7)).toContain("error 7");
});

describe("counts as cache statistics", () => {
  const geometry: CacheGeometry[] = [
    { name: "L1D", bytes: 49152, ways: 12, lineBytes: 64, sharedBy: 1 },
    { name: "L3", bytes: 1 << 25, ways: 16, lineBytes: 64, sharedBy: 2 },
  ];
  const counts = {
    cycles: 1000,
    instructions: 2000,
    l1Reads: 500,
    l1Misses: 50,
    lastLevelReads: 40,
    lastLevelMisses: 10,
    tlbMisses: 3,
    countedShare: 1,
  };

  test("hit rates come from reads and misses, bytes from memory from the last level's misses", () => {
    const statistics = hardwareCacheStatistics(counts, geometry, 7);
    expect(statistics).toMatchObject({ source: "hardware counters", hitRate: 0.9, memoryBytes: 640, steps: 7 });
    expect(statistics.levels).toEqual([
      { name: "L1D", accesses: 500, hits: 450, misses: 50, hitRate: 0.9 },
      { name: "L3", accesses: 40, hits: 30, misses: 10, hitRate: 0.75 },
    ]);
    expect(statistics).toMatchObject({ cycles: 1000, instructions: 2000, tlbMisses: 3 });
  });

  test("a last level that is not counted is left out and said to be, and so is scaling", () => {
    const missing = { ...counts, lastLevelReads: null, lastLevelMisses: null, countedShare: 0.5 };
    const statistics = hardwareCacheStatistics(missing, geometry, 7);
    expect(statistics.levels.map(({ name }) => name)).toEqual(["L1D"]);
    expect(statistics.memoryBytes).toBe(0);
    expect(statistics.description).toContain("50 % of the time");
    expect(statistics.description).toContain("not known");
  });
});
