// A model's metrics as OpenTelemetry's instruments, which its readers collect. Times of requests have the names of its conventions
// for generative AI, the rest begins with `tinyai.`. Sums are observed; histograms, which cannot be, get at each collection what has
// come since the one before, to three digits.

import type { Attributes, BatchObservableResult, Histogram, Meter, Observable } from "@opentelemetry/api";
import { type Bucket, bucketsOf } from "../../profiler/buckets.ts";
import { type Family, familiesOf, type Labels, seconds } from "../../profiler/families.ts";
import type { HistogramData } from "../../profiler/histogram.ts";
import { type MetricsSources, metricsOf } from "./sources.ts";

/** Names and units by the families' names. Requests are counted by their durations; what names a model are attributes. */
const observed: Readonly<Record<string, readonly [name: string, unit: string]>> = {
  tinyai_threads: ["tinyai.threads", "{thread}"],
  tinyai_steps_total: ["tinyai.steps", "{step}"],
  tinyai_tokens_total: ["tinyai.tokens", "{token}"],
  tinyai_generated_tokens_total: ["tinyai.tokens.generated", "{token}"],
  tinyai_op_seconds_total: ["tinyai.op.time", "s"],
  tinyai_outside_ops_seconds_total: ["tinyai.outside_ops.time", "s"],
  tinyai_op_bytes_total: ["tinyai.op.io", "By"],
  tinyai_op_operations_total: ["tinyai.op.operations", "{operation}"],
  tinyai_memory_read_bytes_total: ["tinyai.memory.read", "By"],
  tinyai_memory_written_bytes_total: ["tinyai.memory.written", "By"],
  tinyai_lost_events_total: ["tinyai.events.lost", "{event}"],
  tinyai_incomplete_steps_total: ["tinyai.steps.incomplete", "{step}"],
  tinyai_resident_memory_bytes: ["process.memory.usage", "By"],
  tinyai_native_memory_bytes: ["tinyai.memory.native", "By"],
};

/** Those of ops would be a thousand records a token: their sums are above. */
const recorded: Readonly<Record<string, string>> = {
  tinyai_step_duration_seconds: "tinyai.step.duration",
  tinyai_request_duration_seconds: "gen_ai.server.request.duration",
  tinyai_time_to_first_token_seconds: "gen_ai.server.time_to_first_token",
  tinyai_time_between_tokens_seconds: "gen_ai.server.time_per_output_token",
};

const attributeNames: Readonly<Record<string, string>> = {
  model: "gen_ai.request.model",
  phase: "tinyai.phase",
  kind: "tinyai.op.kind",
  part: "tinyai.part",
  reason: "tinyai.reason",
};

/**
 * Gives a model's metrics to a meter: what its readers collect has them from now on.
 * @param sources a monitor or a report, or a list of them with different names.
 * @returns what ends that.
 * @throws {OptionError} if two sources have the same name.
 * @example
 * observeMetrics(metrics.getMeter("tinyai"), monitor);
 */
export function observeMetrics(meter: Meter, sources: MetricsSources): () => void {
  const families = familiesOf(metricsOf(sources));
  const instruments = new Map<string, Observable>();
  const histograms = new Map<string, Histogram>();
  for (const family of families) {
    const description = family.help;
    const [name, unit] = observed[family.name] ?? [];
    const durations = recorded[family.name];
    if (name !== undefined && unit !== undefined) {
      const create = family.type === "counter" ? "createObservableCounter" : "createObservableUpDownCounter";
      instruments.set(family.name, meter[create](name, { description, unit }));
    } else if (durations !== undefined && family.type === "histogram") {
      const advice = { explicitBucketBoundaries: [...family.bounds] };
      histograms.set(family.name, meter.createHistogram(durations, { description, unit: "s", advice }));
    }
  }
  /** What histograms have been given, by name and labels. */
  const given = new Map<string, readonly Bucket[]>();
  const observe = (result: BatchObservableResult): void => {
    for (const family of familiesOf(metricsOf(sources))) {
      if (family.type === "histogram") record(family, histograms.get(family.name), given);
      else {
        const instrument = instruments.get(family.name);
        if (instrument === undefined) continue;
        for (const { labels, value } of family.samples) result.observe(instrument, value, attributesOf(labels));
      }
    }
  };
  const observables = [...instruments.values()];
  meter.addBatchObservableCallback(observe, observables);
  return () => meter.removeBatchObservableCallback(observe, observables);
}

/** Records what has come since the last time. */
function record(
  { name, samples }: Extract<Family, { readonly type: "histogram" }>,
  histogram: Histogram | undefined,
  given: Map<string, readonly Bucket[]>,
): void {
  if (histogram === undefined) return;
  for (const { labels, data } of samples) {
    const key = `${name} ${JSON.stringify(labels)}`;
    const attributes = { ...attributesOf(labels), "gen_ai.operation.name": "text_completion" };
    for (const { value, count } of addedTo(given.get(key) ?? [], data)) {
      for (let times = 0; times < count; times++) histogram.record(seconds(value), attributes);
    }
    given.set(key, bucketsOf(data));
  }
}

/** What a histogram has beyond what it had. Buckets only grow; the value of the last one, which is the maximum, may too. */
function addedTo(before: readonly Bucket[], data: HistogramData): Bucket[] {
  let next = 0;
  return bucketsOf(data).map(({ value, count }) => {
    let had = 0;
    for (; (before[next]?.value ?? Number.POSITIVE_INFINITY) <= value; next++) had += before[next]?.count ?? 0;
    return { value, count: count - had };
  });
}

function attributesOf(labels: Labels): Attributes {
  const named = Object.entries(labels).map(([name, value]) => [attributeNames[name] ?? name, value]);
  // What is of the process has no labels.
  return named.length === 0 ? {} : { "gen_ai.provider.name": "tinyai", ...Object.fromEntries(named) };
}
