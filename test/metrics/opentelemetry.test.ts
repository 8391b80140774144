// A model's metrics through OpenTelemetry's own collection and in-memory exporter.

import { afterAll, describe, expect, test } from "bun:test";
import type { Attributes } from "@opentelemetry/api";
import {
  AggregationTemporality,
  DataPointType,
  type Histogram,
  InMemoryMetricExporter,
  MeterProvider,
  type MetricData,
  PeriodicExportingMetricReader,
} from "@opentelemetry/sdk-metrics";
import { type GenerateOptions, loadModel } from "../../src/index.ts";
import { observeMetrics } from "../../src/metrics/index.ts";
import { temporaryFolder } from "../support/folder.ts";
import { madeUpReport } from "../support/report.ts";
import { writeTinyModel } from "../support/tiny-model.ts";

const folder = temporaryFolder();
const path = folder.file("tiny.gguf");
writeTinyModel(path);
const model = await loadModel(path, { threads: { count: 2 }, prepared: false });
afterAll(() => model.close());
const options: GenerateOptions = { maxLength: 20, ignoreEos: true, seed: 3 };

/** A meter, and what its reader collects now. */
function collection(temporality = AggregationTemporality.CUMULATIVE) {
  const exporter = new InMemoryMetricExporter(temporality);
  const reader = new PeriodicExportingMetricReader({ exporter, exportIntervalMillis: 2 ** 30 });
  const provider = new MeterProvider({ readers: [reader] });
  const collect = async (): Promise<Map<string, MetricData>> => {
    exporter.reset();
    await provider.forceFlush();
    const metrics = exporter.getMetrics().flatMap((all) => all.scopeMetrics.flatMap((scope) => scope.metrics));
    return new Map(metrics.map((metric) => [metric.descriptor.name, metric]));
  };
  return { meter: provider.getMeter("test"), collect, shutdown: () => provider.shutdown() };
}

function numberOf(metrics: Map<string, MetricData>, name: string, wanted: Attributes = {}): number | undefined {
  const metric = metrics.get(name);
  if (metric?.dataPointType === DataPointType.HISTOGRAM) throw new Error(`${name} is a histogram`);
  const points = metric?.dataPoints.filter(({ attributes }) =>
    Object.entries(wanted).every(([key, value]) => attributes[key] === value),
  );
  expect(points?.length ?? 0).toBeLessThanOrEqual(1);
  return points?.[0]?.value as number | undefined;
}

function histogramOf(metrics: Map<string, MetricData>, name: string, phase?: string): Histogram | undefined {
  const metric = metrics.get(name);
  if (metric?.dataPointType !== DataPointType.HISTOGRAM) return undefined;
  return metric.dataPoints.find(({ attributes }) => attributes["tinyai.phase"] === phase)?.value;
}

