// The tracer: what it counts of whole steps, beside sums made by hand; that counts do not depend on threads, caches or what ran
// before; and that the engine does not notice it.

import { afterAll, describe, expect, test } from "bun:test";
import { regions } from "../../profiler/report.ts";
import type { TracedDraw, TracedOp, TracedShare } from "../../profiler/tracing.ts";
import { EngineError } from "../../src/errors.ts";
import { loadModel } from "../../src/index.ts";
import type { DType } from "../../src/model/file.ts";
import { kvHeadBytes, packedBytes } from "../../src/plan/formats.ts";
import { opSignatures } from "../../src/plan/signature.ts";
import { openEngine } from "../support/engine.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyModel } from "../support/tiny-model.ts";

const folder = temporaryFolder();
const draw: TracedDraw = {
  temperature: 0,
  topP: 1,
  minP: 0,
  topK: 0,
  repeatPenalty: 1,
  topCount: 0,
  scores: false,
};
const alone = (firstPosition: number, rows: number, logitsRows = 1): TracedShare[] => [
  { sequence: 0, firstPosition, rows, logitsRows },
];
const caches = [
  { name: "L1D", bytes: 4096, ways: 4, lineBytes: 64, sharedBy: 1 },
  { name: "L2", bytes: 32 << 10, ways: 8, lineBytes: 64, sharedBy: 1 },
] as const;

async function opened(architecture: "gemma3" | "llama", dtype: DType = "Q8_0") {
  const path = folder.file(`${architecture}-${dtype}.gguf`);
  writeTinyModel(path, { architecture, dtype, layers: 6, context: 512 });
  return { path, ...(await openEngine(path)) };
}

const gemma = await opened("gemma3");
const llama = await opened("llama");
afterAll(async () => {
  await gemma.engine.close();
  await llama.engine.close();
});

const plainOptions = { threadCount: 1, caches: [], prefetcher: false };

function amounts(op: TracedOp): number[][] {
  return [op.loads, op.stores, op.bytesRead, op.bytesWritten].map((list) => Array.from(list));
}

function regionOf(op: TracedOp, region: (typeof regions)[number], field: "bytesRead" | "bytesWritten"): number {
  return op[field][regions.indexOf(region)] as number;
}

