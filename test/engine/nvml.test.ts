// What GPUs are doing, as a made-up driver's library tells it.

import { dlopen } from "bun:ffi";
import { beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { type Gpu, openGpus, readGpus } from "../../src/engine/nvml.ts";
import { makeFakeNvml } from "../support/fake-nvml.ts";
import { temporaryFolder } from "../support/folder.ts";

// A first compilation takes its time on a loaded machine.
setDefaultTimeout(120_000);
const folder = temporaryFolder();
let path: string | undefined;

beforeAll(async () => {
  path = await makeFakeNvml(folder.path);
  if (path === undefined) console.warn("skipped: no Zig here to compile a made-up NVML with");
});

describe("GPUs", () => {
  test("are read with what their driver tells, and null where it does not", () => {
    if (path === undefined) return;
    const meter = openGpus(path);
    const first: Gpu = {
      name: "Imaginary A1",
      utilization: 40,
      memoryUtilization: 7,
      memoryTotal: 80e9,
      memoryUsed: 5e9,
      driver: "550.54",
    };
    const nothing = { utilization: null, memoryUtilization: null, memoryTotal: null, memoryUsed: null };
    expect(meter?.read()).toEqual([first, { ...first, name: "Imaginary A2", ...nothing }]);
    expect(meter?.read()[0]?.utilization).toBe(41);
    meter?.close();
    meter?.close();
    expect(meter?.read()).toEqual([]);
  });

  test("are let go when the meter is closed, once for each time it was opened", () => {
    if (path === undefined) return;
    // Holds the library in memory, so that its counts outlive the meters.
    const { symbols, close } = dlopen(path, { fake_open: { args: [], returns: "i32" } });
    const meters = [openGpus(path), openGpus(path)];
    expect(symbols.fake_open()).toBe(2);
    for (const meter of meters) meter?.close();
    expect(symbols.fake_open()).toBe(0);
    close();
  });

  test("are none where there is no such library, or it is another one", () => {
    expect(openGpus(folder.file("none.so"))).toBeUndefined();
    expect(openGpus(folder.write("text.so", "no library"))).toBeUndefined();
    expect(Array.isArray(readGpus())).toBe(true);
  });
});
