// The memory benchmark of tiny models: what it finds beside what the library says of itself, and what an interruption leaves of it.

import { expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync } from "node:fs";
import { NativeSamples } from "../../../src/benchmark/memory/allocations.ts";
import { measureBandwidth } from "../../../src/benchmark/memory/bandwidth.ts";
import { memory } from "../../../src/benchmark/memory.ts";
import { type BenchmarkResults, metrics, type Settings } from "../../../src/benchmark/results.ts";
import { parseResults } from "../../../src/benchmark/results-file.ts";
import { chooseLevel } from "../../../src/engine/cpu.ts";
import { openLibrary } from "../../../src/engine/library.ts";
import { EngineError } from "../../../src/errors.ts";
import { estimateMemory, loadModel } from "../../../src/index.ts";
import { temporaryFolder } from "../../support/folder.ts";
import { writeTinyEncoder } from "../../support/tiny-encoder.ts";
import { writeTinyModel } from "../../support/tiny-model.ts";
import { keepVariables } from "../../support/variables.ts";

setDefaultTimeout(60_000);

const folder = temporaryFolder();
keepVariables("TINYAI_HOME");
process.env["TINYAI_HOME"] = folder.file("home");

const model = folder.file("tiny.gguf");
writeTinyModel(model, { architecture: "gemma3", dtype: "Q8_0", heads: 2, headWidth: 32, layers: 3 });
const encoder = folder.file("encoder.gguf");
writeTinyEncoder(encoder, { heads: 2 });

const settings: Settings = {
  iterations: 3,
  time_s: 2,
  precision: 0.02,
  warmup: 1,
  batch_sizes: [2, 1],
  metrics,
  prompt_tokens: 8,
  generated_tokens: 5,
  threads: 1,
  simd: null,
  seed: 1,
};

function resultsOf({ figures, ...info }: Awaited<ReturnType<typeof memory.run>>): BenchmarkResults {
  const { details, methodology, warnings, interrupted } = info;
  const about = { model: "tiny.gguf", type: "memory", timestamp: "2024-03-21T10:00:00Z", version: 1 } as const;
  const system_info = { cpu: "a", memory: "1GB", os: "Linux 6.1" };
  const described = { ...about, system_info, settings, methodology, warnings, interrupted };
  return { benchmark_info: { ...described, ...(details && { model_details: details }) }, results: figures };
}

test("finds what a model takes, as the model itself and the estimate say it, and is a valid file", async () => {
  const doings: string[] = [];
  const shares: number[] = [];
  const onProgress = (share: number, doing: string) => {
    shares.push(share);
    if (doings.at(-1) !== doing) doings.push(doing);
  };
  const measured = await memory.run({ model, settings, onProgress });
  const { figures } = measured;
  expect(JSON.parse(JSON.stringify(parseResults(resultsOf(measured), "results")))).toEqual(
    JSON.parse(JSON.stringify(resultsOf(measured))),
  );
  expect(measured.interrupted).toBe(false);
  expect(measured.methodology.join()).toContain(
    "warms up for 1 iterations of its own; measuring it ends after 3 iterations, or after 0.3 s. Of other figures there are 3 samples",
  );

  const { loading, running, parts = [], allocations, cache, bandwidth } = figures.memory ?? {};
  const estimate = await estimateMemory(model, { threads: { count: 1 } });
  const loaded = await loadModel(model, { threads: { count: 1 } });
  const { taken } = loaded.memoryInUse();
  await loaded.close();
  for (const { name, minimum, maximum } of estimate.parts) {
    const part = parts.find((each) => each.name === name);
    if (taken[name] === 0) continue;
    expect(part?.taken).toBeCloseTo(taken[name] / 1e6, 9);
    expect(part?.estimated_min).toBeCloseTo(minimum / 1e6, 9);
    expect(part?.estimated_max).toBeCloseTo(maximum / 1e6, 9);
    expect(part?.resident).toBeWithin(0, (part?.taken ?? 0) + 1e-9);
  }
  const weights = parts.find(({ name }) => name === "weights");
  // The process has the weights in memory, and Bun.
  expect(running?.peak?.min).toBeGreaterThan((weights?.resident ?? Number.POSITIVE_INFINITY) + 10);
  expect(loading?.peak?.samples?.length).toBeWithin(1, 4);
  expect(loading?.time?.min).toBeGreaterThan(0);
  expect(allocations?.loading?.count?.min).toBeGreaterThan(0);
  // A model takes its memory when it is loaded, and none for a request.
  expect(allocations?.native?.bytes?.max).toBe(0);
  expect(allocations?.javascript?.collections?.count).toBeGreaterThanOrEqual(0);
  for (const { accesses, hits, hit_rate } of cache?.levels ?? []) {
    expect(hit_rate).toBeCloseTo(accesses === 0 ? 1 : hits / accesses, 9);
  }
  expect(cache?.levels?.[0]?.name).toBe("L1D");
  // Two profiled iterations, of a prompt and four more tokens each; how many steps two requests share is the engine's affair.
  expect(cache?.steps).toBeWithin(10, 25);
  expect(bandwidth?.at(-1)?.name).toBe("memory");

  // The guide's fields are of the first batch size, not of the smallest one.
  expect(Object.keys(figures.by_batch_size ?? {}).sort()).toEqual(["1", "2"]);
  expect(figures.latency).toEqual(figures.by_batch_size?.["2"]?.latency as NonNullable<typeof figures.latency>);
  expect(figures.latency?.samples).toHaveLength(3);
  expect(figures.memory_usage?.samples).toEqual(running?.peak?.samples as number[]);

  expect(shares).toEqual([...shares].sort((a, b) => a - b));
  expect(doings).toHaveLength(5);
});

