// Cache statistics from the simulator: some steps' accesses go through simulated caches (tracing.ts), and count for the steps that
// are like them. Of generation those are steps from its beginning, middle and end, each whole and behind the one before it, which
// leaves in the caches what a step leaves. Of a prompt's steps, whose layers take seconds, layers alike count for each other.

import { Histogram } from "./histogram.ts";
import type { CountedOp, CountedStep } from "./memory.ts";
import type { CacheCounts, CacheGeometry, CacheStatistics } from "./report.ts";
import type { StepTracer, TracedOp } from "./tracing.ts";

export interface SimulationOptions {
  /** Nearest first. */
  readonly geometry: readonly CacheGeometry[];
  /** Whether a hardware prefetcher was modelled. */
  readonly prefetcher: boolean;
  readonly weightsBytes: number;
  /** What is said of where the figures come from, beside how many steps were simulated: why not from counters, which caches. */
  readonly description: string;
}

/** Steps of generation that are simulated at most. */
const GENERATION_MAX = 3;
/** Bytes of weights that are simulated at most unless one step has more: 1 to 2 s a gigabyte. */
const WEIGHTS_MAX = 2e9;
/** Different steps of prompts that are simulated at most. */
const PROMPTS_MAX = 2;

/** A simulated step: what each op did, and how many rows it had. */
interface Sample {
  readonly step: CountedStep;
  readonly rows: number;
  readonly ops: readonly TracedOp[];
}

/** Simulates steps and scales them up to all of `steps`. Undefined when there were none. Yields now and then. */
export function* simulateCaches(
  steps: readonly CountedStep[],
  ops: readonly CountedOp[],
  tracer: StepTracer,
  options: SimulationOptions,
): Generator<void, CacheStatistics | undefined, void> {
  const generation = steps.filter((step) => !isPrompt(step));
  const prompts = steps.filter(isPrompt);
  const samples: Sample[] = [];
  tracer.forget();
  for (const step of choosePrompts(prompts)) {
    const found = yield* simulatePrompt(step, ops, tracer);
    if (found) samples.push(found);
  }
  const chosen = chooseGeneration(generation, Math.floor(WEIGHTS_MAX / Math.max(1, options.weightsBytes)));
  const [first] = chosen;
  if (first) yield* simulateStep(first, ops, tracer);
  for (const step of chosen) {
    const found = yield* simulateStep(step, ops, tracer);
    if (found) samples.push(found);
  }
  return samples.length === 0 ? undefined : scaleUp(steps, samples, ops.length, options);
}

/** More rows than sequences. Guesses of a lookup make a step look like a prompt's, and it is simulated like one. */
function isPrompt({ shares }: CountedStep): boolean {
  return rowsOf(shares) > shares.length;
}

function rowsOf(shares: CountedStep["shares"]): number {
  return shares.reduce((sum, { rows }) => sum + rows, 0);
}

/** Those that most rows went through. */
function choosePrompts(steps: readonly CountedStep[]): CountedStep[] {
  const byRows = new Map<number, { step: CountedStep; weight: number }>();
  for (const step of steps) {
    const rows = rowsOf(step.shares);
    const known = byRows.get(rows);
    if (known) known.weight += rows * step.count;
    else byRows.set(rows, { step, weight: rows * step.count });
  }
  return [...byRows.values()]
    .sort((a, b) => b.weight - a.weight)
    .slice(0, PROMPTS_MAX)
    .map(({ step }) => step);
}

/** Evenly spread over them, in their order. */
function chooseGeneration(steps: readonly CountedStep[], affordable: number): CountedStep[] {
  const count = Math.min(steps.length, GENERATION_MAX, Math.max(1, affordable));
  const places = Array.from({ length: count }, (_, index) => Math.floor(((index + 0.5) * steps.length) / count));
  return places.map((place) => steps[place] as CountedStep);
}

function* simulateStep(
  step: CountedStep,
  ops: readonly CountedOp[],
  tracer: StepTracer,
): Generator<void, Sample | undefined, void> {
  if (!tracer.begin(step.shares, step.draw)) return undefined;
  const traced: TracedOp[] = [];
  for (let index = 0; index <= ops.length; index++) {
    traced.push(tracer.run(index, index + 1, "simulate")[0] as TracedOp);
    if (index % 32 === 0) yield;
  }
  return { step, rows: rowsOf(step.shares), ops: traced };
}

