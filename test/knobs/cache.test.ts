// How kernels use the caches: that each value asked for changes what kernels read, ask for and keep, and no result; what is
// refused; and that what is read back says what holds.

import { afterAll, describe, expect, test } from "bun:test";
import { regions } from "../../profiler/report.ts";
import type { TracedOp } from "../../profiler/tracing.ts";
import type { Engine } from "../../src/engine/engine.ts";
import { openLibrary } from "../../src/engine/library.ts";
import { levelsOf } from "../../src/engine/settings.ts";
import { fixedTuning, type Tuning } from "../../src/engine/tuning.ts";
import { type CacheConfiguration, EngineError, loadModel, OptionError } from "../../src/index.ts";
import { cacheWithoutEffect, tunedTo } from "../../src/knobs/cache.ts";
import type { ModelParts } from "../../src/loaded-model.ts";
import type { Plan } from "../../src/plan/plan.ts";
import { storeTuning, tuningKey, tuningPath } from "../../src/tuning.ts";
import { openEngine } from "../support/engine.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyEncoder } from "../support/tiny-encoder.ts";
import { writeTinyModel } from "../support/tiny-model.ts";
import { keepVariables } from "../support/variables.ts";

const folder = temporaryFolder();
keepVariables("TINYAI_HOME");
process.env["TINYAI_HOME"] = folder.file("home");

const path = folder.file("q4.gguf");
writeTinyModel(path, { dtype: "Q4_K", width: 512, ffn: 512, layers: 2 });
const opened = await openEngine(path);
afterAll(() => opened.engine.close());

const draw = { temperature: 0, topP: 1, minP: 0, topK: 0, repeatPenalty: 1, topCount: 0, scores: false };
const second = { name: "L2", bytes: 1 << 20, ways: 16, lineBytes: 64, sharedBy: 1 } as const;
const caches = [{ name: "L1D", bytes: 8 << 10, ways: 4, lineBytes: 64, sharedBy: 1 } as const, second];
const table = fixedTuning("");

/** What each op of a step does under a tuning, each with empty caches. */
function traced(tuning: Tuning, rows: number, firstPosition = 0): readonly TracedOp[] {
  const { engine, plan } = opened;
  const tracer = engine.tracer({ threadCount: 1, caches, prefetcher: false, tuning });
  tracer.begin([{ sequence: 0, firstPosition, rows, logitsRows: 1 }], draw);
  const ops = plan.ops.map(({ index }) => {
    tracer.forget();
    return tracer.run(index, index + 1, "simulate")[0] as TracedOp;
  });
  engine.closeTracer(tracer);
  return ops;
}

