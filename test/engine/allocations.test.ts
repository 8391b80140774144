// What the native library allocates: that sums are those of what was made and freed, that a watch sees each change, and that
// generating allocates nothing.

import { expect, test } from "bun:test";
import { AllocationWatch, nativeMemory } from "../../src/engine/allocations.ts";
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
const { symbols } = library;
const megabyte = 1 << 20;

test("memory of a known size is counted, kept and let go", () => {
  const before = nativeMemory(library);
  const watch = new AllocationWatch(library);
  const meter = symbols.tinyai_bandwidth_create(5 * megabyte, 0, 1);
  if (!meter || typeof meter === "bigint") throw new Error("no memory");
  const between = nativeMemory(library);
  expect(between.count - before.count).toBe(2);
  expect(between.liveBytes - before.liveBytes).toBe(between.allocatedBytes - before.allocatedBytes);
  expect(between.liveBytes - before.liveBytes).toBeGreaterThan(5 * megabyte);
  expect(between.liveBytes - before.liveBytes).toBeLessThan(5 * megabyte + 16_384);
  Bun.sleepSync(20);
  symbols.tinyai_bandwidth_destroy(meter);
  const result = watch.stop();
  expect(result).toMatchObject({ count: 2, frees: 2, liveBytes: before.liveBytes, peakLiveBytes: between.liveBytes });
  expect(result.allocatedBytes).toBe(result.freedBytes);
  expect(result.sizes).toMatchObject({
    unit: "bytes",
    count: 2,
    total: result.allocatedBytes,
    max: 5 * megabyte + 4096,
  });
  expect(result.lifetimes).toMatchObject({ unit: "ns", count: 2 });
  expect(result.lifetimes.min).toBeGreaterThanOrEqual(20e6);
  expect(result.lifetimes.max).toBeLessThan(10e9);
});

test("two watches at once see the same, each from its beginning", () => {
  const make = () => {
    const meter = symbols.tinyai_bandwidth_create(megabyte, 0, 1);
    if (!meter || typeof meter === "bigint") throw new Error("no memory");
    symbols.tinyai_bandwidth_destroy(meter);
  };
  const long = new AllocationWatch(library);
  make();
  const short = new AllocationWatch(library);
  make();
  expect(short.stop()).toMatchObject({ count: 2, sizes: { count: 2 }, lifetimes: { count: 2 } });
  make();
  expect(long.stop()).toMatchObject({ count: 6, sizes: { count: 6 }, lifetimes: { count: 6 } });
});

test("what is not drained is counted as lost, and sums stay right", () => {
  const before = nativeMemory(library);
  const watch = new AllocationWatch(library);
  for (let index = 0; index < 400; index++) {
    const meter = symbols.tinyai_bandwidth_create(4096, 0, 1);
    if (!meter || typeof meter === "bigint") throw new Error("no memory");
    symbols.tinyai_bandwidth_destroy(meter);
  }
  const result = watch.stop();
  expect(result).toMatchObject({ count: 800, frees: 800, liveBytes: before.liveBytes });
  expect(result.sizes.count + result.lifetimes.count).toBe(1024);
  expect(nativeMemory(library).lost - before.lost).toBe(1600 - 1024);
});

test("an engine gives back all it took, address space as well", async () => {
  const before = nativeMemory(library);
  const watch = new AllocationWatch(library);
  const { engine, plan } = await openEngine(path);
  const between = nativeMemory(library);
  expect(between.liveBytes - before.liveBytes).toBeGreaterThan(plan.weightsBytes + plan.constantsBytes);
  expect(between.reservedBytes - before.reservedBytes).toBeGreaterThan(plan.arenaBytes);
  await engine.close();
  const after = nativeMemory(library);
  expect(after.liveBytes).toBe(before.liveBytes);
  expect(after.reservedBytes).toBe(before.reservedBytes);
  const result = watch.stop();
  expect(result.frees).toBe(result.count);
  expect(result.lifetimes.count).toBe(result.count);
  expect(result.peakLiveBytes).toBeGreaterThanOrEqual(between.liveBytes);
});

test("generating allocates nothing once a model is loaded", async () => {
  const opened = await openEngine(path, {}, { threadCount: 2 });
  const before = nativeMemory(library);
  const watch = new AllocationWatch(library);
  const options = checkGenerateOptions({ maxLength: 50, ignoreEos: true, topLogprobs: 3, seed: 5n }, 16);
  const run = async (text: string) =>
    complete(streamTokens(opened, await encodePrompt(opened, text, options), options));
  await Promise.all(["hello", "hello world", "other"].map(run));
  await run("hello world again");
  const result = watch.stop();
  expect(result).toMatchObject({ count: 0, frees: 0, allocatedBytes: 0, liveBytes: before.liveBytes });
  expect(nativeMemory(library)).toEqual(before);
  await opened.engine.close();
});
