// What the matchers are given: what `model.profile` gave, the same read from JSON, or a list of them. It checks that the parts
// which a matcher asks for are there, and says how to get them when they are not.

import { type Bucket, bucketsOf } from "../../profiler/buckets.ts";
import type { HistogramData } from "../../profiler/histogram.ts";
import { ProfileMergeError } from "../../profiler/index.ts";
import { role } from "../../profiler/parts.ts";
import type { OpRow, Profile } from "../../profiler/profile.ts";
import type { Report } from "../../profiler/report.ts";
import { decodeRow } from "../../profiler/totals.ts";
import { checkKeys, checkNumber, describe } from "../check.ts";
import { OptionError } from "../errors.ts";

/** A profiled run. Parts that were not recorded may be missing; a matcher that needs one says so. */
export type Run = Profile & { readonly [Part in Exclude<keyof Report, keyof Profile>]?: Report[Part] };

/** What matchers read of a part: a text, true or false (`switch`), a number (`amount`: not negative), lists and objects of them. */
type Shape =
  | "text"
  | "switch"
  | "number"
  | "amount"
  | "amount or null"
  | ListShape
  | { readonly [field: string]: Shape };
type ListShape = readonly [each: Shape, least?: "not empty"];

const moved = { loads: "amount", stores: "amount", bytesRead: "amount", bytesWritten: "amount" } as const;

const timeShape: Shape = {
  rows: "amount",
  incompleteSteps: "amount",
  steps: { count: "amount", totalNs: "amount" },
  phases: [
    {
      phase: "text",
      count: "amount",
      rows: "amount",
      totalNs: "amount",
      p50Ns: "amount",
      p99Ns: "amount",
      maxNs: "amount",
    },
  ],
  byOp: [
    {
      index: "amount",
      name: "text",
      kernel: "text",
      layer: "number",
      count: "amount",
      totalNs: "amount",
      operations: "amount",
    },
  ],
};

/** Parts that may be missing. */
const partShapes: { readonly [Part in Exclude<keyof Report, keyof Profile>]?: Shape } = {
  run: {
    model: "text",
    level: "text",
    threads: "amount",
    contextLength: "amount",
    batchSize: "amount",
    options: { kvCache: "text", tuning: "text", screening: "switch", prepared: "switch" },
  },
  machine: { cpu: "text", fingerprint: "text" },
  requests: [
    {
      promptTokens: "amount",
      generatedTokens: "amount",
      wallNs: "amount",
      firstTokenNs: "amount or null",
      tokenizingNs: "amount",
      queueNs: "amount",
      stepsNs: "amount",
      betweenNs: "amount",
      deliveryNs: "amount",
      javascriptNs: "amount",
    },
  ],
  requestCount: "amount",
  requestTimes: { count: "amount" },
  firstTokens: { count: "amount" },
  memory: { ...moved, uncountedSteps: "amount", sampling: moved, byOp: [{ index: "amount", ...moved }] },
  cache: {
    source: "text",
    levels: [{ misses: "amount" }, "not empty"],
    byOp: [{ index: "amount", levels: [{ misses: "amount" }] }],
  },
  javascript: {
    nativeCalls: {
      total: "amount",
      requests: "amount",
      steps: "amount",
      logits: "amount",
      vectors: "amount",
      sessions: "amount",
      cancelled: "amount",
    },
  },
  system: {
    allocations: { count: "amount", allocatedBytes: "amount", freedBytes: "amount", sizes: { max: "amount" } },
  },
};

/**
 * The runs that `expect` was given, one or several.
 * @throws {OptionError} if they are no profiles, or what a matcher may read of one is damaged.
 */
export function checkRuns(received: unknown): readonly Run[] {
  const list: readonly unknown[] = Array.isArray(received) ? received : [received];
  if (list.length === 0) throw new OptionError("run", "is an empty list; profile something with model.profile(…)");
  for (const [index, run] of list.entries()) {
    const path = Array.isArray(received) ? `run[${index}]` : "run";
    if (!isRun(run)) {
      const problem = run instanceof Promise ? "is a promise; await it first" : `is ${describe(run)}`;
      throw new OptionError(path, `${problem}; what model.profile(…) gives, or its JSON, is expected`);
    }
    checkShape(path, run, timeShape);
    for (const [name, shape] of Object.entries(partShapes)) {
      const part = run[name as keyof typeof partShapes];
      if (part !== undefined && part !== null) checkShape(`${path}.${name}`, part, shape);
    }
  }
  return list as readonly Run[];
}

function isRun(value: unknown): value is Run {
  if (typeof value !== "object" || value === null) return false;
  const { byOp, phases, steps } = value as Partial<Record<keyof Profile, unknown>>;
  return Array.isArray(byOp) && Array.isArray(phases) && typeof steps === "object" && steps !== null;
}

