// Results of benchmarks for tests: the guide's own example, and made-up ones that have every field there is. It is not a test.

import type {
  BenchmarkInfo,
  BenchmarkResults,
  Figures,
  InferenceFigures,
  Settings,
  Statistics,
} from "../../src/benchmark/results.ts";
import { latencyOf, memoryUsageOf, statisticsOf } from "../../src/benchmark/statistics/describe.ts";
import { seededRandom } from "../../src/benchmark/statistics/random.ts";

/** As the guide writes it. */
export const guideResults: BenchmarkResults = {
  benchmark_info: {
    model: "model.tinyai",
    type: "inference",
    timestamp: "2024-03-21T10:00:00Z",
    system_info: { cpu: "Intel Xeon E5-2680", memory: "32GB", os: "Linux 5.4.0" },
  },
  results: {
    latency: {
      mean: 15.2,
      std: 1.5,
      min: 13.1,
      max: 18.3,
      percentiles: { "50": 15.0, "90": 16.8, "95": 17.5, "99": 18.1 },
    },
    throughput: { mean: 65.8, std: 3.2, min: 60.1, max: 70.5 },
    memory_usage: { peak: 1024, mean: 896, std: 45 },
  },
};

/** Samples around `middle`, each within `spread` of it as a part, the same for the same seed. */
export function samplesAround(middle: number, count: number, spread = 0.05, seed = 1): number[] {
  const random = seededRandom(seed);
  return Array.from({ length: count }, () => middle * (1 + spread * (2 * random() - 1)));
}

export const madeUpSettings: Settings = {
  iterations: null,
  time_s: 60,
  precision: 0.02,
  warmup: null,
  loadings: null,
  batch_sizes: [1, 8],
  metrics: ["latency", "throughput", "memory_usage"],
  prompt_tokens: 32,
  generated_tokens: 16,
  threads: 2,
  simd: "avx2",
  seed: 1,
};

export const madeUpInfo: BenchmarkInfo = {
  model: "model.gguf",
  type: "inference",
  timestamp: "2026-11-28T21:00:00.000Z",
  system_info: { cpu: "A CPU", memory: "32GB", os: "Linux 6.1.0" },
  version: 1,
  tinyai: "0.1.0",
  fingerprint: {
    id: "0123456789abcdef",
    cpu: "A CPU",
    cores: 2,
    memory_bytes: 32e9,
    kernel: "6.1.0",
    bun: "1.4.5",
    governor: "performance",
    turbo: false,
    virtualization: "kvm",
  },
  settings: madeUpSettings,
  model_details: {
    path: "/models/model.gguf",
    bytes: 250_000_000,
    sha256: "ab".repeat(32),
    architecture: "gemma3",
    parameters: 268_000_000,
    formats: { Q8_0: 178_000_000, F32: 120_000 },
    layers: 18,
    context: 32_768,
    simd: "avx2",
    threads: 2,
  },
  methodology: ["Each iteration was timed around the call."],
  warnings: ["The machine was not quiet."],
  interrupted: false,
  in_turns: false,
};

/** Figures of an inference benchmark with one batch size: texts of 16 tokens for each request. */
export function madeUpFigures(latencies: readonly number[], batchSize = 1): InferenceFigures {
  return {
    latency: latencyOf(latencies),
    first_token: latencyOf(latencies.map((value) => value / 4)),
    throughput: statisticsOf(latencies.map((value) => (16_000 * batchSize) / value)),
    memory_usage: memoryUsageOf(
      latencies.map(() => 312.5),
      { peak: 320 },
    ),
    utilization: {
      cpu: statisticsOf(latencies.map(() => 95)),
      machine: statisticsOf(latencies.map(() => 98)),
      gpu: statisticsOf([0, 0]),
    },
    warmup: { iterations: 5, steady: true },
    loadings: [latencies.length],
  };
}

