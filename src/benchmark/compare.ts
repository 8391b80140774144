// Compares results with results: every metric that two have in common, with what may be said of its change. All that is said in one
// report is corrected for being many things. What is measured in turns to be compared is in turns.ts.

import { BenchmarkFileError, OptionError } from "../errors.ts";
import {
  type Compared,
  type ComparedMetric,
  checkComparable,
  comparabilityWarnings,
  comparableMetrics,
  hasQuantile,
  quantileOf,
} from "./comparable.ts";
import type { BenchmarkResults, BenchmarkType } from "./results.ts";
import { byLoading } from "./statistics/loadings.ts";
import { type Random, seededRandom } from "./statistics/random.ts";
import { cliffsDelta, pseudoMedian } from "./statistics/rank.ts";
import { median } from "./statistics/summary.ts";
import {
  type CompareOptions,
  type Comparison,
  compareQuantiles,
  compareSamples,
  correct,
} from "./statistics/verdict.ts";

/** What is said of one metric of two results, or why nothing is. */
export interface MetricComparison {
  /** Such as "latency p95". */
  readonly metric: string;
  readonly unit: string;
  readonly better: "less" | "more";
  /** Null: it has none, or it is not known. */
  readonly batchSize: number | null;
  /** Which results are compared with the first: a place in the report's `compared`. */
  readonly other: number;
  /** What the figures are: what the verdict is about, of the samples; without samples the mean, or the percentile, that the file states. */
  readonly statistic: "median" | "mean" | "percentile";
  /** The figure of the first results, and of the others. */
  readonly base: number;
  readonly figure: number;
  /** Null: there are no samples to judge by. */
  readonly comparison: Comparison | null;
  readonly sentence: string;
}

/** Two or more results beside each other, the first being the base. */
export interface ComparisonReport {
  readonly type: BenchmarkType;
  readonly compared: readonly Compared[];
  /** Whether they were measured in turns, so that each round has one sample of each. */
  readonly paired: boolean;
  readonly interrupted: boolean;
  readonly comparisons: readonly MetricComparison[];
  readonly methodology: readonly string[];
  readonly warnings: readonly string[];
}

/** By batch size, the lengths of the blocks that follow each other. */
export type Blocks = ReadonlyMap<number, readonly number[]>;

export interface CompareResultsOptions {
  /**
   * Of results whose sample i was measured in the same round of turns: how many rounds there were of each block, for which all was loaded
   * anew, by batch size. Default: they were measured one after the other.
   */
  readonly blocks?: Blocks | undefined;
  /** How sure a difference has to be to be called one. Default 0.95. */
  readonly level?: number | undefined;
}

/**
 * Compares results with the first of them.
 * @param compared two or more; each name is of one only.
 * @throws {OptionError} if there are fewer than two.
 * @throws {BenchmarkFileError} if they say nothing of each other: of different types, of prompts of different lengths, or with no batch
 * size or metric in common.
 */
export function compareResults(
  compared: readonly Compared[],
  { blocks, level = 0.95 }: CompareResultsOptions = {},
): ComparisonReport {
  const [base, ...others] = compared;
  if (base === undefined || others.length === 0) {
    throw new OptionError("--results", "names one file; two or more are compared");
  }
  checkComparable(compared);
  const { type, settings } = base.results.benchmark_info;
  const metrics = compared.map(({ results }) => comparableMetrics(results));
  const pairs = others.flatMap((other, place) => {
    const found = inCommon(metrics[0] ?? [], metrics[place + 1] ?? []);
    if (found.length === 0) {
      throw new BenchmarkFileError(other.name, `has no metric in common with ${base.name}; measure both alike`);
    }
    return found.map(([first, second]) => ({ first, second, other: place + 1 }));
  });
  const random = seededRandom(settings?.seed);
  const single = pairs.map(({ first, second }) =>
    judge(first, second, { level, random, blocks: blocks?.get(first.batchSize ?? 0) }),
  );
  // What has too few samples for an interval was not tested.
  const isTested = (comparison: Comparison | null) => comparison?.interval !== undefined;
  const corrected = correct(single.flatMap((comparison) => (comparison?.interval ? [comparison] : [])));
  let next = 0;
  const comparisons = pairs.map(({ first, second, other }, place): MetricComparison => {
    const comparison = isTested(single[place] ?? null) ? (corrected[next++] ?? null) : (single[place] ?? null);
    return {
      metric: first.name,
      unit: first.unit,
      better: first.better,
      batchSize: first.batchSize,
      other,
      ...shownFigures(first, second),
      comparison,
      sentence: comparison?.sentence ?? withoutVerdict(first, second),
    };
  });
  return {
    type,
    compared,
    paired: blocks !== undefined,
    interrupted: compared.some(({ results }) => results.benchmark_info.interrupted === true),
    comparisons,
    methodology: methodologyOf(blocks === undefined ? judgedOf(pairs) : null, level, corrected.length),
    warnings: [...comparabilityWarnings(compared, blocks !== undefined), ...missingWarnings(compared, metrics)],
  };
}

