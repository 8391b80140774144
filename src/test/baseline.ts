// Holds a run to runs that were recorded before on the same machine: no op may take longer, by more than the tolerance and what may
// be chance, than the run's other ops let expect (expected.ts). It keeps the runs and words the verdict.
//
// An op is here what has one name in all layers, such as `attn_q`. Its time is the mean of the faster half of its durations, which
// others on the machine disturb least, summed over the layers without the few fastest and slowest.
//
// What it can see: that an op, or some of the ops, became slower than the rest. What it cannot: that all became slower alike, which is
// what a slower machine looks like (`toRespondWithin` and `toGenerateAtLeast` hold that); that an op became slower in few of many
// layers; and that an op became slower which strays so much by itself that the limit drowns in it, as those of few microseconds do.
// An op that takes most of a step, such as the head of a small model, is not judged: the caches keep what the others need meanwhile,
// so that they do not tell what other programs on the machine left it of the memory. `toGenerateAtLeast` holds it.
//
// The recorded runs should know the machine's states: those of an hour, or of days, judge better than as many of one minute.

import { type Bucket, bucketsOf } from "../../profiler/buckets.ts";
import { Histogram, type HistogramData } from "../../profiler/histogram.ts";
import { role } from "../../profiler/parts.ts";
import type { OpRow } from "../../profiler/profile.ts";
import { count, duration, grouped, percent } from "../../profiler/words.ts";
import { checkKeys, checkNumber, describe, isRecord } from "../check.ts";
import { BaselineFileError, OptionError } from "../errors.ts";
import { drawBeside } from "./draw.ts";
import { type Deviation, deviations, knowsState } from "./expected.ts";
import { checkRuns, durationsOf, type Outcome, partOf, type Run } from "./run.ts";
import { changeEntry, folderName, readEntries, storePath, updating, writesUnasked } from "./store.ts";

/** Options of `toMatchPerformanceBaseline`. */
export interface BaselineOptions {
  /** How much longer an op may take, 0.05 being 5 %; 0 to 10. Default 0.05. */
  readonly tolerance?: number;
}

const toleranceDefault = 0.05;
/** A baseline is judged by from so many runs on, and takes in more, each of a process of its own, up to so many. */
export const runsLeast = 8;
export const runsMost = 48;
/** Ops that take less of the time together are not judged: a clock's tick and a cache's line are much for them. */
const shareLeast = 0.01;
/** An op that takes more than this of the time of all ops is nearly alone with the memory, and is not judged either. */
export const shareMost = 0.5;
/** One in so many layers is left out on either side. */
const layersPerOutlier = 8;
/** Of slower ops that are told beside the one to blame. */
const othersShown = 3;

/** What is kept of the runs on one machine, with one model and its options. */
interface KeptBaseline {
  /** For the reader; the key tells machines apart. */
  readonly cpu: string;
  /** Tokens that went through each run's steps. */
  readonly rows: number;
  readonly ops: readonly string[];
  /** Of each run the time of each op, ns a step. */
  readonly runs: readonly (readonly number[])[];
  /** Of each op that is judged, all its durations in all runs and layers. */
  readonly durations: Readonly<Record<string, HistogramData>>;
}

/** By what tells machines, models and their options apart. */
type KeptBaselines = Readonly<Record<string, KeptBaseline>>;

/** An op of the run, in all layers. */
export interface Measured {
  readonly op: string;
  readonly kernels: readonly string[];
  readonly layers: number;
  /** A step's time in all of them. */
  readonly ns: number;
  readonly durations: Histogram;
}

/** Baselines that this process began anew, which further runs of it add to. */
const begun = new Set<string>();

