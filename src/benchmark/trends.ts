// How a figure changed over many files of results: the files in the order of their time, a row of points for whatever can be compared
// with itself, where its level changed for good, and what else changed there.

import { realpathSync } from "node:fs";
import { BenchmarkFileError, OptionError } from "../errors.ts";
import { type FigureKind, figureKind, figureOf } from "./figure.ts";
import { sameMachine } from "./fingerprint.ts";
import type { BenchmarkInfo, BenchmarkResults, BenchmarkType, Figures, Interval } from "./results.ts";
import { readResults } from "./results-file.ts";
import { changePoints } from "./statistics/change.ts";
import { type Random, seededRandom } from "./statistics/random.ts";

/** As `tinyai benchmark trends --json` prints it. */
export interface Trends {
  readonly metric: FigureKind;
  readonly type: BenchmarkType;
  /** In the order of their time. */
  readonly files: readonly { readonly file: string; readonly timestamp: string }[];
  readonly series: readonly TrendSeries[];
  /** Where the machine or what was measured changed, in the order of their time. */
  readonly marks: readonly TrendMark[];
  /** Whether the newest change of a series is a regression. */
  readonly regressed: boolean;
  /** What a reader has to know, a sentence each. */
  readonly warnings: readonly string[];
}

/** Points that can be compared with each other: of the same model, batch size, machine and settings. */
export interface TrendSeries {
  /** What tells it from the others. */
  readonly name: string;
  readonly model: string;
  /** Null: the files do not say. */
  readonly batch_size: number | null;
  readonly machine: string;
  readonly points: readonly TrendPoint[];
  readonly changes: readonly TrendChange[];
  /** The newest file from before a regression that nothing has changed since, but for further ones; null: there is none. */
  readonly last_good: string | null;
}

export interface TrendPoint {
  /** Of its file among all, from 0. */
  readonly place: number;
  readonly file: string;
  readonly timestamp: string;
  readonly value: number;
  readonly interval: Interval | null;
  /** How many samples it is of; null where the file does not have them. */
  readonly samples: number | null;
}

/** A level that changed for good. */
export interface TrendChange {
  /** `change`: neither way is better. */
  readonly kind: "regression" | "improvement" | "change";
  /** The first file of the new level. */
  readonly file: string;
  readonly timestamp: string;
  readonly place: number;
  /** The last one of the old level. */
  readonly last_before: string;
  readonly before: number;
  readonly after: number;
  /** As a part of `before`; below 0: it fell. */
  readonly change: number;
  readonly interval: Interval;
  readonly p_value: number;
  /** "slower by 5.1 % (95 % interval 4.2 to 6.0)" */
  readonly sentence: string;
  /** What else changed there. */
  readonly together_with: readonly string[];
}

/** What changed between a file and the one before. */
export interface TrendMark {
  /** The first file after it. */
  readonly place: number;
  readonly file: string;
  readonly timestamp: string;
  /** "TinyAI: 0.1.0 to 0.2.0", "kernel: Linux 5.4 to Linux 5.10", "machine: …" */
  readonly changes: readonly string[];
}

export interface TrendFile {
  /** A path, or another name; no two have the same. */
  readonly file: string;
  readonly results: BenchmarkResults;
}

export interface TrendOptions {
  /** A figure's name, such as `latency` (the default), `throughput`, `latency.p99`. */
  readonly metric?: string;
  /** Those whose figures are shown. Default: the first of each file. */
  readonly batchSizes?: readonly number[];
}

/**
 * Reads files of results.
 * @throws {BenchmarkFileError} if one cannot be read, is damaged, something else or newer than this version, or comes twice.
 */
export async function readTrendFiles(paths: readonly string[], onRead?: (count: number) => void): Promise<TrendFile[]> {
  const files: TrendFile[] = [];
  const known = new Map<string, string>();
  for (const path of paths) {
    const results = await readResults(path);
    const real = realpathSync(path);
    const other = known.get(real);
    if (other !== undefined) {
      throw new BenchmarkFileError(path, other === path ? "is named twice" : `is the same file as ${other}`);
    }
    known.set(real, path);
    files.push({ file: path, results });
    onRead?.(files.length);
  }
  return files;
}

/**
 * Puts results in the order of their time and finds what changed.
 * @throws {BenchmarkFileError} naming a file of another type than the first, or with the time of another one of its series.
 * @throws {OptionError} if no file has the figure, or one of the batch sizes.
 */
