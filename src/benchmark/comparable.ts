// What of results can be compared: their metrics one by one, each with its unit and which way is better, and what stands in the way
// of comparing files, as a refusal where it would make no sense and as a warning where a reader has to know it.

import { BenchmarkFileError } from "../errors.ts";
import { sameMachine } from "./fingerprint.ts";
import type {
  BenchmarkResults,
  InferenceFigures,
  Latency,
  MemoryFigures,
  Statistics,
  SystemFigures,
} from "./results.ts";
import { samplesMin } from "./statistics/describe.ts";
import { quantile } from "./statistics/summary.ts";
import { memoryWords, speedWords, type Words } from "./statistics/verdict.ts";

/** Results under a name that tells them apart from the others they are compared with. */
export interface Compared {
  readonly name: string;
  readonly results: BenchmarkResults;
}

/** One figure of results. */
export interface ComparedMetric {
  /** Such as "latency" or "disk random_read operations"; the same in all files that have it. */
  readonly name: string;
  readonly unit: string;
  readonly better: "less" | "more";
  /** How sentences say that it is better or worse. */
  readonly words: Words;
  /** Null: the file does not say, or it has none. */
  readonly batchSize: number | null;
  /** The part of the samples below it, of a percentile; null: it is their mean. */
  readonly part: number | null;
  readonly figure: number;
  /** In the order in which they were measured. */
  readonly samples: readonly number[] | null;
  /** How many of them each loading of the model has, in their order; null: there was one loading, or too few to judge by. */
  readonly loadings: readonly number[] | null;
}

const countWords: Words = { better: "fewer", worse: "more" };
const percentiles = ["50", "90", "95", "99"] as const;
/** Samples that have to lie beyond a percentile for its interval to say something. */
const beyondMin = 5;

/** All that can be compared of results, in the order in which it is shown. */
export function comparableMetrics({ benchmark_info, results }: BenchmarkResults): ComparedMetric[] {
  const texts = benchmark_info.settings?.generated_tokens === 0;
  return [
    ...batchesOf(results).flatMap(([batchSize, figures]) => inferenceMetrics(figures, batchSize, texts)),
    ...(results.memory ? memoryMetrics(results.memory) : []),
    ...(results.system ? systemMetrics(results.system) : []),
  ];
}

/** By batch size; a file with the guide's fields alone does not say which it is of. */
function batchesOf(results: BenchmarkResults["results"]): (readonly [number | null, InferenceFigures])[] {
  if (results.by_batch_size === undefined) return [[null, results]];
  return Object.entries(results.by_batch_size).map(([size, figures]) => [Number(size), figures] as const);
}

function inferenceMetrics(figures: InferenceFigures, batchSize: number | null, texts: boolean): ComparedMetric[] {
  const found = [
    ...latencyMetrics("latency", batchSize, figures.latency),
    ...firstTokenMetrics(figures, batchSize),
    ...mean("throughput", texts ? "texts/s" : "tokens/s", "more", figures.throughput, batchSize),
    ...mean("memory usage", "MB", "less", figures.memory_usage, batchSize),
  ];
  const { loadings = [] } = figures;
  const count = loadings.reduce((sum, length) => sum + length, 0);
  const known = loadings.length >= samplesMin;
  return found.map((each) => (known && each.samples?.length === count ? { ...each, loadings } : each));
}

/**
 * A batch's requests wait for the same steps, so that their first tokens say little more than one: an iteration's are one sample, their
 * mean. Which percentiles those have is another question than that of the requests.
 */
function firstTokenMetrics({ latency, first_token }: InferenceFigures, batchSize: number | null): ComparedMetric[] {
  const name = "first token";
  const requests = first_token?.samples?.length ?? 0;
  const iterations = latency?.samples?.length ?? 0;
  const each = requests / iterations;
  if (!first_token?.samples || !Number.isInteger(each) || each < 2) return latencyMetrics(name, batchSize, first_token);
  const { samples } = first_token;
  const means = Array.from({ length: iterations }, (_, iteration) => {
    const of = samples.slice(iteration * each, (iteration + 1) * each);
    return of.reduce((sum, ms) => sum + ms, 0) / each;
  });
  return mean(name, "ms", "less", { mean: first_token.mean, samples: means }, batchSize);
}