/** @throws {OptionError} naming the first field that is not as it should be. */
function checkShape(path: string, value: unknown, shape: Shape): void {
  const wrong = (expected: string): OptionError =>
    new OptionError(path, `is ${describe(value)}; ${expected} is expected: profile again with model.profile(…)`);
  if (shape === "text") {
    if (typeof value !== "string") throw wrong("a text");
  } else if (shape === "switch") {
    if (typeof value !== "boolean") throw wrong("true or false");
  } else if (typeof shape === "string") {
    if (value === null && shape === "amount or null") return;
    if (!Number.isFinite(value)) throw wrong("a number");
    if (shape !== "number" && (value as number) < 0) throw wrong("a number from 0 on");
  } else if (isList(shape)) {
    const [each, least] = shape;
    if (!Array.isArray(value)) throw wrong("a list");
    if (least === "not empty" && value.length === 0) throw wrong("a list that is not empty");
    for (const [index, item] of value.entries()) checkShape(`${path}[${index}]`, item, each);
  } else {
    if (typeof value !== "object" || value === null) throw wrong("an object");
    for (const [field, of] of Object.entries(shape)) {
      checkShape(`${path}.${field}`, (value as Record<string, unknown>)[field], of);
    }
  }
}

function isList(shape: Shape): shape is ListShape {
  return Array.isArray(shape);
}

/**
 * A part of every run.
 * @throws {OptionError} if one has it not.
 */
export function partOf<Part extends Exclude<keyof Report, keyof Profile>>(
  runs: readonly Run[],
  part: Part,
  remedy: string,
): NonNullable<Report[Part]>[] {
  return runs.map((run, index) => {
    const found = run[part];
    if (found !== undefined && found !== null) return found as NonNullable<Report[Part]>;
    throw new OptionError(runs.length === 1 ? `run.${part}` : `run[${index}].${part}`, `is missing; ${remedy}`);
  });
}

/**
 * Limits given to a matcher: an object with at least one of the keys, each a finite number that is not negative.
 * @throws {OptionError} if it is something else.
 */
export function checkLimits<Key extends string>(limits: unknown, keys: readonly Key[]): [Key, number][] {
  checkKeys("limits", limits, keys);
  const given = Object.entries(limits as Partial<Record<Key, unknown>>).filter(([, value]) => value !== undefined);
  if (given.length === 0) throw new OptionError("limits", `has no limit; there are ${keys.join(", ")}`);
  return given.map(([key, value]) => [key as Key, checkNumber(`limits.${key}`, value, 0, Number.MAX_VALUE)]);
}

/** The value that `percent` per cent of the ascending values do not exceed: one of them, by nearest rank. There is at least one. */
export function percentile(values: readonly Bucket[], percent: number): number {
  const wanted = (percent / 100) * amountOf(values);
  let passed = 0;
  for (const { value, count } of values) {
    passed += count;
    if (passed >= wanted) return value;
  }
  return values.at(-1)?.value ?? Number.NaN;
}

/** How many values there are. */
export function amountOf(values: readonly Bucket[]): number {
  return values.reduce((sum, { count }) => sum + count, 0);
}

/** All values of several lists, ascending. */
export function together(lists: readonly (readonly Bucket[])[]): Bucket[] {
  return lists.flat().sort((a, b) => a.value - b.value);
}

/**
 * All values of a row, to three digits, ascending; undefined: it was taken without a histogram.
 * @throws {OptionError} if that is damaged.
 */
export function spreadOf(
  { histogram }: { readonly histogram?: HistogramData | undefined },
  path: string,
): Bucket[] | undefined {
  if (histogram === undefined) return undefined;
  try {
    return bucketsOf(histogram);
  } catch (cause) {
    throw new OptionError(`${path}.histogram`, "is damaged; profile again with model.profile(…)", { cause });
  }
}

/** What a matcher found, as `expect.extend` wants it. The message is made only if it is shown. */
export interface Outcome {
  readonly pass: boolean;
  readonly message: () => string;
}

/** The first line of a message that is shown though the limits hold, which is under `.not` alone. */
export function heldLine(limits: number): string {
  return `expected not to be within ${limits === 1 ? "the limit" : "all limits"}, but it is:`;
}

/** The op's name with its kernel and the layer it belongs to. */
export function opName({ name, kernel, layer }: Pick<OpRow, "name" | "kernel" | "layer">): string {
  return layer < 0 ? `${name} (${kernel})` : `${name} (${kernel}, layer ${layer})`;
}

/** Of all ops with the same role. */
export interface RoleTime {
  readonly role: string;
  readonly ops: number;
  readonly totalNs: number;
  /** Of the steps' own time. */
  readonly share: number;
}

/** Where the engine thread's time went by role, the largest first. */
export function timeByRole(runs: readonly Run[]): RoleTime[] {
  const stepsNs = runs.reduce((sum, run) => sum + run.steps.totalNs, 0);
  const roles = new Map<string, { ops: Set<number>; totalNs: number }>();
  for (const { byOp } of runs) {
    for (const op of byOp) {
      const known = roles.get(role(op.name)) ?? { ops: new Set<number>(), totalNs: 0 };
      known.ops.add(op.index);
      known.totalNs += op.totalNs;
      roles.set(role(op.name), known);
    }
  }
  return [...roles]
    .map(([name, { ops, totalNs }]) => ({
      role: name,
      ops: ops.size,
      totalNs,
      share: stepsNs === 0 ? 0 : totalNs / stepsNs,
    }))
    .sort((a, b) => b.totalNs - a.totalNs);
}

/**
 * All durations of a row, decoded.
 * @throws {OptionError} if the profile was taken without histograms, or they are damaged.
 */
export function durationsOf(row: Parameters<typeof decodeRow>[0], path: string): ReturnType<typeof decodeRow> {
  try {
    return decodeRow(row, path);
  } catch (error) {
    if (error instanceof ProfileMergeError) throw new OptionError("run", error.message, { cause: error });
    throw error;
  }
}
