// A profile as a table for a terminal: aligned, one unit a column, sorted by time, as wide as there is room. It computes
// nothing that the profile does not hold, and writes nowhere: it returns the text.

import type { CostRow, Profile, TimeRow } from "./profile.ts";
import {
  columnsOf,
  count,
  cut,
  duration,
  emphasise,
  grouped,
  lines,
  MICROSECONDS,
  MILLISECONDS,
  pad,
  percent,
  SECONDS,
  type Unit,
  wrap,
} from "./words.ts";

/** Options of `formatProfile`. */
export interface TableOptions {
  /** Tables to show, in this order; by default kinds and layers. */
  readonly by?: readonly ("kind" | "layer" | "op")[];
  /** Rows a table has at most; the rest is summed in one line. By default 24. */
  readonly limit?: number;
  /** Columns of the terminal. By default those of standard output, 120 where it is none; below 40 counts as 40. */
  readonly width?: number;
  /** Whether to emphasise with ANSI sequences. By default only when standard output is a terminal and NO_COLOR is not set. */
  readonly color?: boolean;
}

const WIDTH_MIN = 40;
const WIDTH_WITHOUT_TERMINAL = 120;
const LIMIT = 24;
const GAP = "  ";
const UNKNOWN = "–";
const LEGEND =
  "total, share, wait: time of the engine thread, which adds up; p50 to max, GB/s, GFLOP/s of ops: from the first thread's start to the last one's end. GB/s: bytes that an op has to move, once each.";

/** One line of a table before it is laid out. */
interface Line {
  readonly name: string;
  readonly time: TimeRow;
  /** Absent for time that belongs to no op. */
  readonly cost?: CostRow;
}

interface Column {
  readonly title: string;
  /** The lower, the sooner it is left out when the terminal is narrow; undefined: never. */
  readonly worth?: number;
  readonly cell: (line: Line) => string;
}

/**
 * The profile as text, each line ending in a newline: what ran, tables sorted by time with the time that belongs to no op
 * last, the threads, and what was lost or left out if anything was.
 */
export function formatProfile(profile: Profile, options: TableOptions = {}): string {
  const width = Math.max(WIDTH_MIN, options.width ?? process.stdout.columns ?? WIDTH_WITHOUT_TERMINAL);
  const { NO_COLOR } = process.env;
  const color = options.color ?? (process.stdout.isTTY === true && !NO_COLOR);
  const limit = Math.max(1, options.limit ?? LIMIT);
  if (profile.steps.count === 0) {
    return lines(["No step was profiled.", ...remarks(profile).flatMap((remark) => wrap(remark, width))]);
  }
  const text: string[] = [];
  for (const sentence of summary(profile)) text.push(...wrap(sentence, width));
  for (const [position, by] of (options.by ?? ["kind", "layer"]).entries()) {
    const sorted = tableLines(profile, by).sort((a, b) => b.time.totalNs - a.time.totalNs);
    // What belongs to no op, and the sum of it all, stand once, under the first table.
    const last = position === 0 ? lastLines(profile) : [];
    text.push("", ...table(by, sorted, last, limit, profile.steps.totalNs, width, color));
  }
  text.push("", ...wrap(LEGEND, width));
  text.push(...threadLines(profile).flatMap((line) => wrap(line, width)));
  for (const remark of remarks(profile)) text.push(...wrap(remark, width));
  return lines(text);
}

function summary(profile: Profile): string[] {
  const { steps } = profile;
  const parts = profile.phases.map((phase) => {
    const rate = grouped(phase.rowsPerSecond, phase.rowsPerSecond < 100 ? 1 : 0);
    return `${count(phase.rows, "row")} in ${count(phase.count, `${phase.phase} step`)}, ${duration(phase.totalNs)}, ${rate} a second`;
  });
  return [
    `${count(steps.count, "step")}, ${duration(steps.totalNs)}: ${parts.join("; ")}.`,
    `${percent(profile.attributedShare)} of the steps' time is accounted for.`,
  ];
}

function tableLines(profile: Profile, by: "kind" | "layer" | "op"): Line[] {
  if (by === "kind") return profile.byKind.map((row) => ({ name: row.kind, time: row, cost: row }));
  if (by === "op") return profile.byOp.map((row) => ({ name: `${row.name} (${row.kernel})`, time: row, cost: row }));
  return profile.byLayer.map((row) => ({
    name: row.layer < 0 ? "outside the layers" : `layer ${row.layer}`,
    time: row,
    cost: row,
  }));
}

function lastLines(profile: Profile): Line[] {
  const rows: Line[] = [
    { name: "waiting at barriers", time: profile.waiting },
    { name: "sampling", time: profile.sampling },
    { name: "copying", time: profile.copying },
    { name: "forming steps", time: profile.engine },
    { name: "idle", time: profile.idle },
  ];
  return [
    ...rows.filter((line) => line.time.count > 0),
    { name: "unattributed", time: profile.unattributed },
    { name: "steps", time: profile.steps },
  ];
}

