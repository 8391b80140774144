// Metrics as families with names, units and labels after Prometheus' rules: base units, `_total` for what only grows. Formats write
// them; what they mean stands in their help texts. Every sample names its model, so that several may be told together.

import { bucketsOf, cumulative } from "./buckets.ts";
import type { HistogramData } from "./histogram.ts";
import type { Metrics } from "./metrics.ts";

export type Labels = Readonly<Record<string, string>>;

export interface Sample {
  readonly labels: Labels;
  readonly value: number;
}

/** A histogram of seconds. */
export interface HistogramSample {
  readonly labels: Labels;
  /** Of nanoseconds. */
  readonly data: HistogramData;
}

interface FamilyHead {
  readonly name: string;
  readonly help: string;
  readonly unit?: "seconds" | "bytes";
}

export type Family =
  | (FamilyHead & { readonly type: "counter" | "gauge" | "info"; readonly samples: readonly Sample[] })
  | (FamilyHead & {
      readonly type: "histogram";
      readonly samples: readonly HistogramSample[];
      /** Upper bounds of classic buckets, seconds, ascending; the last one, which has no bound, is not among them. */
      readonly bounds: readonly number[];
    });

/** 1, 2.5 and 5 times the powers of ten from `first` on. */
function decades(first: number, count: number): number[] {
  return Array.from({ length: count }, (_, index) => {
    const power = first + Math.floor(index / 3);
    return Number(`${["1", "2.5", "5"][index % 3]}e${power}`);
  });
}

/** What takes from a microsecond to a tenth of a second, 0.1 ms to 10 s, 0.5 ms to 5 s, 1 ms to 100 s. */
const OP_BOUNDS = decades(-6, 16);
const STEP_BOUNDS = decades(-4, 16);
const TOKEN_BOUNDS = decades(-4, 15).slice(2);
const REQUEST_BOUNDS = decades(-3, 16);

/** All families, those without a sample too. */
export function familiesOf(models: readonly Metrics[]): Family[] {
  const families: Family[] = [];
  /** A sample for each row of each model; undefined leaves a row out. */
  const samples = <Row>(
    rowsOf: (metrics: Metrics) => readonly Row[],
    value: (row: Row) => number | null,
    labels: (row: Row) => Labels = () => ({}),
  ): Sample[] =>
    models.flatMap((metrics) =>
      rowsOf(metrics).flatMap((row) => {
        const of = value(row);
        return of === null ? [] : { labels: { model: metrics.model.model, ...labels(row) }, value: of };
      }),
    );
  const histograms = <Row>(
    rowsOf: (metrics: Metrics) => readonly Row[],
    data: (row: Row) => HistogramData,
    labels: (row: Row) => Labels = () => ({}),
  ): HistogramSample[] =>
    models.flatMap((metrics) =>
      rowsOf(metrics).map((row) => ({ labels: { model: metrics.model.model, ...labels(row) }, data: data(row) })),
    );
  const add = (family: Family): void => {
    families.push(family);
  };
  const counter = (name: string, help: string, of: readonly Sample[], unit?: FamilyHead["unit"]): void =>
    add({ name: `tinyai_${name}_total`, help, type: "counter", samples: of, ...(unit ? { unit } : {}) });
  const gauge = (name: string, help: string, of: readonly Sample[], unit?: FamilyHead["unit"]): void =>
    add({ name: `tinyai_${name}`, help, type: "gauge", samples: of, ...(unit ? { unit } : {}) });
  const histogram = (name: string, help: string, bounds: readonly number[], of: readonly HistogramSample[]): void =>
    add({ name: `tinyai_${name}_seconds`, help, type: "histogram", samples: of, bounds, unit: "seconds" });

  const self = (metrics: Metrics): readonly Metrics[] => [metrics];
  const phases = ({ phases }: Metrics) => phases;
  const kinds = ({ kinds }: Metrics) => kinds;
  const ofPhase = ({ phase }: { readonly phase: string }): Labels => ({ phase });
  const ofKind = ({ kind }: { readonly kind: string }): Labels => ({ kind });

  add({
    name: "tinyai_model_info",
    help: "The model, and how it runs.",
    type: "info",
    samples: models.map(({ model }) => {
      const { model: name, architecture, level, version } = model;
      return { labels: { model: name, architecture, level, version }, value: 1 };
    }),
  });
  gauge(
    "threads",
    "Threads that compute.",
    samples(self, ({ model }) => model.threads),
  );
  counter(
    "steps",
    "Steps of the engine.",
    samples(phases, ({ steps }) => steps.count, ofPhase),
  );
  counter(
    "tokens",
    "Rows that went through steps, one a token: of prompts, of tokens fed back to continue, and of guesses that came true.",
    samples(phases, ({ tokens }) => tokens, ofPhase),
  );
  counter(
    "generated_tokens",
    "Tokens generated: a request's first is counted when it ends, the others as they are drawn.",
    samples(self, ({ firstTokens, betweenTokens }) => firstTokens.count + betweenTokens.count),
  );
  counter(
    "requests",
    "Requests that ended.",
    samples(self, ({ requests }) => requests.count),
  );
  counter(
    "op_seconds",
    "The engine thread's work on ops. With tinyai_outside_ops_seconds_total it is the time of all steps.",
    samples(kinds, ({ workNs }) => seconds(workNs), ofKind),
    "seconds",
  );
  counter(
    "outside_ops_seconds",
    "The engine thread's time in steps that no op has.",
    samples(
      ({ outsideNs }) => Object.entries(outsideNs),
      ([, ns]) => seconds(ns),
      ([part]) => ({ part }),
    ),
    "seconds",
  );
  counter(
    "op_bytes",
    "Bytes that ops had to move, from their static cost.",
    samples(kinds, ({ bytes }) => bytes, ofKind),
    "bytes",
  );
  counter(
    "op_operations",
    "Arithmetic operations of ops, from their static cost; a multiply-add is two.",
    samples(kinds, ({ operations }) => operations, ofKind),
  );
  counter(
    "memory_read_bytes",
    "Bytes that kernels loaded, counted access by access.",
    samples(self, ({ memory }) => memory?.bytesRead ?? null),
    "bytes",
  );
  counter(
    "memory_written_bytes",
    "Bytes that kernels stored, counted access by access.",
    samples(self, ({ memory }) => memory?.bytesWritten ?? null),
    "bytes",
  );
  counter(
    "lost_events",
    "Events of the engine's threads that are in no other metric, by why.",
    samples(
      ({ lostEvents, lateEvents, malformedEvents }) => [
        ["full_ring", lostEvents] as const,
        ["late", lateEvents] as const,
        ["malformed", malformedEvents] as const,
      ],
      ([, count]) => count,
      ([reason]) => ({ reason }),
    ),
  );
  counter(
    "incomplete_steps",
    "Steps that are in no other metric, since events of theirs were lost.",
    samples(self, ({ incompleteSteps }) => incompleteSteps),
  );
  histogram(
    "step_duration",
    "A step's own time.",
    STEP_BOUNDS,
    histograms(phases, ({ steps }) => steps, ofPhase),
  );
  histogram(
    "op_duration",
    "An op's time in one step, from the first thread's start to the last one's end. Of steps that were looked at closely.",
    OP_BOUNDS,
    histograms(kinds, ({ durations }) => durations, ofKind),
  );
  histogram(
    "request_duration",
    "From a request's call to when its caller had the last token.",
    REQUEST_BOUNDS,
    histograms(self, ({ requests }) => requests),
  );
  histogram(
    "time_to_first_token",
    "From a request's call to its first token.",
    REQUEST_BOUNDS,
    histograms(self, ({ firstTokens }) => firstTokens),
  );
  histogram(
    "time_between_tokens",
    "From one token of a request to its next one.",
    TOKEN_BOUNDS,
    histograms(self, ({ betweenTokens }) => betweenTokens),
  );
  // Both are of the process, not of a model: they are told once.
  const [first] = models;
  const ofProcess = (value: number | null | undefined): Sample[] =>
    value === null || value === undefined ? [] : [{ labels: {}, value }];
  gauge("resident_memory_bytes", "Resident memory of the process.", ofProcess(first?.residentBytes), "bytes");
  gauge("native_memory_bytes", "Memory that the native library holds.", ofProcess(first?.nativeBytes), "bytes");
  return families;
}

