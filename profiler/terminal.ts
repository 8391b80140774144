// A report for a terminal: what ran, what stands out, where the time went as flame bars, and a line or two on each of the
// other parts. Short by default; table.ts has the tables, text.ts the long form. It returns the text and writes nowhere.

import { impactLines } from "./impact.ts";
import { groupParts, type PhaseParts, phaseParts, roleOf } from "./parts.ts";
import type { Report } from "./report.ts";
import { boundName, evidenceOf, fromMemory, knobOf, noSteps, regionName, runLine, sectionsOf } from "./sections.ts";
import { formatProfile, remarks, type TableOptions } from "./table.ts";
import {
  bar,
  bytes,
  columnsOf,
  count,
  cut,
  duration,
  emphasise,
  grouped,
  lines,
  pad,
  percent,
  plain,
  wrap,
} from "./words.ts";

/** Options of `formatReport`. */
export interface ReportOptions extends TableOptions {
  /** Tables to show below the bars, in this order; by default none. */
  readonly by?: readonly ("kind" | "layer" | "op")[];
}

const WIDTH_MIN = 40;
const WIDTH_WITHOUT_TERMINAL = 120;
/** A bar longer than this says no more. */
const WIDTH_MAX = 120;
/** Groups below this share of a phase are summed up: a bar of 40 columns would not show them. */
const SHARE_MIN = 0.01;
/** Members of a group are shown when the group is at least this much of the phase. */
const OPENED_MIN = 0.1;
const MEMBERS_MAX = 4;
const LABEL_MAX = 28;
/** Cyan for a phase's kinds; their members are dim. */
const KIND_COLOR = "36";

/** The report as text, each line ending in a newline and none wider than the terminal (at least 40 columns). */
export function formatReport(report: Report, options: ReportOptions = {}): string {
  const width = Math.max(WIDTH_MIN, options.width ?? process.stdout.columns ?? WIDTH_WITHOUT_TERMINAL);
  const { NO_COLOR } = process.env;
  const color = options.color ?? (process.stdout.isTTY === true && !NO_COLOR);
  const text = [...wrap(runLine(report), width)];
  text.push("", emphasise("Findings", "1", color), ...findingLines(report, width));
  text.push("", emphasise("Time", "1", color), ...flameLines(report, width, color));
  if (options.by && options.by.length > 0) {
    text.push("", formatProfile(report, { ...options, width, color }).trimEnd());
  } else {
    text.push(...remarks(report).flatMap((remark) => wrap(remark, width)));
  }
  for (const [title, sentences] of shortSections(report)) {
    text.push("", emphasise(title, "1", color), ...sentences.flatMap((sentence) => wrap(sentence, width)));
  }
  return lines(text);
}

function findingLines(report: Report, width: number): string[] {
  if (report.findings.length === 0) return wrap("Nothing stood out.", width);
  return report.findings.flatMap((finding) => {
    const knob = knobOf(finding);
    const evidence = evidenceOf(finding);
    const mark = { warning: "!", advice: "›", note: "·" }[finding.severity];
    const indented = (text: string): string[] => wrap(text, width - 2).map((line) => `  ${line}`);
    const [first = "", ...others] = wrap(plain(finding.text), width - 2);
    return [
      `${mark} ${first}`,
      ...others.map((line) => `  ${line}`),
      ...(evidence === "" ? [] : indented(evidence)),
      ...(knob === "" ? [] : indented(`to turn: ${knob}`)),
    ];
  });
}

interface FlameLine {
  readonly label: string;
  readonly ns: number;
  /** Of its phase. */
  readonly share: number;
  readonly depth: 1 | 2;
}

/** Flame bars: for each phase its kinds of op and, inside the large ones, layers and ops, by their share of the phase. */
export function flameLines(report: Report, width: number, color: boolean): string[] {
  const phases = phaseParts(report);
  if (phases.length === 0) return wrap(noSteps(report) ?? "", width);
  const flames = phases.map((phase) => ({ phase, flame: flameOf(phase) }));
  // All phases share their columns, so that bars can be compared.
  const all = flames.flatMap(({ flame }) => flame);
  const bounded = Math.min(width, WIDTH_MAX);
  const widestLabel = Math.max(0, ...all.map((line) => columnsOf(line.label) + 2 * line.depth));
  const labelSize = Math.min(LABEL_MAX, Math.floor(bounded * 0.4), widestLabel);
  const figure = (line: FlameLine): string =>
    `${percent(line.share).padStart(7)}  ${pad(duration(Math.round(line.ns)), 8)}`;
  const figureSize = Math.max(0, ...all.map((line) => columnsOf(figure(line))));
  const barSize = bounded - labelSize - figureSize - 2;
  const drawn = (line: FlameLine): string => {
    const blocks = bar(line.share, barSize);
    const painted = emphasise(blocks, line.depth === 1 ? KIND_COLOR : "2", color);
    const space = " ".repeat(Math.max(0, barSize - columnsOf(blocks)));
    return `${cut("  ".repeat(line.depth) + line.label, labelSize)} ${painted}${space} ${pad(figure(line), figureSize)}`;
  };
  const text: string[] = [];
  for (const { phase, flame } of flames) {
    if (text.length > 0) text.push("");
    const title = `${phase.phase}: ${count(phase.steps, "step")}, ${count(phase.rows, "row")}, ${duration(Math.round(phase.totalNs))}`;
    text.push(...wrap(title, width), ...flame.map(drawn));
  }
  const estimated = phases.some((phase) => phase.estimated);
  if (estimated)
    text.push(...wrap("The profile sums ops over both phases; they are divided by their times in each.", width));
  return text;
}

