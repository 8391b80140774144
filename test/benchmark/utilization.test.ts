// What is seen used of the machine, beside the process's own clock and a made-up system file.

import { expect, test } from "bun:test";
import { mkdirSync } from "node:fs";
import { readCpuTicks } from "../../src/benchmark/machine/cpu-ticks.ts";
import { type Look, utilizationOf, watchUtilization } from "../../src/benchmark/utilization.ts";
import { cpuCapacity } from "../../src/engine/cpu.ts";
import { temporaryFolder } from "../support/folder.ts";

const folder = temporaryFolder();

test("the process's CPU time is a share of that of all CPUs it may use", async () => {
  const before = process.cpuUsage();
  const beganMs = performance.now();
  const watch = watchUtilization({ periodMs: 20 });
  while (performance.now() - beganMs < 300) {
    for (let work = 0; work < 1e6; work++) Math.sqrt(work);
    await Bun.sleep(0);
  }
  const { user, system } = process.cpuUsage(before);
  const share = (user + system) / 1000 / (performance.now() - beganMs) / cpuCapacity();
  // To compute figures takes time too.
  const { cpu, machine, gpu } = watch.stop();
  expect((cpu?.mean ?? 0) / (100 * share)).toBeWithin(0.8, 1.25);
  expect(cpu?.samples?.length).toBeGreaterThan(1);
  expect(machine?.mean).toBeWithin(0.001, 100.001);
  // None was handed over.
  expect(gpu).toBeUndefined();
});

test("of what is shorter than a period, one look tells", () => {
  const { cpu } = watchUtilization({ periodMs: 60_000 }).stop();
  expect(cpu?.samples).toHaveLength(1);
});

test("a GPU's share is the mean of those that tell", async () => {
  const gpu = { name: "fake", memoryUtilization: null, memoryTotal: null, memoryUsed: null, driver: null };
  const gpus = {
    read: () => [
      { ...gpu, utilization: 30 },
      { ...gpu, utilization: 50 },
      { ...gpu, utilization: null },
    ],
    close() {},
  };
  expect(watchUtilization({ gpus, periodMs: 60_000 }).stop().gpu?.mean).toBe(40);
});

test("a period counts as often as it lasted, so that the mean is that of the whole time", () => {
  // Half of two CPUs for 10 ms, then all of them for 31 that nobody looked, then nothing for 9.
  const machine = (busy: number, total: number) => ({ busy, total });
  const looks: Look[] = [
    { atMs: 0, processMs: 5, machine: machine(100, 1000) },
    { atMs: 10, processMs: 15, machine: machine(101, 1002) },
    { atMs: 41, processMs: 77, machine: machine(107, 1008) },
    { atMs: 50, processMs: 77, machine: machine(107, 1010) },
  ];
  const { cpu, machine: all } = utilizationOf([looks], 10, 1, 2);
  expect(cpu?.samples).toEqual([50, 100, 100, 100, 0]);
  expect(cpu?.mean).toBe(70);
  expect(all?.samples).toEqual([50, 100, 100, 100, 0]);
});

test("short times are put together until they are half a period", () => {
  const looks = (atMs: number, processMs: number): Look[] => [
    { atMs, processMs: 0, machine: null },
    { atMs: atMs + 2, processMs, machine: null },
  ];
  // Of one CPU, 2 ms each: none, all and half of it.
  const times = [looks(0, 0), looks(10, 2), looks(20, 1), looks(30, 0)];
  expect(utilizationOf(times, 12, 1, 1).cpu?.samples).toEqual([50]);
  expect(utilizationOf(times, 4, 1, 1).cpu?.samples).toEqual([0, 100, 50, 0]);
  expect(utilizationOf(times, 100, 1, 1).cpu?.samples).toEqual([37.5]);
});

test("the machine's ticks are those of the CPUs that may be used, guests counted once, and stolen ones by themselves", () => {
  mkdirSync(folder.file("proc"));
  folder.write(
    "proc/stat",
    `cpu  1000 0 0 9000 0 0 0 0 0 0
cpu0 100 20 30 800 40 5 6 7 50 3
cpu1 1 2 3 4 5 6 7 8 0 0
cpu12 900 0 0 100 0 0 0 0 0 0
intr 1 2 3
`,
  );
  const read = (numbers?: readonly number[]) => readCpuTicks(numbers, folder.path);
  expect(read([0, 1])).toEqual({ cpus: 2, busy: 161 + 19, stolen: 15, total: 1008 + 36 });
  expect(read([12])).toEqual({ cpus: 1, busy: 900, stolen: 0, total: 1000 });
  expect(read()).toEqual({ cpus: 3, busy: 161 + 19 + 900, stolen: 15, total: 1008 + 36 + 1000 });
  expect(readCpuTicks(undefined, folder.file("none"))).toBeNull();
});
