import { expect, test } from "bun:test";
import { barsOf, barsOfAll, showBar, verdictOf } from "../../bench/peers/bars.ts";
import {
  type Conditions,
  continueFrom,
  noResults,
  parseResults,
  type Result,
  type Row,
  stillToMeasure,
  withModel,
} from "../../bench/peers/results.ts";
import { tableOf } from "../../bench/peers/table.ts";
import { compare } from "../../src/benchmark/ratio.ts";
import { summarise } from "../../src/benchmark/statistics/summary.ts";

const conditions: Conditions = {
  cpu: "a CPU",
  cpus: 2,
  versions: { bun: "1" },
  settings: { quick: false, threads: 2 },
};
const names = ["one", "two", "three"];

function described(...turns: number[]) {
  return { ...summarise(turns), turns };
}

function row(key: string, tinyai: number, peer: number, peerName = "llama.cpp", better: Row["better"] = "more"): Row {
  const own = Array.from({ length: 6 }, () => tinyai);
  const other = own.map(() => peer);
  const ratio = compare(own, other, better);
  const figure = { key, label: key, unit: "tokens/s", digits: 1, better };
  return { ...figure, tinyai: described(...own), peer: described(...other), peerName, ratio };
}

function result(model: string, rows: readonly Row[], more: Partial<Result> = {}): Result {
  return {
    model,
    measured_at: "2026-01-02T03:04:05.000Z",
    commit: "abc",
    took_s: 60,
    took_s_by_figure: { depth_0: 60 },
    load_average_before: 0,
    file_bytes: 100e6,
    level: "avx512_vnni",
    first_prompt_tokens: 32,
    weight_bytes_per_token: 100e6,
    kv_bytes_per_token: 1e6,
    rows,
    bandwidth_gb_per_s: described(20),
    reached_of_bandwidth: { depth_0: described(0.9), depth_4096: described(0.68) },
    runtime_s: {},
    warnings: [],
    ...more,
  };
}

test("a model measured again takes its old place; the others stay, with their own commits", () => {
  let results = noResults(conditions);
  results = withModel(results, result("three", [row("depth_0", 8, 1)]), names);
  results = withModel(results, result("one", [row("depth_0", 4, 1)]), names);
  results = withModel(results, result("one", [row("depth_0", 2, 1)], { commit: "def" }), names);
  expect(results.models.map(({ model, commit }) => [model, commit])).toEqual([
    ["one", "def"],
    ["three", "abc"],
  ]);
  expect(results.overall_ratio_to_llama_cpp["depth_0"]).toBeCloseTo(4, 12);
});

test("a failure replaces the figures of before, and figures replace a failure", () => {
  let results = withModel(noResults(conditions), result("one", []), names);
  results = withModel(results, { model: "one", problem: "no memory" }, names);
  expect(results.models).toEqual([]);
  expect(results.failures).toEqual([{ model: "one", problem: "no memory" }]);
  results = withModel(results, result("one", []), names);
  expect(results.failures).toEqual([]);
  expect(results.models).toHaveLength(1);
});

test("only models without figures of this commit are still to measure; changed checkouts never match", () => {
  const results = withModel(noResults(conditions), result("two", [], { commit: "abc" }), names);
  expect(stillToMeasure(results, names, "abc")).toEqual(["one", "three"]);
  expect(stillToMeasure(results, names, "def")).toEqual(names);
  const changed = withModel(results, result("two", [], { commit: "abc with changes" }), names);
  expect(stillToMeasure(changed, names, "abc with changes")).toEqual(names);
});

test("a file is continued under its own conditions only", () => {
  const results = withModel(noResults(conditions), result("one", [row("depth_0", 4, 1)]), names);
  const text = JSON.stringify(results);
  expect(continueFrom(text, conditions)).toEqual(results);
  expect(() => continueFrom(text, { ...conditions, cpu: "another" })).toThrow(
    'its cpu were "a CPU" and are now "another"',
  );
  expect(() => continueFrom(text, { ...conditions, settings: { quick: true, threads: 2 } })).toThrow("its settings");
  expect(() => parseResults(JSON.stringify({ ...results, schema: 0 }))).toThrow("schema 2");
  expect(() => parseResults("null")).toThrow("schema 2");
});