export function matchBaseline(received: unknown, name: unknown, options: unknown = {}): Outcome {
  const runs = checkRuns(received);
  if (typeof name !== "string" || name === "") {
    throw new OptionError("name", `is ${describe(name)}; a text is expected`);
  }
  checkKeys("options", options, ["tolerance"]);
  const { tolerance: given = toleranceDefault } = options as { readonly tolerance?: unknown };
  const tolerance = checkNumber("options.tolerance", given, 0, 10);
  const path = storePath("baselines");
  const { key, where } = machineOf(runs);
  const measured = measure(runs);
  const rows = runs.reduce((sum, run) => sum + run.rows, 0);
  const entries = readEntries(path, isKept);
  const kept = entries[name]?.[key];

  const together = runs.length > 1 ? ` (this one of ${runs.length} profiles together)` : "";
  /** To what is in the file by now, to which another process may have added. */
  const record = (begin: "anew" | undefined = undefined): number => {
    const changed = changeEntry(path, name, isKept, (now) => {
      const known = begin === "anew" ? undefined : now?.[key];
      const before = known && differs(known, rows, measured) === undefined ? known : undefined;
      return { ...now, [key]: withRun(before, where, rows, measured) };
    });
    return changed[key]?.runs.length ?? 0;
  };
  // Of what passed the message is shown under `.not` alone.
  const passed = (text: string): Outcome => ({
    pass: true,
    message: () => `${JSON.stringify(name)}: expected not to match the baseline, but ${text}`,
  });
  const told = (text: string): Outcome => {
    process.stderr.write(`the baseline ${JSON.stringify(name)}: ${text}\n`);
    return passed(text);
  };
  const asked = updating();
  const writes = asked !== undefined || writesUnasked();
  const id = `${path}\0${name}\0${key}`;
  const recordedText = (now: number): string => `${count(now, "run")} of ${runsMost} recorded${together}`;
  if (asked === "anew" && !begun.has(id)) {
    begun.add(id);
    return told(`it is begun anew, ${recordedText(record("anew"))}; it is judged from ${runsLeast} on`);
  }
  const problem = kept && differs(kept, rows, measured);
  if (problem !== undefined) {
    const message = [
      `the baseline ${JSON.stringify(name)} is of other work: ${problem}`,
      "let each run do the same: temperature 0 or a seed, ignoreEos, and cachePrompt: false, since a prompt that was seen before is not computed again; or begin anew with -u",
    ].join("\n");
    return { pass: false, message: () => message };
  }
  if (asked === "add") return told(`${recordedText(record())}, this one without a judgement`);
  const grows = writes && (kept?.runs.length ?? 0) < runsMost;
  if (kept === undefined || kept.runs.length < runsLeast) {
    const has = count(kept?.runs.length ?? 0, "run");
    if (!grows) {
      throw new BaselineFileError(
        path,
        `has ${has} of ${JSON.stringify(name)} with this model and its options on ${where}; it is judged from ${runsLeast} on, and CI records none unasked: commit the ${folderName} file with runs that were recorded on this kind of machine, record them here with TINYAI_UPDATE_BASELINES=add, or leave this matcher out in CI`,
      );
    }
    return told(`${recordedText(record())}; it is judged from ${runsLeast} on`);
  }
  const { ops, recorded, times } = alike(kept, measured);
  const verdicts = judgeTimes(recorded, times, tolerance);
  if (verdicts === undefined) {
    // Several slower ops look like a slower machine. Once there are as many runs as may be, who asks for its recording says which it is.
    if (asked !== undefined || grows) record();
    const known = count(kept.runs.length, "recorded run");
    return told(
      `the machine is in a state that none of ${known} knew; nothing is judged (TINYAI_UPDATE_BASELINES=add records it, if it is the machine's and not the code's)`,
    );
  }
  const judged = verdicts.map((verdict, index) => ({ ...verdict, measured: ops[index] as Measured }));
  const slower = judged.filter(({ beyond }) => beyond > 1).sort((a, b) => b.beyond - a.beyond);
  if (slower.length === 0) {
    if (grows) record();
    return passed(`no op took more than ${percent(tolerance)} longer than the others let expect`);
  }
  return { pass: false, message: () => failure(name, kept, judged, slower, tolerance).join("\n") };
}

/**
 * What tells where a run was made and with what: all that changes how long its ops take.
 * @throws {OptionError} if the runs differ in it, or do not say it.
 */
