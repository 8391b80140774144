// `model.performanceMetrics` of real requests to tiny models, beside timers of the test's own and what results say of themselves.

import { afterAll, describe, expect, test } from "bun:test";
import { type GenerateOptions, loadModel, MemoryLimitError, OptionError } from "../../src/index.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyEncoder } from "../support/tiny-encoder.ts";
import { writeTinyModel } from "../support/tiny-model.ts";

const folder = temporaryFolder();
const path = folder.file("tiny.gguf");
writeTinyModel(path, { architecture: "gemma3", layers: 6, context: 512, dtype: "Q8_0" });
const encoderPath = folder.file("encoder.gguf");
writeTinyEncoder(encoderPath);
const load = () => loadModel(path, { threads: { count: 1 }, prepared: false, batchSize: 2 });
const model = await load();
afterAll(() => model.close());

const options: GenerateOptions = { temperature: 0, maxLength: 60, ignoreEos: true, cachePrompt: false };

describe("performance metrics", () => {
  test("of a model that has done nothing are zeros, and say what it holds", async () => {
    await using idle = await load();
    expect(idle.performanceMetrics()).toMatchObject({
      ...{ inferenceTime: 0, throughput: 0, textsPerSecond: 0, firstTokenTime: null },
      ...{ requests: 0, tokens: 0, texts: 0, busyTime: 0, underWay: 0, queueDepth: 0, recent: [] },
    });
    expect(idle.performanceMetrics().residentBytes).toBeGreaterThan(1e6);
    expect(idle.performanceMetrics().nativeBytes).toBeGreaterThan(1e5);
  });

  test("agree with a timer around a generation, with its steps by the engine's events, and with its tokens", async () => {
    await using fresh = await load();
    const startMs = performance.now();
    const run = await fresh.profile(() => fresh.generate("hello", options), { cache: false, roofline: false });
    const endMs = performance.now();
    const { inferenceTime, throughput, firstTokenTime, busyTime, recent, total, ...rest } = fresh.performanceMetrics();
    expect([rest.tokens, rest.requests, total.tokens]).toEqual([60, 1, 60]);
    const [row] = run.requests;
    // Two clocks of the same machine: they differ by a few millionths.
    const near = 1.001;
    expect(inferenceTime).toBeLessThanOrEqual((endMs - startMs) * near);
    expect(inferenceTime * near).toBeGreaterThanOrEqual((row?.stepsNs ?? 0) / 1e6);
    expect(firstTokenTime ?? 0).toBeLessThanOrEqual(((row?.firstTokenNs ?? 0) / 1e6) * near);
    expect(firstTokenTime).toBeGreaterThan(0);
    expect(busyTime).toBeCloseTo(inferenceTime, 6);
    expect(throughput).toBeCloseTo(60_000 / busyTime, 6);
    expect(recent).toEqual([
      {
        kind: "generate",
        promptTokens: row?.promptTokens ?? 0,
        generatedTokens: 60,
        inferenceTime,
        firstTokenTime,
        throughput: expect.closeTo(throughput, 6),
        finish: "length",
      },
    ]);
  });

  test("agree with the timings of a batch's results, and see who waits for a place", async () => {
    await using fresh = await load();
    // So slow that none ends before all are under way.
    await fresh.setCpuLimit(0.01);
    const prompts = ["hello", "once upon a time", "a", "hello world"];
    const running = prompts.map((prompt) => fresh.generate(prompt, options));
    // All are handed over before the event loop goes on.
    for (let turn = 0; turn < 100 && fresh.performanceMetrics().underWay < 4; turn++) await Promise.resolve();
    expect(fresh.performanceMetrics().queueDepth).toBe(2);
    await fresh.setCpuLimit(100);
    const results = await Promise.all(running);
    const { recent, requests, tokens, queueDepth, busyTime } = fresh.performanceMetrics({ windowMs: 60_000 });
    expect([requests, tokens, queueDepth]).toEqual([4, 240, 0]);
    for (const { promptTokens, timings } of results) {
      const own = recent.filter((request) => request.promptTokens === promptTokens);
      expect(own.some(({ inferenceTime }) => inferenceTime <= timings.wallMs * 1.001)).toBe(true);
    }
    // Side by side: less than one after the other.
    expect(busyTime).toBeLessThan(recent.reduce((sum, { inferenceTime }) => sum + inferenceTime, 0));
  });

  test("count texts that are embedded or scored, and of an encoder no tokens", async () => {
    await using encoder = await loadModel(encoderPath, { threads: { count: 1 } });
    const startMs = performance.now();
    await encoder.embed(["one text", "another", "a third"]);
    const passedMs = performance.now() - startMs;
    const { texts, requests, tokens, throughput, textsPerSecond, recent } = encoder.performanceMetrics();
    expect([texts, requests, tokens, throughput]).toEqual([3, 3, 0, 0]);
    expect(textsPerSecond * 1.001).toBeGreaterThanOrEqual(3000 / passedMs);
    expect(recent.map(({ kind, finish }) => [kind, finish])).toEqual(Array(3).fill(["embed", "embedded"]));
    await model.score("once upon a time");
    expect(model.performanceMetrics().recent.at(-1)).toMatchObject({ kind: "score", finish: "scored" });
  });

  test("say how requests ended that were left or refused, and need no events for any of it", async () => {
    await using fresh = await load();
    for await (const _ of fresh.stream("hello", { ...options, maxLength: 400 })) break;
    while (fresh.performanceMetrics().underWay > 0) await Bun.sleep(1);
    expect(fresh.performanceMetrics().recent.at(-1)?.finish).toBe("cancelled");
    expect(fresh.performanceMetrics().recent.at(-1)?.generatedTokens).toBeLessThan(400);
    await fresh.setMemoryLimit(0.01);
    await expect(fresh.generate("hello", options)).rejects.toThrow(MemoryLimitError);
    expect(fresh.performanceMetrics().recent.at(-1)).toMatchObject({ finish: "no_memory", generatedTokens: 0 });
  });

  test("of the last tenth of a second forget what was before, which the total has", async () => {
    await using fresh = await load();
    await fresh.generate("hello", options);
    await Bun.sleep(250);
    const { requests, tokens, spanMs, total } = fresh.performanceMetrics({ windowMs: 100 });
    expect([requests, tokens, total.requests, total.tokens]).toEqual([0, 0, 1, 60]);
    expect(spanMs).toBeGreaterThanOrEqual(100);
    expect(spanMs).toBeLessThanOrEqual(200);
  });

  test("refuse windows out of bounds", () => {
    for (const wrong of [{ windowMs: 99 }, { windowMs: 60_001 }, { windowMs: 1000.5 }, { window: 1 }, 3]) {
      expect(() => model.performanceMetrics(wrong as never)).toThrow(OptionError);
    }
  });
});