describe("a meter", () => {
  test("has a model's sums and durations, as they are at each collection", async () => {
    using monitor = model.monitor();
    const { meter, collect, shutdown } = collection();
    observeMetrics(meter, monitor);
    for (let round = 0; round <= 3; round++) {
      if (round > 0) await model.generate(["hello", "once upon a time"], options);
      const metrics = await collect();
      const { profile, requestTimes, firstTokens, betweenTokens } = monitor.everything();
      for (const { phase, count, rows, totalNs } of profile.phases) {
        expect(numberOf(metrics, "tinyai.steps", { "tinyai.phase": phase })).toBe(count);
        expect(numberOf(metrics, "tinyai.tokens", { "tinyai.phase": phase })).toBe(rows);
        const steps = histogramOf(metrics, "tinyai.step.duration", phase);
        expect(steps?.count).toBe(count);
        expect((steps?.sum ?? 0) / (totalNs / 1e9)).toBeCloseTo(1, 2);
      }
      for (const { kind, totalNs, bytes } of profile.byKind) {
        expect(numberOf(metrics, "tinyai.op.time", { "tinyai.op.kind": kind })).toBeCloseTo(totalNs / 1e9, 12);
        expect(numberOf(metrics, "tinyai.op.io", { "tinyai.op.kind": kind })).toBe(bytes);
      }
      for (const [name, row] of [
        ["gen_ai.server.request.duration", requestTimes],
        ["gen_ai.server.time_to_first_token", firstTokens],
        ["gen_ai.server.time_per_output_token", betweenTokens],
      ] as const) {
        const histogram = histogramOf(metrics, name);
        expect(histogram?.count ?? 0).toBe(row.count);
        if (row.count === 0) continue;
        expect((histogram?.sum ?? 0) / (row.totalNs / 1e9)).toBeCloseTo(1, 2);
        // It is told to the upper end of its bucket, but the longest one, which is known.
        expect(Math.abs((histogram?.max ?? 0) / (row.maxNs / 1e9) - 1)).toBeLessThan(0.001);
        expect(histogram?.buckets.counts.reduce((sum, count) => sum + count, 0)).toBe(row.count);
      }
      expect(requestTimes.count).toBe(2 * round);
      expect(numberOf(metrics, "tinyai.threads")).toBe(2);
      expect(numberOf(metrics, "process.memory.usage")).toBeGreaterThan(1e6);
    }
    await shutdown();
  });

  test("gives readers of changes what has come since the last collection", async () => {
    using monitor = model.monitor();
    const { meter, collect, shutdown } = collection(AggregationTemporality.DELTA);
    observeMetrics(meter, monitor);
    await collect();
    for (const requests of [1, 3]) {
      await model.generate(new Array<string>(requests).fill("hello"), options);
      const metrics = await collect();
      expect(histogramOf(metrics, "gen_ai.server.request.duration")?.count).toBe(requests);
      expect(histogramOf(metrics, "gen_ai.server.time_per_output_token")?.count).toBe(requests * 19);
    }
    await shutdown();
  });

  test("has the conventions' names, units and attributes", async () => {
    const { report } = madeUpReport();
    const { meter, collect, shutdown } = collection();
    observeMetrics(meter, report);
    const metrics = await collect();
    const conventional = ["request.duration", "time_to_first_token", "time_per_output_token"].map(
      (name) => `gen_ai.server.${name}`,
    );
    for (const name of conventional) {
      const metric = metrics.get(name);
      expect(metric?.descriptor).toMatchObject({ unit: "s" });
      expect(metric?.dataPoints[0]?.attributes).toEqual({
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "tinyai",
        "gen_ai.request.model": "made-up-270m.gguf",
      });
    }
    for (const [name, { descriptor, dataPoints }] of metrics) {
      expect(name).toMatch(/^(tinyai|gen_ai\.server|process\.memory)\.[a-z_.]+$/);
      expect(descriptor.unit).toMatch(/^(s|By|\{[a-z]+\})$/);
      expect(descriptor.description.length).toBeGreaterThan(10);
      expect(dataPoints.length).toBeGreaterThan(0);
    }
    expect(numberOf(metrics, "tinyai.memory.read")).toBe(report.memory?.bytesRead ?? -1);
    // What a report says does not grow.
    expect(histogramOf(await collect(), "gen_ai.server.request.duration")?.count).toBe(report.requestCount);
    await shutdown();
  });

  test("hears nothing more when that is ended", async () => {
    using monitor = model.monitor();
    const { meter, collect, shutdown } = collection();
    const end = observeMetrics(meter, monitor);
    await model.generate("hello", options);
    const before = await collect();
    end();
    await model.generate("hello", options);
    const after = await collect();
    expect(histogramOf(after, "gen_ai.server.request.duration")?.count).toBe(1);
    const generation = { "tinyai.phase": "generation" };
    const steps = numberOf(before, "tinyai.steps", generation);
    expect(steps).toBeGreaterThan(18);
    expect(numberOf(after, "tinyai.steps", generation)).toBe(steps);
    await shutdown();
  });
});