/** Results of an inference benchmark with every field. */
export function inferenceResults(
  latencies: readonly number[] = samplesAround(80, 40),
  info: Partial<BenchmarkInfo> = {},
): BenchmarkResults {
  const first = madeUpFigures(latencies);
  const second = madeUpFigures(
    latencies.map((value) => 2 * value),
    8,
  );
  return {
    benchmark_info: { ...madeUpInfo, ...info },
    results: { ...first, by_batch_size: { "1": first, "8": second } },
  };
}

const figures = (middle: number): Statistics => statisticsOf(samplesAround(middle, 10));

/** Results of a memory benchmark with every field. */
export function memoryResults(): BenchmarkResults {
  const allocations = {
    count: figures(12),
    bytes: figures(4096),
    sizes: { count: 12, min: 64, p50: 256, p90: 512, p99: 1024, max: 2048 },
    lifetimes: { count: 12, min: 0.1, p50: 0.2, p90: 0.4, p99: 0.9, max: 1.5 },
  };
  const memory: Figures["memory"] = {
    loading: { time: figures(60), peak: figures(310), added: figures(250) },
    running: { peak: figures(330) },
    parts: [{ name: "weights", estimated_min: 178, estimated_max: 180, taken: 179, resident: 150 }],
    allocations: {
      loading: allocations,
      native: allocations,
      javascript: {
        objects: statisticsOf([10, -2, 9, 11]),
        types: [{ name: "Object", objects: 7 }],
        collections: { count: 2, total_ms: 3, max_ms: 2 },
      },
    },
    cache: {
      source: "simulator",
      description: "Two steps were followed.",
      levels: [
        { name: "L1D", bytes: 49_152, shared_by: 1, accesses: 1000, hits: 900, hit_rate: 0.9 },
        { name: "L2", bytes: 1_048_576, shared_by: 1, accesses: 100, hits: 40, hit_rate: 0.4 },
      ],
      memory_per_step: 180,
      steps: 16,
      followed_steps: 2,
    },
    bandwidth: [
      {
        name: "memory",
        threads: 2,
        working_bytes: 1_000_000_000,
        read: figures(24),
        write: figures(12),
        copy: figures(20),
      },
    ],
  };
  const latencies = samplesAround(80, 10);
  return {
    benchmark_info: { ...madeUpInfo, type: "memory" },
    results: { latency: latencyOf(latencies), memory_usage: memoryUsageOf(latencies), memory },
  };
}

/** Results of a system benchmark with every field. */
export function systemResults(): BenchmarkResults {
  const { samples: _samples, ...latency } = latencyOf(samplesAround(0.2, 100));
  const access = {
    block_bytes: 4096,
    queue_depth: 4,
    bytes: 4_096_000,
    rate: figures(400),
    operations: figures(100_000),
    latency,
  };
  const busy = { cpu: figures(50), machine: figures(60) };
  return {
    benchmark_info: {
      ...madeUpInfo,
      model: "none",
      type: "system",
      settings: { ...madeUpSettings, disk_folder: "/var/tmp" },
    },
    results: {
      system: {
        disk: {
          folder: "/var/tmp",
          file_system: "ext4",
          direct: true,
          file_bytes: 1_000_000_000,
          sequential_write: access,
          sequential_read: access,
          random_write: access,
          random_read: access,
        },
        network: { processes: 2, bandwidth: figures(5000), bytes: 5_000_000_000, latency, message_bytes: 1 },
        threads: {
          kernel: "products of matrices",
          simd: "avx2",
          curve: [
            { threads: 1, rate: figures(100), speedup: 1, efficiency: 1 },
            {
              threads: 2,
              rate: figures(190),
              speedup: 1.9,
              speedup_interval: { level: 0.95, low: 1.8, high: 2 },
              efficiency: 0.95,
            },
          ],
          amdahl: { serial: 0.05, interval: { level: 0.95, low: 0, high: 0.1 }, speedup_max: 20, residual: 0 },
        },
        utilization: { disk: busy, network: busy, threads: busy },
      },
    },
  };
}
