// What the memory benchmark is made of: the resident peak, the growth of JavaScript's heap, native allocations.

import { expect, setDefaultTimeout, test } from "bun:test";
import { NativeSamples } from "../../../src/benchmark/memory/allocations.ts";
import { heapGrowth, measureJavaScript } from "../../../src/benchmark/memory/javascript.ts";
import { openPeak } from "../../../src/benchmark/memory/peak.ts";
import { openBandwidth } from "../../../src/engine/bandwidth.ts";
import { watchCollections } from "../../../src/engine/collections.ts";
import { chooseLevel } from "../../../src/engine/cpu.ts";
import { openLibrary } from "../../../src/engine/library.ts";

setDefaultTimeout(60_000);

const library = openLibrary();
const level = chooseLevel(library, undefined).index;
const MiB = 1 << 20;

test.skipIf(process.platform !== "linux")("a peak is seen though it is over, and not any more after a reset", () => {
  const peak = openPeak();
  expect(peak.exact).toBe(true);
  const before = process.memoryUsage.rss();
  const meter = openBandwidth(library, { level, threadCount: 1, bytesMax: 64 * MiB });
  peak.reset();
  meter.measure("write", 64 * MiB, 64 * MiB);
  meter.close();
  expect(peak.read()).toBeGreaterThan(before + 60 * MiB);
  peak.reset();
  expect(peak.read()).toBeLessThan(before + 32 * MiB);
  peak.close();
});

test("objects are counted one by one", async () => {
  const collections = watchCollections(library);
  if (!collections) throw new Error("collections cannot be watched");
  class Counted {
    readonly a = 1;
    readonly b = 2;
  }
  const held: Counted[] = [];
  const make = async () => {
    for (let made = 0; made < 20_000; made++) held.push(new Counted());
  };
  const found = await measureJavaScript(make, collections, { rounds: 3, timeMs: 30_000, seed: 1 });
  for (const objects of found?.objects?.samples ?? [0]) expect(objects).toBeWithin(19_950, 20_050);
  const [most] = found?.types ?? [];
  expect(most?.objects).toBeWithin(19_950, 20_050);
  // The objects of counting are no part of it.
  const nothing = await measureJavaScript(async () => {}, collections, { rounds: 3, timeMs: 30_000, seed: 1 });
  for (const objects of nothing?.objects?.samples ?? [1000]) expect(objects).toBeWithin(-20, 20);
});

test("work in which the collector runs is no sample", async () => {
  const collections = watchCollections(library);
  if (!collections) throw new Error("collections cannot be watched");
  let count = 0;
  const told: typeof collections = Object.create(collections, {
    count: { get: () => count },
    lend: { value: () => {} },
  });
  expect(await heapGrowth(async () => count++, told)).toBeUndefined();
  expect(await heapGrowth(async () => {}, told)).toBeDefined();
});

test("native allocations are the library's own: so many pieces, of so many bytes, that lived so long", async () => {
  const native = new NativeSamples(library);
  const open = async () => openBandwidth(library, { level, threadCount: 1, bytesMax: 3 * MiB });
  (await native.take(open)).close();
  native.forget();
  // One is closed within the sample after its own.
  const first = await native.take(open);
  await native.take(async () => first.close());
  (await native.take(open)).close();
  const { count, bytes, sizes, lifetimes } = native.stop(1);
  const [pieces = 0, none, again] = count?.samples ?? [];
  // Opened anew it takes the same: the working set, which the meter maps with a page more, and little beside.
  expect([none, again]).toEqual([0, pieces]);
  expect(bytes?.samples?.[0]).toBeWithin(3 * MiB + 4096, 3 * MiB + 300_000);
  expect(bytes?.samples?.[1]).toBe(0);
  expect(sizes?.max).toBeWithin(3 * MiB + 4096, 3 * MiB + 12_000);
  // Sizes are of all that was watched, the one that was forgotten too.
  expect(sizes?.count).toBe(3 * pieces);
  expect(lifetimes?.count).toBe(sizes?.count as number);
  expect(lifetimes?.max).toBeGreaterThan(0);
});

test("work that allocates nothing has samples of nothing, and no sizes", async () => {
  const native = new NativeSamples(library);
  await native.take(async () => {});
  expect(native.stop(1)).toEqual({
    count: { mean: 0, std: 0, min: 0, max: 0, samples: [0] },
    bytes: { mean: 0, std: 0, min: 0, max: 0, samples: [0] },
  });
});