export function trendsOf(given: readonly TrendFile[], options: TrendOptions = {}): Trends {
  const files = [...given].sort((a, b) => timeOf(a) - timeOf(b));
  const [first] = files;
  if (first === undefined) throw new OptionError("--results", "names no file; a trend is of files of results");
  const { type } = first.results.benchmark_info;
  for (const { file, results } of files) {
    const other = results.benchmark_info.type;
    if (other === type) continue;
    const problem = `is of type ${other}, but ${first.file} of type ${type}; a trend is of files of one type`;
    throw new BenchmarkFileError(file, problem);
  }
  const metric = figureKind(
    options.metric ?? "latency",
    files.map(({ results }) => ({ ...results, results: allFigures(results) })),
  );
  const machines = machineNames(files);
  const { measurements, warnings } = measurementsOf(files, metric.name, machines, options.batchSizes);
  const marks = marksOf(files, machines);
  const series = seriesOf(measurements, metric, marks);
  return {
    metric,
    type,
    files: files.map(({ file, results }) => ({ file, timestamp: results.benchmark_info.timestamp })),
    series,
    marks,
    regressed: series.some(({ last_good }) => last_good !== null),
    warnings: [
      ...warnings,
      ...series
        .filter(({ points }) => !hasParts(points))
        .map(
          ({ name }) =>
            `${name}: has figures of 0, of which no change is a part; changes of level were not looked for.`,
        ),
      ...interruptedOf(files),
    ],
  };
}

/** What results say that are of no model. */
export const noModel = "none";

function timeOf({ results }: TrendFile): number {
  return Date.parse(results.benchmark_info.timestamp);
}

/** With the fields of all batch sizes: some may have a figure that the first has not. */
function allFigures({ results }: BenchmarkResults): Figures {
  return Object.assign({}, ...Object.values(results.by_batch_size ?? {}).reverse(), results);
}

function interruptedOf(files: readonly TrendFile[]): string[] {
  return files
    .filter(({ results }) => results.benchmark_info.interrupted)
    .map(({ file }) => `${file}: was interrupted; its figures are of what was measured until then.`);
}

/** A point, and what it may be compared with: other points of the same traits. */
interface Measurement {
  readonly point: TrendPoint;
  readonly traits: Traits;
}

/** Undefined: the file does not say. */
interface Traits {
  readonly model: string;
  readonly batchSize: number | undefined;
  readonly machine: string;
  readonly promptTokens: number | undefined;
  readonly generatedTokens: number | undefined;
  readonly threads: number | null | undefined;
  readonly simd: string | null | undefined;
  readonly inTurns: boolean;
}

/** How each trait is said in a series' name. */
const traitWords: { readonly [Name in keyof Traits]: (value: Traits[Name]) => string } = {
  model: (model) => model,
  batchSize: (size) => (size === undefined ? "unknown batch size" : `batch size ${size}`),
  machine: (machine) => machine,
  promptTokens: (count) => (count === undefined ? "unknown prompts" : `prompts of ${count}`),
  generatedTokens: (count) => (count === undefined ? "unknown lengths" : `${count} generated`),
  threads: (count) => (count ? `${count} thread${count === 1 ? "" : "s"}` : "default threads"),
  simd: (level) => level ?? "default level",
  inTurns: (turns) => (turns ? "in turns with others" : "by itself"),
};
const traitNames = Object.keys(traitWords) as readonly (keyof Traits)[];

function measurementsOf(
  files: readonly TrendFile[],
  name: string,
  machines: ReadonlyMap<string, string>,
  batchSizes: readonly number[] | undefined,
): { readonly measurements: readonly Measurement[]; readonly warnings: readonly string[] } {
  const measurements: Measurement[] = [];
  const missing: string[] = [];
  for (const [place, { file, results }] of files.entries()) {
    const { timestamp, model, settings } = results.benchmark_info;
    let found = false;
    for (const [batchSize, figures] of figuresOf(results, batchSizes)) {
      const figure = figureOf(figures, name);
      if (figure === undefined) continue;
      found = true;
      const traits = {
        model,
        batchSize,
        machine: machines.get(machineKey(results.benchmark_info)) ?? "",
        promptTokens: settings?.prompt_tokens,
        generatedTokens: settings?.generated_tokens,
        threads: settings?.threads,
        simd: settings?.simd,
        inTurns: results.benchmark_info.in_turns === true,
      };
      measurements.push({ point: { place, file, timestamp, ...figure }, traits });
    }
    if (!found) missing.push(file);
  }
  if (measurements.length === 0) {
    const all = new Set(files.flatMap(({ results }) => sizesOf(results)));
    const there = [...all].sort((a, b) => a - b).join(", ");
    const wanted = batchSizes === undefined ? "its first batch size" : `batch size ${batchSizes.join(", ")}`;
    throw new OptionError("--batch-size", `no file has ${name} of ${wanted}; there are ${there}`);
  }
  return { measurements, warnings: missing.map((file) => `${file}: has no ${name}; it is left out.`) };
}