function memoryMetrics({ loading, running, allocations, bandwidth = [] }: MemoryFigures): ComparedMetric[] {
  return [
    ...mean("loading time", "ms", "less", loading?.time),
    ...mean("loading peak", "MB", "less", loading?.peak),
    ...mean("loading added", "MB", "less", loading?.added),
    ...mean("running peak", "MB", "less", running?.peak),
    ...(["loading", "native"] as const).flatMap((side) => [
      ...mean(`allocations ${side}`, "", "less", allocations?.[side]?.count),
      ...mean(`allocated bytes ${side}`, "bytes", "less", allocations?.[side]?.bytes),
    ]),
    ...mean("allocations javascript", "", "less", allocations?.javascript?.objects),
    ...bandwidth.flatMap(({ name, threads, read, write, copy }) =>
      Object.entries({ read, write, copy }).flatMap(([way, rate]) =>
        mean(`bandwidth ${name} ${way}, threads ${threads}`, "GB/s", "more", rate),
      ),
    ),
  ];
}

function systemMetrics({ disk, network, threads }: SystemFigures): ComparedMetric[] {
  const ways = ["sequential_write", "sequential_read", "random_write", "random_read"] as const;
  return [
    ...ways.flatMap((way) => {
      const name = `disk ${way.replace("_", " ")}`;
      // A rate and its accesses a second say the same.
      return [
        ...(way.startsWith("random")
          ? mean(name, "accesses/s", "more", disk?.[way]?.operations)
          : mean(name, "MB/s", "more", disk?.[way]?.rate)),
        ...latencyMetrics(`${name} latency`, null, disk?.[way]?.latency),
      ];
    }),
    ...mean("network bandwidth", "MB/s", "more", network?.bandwidth),
    ...latencyMetrics("network latency", null, network?.latency),
    ...(threads?.curve ?? []).flatMap((point) =>
      mean(`rate of ${point.threads} thread${point.threads === 1 ? "" : "s"}`, "Gop/s", "more", point.rate),
    ),
  ];
}

function latencyMetrics(name: string, batchSize: number | null, latency: Latency | undefined): ComparedMetric[] {
  if (latency === undefined) return [];
  const { samples } = latency;
  const parts = percentiles.flatMap((percentile): ComparedMetric[] => {
    const part = Number(percentile) / 100;
    // The median of samples is what the row before tells of.
    if (samples !== undefined && (part === 0.5 || !hasQuantile(samples.length, part))) return [];
    const figure = samples === undefined ? latency.percentiles[percentile] : quantileOf(samples, part);
    return [{ ...metric(`${name} p${percentile}`, "ms", "less", figure, samples, batchSize), part }];
  });
  return [...mean(name, "ms", "less", latency, batchSize), ...parts];
}

/** Whether so many samples tell something of the value below which `part` of them lie. */
export function hasQuantile(count: number, part: number): boolean {
  return count * Math.min(part, 1 - part) >= beyondMin - 1e-9;
}

/** `samples` need not be sorted. */
export function quantileOf(samples: readonly number[], part: number): number {
  return quantile(
    [...samples].sort((a, b) => a - b),
    part,
  );
}

function mean(
  name: string,
  unit: string,
  better: "less" | "more",
  statistics: Pick<Statistics, "mean" | "samples"> | undefined,
  batchSize: number | null = null,
): ComparedMetric[] {
  if (statistics === undefined) return [];
  const { samples } = statistics;
  // Not what the file states beside them, which may be of others.
  const figure = samples ? samples.reduce((sum, value) => sum + value, 0) / samples.length : statistics.mean;
  return [metric(name, unit, better, figure, samples, batchSize)];
}

function metric(
  name: string,
  unit: string,
  better: "less" | "more",
  figure: number,
  samples: readonly number[] | undefined,
  batchSize: number | null,
): ComparedMetric {
  const words = unit === "MB" || unit === "bytes" ? memoryWords : unit === "" ? countWords : speedWords;
  return { name, unit, better, words, batchSize, part: null, figure, samples: samples ?? null, loadings: null };
}

/** Whether two results have so much in common that they are compared batch size by batch size. */
function batchSizesOf({ results }: BenchmarkResults): readonly number[] | null {
  return results.by_batch_size === undefined ? null : Object.keys(results.by_batch_size).map(Number);
}

/**
 * Refuses results that say nothing of each other: of different types, or of prompts or texts of different lengths, or without a batch
 * size in common.
 * @throws {BenchmarkFileError} naming the file that does not fit to the first.
 */
