// Whom metrics are of.

import { type Metrics, type MetricsSource, metricsOfReport } from "../../profiler/metrics.ts";
import type { Report } from "../../profiler/report.ts";
import { describe } from "../check.ts";
import { OptionError } from "../errors.ts";

/**
 * Who tells of models: the monitor of one that works, the report of one that was profiled, or a list of such, as in
 * `prometheusText([first, second])`. A list may change: it is read anew each time. What tells its models apart is the label `model`,
 * the file's name, so no two may have the same; `model.monitor({ name })` gives another one.
 */
export type MetricsSources = MetricsSource | Report | readonly (MetricsSource | Report)[];

/**
 * What they say now.
 * @throws {OptionError} if one has the name of another, since their series would be the same.
 * @throws {RangeError} for a report whose rows have no histograms.
 */
export function metricsOf(sources: MetricsSources): Metrics[] {
  const list = isList(sources) ? sources : [sources];
  const metrics = list.map((source) => ("metrics" in source ? source.metrics() : metricsOfReport(source)));
  const names = metrics.map(({ model }) => model.model);
  for (const [place, name] of names.entries()) {
    const first = names.indexOf(name);
    if (first === place) continue;
    const problem = `is called ${describe(name)} as sources[${first}] is; give one another name (a monitor by model.monitor({ name }), a report by its run.model)`;
    throw new OptionError(`sources[${place}]`, problem);
  }
  return metrics;
}

function isList(sources: MetricsSources): sources is readonly (MetricsSource | Report)[] {
  return Array.isArray(sources);
}