function table(
  by: string,
  sorted: readonly Line[],
  last: readonly Line[],
  limit: number,
  stepsNs: number,
  width: number,
  color: boolean,
): string[] {
  const shown = sorted.slice(0, limit);
  const rest = sorted.slice(limit);
  const all = [...shown, ...last];
  const columns = fit(chooseColumns(by, all), all, width);
  const sizes = columns.map((column) => Math.max(...[column.title, ...all.map(column.cell)].map(columnsOf)));
  // The name gives way when even the columns that stay are too wide.
  const tail = sizes.slice(1).reduce((sum, size) => sum + size + GAP.length, 0);
  sizes[0] = Math.min(sizes[0] ?? 0, Math.max(width - tail, 8));
  const layOut = (cells: readonly string[]): string =>
    cells
      .map((cell, index) => (index === 0 ? cut(cell, sizes[0] ?? 0) : pad(cell, sizes[index] ?? 0)))
      .join(GAP)
      .trimEnd();
  const text = [emphasise(layOut(columns.map((column) => column.title)), "1", color)];
  const render = (line: Line): string => layOut(columns.map((column) => column.cell(line)));
  text.push(...shown.map(render));
  if (rest.length > 0) {
    const restNs = rest.reduce((sum, line) => sum + line.time.totalNs, 0);
    text.push(cut(`… ${rest.length} more, ${duration(restNs)}, ${percent(restNs / stepsNs)}`, width).trimEnd());
  }
  if (last.length > 0) {
    const full = sizes.reduce((sum, size) => sum + size + GAP.length, -GAP.length);
    text.push(emphasise("─".repeat(full), "2", color), ...last.map(render));
  }
  return text;
}

function chooseColumns(by: string, all: readonly Line[]): Column[] {
  const total = unitFor(Math.max(...all.map((line) => line.time.totalNs)), 10e6, 100e9);
  const single = unitFor(Math.max(...all.map((line) => line.time.maxNs)), 1e9, 100e9);
  const time = (title: string, unit: Unit, ns: (line: Line) => number | undefined, worth?: number): Column => ({
    title: `${title} ${unit.name}`,
    ...(worth === undefined ? {} : { worth }),
    cell: (line) => {
      const value = ns(line);
      return value === undefined ? "" : grouped(value / unit.ns, unit.decimals);
    },
  });
  const rate = (title: string, value: (cost: CostRow) => number | null, worth: number): Column => ({
    title,
    worth,
    cell: (line) => {
      if (line.cost === undefined) return "";
      const amount = value(line.cost);
      return amount === null ? UNKNOWN : grouped(amount, 1);
    },
  });
  return [
    { title: by, cell: (line) => line.name },
    { title: "count", worth: 2, cell: (line) => grouped(line.time.count, 0) },
    time("total", total, (line) => line.time.totalNs),
    { title: "share", cell: (line) => percent(line.time.share) },
    time("p50", single, (line) => line.time.p50Ns, 8),
    time("p90", single, (line) => line.time.p90Ns, 1),
    time("p99", single, (line) => line.time.p99Ns, 6),
    time("max", single, (line) => line.time.maxNs, 3),
    time("wait", total, (line) => line.cost?.waitNs, 4),
    rate("GB/s", (cost) => cost.gigabytesPerSecond, 7),
    rate("GFLOP/s", (cost) => cost.gigaflopsPerSecond, 5),
  ];
}

/** Leaves out columns, the least worth first, until the table fits with at least 20 columns of the name. */
function fit(columns: Column[], all: readonly Line[], width: number): Column[] {
  const kept = [...columns];
  const size = (column: Column, index: number): number => {
    const widest = Math.max(...[column.title, ...all.map(column.cell)].map(columnsOf));
    return index === 0 ? Math.min(widest, 20) : widest + GAP.length;
  };
  while (kept.reduce((sum, column, index) => sum + size(column, index), 0) > width) {
    const least = kept.reduce((worst, column) => ((column.worth ?? 99) < (worst.worth ?? 99) ? column : worst));
    if (least.worth === undefined) break;
    kept.splice(kept.indexOf(least), 1);
  }
  return kept;
}

function threadLines(profile: Profile): string[] {
  return profile.threads.map((row) => {
    const shares = `${percent(row.busyShare)} working, ${percent(row.waitingShare)} waiting, ${percent(row.idleShare)} idle or not recorded`;
    return `thread ${row.thread}: ${shares}`;
  });
}

/** What was lost or left out, a sentence each; none when nothing was. */
export function remarks(profile: Profile): string[] {
  const found: string[] = [];
  if (profile.lostEvents > 0) {
    found.push(
      `${count(profile.lostEvents, "event")} lost: the rings were full; their time is unattributed or left out.`,
    );
  }
  if (profile.incompleteSteps > 0) {
    found.push(`${count(profile.incompleteSteps, "step")} left out: recorded only in part.`);
  }
  if (profile.lateEvents > 0) {
    found.push(`${count(profile.lateEvents, "event")} came after the step was closed: in no row.`);
  }
  if (profile.malformedEvents > 0) {
    found.push(`${count(profile.malformedEvents, "event")} malformed: in no row.`);
  }
  if (profile.clippedNs > 0) {
    found.push(`${duration(profile.clippedNs)} of events overlapped or lay outside their step: cut off.`);
  }
  return found;
}

function unitFor(largestNs: number, microsecondsBelowNs: number, millisecondsBelowNs: number): Unit {
  if (largestNs < microsecondsBelowNs) return MICROSECONDS;
  return largestNs < millisecondsBelowNs ? MILLISECONDS : SECONDS;
}
