// Limits on what was counted: bytes, loads and stores, operations, misses in simulated caches, allocations, native calls. They are
// the same on every run and, at one instruction-set level, on every machine, so a limit on them does not flake where a limit on time
// would. With a name, the counts of the last run that passed are kept, and a later failure says where they changed.

import { role } from "../../profiler/parts.ts";
import type { OpRow } from "../../profiler/profile.ts";
import type { AmountRow, NativeCalls, Report } from "../../profiler/report.ts";
import { nativeCallNames } from "../../profiler/sections.ts";
import { amount, bytes, count, grouped, percent } from "../../profiler/words.ts";
import { describe } from "../check.ts";
import { OptionError } from "../errors.ts";
import { checkLimits, checkRuns, heldLine, type Outcome, opName, partOf, type Run, spreadOf } from "./run.ts";
import { changeEntry, readEntries, storePath, updating, writesUnasked } from "./store.ts";

/** Limits of `toCostAtMost`; at least one. Of several runs the one that cost most is judged. */
export interface CostLimits {
  /** Bytes that the kernels loaded, from caches or memory. */
  readonly bytesRead?: number;
  readonly bytesWritten?: number;
  /** Loads and stores. */
  readonly memoryOps?: number;
  /** Arithmetic operations. */
  readonly operations?: number;
  /** Lines that the simulated last level did not have. */
  readonly cacheMisses?: number;
  /** Pieces of memory that the library took. */
  readonly allocations?: number;
  /**
   * Calls from JavaScript into the library that the requests needed, as in the report's `javascript.nativeCalls.total`: one for each
   * request and for each step that told of a result, and those that copied logits, vectors and sessions. What polls, or watches, is in none.
   */
  readonly nativeCalls?: number;
}

const keys = [
  "bytesRead",
  "bytesWritten",
  "memoryOps",
  "operations",
  "cacheMisses",
  "allocations",
  "nativeCalls",
] as const;
type Key = (typeof keys)[number];

/** Of ops that are shown at most. */
const shownMax = 5;

/** A count as a whole and by op, in program order; by size or by what for where it is not an op's. */
interface Counted {
  readonly total: number;
  readonly byOp: readonly OpCount[];
}

interface OpCount {
  readonly op: string;
  readonly count: number;
}

/** What is kept of a run that passed: each count by op. */
type KeptCounts = { readonly [K in Key]?: { readonly total: number; readonly byOp: Readonly<Record<string, number>> } };

const remedy = "profile with model.profile(work, { deterministic: true })";
const idle = "no step ran while it was profiled: await the work inside of model.profile(…)";

export function costAtMost(received: unknown, limits: unknown, name: unknown): Outcome {
  const runs = checkRuns(received);
  const checked = checkLimits(limits, keys);
  if (name !== undefined && (typeof name !== "string" || name === "")) {
    throw new OptionError("name", `is ${describe(name)}; a text is expected, or nothing`);
  }
  const judged = checked.map(([key, limit]) => {
    const [worst] = runs.map((run) => countOf(run, key, runs)).sort((a, b) => b.total - a.total);
    return { key, limit, counted: worst as Counted };
  });
  const missed = judged.filter(({ counted, limit }) => counted.total > limit);
  const path = storePath("costs");
  const before = name === undefined ? undefined : readEntries(path, isKept)[name];
  if (name !== undefined && missed.length === 0) keep(path, name, before, judged);
  const message = (): string => {
    const lines = (missed.length > 0 ? missed : judged).flatMap(({ key, counted, limit }) => [
      `${sentences[key](counted.total)}; the limit is ${figure(key, limit)}`,
      ...blame(key, counted, before?.[key]),
    ]);
    return (missed.length > 0 ? lines : [heldLine(judged.length), ...lines]).join("\n");
  };
  return { pass: missed.length === 0, message };
}

