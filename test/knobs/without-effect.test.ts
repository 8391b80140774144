// Knobs that change nothing are named by the plan, with the reason, for as long as they do.

import { expect, test } from "bun:test";
import { cpu, loadModel, type Model } from "../../src/index.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyEncoderFolder } from "../support/tiny-encoder.ts";
import { writeTinyModel } from "../support/tiny-model.ts";

const folder = temporaryFolder();
const path = folder.file("tiny.gguf");
writeTinyModel(path);

const named = (model: Model) => model.plan().withoutEffect.map(({ knob }) => knob);

test("a model without convolutions has no use for their switch, and its plan prints why", async () => {
  await using model = await loadModel(path);
  expect(named(model)).toContain("simd.conv");
  expect(named(model)).not.toContain("simd.matmul");
  const reason = model.plan().withoutEffect.find(({ knob }) => knob === "simd.conv")?.reason ?? "";
  expect(reason.length).toBeGreaterThan(10);
  expect(String(model.plan())).toContain(reason);
});

test("a knob that another switches off is named until that is on again", async () => {
  await using model = await loadModel(path, { cache: { enablePrefetch: false } });
  expect(named(model)).toContain("cache.prefetchDistance");
  await model.configureCacheOptimization({ enablePrefetch: true });
  expect(named(model)).not.toContain("cache.prefetchDistance");
});

test("the size of cache lines is named where nothing is asked for ahead and no block is counted in them", async () => {
  await using model = await loadModel(path, { cache: { enablePrefetch: false } });
  expect(named(model)).toContain("cache.cacheLineSize");
  await model.configureCacheOptimization({ blockSize: 100 });
  expect(named(model)).not.toContain("cache.cacheLineSize");
  await using usual = await loadModel(path);
  expect(named(usual)).not.toContain("cache.cacheLineSize");
});

test("a model that keeps no keys and values has no use for what is said of them", async () => {
  await using encoder = await loadModel(writeTinyEncoderFolder(folder.file("encoder"), {}), { prefixCache: false });
  expect(named(encoder)).toContain("kvCache");
  expect(named(encoder)).toContain("prefixCache");
  await using model = await loadModel(path);
  expect(named(model)).not.toContain("kvCache");
  expect(named(model)).not.toContain("prefixCache");
});

test.skipIf(cpu.cores === 1)("a limit that the threads cannot reach is named until it is lower", async () => {
  await using model = await loadModel(path, { threads: { count: 1 }, limits: { cpuPercent: 99 } });
  expect(named(model)).toContain("limits.cpuPercent");
  await model.setCpuLimit(1);
  expect(named(model)).not.toContain("limits.cpuPercent");
});