/** Second-level misses of the ops of a kind. */
function missed(kind: string, given: CacheConfiguration, rows = 1, firstPosition = 300): number[] {
  const ops = traced(tunedTo(table, given), rows, firstPosition);
  return opened.plan.ops.filter((op) => op.kind === kind).map(({ index }) => ops[index]?.misses[1] as number);
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
const weightBytes = opened.plan.ops.filter(({ kind }) => kind === "matmul").map(({ bytesPerStep }) => bytesPerStep);

/** Of a step's products, or of attention: rows, where they stand, and lines of weights, or of keys and values, that are read. */
const cases = (["matmul", "attention"] as const).flatMap((kind) => {
  const ops = opened.plan.ops.filter((op) => op.kind === kind);
  const lines = (position: number): number =>
    sum(ops.map(({ bytesPerStep, bytesPerPosition }) => bytesPerStep + bytesPerPosition * position)) / 64;
  const one = { kind, rows: 1, position: 400, lines: lines(400) };
  return kind === "matmul" ? [one, { kind, rows: 40, position: 0, lines: lines(0) }] : [one];
});

describe("enablePrefetch", () => {
  test("decides whether weights, keys and values are there before they are read", () => {
    for (const { kind, rows, position, lines } of cases) {
      const without = sum(missed(kind, { enablePrefetch: false }, rows, position));
      expect(without).toBeGreaterThanOrEqual(lines);
      // Nobody asks for what comes first.
      expect(sum(missed(kind, { enablePrefetch: true }, rows, position))).toBeLessThan(without - lines * 0.6);
    }
  });
});

describe("cacheLineSize", () => {
  test("says of how many lines one is asked for, in products of few and many tokens and in attention", () => {
    for (const { kind, rows, position } of cases) {
      // Blocks and distances stay of one length.
      const at = (cacheLineSize: number): number =>
        sum(missed(kind, { cacheLineSize, blockSize: 4096 / cacheLineSize, prefetchDistance: 1 }, rows, position));
      const none = sum(missed(kind, { enablePrefetch: false }, rows, position));
      const asked = none - at(64);
      const near = (lines: number) => ({ from: lines - asked * 0.05, to: lines + asked * 0.05 });
      for (const [size, share] of [
        [32, 1],
        [128, 1 / 2],
        [256, 1 / 4],
      ] as const) {
        const { from, to } = near(asked * share);
        expect(none - at(size)).toBeWithin(from, to);
      }
    }
  });
});

describe("prefetchDistance", () => {
  test("is the blocks at a product's beginning that nobody has asked for", () => {
    const at = (prefetchDistance: number, blockSize: number): number[] =>
      missed("matmul", { prefetchDistance, blockSize, cacheLineSize: 64 });
    const near = at(1, 64);
    const long = weightBytes.flatMap((bytes, index) => (bytes > 40_000 ? [index] : []));
    expect(long.length).toBeGreaterThan(0);
    for (const [distance, blockSize, lines] of [
      [3, 64, 128],
      [2, 128, 192],
      [8, 16, 64],
    ] as const) {
      const far = at(distance, blockSize);
      // What is asked for past the end holds some of the scales, which lie there.
      for (const index of long) expect((far[index] ?? 0) - (near[index] ?? 0)).toBeWithin(lines * 0.85, lines + 2);
    }
  });
});

describe("blockSize", () => {
  const scratch = regions.indexOf("scratch");
  const stored = (kind: string, blockSize: number, rows: number, position: number): number => {
    const ops = traced(tunedTo(table, { blockSize }), rows, position);
    return sum(
      opened.plan.ops.filter((op) => op.kind === kind).map(({ index }) => ops[index]?.stores[scratch] as number),
    );
  };

  test("is what of the weights all tokens go through: sums are put away and taken up again after each block", () => {
    // 512 columns of 16 rows are two blocks of 4 KiB, four of 2 KiB but for formats whose scales go by 256 columns, or one of 8 KiB.
    expect(stored("matmul", 64, 40, 0)).toBeGreaterThan(stored("matmul", 128, 40, 0));
    expect(stored("matmul", 64, 40, 0)).toBe(stored("matmul", 32, 40, 0));
    expect(stored("matmul", 128, 40, 0)).toBe(stored("matmul", 512, 40, 0));
  });

  test("is what of keys and values all queries go through", () => {
    const [small, usual, large] = [8, 64, 512].map((blockSize) => stored("attention", blockSize, 1, 400));
    expect(small).toBeGreaterThan(usual as number);
    expect(usual).toBeGreaterThan(large as number);
  });
});

describe("no result depends on", () => {
  const configurations: readonly CacheConfiguration[] = [
    { enablePrefetch: false },
    { blockSize: 4 },
    { blockSize: 512, prefetchDistance: 32 },
    { cacheLineSize: 128, blockSize: 17 },
    { cacheLineSize: 32, blockSize: 8, prefetchDistance: 64 },
    { cacheLineSize: 256, blockSize: 128, prefetchDistance: 1 },
  ];
  const models = {
    Q8_0: { architecture: "gemma3", dtype: "Q8_0", width: 320, ffn: 1344, headWidth: 96 },
    "Q4_K and Q6_K": { architecture: "qwen2", dtype: "Q4_K", embeddingDtype: "Q6_K", ffn: 768 },
    F16: { architecture: "llama", dtype: "F16", width: 160, ffn: 416, headWidth: 32 },
    F32: { architecture: "llama", dtype: "F32" },
  } as const;

  for (const [name, options] of Object.entries(models)) {
    test(`the caches' configuration: ${name}`, async () => {
      const file = folder.file(`${name}.gguf`);
      writeTinyModel(file, options);
      const prompts = Array.from({ length: 3 }, (_, at) => {
        return Uint32Array.from({ length: 5 + at * 37 }, (_, index) => 3 + ((index * 7 + at) % 90));
      });
      const wanted = { temperature: 0, maxLength: 6, ignoreEos: true, cachePrompt: false };
      await using model = await loadModel(file, { tuning: "fixed" });
      const expected = (await model.generate(prompts, wanted)).map(({ tokens, logprobs }) => ({ tokens, logprobs }));
      for (const cache of configurations) {
        await model.configureCacheOptimization(cache);
        const found = await model.generate(prompts, wanted);
        expect(found.map(({ tokens, logprobs }) => ({ tokens, logprobs }))).toEqual(expected);
      }
      await using loaded = await loadModel(file, { tuning: "fixed", cache: configurations[4] });
      const found = await loaded.generate(prompts, wanted);
      expect(found.map(({ tokens, logprobs }) => ({ tokens, logprobs }))).toEqual(expected);
    });
  }

  test("a change while text is being generated", async () => {
    await using model = await loadModel(path, { tuning: "fixed" });
    const wanted = { temperature: 0, maxLength: 60, ignoreEos: true, cachePrompt: false };
    const { tokens } = await model.generate("once upon a time", wanted);
    const generating = model.generate("once upon a time", wanted);
    for (const cache of configurations) await model.configureCacheOptimization(cache);
    expect((await generating).tokens).toEqual(tokens);
  });
});

describe("what is read back", () => {
  test("says what holds and where it comes from", async () => {
    await using model = await loadModel(path, { tuning: "fixed" });
    const first = model.cacheOptimization;
    expect(first).toMatchObject({ enablePrefetch: true, prefetchDistance: 1 });
    expect(first.blockSize * first.cacheLineSize).toBe(10_240);
    expect(first.prefetchDistances).toMatchObject({ byte: 2, packed: 1 });
    expect(first.source).toMatchObject({ blockSize: "table", enablePrefetch: "table", prefetchDistance: "table" });
    await model.configureCacheOptimization({
      blockSize: 64,
      cacheLineSize: 64,
      enablePrefetch: true,
      prefetchDistance: 3,
    });
    expect(model.cacheOptimization).toEqual({
      ...{ blockSize: 64, cacheLineSize: 64, enablePrefetch: true, prefetchDistance: 3 },
      prefetchDistances: { byte: 3, packed: 3, float: 3 },
      source: { blockSize: "option", cacheLineSize: "option", enablePrefetch: "option", prefetchDistance: "option" },
    });
    // What is not given stays.
    await model.configureCacheOptimization({ enablePrefetch: false });
    expect(model.cacheOptimization).toMatchObject({ blockSize: 64, enablePrefetch: false, prefetchDistance: 0 });
    await model.configureCacheOptimization({ enablePrefetch: true, blockSize: 32 });
    expect(model.cacheOptimization).toMatchObject({ blockSize: 32, enablePrefetch: true, prefetchDistance: 3 });
  });

  test("names what was measured on this machine, and keeps it but for what is asked for", async () => {
    const library = await openLibrary();
    await using before = await loadModel(path, { threads: { count: 1 } });
    const level = library.levels.findIndex(({ name }) => name === before.simd.name);
    const key = tuningKey(library, level, 1);
    const measured: Tuning = { ...fixedTuning(key.level), packed: { distance: 4, lines: "all" } };
    await storeTuning(tuningPath(key), key, measured);
    await using model = await loadModel(path, { threads: { count: 1 }, cache: { cacheLineSize: 128 } });
    expect(model.cacheOptimization).toMatchObject({ cacheLineSize: 128, prefetchDistance: 4 });
    // A block has the bytes that it had.
    expect(model.cacheOptimization.blockSize * 128).toBe(measured.blockSize * measured.cacheLineSize);
    await model.configureCacheOptimization({ cacheLineSize: 256 });
    expect(model.cacheOptimization.blockSize * 256).toBe(measured.blockSize * measured.cacheLineSize);
    expect(model.cacheOptimization.source).toMatchObject({ cacheLineSize: "option", prefetchDistance: "measured" });
  });
});

test("what changes nothing for a model is named, with the reason", async () => {
  const library = await openLibrary();
  const named = ({ engine, plan }: { engine: Engine; plan: Plan }): string[] =>
    cacheWithoutEffect({ engine, plan, library, cache: { given: {} } } as ModelParts).map(({ knob }) => knob);
  expect(named(opened)).toEqual([]);
  const encoder = folder.file("encoder.gguf");
  writeTinyEncoder(encoder);
  // Matrices in bfloat16, which no level without products of 16-bit integers goes through in blocks.
  const embedder = await openEngine(encoder, {}, { levels: levelsOf(0) });
  expect(named(embedder)).toEqual(["cache.blockSize"]);
  await embedder.engine.configure({ tuning: tunedTo(table, { enablePrefetch: false }) });
  expect(named(embedder)).toEqual(["cache.prefetchDistance", "cache.cacheLineSize", "cache.blockSize"]);
  await embedder.engine.close();
});

describe("what cannot work is refused", () => {
  const refused: readonly (readonly [unknown, string])[] = [
    [{ blockSize: 0 }, "cache.blockSize: is 0; a whole number from 1 to 1024 is expected"],
    [{ blockSize: 2.5 }, "cache.blockSize"],
    [{ blockSize: 3, cacheLineSize: 64 }, "cache.blockSize: is 3; of lines of 64 bytes 4 to 512 are possible"],
    [{ blockSize: 129, cacheLineSize: 256 }, "cache.blockSize: is 129; of lines of 256 bytes 1 to 128 are possible"],
    [{ cacheLineSize: 48 }, "cache.cacheLineSize: is 48; 32, 64, 128, 256 are possible"],
    [{ cacheLineSize: "64" }, "cache.cacheLineSize"],
    [{ enablePrefetch: 1 }, "cache.enablePrefetch: is 1; true or false is expected"],
    [{ prefetchDistance: 0 }, "cache.prefetchDistance: is 0; a whole number from 1 to 64 is expected"],
    [
      { prefetchDistance: 33, blockSize: 512, cacheLineSize: 64 },
      "cache.prefetchDistance: is 33; of blocks of 32768 bytes 1 to 32 are possible",
    ],
    [{ blocksize: 64 }, "cache.blocksize"],
    [7, "cache"],
  ];

  test("when a model is loaded, and later, with the range; what held before holds on", async () => {
    await using model = await loadModel(path, { tuning: "fixed" });
    const before = model.cacheOptimization;
    for (const [cache, message] of refused) {
      await expect(loadModel(path, { cache: cache as CacheConfiguration })).rejects.toThrow(message);
      const configured = model.configureCacheOptimization(cache as CacheConfiguration);
      await expect(configured).rejects.toThrow(OptionError);
      await expect(configured).rejects.toThrow(message);
      expect(model.cacheOptimization).toEqual(before);
    }
  });

  test("a model that is closed", async () => {
    const model = await loadModel(path);
    await model.close();
    await expect(model.configureCacheOptimization({ blockSize: 32 })).rejects.toThrow(EngineError);
  });
});
