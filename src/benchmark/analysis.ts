// What results hold, and how far they can be trusted: every figure computed anew from its samples, what is amiss with them, how
// throughput scales with the batch size, and what follows from all that and what does not. Nothing is measured.

import { percent } from "../../profiler/words.ts";
import { formatAnalysis } from "./analysis-text.ts";
import { type Computed, checkFigure } from "./figure-check.ts";
import { type Batch, batchesOf, digits, type FigurePlace, figuresOf, nameOf } from "./figures.ts";
import { levelText } from "./page/words.ts";
import type { BenchmarkInfo, BenchmarkResults, Figures, Interval, Latency, Settings } from "./results.ts";
import { iterationWarnings } from "./sample-warnings.ts";
import { samplesMin, statisticsOf } from "./statistics/describe.ts";
import { type Outlier, outliers } from "./statistics/outliers.ts";
import { seededRandom } from "./statistics/random.ts";
import { autocorrelation, type Drift, drift, effectiveSize } from "./statistics/series.ts";
import { quantile } from "./statistics/summary.ts";
import { compareSamples } from "./statistics/verdict.ts";

/** What was found in results. Plain data, but for `summary`. */
export interface Analysis {
  readonly info: Omit<BenchmarkInfo, "warnings">;
  /** In the order of a reader's interest. */
  readonly figures: readonly AnalyzedFigure[];
  /** How throughput grows with the batch size; empty where one size was measured. */
  readonly scaling: readonly BatchScaling[];
  /** The most telling first. */
  readonly findings: readonly AnalysisFinding[];
  /** What may be said. */
  readonly conclusions: readonly string[];
  /** What may not be said, and why. */
  readonly limits: readonly string[];
  /** All of it as text for people. */
  summary(): string;
}

/** A figure of samples. Statistics are computed from the samples, where the file has them. */
export interface AnalyzedFigure {
  /** "latency", "disk sequential read rate" */
  readonly name: string;
  readonly unit: string;
  readonly batchSize?: number;
  readonly mean: number;
  readonly std: number;
  /** null: the file does not have it. */
  readonly min: number | null;
  readonly max: number | null;
  readonly interval: Interval | null;
  readonly percentiles: Latency["percentiles"] | null;
  /** Standard deviation beside the mean, as a part of it; null where the mean is 0. */
  readonly spread: number | null;
  /** What follows is of the samples; null where the file has none. */
  readonly samples: SampleFigures | null;
}

export interface SampleFigures {
  readonly count: number;
  /** How many independent ones say as much of the mean. */
  readonly effective: number;
  /** Of each sample with the next, -1 to 1. */
  readonly autocorrelation: number;
  readonly drift: Drift;
  readonly outliers: readonly Outlier[];
}

export interface BatchScaling {
  readonly batchSize: number;
  readonly latency: number;
  readonly throughput: number;
  /** Of the throughput; null: there are too few samples. */
  readonly interval: Interval | null;
  /** Times the throughput of the smallest size. */
  readonly speedup: number;
  /** Of what as many requests would have each by itself, as a part. */
  readonly efficiency: number;
}

export interface AnalysisFinding {
  readonly kind:
    | "interrupted"
    | "measured" // What was said when it was measured.
    | "iterations"
    | "warm-up"
    | "outliers"
    | "memory"
    | "figures" // The file disagrees with itself.
    | "machine"
    | "samples";
  /** `note`: to be known; `warning`: figures may mislead. */
  readonly severity: "note" | "warning";
  readonly text: string;
}

/** Figures of requests, of which conclusions are drawn. */
const metricNames: readonly string[] = ["latency", "first token", "throughput"];
/** With fewer, the 99th percentile is little more than the most. */
const samplesForPercentiles = 100;
const outliersShown = 3;
/**
 * Samples of the beginning that are compared with the others: this part of them, and so many at least and at most; of the others so many
 * at most, spread evenly, since comparing takes a while.
 */
