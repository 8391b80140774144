// The figures that results have, whatever their type, one after another: what each is of, its unit, and its place in the file.

import { isRecord } from "../check.ts";
import type { BenchmarkResults, InferenceFigures, Latency, MemoryUsage, Statistics } from "./results.ts";

/** A figure of samples in results. */
export interface FigurePlace {
  /** "latency", "disk sequential read rate" */
  readonly name: string;
  readonly unit: string;
  /** Requests at once, in an inference benchmark. */
  readonly batchSize?: number;
  readonly figure: Statistics | Latency | MemoryUsage;
}

/** Units by what a figure is called, the first that fits. Of the guide's metrics it is said in the results' own types. */
const units: readonly (readonly [name: RegExp, unit: string])[] = [
  [/utilization/, "%"],
  [/latency|loading time/, "ms"],
  [/peak|added|memory usage/, "MB"],
  [/^memory bandwidth/, "GB/s"],
  [/bandwidth|\b(read|write) rate/, "MB/s"],
  [/rate/, "10^9/s"],
  [/operations/, "/s"],
  [/bytes/, "bytes"],
  [/objects/, "objects"],
  [/count/, "pieces"],
];

/** Batch sizes that were measured, ascending, with their figures; of the guide's fields alone, one whose size is not known. */
export function batchesOf({ benchmark_info, results }: BenchmarkResults): readonly Batch[] {
  const { by_batch_size, memory: _memory, system: _system, ...first } = results;
  const all = Object.entries(by_batch_size ?? {}).map(([size, figures]) => ({ size: Number(size), figures }));
  if (all.length > 0) return all.sort((a, b) => a.size - b.size);
  if (Object.keys(first).length === 0) return [];
  const size = benchmark_info.settings?.batch_sizes[0];
  return [{ figures: first, ...(size !== undefined && { size }) }];
}

/** Figures of a batch size. */
export interface Batch {
  readonly size?: number;
  readonly figures: InferenceFigures;
}

/** All figures of samples, in the order of a reader's interest. */
export function figuresOf(results: BenchmarkResults): readonly FigurePlace[] {
  const made = results.benchmark_info.settings?.generated_tokens === 0 ? "texts/s" : "tokens/s";
  const found: FigurePlace[] = [];
  for (const { size, figures } of batchesOf(results)) {
    const of = { ...(size !== undefined && { batchSize: size }) };
    const { latency, first_token, throughput, memory_usage, utilization } = figures;
    if (latency) found.push({ name: "latency", unit: "ms", figure: latency, ...of });
    if (first_token) found.push({ name: "first token", unit: "ms", figure: first_token, ...of });
    if (throughput) found.push({ name: "throughput", unit: made, figure: throughput, ...of });
    if (memory_usage) found.push({ name: "memory usage", unit: "MB", figure: memory_usage, ...of });
    for (const [what, figure] of Object.entries(utilization ?? {})) {
      found.push({ name: `utilization ${what}`, unit: "%", figure, ...of });
    }
  }
  const { memory, system } = results.results;
  for (const [name, figure] of [...statisticsIn(memory, ["memory"]), ...statisticsIn(system, [])]) {
    found.push({ name: inWords(name), unit: unitOf(name), figure });
  }
  return found;
}

/** What a place in a file is called. */
function inWords(name: string): string {
  return name
    .replace(/^memory bandwidth/, "bandwidth of")
    .replace(/^threads curve/, "compute on")
    .replace(/^memory /, "");
}

function unitOf(name: string): string {
  return units.find(([pattern]) => pattern.test(name))?.[1] ?? "";
}

/** Figures anywhere in a value, by the names of what they are in. */
function* statisticsIn(value: unknown, path: readonly string[]): Generator<[name: string, figure: Statistics]> {
  if (Array.isArray(value)) {
    for (const item of value) yield* statisticsIn(item, [...path, labelOf(item)]);
  } else if (isRecord(value)) {
    if (isStatistics(value)) yield [path.join(" ").replaceAll("_", " "), value];
    else for (const [key, field] of Object.entries(value)) yield* statisticsIn(field, [...path, key]);
  }
}

function isStatistics(value: Readonly<Record<string, unknown>>): value is typeof value & Statistics {
  return ["mean", "std", "min", "max"].every((key) => typeof value[key] === "number");
}

/** What tells an item of a list from the others. */
function labelOf(item: unknown): string {
  if (!isRecord(item)) return "";
  const { name, threads } = item;
  const counted = typeof threads === "number" ? [threads === 1 ? "1 thread" : `${threads} threads`] : [];
  return [...(typeof name === "string" ? [name] : []), ...counted].join(", ");
}

/** "latency of batch size 8" */
export function nameOf({ name, batchSize }: { readonly name: string; readonly batchSize?: number }): string {
  return batchSize === undefined ? name : `${name} of batch size ${batchSize}`;
}

/** A figure with three or four digits. */
export function digits(value: number): string {
  const size = Math.abs(value);
  if (size === 0) return "0";
  const decimals = size >= 1000 ? 0 : size >= 100 ? 1 : size >= 1 ? 2 : Math.min(9, 2 - Math.floor(Math.log10(size)));
  return value.toLocaleString("en-US", { maximumFractionDigits: decimals, minimumFractionDigits: decimals });
}
