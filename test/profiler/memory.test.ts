// Counting steps by their shapes and scaling simulated steps up, with a tracer that says by a rule of its own what an op does.

import { describe, expect, test } from "bun:test";
import { simulateCaches } from "../../profiler/cache.ts";
import { Histogram } from "../../profiler/histogram.ts";
import { type CountedOp, MemoryCounter } from "../../profiler/memory.ts";
import { type CacheStatistics, type MemoryOperations, regions } from "../../profiler/report.ts";
import type { FinishedStep, StepShare } from "../../profiler/steps.ts";
import type { StepTracer, TracedDraw, TracedOp, TracedShare, TraceMode } from "../../profiler/tracing.ts";

const draw: TracedDraw = {
  temperature: 0.7,
  topP: 0.9,
  minP: 0,
  topK: 50,
  repeatPenalty: 1,
  topCount: 0,
  scores: false,
};

/** Four layers of a product and an attention each, then a head. */
const ops: CountedOp[] = [];
for (let layer = 0; layer < 4; layer++) {
  for (const kind of ["matmul", "attention"]) {
    ops.push({
      ...{ index: ops.length, name: `blk.${layer}.${kind}`, kind, kernel: kind, layer },
      ...{ bytesPerStep: 0, bytesPerRow: 0, operationsPerRow: 0 },
      // The third layer's product is another one.
      ...{ signature: `${kind}${kind === "matmul" && layer === 2 ? "2" : ""}`, byPosition: kind === "attention" },
    });
  }
}
ops.push({ ...(ops[0] as CountedOp), index: 8, name: "head", kind: "matmul", layer: -1, signature: "head" });

/** What an op loads, by the rule. Attention loads as much as the rows see; a product 1,000 a step and 10 a row. */
function loadsOf(op: CountedOp | undefined, shares: readonly TracedShare[]): number {
  const rows = shares.reduce((sum, share) => sum + share.rows, 0);
  const logitsRows = shares.reduce((sum, share) => sum + share.logitsRows, 0);
  if (!op) return 7 * logitsRows;
  if (op.kind === "attention") {
    return shares.reduce((sum, share) => {
      for (let row = 0; row < share.rows; row++) sum += share.firstPosition + row + 1;
      return sum;
    }, 0);
  }
  return (op.signature === "matmul2" ? 2000 : op.signature === "head" ? 5000 : 1000) + 10 * rows;
}

class RuleTracer implements StepTracer {
  readonly runs: { index: number; mode: TraceMode }[] = [];
  shares: readonly TracedShare[] = [];

  begin(shares: readonly TracedShare[]): boolean {
    this.shares = shares;
    return shares.every(({ sequence }) => sequence < 16);
  }

  run(first: number, end: number, mode: TraceMode): TracedOp[] {
    return Array.from({ length: end - first }, (_, place) => {
      const index = first + place;
      this.runs.push({ index, mode });
      const loads = loadsOf(ops[index], this.shares);
      const list = (region: (typeof regions)[number], amount: number): Float64Array =>
        Float64Array.from(regions, (name) => (name === region ? amount : 0));
      const simulated = mode === "count" ? 0 : 1;
      return {
        loads: list("weights", loads),
        stores: list("activations", 3),
        bytesRead: list("weights", loads * 16),
        bytesWritten: list("activations", 48),
        accesses: Float64Array.of(loads + 3, (loads / 2) * simulated, 0).map((value) => value * simulated),
        misses: Float64Array.of((loads / 2) * simulated, (loads / 4) * simulated, 0),
        memoryLines: (loads / 4) * simulated,
      };
    });
  }

  forget(): void {}
}

let steps = 0;

function finished(shares: readonly Partial<StepShare>[]): FinishedStep {
  steps++;
  return {
    ...{ step: steps, startNs: steps * 1000, endNs: steps * 1000 + 900, phase: "generation" },
    shares: shares.map((share) => ({
      ...{ request: 1, sequence: 0, firstPosition: 0, rows: 1, logitsRows: 1, accepted: 0 },
      ...share,
    })),
  };
}

function drive<T>(generator: Generator<void, T, void>): T {
  for (;;) {
    const { done, value } = generator.next();
    if (done) return value;
  }
}

const prompt = finished([{ rows: 200, logitsRows: 1 }]);
const generation = Array.from({ length: 100 }, (_, index) => finished([{ firstPosition: 200 + index }]));
const pair = finished([{ firstPosition: 5 }, { sequence: 1, firstPosition: 9 }]);
const all = [prompt, ...generation, pair, pair];

function sumOf(amount: (op: CountedOp | undefined, shares: readonly StepShare[]) => number): number {
  let sum = 0;
  for (const { shares } of all) for (const op of [...ops, undefined]) sum += amount(op, shares);
  return sum;
}

