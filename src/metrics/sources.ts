// Whom metrics are of.

import { type Metrics, type MetricsSource, metricsOfReport } from "../../profiler/metrics.ts";
import type { Report } from "../../profiler/report.ts";

/** Who tells of models: one that is monitored, one that was profiled, or several. */
export type MetricsSources = MetricsSource | Report | readonly (MetricsSource | Report)[];

/** What they say now. @throws {RangeError} for a report whose rows have no histograms. */
export function metricsOf(sources: MetricsSources): Metrics[] {
  const list = isList(sources) ? sources : [sources];
  return list.map((source) => ("metrics" in source ? source.metrics() : metricsOfReport(source)));
}

function isList(sources: MetricsSources): sources is readonly (MetricsSource | Report)[] {
  return Array.isArray(sources);
}
