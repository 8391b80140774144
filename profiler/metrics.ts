// What exporters tell of a model at work: sums and histograms that only grow, and what the process holds now. Plain data, made from
// a report, or of what a monitor has gathered without making one, which takes a twentieth of the time. Formats are others' affair.

import { DurationHistogram, type Histogram, type HistogramData } from "./histogram.ts";
import type { PhaseRow, TimeRow } from "./profile.ts";
import type { MemoryCounts, Report } from "./report.ts";
import type { RequestFigures } from "./requests.ts";
import { KIND_ROWS, type Phase, type Totals } from "./totals.ts";

/** Which model it is. */
export interface MetricsModel {
  /** The file's name, or what its monitor was told to call it. */
  readonly model: string;
  readonly architecture: string;
  /** The instruction-set level of the kernels. */
  readonly level: string;
  /** TinyAI's own. */
  readonly version: string;
  readonly threads: number;
}

/** Parts of the steps' time that belong to no op. */
export type OutsidePart = keyof typeof KIND_ROWS | "unattributed";

/** Since the beginning. Histograms are of nanoseconds. */
export interface MetricSums {
  readonly phases: readonly {
    readonly phase: PhaseRow["phase"];
    /** Rows that went through its steps. */
    readonly tokens: number;
    /** The steps' own times. */
    readonly steps: HistogramData;
  }[];
  /** Kinds of op that ran, in the steps that were looked at closely; the time of the others is `unattributed`. */
  readonly kinds: readonly {
    readonly kind: string;
    /** The engine thread's. */
    readonly workNs: number;
    /** From the ops' static cost. */
    readonly bytes: number;
    readonly operations: number;
    /** Of its ops, each in one step, from the first thread's start to the last one's end. */
    readonly durations: HistogramData;
  }[];
  /** With the kinds' `workNs`, the steps' own time. ns. */
  readonly outsideNs: Readonly<Record<OutsidePart, number>>;
  /** From the call to when the caller had the last token. */
  readonly requests: HistogramData;
  readonly firstTokens: HistogramData;
  readonly betweenTokens: HistogramData;
  readonly lostEvents: number;
  readonly lateEvents: number;
  readonly malformedEvents: number;
  readonly incompleteSteps: number;
}

/** Sums since the beginning, the model that they are of, and what the process holds now. */
export interface Metrics extends MetricSums {
  readonly model: MetricsModel;
  /** What was read and written, counted access by access; null where only time is watched. */
  readonly memory: MemoryCounts | null;
  /** Of the process; null where it is not known. */
  readonly residentBytes: number | null;
  /** Of the native library, of all models. */
  readonly nativeBytes: number | null;
}

/** Who can say at any time how a model does. */
export interface MetricsSource {
  /** What it has to tell now. */
  metrics(): Metrics;
}

/** A part of what was gathered. */
export interface Gathered {
  readonly totals: Totals;
  readonly figures: RequestFigures;
}

const PHASES: readonly Phase[] = ["prompt", "generation"];

/** The sums over parts of the same program. */
export function metricSums(parts: readonly [Gathered, ...Gathered[]]): MetricSums {
  const [{ totals: first }] = parts;
  const sum = (of: (part: Gathered) => number): number => parts.reduce((total, part) => total + of(part), 0);
  const merged = (of: (part: Gathered) => Histogram | undefined): HistogramData => {
    const histogram = new DurationHistogram();
    for (const part of parts) {
      const added = of(part);
      if (added !== undefined) histogram.merge(added);
    }
    return histogram.toJSON();
  };
  const kinds = first.kinds.flatMap((kind, index) => {
    const ofKind = (amounts: "workNs" | "bytes" | "operations"): number =>
      sum(({ totals }) =>
        totals.op[amounts].reduce((total, of, op) => (totals.kindOfOp[op] === index ? total + of : total), 0),
      );
    const durations = merged(({ totals }) => totals.kindWall[index]);
    if (durations.count === 0) return [];
    return { kind, workNs: ofKind("workNs"), bytes: ofKind("bytes"), operations: ofKind("operations"), durations };
  });
  const outside = Object.entries(KIND_ROWS).map(([name, kind]) => [
    name,
    sum(({ totals }) => totals.kindTime[kind]?.total ?? 0),
  ]);
  return {
    phases: PHASES.map((phase) => ({
      phase,
      tokens: sum(({ totals }) => totals.phases[phase].rows),
      steps: merged(({ totals }) => totals.phases[phase].steps),
    })),
    kinds,
    outsideNs: {
      ...(Object.fromEntries(outside) as Record<keyof typeof KIND_ROWS, number>),
      unattributed: sum(({ totals }) => totals.unattributed.total),
    },
    requests: merged(({ figures }) => figures.requestTimes),
    firstTokens: merged(({ figures }) => figures.firstTokens),
    betweenTokens: merged(({ figures }) => figures.betweenTokens),
    lostEvents: sum(({ totals }) => totals.lostEvents),
    lateEvents: sum(({ totals }) => totals.lateEvents),
    malformedEvents: sum(({ totals }) => totals.malformedEvents),
    incompleteSteps: sum(({ totals }) => totals.incompleteSteps),
  };
}

/**
 * What a report says, as metrics.
 * @throws {RangeError} when a row has no histogram: the report was made without.
 */
export function metricsOfReport(report: Report): Metrics {
  const { run, memory, system } = report;
  const outside = Object.keys(KIND_ROWS).map((name) => [name, report[name as keyof typeof KIND_ROWS].totalNs]);
  return {
    model: {
      model: run.model,
      architecture: run.architecture,
      level: run.level,
      version: run.version,
      threads: run.threads,
    },
    phases: PHASES.map((phase) => {
      const row = report.phases.find((of) => of.phase === phase);
      return { phase, tokens: row?.rows ?? 0, steps: durationsOf(row, `phases.${phase}`) };
    }),
    kinds: report.byKind.map((row) => {
      const { kind, totalNs, bytes, operations } = row;
      return { kind, workNs: totalNs, bytes, operations, durations: durationsOf(row, `byKind.${kind}`) };
    }),
    outsideNs: {
      ...(Object.fromEntries(outside) as Record<keyof typeof KIND_ROWS, number>),
      unattributed: report.unattributed.totalNs,
    },
    requests: durationsOf(report.requestTimes, "requestTimes"),
    firstTokens: durationsOf(report.firstTokens, "firstTokens"),
    betweenTokens: durationsOf(report.betweenTokens, "betweenTokens"),
    lostEvents: report.lostEvents,
    lateEvents: report.lateEvents,
    malformedEvents: report.malformedEvents,
    incompleteSteps: report.incompleteSteps,
    memory,
    residentBytes: system?.samples.at(-1)?.residentBytes ?? null,
    nativeBytes: system?.samples.at(-1)?.nativeBytes ?? null,
  };
}

function durationsOf(row: TimeRow | undefined, path: string): HistogramData {
  if (row?.histogram) return row.histogram;
  if (row === undefined || row.count === 0) return new DurationHistogram().toJSON();
  throw new RangeError(
    `report.${path}: has no histogram; take the report with model.profile, which gives each row one`,
  );
}
