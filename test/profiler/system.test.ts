// What the system gives while it is watched: over made-up readings exactly, over this process's own with known loads, and in
// constant memory over days.

import { expect, test } from "bun:test";
import { join } from "node:path";
import type { Allocations } from "../../profiler/report.ts";
import { type SystemReading, SystemWatch, type SystemWatchOptions } from "../../profiler/system.ts";

const none = { unit: "bytes", count: 0, total: 0, min: 0, p50: 0, p90: 0, p99: 0, max: 0 } as const;
const allocations: Allocations = {
  count: 0,
  frees: 0,
  allocatedBytes: 0,
  freedBytes: 0,
  liveBytes: 0,
  peakLiveBytes: 0,
  sizes: none,
  lifetimes: none,
};

/** A watch over readings that the test makes: half a CPU, a fault each ms. */
function staged(changes: Partial<SystemWatchOptions> = {}) {
  const stage = { nowMs: 5000, residentBytes: 1e6, peak: 7e6, timers: [] as { everyMs: number; sample: () => void }[] };
  const read = (): SystemReading => ({
    atMs: stage.nowMs,
    residentBytes: stage.residentBytes,
    heapBytes: 1000,
    cpuNs: stage.nowMs * 5e5,
    minorFaults: stage.nowMs,
    majorFaults: 2,
    voluntarySwitches: 2 * stage.nowMs,
    involuntarySwitches: 9,
  });
  const watch = new SystemWatch({
    nativeBytes: () => 77,
    read,
    readPeak: () => stage.peak,
    every: (everyMs, sample) => {
      const timer = { everyMs, sample };
      stage.timers.push(timer);
      return () => stage.timers.splice(stage.timers.indexOf(timer), 1);
    },
    ...changes,
  });
  return { stage, watch };
}

test("sums are of the time watched, and a sample's since the one before", () => {
  const { stage, watch } = staged({ sampleIntervalMs: 50 });
  expect(stage.timers.map(({ everyMs }) => everyMs)).toEqual([50]);
  for (const nowMs of [5050, 5100]) {
    stage.nowMs = nowMs;
    stage.timers[0]?.sample();
  }
  stage.nowMs = 5130;
  const use = watch.stop(allocations);
  expect(stage.timers).toHaveLength(0);
  expect(use).toMatchObject({ minorFaults: 130, majorFaults: 0, voluntarySwitches: 260, involuntarySwitches: 0 });
  expect(use.cpuNs).toBe(65e6);
  expect(use.samples.map(({ atMs }) => atMs)).toEqual([0, 50, 100, 130]);
  expect(use.samples.map(({ cpuPercent }) => cpuPercent)).toEqual([0, 50, 50, 50]);
  expect(use.samples.map(({ minorFaults }) => minorFaults)).toEqual([0, 50, 50, 30]);
  expect(use.samples[1]).toMatchObject({ residentBytes: 1e6, heapBytes: 1000, nativeBytes: 77, majorFaults: 0 });
});

test("the peak is the highest sample, or the system's own where that grew", () => {
  const before = staged();
  before.stage.residentBytes = 3e6;
  before.watch.sample();
  before.stage.residentBytes = 2e6;
  // 7 MB were resident before anybody watched.
  expect(before.watch.stop(allocations).peakResidentBytes).toBe(3e6);
  const between = staged();
  between.stage.peak = 8e6;
  expect(between.watch.stop(allocations).peakResidentBytes).toBe(8e6);
});

test("days take as many samples as hours, evenly spaced, and lose no fault", () => {
  const { stage, watch } = staged({ sampleIntervalMs: 100, samplesMax: 64 });
  const endMs = stage.nowMs + 3 * 86_400_000;
  while (stage.nowMs < endMs) {
    const [timer] = stage.timers;
    if (!timer || stage.timers.length !== 1) throw new Error("one timer is expected");
    stage.nowMs += timer.everyMs;
    timer.sample();
    expect(watch.samples.length).toBeLessThanOrEqual(64);
  }
  expect(watch.intervalMs).toBeGreaterThan(1e6);
  const use = watch.stop(allocations);
  expect(use.samples.length).toBeGreaterThan(30);
  const gaps = use.samples.slice(1, -2).map(({ atMs }, index) => atMs - (use.samples[index]?.atMs ?? 0));
  expect(Math.max(...gaps)).toBeLessThanOrEqual(watch.intervalMs);
  expect(use.samples.reduce((sum, { minorFaults }) => sum + minorFaults, 0)).toBe(use.minorFaults);
  for (const { cpuPercent } of use.samples.slice(1, -1)) expect(cpuPercent).toBeCloseTo(50, 6);
});

test("an interval out of bounds is refused", () => {
  for (const sampleIntervalMs of [9, 60_001, Number.NaN]) {
    expect(() => staged({ sampleIntervalMs })).toThrow("sampleIntervalMs");
  }
});

test("a process's memory and time show what it did", async () => {
  // In one of its own: this one may give back as much as it takes meanwhile.
  const module = join(import.meta.dir, "../../profiler/system.ts");
  const source = `
    const { SystemWatch } = await import(${JSON.stringify(module)});
    const watch = new SystemWatch({ nativeBytes: () => 0, sampleIntervalMs: 10 });
    const bytes = new Uint8Array(64 << 20).fill(1);
    const end = performance.now() + 100;
    while (performance.now() < end);
    await Bun.sleep(60);
    const use = watch.stop({});
    const resident = process.memoryUsage.rss();
    console.log(JSON.stringify({ use, resident, last: bytes.at(-1) }));`;
  const child = Bun.spawn([process.execPath, "-e", source], { stdout: "pipe", stderr: "inherit", timeout: 20_000 });
  const { use, resident, last } = JSON.parse(await new Response(child.stdout).text());
  expect(last).toBe(1);
  expect(use.samples.length).toBeGreaterThanOrEqual(4);
  expect(use.peakResidentBytes - use.samples[0].residentBytes).toBeGreaterThan(48 << 20);
  expect(use.cpuNs).toBeGreaterThan(50e6);
  expect(use.minorFaults).toBeGreaterThan(0);
  expect(Math.abs(use.samples.at(-1).residentBytes - resident)).toBeLessThan(32 << 20);
});

test("watching keeps no process alive", async () => {
  const module = JSON.stringify(new URL("../../profiler/system.ts", import.meta.url).pathname);
  const source = `import { SystemWatch } from ${module}; new SystemWatch({ nativeBytes: () => 0 });`;
  const child = Bun.spawn([process.execPath, "-e", source], { stdout: "ignore", stderr: "pipe", timeout: 10_000 });
  expect(await new Response(child.stderr).text()).toBe("");
  expect(await child.exited).toBe(0);
});