describe("memory operations", () => {
  const tracer = new RuleTracer();
  const counter = new MemoryCounter(ops, () => draw);
  for (const step of all) counter.add(step);
  const counted: MemoryOperations = drive(counter.count(tracer, 3, 1234));

  test("are those of every op in every step, each one counted by itself", () => {
    expect(counted.loads).toBe(sumOf(loadsOf));
    expect(counted.stores).toBe(3 * (ops.length + 1) * all.length);
    expect(counted.bytesRead).toBe(16 * counted.loads);
    expect(counted.operations).toBe(1234);
    expect(counted.uncountedSteps).toBe(3);
    for (const row of counted.byOp) {
      const op = ops[row.index] as CountedOp;
      expect(row.loads).toBe(all.reduce((sum, { shares }) => sum + loadsOf(op, shares), 0));
    }
    expect(counted.sampling.loads).toBe(all.reduce((sum, { shares }) => sum + loadsOf(undefined, shares), 0));
  });

  test("add up by op and draws, by region, and over steps", () => {
    for (const field of ["loads", "stores", "bytesRead", "bytesWritten"] as const) {
      const ofOps = counted.byOp.reduce((sum, row) => sum + row[field], 0) + counted.sampling[field];
      const ofRegions = counted.byRegion.reduce((sum, row) => sum + row[field], 0);
      expect([ofOps, ofRegions, counted.perStep[field].total]).toEqual([
        counted[field],
        counted[field],
        counted[field],
      ]);
      expect(counted.perStep[field].count).toBe(all.length);
      const { histogram } = counted.perStep[field];
      const amounts = histogram ? Histogram.fromJSON(histogram) : undefined;
      expect([amounts?.count, amounts?.total, amounts?.unit]).toEqual([
        all.length,
        counted[field],
        counted.perStep[field].unit,
      ]);
    }
  });

  test("are counted once for a signature and shape, and attention for every place", () => {
    // Products: two signatures and a head at 200, 1 and 2 rows; draws as often; attention at 102 places.
    const times = (kind: string): number =>
      tracer.runs.filter(({ index }) => (ops[index]?.kind ?? "draws") === kind).length;
    expect(times("attention")).toBe(1 + 100 + 1);
    expect(times("matmul")).toBe(3 * 3);
    // Draws by rows and rows of logits: 200 and 1, 1 and 1, 2 and 2.
    expect(times("draws")).toBe(3);
  });

  test("leave out steps that no program has, and say so", () => {
    const other = new MemoryCounter(ops, () => draw);
    other.add(finished([{ sequence: 20 }]));
    other.add(finished([{}]));
    const few = drive(other.count(new RuleTracer(), 0, 0));
    expect(few.uncountedSteps).toBe(1);
    expect(few.perStep.loads.count).toBe(1);
  });
});

describe("simulated caches", () => {
  const geometry = [
    { name: "L1D", bytes: 32768, ways: 8, lineBytes: 64, sharedBy: 1 },
    { name: "L2", bytes: 1048576, ways: 16, lineBytes: 64, sharedBy: 1 },
  ] as const;
  const options = { geometry, prefetcher: true, weightsBytes: 1e6, description: "Made up." };
  const counter = new MemoryCounter(ops, () => draw);
  for (const step of all) counter.add(step);
  const tracer = new RuleTracer();
  const cache = drive(simulateCaches(counter.steps, ops, tracer, options)) as CacheStatistics;

  test("count for all steps: exactly where steps are alike, nearly where they lie between simulated ones", () => {
    const exact = sumOf((op, shares) => loadsOf(op, shares) + 3);
    const [first, second] = cache.levels;
    expect(Math.abs((first?.accesses ?? 0) / exact - 1)).toBeLessThan(0.02);
    expect(Math.abs((first?.misses ?? 0) / (sumOf(loadsOf) / 2) - 1)).toBeLessThan(0.02);
    expect(Math.abs((second?.misses ?? 0) / (sumOf(loadsOf) / 4) - 1)).toBeLessThan(0.02);
    expect(Math.abs(cache.memoryBytes / (16 * sumOf(loadsOf)) - 1)).toBeLessThan(0.02);
    expect(cache.steps).toBe(all.length);
    for (const { name, accesses, hits, misses, hitRate } of cache.levels) {
      expect([name, hits + misses]).toEqual([name, accesses]);
      expect(hitRate).toBe(hits / accesses);
    }
  });

  test("simulate a prompt's layers once for each kind, and of generation three steps behind one that warms the caches", () => {
    const sampled = tracer.runs.filter(({ mode }) => mode === "sample").map(({ index }) => index);
    // The layer before the middle one, the middle one, which has the other product; then what is in no layer, and the draws.
    expect(sampled).toEqual([2, 3, 4, 5, 8, 9]);
    const whole = tracer.runs.filter(({ mode }) => mode === "simulate");
    expect(whole.length).toBe(4 * (ops.length + 1));
    expect(cache.simulatedSteps).toBe(4);
  });

  test("have the misses of every step in a histogram, which add up to the level's", () => {
    expect(cache.missesPerStep.map(({ name }) => name)).toEqual(["L1D", "L2"]);
    for (const [level, { misses }] of cache.missesPerStep.entries()) {
      expect(misses.count).toBe(all.length);
      // Each is rounded to a whole miss.
      expect(Math.abs(misses.total - (cache.levels[level]?.misses ?? 0))).toBeLessThanOrEqual(all.length);
      const amounts = misses.histogram ? Histogram.fromJSON(misses.histogram) : undefined;
      expect([amounts?.count, amounts?.total]).toEqual([misses.count, misses.total]);
    }
    const promptMisses = [...ops, undefined].reduce((sum, op) => sum + loadsOf(op, prompt.shares), 0) / 2;
    expect(cache.missesPerStep[0]?.misses.max).toBe(Math.round(promptMisses));
  });

  test("say that no prefetcher was modelled where none was", () => {
    const without = drive(simulateCaches(counter.steps, ops, new RuleTracer(), { ...options, prefetcher: false }));
    expect(without?.description).toEndWith(" Made up. No prefetcher was modelled.");
    expect(cache.description).toEndWith(" Made up.");
  });

  test("have each op's part", () => {
    const total = cache.byOp.reduce((sum, { levels }) => sum + (levels[0]?.accesses ?? 0), 0);
    expect(Math.abs(total / (cache.levels[0]?.accesses ?? 1) - 1)).toBeLessThan(0.01);
    expect(cache.byOp.map(({ index }) => index)).toEqual(ops.map(({ index }) => index));
  });

  test("are not there when there was no step", () => {
    expect(drive(simulateCaches([], ops, new RuleTracer(), options))).toBeUndefined();
  });
});