test("measures a model that only embeds", async () => {
  const controller = new AbortController();
  // The machine's bandwidth is the same.
  const onProgress = (_: number, doing: string) => doing.startsWith("bandwidth") && controller.abort();
  const context = { model: encoder, settings, signal: controller.signal, onProgress };
  const { figures, settings: used, methodology } = await memory.run(context);
  expect(used?.generated_tokens).toBe(0);
  expect(methodology.join()).toContain("the vector of a text of 8 tokens");
  expect(figures.memory?.running?.peak?.samples).toHaveLength(3);
});

test("what was measured before an interruption is kept", async () => {
  for (const [until, kept, missing] of [
    ["requests", ["loading", "running"], ["cache", "bandwidth"]],
    ["bandwidth of the caches and of memory", ["loading", "running", "parts", "cache"], ["bandwidth"]],
  ] as const) {
    const controller = new AbortController();
    const onProgress = (_: number, doing: string) => doing === until && controller.abort();
    const measured = await memory.run({ model, settings, signal: controller.signal, onProgress });
    expect(measured.interrupted).toBe(true);
    parseResults(resultsOf(measured), "results");
    const found = measured.figures.memory ?? {};
    expect(Object.keys(found)).toEqual(expect.arrayContaining([...kept]));
    for (const name of missing) expect(found).not.toHaveProperty(name);
  }
  const reason = new Error("no more");
  const refused = memory.run({ model, settings, signal: AbortSignal.abort(reason) });
  await expect(refused).rejects.toThrow("no more");
});

test("a part that cannot be measured is warned of, and the others are kept", async () => {
  const onProgress = (_: number, doing: string) => {
    if (doing.startsWith("bandwidth")) throw new EngineError("no threads are left");
  };
  const { figures, warnings, interrupted } = await memory.run({ model, settings, onProgress });
  expect(interrupted).toBe(false);
  expect(warnings).toContain("bandwidth: not measured: no threads are left");
  expect(Object.keys(figures.memory ?? {})).toEqual(expect.arrayContaining(["loading", "running", "parts", "cache"]));
  expect(figures.memory).not.toHaveProperty("bandwidth");
});

test("where no prepared copy can be kept, loading is that of the model file alone, which is said", async () => {
  const large = folder.file("large.gguf");
  writeTinyModel(large, { architecture: "llama", dtype: "F32", layers: 1, width: 512, ffn: 1024, vocabulary: 2048 });
  // The folder of the copies cannot be made.
  process.env["TINYAI_HOME"] = folder.file("full");
  mkdirSync(folder.file("full"));
  folder.write("full/prepared", "no folder");
  const controller = new AbortController();
  const onProgress = (_: number, doing: string) => doing === "requests" && controller.abort();
  const measured = await memory.run({ model: large, settings, signal: controller.signal, onProgress });
  process.env["TINYAI_HOME"] = folder.file("home");
  expect(measured.warnings.join()).toContain("No prepared copy of the model could be kept (");
  const native = new NativeSamples(openLibrary());
  const loaded = await native.take(() => loadModel(large, { threads: { count: 1 }, prepared: false }));
  await loaded.close();
  const [once = 0] = native.stop(1).count?.samples ?? [];
  expect(measured.figures.memory?.allocations?.loading?.count?.samples?.at(-1)).toBe(once);
});

test("bandwidth has every level's reading, writing and copying, each with its samples", async () => {
  const library = openLibrary();
  const options = {
    library,
    level: chooseLevel(library, undefined).index,
    threadCount: 1,
    rounds: 2,
    timeMs: 300,
    seed: 1,
  };
  const figures = await measureBandwidth(options);
  expect(figures.at(-1)?.name).toBe("memory");
  for (const { threads, working_bytes, read, write, copy } of figures) {
    expect(threads).toBe(1);
    expect(working_bytes).toBeGreaterThan(0);
    for (const traffic of [read, write, copy]) {
      expect(traffic?.samples?.length).toBeWithin(1, 3);
      // No machine has 10 TB/s, and none that runs this less than 10 MB/s.
      expect(traffic?.mean).toBeWithin(0.01, 10_000);
    }
  }
  expect(await measureBandwidth({ ...options, signal: AbortSignal.abort() })).toEqual([]);
  // What is free may be less than when the machine was measured for the first time.
  const scarce = measureBandwidth({ ...options, freeBytes: 100e6 });
  await expect(scarce).rejects.toThrow("bandwidth cannot be measured: only 100 MB of memory are free; free ");
});
