// Figures of results by their names.

import { expect, test } from "bun:test";
import { figureKind, figureOf } from "../../src/benchmark/figure.ts";
import { meanInterval, quantileInterval } from "../../src/benchmark/statistics/bootstrap.ts";
import { quantile } from "../../src/benchmark/statistics/summary.ts";
import {
  guideResults,
  inferenceResults,
  memoryResults,
  samplesAround,
  systemResults,
} from "../support/benchmark-results.ts";

const inference = inferenceResults(samplesAround(80, 120));
const latencies = inference.results.latency?.samples ?? [];

function named(results: typeof inference, name: string): number | undefined {
  return figureOf(results.results, figureKind(name, [results]).name)?.value;
}

test("a name means a field of the file, or what of it is asked for", () => {
  const { latency, first_token, throughput, memory_usage, utilization } = inference.results;
  const wanted: Readonly<Record<string, number | undefined>> = {
    latency: latency?.mean,
    "latency.mean": latency?.mean,
    "latency.std": latency?.std,
    "latency.min": latency?.min,
    "latency.max": latency?.max,
    "latency.p99": latency?.percentiles["99"],
    "latency.percentiles.99": latency?.percentiles["99"],
    first_token: first_token?.mean,
    "first_token.p50": first_token?.percentiles["50"],
    throughput: throughput?.mean,
    memory: memory_usage?.peak,
    memory_usage: memory_usage?.peak,
    "memory_usage.mean": memory_usage?.mean,
    "utilization.cpu": utilization?.cpu?.mean,
  };
  for (const [name, value] of Object.entries(wanted)) {
    expect({ name, value: named(inference, name) }).toEqual({ name, value: value ?? Number.NaN });
  }
});

test("any percentile is computed where the samples are there", () => {
  const sorted = [...latencies].sort((a, b) => a - b);
  expect(named(inference, "latency.p75")).toBe(quantile(sorted, 0.75));
  expect(named(inference, "latency.p99.5")).toBe(quantile(sorted, 0.995));
  for (const name of ["latency.p0", "latency.p100", "latency.p", "latency.px"]) {
    expect(() => figureKind(name, [inference])).toThrow("there is no");
  }
  expect(figureOf(guideResults.results, "latency.p75")).toBeUndefined();
});

test("a figure has the interval that the file says, else that of its samples, else none", () => {
  const { latency } = inference.results;
  if (!latency) throw new Error("there is no latency");
  const said = { level: 0.9, low: 1, high: 2 };
  const intervals = { ...latency, interval: said, percentile_intervals: { "90": said } };
  for (const name of ["latency.mean", "latency.p90"]) {
    expect(figureOf({ latency: intervals }, name)?.interval).toEqual(said);
  }
  const { interval: _interval, percentile_intervals: _intervals, ...bare } = latency;
  expect(figureOf({ latency: bare }, "latency.mean")?.interval).toEqual(meanInterval(latencies));
  expect(figureOf({ latency: bare }, "latency.p50")?.interval).toEqual(quantileInterval(latencies, 0.5) ?? null);
  expect(figureOf(guideResults.results, "latency.mean")).toEqual({ value: 15.2, interval: null, samples: null });
  expect(figureOf(guideResults.results, "memory_usage.peak")).toEqual({ value: 1024, interval: null, samples: null });
  expect(figureOf(inference.results, "latency.max")).toEqual({ value: latency.max, interval: null, samples: 120 });
  expect(figureOf(systemResults().results, "system.threads.curve.2.speedup")).toEqual({
    value: 1.9,
    interval: { level: 0.95, low: 1.8, high: 2 },
    samples: null,
  });
});

test("names have units, words, and say which way is better", () => {
  const [memory, system] = [memoryResults(), systemResults()];
  const kinds = [
    [inference, "latency", "ms", "less", "mean latency"],
    [inference, "latency.p99", "ms", "less", "p99 latency"],
    [inference, "latency.std", "ms", "less", "standard deviation of latency"],
    [inference, "throughput", "tokens/s", "more", "mean throughput"],
    [inference, "throughput.std", "tokens/s", "less", "standard deviation of throughput"],
    [inference, "memory", "MB", "less", "peak memory usage"],
    [inference, "utilization.machine", "%", null, "mean utilization machine"],
    [memory, "loading.time", "ms", "less", "mean loading time"],
    [memory, "running.peak", "MB", "less", "mean running peak"],
    [memory, "memory.parts.weights.taken", "MB", "less", "parts weights taken"],
    [memory, "bandwidth.memory.read", "GB/s", "more", "mean bandwidth memory read"],
    [memory, "cache.levels.L2.hit_rate", "", "more", "cache levels L2 hit rate"],
    [memory, "allocations.native.bytes", "bytes", "less", "mean allocations native bytes"],
    [system, "disk.random_read.operations", "accesses/s", "more", "mean disk random read operations"],
    [system, "disk.random_read.latency.p99", "ms", "less", "p99 disk random read latency"],
    [system, "network.bandwidth.min", "MB/s", "more", "least network bandwidth"],
    [system, "threads.curve.2.rate", "Gop/s", "more", "mean threads curve 2 rate"],
    [system, "threads.amdahl.serial", "", "less", "threads amdahl serial"],
  ] as const;
  for (const [results, name, unit, better, title] of kinds) {
    const kind = figureKind(name, [results]);
    expect({ name, unit: kind.unit, better: kind.better, title: kind.title }).toEqual({ name, unit, better, title });
    expect(figureOf(results.results, kind.name)?.value).toBeFinite();
    // Its own name means the same.
    expect(figureKind(kind.name, [results])).toEqual(kind);
  }
  const settings = { ...inference.benchmark_info.settings, generated_tokens: 0 } as never;
  const embeds = { ...inference, benchmark_info: { ...inference.benchmark_info, settings } };
  expect(figureKind("throughput", [embeds]).unit).toBe("texts/s");
});

test("rows of the same name are told apart by their threads", () => {
  const { memory } = memoryResults().results;
  const [row] = memory?.bandwidth ?? [];
  if (!memory || !row) throw new Error("there is no bandwidth");
  const results = { ...memoryResults(), results: { memory: { ...memory, bandwidth: [row, { ...row, threads: 1 }] } } };
  expect(figureKind("bandwidth.memory.1.read", [results]).name).toBe("memory.bandwidth.memory.1.read.mean");
  expect(figureOf(results.results, "memory.bandwidth.memory.2.read.mean")?.value).toBe(row.read?.mean ?? -1);
});

test("a name that nothing has is refused with those that there are", () => {
  expect(() => figureKind("speed", [guideResults])).toThrow(
    '--metric: there is no "speed" in these results; there are latency, throughput, memory_usage, and of them .mean, .std, .min, .max, of latencies .p50 to .p99',
  );
  for (const name of ["", ".", "latency.", "benchmark_info", "memory.bandwidth.memory.threads", "constructor"]) {
    expect(() => figureKind(name, [inference, memoryResults()])).toThrow("there is no");
  }
});

test("fields that are nested deeper than any figure are passed over", () => {
  const nested = `${'{"a":'.repeat(50_000)}{"mean":1}${"}".repeat(50_000)}`;
  const results = { ...guideResults.results, other: JSON.parse(nested) };
  expect(figureOf(results, "latency.mean")?.value).toBe(15.2);
  expect(figureKind("latency", [{ ...guideResults, results }]).name).toBe("latency.mean");
});
