// Where the time went: phases, kinds, roles and ops inside one another; ops in a table; threads; layers by role.

import type { OpPart, PhaseParts } from "../parts.ts";
import { groupParts, phaseParts, roleOf } from "../parts.ts";
import type { CostRow, OpRow, TimeRow } from "../profile.ts";
import type { Report, TraceData } from "../report.ts";
import { boundName, otherTimes } from "../sections.ts";
import { amount, bytes, count, duration, grouped, percent, plain } from "../words.ts";
import { bars, colorAt } from "./chart.ts";
import type { Block, Cell, HeatBlock, IcicleBlock, Piece, TableBlock, Tip } from "./model.ts";

export function timeBlocks(report: Report, trace: TraceData | undefined): Block[] {
  if (report.steps.count === 0) return [];
  return [icicle(report, trace), threads(report), opTable(report), ...heat(report)];
}

const UNKNOWN: Cell = [null, "–"];

/** Kinds by their time, which gives each its colour on the whole page. */
export function kindColor(report: Report): (kind: string) => string {
  const ordered = [...report.byKind].sort((a, b) => b.totalNs - a.totalNs);
  const places = new Map(ordered.map(({ kind }, place) => [kind, place]));
  return (kind) => colorAt(places.get(kind) ?? 0);
}

function icicle(report: Report, trace: TraceData | undefined): IcicleBlock {
  const phases = phaseParts(report, trace);
  const color = kindColor(report);
  const whole = report.steps.totalNs;
  const tipOf = (title: string, ns: number, phase: PhaseParts, lines: Tip["lines"] = []): Tip => ({
    title: plain(title),
    lines: [
      ["time", duration(Math.round(ns))],
      [`of ${phase.phase}`, percent(phase.totalNs === 0 ? 0 : ns / phase.totalNs)],
      ...(phases.length > 1 ? [["of all steps", percent(ns / whole)] as const] : []),
      ...lines,
    ],
  });
  const opPiece = ({ op, ns }: OpPart, phase: PhaseParts): Piece => ({
    name: plain(op.name),
    ns,
    color: color(op.kind),
    parts: [],
    tip: tipOf(op.name, ns, phase, [
      ["kernel", plain(op.kernel)],
      ["p50 in a step", duration(op.p50Ns)],
      ["p99", duration(op.p99Ns)],
      ["bytes that it has to move", op.gigabytesPerSecond === null ? "–" : `${grouped(op.gigabytesPerSecond, 1)} GB/s`],
    ]),
  });
  const phasePiece = (phase: PhaseParts): Piece => {
    const kinds = groupParts(phase.ops, ({ kind }) => kind).map((kind): Piece => {
      const roles = groupParts(kind.ops, roleOf).map((role): Piece => {
        const [only, ...others] = role.ops;
        if (only && others.length === 0) return opPiece(only, phase);
        const parts = [...role.ops].sort((a, b) => b.ns - a.ns).map((part) => opPiece(part, phase));
        const lines = [["ops", grouped(parts.length, 0)]] as const;
        return {
          name: plain(role.name),
          ns: role.ns,
          color: color(kind.name),
          parts,
          tip: tipOf(`${role.name}, all layers`, role.ns, phase, lines),
        };
      });
      const tip = tipOf(kind.name, kind.ns, phase, [["ops", grouped(kind.ops.length, 0)]]);
      return { name: plain(kind.name), ns: kind.ns, color: color(kind.name), parts: roles, tip };
    });
    const rest = phase.rest.map(
      ({ name, ns }): Piece => ({ name, ns, color: "var(--rest)", parts: [], tip: tipOf(name, ns, phase) }),
    );
    return {
      name: phase.phase,
      ns: phase.totalNs,
      color: "var(--rest)",
      parts: [...kinds, ...rest].sort((a, b) => b.ns - a.ns),
      tip: tipOf(phase.phase, phase.totalNs, phase, [
        ["steps", grouped(phase.steps, 0)],
        ["rows", grouped(phase.rows, 0)],
      ]),
    };
  };
  const pieces = phases.map(phasePiece);
  const [only] = pieces;
  const tip: Tip = { title: "all steps", lines: [["time", duration(whole)]] };
  const root =
    only && pieces.length === 1 ? only : { name: "all steps", ns: whole, color: "var(--rest)", parts: pieces, tip };
  const estimated = phases.some((phase) => phase.estimated)
    ? " The profile sums ops over both phases; they are divided by their times in each."
    : "";
  return {
    type: "icicle",
    half: false,
    id: "icicle",
    title: "Time of the steps, taken apart",
    note: `Time of the engine thread: phases, kinds of op, their roles over the layers, ops. Click a piece to see it alone; arrow keys move, Enter goes in, Escape goes back.${estimated}`,
    root,
  };
}

/** Misses of the last cache and bytes read, by the op's index, where they were counted. */
function countsOf(report: Report) {
  const reads = new Map(report.memory?.byOp.map((row) => [row.index, row.bytesRead]));
  const misses = new Map(report.cache?.byOp.map((row) => [row.index, row.levels.at(-1)?.misses]));
  return { reads, misses, lastLevel: report.cache?.levels.at(-1)?.name ?? "cache" };
}