/**
 * Names that tell files apart: as short as they may be.
 * @param paths as they were given; one that is there twice is numbered.
 */
export function namesOf(paths: readonly string[]): string[] {
  const short = (path: string) => path.replace(/^.*[\\/]/, "").replace(/\.json$/i, "");
  const names = paths.map((path) =>
    paths.filter((other) => short(other) === short(path)).length > 1 ? path : short(path),
  );
  return names.map((name, place) => {
    const same = names.flatMap((other, index) => (other === name ? [index] : []));
    return same.length === 1 ? name : `${name} (${same.indexOf(place) + 1})`;
  });
}

/** The figures that stand beside a verdict. The typical sample may become faster where the mean becomes slower: a few samples move it. */
function shownFigures(
  first: ComparedMetric,
  second: ComparedMetric,
): Pick<MetricComparison, "statistic" | "base" | "figure"> {
  const { samples: one, part, figure: base } = first;
  const { samples: two, figure } = second;
  if (part !== null) return { statistic: "percentile", base, figure };
  if (one === null || two === null) return { statistic: "mean", base, figure };
  return { statistic: "median", base: median(one), figure: median(two) };
}

/** Metrics that both have; of a file that does not say its batch size, with the first of the other. */
function inCommon(
  base: readonly ComparedMetric[],
  other: readonly ComparedMetric[],
): (readonly [ComparedMetric, ComparedMetric])[] {
  const unknown = [base, other].some((metrics) => metrics.every(({ batchSize }) => batchSize === null));
  const [one, two] = unknown ? [firstBatch(base), firstBatch(other)] : [base, other];
  return one.flatMap((first) => {
    const second = two.find(
      ({ name, unit, batchSize }) =>
        name === first.name && unit === first.unit && (unknown || batchSize === first.batchSize),
    );
    return second === undefined ? [] : [[first, second] as const];
  });
}

function firstBatch(metrics: readonly ComparedMetric[]): ComparedMetric[] {
  return metrics.filter(({ batchSize }) => batchSize === metrics[0]?.batchSize);
}

/** Of whatever unit. No clock and no counter tells less, and no ratio of what is larger is without bounds. */
const sampleMin = 1e-12;

interface JudgeOptions {
  readonly level: number;
  readonly random: Random;
  readonly blocks: readonly number[] | undefined;
}

function judge(first: ComparedMetric, second: ComparedMetric, { blocks, ...how }: JudgeOptions): Comparison | null {
  const [one, two] = [first.samples, second.samples];
  if (one === null || two === null || Math.min(one.length, two.length) === 0) return null;
  // What is nothing in one of them has no part by which it changed.
  if (![...one, ...two].every((value) => value >= sampleMin)) return null;
  const options = { ...how, better: first.better, words: first.words };
  if (blocks) return judgeBlocks(one, two, first.part, blocks, options);
  if (first.loadings && second.loadings) {
    return judgeLoadings([one, first.loadings], [two, second.loadings], first.part, options);
  }
  return first.part === null ? compareSamples(one, two, options) : compareQuantiles(one, two, first.part, options);
}

/** Each block is one figure: by how much the second took more or less, in the typical pair of its rounds or at a percentile of them. */
function judgeBlocks(
  first: readonly number[],
  second: readonly number[],
  part: number | null,
  blocks: readonly number[],
  options: Omit<CompareOptions, "paired">,
): Comparison {
  const [ones, twos] = [first, second].map((samples) => byLoading(samples.map(Math.log), blocks));
  const ratios = (ones ?? []).flatMap((one, block) => {
    const two = twos?.[block] ?? [];
    if (one.length === 0) return [];
    if (part === null) return [Math.exp(pseudoMedian(two.map((value, round) => value - (one[round] ?? Number.NaN))))];
    return hasQuantile(one.length, part) ? [Math.exp(quantileOf(two, part) - quantileOf(one, part))] : [];
  });
  const same = ratios.map(() => 1);
  return judgeFigures([first, same], [second, ratios], { ...options, paired: true, independent: true });
}