const beginning = { part: 0.1, samplesMin: 6, samplesMax: 200, othersMax: 1000 } as const;
/** Growth of memory over a benchmark that is worth a word, as a part, and how seldom it would be seen by chance. */
const growth = { change: 0.01, pValue: 0.01 } as const;
/** A batch size whose throughput is as much of the best is enough. */
const enough = 0.95;
/** A difference of means of two runs is found four times in five if it is as many standard errors: (1.96 + 0.84) · √2. */
const detectableErrors = 3.96;

/**
 * Analyses results of any type, also those that have the guide's fields alone.
 * @example
 * const analysis = analyzeResults(await readResults("benchmark_results.json"));
 * console.log(analysis.summary());
 */
export function analyzeResults(results: BenchmarkResults): Analysis {
  const { warnings: measured, ...info } = results.benchmark_info;
  const seed = info.settings?.seed;
  const places = figuresOf(results).map((place) => examine(place, seed));
  const batches = batchesOf(results);
  const scaling = info.type === "inference" ? scalingOf(batches) : [];
  const figures = places.map(analyzeFigure);
  const findings = [
    ...interruptedFindings(info),
    ...places.flatMap(disagreements),
    ...batches.flatMap((batch) => rateDisagreements(batch, info.settings)),
    ...(measured ?? []).map((text): AnalysisFinding => ({ kind: "measured", severity: "warning", text })),
    ...(measured ? [] : batches.flatMap((batch) => iterationFindings(batch, info.settings))),
    ...batches.flatMap(beginningFindings),
    ...figures.flatMap(figureFindings),
    ...machineFindings(info),
    ...sampleFindings(figures),
  ];
  const data = {
    info,
    figures,
    scaling,
    findings,
    conclusions: [
      ...figures.flatMap(figureConclusions),
      ...scalingConclusions(scaling),
      ...threadConclusions(results.results),
    ],
    limits: [
      ...(scaling.length > 0 && !enoughBatch(scaling)
        ? [
            "Which batch size is enough: the intervals of their throughput are too wide, or there are too few samples for one.",
          ]
        : []),
      ...limitsOf(info, figures, findings),
    ],
  };
  return { ...data, summary: () => formatAnalysis(data, results) };
}

/** A figure of the file, and the same from its samples where it has some. */
interface Examined extends FigurePlace {
  readonly computed?: Computed;
}

function examine(place: FigurePlace, seed: number | undefined): Examined {
  const { samples } = place.figure;
  if (!samples) return place;
  const computed = statisticsOf(samples, seededRandom(seed));
  if (!("percentiles" in place.figure)) return { ...place, computed };
  const sorted = [...samples].sort((a, b) => a - b);
  const [p50 = 0, p90 = 0, p95 = 0, p99 = 0] = [0.5, 0.9, 0.95, 0.99].map((part) => quantile(sorted, part));
  return { ...place, computed: { ...computed, percentiles: { "50": p50, "90": p90, "95": p95, "99": p99 } } };
}

function analyzeFigure({ figure, computed, ...place }: Examined): AnalyzedFigure {
  const { mean, std, min, max, interval } = computed ?? figure;
  const { percentiles } = computed ?? ("percentiles" in figure ? figure : {});
  const { samples } = figure;
  return {
    ...place,
    mean,
    std,
    min: min ?? null,
    max: "peak" in figure ? figure.peak : (max ?? null),
    interval: interval ?? null,
    percentiles: percentiles ?? null,
    spread: mean === 0 ? null : std / Math.abs(mean),
    samples: samples
      ? {
          count: samples.length,
          effective: effectiveSize(samples),
          autocorrelation: autocorrelation(samples, 1)[0] ?? 0,
          drift: drift(samples),
          outliers: samples.length >= samplesMin ? outliers(samples) : [],
        }
      : null,
  };
}

function interruptedFindings({ interrupted }: Analysis["info"]): AnalysisFinding[] {
  if (!interrupted) return [];
  return [
    {
      kind: "interrupted",
      severity: "warning",
      text: "it was interrupted: figures are of what was measured until then",
    },
  ];
}

