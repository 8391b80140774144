// A machine's roofs: where a sweep leaves the last level, what is measured, and what is kept and ignored.

import { beforeEach, describe, expect, test } from "bun:test";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import type { MachineRoofs } from "../../profiler/report.ts";
import { openLibrary } from "../../src/engine/library.ts";
import { findKnee, measurePeak, measureRoofs } from "../../src/engine/roofs.ts";
import { openStand } from "../../src/engine/stand.ts";
import { findRoofs, machineRoofs, measureMachine, roofsPath } from "../../src/roofs.ts";
import { temporaryFolder } from "../support/folder.ts";
import { keepVariables } from "../support/variables.ts";

const folder = temporaryFolder();
const library = await openLibrary();
const level = library.levels.findLastIndex(({ supported }) => supported);
keepVariables("TINYAI_HOME");
beforeEach(() => {
  process.env["TINYAI_HOME"] = folder.file("home");
  rmSync(folder.file("home"), { recursive: true, force: true });
});

const MiB = 2 ** 20;

describe("the knee", () => {
  /** Sizes by √2 from 16 KiB to 512 MiB, and what a machine with these caches reads there. */
  function sweepOf(read: (bytes: number) => number) {
    return Array.from({ length: 31 }, (_, index) => {
      const bytes = 2 ** (14 + index / 2);
      return { bytes, read: read(bytes) };
    });
  }
  /** Beyond a last level, a part of the lines still hits. */
  const machine = (secondLevel: number, lastLevel: number, last: number, memory: number) => (bytes: number) => {
    if (bytes <= secondLevel) return 500;
    if (bytes <= lastLevel) return last;
    const hits = Math.exp(-(bytes / lastLevel - 1));
    return 1 / (hits / last + (1 - hits) / memory);
  };

  test("is where reading leaves the last level, within the sweep's steps", () => {
    for (const lastLevel of [6, 12, 32, 100, 200]) {
      const knee = findKnee(sweepOf(machine(2 * MiB, lastLevel * MiB, 240, 50)), 2 * MiB);
      expect(knee / MiB / lastLevel).toBeGreaterThan(1 / Math.SQRT2);
      expect(knee / MiB / lastLevel).toBeLessThan(Math.SQRT2);
    }
  });

  test("is the second level's size where nothing behind it is faster than memory", () => {
    expect(
      findKnee(
        sweepOf((bytes) => (bytes <= 2 * MiB ? 500 : 50)),
        2 * MiB,
      ),
    ).toBe(2 * MiB);
    expect(findKnee([], 2 * MiB)).toBe(2 * MiB);
  });

  test("stays where it is when single sizes met a busy moment", () => {
    const quiet = sweepOf(machine(2 * MiB, 32 * MiB, 240, 50));
    const knee = findKnee(quiet, 2 * MiB);
    for (const [index, { bytes }] of quiet.entries()) {
      // But for the two sizes that it lies between.
      if (bytes > 22 * MiB && bytes < 65 * MiB) continue;
      const busy = quiet.map((point, at) => (at === index ? { ...point, read: point.read / 2 } : point));
      if (index === quiet.length - 1) continue;
      expect(findKnee(busy, 2 * MiB)).toBe(knee);
    }
  });
});

describe("a measurement", () => {
  test("has every level's bandwidths, nearer ones no slower to read than memory, and the peaks that the instructions have", async () => {
    const roofs = await measureRoofs(library, { level, threadCount: 2, freeBytes: 256 * MiB });
    if (!roofs) throw new Error("it gave up");
    expect(roofs).toMatchObject({ level: library.levels[level]?.name ?? "", threads: 2 });
    expect(roofs.bandwidth.map(({ name }) => name).slice(0, 2)).toEqual(["L1D", "L2"]);
    const memory = roofs.bandwidth.at(-1);
    expect(memory).toMatchObject({ name: "memory", workingBytes: 64 * MiB });
    for (const { read, write, copy } of roofs.bandwidth) {
      for (const speed of [read, write, copy]) expect(speed).toBeGreaterThan(0);
    }
    expect(roofs.bandwidth[0]?.read).toBeGreaterThan(memory?.read ?? Number.POSITIVE_INFINITY);
    const sizes = roofs.sweep.map(({ bytes }) => bytes);
    expect(sizes[0]).toBeLessThan(17 << 10);
    expect(sizes.at(-1)).toBeGreaterThan(120 * MiB);
    expect([...sizes].sort((a, b) => a - b)).toEqual(sizes);
    expect(roofs.lastLevelBytes).toBeGreaterThan(256 << 10);
    expect(roofs.peaks.float).toBeGreaterThan(0);
    expect(roofs.peaks.int8).toBeGreaterThan(0);
  });

  test("of a peak is 0 where the level has no such instructions", () => {
    for (const peak of ["float", "int8", "int16", "bf16"] as const) {
      const stand = openStand(library, { kernel: `peak_${peak}` }, { level: 0, threadCount: 1 });
      stand.run(1);
      expect(measurePeak(library, peak, { level: 0, threadCount: 1 }, 1) > 0).toBe(stand.counted > 0);
      stand.close();
    }
  });

  test("gives up as soon as it is asked to, and keeps nothing then", async () => {
    let asked = 0;
    expect(await measureMachine(library, level, 1, () => ++asked > 6)).toBeUndefined();
    expect(findRoofs(library, level, 1)).toBeUndefined();
  });
});

describe("what is kept", () => {
  test("is found again by this machine, level and number of threads, and is as if it were not there where it is damaged", async () => {
    const measured = await machineRoofs(library, level, 1);
    expect(findRoofs(library, level, 1)).toEqual(measured as MachineRoofs);
    expect(await machineRoofs(library, level, 1)).toEqual(measured as MachineRoofs);
    expect(findRoofs(library, level, 2)).toBeUndefined();
    expect(level === 0 ? undefined : findRoofs(library, 0, 1)).toBeUndefined();
    const path = roofsPath(library, level, 1);
    expect(readdirSync(dirname(path)).length).toBe(1);
    const whole = readFileSync(path, "utf8");
    const { key, roofs } = JSON.parse(whole);
    const damaged = [
      { ...roofs, lastLevelBytes: -1 },
      { ...roofs, bandwidth: [] },
      { ...roofs, bandwidth: roofs.bandwidth.slice(0, -1) },
      { ...roofs, bandwidth: [{ ...roofs.bandwidth[0], read: null }, ...roofs.bandwidth.slice(1)] },
      { ...roofs, peaks: { ...roofs.peaks, float: 0 } },
      { ...roofs, peaks: {} },
      { ...roofs, sweep: [{ bytes: 1 }] },
      { ...roofs, sweep: "none" },
      [],
      null,
    ];
    const texts = damaged.map((value) => JSON.stringify({ key, roofs: value }));
    for (const text of ["", "{", "null", ...texts, JSON.stringify({ key: { ...key, version: 0 }, roofs })]) {
      writeFileSync(path, text);
      expect(findRoofs(library, level, 1)).toBeUndefined();
    }
    writeFileSync(path, whole);
    expect(findRoofs(library, level, 1)).toEqual(measured as MachineRoofs);
  });

  test("may not be writable: what was measured is good for one report", async () => {
    mkdirSync(folder.file("home"));
    writeFileSync(folder.file("home/roofs"), "");
    expect(await machineRoofs(library, level, 1)).toMatchObject({ threads: 1 });
    expect(findRoofs(library, level, 1)).toBeUndefined();
  });
});