function machineOf(runs: readonly Run[]): { readonly key: string; readonly where: string } {
  const remedy = "profile with model.profile(…)";
  const machines = partOf(runs, "machine", remedy);
  const keys = partOf(runs, "run", remedy).map(
    ({ model, level, threads, contextLength, batchSize, options }, index) => {
      const switches = (["screening", "prepared"] as const).filter((name) => options[name]);
      const shape = [`context ${contextLength}`, `batch ${batchSize}`, options.kvCache, `${options.tuning} tuning`];
      return `${machines[index]?.fingerprint} ${level} ${threads} ${model}: ${[...shape, ...switches].join(", ")}`;
    },
  );
  const [key = ""] = keys;
  const other = keys.findIndex((another) => another !== key);
  if (other >= 0) {
    throw new OptionError(`run[${other}]`, `is of another machine, model or options: ${keys[other]}, not ${key}`);
  }
  return { key, where: machines[0]?.cpu ?? "" };
}

/** The ops of all runs, by what has one name in all layers, in program order. */
export function measure(runs: readonly Run[]): Measured[] {
  const roles = new Map<string, OpRow[][]>();
  for (const [index, { byOp }] of runs.entries()) {
    for (const op of byOp) {
      const known = roles.get(role(op.name)) ?? runs.map(() => []);
      known[index]?.push(op);
      roles.set(role(op.name), known);
    }
  }
  return [...roles].map(([name, rows]) => {
    const durations = new Histogram("ns");
    const times = rows
      .filter((ops) => ops.length > 0)
      .map((ops) => {
        const means = ops.map((op) => {
          const own = durationsOf(op, `run.byOp ${op.name}`);
          durations.merge(own);
          return op.histogram === undefined ? 0 : fasterHalf(bucketsOf(op.histogram));
        });
        return withoutOutliers(means) * ops.length;
      });
    const ops = rows.flat();
    return {
      op: name,
      kernels: [...new Set(ops.map(({ kernel }) => kernel))],
      layers: new Set(ops.map(({ index }) => index)).size,
      ns: Math.max(1, times.reduce((sum, ns) => sum + ns, 0) / times.length),
      durations,
    };
  });
}

/** The mean of the lower half of the values; of a single one, that. */
function fasterHalf(buckets: readonly Bucket[]): number {
  const half = Math.max(1, Math.floor(buckets.reduce((sum, bucket) => sum + bucket.count, 0) / 2));
  let left = half;
  let sum = 0;
  for (const { value, count } of buckets) {
    const taken = Math.min(left, count);
    sum += value * taken;
    left -= taken;
  }
  return sum / half;
}

/** The mean of the middle ones. */
function withoutOutliers(values: readonly number[]): number {
  const cut = Math.floor(values.length / layersPerOutlier);
  const middle = [...values].sort((a, b) => a - b).slice(cut, values.length - cut);
  return middle.reduce((sum, value) => sum + value, 0) / middle.length;
}

/** What of a run's work is not as in the baseline; undefined: it is the same. */
function differs(kept: KeptBaseline, rows: number, measured: readonly Measured[]): string | undefined {
  if (rows !== kept.rows) return `${count(rows, "token")} went through the steps, before ${grouped(kept.rows, 0)}`;
  const names = measured.map(({ op }) => op);
  const added = names.find((op) => !kept.ops.includes(op));
  const gone = kept.ops.find((op) => !names.includes(op));
  if (added === undefined && gone === undefined) return undefined;
  return added === undefined ? `the op ${gone} did not run` : `the op ${added} did not run then`;
}

function withRun(
  kept: KeptBaseline | undefined,
  cpu: string,
  rows: number,
  measured: readonly Measured[],
): KeptBaseline {
  const ops = kept?.ops ?? measured.map(({ op }) => op);
  const run = ops.map((op) => Math.round(measured.find((one) => one.op === op)?.ns ?? 1));
  const total = run.reduce((sum, ns) => sum + ns, 0);
  const durations = measured
    .filter(({ op, ns }) => kept?.durations[op] !== undefined || (kept === undefined && ns >= shareLeast * total))
    .map(({ op, durations }) => {
      const merged = new Histogram("ns");
      const before = kept?.durations[op];
      if (before) merged.merge(Histogram.fromJSON(before));
      merged.merge(durations);
      return [op, merged.toJSON()] as const;
    });
  // Where there are as many as may be, the oldest gives way.
  return {
    cpu,
    rows,
    ops,
    runs: [...(kept?.runs ?? []), run].slice(-runsMost),
    durations: Object.fromEntries(durations),
  };
}

