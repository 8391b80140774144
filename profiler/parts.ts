// How a profile's time is divided: the steps into phases, a phase into its ops and the rest. Flame bars and the report's icicle
// group it further. It draws nothing.

import { decodeTrace } from "./decode.ts";
import type { OpRow } from "./profile.ts";
import type { Report, TraceData } from "./report.ts";

/** An op's part of a phase. */
export interface OpPart {
  readonly op: OpRow;
  /** Of the engine thread. */
  readonly ns: number;
}

/** A phase's steps, taken apart: `totalNs` = Σ `ops` + Σ `rest`. */
export interface PhaseParts {
  readonly phase: "prompt" | "generation" | "all steps";
  readonly steps: number;
  readonly rows: number;
  readonly totalNs: number;
  readonly ops: readonly OpPart[];
  /** What belongs to no op. */
  readonly rest: readonly { readonly name: string; readonly ns: number }[];
  /** Whether ops were divided between phases by guess: the profile does not do it, and no whole trace told them apart. */
  readonly estimated: boolean;
}

/** How much of an op belongs to a phase; undefined: nobody knows. */
type Weight = (op: OpRow, phase: string) => number | undefined;

/**
 * The time of each phase. A profile sums an op over all phases. Where there are several, a whole trace tells them apart; else
 * the op's time is divided as its wall time on the roofline is; and without either the phases stay together.
 */
export function phaseParts(report: Report, trace?: TraceData): PhaseParts[] {
  const { phases, byOp, steps } = report;
  if (steps.count === 0) return [];
  const [first] = phases;
  const whole = {
    waiting: "waiting at barriers",
    sampling: "sampling",
    copying: "copying",
    engine: "forming steps",
  } as const;
  const rest = [
    ...Object.entries(whole).map(([key, name]) => ({ name, ns: report[key as keyof typeof whole].totalNs })),
    { name: "idle", ns: report.idle.totalNs },
    { name: "unattributed", ns: report.unattributed.totalNs },
  ].filter(({ ns }) => ns > 0);
  const together = (phase: PhaseParts["phase"], rows: number): PhaseParts => {
    const ops = byOp.map((op) => ({ op, ns: op.totalNs })).filter(({ ns }) => ns > 0);
    return { phase, steps: steps.count, rows, totalNs: steps.totalNs, ops, rest, estimated: false };
  };
  if (phases.length === 1 && first) return [together(first.phase, first.rows)];
  const traced = traceWeight(trace, report);
  const weight = traced ?? rooflineWeight(report);
  const sumOf = (op: OpRow): number => phases.reduce((sum, { phase }) => sum + (weight(op, phase) ?? 0), 0);
  if (byOp.some((op) => op.totalNs > 0 && sumOf(op) === 0)) return [together("all steps", report.rows)];
  return phases.map(({ phase, count, rows, totalNs }) => {
    const found = byOp
      .map((op) => ({ op, ns: op.totalNs === 0 ? 0 : (op.totalNs * (weight(op, phase) ?? 0)) / sumOf(op) }))
      .filter(({ ns }) => ns > 0);
    const sum = found.reduce((total, { ns }) => total + ns, 0);
    // What is divided by wall times must not give a phase more than it took.
    const scale = sum > totalNs ? totalNs / sum : 1;
    const ops = scale === 1 ? found : found.map(({ op, ns }) => ({ op, ns: ns * scale }));
    // What belongs to no op is known for all phases together only.
    const left = [{ name: "outside of ops", ns: Math.max(0, totalNs - sum * scale) }].filter(({ ns }) => ns > 0);
    return { phase, steps: count, rows, totalNs, ops, rest: left, estimated: traced === undefined };
  });
}

function rooflineWeight(report: Report): Weight {
  const wall = new Map((report.roofline?.byOp ?? []).map((row) => [`${row.index} ${row.phase}`, row.wallNs]));
  return (op, phase) => wall.get(`${op.index} ${phase}`);
}

/** The engine thread's work on each op in the steps of each phase, if the trace holds all that the profile does. */
function traceWeight(trace: TraceData | undefined, report: Report): Weight | undefined {
  if (trace === undefined || trace.dropped > 0) return undefined;
  const { threads, steps } = decodeTrace(trace);
  if (steps.length !== report.steps.count) return undefined;
  const phases = new Map(steps.map(({ step, phase }) => [step, phase]));
  const work = new Map<string, number>();
  for (const slice of threads.find(({ thread }) => thread === 0)?.slices ?? []) {
    if (slice.kind !== "work") continue;
    const key = `${slice.op} ${phases.get(slice.step)}`;
    work.set(key, (work.get(key) ?? 0) + slice.endNs - slice.startNs);
  }
  return (op, phase) => work.get(`${op.index} ${phase}`);
}

/** A name without its layer, which the same op has in every layer: `attn_q` of `blk.3.attn_q`. */
export function role(name: string): string {
  return /^blk\.\d+\.(.+)$/s.exec(name)?.[1] ?? name;
}

/** The same of an op: what belongs to no layer keeps its name. */
export function roleOf({ name, layer }: { readonly name: string; readonly layer: number }): string {
  return layer < 0 ? name : role(name);
}

/** Sums parts by a name, largest first. */
export function groupParts(
  ops: readonly OpPart[],
  nameOf: (op: OpRow) => string,
): { name: string; ns: number; ops: OpPart[] }[] {
  const groups = new Map<string, { name: string; ns: number; ops: OpPart[] }>();
  for (const part of ops) {
    const name = nameOf(part.op);
    const group = groups.get(name) ?? { name, ns: 0, ops: [] };
    group.ns += part.ns;
    group.ops.push(part);
    groups.set(name, group);
  }
  return [...groups.values()].sort((a, b) => b.ns - a.ns);
}