export function seconds(ns: number): number {
  return ns / 1e9;
}

/** Counts of values at or below each bound, and of all; bounds in seconds. */
export function classicBuckets(data: HistogramData, bounds: readonly number[]): number[] {
  return [
    ...cumulative(
      data,
      bounds.map((bound) => Math.round(bound * 1e9)),
    ),
    data.count,
  ];
}

/** A histogram of seconds in buckets whose bounds are powers of 2^(2^-schema), as Prometheus' native ones are. */
export interface NativeBuckets {
  readonly schema: number;
  /** Seconds; values up to it count as 0. */
  readonly zeroThreshold: number;
  readonly zeroCount: number;
  /** Runs of buckets: how many are passed over since the last run's end (the first: the index that it begins at), and how long it is. */
  readonly spans: readonly (readonly [offset: number, length: number])[];
  /** Of the runs' buckets, one after the other. Bucket i holds values up to 2^(i · 2^-schema). */
  readonly counts: readonly number[];
}

/** 16 buckets for each doubling: a quantile is right to 2.2 %, and a factor of 1,000 takes 160 buckets at most. */
const SCHEMA = 4;
/** Times are whole nanoseconds: below one there is only 0. A power of two, since it should be the bound of a bucket. */
const ZERO_THRESHOLD = 2 ** -30;

export function nativeBuckets(data: HistogramData): NativeBuckets {
  const perDoubling = 2 ** SCHEMA;
  const boundOf = (index: number): number => 2 ** (index / perDoubling);
  const byIndex = new Map<number, number>();
  let zeroCount = 0;
  for (const { value, count } of bucketsOf(data)) {
    const amount = seconds(value);
    if (amount <= ZERO_THRESHOLD) {
      zeroCount += count;
      continue;
    }
    let index = Math.ceil(Math.log2(amount) * perDoubling);
    // The logarithm may be off by its last digit.
    if (amount > boundOf(index)) index++;
    else if (amount <= boundOf(index - 1)) index--;
    byIndex.set(index, (byIndex.get(index) ?? 0) + count);
  }
  const spans: [number, number][] = [];
  const counts: number[] = [];
  let end = 0;
  for (const [index, count] of [...byIndex].sort(([a], [b]) => a - b)) {
    const last = spans.at(-1);
    if (last !== undefined && index === end) last[1]++;
    else spans.push([index - end, 1]);
    end = index + 1;
    counts.push(count);
  }
  return { schema: SCHEMA, zeroThreshold: ZERO_THRESHOLD, zeroCount, spans, counts };
}
