// Metrics as text for Prometheus, in two forms. The classic one is text format 0.0.4, where a histogram has buckets with fixed
// bounds. The other is OpenMetrics 2.0 (release candidate 0), where a histogram is one value with native buckets, which adapt, and
// the classic ones beside them.

import {
  classicBuckets,
  type Family,
  familiesOf,
  type HistogramSample,
  type Labels,
  nativeBuckets,
  seconds,
} from "./families.ts";
import type { Metrics } from "./metrics.ts";

/** How histograms are written, and with them everything. */
export type HistogramForm = "classic" | "native";

/** What HTTP calls the forms. */
export const contentTypes: Readonly<Record<HistogramForm, string>> = {
  classic: "text/plain; version=0.0.4; charset=utf-8",
  native: "application/openmetrics-text; version=2.0.0; charset=utf-8",
};

/** The metrics of several models as one text, whose lines each end in a newline. */
export function metricsText(models: readonly Metrics[], form: HistogramForm): string {
  const families = familiesOf(models).filter(({ samples }) => samples.length > 0);
  const lines = families.flatMap((family) => (form === "classic" ? classicLines(family) : nativeLines(family)));
  if (form === "native") lines.push("# EOF");
  return lines.map((line) => `${line}\n`).join("");
}

function classicLines(family: Family): string[] {
  const { name, help } = family;
  // The format has no type for what only names things.
  const lines = [
    `# HELP ${name} ${escapeHelp(help)}`,
    `# TYPE ${name} ${family.type === "info" ? "gauge" : family.type}`,
  ];
  if (family.type !== "histogram") {
    return [...lines, ...family.samples.map(({ labels, value }) => `${name}${labelsText(labels)} ${value}`)];
  }
  for (const { labels, data } of family.samples) {
    const counts = classicBuckets(data, family.bounds);
    for (const [index, count] of counts.entries()) {
      lines.push(`${name}_bucket${labelsText({ ...labels, le: boundText(family.bounds[index]) })} ${count}`);
    }
    lines.push(`${name}_sum${labelsText(labels)} ${seconds(data.total)}`);
    lines.push(`${name}_count${labelsText(labels)} ${data.count}`);
  }
  return lines;
}

function nativeLines(family: Family): string[] {
  const { name, help, unit } = family;
  const lines = [`# TYPE ${name} ${family.type}`];
  if (unit !== undefined) lines.push(`# UNIT ${name} ${unit}`);
  lines.push(`# HELP ${name} ${escapeText(help)}`);
  if (family.type === "histogram") {
    for (const sample of family.samples) {
      lines.push(`${name}${labelsText(sample.labels)} {${compositeText(sample, family.bounds)}}`);
    }
  } else {
    for (const { labels, value } of family.samples) lines.push(`${name}${labelsText(labels)} ${value}`);
  }
  return lines;
}

/** Fields in the order that the format demands, without a space. */
function compositeText({ data }: HistogramSample, bounds: readonly number[]): string {
  const { schema, zeroThreshold, zeroCount, spans, counts } = nativeBuckets(data);
  const fields = [
    `count:${data.count}`,
    `sum:${seconds(data.total)}`,
    `schema:${schema}`,
    `zero_threshold:${zeroThreshold}`,
    `zero_count:${zeroCount}`,
  ];
  if (spans.length > 0) {
    fields.push(`positive_spans:[${spans.map(([offset, length]) => `${offset}:${length}`).join(",")}]`);
    fields.push(`positive_buckets:[${counts.join(",")}]`);
  }
  const classic = classicBuckets(data, bounds).map((count, index) => `${boundText(bounds[index])}:${count}`);
  fields.push(`bucket:[${classic.join(",")}]`);
  return fields.join(",");
}

/** What lies beyond all bounds has none. */
function boundText(bound: number | undefined): string {
  return bound === undefined ? "+Inf" : String(bound);
}

function labelsText(labels: Labels): string {
  const parts = Object.entries(labels).map(([name, value]) => `${name}="${escapeText(value)}"`);
  return parts.length === 0 ? "" : `{${parts.join(",")}}`;
}

function escapeText(text: string): string {
  return escapeHelp(text).replaceAll('"', '\\"');
}

function escapeHelp(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n");
}
