// Bytes that the kernels moved, by what memory is for.

import type { Report } from "../report.ts";
import { regionName } from "../sections.ts";
import { amount, bytes } from "../words.ts";
import { scaleOf } from "./axes.ts";
import { bars } from "./chart.ts";
import type { Block, Tip } from "./model.ts";

export function memoryBlocks({ memory }: Report): Block[] {
  if (memory === null) return [];
  const regions = memory.byRegion.filter((row) => row.bytesRead + row.bytesWritten > 0);
  if (regions.length === 0) return [];
  const tip = (row: (typeof regions)[number]): Tip => ({
    title: regionName(row.region),
    lines: [
      ["read", bytes(row.bytesRead)],
      ["loads", amount(row.loads)],
      ["written", bytes(row.bytesWritten)],
      ["stores", amount(row.stores)],
    ],
  });
  const unit = scaleOf(Math.max(...regions.flatMap((row) => [row.bytesRead, row.bytesWritten])), [
    "B",
    "KB",
    "MB",
    "GB",
  ]);
  const side = (name: string, key: "bytesRead" | "bytesWritten", color: string) => ({
    name,
    color,
    values: regions.map((row) => ({
      value: row[key] / unit.size,
      label: row[key] === 0 ? "" : bytes(row[key]),
      tip: tip(row),
    })),
  });
  const names = regions.map(({ region }) => regionName(region));
  const series = [side("read", "bytesRead", "var(--c0)"), side("written", "bytesWritten", "var(--c1)")];
  const note = "What the kernels loaded and stored, caches or not, by what the memory is for.";
  return [bars("regions", "Bytes by region", names, series, unit, { note })];
}