describe("a traced step", () => {
  test("reads each weight of a product once for a row, and for many rows less often than for each", () => {
    for (const { engine, plan } of [gemma, llama]) {
      const tracer = engine.tracer(plainOptions);
      for (const rows of [1, 3, 40]) {
        expect(tracer.begin(alone(0, rows), draw)).toBe(true);
        const traced = tracer.run(0, plan.ops.length, "count");
        for (const op of plan.ops) {
          if (op.kind !== "matmul") continue;
          const weights = regionOf(traced[op.index] as TracedOp, "weights", "bytesRead");
          // The plan's sum is of the packed matrix, which pads its rows to groups of 16.
          const packed = op.bytesPerStep;
          if (rows === 1) expect(weights).toBe(packed);
          expect(weights).toBeGreaterThanOrEqual(packed);
          if (rows > 1) expect(weights).toBeLessThan(packed * rows);
        }
      }
      engine.closeTracer(tracer);
    }
  });

  test("stores each position's keys and values once, in the cache's format", () => {
    const { engine, plan } = llama;
    const tracer = engine.tracer(plainOptions);
    for (const rows of [1, 7, 64]) {
      tracer.begin(alone(5, rows), draw);
      const traced = tracer.run(0, plan.ops.length, "count");
      const stored = plan.ops
        .filter(({ kind }) => kind === "rope_store")
        .map(({ index }) => regionOf(traced[index] as TracedOp, "keysValues", "bytesWritten"));
      // Two KV heads of 16 dimensions, keys and values, in float16 (kvHeadBytes is of 64 positions).
      const attention = plan.ops.find(({ kind }) => kind === "attention");
      const perPosition = attention?.bytesPerPosition ?? 0;
      expect(stored).toEqual(stored.map(() => perPosition * rows));
      expect(kvHeadBytes("F16", 16) / 64).toBe(32);
    }
    engine.closeTracer(tracer);
  });

  test("reads keys and values of what its rows see, and no further than the window", () => {
    const { engine, plan } = gemma;
    const tracer = engine.tracer(plainOptions);
    const attention = plan.ops.filter(({ kind }) => kind === "attention");
    const read = (position: number): number[] => {
      tracer.begin(alone(position, 1), draw);
      return attention.map(({ index }) =>
        regionOf(tracer.run(index, index + 1, "count")[0] as TracedOp, "keysValues", "bytesRead"),
      );
    };
    const [near, far, farther] = [read(20), read(300), read(500)];
    // Layer 5 is the one without a window; all others see 16 positions.
    for (let layer = 0; layer < 6; layer++) {
      const bytes = attention[layer]?.bytesPerPosition ?? 0;
      if (layer === 5) {
        // Whole positions, but for vectors that reach beyond the last one.
        expect(farther[layer]).toBeGreaterThanOrEqual(501 * bytes);
        expect(farther[layer]).toBeLessThan(512 * bytes + 64 * bytes);
        expect(farther[layer]).toBeGreaterThan((far[layer] ?? 0) * 1.5);
      } else {
        expect(far[layer]).toBeLessThanOrEqual(2 * 64 * bytes);
        expect(far[layer]).toBeGreaterThanOrEqual(16 * bytes);
        expect(near[layer]).toBeGreaterThanOrEqual(16 * bytes);
      }
    }
    engine.closeTracer(tracer);
  });

  test("does the same whatever the threads, the caches, the sampling of large products and what ran before", () => {
    for (const { engine, plan } of [gemma, llama]) {
      for (const shares of [
        alone(0, 1),
        alone(100, 1),
        alone(0, 50),
        alone(64, 33, 2),
        [
          { sequence: 3, firstPosition: 70, rows: 1, logitsRows: 1 },
          { sequence: 0, firstPosition: 2, rows: 1, logitsRows: 1 },
          { sequence: 1, firstPosition: 0, rows: 20, logitsRows: 0 },
        ],
      ]) {
        const seen = [1, 2, 5].flatMap((threadCount) => {
          const tracer = engine.tracer({ threadCount, caches, prefetcher: true });
          const found = (["count", "simulate", "sample", "count"] as const).map((mode) => {
            expect(tracer.begin(shares, draw)).toBe(true);
            return tracer.run(0, plan.ops.length, mode).map(amounts);
          });
          engine.closeTracer(tracer);
          return found;
        });
        for (const other of seen) expect(other).toEqual(seen[0] as (typeof seen)[0]);
      }
    }
  });

  test("has the same counts for ops of one signature, and other ones for others", () => {
    for (const { engine, plan } of [gemma, llama]) {
      const signatures = opSignatures(plan.program);
      const tracer = engine.tracer(plainOptions);
      tracer.begin(alone(200, 1), draw);
      const traced = tracer.run(0, plan.ops.length, "count").map(amounts);
      const known = new Map<string, number[][]>();
      for (const [index, signature] of signatures.entries()) {
        const before = known.get(signature);
        if (before) expect(traced[index]).toEqual(before);
        else known.set(signature, traced[index] ?? []);
      }
      expect(known.size).toBeLessThan(plan.ops.length / 2);
      engine.closeTracer(tracer);
    }
    // A layer with a window and the one without must not be taken for the same.
    const kinds = opSignatures(gemma.plan.program).filter((text) => text.startsWith("attention,"));
    expect(new Set(kinds).size).toBe(2);
  });

  test("has the same misses on every run, fewer in larger caches, and none again where everything fits", () => {
    const { engine, plan } = llama;
    const misses = (bytes: number, times: number): number[] => {
      const level = { name: "L1D", bytes, ways: 16, lineBytes: 64, sharedBy: 1 } as const;
      const tracer = engine.tracer({ threadCount: 1, caches: [level], prefetcher: false });
      const counts = Array.from({ length: times }, () => {
        tracer.begin(alone(9, 1), draw);
        const traced = tracer.run(0, plan.ops.length, "simulate");
        return traced.reduce((sum, op) => sum + (op.misses[0] as number), 0);
      });
      engine.closeTracer(tracer);
      return counts;
    };
    const small = misses(4096, 2);
    expect(misses(4096, 2)).toEqual(small);
    const [cold = 0, again] = misses(64 << 20, 2);
    expect(cold).toBeLessThan(small[0] ?? 0);
    // Every byte of the weights was read, in lines of 64.
    const weights = plan.ops.reduce((sum, op) => sum + op.bytesPerStep, 0);
    expect(cold).toBeGreaterThan(weights / 64);
    expect(again).toBe(0);
  });

  test("of a prompt whose own tokens are scored draws nothing, but reads all its logits", () => {
    const { engine, plan } = llama;
    const tracer = engine.tracer(plainOptions);
    const last = plan.ops.length;
    tracer.begin(alone(0, 4, 4), { ...draw, scores: true });
    const [scored] = tracer.run(last, last + 1, "count");
    expect(regionOf(scored as TracedOp, "activations", "bytesRead")).toBeGreaterThanOrEqual(4 * plan.vocabulary * 4);
    tracer.begin(alone(0, 4, 0), draw);
    const [nothing] = tracer.run(last, last + 1, "count");
    expect(
      amounts(nothing as TracedOp)
        .flat()
        .every((amount) => amount === 0),
    ).toBe(true);
    engine.closeTracer(tracer);
  });
});

