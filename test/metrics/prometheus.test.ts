// Metrics as text for Prometheus: read back by a parser of the tests' own, they say what the report says.

import { describe, expect, test } from "bun:test";
import { createNoopMeter } from "@opentelemetry/api";
import { Registry } from "prom-client";
import { Histogram } from "../../profiler/index.ts";
import { type Metrics, metricsOfReport } from "../../profiler/metrics.ts";
import type { Report } from "../../profiler/report.ts";
import { OptionError } from "../../src/errors.ts";
import { observeMetrics, prometheusResponse, prometheusText, registerMetrics } from "../../src/metrics/index.ts";
import { Random } from "../support/random.ts";
import { bareReport, changed, emptyReport, madeUpReport } from "../support/report.ts";
import { decodeNative, pairsOf, type ReadFamily, readExposition } from "./exposition.ts";

const { report } = madeUpReport();
const classic = readExposition(prometheusText(report), false);
const native = readExposition(prometheusText(report, { histograms: "native" }), true);

function family(name: string, from = classic): ReadFamily {
  const found = from.get(name);
  if (!found) throw new Error(`there is no ${name}`);
  return found;
}

/** The value of a family's only sample with these labels. */
function sampleOf(name: string, labels: Record<string, string> = {}, from = classic): number {
  const wanted = Object.entries(labels);
  const found = family(name, from).samples.filter((sample) => wanted.every(([key, to]) => sample.labels[key] === to));
  expect(found.length).toBe(1);
  return found[0]?.value ?? Number.NaN;
}