function figuresOf(
  { benchmark_info, results }: BenchmarkResults,
  batchSizes: readonly number[] | undefined,
): (readonly [batchSize: number | undefined, figures: Figures])[] {
  const [first] = benchmark_info.settings?.batch_sizes ?? [];
  if (batchSizes === undefined) return [[benchmark_info.type === "system" ? undefined : first, results]];
  return [...new Set(batchSizes)].flatMap((size) => {
    const figures = results.by_batch_size?.[size] ?? (size === first ? results : undefined);
    return figures === undefined ? [] : [[size, figures] as const];
  });
}

function sizesOf({ benchmark_info, results }: BenchmarkResults): number[] {
  return [...Object.keys(results.by_batch_size ?? {}).map(Number), ...(benchmark_info.settings?.batch_sizes ?? [])];
}

/** The same for the same machine. */
function machineKey({ fingerprint, system_info: { cpu, memory } }: BenchmarkInfo): string {
  return fingerprint?.id ?? `${cpu}, ${memory}`;
}

/** What each machine is called, by its key: the same of no two. */
function machineNames(files: readonly TrendFile[]): Map<string, string> {
  const names = new Map<string, string>();
  for (const { results } of files) {
    const info = results.benchmark_info;
    const key = machineKey(info);
    const { fingerprint } = info;
    const name = fingerprint ? `${fingerprint.cpu}, ${fingerprint.cores} cores` : key;
    const taken = [...names].some(([other, each]) => other !== key && each === name);
    if (!names.has(key)) names.set(key, taken ? `${name}, ${key.slice(0, 8)}` : name);
  }
  return names;
}

function seriesOf(
  measurements: readonly Measurement[],
  metric: FigureKind,
  marks: readonly TrendMark[],
): readonly TrendSeries[] {
  const groups = Map.groupBy(measurements, ({ traits }) =>
    JSON.stringify(traitNames.map((name) => traits[name] ?? null)),
  );
  const varying = traitNames.filter((name) => new Set(measurements.map(({ traits }) => traits[name] ?? null)).size > 1);
  const random = seededRandom();
  return [...groups.values()].map((group): TrendSeries => {
    const points = group.map(({ point }) => point);
    const traits = (group[0] as Measurement).traits;
    checkTimes(points);
    const changes = changesOf(points, metric, marks, random);
    return {
      name:
        varying.map((name) => wordsOf(traits, name)).join(", ") ||
        (traits.model === noModel ? traits.machine : traits.model),
      model: traits.model,
      batch_size: traits.batchSize ?? null,
      machine: traits.machine,
      points,
      changes,
      last_good: lastGoodOf(changes),
    };
  });
}

function checkTimes(points: readonly TrendPoint[]): void {
  for (const [index, { file, timestamp }] of points.entries()) {
    const before = points[index - 1];
    if (before === undefined || Date.parse(before.timestamp) !== Date.parse(timestamp)) continue;
    throw new BenchmarkFileError(file, `is of the same time as ${before.file} (${timestamp}); leave one of them out`);
  }
}

function changesOf(
  points: readonly TrendPoint[],
  metric: FigureKind,
  marks: readonly TrendMark[],
  random: Random,
): TrendChange[] {
  if (!hasParts(points)) return [];
  const row = points.map(({ value, interval }) => ({ value, interval: interval ?? undefined }));
  return changePoints(row, { random }).flatMap(({ index, before, after, change, interval, pValue }) => {
    const [last, first] = [points[index - 1], points[index]];
    if (last === undefined || first === undefined) return [];
    const { file, timestamp, place } = first;
    const found: TrendChange = {
      kind: kindOf(change, metric.better),
      ...{ file, timestamp, place, last_before: last.file, before, after, change, interval, p_value: pValue },
      sentence: sentenceOf(change, interval, metric),
      together_with: marks
        .filter((mark) => mark.place > last.place && mark.place <= place)
        .flatMap((mark) => mark.changes),
    };
    return [found];
  });
}

