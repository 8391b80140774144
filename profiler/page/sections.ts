// The sections of the page: the words and tables of sections.ts, with the charts that belong to them, and for what was not
// recorded how to record it.

import type { Report, TraceData } from "../report.ts";
import {
  evidenceOf,
  generatedTokens,
  knobOf,
  runLine,
  type Section,
  type SectionTable,
  sectionsOf,
} from "../sections.ts";
import { amount, bytes, count, duration, grouped, percent, plain } from "../words.ts";
import { cacheBlocks } from "./caches.ts";
import { javascriptBlocks } from "./javascript.ts";
import { latencyBlocks } from "./latency.ts";
import { memoryBlocks } from "./memory.ts";
import type { Block, Fact, FindingText, Page, PageSection, TableBlock } from "./model.ts";
import { requestBlocks } from "./requests.ts";
import { rooflineBlocks } from "./roofline.ts";
import { systemBlocks } from "./system.ts";
import { timeBlocks } from "./time.ts";

/** Everything that the page shows. The trace, where there is one, tells the phases' ops apart. */
export function pageOf(report: Report, trace?: TraceData): Page {
  const sections = new Map(sectionsOf(report).map((section) => [section.id, section]));
  const blocks: Readonly<Record<string, readonly Block[]>> = {
    time: timeBlocks(report, trace),
    latency: latencyBlocks(report),
    requests: requestBlocks(report),
    roofline: rooflineBlocks(report),
    memory: memoryBlocks(report),
    cache: cacheBlocks(report),
    impact: [],
    system: systemBlocks(report),
    javascript: javascriptBlocks(report),
    run: [],
  };
  const findings = report.findings.map(
    (finding): FindingText => ({
      severity: finding.severity,
      text: plain(finding.text),
      evidence: evidenceOf(finding),
      knob: knobOf(finding),
    }),
  );
  return {
    title: `${plain(report.run.model)} – TinyAI profile`,
    subtitle: `${runLine(report)}, ${plain(report.run.startedAt)}`,
    facts: factsOf(report),
    findingsTitle: "Findings",
    findings,
    noFindings: sections.get("findings")?.missing ?? "",
    sections: Object.entries(blocks).flatMap(([id, charts]) => {
      const section = sections.get(id);
      return section ? [pageSection(section, charts)] : [];
    }),
    footer: `Written by TinyAI ${plain(report.run.version)}. Charts are drawn by Apache ECharts, under the Apache License 2.0.`,
    fileName: `${plain(report.run.model).replaceAll(/[^\w.-]+/g, "_")}.report.json`,
  };
}

const steps = "generate or score something inside model.profile(), without { time: false }.";
const everyRun = "model.profile() and tinyai profile always do.";
/** How to record what a report may lack. */
const howTo: Readonly<Record<string, string>> = {
  time: `To record it: ${steps}`,
  latency: `To record it: ${steps}`,
  requests: `To record them: ${steps}`,
  roofline: "To record it: model.profile() without { roofline: false }, tinyai profile without --no-roofline.",
  memory: `To count them: ${steps}`,
  cache: "To follow them: model.profile() without { cache: false }, tinyai profile without --no-cache.",
  system: `To watch them: ${everyRun}`,
  javascript: "To watch it: model.profile() without { time: false }.",
};

/** Tables that are shown as they are, by section and title; the others are closed at first. */
const openTables: ReadonlySet<string> = new Set(["time Phases", "time Kinds of op", "cache Levels", "run ", "system "]);
/** What the table of ops has as well, with its figures to sort by. */
const replaced: ReadonlySet<string> = new Set(["time Ops", "time Threads"]);
/** A table of fewer columns has room beside something else. */
const WIDE_COLUMNS = 10;
/** Rows of a table that cannot be searched. */
const ROWS_MAX = 1000;

function pageSection(section: Section, charts: readonly Block[]): PageSection {
  const { id, title, words, missing } = section;
  const tables = section.tables
    .map((table, place) => ({ table, place, key: `${id} ${table.title}` }))
    .filter(({ key }) => !replaced.has(key))
    .map(({ table, place, key }) =>
      tableBlock(`${id}-table-${place}`, table, title, charts.length > 0 && !openTables.has(key)),
    );
  // An open table stands behind the chart that it sums up.
  const open = tables.filter(({ folded }) => !folded);
  const rows = Array.from({ length: Math.max(charts.length, open.length) }, (_, place) => [charts[place], open[place]]);
  return {
    id,
    title,
    words,
    missing: missing === null ? null : `Not recorded. ${missing} ${howTo[id] ?? ""}`.trim(),
    blocks: [...rows.flat().filter((block) => block !== undefined), ...tables.filter(({ folded }) => folded)],
  };
}

function tableBlock(id: string, table: SectionTable, section: string, folded: boolean): TableBlock {
  const { length } = table.rows;
  return {
    type: "table",
    half: !folded && table.columns.length < WIDE_COLUMNS && table.columns[0] !== "",
    id,
    title: table.title === "" && folded ? `${section}, as a table` : table.title,
    note:
      length > ROWS_MAX
        ? `The first ${grouped(ROWS_MAX, 0)} of ${grouped(length, 0)} rows; the report's JSON has all.`
        : "",
    columns: table.columns,
    textColumns: 1,
    rows: table.rows.slice(0, ROWS_MAX),
    interactive: null,
    folded,
  };
}

function factsOf(report: Report): Fact[] {
  const fact = (name: string, figure: string, note: string, unit = ""): Fact => ({ name, figure, unit, note });
  const unknown = (name: string) => fact(name, "–", "not recorded");
  const { steps, memory, cache, system, firstTokens } = report;
  const rates = (["prompt", "generation"] as const).map((phase) => {
    const row = report.phases.find((each) => each.phase === phase);
    if (row === undefined || row.count === 0) return fact(phase, "–", "no such step");
    const steps = `${count(row.rows, "row")} in ${count(row.count, "step")}`;
    const tokens = phase === "generation" ? `; ${count(generatedTokens(report), "token")} generated` : "";
    return fact(phase, grouped(row.rowsPerSecond, row.rowsPerSecond < 100 ? 1 : 0), `${steps}${tokens}`, "rows/s");
  });
  return [
    steps.count === 0
      ? fact("total time", "–", "no step ran")
      : fact("total time", duration(steps.totalNs), `of ${grouped(steps.count, 0)} steps`),
    ...rates,
    firstTokens.count === 0
      ? fact("first token", "–", "none was watched")
      : fact(
          "first token",
          duration(firstTokens.p50Ns),
          firstTokens.count === 1 ? "after the call" : "after the call, p50",
        ),
    report.memoryOps === null || memory === null
      ? unknown("memory operations")
      : fact(
          "memory operations",
          amount(report.memoryOps),
          `${bytes(memory.bytesRead)} read, ${bytes(memory.bytesWritten)} written`,
        ),
    cache === null
      ? unknown("cache hit rate")
      : fact("cache hit rate", percent(cache.hitRate), `${cache.levels[0]?.name ?? "first level"}, ${cache.source}`),
    system === null ? unknown("peak memory") : fact("peak memory", bytes(system.peakResidentBytes), "resident"),
  ];
}