describe("the text", () => {
  test("has the report's sums, in base units", () => {
    for (const from of [classic, native]) {
      for (const { phase, count, rows } of report.phases) {
        expect(sampleOf("tinyai_steps_total", { phase }, from)).toBe(count);
        expect(sampleOf("tinyai_tokens_total", { phase }, from)).toBe(rows);
      }
      const generated = report.requests.reduce((sum, { generatedTokens }) => sum + generatedTokens, 0);
      expect(sampleOf("tinyai_generated_tokens_total", {}, from)).toBe(generated);
      expect(sampleOf("tinyai_requests_total", {}, from)).toBe(report.requestCount);
      let seconds = 0;
      for (const { kind, totalNs, bytes, operations } of report.byKind) {
        expect(sampleOf("tinyai_op_seconds_total", { kind }, from)).toBe(totalNs / 1e9);
        expect(sampleOf("tinyai_op_bytes_total", { kind }, from)).toBe(bytes);
        expect(sampleOf("tinyai_op_operations_total", { kind }, from)).toBe(operations);
        seconds += totalNs / 1e9;
      }
      const parts = family("tinyai_outside_ops_seconds_total", from).samples;
      expect(parts.map(({ labels }) => labels["part"] as string).sort()).toEqual([
        "copying",
        "engine",
        "idle",
        "sampling",
        "unattributed",
        "waiting",
      ]);
      for (const { value } of parts) seconds += value;
      expect(seconds).toBeCloseTo(report.steps.totalNs / 1e9, 12);
      expect(sampleOf("tinyai_memory_read_bytes_total", {}, from)).toBe(report.memory?.bytesRead ?? -1);
      expect(sampleOf("tinyai_memory_written_bytes_total", {}, from)).toBe(report.memory?.bytesWritten ?? -1);
      expect(sampleOf("tinyai_lost_events_total", { reason: "full_ring" }, from)).toBe(0);
      expect(sampleOf("tinyai_incomplete_steps_total", {}, from)).toBe(0);
      expect(sampleOf("tinyai_threads", {}, from)).toBe(2);
      expect(sampleOf("tinyai_resident_memory_bytes", {}, from)).toBe(
        report.system?.samples.at(-1)?.residentBytes ?? -1,
      );
      const [info] = family("tinyai_model_info", from).samples;
      expect(info?.labels).toEqual({
        model: "made-up-270m.gguf",
        architecture: "gemma3",
        level: "avx512_vnni",
        version: "0.1.0",
      });
    }
  });

  test("follows the naming rules: every family described, its unit in its name, counters ending in _total", () => {
    expect([...classic.keys()]).toEqual([...native.keys()]);
    for (const [name, { type, help, unit, samples }] of native) {
      expect(help.length).toBeGreaterThan(10);
      expect(name.endsWith("_total")).toBe(type === "counter");
      expect(name.endsWith("_info")).toBe(type === "info");
      if (unit !== "") expect(name.replace(/_total$/, "")).toEndWith(`_${unit}`);
      expect(/_(seconds|bytes)(_total)?$/.test(name)).toBe(unit !== "");
      expect(family(name).type).toBe(type === "info" ? "gauge" : type);
      expect(samples.length).toBeGreaterThan(0);
    }
  });

  test("has classic buckets that only grow up to the count of all", () => {
    let histograms = 0;
    for (const [name, { type, samples }] of classic) {
      if (type !== "histogram") continue;
      const series = new Map<string, { le: number; value: number }[]>();
      for (const { labels, value, ...sample } of samples) {
        const { le, ...others } = labels;
        if (sample.name !== `${name}_bucket`) continue;
        const key = JSON.stringify(others);
        series.set(key, [...(series.get(key) ?? []), { le: le === "+Inf" ? Infinity : Number(le), value }]);
      }
      for (const [key, buckets] of series) {
        histograms++;
        const same = (sample: { labels: object }) => JSON.stringify(sample.labels) === key;
        const count = samples.find((sample) => sample.name === `${name}_count` && same(sample))?.value;
        expect(buckets.at(-1)).toEqual({ le: Number.POSITIVE_INFINITY, value: count ?? -1 });
        for (const [index, { le, value }] of buckets.entries()) {
          expect(value).toBeGreaterThanOrEqual(buckets[index - 1]?.value ?? 0);
          expect(le).toBeGreaterThan(buckets[index - 1]?.le ?? 0);
        }
        // In the other form, the same buckets and sums stand beside the native ones.
        const other = family(name, native).samples.find(same);
        expect(pairsOf(other?.fields?.["bucket"])).toEqual(buckets.map(({ le, value }) => [le, value]));
        expect(other?.fields?.["count"]).toBe(String(count));
        const sum = samples.find((sample) => sample.name === `${name}_sum` && same(sample))?.value;
        expect(Number(other?.fields?.["sum"])).toBe(sum as number);
      }
    }
    expect(histograms).toBe(report.phases.length + report.byKind.length + 3);
  });

  test("has native buckets with the counts of the amounts between their bounds", () => {
    const random = new Random(4);
    const values = Array.from({ length: 5000 }, () => Math.floor(2 ** (random.uniform() * 40)) - 1);
    // At bounds of buckets, and around them.
    values.push(0, 0, 0, 1, 2, 1e9, 2e9, 4e9, 5e8, 1e9 - 1, 1e9 + 1);
    const histogram = new Histogram("ns");
    for (const value of values) histogram.record(value);
    const metrics: Metrics = { ...metricsOfReport(report), betweenTokens: histogram.toJSON() };
    const text = prometheusText({ metrics: () => metrics }, { histograms: "native" });
    const [sample] = family("tinyai_time_between_tokens_seconds", readExposition(text, true)).samples;
    const decoded = decodeNative(sample?.fields ?? {});
    const zeros = values.filter((value) => value === 0).length;
    expect(decoded[0]).toEqual([2 ** -30, zeros]);
    let sum = 0;
    for (const [bound, count] of decoded) {
      expect(count).toBeGreaterThan(0);
      sum += count;
      const upTo = (limit: number) => values.filter((value) => value / 1e9 <= limit).length;
      expect(sum).toBeLessThanOrEqual(upTo(bound));
      expect(sum).toBeGreaterThanOrEqual(upTo(bound / 1.001));
    }
    expect(sum).toBe(values.length);
    expect(decoded.length).toBeGreaterThan(16 * 30);
  });

  test("has native buckets for every histogram of a report, that hold as much as it counted", () => {
    for (const [, { type, samples }] of native) {
      for (const { fields } of type === "histogram" ? samples : []) {
        const sum = decodeNative(fields ?? {}).reduce((total, [, count]) => total + count, 0);
        expect(sum).toBe(Number(fields?.["count"]));
      }
    }
    const { byKind, firstTokens } = report;
    for (const row of byKind) {
      const sample = family("tinyai_op_duration_seconds", native).samples.find(
        ({ labels }) => labels["kind"] === row.kind,
      );
      expect(Number(sample?.fields?.["count"])).toBe(row.count);
      const bounds = decodeNative(sample?.fields ?? {}).map(([bound]) => bound * 1e9);
      expect(bounds.at(-1)).toBeGreaterThanOrEqual(row.maxNs);
      expect((bounds.at(-1) ?? 0) / 2 ** (1 / 16)).toBeLessThan(row.maxNs);
    }
    const [first] = family("tinyai_time_to_first_token_seconds", native).samples;
    expect(Number(first?.fields?.["sum"])).toBe(firstTokens.totalNs / 1e9);
  });

  test("keeps labels whole, whatever is in them", () => {
    const name = 'a "model"\nin \\two\\ lines, {1="2"} ü.gguf';
    const odd: Report = changed(report, { run: { model: name } });
    for (const histograms of ["classic", "native"] as const) {
      const read = readExposition(prometheusText(odd, { histograms }), histograms === "native");
      const models = [...read.values()].flatMap(({ samples }) => samples.map(({ labels }) => labels["model"] ?? name));
      expect(models.length).toBeGreaterThan(40);
      expect(new Set(models)).toEqual(new Set([name]));
    }
  });

  test("tells several models apart, and what is of the process once", () => {
    const other: Report = changed(report, { run: { model: "other.gguf" } });
    const both = readExposition(prometheusText([report, other]), false);
    for (const [name, { samples }] of both) {
      const one = family(name).samples.length;
      expect(samples.length).toBe(/_memory_bytes$/.test(name) ? one : 2 * one);
    }
    expect(sampleOf("tinyai_requests_total", { model: "other.gguf" }, both)).toBe(report.requestCount);
  });

  test("is refused of sources with the same name, whose series would be the same", () => {
    const other: Report = changed(report, { run: { model: "other.gguf" } });
    const twice = [report, other, report];
    expect(() => prometheusText(twice)).toThrow(OptionError);
    expect(() => prometheusText(twice)).toThrow(/^sources\[2\]: is called "made-up-270m\.gguf" as sources\[0\] is/);
    expect(() => registerMetrics(new Registry(), twice)).toThrow(OptionError);
    expect(() => observeMetrics(createNoopMeter(), twice)).toThrow(OptionError);
  });

  test("is there for reports in which nothing but time was watched, or nothing ran", () => {
    for (const [rest, absent] of [
      [bareReport(), "tinyai_memory_read_bytes_total"],
      [emptyReport(), "tinyai_op_duration_seconds"],
    ] as const) {
      const read = readExposition(prometheusText(rest), false);
      expect(read.has(absent)).toBe(false);
      expect(read.has("tinyai_resident_memory_bytes")).toBe(false);
      expect(sampleOf("tinyai_requests_total", {}, read)).toBe(0);
      expect(readExposition(prometheusText(rest, { histograms: "native" }), true).size).toBe(read.size);
    }
    // Read from JSON it is the same.
    expect(prometheusText(JSON.parse(JSON.stringify(report)))).toBe(prometheusText(report));
  });

  test("is refused of reports without histograms, and in forms that there are not", () => {
    const { histogram: _, ...steps } = report.firstTokens;
    expect(() => prometheusText({ ...report, firstTokens: steps })).toThrow(/report\.firstTokens: has no histogram/);
    expect(() => prometheusText(report, { histograms: "sparse" as never })).toThrow(OptionError);
    expect(() => prometheusText(report, { form: "native" } as never)).toThrow(OptionError);
  });
});

describe("a scrape", () => {
  const scrape = async (accept?: string) => {
    const headers = accept === undefined ? {} : { accept };
    const response = prometheusResponse(new Request("http://localhost/metrics", { headers }), report);
    return { type: response.headers.get("content-type"), text: await response.text() };
  };

  test("gets the form that it asks for", async () => {
    const oldest =
      "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
    for (const accept of [undefined, "*/*", "text/plain", oldest]) {
      const { type, text } = await scrape(accept);
      expect(type).toBe("text/plain; version=0.0.4; charset=utf-8");
      expect(text).toBe(prometheusText(report));
    }
    for (const accept of [
      "application/openmetrics-text; version=2.0.0",
      `application/openmetrics-text;version=2.0.0;escaping=allow-utf-8;q=0.6,${oldest}`,
    ]) {
      const { type, text } = await scrape(accept);
      expect(type).toBe("application/openmetrics-text; version=2.0.0; charset=utf-8");
      expect(text).toBe(prometheusText(report, { histograms: "native" }));
    }
  });
});
