// An analysis as text for people: what was measured, its figures in tables, what was found, and what follows.

import { percent, plainLines, wrap } from "../../profiler/words.ts";
import { formatTable } from "../text-table.ts";
import type { Analysis, AnalyzedFigure } from "./analysis.ts";
import { digits } from "./figures.ts";
import { levelText } from "./page/words.ts";
import type { BenchmarkResults, Interval } from "./results.ts";

const lineWidth = 110;

/** The text that `summary` gives. It ends with an end of line, and is fit for a terminal whatever the file says. */
export function formatAnalysis(analysis: Omit<Analysis, "summary">, { results }: BenchmarkResults): string {
  const { info, figures, scaling, findings, conclusions, limits } = analysis;
  const sections: string[] = [head(info)];
  sections.push(figures.length > 0 ? figureTable(figures) : "There are no figures in it.\n");
  if (scaling.length > 0) {
    const rows = scaling.map(({ batchSize, latency, throughput, speedup, efficiency }) => [
      `${batchSize}`,
      digits(latency),
      digits(throughput),
      `${speedup.toFixed(2)} times`,
      `${(100 * efficiency).toFixed(0)} %`,
    ]);
    sections.push(
      formatTable([["batch size", "latency, ms", "throughput, /s", "the first's", "of ideal"], ...rows], 1),
    );
  }
  sections.push(...memoryParts(results), ...systemParts(results));
  const marked = findings.map(({ severity, text }) => `${severity === "warning" ? "!" : "-"} ${text}`);
  sections.push(section("Findings (! figures may mislead)", marked.length > 0 ? marked : ["- nothing is amiss"]));
  if (conclusions.length > 0)
    sections.push(
      section(
        findings.some(({ severity }) => severity === "warning")
          ? "What follows, of the machine as it was then (mind the findings marked !)"
          : "What follows",
        conclusions.map((text) => `- ${text}`),
      ),
    );
  sections.push(
    section(
      "What does not follow",
      limits.map((text) => `- ${text}`),
    ),
  );
  return plainLines(sections.join("\n"));
}

/** Lines behind a mark each, of which what goes on in another line is set in. */
function section(title: string, lines: readonly string[]): string {
  const wrapped = lines.flatMap((line) =>
    wrap(line, lineWidth).map((part, index) => (index === 0 ? part : `  ${part}`)),
  );
  return `${title}\n${wrapped.map((line) => `  ${line}\n`).join("")}`;
}

function head({ model, type, timestamp, system_info, settings, model_details, methodology }: Analysis["info"]): string {
  const { cpu, memory, os } = system_info;
  const lines = [`${type === "system" ? "this machine" : model}: ${type}, ${timestamp}`, `${cpu}, ${memory}, ${os}`];
  if (model_details) {
    const { architecture, parameters, layers, simd, threads } = model_details;
    const counted = `${digits(parameters / 1e6)} million parameters in ${layers} layers`;
    lines.push(`${architecture}, ${counted}; ${threads} ${threads === 1 ? "thread" : "threads"}, ${simd}`);
  }
  if (settings && type !== "system") {
    const generated = settings.generated_tokens > 0 ? `, ${settings.generated_tokens} generated` : "";
    lines.push(`prompts of ${settings.prompt_tokens} tokens${generated}`);
  }
  return `${[...lines, ...(methodology ?? []).flatMap((text) => wrap(text, lineWidth))].join("\n")}\n`;
}

function figureTable(figures: readonly AnalyzedFigure[]): string {
  const number = (value: number | null | undefined) => (value === null || value === undefined ? "" : digits(value));
  const rows = figures.map(({ name, unit, batchSize, mean, interval, spread, percentiles, min, max, samples }) => [
    unit === "" ? name : `${name}, ${unit}`,
    batchSize === undefined ? "" : `${batchSize}`,
    samples ? `${samples.count}` : "",
    digits(mean),
    interval ? `${digits(interval.low)} to ${digits(interval.high)}` : "",
    spread === null ? "" : percent(spread),
    number(min),
    number(percentiles?.["50"]),
    number(percentiles?.["95"]),
    number(percentiles?.["99"]),
    number(max),
  ]);
  const range = intervalTitle(figures.map(({ interval }) => interval));
  const titles = ["", "batch", "samples", "mean", range, "spread", "least", "p50", "p95", "p99", "most"];
  return formatTable(withoutEmpty([titles, ...rows]), 1);
}

/** "95 % interval"; without the level where a file has several. */
function intervalTitle(intervals: readonly (Interval | null | undefined)[]): string {
  const levels = new Set(intervals.flatMap((interval) => (interval ? [levelText(interval.level)] : [])));
  return levels.size === 1 ? `${[...levels].join()} interval` : "interval";
}

/** Without the columns that no row but the first has anything in. */
function withoutEmpty(rows: readonly (readonly string[])[]): string[][] {
  const [titles = [], ...others] = rows;
  const kept = titles.map((_, column) => column === 0 || others.some((row) => row[column] !== ""));
  return rows.map((row) => row.filter((_, column) => kept[column]));
}

function memoryParts({ memory }: BenchmarkResults["results"]): string[] {
  const sections: string[] = [];
  const number = (value: number | undefined) => (value === undefined ? "" : digits(value));
  if (memory?.parts && memory.parts.length > 0) {
    const rows = memory.parts.map(({ name, estimated_min, estimated_max, taken, resident }) => [
      name,
      estimated_max === undefined ? "" : `${number(estimated_min)} to ${number(estimated_max)}`,
      number(taken),
      number(resident),
    ]);
    sections.push(formatTable([["memory by use, MB", "estimated", "set aside", "resident"], ...rows], 1));
  }
  if (memory?.cache?.levels && memory.cache.levels.length > 0) {
    const rows = memory.cache.levels.map(({ name, accesses, hits, hit_rate }) => [
      name,
      digits(accesses),
      digits(hits),
      percent(hit_rate),
    ]);
    const title = memory.cache.source ? `caches, by ${memory.cache.source}` : "caches";
    sections.push(formatTable([[title, "accesses", "hits", "hit rate"], ...rows], 1));
  }
  return sections;
}

function systemParts({ system }: BenchmarkResults["results"]): string[] {
  const { curve, amdahl } = system?.threads ?? {};
  if (!curve || curve.length === 0) return [];
  const rows = curve.map(({ threads, speedup, speedup_interval, efficiency }) => [
    `${threads}`,
    `${speedup.toFixed(2)} times`,
    speedup_interval ? `${speedup_interval.low.toFixed(2)} to ${speedup_interval.high.toFixed(2)}` : "",
    `${(100 * efficiency).toFixed(0)} %`,
  ]);
  const range = intervalTitle(curve.map(({ speedup_interval }) => speedup_interval));
  const table = formatTable([["threads", "speed-up", range, "efficiency"], ...rows], 1);
  // Through two points any law goes.
  if (!amdahl || curve.length < 3) return [table];
  const most = amdahl.speedup_max === null ? "no bound" : `at most ${amdahl.speedup_max.toFixed(1)} times`;
  return [`${table}Amdahl's law: ${percent(amdahl.serial)} is serial, which leaves ${most}\n`];
}
