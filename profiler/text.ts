// The long plain-text form of a report, `performance_report.txt`: every section with all its tables, 100 columns wide, for a
// mail or a file beside a build. The terminal's short form is terminal.ts's.

import type { Report } from "./report.ts";
import { type Section, type SectionTable, sectionsOf } from "./sections.ts";
import { flameLines } from "./terminal.ts";
import { columnsOf, cut, lines, pad, wrap } from "./words.ts";

const WIDTH = 100;
const GAP = "  ";
/** A name keeps at least so many columns when a table is too wide. */
const NAME_MIN = 16;

/** The report as plain text, each line ending in a newline and none wider than 100 columns. */
export function reportText(report: Report): string {
  const text = ["TinyAI performance report", "═".repeat(25)];
  for (const section of sectionsOf(report)) {
    const flames = section.id === "time" && section.missing === null ? ["", ...flameLines(report, WIDTH, false)] : [];
    text.push("", ...sectionLines(section, flames));
  }
  return lines(text);
}

/**
 * A section as lines, none wider than 100 columns.
 * @param drawn lines that stand before its tables.
 */
export function sectionLines(section: Section, drawn: readonly string[] = []): string[] {
  const text = [section.title, "─".repeat(columnsOf(section.title))];
  if (section.missing !== null) text.push(...wrap(section.missing, WIDTH));
  for (const sentence of section.words) {
    // Findings are a list; each goes on under its own beginning.
    const item = section.id === "findings";
    const wrapped = wrap(sentence, item ? WIDTH - 2 : WIDTH);
    text.push(...(item ? wrapped.map((line, index) => (index === 0 ? `• ${line}` : `  ${line}`)) : wrapped));
  }
  text.push(...drawn);
  for (const table of section.tables) text.push("", ...tableLines(table));
  return text;
}

/** A table in the width there is: what does not fit beside the name goes on in a table of its own, under the name again. */
function tableLines(table: SectionTable): string[] {
  const sizes = table.columns.map((title, column) =>
    Math.max(...[title, ...table.rows.map((row) => row[column] ?? "")].map(columnsOf)),
  );
  const [name = 0, ...others] = sizes;
  const text = table.title === "" ? [] : [`${table.title}:`];
  const lone = table.columns.length === 2 && table.columns.every((title) => title === "");
  if (lone) {
    // Names with a value each: the value stands on the left and may go on in further lines.
    for (const [key = "", value = ""] of table.rows) {
      const wrapped = wrap(value, WIDTH - name - GAP.length);
      text.push(...wrapped.map((line, index) => (cut(index === 0 ? key : "", name) + GAP + line).trimEnd()));
    }
    return text;
  }
  const nameSize = Math.min(name, Math.max(NAME_MIN, WIDTH - others.reduce((sum, size) => sum + size + GAP.length, 0)));
  const groups: number[][] = [[]];
  let used = nameSize;
  for (const [index, size] of others.entries()) {
    if (used + GAP.length + size > WIDTH && groups.at(-1)?.length !== 0) {
      groups.push([]);
      used = nameSize;
    }
    groups.at(-1)?.push(index + 1);
    used += GAP.length + size;
  }
  for (const [position, group] of groups.entries()) {
    if (position > 0) text.push("");
    const layOut = (row: readonly string[]): string =>
      [cut(row[0] ?? "", nameSize), ...group.map((column) => pad(row[column] ?? "", sizes[column] ?? 0))]
        .join(GAP)
        .trimEnd();
    text.push(layOut(table.columns), ...table.rows.map(layOut));
  }
  return text;
}
