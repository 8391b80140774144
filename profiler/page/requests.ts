// What requests are made of, a bar each.

import type { Report, RequestRow } from "../report.ts";
import { duration } from "../words.ts";
import { unitOf } from "./axes.ts";
import { bars } from "./chart.ts";
import type { Block } from "./model.ts";

const requestParts = [
  ["tokenizing", "tokenizingNs"],
  ["queue", "queueNs"],
  ["steps", "stepsNs"],
  ["between steps", "betweenNs"],
  ["delivery", "deliveryNs"],
  ["JavaScript", "javascriptNs"],
  ["unattributed", "unattributedNs"],
] as const;
const partColors = [3, 1, 0, 4, 5, 2].map((place) => `var(--c${place})`);

export function requestBlocks(report: Report): Block[] {
  const { requests } = report;
  if (requests.length === 0) return [];
  const unit = unitOf(Math.max(...requests.map(({ wallNs }) => wallNs)));
  const tip = (row: RequestRow) => ({
    title: `request ${row.id}`,
    lines: [
      ...requestParts.map(([name, key]) => [name, duration(row[key])] as const),
      ["in all", duration(row.wallNs)] as const,
      ["first token", row.firstTokenNs === null ? "–" : duration(row.firstTokenNs)] as const,
      ["prompt, reused, new", `${row.promptTokens}, ${row.reusedTokens}, ${row.generatedTokens} tokens`] as const,
    ],
  });
  const series = requestParts.map(([name, key], place) => ({
    name,
    color: partColors[place] ?? "var(--rest)",
    values: requests.map((row) => ({ value: row[key] / unit.ns, tip: tip(row) })),
  }));
  const note = "From the call to its end. Other requests share a request's steps.";
  const names = requests.map(({ id }) => `request ${id}`);
  return [bars("request-parts", "What requests took", names, series, { name: unit.name }, { note, stacked: true })];
}
