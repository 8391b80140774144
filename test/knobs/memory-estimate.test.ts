// What a model is said to take of memory before it is loaded, beside what the system says that it takes: after a short request, and
// after the most that it can be asked for.

import { describe, expect, test } from "bun:test";
import { cpu, estimateMemory, type LoadOptions, loadModel, type MemoryPart } from "../../src/index.ts";
import { temporaryFolder } from "../support/folder.ts";
import { residentOf, runMost, runShort } from "../support/memory-use.ts";
import { writeTinyEncoderFolder } from "../support/tiny-encoder.ts";
import { writeTinyModel } from "../support/tiny-model.ts";

const folder = temporaryFolder();
/** How far an estimate may be from what is measured. */
const tolerance = 0.03;

const gemma = folder.file("gemma.gguf");
writeTinyModel(gemma, {
  architecture: "gemma3",
  dtype: "Q8_0",
  layers: 6,
  width: 512,
  headWidth: 64,
  slidingWindow: 64,
  context: 1024,
});
const llama = folder.file("llama.gguf");
writeTinyModel(llama, { dtype: "F16", layers: 4, width: 256, headWidth: 64, vocabulary: 8192, context: 512 });
const encoder = writeTinyEncoderFolder(folder.file("encoder"), {});

const cases: readonly [name: string, path: string, options: LoadOptions][] = [
  ["gemma3 with windows", gemma, { contextLength: 512, batchSize: 4, prefixCache: { maxBytes: 2e6 } }],
  ["gemma3 with a short context, nothing kept", gemma, { contextLength: 256, batchSize: 16, prefixCache: false }],
  [
    "gemma3 with keys and values in Q8_0 and a screen",
    gemma,
    { contextLength: 512, batchSize: 2, kvCache: "q8_0", screening: true, prefixCache: false },
  ],
  ["llama with a larger vocabulary", llama, { batchSize: 8, prefixCache: false }],
];

describe.skipIf(process.platform !== "linux")("the memory of", () => {
  for (const [name, path, own] of cases) {
    // On a busy machine a second thread may come too late to touch what is its own.
    const options = { ...own, threads: { count: 1 } };
    test(`${name} is what was said before it was loaded`, async () => {
      const before = await estimateMemory(path, options);
      await using model = await loadModel(path, options);
      expect(model.estimateMemory()).toEqual(before);
      await runShort(model);
      expect(Math.abs(residentOf(model) / before.minMemory - 1)).toBeLessThan(tolerance);
      await runMost(model);
      expect(Math.abs(residentOf(model) / before.maxMemory - 1)).toBeLessThan(tolerance);
    });
  }
});

test.skipIf(cpu.cores === 1)(
  "threads that were there count on: they leave their memory to those that may come",
  async () => {
    await using model = await loadModel(gemma, { contextLength: 256, threads: { count: 2 } });
    const before = model.estimateMemory();
    await model.setThreadCount(1);
    expect(model.estimateMemory()).toEqual(before);
  },
);

test("what an engine has set aside is what the library says of its program", async () => {
  for (const [path, options] of [
    [gemma, { batchSize: 3 }],
    [encoder, {}],
  ] as const) {
    await using model = await loadModel(path, options);
    const { taken } = model.memoryInUse();
    const { parts } = model.estimateMemory();
    // What is wholly written from the start is the same in all three.
    for (const name of [
      "weights",
      "constants",
      "screen",
      "program",
      "pageLists",
      "engine",
    ] as const satisfies MemoryPart[]) {
      const part = parts.find((each) => each.name === name);
      expect([name, part?.minimum, part?.maximum]).toEqual([name, taken[name], taken[name]]);
    }
  }
});
