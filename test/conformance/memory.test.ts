// What `estimateMemory` says of real models before they are loaded, beside what the system says that they take, on two contexts each.

import { describe, expect, test } from "bun:test";
import { pullModel } from "../../src/cli/pull.ts";
import { estimateMemory, type LoadOptions, loadModel } from "../../src/index.ts";
import { residentOf, runMost, runShort } from "../support/memory-use.ts";
import { writeTinyModel } from "../support/tiny-model.ts";
import { cachePath } from "./harness.ts";

/** How far an estimate may be from what is measured. */
const tolerance = 0.03;

const random = cachePath("memory", "random-llama.gguf");
writeTinyModel(random, { dtype: "F16", layers: 8, width: 512, heads: 8, vocabulary: 16_384, context: 4096 });
const models = {
  "gemma3-270m": [
    { contextLength: 512, prefixCache: { maxBytes: 32e6 } },
    { contextLength: 1024, batchSize: 4, prefixCache: { maxBytes: 32e6 } },
  ],
  "all-minilm-l6-v2": [{ contextLength: 128 }, { contextLength: 512 }],
  "a random llama": [
    { contextLength: 512, prefixCache: false },
    { contextLength: 2048, batchSize: 4, kvCache: "q8_0" },
  ],
} as const satisfies Record<string, readonly LoadOptions[]>;

describe.skipIf(process.platform !== "linux")("the memory of", () => {
  for (const [name, cases] of Object.entries(models)) {
    for (const options of cases) {
      test(`${name} with ${JSON.stringify(options)} is what was said before it was loaded`, async () => {
        const path = name === "a random llama" ? random : (await pullModel(name)).path;
        // Weights that are packed when they are loaded take another way: the copy is there for both.
        await using first = await loadModel(path);
        await first.close();
        const estimate = await estimateMemory(path, options);
        await using model = await loadModel(path, options);
        await runShort(model);
        const least = residentOf(model);
        await runMost(model);
        const most = residentOf(model);
        const megabytes = (bytes: number) => (bytes / 1e6).toFixed(1);
        const [said, took] = [
          [estimate.minMemory, estimate.maxMemory],
          [least, most],
        ];
        console.log(
          `${name} ${JSON.stringify(options)}: said ${said.map(megabytes)} MB, took ${took.map(megabytes)} MB`,
        );
        expect(Math.abs(least / estimate.minMemory - 1)).toBeLessThan(tolerance);
        expect(Math.abs(most / estimate.maxMemory - 1)).toBeLessThan(tolerance);
      }, 300_000);
    }
  }
});