const sentences: Record<Key, (total: number) => string> = {
  bytesRead: (total) => `the kernels read ${figure("bytesRead", total)}`,
  bytesWritten: (total) => `the kernels wrote ${figure("bytesWritten", total)}`,
  memoryOps: (total) =>
    `the kernels made ${figure("memoryOps", total)} ${either(total, "load or store", "loads and stores")}`,
  operations: (total) =>
    `the kernels made ${figure("operations", total)} arithmetic ${either(total, "operation", "operations")}`,
  cacheMisses: (total) => `the last cache missed ${figure("cacheMisses", total)} ${either(total, "line", "lines")}`,
  allocations: (total) =>
    `the library allocated ${figure("allocations", total)} ${either(total, "piece of memory", "pieces of memory")}`,
  nativeCalls: (total) =>
    `the requests needed ${figure("nativeCalls", total)} ${either(total, "call", "calls")} into the native library`,
};

/** To the last digit, since counts are exact; large ones beside it in words. */
function figure(key: Key, total: number): string {
  const exact = grouped(total, Number.isInteger(total) ? 0 : 1);
  const inBytes = key === "bytesRead" || key === "bytesWritten";
  const unit = inBytes ? ` ${either(total, "byte", "bytes")}` : "";
  if (total < (inBytes ? 1e4 : 1e7)) return `${exact}${unit}`;
  return `${exact}${unit} (${inBytes ? bytes(total) : amount(total)})`;
}

function either(total: number, one: string, several: string): string {
  return total === 1 ? one : several;
}

/** A count of a run. @throws {OptionError} if it was not counted, or not all of it, or is none that repeats. */
function countOf(run: Run, key: Key, runs: readonly Run[]): Counted {
  const path = (part: string): string => (runs.length === 1 ? `run.${part}` : `run[${runs.indexOf(run)}].${part}`);
  const names = new Map(run.byOp.map((op: OpRow) => [op.index, opName(op)]));
  const named = (index: number): string => names.get(index) ?? `op ${index}`;
  const part = <Part extends "memory" | "cache" | "javascript" | "system">(wanted: Part): NonNullable<Report[Part]> => {
    // The others are made of steps.
    const ran = wanted === "javascript" || wanted === "system" || run.steps.count > 0;
    const [found] = partOf([run], wanted, ran ? remedy : idle);
    return found as NonNullable<Report[Part]>;
  };
  if (key === "allocations") {
    const { count: total, sizes } = part("system").allocations;
    return { total, byOp: bySize(sizes, path("system.allocations.sizes")) };
  }
  if (key === "nativeCalls") {
    const { total, ...calls } = part("javascript").nativeCalls;
    return { total, byOp: byPurpose(calls) };
  }
  if (key === "cacheMisses") {
    const cache = part("cache");
    if (cache.source !== "simulator") {
      throw new OptionError(path("cache"), `comes from hardware counters, which no two runs agree on; ${remedy}`);
    }
    const missesOf = (levels: (typeof cache)["levels"]): number => levels.at(-1)?.misses ?? 0;
    const byOp = cache.byOp.map(({ index, levels }) => ({ op: named(index), count: missesOf(levels) }));
    return { total: missesOf(cache.levels), byOp };
  }
  if (key === "operations") {
    if (run.incompleteSteps > 0) throw new OptionError(path("incompleteSteps"), incomplete(run.incompleteSteps));
    const byOp = run.byOp.map((op) => ({ op: opName(op), count: op.operations }));
    return { total: byOp.reduce((sum, { count }) => sum + count, 0), byOp };
  }
  const memory = part("memory");
  if (memory.uncountedSteps > 0) throw new OptionError(path("memory"), incomplete(memory.uncountedSteps));
  const of = (row: { loads: number; stores: number; bytesRead: number; bytesWritten: number }): number =>
    key === "memoryOps" ? row.loads + row.stores : row[key];
  const byOp = memory.byOp.map((row) => ({ op: named(row.index), count: of(row) }));
  return { total: of(memory), byOp: [...byOp, { op: "drawing tokens", count: of(memory.sampling) }] };
}

/** Pieces of memory by how many bytes they have. */
function bySize(sizes: AmountRow, path: string): OpCount[] {
  const sums = new Map<string, number>();
  for (const { value, count } of spreadOf(sizes, path) ?? []) {
    const name = `pieces of ${bytes(value)}`;
    sums.set(name, (sums.get(name) ?? 0) + count);
  }
  return [...sums].map(([op, count]) => ({ op, count }));
}

