// Hit rates of the caches, and what missed the last one.

import { roleOf } from "../parts.ts";
import type { Report } from "../report.ts";
import { amount, bytes, grouped, percent, plain } from "../words.ts";
import { scaleOf } from "./axes.ts";
import { bars } from "./chart.ts";
import type { Block } from "./model.ts";

/** Roles that are shown in the chart of misses; the table of ops has all. */
const ROLES_SHOWN = 20;

export function cacheBlocks(report: Report): Block[] {
  const { cache } = report;
  if (cache === null || cache.levels.length === 0) return [];
  const source = cache.source === "simulator" ? "From a simulator" : "From hardware counters";
  const rates = bars(
    "hit-rates",
    "Hit rates",
    cache.levels.map(({ name }) => name),
    [
      {
        name: "hit rate",
        color: "var(--c0)",
        values: cache.levels.map((row) => ({
          value: row.hitRate * 100,
          label: percent(row.hitRate),
          tip: {
            title: row.name,
            lines: [
              ["accesses", amount(row.accesses)],
              ["hits", amount(row.hits)],
              ["misses", amount(row.misses)],
              ["hit rate", percent(row.hitRate)],
            ],
          },
        })),
      },
    ],
    { name: "%", max: 100 },
    { half: true, note: `${source}. A level's accesses are what the level before did not have.` },
  );
  const ops = new Map(report.byOp.map((op) => [op.index, op]));
  const roles = new Map<string, { misses: number[]; memoryBytes: number; ops: number }>();
  for (const row of cache.byOp) {
    const op = ops.get(row.index);
    if (op === undefined) continue;
    const role = op.layer < 0 ? op.name : `${roleOf(op)}, all layers`;
    const sum = roles.get(role) ?? { misses: [], memoryBytes: 0, ops: 0 };
    for (const [level, { misses }] of row.levels.entries()) sum.misses[level] = (sum.misses[level] ?? 0) + misses;
    sum.memoryBytes += row.memoryBytes;
    sum.ops++;
    roles.set(role, sum);
  }
  const last = cache.levels.length - 1;
  const largest = [...roles]
    .sort(([, a], [, b]) => (b.misses[last] ?? 0) - (a.misses[last] ?? 0))
    .slice(0, ROLES_SHOWN)
    .filter(([, { misses }]) => (misses[last] ?? 0) > 0);
  if (largest.length === 0) return [rates];
  const lastName = cache.levels[last]?.name ?? "";
  const unit = scaleOf(largest[0]?.[1].misses[last] ?? 0, [
    "lines",
    "thousand lines",
    "million lines",
    "billion lines",
  ]);
  const brought = cache.prefetcher ? "What a prefetcher brought from memory in time is no miss." : "";
  const misses = bars(
    "misses",
    `${lastName} misses by op`,
    largest.map(([role]) => plain(role)),
    [
      {
        name: "misses",
        color: "var(--c1)",
        values: largest.map(([role, sum]) => ({
          value: (sum.misses[last] ?? 0) / unit.size,
          label: amount(sum.misses[last] ?? 0),
          tip: {
            title: plain(role),
            lines: [
              ...cache.levels.map(({ name }, level) => [`${name} misses`, amount(sum.misses[level] ?? 0)] as const),
              ["from memory", bytes(sum.memoryBytes)],
              ["ops", grouped(sum.ops, 0)],
            ],
          },
        })),
      },
    ],
    unit,
    { note: [largest.length < roles.size ? "The largest; the table of ops has all." : "", brought].join(" ").trim() },
  );
  return [rates, misses];
}