test("bars say what is reached, and by how much not", () => {
  const bars = barsOf(result("one", [row("depth_0", 97, 100), row("prompt_512", 190, 100), row("batch_16", 250, 100)]));
  expect(bars.map((bar) => [bar.what, verdictOf(bar)])).toEqual([
    ["depth_0, of the bandwidth", "reached"],
    ["depth_4096, of the bandwidth", "missed by 20 %"],
    ["generation at depth 0 ÷ llama.cpp", "reached"],
    ["prompt ÷ llama.cpp", "missed by 5 %"],
    ["16 sequences ÷ llama.cpp", "reached"],
  ]);
  expect(bars.map(showBar)[3]).toBe("1.9, at least 2: missed by 5 %");
});

test("the bar of prompts is higher with AMX, and a model in the caches has none of bandwidth", () => {
  const rows = [row("prompt_512", 300, 100)];
  const [amx] = barsOf(result("one", rows, { level: "amx", file_bytes: 80e6 }));
  expect(amx).toMatchObject({ what: "prompt ÷ llama.cpp", target: 4 });
  const [plain] = barsOf(result("one", rows, { file_bytes: 80e6 }));
  expect(plain).toMatchObject({ what: "prompt ÷ llama.cpp", target: 2 });
});

test("Gemma's start and memory have bars; less is better there", () => {
  const rows = [row("first_token", 0.25, 1, "llama.cpp", "less"), row("peak_memory", 120, 300, "llama.cpp", "less")];
  const bars = barsOf(result("gemma3-270m", rows, { reached_of_bandwidth: {} }));
  expect(bars.map(verdictOf)).toEqual(["missed by 25 %", "missed by 100 %", "reached", "reached"]);
});

test("the first token behind a prefix is held against the one without", () => {
  const bars = barsOf(result("one", [row("prefix", 0.011, 0.01, "no prefix", "less")], { reached_of_bandwidth: {} }));
  expect(bars).toMatchObject([
    { what: "first token behind 1,000 tokens ÷ without them", sense: "at most", target: 1.2 },
  ]);
  expect(bars.map(verdictOf)).toEqual(["reached"]);
});

test("the means over models have bars of their own", () => {
  const results = [result("one", [row("depth_0", 1, 1)]), result("two", [row("depth_0", 2, 1)])];
  const [bar, ...rest] = barsOfAll(results);
  expect(bar?.value).toBeCloseTo(Math.SQRT2, 12);
  expect(bar && verdictOf(bar)).toBe("reached");
  expect(rest).toEqual([]);
});

test("the table names the CPU, the commits and the command, and has a row for each model", () => {
  let results = noResults(conditions);
  results = withModel(
    results,
    result("one", [row("depth_0", 50, 25), row("depth_0", 50, 10, "node-llama-cpp")]),
    names,
  );
  results = withModel(results, { model: "two", problem: "no memory" }, names);
  const lines = tableOf(results).split("\n");
  expect(lines[0]).toBe("Measured on 2026-01-02 on a CPU (2 threads), commit abc; bun 1.");
  expect(lines[1]).toContain("`bun run bench:peers`");
  expect(lines).toContain(
    "| one |  | 50.0, 2.00 (2.00 to 2.00) ahead |  |  | 90 %, 68 % | 5.00 (5.00 to 5.00) ahead |",
  );
  expect(lines).toContain("two could not be measured: no memory");
});

test("the table says how many models reach a bar, which miss it, and by how much", () => {
  let results = noResults(conditions);
  results = withModel(results, result("one", [row("depth_0", 50, 25)]), names);
  results = withModel(results, result("two", [row("depth_0", 48.5, 50)], { file_bytes: 80e6 }), names);
  results = withModel(results, result("three", [row("depth_0", 45, 50)], { file_bytes: 80e6 }), names);
  const lines = tableOf(results).split("\n");
  expect(lines).toContain(
    "| generation at depth 0 ÷ llama.cpp, geometric mean | at least 1.25 | 1.204: missed by 4 % |",
  );
  expect(lines).toContain(
    "| generation at depth 0 ÷ llama.cpp | at least 0.97 | 2 of 3 models; three 0.9 (missed by 7 %) |",
  );
  expect(lines).toContain("| depth_0, of the bandwidth | at least 0.85 | 0.9: reached |");
});