function byPurpose(calls: Omit<NativeCalls, "total">): OpCount[] {
  return (Object.keys(nativeCallNames) as (keyof typeof nativeCallNames)[]).map((key) => {
    return { op: nativeCallNames[key], count: calls[key] };
  });
}

function incomplete(steps: number): string {
  return `${count(steps, "step")} whose records were lost ${steps === 1 ? "is" : "are"} in no count; profile less at a time`;
}

/** Where a count came from: what changed since it passed, or else what has most of it. */
function blame(key: Key, { total, byOp }: Counted, before: KeptCounts[Key]): string[] {
  const counts: Change[] = byOp.map(({ op, count }) => ({ op, now: count, kept: before?.byOp[op] ?? 0 }));
  if (before && before.total !== total) {
    const known = new Set(byOp.map(({ op }) => op));
    const gone = Object.entries(before.byOp).filter(([op]) => !known.has(op));
    const all = [...counts, ...gone.map(([op, kept]) => ({ op, now: 0, kept }))];
    // A single layer is named where not every layer changed.
    const changed = overLayers(all)
      .flatMap((row) => (row.now !== row.kept && row.ops.every(({ now, kept }) => now !== kept) ? [row] : row.ops))
      .filter(({ now, kept }) => now !== kept)
      .sort((a, b) => Math.abs(b.now - b.kept) - Math.abs(a.now - a.kept));
    return listed("  since the last run that passed:", changed, ({ op, now, kept }) => {
      const change = kept === 0 ? "new" : `${now > kept ? "+" : ""}${grouped(((now - kept) / kept) * 100, 1)} %`;
      return `${op}: ${figure(key, now)}, before ${figure(key, kept)} (${change})`;
    });
  }
  const largest = overLayers(counts)
    .filter(({ now }) => now > 0)
    .sort((a, b) => b.now - a.now);
  return listed("  most of it:", largest, ({ op, now }) => `${op}: ${figure(key, now)}, ${percent(now / total)}`);
}

interface Change {
  readonly op: string;
  readonly now: number;
  readonly kept: number;
}

/** Sums over ops that have one name and kernel in several layers; others stay as they are. */
function overLayers(rows: readonly Change[]): (Change & { readonly ops: readonly Change[] })[] {
  const groups = Map.groupBy(rows, ({ op }) => role(op).replace(/, layer \d+\)$/, ")"));
  return [...groups].map(([name, ops]) => ({
    op: ops.length === 1 ? (ops[0] as Change).op : `${name} in ${count(ops.length, "layer")}`,
    now: ops.reduce((sum, { now }) => sum + now, 0),
    kept: ops.reduce((sum, { kept }) => sum + kept, 0),
    ops,
  }));
}

function listed<T>(title: string, rows: readonly T[], line: (row: T) => string): string[] {
  if (rows.length === 0) return [];
  const more = rows.length - shownMax;
  const rest = more > 0 ? [`    and ${count(more, "other")}`] : [];
  return [title, ...rows.slice(0, shownMax).map((row) => `    ${line(row)}`), ...rest];
}

/** Keeps the counts of a run that passed, where they are new or changed. */
function keep(
  path: string,
  name: string,
  before: KeptCounts | undefined,
  judged: readonly { readonly key: Key; readonly counted: Counted }[],
): void {
  if (updating() === undefined && !writesUnasked()) return;
  const counts = judged.map(({ key, counted: { total, byOp } }) => {
    return [key, { total, byOp: Object.fromEntries(byOp.map(({ op, count }) => [op, count])) }] as const;
  });
  const passed: KeptCounts = Object.fromEntries(counts);
  if (Bun.deepEquals({ ...before, ...passed }, before)) return;
  changeEntry(path, name, isKept, (now) => ({ ...now, ...passed }));
}

function isKept(value: unknown): value is KeptCounts {
  if (typeof value !== "object" || value === null) return false;
  return Object.entries(value).every(([key, counts]) => {
    const { total, byOp } = (counts ?? {}) as { total?: unknown; byOp?: unknown };
    const known = (keys as readonly string[]).includes(key) && typeof total === "number";
    return (
      known && typeof byOp === "object" && byOp !== null && Object.values(byOp).every((n) => typeof n === "number")
    );
  });
}
