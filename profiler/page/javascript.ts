// What JavaScript's thread did for the model.

import type { Report } from "../report.ts";
import { javascriptName } from "../sections.ts";
import { duration, grouped, percent } from "../words.ts";
import { unitOf } from "./axes.ts";
import { bars } from "./chart.ts";
import type { Block } from "./model.ts";

export function javascriptBlocks({ javascript }: Report): Block[] {
  const rows = javascript?.rows.filter(({ count }) => count > 0) ?? [];
  if (javascript === null || rows.length === 0) return [];
  const unit = unitOf(Math.max(...rows.map(({ totalNs }) => totalNs)));
  const series = {
    name: "time",
    color: "var(--c0)",
    values: rows.map((row) => ({
      value: row.totalNs / unit.ns,
      label: duration(row.totalNs),
      tip: {
        title: javascriptName(row.name),
        lines: [
          ["total", duration(row.totalNs)],
          ["of the wall", javascript.wallNs === 0 ? "–" : percent(row.totalNs / javascript.wallNs)],
          ["count", grouped(row.count, 0)],
          ["p50", duration(row.p50Ns)],
          ["p99", duration(row.p99Ns)],
          ["max", duration(row.maxNs)],
        ] as const,
      },
    })),
  };
  const names = rows.map(({ name }) => javascriptName(name));
  const note = "Beside the engine's threads, for the most part: it delays a request only where it is waited for.";
  return [
    bars(
      "javascript-rows",
      "What JavaScript's thread did for the model",
      names,
      [series],
      { name: unit.name },
      { note },
    ),
  ];
}
