// How a profile's time is divided: the steps into phases, a phase into its ops and the rest. Flame bars and the report's icicle
// group it further. It draws nothing.

import type { OpRow } from "./profile.ts";
import type { Report } from "./report.ts";

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
  /** Whether ops were divided between phases by their wall times, which only the roofline knows by phase. */
  readonly estimated: boolean;
}

/**
 * The time of each phase. A profile sums an op over all phases; where there are several, the op's time is divided as its wall
 * time on the roofline is, and without a roofline the phases stay together.
 */
export function phaseParts(report: Report): PhaseParts[] {
  const { phases, byOp, steps } = report;
  if (steps.count === 0) return [];
  const [first] = phases;
  if (phases.length === 1 && first) {
    return [parts(first.phase, report, first, 1, (op) => op.totalNs)];
  }
  const wall = new Map<string, number>();
  for (const row of report.roofline?.byOp ?? []) {
    const key = `${row.index} ${row.phase}`;
    wall.set(key, (wall.get(key) ?? 0) + row.wallNs);
  }
  const wallOf = (op: OpRow, phase: string): number => wall.get(`${op.index} ${phase}`) ?? 0;
  const sumOf = (op: OpRow): number => phases.reduce((sum, { phase }) => sum + wallOf(op, phase), 0);
  if (byOp.some((op) => sumOf(op) === 0)) {
    return [parts("all steps", report, { ...steps, rows: report.rows }, 1, (op) => op.totalNs)];
  }
  return phases.map((phase) => {
    const share = phase.totalNs / steps.totalNs;
    return parts(phase.phase, report, phase, share, (op) => (op.totalNs * wallOf(op, phase.phase)) / sumOf(op));
  });
}

function parts(
  phase: PhaseParts["phase"],
  report: Report,
  row: { readonly count: number; readonly rows: number; readonly totalNs: number },
  share: number,
  nsOf: (op: OpRow) => number,
): PhaseParts {
  const estimated = share < 1;
  const found = report.byOp.map((op) => ({ op, ns: nsOf(op) })).filter(({ ns }) => ns > 0);
  const sum = found.reduce((total, { ns }) => total + ns, 0);
  // An estimate must not give a phase more than it took.
  const scale = sum > row.totalNs ? row.totalNs / sum : 1;
  const ops = scale === 1 ? found : found.map(({ op, ns }) => ({ op, ns: ns * scale }));
  const left = Math.max(0, row.totalNs - sum * scale);
  // What belongs to no op is known for all phases together only.
  const rest = estimated
    ? [{ name: "outside of ops", ns: left }]
    : [
        { name: "waiting at barriers", ns: report.waiting.totalNs },
        { name: "sampling", ns: report.sampling.totalNs },
        { name: "copying", ns: report.copying.totalNs },
        { name: "idle", ns: report.idle.totalNs },
        { name: "unattributed", ns: report.unattributed.totalNs },
      ];
  const { count: steps, rows, totalNs } = row;
  return { phase, steps, rows, totalNs, ops, rest: rest.filter(({ ns }) => ns > 0), estimated };
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