export function checkComparable([base, ...others]: readonly Compared[]): void {
  if (base === undefined) return;
  const info = base.results.benchmark_info;
  for (const other of others) {
    const { type, settings } = other.results.benchmark_info;
    if (type !== info.type) {
      throw new BenchmarkFileError(
        other.name,
        `is of type ${type}, but ${base.name} of type ${info.type}; compare files of one type`,
      );
    }
    for (const [key, noun] of [
      ["prompt_tokens", "tokens in each prompt"],
      ["generated_tokens", "tokens generated for each"],
    ] as const) {
      const [mine, theirs] = [settings?.[key], info.settings?.[key]];
      if (type === "system" || mine === undefined || theirs === undefined || mine === theirs) continue;
      throw new BenchmarkFileError(
        other.name,
        `was measured with ${mine} ${noun}, but ${base.name} with ${theirs}: their times say nothing of each other; measure both alike`,
      );
    }
    const [mine, theirs] = [batchSizesOf(other.results), batchSizesOf(base.results)];
    if (mine !== null && theirs !== null && !mine.some((size) => theirs.includes(size))) {
      throw new BenchmarkFileError(
        other.name,
        `has batch size ${mine.join(", ")}, but ${base.name} ${theirs.join(", ")}: none in common; measure both alike`,
      );
    }
  }
}

/**
 * What a reader of a comparison has to know about what was compared, a sentence each.
 * @param chosen whether the models were chosen to be compared, so that nobody need be told that they differ.
 */
export function comparabilityWarnings([base, ...others]: readonly Compared[], chosen: boolean): string[] {
  if (base === undefined) return [];
  const warnings: string[] = [];
  for (const other of others) warnings.push(...differences(base, other, chosen));
  for (const { name, results } of [base, ...others]) {
    const { interrupted, warnings: own = [] } = results.benchmark_info;
    if (interrupted) warnings.push(`${name}: was interrupted; its figures are of what was measured until then.`);
    warnings.push(...own.map((warning) => `${name}: ${warning}`));
  }
  return warnings;
}

/** What tells two results apart beside what is being compared. */
function differences(base: Compared, other: Compared, chosen: boolean): string[] {
  const [one, two] = [base.results.benchmark_info, other.results.benchmark_info];
  const between = `${other.name} and ${base.name}`;
  const found: string[] = [];
  const differ = (what: string, mine: unknown, theirs: unknown, so: string): boolean => {
    // Where one of the two does not say, nothing is known to differ.
    if (mine === undefined || theirs === undefined || Bun.deepEquals(mine, theirs)) return false;
    found.push(`${between} differ in ${what} (${show(mine)} and ${show(theirs)}): ${so}.`);
    return true;
  };
  const state = "a difference may be due to it";
  const turns = (inTurns: boolean | undefined) => (inTurns === true ? "in turns with others" : "by itself");
  differ("how they were measured", turns(two.in_turns), turns(one.in_turns), state);
  if (one.fingerprint && two.fingerprint) {
    const unlike = sameMachine(two.fingerprint, one.fingerprint);
    if (unlike.length > 0) {
      found.push(
        `${between} come from different machines, or one in different states (${unlike.join("; ")}): a difference may be the machine's.`,
      );
    }
  } else {
    for (const [key, noun] of [
      ["cpu", "the CPU"],
      ["memory", "memory"],
      ["os", "the system"],
    ] as const) {
      differ(noun, two.system_info[key], one.system_info[key], "a difference may be the machine's");
    }
  }
  differ("TinyAI's version", two.tinyai, one.tinyai, state);
  if (
    !chosen &&
    one.type !== "system" &&
    !differ("the model", two.model, one.model, "the comparison is of these models")
  ) {
    const [hash, otherHash] = [two.model_details?.sha256 ?? undefined, one.model_details?.sha256 ?? undefined];
    differ("the content of the model's file", hash?.slice(0, 12), otherHash?.slice(0, 12), state);
  }
  const threads = (info: typeof one) => info.model_details?.threads ?? info.settings?.threads ?? undefined;
  const simd = (info: typeof one) => info.model_details?.simd ?? info.settings?.simd ?? undefined;
  differ("threads", threads(two), threads(one), state);
  differ("the instruction-set level", simd(two), simd(one), state);
  differ("warm-up", two.settings?.warmup, one.settings?.warmup, "one may have been measured colder");
  const [sizes, otherSizes] = [batchSizesOf(other.results), batchSizesOf(base.results)];
  if (sizes === null || otherSizes === null) {
    if (sizes !== otherSizes) {
      found.push(`${between}: only one says which batch size its figures are of; the first ones are compared.`);
    }
  } else {
    const alone = [...sizes, ...otherSizes].filter((size) => !(sizes.includes(size) && otherSizes.includes(size)));
    if (alone.length > 0) {
      found.push(`${between}: only one has batch size ${alone.sort((a, b) => a - b).join(", ")}; it is left out.`);
    }
  }
  return found;
}

function show(value: unknown): string {
  return value === null ? "until steady" : String(value);
}