describe("the tracer", () => {
  test("refuses steps that the program has not", () => {
    const { engine } = llama;
    const tracer = engine.tracer(plainOptions);
    const refused: TracedShare[][] = [
      [],
      alone(0, 0),
      alone(0, 257),
      alone(512, 1),
      alone(500, 13),
      alone(0, 1, 2),
      alone(0, 40, 33),
      [{ sequence: 16, firstPosition: 0, rows: 1, logitsRows: 1 }],
      [...alone(0, 1), ...alone(0, 1)],
    ];
    for (const shares of refused) expect(tracer.begin(shares, draw)).toBe(false);
    expect(tracer.begin(alone(500, 12), draw)).toBe(true);
    engine.closeTracer(tracer);
    expect(tracer.begin(alone(0, 1), draw)).toBe(false);
  });

  test("refuses caches and threads that cannot be, and ops that are not there", () => {
    const { engine, plan } = llama;
    const level = { name: "L1D", bytes: 4096, ways: 4, lineBytes: 64, sharedBy: 1 } as const;
    for (const wrong of [{ ways: 0 }, { bytes: 1000 }, { lineBytes: 48 }, { sharedBy: 0 }]) {
      const open = () => engine.tracer({ threadCount: 1, caches: [{ ...level, ...wrong }], prefetcher: false });
      expect(open).toThrow(EngineError);
    }
    for (const threadCount of [0, 65]) {
      expect(() => engine.tracer({ threadCount, caches: [level], prefetcher: false })).toThrow(EngineError);
    }
    const tracer = engine.tracer(plainOptions);
    expect(() => tracer.run(0, plan.ops.length + 2, "count")).toThrow(RangeError);
    expect(() => tracer.run(3, 2, "count")).toThrow(RangeError);
    engine.closeTracer(tracer);
  });

  test("is not noticed by the engine, nor by what is generated meanwhile", async () => {
    await using model = await loadModel(llama.path, { prepared: false, threads: { count: 1 } });
    const options = { temperature: 0, maxLength: 40, ignoreEos: true };
    const before = await model.generate("once upon a time", options);
    const profiled = await model.profile(() => model.generate("once upon a time", options), { roofline: false });
    expect(profiled.memoryOps).toBeGreaterThan(0);
    const after = await model.generate("once upon a time", options);
    expect(after.tokens).toEqual(before.tokens);
    expect(after.logprobs).toEqual(before.logprobs);
  });

  test("gives all of its memory back", () => {
    const { engine, plan } = llama;
    const rounds = (count: number): void => {
      for (let round = 0; round < count; round++) {
        const tracer = engine.tracer({ threadCount: 2, caches, prefetcher: true });
        tracer.begin(alone(0, 200), draw);
        tracer.run(0, plan.ops.length + 1, "sample");
        engine.closeTracer(tracer);
      }
    };
    rounds(3);
    const before = process.memoryUsage.rss();
    rounds(20);
    expect(process.memoryUsage.rss() - before).toBeLessThan(24 << 20);
  }, 30_000);
});

test("packed sizes are what the plan says that they are", () => {
  // The sums that weights are compared with above, by hand: 16 rows of 64 columns in Q8_0 are a byte a code and a float16 scale
  // for every 32.
  const packed = packedBytes("Q8_0", 16, 64);
  expect(packed.weight + packed.scales).toBe(16 * 64 + 16 * 2 * 2);
});
