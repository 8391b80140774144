// What the engine tells of steps that have texts whose vector is wanted, and what the tracer counts of them.

import { afterAll, describe, expect, test } from "bun:test";
import { type FinishedStep, Profiler, type StepShare } from "../../profiler/index.ts";
import { MemoryCounter } from "../../profiler/memory.ts";
import { regions } from "../../profiler/report.ts";
import { opSignatures } from "../../src/plan/signature.ts";
import { countedOps } from "../../src/profiling/recording.ts";
import { embed, embedding, openEngine } from "../support/engine.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyEncoder } from "../support/tiny-encoder.ts";
import { writeTinyModel } from "../support/tiny-model.ts";

const folder = temporaryFolder();
const width = 64;
const caches = [{ name: "L1D", bytes: 32 << 10, ways: 8, lineBytes: 64, sharedBy: 1 }] as const;

async function opened(path: string) {
  const { engine, plan } = await openEngine(path, {}, { threadCount: 2 });
  const costs = plan.ops.map((op) => ({ ...op, kernel: op.kind }));
  return { engine, plan, ops: countedOps(costs, opSignatures(plan.program)) };
}

/** Runs texts of these lengths at once; the steps that the engine told of, and the profile. */
async function record({ engine, ops }: Awaited<ReturnType<typeof opened>>, lengths: readonly number[]) {
  const steps: FinishedStep[] = [];
  const profiler = new Profiler(ops, { onStep: (step) => steps.push(step) });
  const end = engine.watch({ events: (events) => profiler.drain(events) });
  await Promise.all(lengths.map((length) => embed(engine, new Uint32Array(length).fill(7))));
  end();
  return { steps, profile: profiler.result() };
}

const encoderPath = folder.file("encoder-bert.gguf");
writeTinyEncoder(encoderPath, { heads: 2 });
const modelPath = folder.file("model.gguf");
writeTinyModel(modelPath, { width, context: 1024 });
const encoder = await opened(encoderPath);
const model = await opened(modelPath);
afterAll(async () => {
  await encoder.engine.close();
  await model.engine.close();
});

describe("steps of an encoder", () => {
  test("hold whole texts, the oldest always, and are a prompt's", async () => {
    const lengths = Array.from({ length: 200 }, (_, index) => 2 + ((index * 7) % 60));
    const { steps, profile } = await record(encoder, lengths);
    const shares = steps.flatMap((step) => step.shares);
    expect(profile.lostEvents + profile.incompleteSteps + profile.malformedEvents).toBe(0);
    expect(shares.map(({ rows }) => rows).sort()).toEqual(lengths.sort());
    for (const share of shares) expect(share).toMatchObject({ firstPosition: 0, logitsRows: 0, accepted: 0 });
    expect(new Set(steps.map(({ phase }) => phase))).toEqual(new Set(["prompt"]));
    for (const step of steps) {
      expect(step.shares.reduce((sum, { rows }) => sum + rows, 0)).toBeLessThanOrEqual(256);
      const first = Math.min(...step.shares.map(({ request }) => request));
      const later = steps.filter((other) => other.step > step.step).flatMap((other) => other.shares);
      for (const { request } of later) expect(request).toBeGreaterThan(first);
    }
    const kinds = new Set(profile.byOp.map(({ kind }) => kind));
    expect(kinds).toEqual(new Set(["embed", "norm", "matmul", "encode", "activation", "pool"]));
  });
});

test("steps of a language model run the ops of vectors only where one is wanted", async () => {
  const { profile } = await record(model, [300, 5]);
  const names = new Set(profile.byOp.map(({ name }) => name));
  expect(names).toContain("embedding");
  expect(names).toContain("embedding.output_norm");
  const profiler = new Profiler(model.ops);
  const end = model.engine.watch({ events: (events) => profiler.drain(events) });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const request = { ...embedding(Uint32Array.of(1, 2)), generateMax: 3 };
  model.engine.submit({ ...request, kind: "generate" }, { onToken() {}, onFinish: () => resolve(), onError: reject });
  await promise;
  end();
  expect(profiler.result().byOp.filter(({ name }) => name.startsWith("embedding"))).toEqual([]);
});

describe("the tracer", () => {
  const draw = { temperature: 0, topP: 1, minP: 0, topK: 0, repeatPenalty: 1, topCount: 0, scores: false };

  test("counts every step that was told, and of pooling a load of each value", async () => {
    for (const of of [encoder, model]) {
      const { steps } = await record(of, [3, 64, 20, 20]);
      const counter = new MemoryCounter(of.ops, () => undefined);
      for (const step of steps) counter.add(step);
      const tracer = of.engine.tracer({ threadCount: 2, caches, prefetcher: false });
      const counting = counter.count(tracer, 0, 1);
      let counted = counting.next();
      while (!counted.done) counted = counting.next();
      expect(counted.value.uncountedSteps).toBe(0);
      const pool = counted.value.byOp.find(({ kind }) => kind === "pool");
      const rows = 3 + 64 + 20 + 20;
      // Each row once, and the sums: all rows but each text's first add to them; each text's are divided twice.
      const texts = 4;
      const sums = rows - texts + 2 * texts + texts;
      const listed = texts * 28;
      expect(pool?.bytesRead).toBe((rows + sums) * width * 4 + listed);
      of.engine.closeTracer(tracer);
    }
  });

  test("reads a text's keys and values for each block of its rows, and simulates caches", () => {
    const { engine, plan, ops } = encoder;
    const tracer = engine.tracer({ threadCount: 1, caches, prefetcher: false });
    const complete = 1 | (1 << 4);
    const share = (sequence: number, rows: number): StepShare => ({
      ...{ request: sequence, sequence, firstPosition: 0, rows, logitsRows: 0, accepted: 0, embeds: complete },
    });
    const encode = ops.findIndex(({ kind }) => kind === "encode");
    const read = (shares: readonly StepShare[], mode: "count" | "simulate") => {
      expect(tracer.begin(shares, draw)).toBe(true);
      const [traced] = tracer.run(encode, encode + 1, mode);
      return traced;
    };
    const bytes = (rows: number) => read([share(0, rows)], "count")?.bytesRead[regions.indexOf("activations")] ?? 0;
    expect(bytes(64)).toBe(64 * width * 4 + 2 * (2 * 64 * width * 4));
    expect(bytes(32)).toBe(32 * width * 4 + 1 * (2 * 32 * width * 4));
    const both = read([share(0, 64), share(1, 32)], "count")?.bytesRead[regions.indexOf("activations")];
    expect(both).toBe(bytes(64) + bytes(32));
    expect(read([share(0, 64)], "simulate")?.misses[0]).toBeGreaterThan(0);
    // A text that does not begin with its first row is none.
    expect(tracer.begin([{ ...share(0, 4), firstPosition: 1 }], draw)).toBe(false);
    expect(tracer.begin([{ ...share(0, 4), embeds: complete | 6 }], draw)).toBe(false);
    expect(plan.ops[encode]?.operationsPerPosition).toBe(width * 4);
    engine.closeTracer(tracer);
  });
});
