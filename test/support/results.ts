// Results of benchmarks for tests, made by hand: of given samples, or drawn around a latency.

import type {
  BenchmarkInfo,
  BenchmarkResults,
  InferenceFigures,
  MachineFingerprint,
} from "../../src/benchmark/results.ts";
import { latencyOf, memoryUsageOf, statisticsOf } from "../../src/benchmark/statistics/describe.ts";
import { seededRandom } from "../../src/benchmark/statistics/random.ts";

/** The machine that they say they are of. */
export const fingerprint: MachineFingerprint = {
  id: "0123456789abcdef",
  cpu: "Intel Xeon E5-2680",
  cores: 8,
  memory_bytes: 32 * 2 ** 30,
  kernel: "5.4.0",
  bun: "1.4.5",
  governor: "performance",
  turbo: false,
  virtualization: null,
};

/** Figures of latencies in ms. Sixteen tokens a request, of which the first comes after a third of the time. */
export function figuresOf(latenciesMs: readonly number[], batchSize = 1): InferenceFigures {
  return {
    latency: latencyOf(latenciesMs),
    first_token: latencyOf(latenciesMs.map((ms) => ms / 3)),
    throughput: statisticsOf(latenciesMs.map((ms) => (16_000 * batchSize) / ms)),
    memory_usage: memoryUsageOf(latenciesMs.map((ms) => 400 + (ms % 1))),
    warmup: { iterations: 10, steady: true },
  };
}

/** Results of latencies by batch size. */
export function madeResults(
  bySize: Readonly<Record<string, readonly number[]>>,
  info: Partial<BenchmarkInfo> = {},
): BenchmarkResults {
  const figures = Object.entries(bySize).map(
    ([size, latencies]) => [size, figuresOf(latencies, Number(size))] as const,
  );
  return {
    benchmark_info: {
      model: "model.tinyai",
      type: "inference",
      timestamp: "2024-03-21T10:00:00Z",
      system_info: { cpu: "Intel Xeon E5-2680", memory: "32GB", os: "Linux 5.4.0" },
      version: 1,
      tinyai: "0.1.0",
      fingerprint,
      settings: {
        iterations: 60,
        time_s: null,
        precision: 0.02,
        warmup: null,
        batch_sizes: Object.keys(bySize).map(Number),
        metrics: ["latency", "throughput", "memory_usage"],
        prompt_tokens: 32,
        generated_tokens: 16,
        threads: null,
        simd: null,
        seed: 1,
      },
      methodology: ["An iteration is one call."],
      warnings: [],
      ...info,
    },
    results: { ...figures[0]?.[1], by_batch_size: Object.fromEntries(figures) },
  };
}

/** Results of one batch size that were measured in several loadings; each says how long its iterations took. */
export function loadedResults(loadings: readonly (readonly number[])[]): BenchmarkResults {
  const { benchmark_info, results } = madeResults({ 1: loadings.flat() });
  const figures = { ...results.by_batch_size?.["1"], loadings: loadings.map(({ length }) => length) };
  return { benchmark_info, results: { ...figures, by_batch_size: { 1: figures } } };
}

/** Latencies around `ms`, which spread by 2 %, the same for the same seed. */
export function drawnLatencies(ms: number, count: number, seed: number): number[] {
  const random = seededRandom(seed);
  const normal = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  return Array.from({ length: count }, () => ms * Math.exp(0.02 * normal()));
}