type InLoadings = readonly [samples: readonly number[], loadings: readonly number[]];

/** Each loading is one figure: its typical sample, or a percentile of its samples. */
function judgeLoadings(
  first: InLoadings,
  second: InLoadings,
  part: number | null,
  options: CompareOptions,
): Comparison {
  const figures = ([samples, loadings]: InLoadings) =>
    byLoading(samples, loadings).flatMap((values) => {
      if (part === null) return values.length > 0 ? [median(values)] : [];
      return hasQuantile(values.length, part) ? [quantileOf(values, part)] : [];
    });
  return judgeFigures([first[0], figures(first)], [second[0], figures(second)], { ...options, independent: true });
}

/** Judges by figures of samples. */
function judgeFigures(
  [first, ones]: readonly [samples: readonly number[], figures: readonly number[]],
  [second, twos]: readonly [samples: readonly number[], figures: readonly number[]],
  options: CompareOptions,
): Comparison {
  // One sample of each, where there are no figures, is too little to tell.
  if (Math.min(ones.length, twos.length) === 0) return compareSamples(first.slice(0, 1), second.slice(0, 1), options);
  const { delta } = cliffsDelta(first, second);
  return { ...compareSamples(ones, twos, options), effect: options.better === "more" ? delta : -delta };
}

function withoutVerdict(first: ComparedMetric, second: ComparedMetric): string {
  if (first.samples === null || second.samples === null) {
    return `${first.part === null ? "means without samples" : "no samples"}: no verdict`;
  }
  return "samples that are 0, or as good as: no verdict";
}

function missingWarnings(compared: readonly Compared[], metrics: readonly (readonly ComparedMetric[])[]): string[] {
  const all = [...new Set(metrics.flat().flatMap(({ name, part }) => (part === null ? [name] : [])))];
  return all.flatMap((metric) => {
    const without = compared.filter((_, place) => !metrics[place]?.some(({ name }) => name === metric));
    if (without.length === 0) return [];
    return [`${without.map(({ name }) => name).join(", ")}: has no ${metric}.`];
  });
}

/** What is judged of results that were measured one after the other. */
function judgedOf(pairs: readonly { readonly first: ComparedMetric; readonly second: ComparedMetric }[]): string {
  const count = pairs.filter(({ first, second }) => first.loadings && second.loadings).length;
  if (count > 0) {
    const which = count === pairs.length ? "What is judged are" : "Where both have six or more, what is judged are";
    return `${which} the loadings of their models, since how memory and threads lie differs from one to the next.`;
  }
  return "How memory and threads lay is part of every difference too, and may be some percent of the same model: of models, fewer than six loadings are known.";
}

function methodologyOf(judged: string | null, level: number, count: number): string[] {
  return [
    judged === null
      ? "All models were measured in turns, each once in every round, in an order drawn anew for each round. For each block of rounds all were loaded anew, since how memory and threads lie differs from loading to loading; what is judged are the blocks."
      : `The results were measured one after the other: what changed on the machine between them is part of every difference. ${judged} \`tinyai benchmark compare --models\` measures in turns.`,
    "A change is a part of the first one's figure: of the typical sample (the median of all ratios), or of the percentile that is named. Its interval is by bootstrap. The figures beside it are the medians of the samples, or those percentiles.",
    `A difference is called where chance would show it in fewer than ${Number((100 * (1 - level)).toPrecision(3))} of 100 reports such as this: the ${count} comparisons are corrected together (Holm).`,
    "Where none could be shown, the least change that would have been is named.",
  ];
}

/** The report as JSON has it, with what was compared whole. */
export function comparisonJson(report: ComparisonReport): object {
  const { compared, comparisons, ...rest } = report;
  return {
    ...rest,
    comparisons: comparisons.map(({ batchSize, other, comparison, ...figures }) => ({
      ...figures,
      batch_size: batchSize,
      base_name: compared[0]?.name,
      name: compared[other]?.name,
      ...(comparison === null
        ? { verdict: null }
        : {
            verdict: comparison.verdict,
            change: comparison.change,
            interval: comparison.interval,
            detectable: comparison.detectable,
            p_value: comparison.pValue,
            effect: comparison.effect,
          }),
    })),
    compared,
  };
}

/** For results of any origin, such as those a program has just measured. */
export type { BenchmarkResults, Compared };