function flameOf(phase: PhaseParts): FlameLine[] {
  const shareOf = (ns: number): number => (phase.totalNs === 0 ? 0 : ns / phase.totalNs);
  const flame: FlameLine[] = [];
  const push = (label: string, ns: number, depth: 1 | 2): void => {
    flame.push({ label: plain(label), ns, share: shareOf(ns), depth });
  };
  let small = 0;
  const top = [
    ...groupParts(phase.ops, (op) => op.kind),
    ...phase.rest.map(({ name, ns }) => ({ name, ns, ops: [] })),
  ].sort((a, b) => b.ns - a.ns);
  for (const group of top) {
    if (shareOf(group.ns) < SHARE_MIN) {
      small += group.ns;
      continue;
    }
    push(group.name, group.ns, 1);
    const members = groupParts(group.ops, memberName);
    if (shareOf(group.ns) < OPENED_MIN || members.length < 2) continue;
    for (const member of members.slice(0, MEMBERS_MAX)) push(member.name, member.ns, 2);
    const others = members.slice(MEMBERS_MAX).reduce((sum, member) => sum + member.ns, 0);
    if (others > 0) push(count(members.length - MEMBERS_MAX, "other"), others, 2);
  }
  if (small > 0) push("other", small, 1);
  return flame;
}

/** Ops that every layer has stand together under their name in a layer; others under their own. */
function memberName(op: { readonly name: string; readonly layer: number }): string {
  return op.layer < 0 ? op.name : `${roleOf(op)}, all layers`;
}

function shortSections(report: Report): [string, string[]][] {
  const { impact } = report;
  const sections = new Map(sectionsOf(report).map((section) => [section.id, section]));
  const short = (id: string, ofPart: () => readonly string[]): [string, string[]] => {
    const section = sections.get(id);
    const { title = "", missing = null } = section ?? {};
    return [title, missing === null ? [...(section?.words.slice(0, 1) ?? []), ...ofPart()] : [missing]];
  };
  return [
    short("latency", () =>
      (["firstTokens", "betweenTokens"] as const)
        .filter((key) => report[key].count > 0)
        .map((key) => {
          const { p50Ns, p99Ns, maxNs } = report[key];
          const name = key === "firstTokens" ? "First token" : "Between tokens";
          return `${name}: p50 ${duration(p50Ns)}, p99 ${duration(p99Ns)}, max ${duration(maxNs)}.`;
        }),
    ),
    short("memory", () => {
      const all = report.memory?.bytesRead ?? 0;
      const regions = (report.memory?.byRegion ?? []).filter((row) => row.bytesRead > 0.001 * all);
      const parts = regions.map((row) => `${regionName(row.region)} ${percent(row.bytesRead / all)}`);
      return parts.length > 0 ? [`Read from: ${parts.join(", ")}.`] : [];
    }),
    short("cache", () => {
      const { cache } = report;
      if (cache === null) return [];
      const rates = cache.levels.map((level) => `${level.name} ${percent(level.hitRate)}`);
      return [`Hits: ${rates.join(", ")}; ${fromMemory(cache)}.`];
    }),
    short("roofline", () =>
      [...(report.roofline?.byKind ?? [])]
        .sort((a, b) => b.wallNs - a.wallNs)
        .slice(0, 3)
        .map(
          (row) =>
            `${plain(row.name)}: ${grouped(row.achieved, 1)} of ${grouped(row.roof, 1)} ${row.unit} (${percent(row.share)}), held by ${boundName(row.bound)}.`,
        ),
    ),
    ...(impact ? [short("impact", () => impactLines(impact))] : []),
    short("javascript", () => []),
    short("system", () => {
      const { system } = report;
      if (system === null) return [];
      return [
        `Resident memory ${bytes(system.peakResidentBytes)} at its peak; ${count(system.majorFaults, "major page fault")}, ${count(system.allocations.count, "native allocation")}, ${count(system.involuntarySwitches, "involuntary switch").replace(/switchs$/, "switches")}.`,
      ];
    }),
  ];
}