/** Where a file's figures are not those of its samples, or cannot be together. */
function disagreements(place: Examined): AnalysisFinding[] {
  return checkFigure(place.figure, place.computed).map((problem) => ({
    kind: "figures",
    severity: "warning",
    text: `${nameOf(place)}: ${problem}; the file was changed, or made by another program`,
  }));
}

/** Throughput is what an iteration made, by its latency: more or less than that was not measured together. */
function rateDisagreements({ size, figures }: Batch, settings: Settings | undefined): AnalysisFinding[] {
  const latencies = figures.latency?.samples;
  const rates = figures.throughput?.samples;
  if (!settings || size === undefined || !latencies || latencies.length !== rates?.length) return [];
  const made = size * (settings.generated_tokens === 0 ? 1 : settings.generated_tokens);
  const wrong = rates.findIndex((rate, index) => Math.abs((rate * (latencies[index] ?? 0)) / 1000 / made - 1) > 0.01);
  if (wrong === -1) return [];
  const found = ((rates[wrong] ?? 0) * (latencies[wrong] ?? 0)) / 1000;
  const text = `batch size ${size}: by its throughput and latency, iteration ${wrong + 1} made ${found.toFixed(1)} of the ${made} tokens or texts that the settings say`;
  return [{ kind: "figures", severity: "warning", text }];
}

/** What `run` would have warned of. */
function iterationFindings({ size, figures }: Batch, settings: Settings | undefined): AnalysisFinding[] {
  const samples = figures.latency?.samples;
  if (!samples) return [];
  const iterations = {
    samples: samples.map((latencyMs) => ({ latencyMs })),
    warmup: figures.warmup ?? { iterations: 0, steady: true },
    ended: "count" as const,
    ...(figures.loadings && { loadings: figures.loadings }),
  };
  // What ended it is not known any more.
  const asked = { iterations: samples.length, warmup: null, ...settings, time_s: null, precision: 0 };
  const prefix = size === undefined ? "" : `batch size ${size}: `;
  return iterationWarnings(iterations, asked).map((text) => ({
    kind: "iterations",
    severity: "warning",
    text: `${prefix}${text}`,
  }));
}

/** Whether the first of the iterations that count were slower than the others: they should have warmed up. */
function beginningFindings({ size, figures: { latency, loadings = [] } }: Batch): AnalysisFinding[] {
  const { samples } = latency ?? {};
  // The first loading of several is faster or slower than the others for reasons of its own.
  if (!samples || loadings.length > 1) return [];
  const { part, samplesMin: least, samplesMax: most, othersMax } = beginning;
  const count = Math.min(most, Math.max(least, Math.round(samples.length * part)));
  if (samples.length - count < count || samples.some((sample) => sample <= 0)) return [];
  const step = Math.ceil((samples.length - count) / othersMax);
  const others = samples.slice(count).filter((_, index) => index % step === 0);
  const compared = compareSamples(others, samples.slice(0, count), { better: "less", level: 0.99 });
  if (compared.verdict !== "slower") return [];
  const name = nameOf({ name: "latency", ...(size !== undefined && { batchSize: size }) });
  const text = `${name}: the first ${count} iterations were ${compared.sentence} than those after them; warm up longer (--warmup)`;
  return [{ kind: "warm-up", severity: "warning", text }];
}

function figureFindings(figure: AnalyzedFigure): AnalysisFinding[] {
  const { name, unit, samples } = figure;
  if (!samples) return [];
  const found: AnalysisFinding[] = [];
  if (samples.outliers.length > 0 && (name === "latency" || figure.batchSize === undefined)) {
    const farthest = samples.outliers.toSorted(
      (a, b) => Math.abs(b.value - figure.mean) - Math.abs(a.value - figure.mean),
    );
    const shown = farthest.slice(0, outliersShown).map(({ index, value, why }) => {
      return `number ${index + 1} with ${`${digits(value)} ${unit}`.trimEnd()}, ${why}`;
    });
    const more = samples.outliers.length - shown.length;
    const rest = more > 0 ? `; and ${more} more` : "";
    const text = `${nameOf(figure)}: ${samples.outliers.length} of ${samples.count} samples lie far out and are in all figures: ${shown.join("; ")}${rest}`;
    found.push({ kind: "outliers", severity: "note", text });
  }
  const { change, pValue } = samples.drift;
  if (name === "memory usage" && change > growth.change && pValue < growth.pValue) {
    const text = `${nameOf(figure)}: memory grew by ${percent(change)} from the first sample to the last; if it goes on so in a longer benchmark, something is not given back`;
    found.push({ kind: "memory", severity: "warning", text });
  }
  return found;
}