interface Verdict extends Deviation {
  /** What the excess is beyond the tolerance, in parts of what may be chance; above 1: it is none. 0: it is not judged. */
  readonly beyond: number;
}

interface Judged extends Verdict {
  readonly measured: Measured;
}

/** The verdict on each op of a run (ns) by recorded ones; undefined: none of them knew the state that the machine is in. */
export function judgeTimes(
  recorded: readonly (readonly number[])[],
  times: readonly number[],
  tolerance: number,
): Verdict[] | undefined {
  if (!knowsState(recorded, times)) return undefined;
  const allowed = Math.log1p(tolerance);
  const most = shareMost * times.reduce((sum, ns) => sum + ns, 0);
  return deviations(recorded, times, allowed).map((deviation, op) => ({
    ...deviation,
    beyond: (times[op] ?? 0) > most ? 0 : (deviation.excess - allowed) / deviation.chance,
  }));
}

/** The ops that are judged, with their times in the recorded runs and in this one. */
function alike(kept: KeptBaseline, measured: readonly Measured[]) {
  const ops = measured.filter(({ op }) => kept.durations[op] !== undefined);
  const recorded = kept.runs.map((run) => ops.map(({ op }) => run[kept.ops.indexOf(op)] ?? 1));
  return { ops, recorded, times: ops.map(({ ns }) => ns) };
}

function failure(
  name: string,
  kept: KeptBaseline,
  judged: readonly Judged[],
  slower: readonly Judged[],
  tolerance: number,
): string[] {
  const [worst, ...others] = slower as [Judged, ...Judged[]];
  const { measured, excess, foretold, chance } = worst;
  const before = kept.durations[measured.op] as HistogramData;
  const expectedNs = measured.ns / Math.exp(excess);
  const state = judged.map((one) => one.foretold).sort((a, b) => a - b)[judged.length >> 1] ?? 0;
  const more = others.length - othersShown;
  return [
    `${JSON.stringify(name)}: ${named(measured)} took ${change(excess)} longer than the other ops let expect; the limit is ${percent(tolerance)}`,
    `in a step it took ${duration(Math.round(measured.ns))}, expected ${duration(Math.round(expectedNs))}, and ${change(chance)} may be chance (${count(kept.runs.length, "run")} recorded)`,
    `all ops together took ${percent(Math.abs(Math.expm1(state)))} ${state < 0 ? "less" : "more"} than in the recorded runs`,
    "",
    ...drawBeside(scaled(bucketsOf(before), Math.exp(foretold)), bucketsOf(measured.durations.toJSON())),
    "",
    ...others.slice(0, othersShown).map((one) => `slower too: ${named(one.measured)}, by ${change(one.excess)}`),
    ...(more > 0 ? [`and ${count(more, "other op")}`] : []),
    `the op to blame: ${named(measured)}, ${change(excess)} slower`,
  ];
}

function named({ op, kernels, layers }: Measured): string {
  const kernel = kernels.join(", ");
  return layers === 1 ? `${op} (${kernel})` : `${op} (${kernel}) in ${count(layers, "layer")}`;
}

/** A logarithm as per cent. */
function change(logarithm: number): string {
  return percent(Math.expm1(logarithm));
}

function scaled(buckets: readonly Bucket[], factor: number): Bucket[] {
  return buckets.map(({ value, count }) => ({ value: value * factor, count }));
}

function isKept(value: unknown): value is KeptBaselines {
  return isRecord(value) && Object.values(value).every(isBaseline);
}

function isBaseline(value: unknown): boolean {
  if (!isRecord(value)) return false;
  const { cpu, rows, ops, runs, durations } = value;
  const isNumbers = (list: unknown): boolean =>
    Array.isArray(list) && Array.isArray(ops) && list.length === ops.length && list.every((ns) => ns > 0);
  return (
    typeof cpu === "string" &&
    typeof rows === "number" &&
    Array.isArray(ops) &&
    ops.every((op) => typeof op === "string") &&
    Array.isArray(runs) &&
    runs.length > 0 &&
    runs.every(isNumbers) &&
    isRecord(durations) &&
    Object.values(durations).every((data) => isRecord(data) && "encoded" in data)
  );
}