/** Whether changes of a row can be said as parts of what it was. */
function hasParts(points: readonly TrendPoint[]): boolean {
  return points.every(({ value }) => value > 0);
}

function wordsOf<Name extends keyof Traits>(traits: Traits, name: Name): string {
  return traitWords[name](traits[name]);
}

function kindOf(change: number, better: FigureKind["better"]): TrendChange["kind"] {
  if (better === null) return "change";
  return change > 0 === (better === "more") ? "improvement" : "regression";
}

/** The words for a figure that fell and for one that rose. */
function directions({ unit }: FigureKind): readonly [fell: string, rose: string] {
  if (unit === "ms") return ["faster", "slower"];
  if (unit.endsWith("/s")) return ["slower", "faster"];
  return unit === "MB" || unit === "bytes" ? ["less", "more"] : ["lower", "higher"];
}

function sentenceOf(change: number, { level, low, high }: Interval, metric: FigureKind): string {
  const word = directions(metric)[change > 0 ? 1 : 0];
  const sign = change > 0 ? 1 : -1;
  const ends = [low * sign, high * sign].sort((a, b) => a - b).map((end) => (end * 100).toFixed(1));
  return `${word} by ${(change * sign * 100).toFixed(1)} % (${Math.round(level * 100)} % interval ${ends.join(" to ")})`;
}

function lastGoodOf(changes: readonly TrendChange[]): string | null {
  const since = changes.slice(changes.findLastIndex(({ kind }) => kind !== "regression") + 1);
  return since[0]?.last_before ?? null;
}

/** What changed from file to file, as far as the files say. */
function marksOf(files: readonly TrendFile[], machines: ReadonlyMap<string, string>): TrendMark[] {
  const changes = files.map(() => new Set<string>());
  const add = (place: number, found: readonly string[]): void => {
    for (const each of found) changes[place]?.add(each);
  };
  const keys = files.map(({ results }) => machineKey(results.benchmark_info));
  for (const [place, key] of keys.entries()) {
    const before = keys[place - 1];
    // Of machines that take turns, each has series of its own; a mark for each turn would say no more.
    if (before === undefined || before === key || keys.indexOf(key) < place || keys.lastIndexOf(before) >= place) {
      continue;
    }
    add(place, [`machine: ${machines.get(before)} to ${machines.get(key)}`]);
  }
  const lastOfMachine = new Map<string, BenchmarkInfo>();
  const lastOfModel = new Map<string, BenchmarkInfo>();
  for (const [place, { results }] of files.entries()) {
    const info = results.benchmark_info;
    const key = machineKey(info);
    const earlier = lastOfMachine.get(key);
    if (earlier) add(place, surroundings(earlier, info));
    lastOfMachine.set(key, info);
    const model = `${key} ${info.model}`;
    const same = lastOfModel.get(model);
    if (same) add(place, modelChanges(same, info));
    lastOfModel.set(model, info);
  }
  return files.flatMap(({ file, results }, place) => {
    const found = [...(changes[place] ?? [])];
    return found.length === 0 ? [] : [{ place, file, timestamp: results.benchmark_info.timestamp, changes: found }];
  });
}

/** What changed on one machine. */
function surroundings(before: BenchmarkInfo, after: BenchmarkInfo): readonly string[] {
  const machine =
    before.fingerprint && after.fingerprint
      ? sameMachine(before.fingerprint, after.fingerprint, "to")
      : changed("system", before.system_info.os, after.system_info.os);
  return [...changed("TinyAI", before.tinyai, after.tinyai), ...machine];
}

/** What changed in how one model ran on one machine. */
function modelChanges({ model, ...before }: BenchmarkInfo, after: BenchmarkInfo): readonly string[] {
  const [one, two] = [before.model_details, after.model_details];
  const isOther = one?.sha256 && two?.sha256 && one.sha256 !== two.sha256;
  return [
    ...(isOther ? [`model: ${model} is another file`] : []),
    ...changed("threads", one?.threads, two?.threads),
    ...changed("level", one?.simd, two?.simd),
  ];
}

/** Where one of the two does not say, nothing is known to have changed. */
function changed(what: string, before: string | number | undefined, after: string | number | undefined): string[] {
  return before === undefined || after === undefined || before === after ? [] : [`${what}: ${before} to ${after}`];
}