function opTable(report: Report): TableBlock {
  const { reads, misses, lastLevel } = countsOf(report);
  const roofs = new Map<number, NonNullable<Report["roofline"]>["byOp"][number]>();
  for (const row of report.roofline?.byOp ?? []) {
    // Where phases are told apart, the one that took longer.
    if (row.wallNs > (roofs.get(row.index)?.wallNs ?? -1)) roofs.set(row.index, row);
  }
  const timed = (row: TimeRow): Cell[] => [
    [row.share, percent(row.share)],
    ...[row.totalNs, row.p50Ns, row.p99Ns, row.maxNs].map((ns): Cell => [ns, duration(ns)]),
  ];
  const rate = (value: CostRow["gigabytesPerSecond"]): Cell => (value === null ? UNKNOWN : [value, grouped(value, 1)]);
  const known = <T>(value: T | undefined, cell: (value: T) => Cell): Cell =>
    value === undefined ? UNKNOWN : cell(value);
  const counted = (index: number): Cell[] => {
    const roof = roofs.get(index);
    return [
      ...(report.roofline
        ? [known(roof, (row) => [row.share, percent(row.share)]), known(roof, (row) => boundName(row.bound))]
        : []),
      ...(report.memory ? [known(reads.get(index), (value) => [value, bytes(value)])] : []),
      ...(report.cache ? [known(misses.get(index), (value) => [value, amount(value)])] : []),
    ];
  };
  const rows = report.byOp.map((op: OpRow): Cell[] => [
    plain(op.name),
    plain(op.kernel),
    [op.layer, op.layer < 0 ? "–" : `${op.layer}`],
    ...timed(op),
    [op.waitNs, duration(op.waitNs)],
    rate(op.gigabytesPerSecond),
    rate(op.gigaflopsPerSecond),
    ...counted(op.index),
  ]);
  const others = otherTimes(report).map(([name, row]): Cell[] => [
    name,
    "no op",
    UNKNOWN,
    ...timed(row),
    ...new Array<Cell>(3).fill(UNKNOWN),
    ...counted(-1),
  ]);
  return {
    type: "table",
    half: false,
    id: "ops",
    title: "Ops",
    note: "",
    columns: [
      ...["op", "kernel", "layer", "share", "total", "p50", "p99", "max", "wait", "GB/s", "GFLOP/s"],
      ...(report.roofline ? ["of the roof", "held by"] : []),
      ...(report.memory ? ["read"] : []),
      ...(report.cache ? [`${lastLevel} misses`] : []),
    ],
    textColumns: 2,
    rows: [...rows, ...others],
    interactive: { sortedBy: 4, shareColumn: 3, shown: 25, none: "no op has this name" },
    folded: false,
  };
}

function heat(report: Report): HeatBlock[] {
  const ops = report.byOp.filter(({ layer }) => layer >= 0);
  const layers = [...new Set(ops.map(({ layer }) => layer))].sort((a, b) => a - b);
  const roles = [...new Set(ops.map(roleOf))];
  if (layers.length === 0) return [];
  const { reads, misses, lastLevel } = countsOf(report);
  const measure = (name: string, figureOf: (op: OpRow) => number | undefined, word: (value: number) => string) => {
    const sums = new Map<string, number>();
    for (const op of ops) {
      const value = figureOf(op);
      const key = `${op.layer} ${roleOf(op)}`;
      if (value !== undefined) sums.set(key, (sums.get(key) ?? 0) + value);
    }
    const cell = (role: string, layer: number) => {
      const value = sums.get(`${layer} ${role}`);
      return value === undefined ? null : ([value, word(value)] as const);
    };
    return { name, cells: roles.map((role) => layers.map((layer) => cell(role, layer))) };
  };
  return [
    {
      type: "heat",
      half: false,
      id: "heat",
      title: "Layers by role",
      note: "What every op of a layer takes, beside the same op in the other layers. Ops outside the layers are in the table.",
      columns: layers.map((layer) => `${layer}`),
      rows: roles.map(plain),
      measures: [
        measure("time", (op) => op.totalNs, duration),
        // One step in which a thread's CPU was taken away outweighs all others in a sum.
        measure("time in a step, p50", (op) => op.p50Ns, duration),
        ...(report.memory ? [measure("bytes read", (op) => reads.get(op.index), bytes)] : []),
        ...(report.cache ? [measure(`${lastLevel} misses`, (op) => misses.get(op.index), amount)] : []),
      ],
    },
  ];
}

function threads(report: Report): Block {
  const names = report.threads.map(({ thread }) => (thread === 0 ? "thread 0, the engine's" : `thread ${thread}`));
  const parts = [
    ["working", "busyShare", "busyNs", "var(--c0)"],
    ["waiting", "waitingShare", "waitingNs", "var(--c1)"],
    ["idle or not recorded", "idleShare", "idleNs", "var(--rest)"],
  ] as const;
  const series = parts.map(([name, share, , color]) => ({
    name,
    color,
    values: report.threads.map((row, place) => ({
      value: row[share] * 100,
      tip: {
        title: names[place] ?? "",
        lines: [
          ...parts.map(([each, part, time]) => [each, `${percent(row[part])}, ${duration(row[time])}`] as const),
          ["idle events, between steps too", duration(row.recordedIdleNs)] as const,
        ],
      },
    })),
  }));
  const note = `What ${count(report.threads.length, "thread")} did while steps ran, by the clock: work takes longer where another program has the CPU.`;
  return bars(
    "threads",
    "Threads",
    names,
    series,
    { name: "% of the steps' time", max: 100 },
    { note, half: true, stacked: true },
  );
}
