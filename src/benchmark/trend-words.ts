// How trends are said: figures, times, names that are cut, and the whole as plain text.

import { grouped, plainLines } from "../../profiler/words.ts";
import { formatTable } from "../text-table.ts";
import { noModel, type TrendChange, type TrendMark, type TrendSeries, type Trends } from "./trends.ts";

/** A figure to four digits: "15.2", "0.00042", "1,024", "123,456". */
export function figureText(value: number): string {
  const rounded = Number(value.toPrecision(4));
  if (rounded === 0 || Math.abs(rounded) < 1e-9) return `${rounded}`;
  const decimals = Math.min(12, Math.max(0, 3 - Math.floor(Math.log10(Math.abs(rounded)))));
  const text = grouped(rounded, decimals);
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

/** With its unit behind it. */
export function quantityText(value: number, unit: string): string {
  return unit === "" ? figureText(value) : `${figureText(value)} ${unit}`;
}

/** "2026-03-21 10:00", UTC. */
export function timeText(timestamp: string): string {
  return new Date(timestamp).toISOString().slice(0, 16).replace("T", " ");
}

export function dateText(timestamp: string): string {
  return timeText(timestamp).slice(0, 10);
}

/** The first and the last day. */
export function periodText({ files }: Trends): string {
  const [first, last] = [files[0]?.timestamp ?? "", files.at(-1)?.timestamp ?? ""].map(dateText);
  return first === last ? `${first}` : `${first} to ${last}`;
}

/** At most `size` letters, of which the middle ones are left out. */
export function shortened(text: string, size: number): string {
  const letters = [...text];
  if (letters.length <= size) return text;
  const kept = size - 1;
  return `${letters.slice(0, Math.ceil(kept / 2)).join("")}…${letters.slice(letters.length - Math.floor(kept / 2)).join("")}`;
}

export function betterText(better: "less" | "more"): string {
  return better === "less" ? "lower" : "higher";
}

/** "Mean latency of gemma3-270m", or of so many models. */
export function titleText({ metric, series }: Trends): string {
  const title = metric.title.charAt(0).toUpperCase() + metric.title.slice(1);
  const models = [...new Set(series.map(({ model }) => model))].filter((model) => model !== noModel);
  if (models.length === 0) return title;
  return `${title} of ${models.length === 1 ? models[0] : `${models.length} models`}`;
}

/** What kind of change it is, how large, and since when. */
export function changeText({ kind, sentence, file, timestamp }: TrendChange): string {
  return `${kind}: ${sentence} since ${file} (${timeText(timestamp)})`;
}

export function markText({ changes, file, timestamp }: TrendMark): string {
  return `${changes.join("; ")}, since ${file} (${timeText(timestamp)})`;
}

/** Why no change could be found in a series; undefined: it has files enough. */
export function tooFewText(trends: Trends): string | undefined {
  const most = Math.max(...trends.series.map(({ points }) => points.length));
  if (trends.files.length === 1) return "This is one file; a trend needs more.";
  if (most < pointsMin) return `A change of level can be found from ${pointsMin} files on that can be compared.`;
  return undefined;
}

/** As `changePoints` of statistics/change.ts needs. */
const pointsMin = 5;

/** All of it as plain text, fit for a terminal whatever the files say. */
export function trendsText(trends: Trends): string {
  const { metric, files, series, marks, warnings } = trends;
  const wayText = metric.better === null ? "" : `; ${betterText(metric.better)} is better`;
  const unit = metric.unit === "" ? "" : `, ${metric.unit}`;
  const count = `${files.length} file${files.length === 1 ? "" : "s"}`;
  const head = `${titleText(trends)}${unit}: ${count}, ${periodText(trends)}${wayText}\n`;
  const rows = series.map((each) => rowOf(each));
  const table = formatTable([["series", "files", "first", "newest", "least", "most"], ...rows], 1);
  const few = tooFewText(trends);
  const parts = [
    head,
    table,
    few === undefined ? changesText(trends) : `${few}\n`,
    marks.length === 0 ? "" : `what else changed:\n${marks.map((mark) => `  ${markText(mark)}\n`).join("")}`,
    warnings.length === 0 ? "" : `warnings:\n${warnings.map((warning) => `  ${warning}\n`).join("")}`,
  ];
  return plainLines(parts.filter((part) => part !== "").join("\n"));
}

function rowOf({ name, points }: TrendSeries): string[] {
  const values = points.map(({ value }) => value);
  const figures = [values[0], values.at(-1), Math.min(...values), Math.max(...values)];
  return [name, `${points.length}`, ...figures.map((value) => figureText(value ?? 0))];
}

function changesText({ series, metric }: Trends): string {
  const lines = series.flatMap(({ name, changes, last_good }) => [
    ...changes.map((change) => {
      const { before, after, p_value, together_with } = change;
      const levels = `${figureText(before)} to ${quantityText(after, metric.unit)}, p ${pText(p_value)}`;
      const together = together_with.length === 0 ? "" : `; there also changed ${together_with.join("; ")}`;
      return `  ${series.length > 1 ? `${name}: ` : ""}${changeText(change)}; ${levels}${together}\n`;
    }),
    ...(last_good === null ? [] : [`  ${series.length > 1 ? `${name}: ` : ""}last known good: ${last_good}\n`]),
  ]);
  return lines.length === 0 ? "No change of level could be shown.\n" : `changes of level:\n${lines.join("")}`;
}

export function pText(value: number): string {
  return value < 0.0001 ? "< 0.0001" : `${Number(value.toPrecision(2))}`;
}