function machineFindings({ fingerprint }: Analysis["info"]): AnalysisFinding[] {
  const note = (text: string): AnalysisFinding => ({ kind: "machine", severity: "note", text });
  if (!fingerprint) {
    return [
      note("the file does not tell the machine as it was, so that it cannot be told whether others are of the same"),
    ];
  }
  const { governor, turbo, virtualization } = fingerprint;
  return [
    ...(governor !== null && governor !== "performance"
      ? [note(`the frequency governor was ${governor}: clocks followed the load`)]
      : []),
    ...(turbo === true
      ? [note("the CPU clocked above its base as heat allowed, so that its speed changes with the time")]
      : []),
    ...(virtualization !== null
      ? [note(`it ran in ${virtualization}: what others do on the machine is not seen from there`)]
      : []),
  ];
}

function sampleFindings(figures: readonly AnalyzedFigure[]): AnalysisFinding[] {
  if (figures.some(({ samples }) => samples)) return [];
  const text =
    "the file has no samples, so that outliers, drift and warm-up cannot be looked for, and figures not be computed anew";
  return [{ kind: "samples", severity: "note", text }];
}

/** How throughput grows; empty where fewer than two sizes were measured. */
export function scalingOf(batches: readonly Batch[]): BatchScaling[] {
  const rows = batches.flatMap(({ size, figures: { latency, throughput } }) => {
    return size !== undefined && latency && throughput
      ? [{ batchSize: size, latency: latency.mean, throughput: throughput.mean, interval: throughput.interval ?? null }]
      : [];
  });
  const [first] = rows;
  if (!first || rows.length < 2) return [];
  return rows.map((row) => {
    const speedup = row.throughput / first.throughput;
    return { ...row, speedup, efficiency: (speedup * first.batchSize) / row.batchSize };
  });
}

/**
 * The smallest batch size with nearly the most throughput; undefined where that is not known: by the intervals of the throughput another
 * size might do much more, or a smaller one nearly as much.
 */
export function enoughBatch(scaling: readonly BatchScaling[]): BatchScaling | undefined {
  const most = Math.max(...scaling.map(({ throughput }) => throughput));
  const place = scaling.findIndex(({ throughput }) => throughput >= enough * most);
  const [chosen, best] = [scaling[place], scaling.find(({ throughput }) => throughput === most)];
  if (!chosen?.interval || !best?.interval) return undefined;
  const { low } = chosen.interval;
  const leastOfBest = best.interval.low;
  const isKnown = scaling.every(({ interval }, other) => {
    if (other === place) return true;
    if (!interval || low < enough * interval.high) return false;
    return other > place || interval.high < enough * leastOfBest;
  });
  return isKnown ? chosen : undefined;
}

function scalingConclusions(scaling: readonly BatchScaling[]): string[] {
  const [first] = scaling;
  const chosen = enoughBatch(scaling);
  if (!first || !chosen) return [];
  const within = `within ${percent(1 - enough)} of the most throughput`;
  if (chosen === first) return [`Batch size ${first.batchSize} is ${within}: larger ones bring no more than that.`];
  const speedup = `${chosen.speedup.toFixed(2)} times that of ${first.batchSize}`;
  const isLast = chosen === scaling.at(-1);
  const latency = `${(chosen.latency / first.latency).toFixed(2)} times the latency`;
  const place = isLast
    ? "brings the most throughput of those that were measured, and larger ones may bring more"
    : `is the smallest ${within}`;
  return [`Batch size ${chosen.batchSize} ${place}: ${speedup}, at ${latency}.`];
}