/** The layer in the middle behind the one before it, those that have ops unlike its own, and what belongs to no layer. */
function* simulatePrompt(
  step: CountedStep,
  ops: readonly CountedOp[],
  tracer: StepTracer,
): Generator<void, Sample | undefined, void> {
  if (!tracer.begin(step.shares, step.draw)) return undefined;
  const layers = [...new Set(ops.map(({ layer }) => layer))].filter((layer) => layer >= 0);
  const middle = layers[layers.length >> 1];
  const known = new Map<string, TracedOp>();
  const run = function* (layer: number | undefined): Generator<void, void, void> {
    for (const op of ops) {
      if (op.layer !== layer) continue;
      known.set(op.signature, tracer.run(op.index, op.index + 1, "sample")[0] as TracedOp);
      yield;
    }
  };
  yield* run(layers[(layers.length >> 1) - 1]);
  yield* run(middle);
  for (const layer of layers) {
    if (ops.some((op) => op.layer === layer && !known.has(op.signature))) yield* run(layer);
  }
  for (const op of ops) {
    if (known.has(op.signature)) continue;
    known.set(op.signature, tracer.run(op.index, op.index + 1, "sample")[0] as TracedOp);
    yield;
  }
  const traced = ops.map(({ signature }) => known.get(signature) as TracedOp);
  traced.push(tracer.run(ops.length, ops.length + 1, "sample")[0] as TracedOp);
  return { step, rows: rowsOf(step.shares), ops: traced };
}

/** Every step counts as the sample that is most like it; one of a prompt's by its rows, in proportion. */
function scaleUp(
  steps: readonly CountedStep[],
  samples: readonly Sample[],
  opCount: number,
  options: SimulationOptions,
): CacheStatistics {
  const { geometry, prefetcher } = options;
  const weights = new Map<Sample, number>(samples.map((sample) => [sample, 0]));
  const places = new Map(samples.map((sample) => [sample, steps.indexOf(sample.step)]));
  const misses = new Map(samples.map((sample) => [sample, geometry.map((_, level) => missesOf(sample, level))]));
  const missesPerStep = geometry.map(() => new Histogram("misses"));
  let stepCount = 0;
  for (const [place, step] of steps.entries()) {
    stepCount += step.count;
    const prompt = isPrompt(step);
    const rows = rowsOf(step.shares);
    const distance = (sample: Sample): number =>
      prompt ? Math.abs(sample.rows - rows) : Math.abs((places.get(sample) ?? 0) - place);
    const alike = samples.filter((sample) => isPrompt(sample.step) === prompt);
    const [nearest] = (alike.length > 0 ? alike : [...samples]).sort((a, b) => distance(a) - distance(b));
    if (!nearest) continue;
    const scale = rows / nearest.rows;
    weights.set(nearest, (weights.get(nearest) ?? 0) + step.count * scale);
    for (const [level, histogram] of missesPerStep.entries()) {
      histogram.record(Math.round((misses.get(nearest)?.[level] ?? 0) * scale), step.count);
    }
  }
  const empty = (): OpSums => ({ accesses: new Float64Array(3), misses: new Float64Array(3), memoryLines: 0 });
  const sums = Array.from({ length: opCount + 1 }, empty);
  for (const [sample, weight] of weights) {
    for (const [index, op] of sample.ops.entries()) addTo(sums[index] as OpSums, op, weight);
  }
  const total = empty();
  for (const sum of sums) addTo(total, sum, 1);
  const lineBytes = geometry.at(-1)?.lineBytes ?? 0;
  const memoryBytes = (sum: OpSums): number => Math.round(sum.memoryLines) * lineBytes;
  const levels = levelsOf(total, geometry);
  return {
    source: "simulator",
    description: `${samples.length === 1 ? "1 step" : `${samples.length} steps`} of ${stepCount} simulated, the others counted as the one most like them. ${options.description}${prefetcher ? "" : " No prefetcher was modelled."}`,
    hitRate: levels[0]?.hitRate ?? 1,
    geometry,
    levels,
    byOp: sums.slice(0, opCount).flatMap((sum, index) => {
      if ((sum.accesses[0] ?? 0) === 0) return [];
      return [{ index, levels: levelsOf(sum, geometry), memoryBytes: memoryBytes(sum) }];
    }),
    memoryBytes: memoryBytes(total),
    prefetcher,
    simulatedSteps: samples.length,
    steps: stepCount,
    missesPerStep: geometry.map(({ name }, level) => ({
      name,
      misses: (missesPerStep[level] as Histogram).row({ histogram: true }),
    })),
    cycles: null,
    instructions: null,
    tlbMisses: null,
  };
}

interface OpSums {
  readonly accesses: Float64Array;
  readonly misses: Float64Array;
  memoryLines: number;
}

function addTo(sums: OpSums, op: Pick<TracedOp, "accesses" | "misses" | "memoryLines">, weight: number): void {
  for (let level = 0; level < sums.accesses.length; level++) {
    sums.accesses[level] = (sums.accesses[level] as number) + (op.accesses[level] as number) * weight;
    sums.misses[level] = (sums.misses[level] as number) + (op.misses[level] as number) * weight;
  }
  sums.memoryLines += op.memoryLines * weight;
}

function levelsOf(sums: OpSums, geometry: readonly CacheGeometry[]): CacheCounts[] {
  return geometry.map(({ name }, level) => {
    const accesses = Math.round(sums.accesses[level] as number);
    const misses = Math.min(accesses, Math.round(sums.misses[level] as number));
    const hits = accesses - misses;
    return { name, accesses, hits, misses, hitRate: accesses === 0 ? 1 : hits / accesses };
  });
}

function missesOf({ ops }: Sample, level: number): number {
  return ops.reduce((sum, op) => sum + (op.misses[level] as number), 0);
}
