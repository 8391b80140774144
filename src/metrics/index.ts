// `tinyai/metrics`: what a model does, for monitoring systems. A source is what `model.monitor` gave, a report of `model.profile`, or
// a list of such. Neither prom-client nor OpenTelemetry is imported: who uses them hands in a registry or a meter.

import { contentTypes, type HistogramForm, metricsText } from "../../profiler/prometheus.ts";
import { checkKeys, describe } from "../check.ts";
import { OptionError } from "../errors.ts";
import { type MetricsSources, metricsOf } from "./sources.ts";

export type { MetricSums, Metrics, MetricsModel, MetricsSource, OutsidePart } from "../../profiler/metrics.ts";
export type { HistogramForm } from "../../profiler/prometheus.ts";
export { observeMetrics } from "./opentelemetry.ts";
export { registerMetrics } from "./prom-client.ts";
export type { MetricsSources } from "./sources.ts";

/** Options of `prometheusText`. */
export interface PrometheusOptions {
  /**
   * "classic" (default): text format 0.0.4, histograms with fixed bounds, which every Prometheus server reads, as do node_exporter's
   * textfile collector and the Pushgateway. "native": OpenMetrics 2.0 as of its release candidate 0, histograms with native buckets
   * and the classic ones beside them. Prometheus 3.15 reads that with `--enable-feature=openmetrics2`, and keeps the native buckets
   * with `scrape_native_histograms: true`; servers before it read native histograms only as protobuf, which this is not.
   */
  readonly histograms?: HistogramForm | undefined;
}

/**
 * Metrics as text for Prometheus. Names and help texts say what they are.
 * @param sources a monitor or a report, or a list of them with different names.
 * @throws {OptionError} if an option is out of its bounds, or two sources have the same name. @throws {RangeError} for a report whose rows have no histograms.
 * @example
 * using monitor = model.monitor();
 * console.log(prometheusText(monitor));
 * @example
 * using small = model.monitor();
 * using tuned = other.monitor({ name: "tuned" });
 * console.log(prometheusText([small, tuned]));
 */
export function prometheusText(sources: MetricsSources, options: PrometheusOptions = {}): string {
  checkKeys("options", options, ["histograms"]);
  const { histograms = "classic" } = options;
  if (histograms !== "classic" && histograms !== "native") {
    throw new OptionError("histograms", `is ${describe(histograms)}; "classic" or "native" is expected`);
  }
  return metricsText(metricsOf(sources), histograms);
}

/**
 * Answers a scrape in the form that it asks for: OpenMetrics 2.0 where its Accept header names it, else text format 0.0.4.
 * @param sources a monitor or a report, or a list of them with different names.
 * @throws {OptionError} if two sources have the same name.
 * @example
 * Bun.serve({ routes: { "/metrics": (request) => prometheusResponse(request, monitor) } });
 */
export function prometheusResponse(request: Request, sources: MetricsSources): Response {
  const accepted = (request.headers.get("accept") ?? "")
    .split(",")
    .map((range) => range.replaceAll(" ", "").split(";"));
  const native = accepted.some(
    ([type, ...parameters]) => type === "application/openmetrics-text" && parameters.includes("version=2.0.0"),
  );
  const histograms = native ? "native" : "classic";
  return new Response(prometheusText(sources, { histograms }), {
    headers: { "content-type": contentTypes[histograms] },
  });
}
