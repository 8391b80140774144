// The Markdown of a results file, as docs/comparison.md shows it. It measures nothing.

import { showRatio } from "../../src/benchmark/ratio.ts";
import { amount, type Bar, barsOf, barsOfAll, demand, isReached, verdictOf } from "./bars.ts";
import type { Result, Results } from "./results.ts";

const columns = [
  ["prompt of 512", "prompt_512"],
  ["generation", "depth_0"],
  ["at depth 4,096", "depth_4096"],
  ["16 sequences", "batch_16"],
] as const;

/** What was measured, on which CPU, with which versions, and how to measure it again. */
export function tableOf(results: Results): string {
  const versions = Object.entries(results.versions).map((pair) => pair.join(" "));
  const commits = [...new Set(results.models.map(({ commit }) => commit))];
  const dates = [...new Set(results.models.map(({ measured_at }) => measured_at.slice(0, 10)))].sort();
  const lines = [
    `Measured on ${dates.join(", ")} on ${results.cpu} (${results.settings["threads"]} threads), commit ${commits.join(", ")}; ${versions.join(", ")}.`,
    `Again: \`bun run bench:peers${results.settings["quick"] === true ? " --quick" : ""}\`.`,
    "",
    "TinyAI's median tokens/s, and its ratio to llama.cpp's with the 95 % interval:",
    "",
    `| model | ${columns.map(([title]) => title).join(" | ")} | of the bandwidth | ÷ node-llama-cpp |`,
    `|${" --- |".repeat(columns.length + 3)}`,
    ...results.models.map((result) => `| ${cellsOf(result).join(" | ")} |`),
    "",
    "| to reach | | |",
    "| --- | --- | --- |",
    ...barsOfAll(results.models).map((bar) => barRow(bar, [`${amount(bar, bar.value)}: ${verdictOf(bar)}`])),
    ...barRows(results.models),
  ];
  const missing = results.failures.map(({ model, problem }) => `\n${model} could not be measured: ${problem}`);
  return [...lines, ...missing].join("\n");
}

function barRow(bar: Bar, cells: readonly string[]): string {
  return `| ${[bar.what, demand(bar), ...cells].join(" | ")} |`;
}

/** A row for each bar that models are held to one by one: how many reach it, and which do not. */
function barRows(results: readonly Result[]): string[] {
  const held = new Map<string, { readonly model: string; readonly bar: Bar }[]>();
  for (const result of results) {
    for (const bar of barsOf(result)) held.set(bar.what, [...(held.get(bar.what) ?? []), { model: result.model, bar }]);
  }
  return [...held.values()].map((all) => {
    const missing = all.filter(({ bar }) => !isReached(bar));
    const missed = missing.map(({ model, bar }) => `${model} ${amount(bar, bar.value)} (${verdictOf(bar)})`);
    const count = `${all.length - missing.length} of ${all.length} models`;
    const [{ bar }] = all as [(typeof all)[number]];
    const values = all.map(({ bar: { value } }) => amount(bar, value));
    return barRow(bar, [all.length === 1 ? `${values[0]}: ${verdictOf(bar)}` : [count, ...missed].join("; ")]);
  });
}

function cellsOf(result: Result): string[] {
  const cells = columns.map(([, key]) => {
    const row = result.rows.find((found) => found.key === key && found.peerName === "llama.cpp");
    return row === undefined ? "" : `${row.tinyai.median.toFixed(1)}, ${showRatio(row.ratio)}`;
  });
  const shares = Object.values(result.reached_of_bandwidth).map(({ median }) => `${(median * 100).toFixed(0)} %`);
  const node = result.rows.find((row) => row.key === "depth_0" && row.peerName === "node-llama-cpp");
  return [result.model, ...cells, shares.join(", "), node === undefined ? "" : showRatio(node.ratio)];
}
