// A model's metrics in a registry of prom-client, which collects them whenever it is asked for its own. Its histograms are classic
// ones. Nothing is counted twice: at each collection the registry gets what the monitor has.

import type { Metric, Registry, RegistryContentType } from "prom-client";
import { classicBuckets, type Family, familiesOf, type Labels, seconds } from "../../profiler/families.ts";
import { type MetricsSources, metricsOf } from "./sources.ts";

/** What a registry asks of a metric. Its types name the library's own classes; it takes whatever answers like them. */
interface Collected {
  /** The registry takes `_total` off a counter's name where its format demands that. */
  name: string;
  readonly help: string;
  readonly type: string;
  readonly aggregator: "sum" | "first";
  get(): Promise<object>;
  reset(): void;
}

interface Value {
  readonly labels: Labels;
  readonly value: number;
  readonly metricName?: string;
}

/** A registry asks for all of its metrics at once: what was found for the first serves the others. */
const SNAPSHOT_MS = 100;

/**
 * Registers a model's metrics, so that `registry.metrics()` has them.
 * @param sources a monitor or a report, or a list of them with different names.
 * @returns what takes them out again.
 * @throws {OptionError} if two sources have the same name.
 * @throws {Error} prom-client's, if metrics of these names are registered already: for several models, pass their monitors as a list.
 * @example
 * registerMetrics(register, monitor);
 * console.log(await register.metrics());
 */
export function registerMetrics<Type extends RegistryContentType>(
  registry: Registry<Type>,
  sources: MetricsSources,
): () => void {
  let families: readonly Family[] = [];
  let takenMs = Number.NEGATIVE_INFINITY;
  const snapshot = (): readonly Family[] => {
    if (performance.now() - takenMs >= SNAPSHOT_MS) {
      families = familiesOf(metricsOf(sources));
      takenMs = performance.now();
    }
    return families;
  };
  const registered = snapshot().map((family) => {
    const { name, help } = family;
    const type = family.type === "info" ? "gauge" : family.type;
    const collected: Collected = {
      ...{ name, help, type, aggregator: type === "gauge" ? "first" : "sum" },
      async get() {
        const now = snapshot().find((of) => of.name === name);
        const { aggregator } = collected;
        return { name: collected.name, help, type, aggregator, values: now ? valuesOf(now) : [] };
      },
      // What the monitor has seen stays: it is not the registry's.
      reset() {},
    };
    registry.registerMetric(collected as unknown as Metric<string>);
    return name;
  });
  return () => {
    for (const name of registered) registry.removeSingleMetric(name);
  };
}

function valuesOf(family: Family): Value[] {
  if (family.type !== "histogram") return [...family.samples];
  const { name, bounds } = family;
  return family.samples.flatMap(({ labels, data }) => [
    ...classicBuckets(data, bounds).map((value, index) => {
      return { metricName: `${name}_bucket`, labels: { le: String(bounds[index] ?? "+Inf"), ...labels }, value };
    }),
    { metricName: `${name}_sum`, labels, value: seconds(data.total) },
    { metricName: `${name}_count`, labels, value: data.count },
  ]);
}
