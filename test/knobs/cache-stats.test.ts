// Cache statistics of a model: of what was recorded, else of an example that is compared with the tracer's own sums.

import { describe, expect, test } from "bun:test";
import { findCaches } from "../../src/engine/caches.ts";
import { cpu, EngineError, loadModel } from "../../src/index.ts";
import { openEngine } from "../support/engine.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyEncoder } from "../support/tiny-encoder.ts";
import { writeTinyModel } from "../support/tiny-model.ts";

const folder = temporaryFolder();
const path = folder.file("model.gguf");
writeTinyModel(path, { dtype: "Q8_0" });
const draw = { temperature: 0, topP: 1, minP: 0, topK: 0, repeatPenalty: 1, topCount: 0, scores: false };
const loading = { threads: { count: 1 }, tuning: "fixed" } as const;

describe("cache statistics", () => {
  test("of a model of which nothing was recorded are of a token behind 255, on caches that a step has filled", async () => {
    await using model = await loadModel(path, loading);
    const stats = await model.cacheStats();
    const { engine, plan } = await openEngine(path);
    const caches = findCaches({ threads: 1 });
    const tracer = engine.tracer({ threadCount: 1, caches: caches.levels, prefetcher: true });
    const sums = [0, 1].map(() => {
      tracer.begin([{ sequence: 0, firstPosition: 255, rows: 1, logitsRows: 1 }], draw);
      const ops = tracer.run(0, plan.ops.length + 1, "simulate");
      const total = (field: "accesses" | "misses", level: number): number =>
        ops.reduce((sum, op) => sum + (op[field][level] as number), 0);
      return caches.levels.map((_, level) => ({ accesses: total("accesses", level), misses: total("misses", level) }));
    });
    await engine.close();
    expect(stats.levels.map(({ accesses, misses }) => ({ accesses, misses }))).toEqual(sums[1] as never);
    const [first] = stats.levels;
    expect(stats).toMatchObject({
      over: "example",
      source: "simulator",
      steps: 1,
      hits: first?.hits,
      misses: first?.misses,
    });
    expect(stats.hits + stats.misses).toBe(first?.accesses as number);
    expect(stats.hitRate).toBeCloseTo(stats.hits / (stats.hits + stats.misses), 12);
  });

  test("are those of the last profile, until what they depend on is changed", async () => {
    await using model = await loadModel(path, loading);
    const { cache } = await model.profile(() => model.generate("once", { maxLength: 4, ignoreEos: true }), {
      roofline: false,
    });
    const stats = await model.cacheStats();
    expect(stats).toMatchObject({
      over: "recorded",
      steps: cache?.steps,
      source: cache?.source,
      levels: cache?.levels,
    });
    // Statistics that were not asked for leave the older ones.
    await model.profile(() => model.generate("once", { maxLength: 4, ignoreEos: true }), {
      roofline: false,
      cache: false,
    });
    expect((await model.cacheStats()).over).toBe("recorded");
    await model.configureCacheOptimization({ enablePrefetch: false });
    expect((await model.cacheStats()).over).toBe("example");
    await model.profile(() => model.generate("once", { maxLength: 4, ignoreEos: true }), { roofline: false });
    expect((await model.cacheStats()).over).toBe("recorded");
    await model.setThreadCount(cpu.cores > 1 ? 2 : 1);
    expect((await model.cacheStats()).over).toBe("example");
  });

  test("tell apart whether memory is asked for ahead", async () => {
    const large = folder.file("large.gguf");
    writeTinyModel(large, { dtype: "F32", width: 256, ffn: 768, vocabulary: 1024 });
    await using model = await loadModel(large, { ...loading, contextLength: 64 });
    const missesOf = async (enablePrefetch: boolean): Promise<number> => {
      await model.configureCacheOptimization({ enablePrefetch, prefetchDistance: 1 });
      return (await model.cacheStats()).levels[1]?.misses ?? 0;
    };
    expect(await missesOf(true)).toBeLessThan(await missesOf(false));
  });

  test("of a model that makes vectors are of a text", async () => {
    const encoder = folder.file("encoder.gguf");
    writeTinyEncoder(encoder, { maxLength: 40 });
    await using model = await loadModel(encoder, loading);
    const stats = await model.cacheStats();
    expect(stats).toMatchObject({ over: "example", steps: 1 });
    expect(stats.hitRate).toBeGreaterThan(0.5);
  });

  test("are not to be had of a closed model", async () => {
    const model = await loadModel(path, loading);
    await model.close();
    await expect(model.cacheStats()).rejects.toThrow(EngineError);
  });
});