/** What the guide's metrics are, with what they are sure to. */
function figureConclusions(figure: AnalyzedFigure): string[] {
  const { name, unit, mean, max, interval, percentiles, samples } = figure;
  const subject = capital(nameOf(figure));
  if (name === "memory usage" && max !== null) return [`${subject}: at most ${digits(max)} ${unit}.`];
  if (!metricNames.includes(name) || !interval) return [];
  const { low, high, level } = interval;
  const sure = `with ${levelText(level)} certainty between ${digits(low)} and ${digits(high)}`;
  const isSpanned = percentiles && samples && samples.count >= samplesForPercentiles;
  const tail = isSpanned ? `; 99 of 100 took at most ${digits(percentiles["99"])} ${unit}` : "";
  return [`${subject}: on average ${digits(mean)} ${unit}, ${sure}${tail}.`];
}

function threadConclusions({ system }: Figures): string[] {
  const { curve, amdahl } = system?.threads ?? {};
  const last = curve?.at(-1);
  if (!last || last.threads === 1) return [];
  const { threads, speedup, speedup_interval: interval } = last;
  const sure = interval ? ` (${interval.low.toFixed(2)} to ${interval.high.toFixed(2)})` : "";
  const most = amdahl?.speedup_max ?? 0;
  // Through two points any law goes.
  const bound =
    most > speedup && (curve?.length ?? 0) > 2 ? `; by Amdahl's law more would do at most ${digits(most)} times` : "";
  return [`${threads} threads do ${speedup.toFixed(2)} times${sure} the work of one${bound}.`];
}

function limitsOf(
  { settings, type, system_info }: Analysis["info"],
  figures: readonly AnalyzedFigure[],
  findings: readonly AnalysisFinding[],
): string[] {
  const limits: string[] = [];
  const without = figures.filter(({ interval, name }) => !interval && !/utilization|^memory usage/.test(name));
  if (without.length > 0) {
    const names = without.length > 4 ? `${without.length} figures` : without.map(nameOf).join(", ");
    limits.push(
      `How sure ${names} ${without.length === 1 ? "is" : "are"}: there are fewer than ${samplesMin} samples, or none in the file.`,
    );
  }
  const metrics = figures.filter(({ name }) => metricNames.includes(name));
  const least = metrics.flatMap((figure) => {
    const { mean, std, samples } = figure;
    if (!samples || samples.count < samplesMin) return [];
    return [`${percent((detectableErrors * std) / Math.sqrt(samples.effective) / mean)} (${nameOf(figure)})`];
  });
  if (least.length > 0) {
    limits.push(
      `Changes of means below ${least.join(", ")}: another run of as many iterations would not show them. Larger ones may be the machine's own.`,
    );
  }
  const few = metrics.filter(
    ({ percentiles, samples }) => percentiles && samples && samples.count < samplesForPercentiles,
  );
  if (few.length > 0) {
    const names = few.map((figure) => `${nameOf(figure)} with ${figure.samples?.count}`);
    limits.push(
      `What 1 of 100 requests takes: with fewer than ${samplesForPercentiles} samples the 99th percentile is little more than the slowest (${names.join(", ")}).`,
    );
  }
  if (findings.some(({ kind }) => kind === "figures")) {
    limits.push(
      "Anything from figures that disagree with their samples: the tables here are computed from the samples.",
    );
  }
  if (type !== "system") {
    const work = settings
      ? `other prompts than of ${settings.prompt_tokens} tokens${settings.generated_tokens > 0 ? ` with ${settings.generated_tokens} generated` : ""}`
      : "other prompts and lengths than were measured, which the file does not tell";
    limits.push(`How fast it is with ${work}, other batch sizes, or while the machine does something else.`);
  }
  limits.push(
    `How fast it is on other machines than ${system_info.cpu} with ${system_info.memory}, or whether another run is faster: compare takes turns (tinyai benchmark compare --models), or results of the same machine (--results).`,
  );
  return limits;
}

function capital(text: string): string {
  return text.slice(0, 1).toUpperCase() + text.slice(1);
}
