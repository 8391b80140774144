// `tinyai benchmark trends`: the guide's command, what it prints and writes, its exit status, and what it refuses.

import { beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Trends } from "../../src/benchmark/trends.ts";
import { root } from "../../src/setup/checkout.ts";
import { type Finished, runProgram } from "../../src/setup/python.ts";
import { memoryResults } from "../support/benchmark-results.ts";
import { temporaryFolder } from "../support/folder.ts";
import { readPng } from "../support/png.ts";
import { dailyFiles } from "../support/trend-files.ts";

setDefaultTimeout(60_000);

const folder = temporaryFolder();
const days = 20;

function trends(...flags: string[]): Promise<Finished> {
  const command = [process.execPath, join(root, "src/cli/main.ts"), "benchmark", "trends", ...flags];
  return runProgram(command, { cwd: folder.path, env: process.env });
}

beforeAll(() => {
  for (const name of ["steady", "slower"]) {
    mkdirSync(folder.file(name));
    for (const { file, results } of dailyFiles(days, (place) => (name === "slower" && place >= 10 ? 17 : 15))) {
      writeFileSync(join(folder.file(name), file), JSON.stringify(results));
    }
  }
  folder.write("memory.json", JSON.stringify(memoryResults()));
  folder.write("damaged.json", `{"benchmark_info": {"model": "mod`);
});

test("a pattern that no shell has expanded is expanded, and the picture and the text are of all its files", async () => {
  const { status, stdout, stderr } = await trends("--results", "slower/results_*.json", "--metric", "latency");
  expect(status).toBe(0);
  expect(stderr).toEndWith("wrote trends.png\n");
  expect(stdout).toContain(`Mean latency of model.gguf, ms: ${days} files, 2026-01-01 to 2026-01-20; lower is better`);
  expect(stdout).toMatch(/ {2}regression: slower by 1\d\.\d % .* since slower\/results_010\.json \(2026-01-11 03:00\)/);
  expect(stdout).toContain("  last known good: slower/results_009.json\n");
  const picture = readPng(readFileSync(folder.file("trends.png")));
  expect([picture.width, picture.height]).toEqual([1280, 720]);
  expect(picture.find("#b3261e").count).toBeGreaterThan(300);
});

test("--json is one document, and --fail-on-regression exits 1 only where a level became worse", async () => {
  const asked = ["--fail-on-regression", "--json"];
  const [slower, steady] = await Promise.all([
    trends("--results", "slower/*.json", "--output", "a.json", ...asked),
    trends("--results", "steady/*.json", "--output", "b.html", ...asked),
  ]);
  expect([slower.status, steady.status]).toEqual([1, 0]);
  const [found, none]: [Trends, Trends] = [JSON.parse(slower.stdout), JSON.parse(steady.stdout)];
  expect(found).toMatchObject({ regressed: true, metric: { name: "latency.mean", unit: "ms" } });
  expect(found.series[0]).toMatchObject({ last_good: "slower/results_009.json", changes: [{ kind: "regression" }] });
  expect(JSON.parse(readFileSync(folder.file("a.json"), "utf8"))).toEqual(found);
  expect(none).toMatchObject({ regressed: false, series: [{ changes: [], last_good: null }] });
  expect(readFileSync(folder.file("b.html"), "utf8")).toEndWith("</html>\n");
});

test("what is wrong is told in a line, exits 2, and overwrites nothing", async () => {
  folder.write("kept.png", "kept");
  const one = "steady/results_000.json";
  const wrong: readonly (readonly [flags: readonly string[], message: string])[] = [
    [["--results", "none_*.json"], "--results: there is no file that fits none_*.json"],
    [["--results", "none.json"], "none.json: cannot be read"],
    [["--results", one, one], `${one}: is named twice`],
    [["--results", one, "damaged.json"], "damaged.json: is cut short or damaged"],
    [["--results", one, "memory.json"], "memory.json: is of type memory"],
    [["--results", one, "--metric", "speed"], '--metric: there is no "speed" in these results; there are latency'],
    [["--results", one, "--batch-size", "0"], "--batch-size: is 0"],
    [["--results", one, "--output", "none/trends.png"], "--output: there is no folder none"],
    [["--results", one, "--output", "trends.pdf"], "--output: trends.pdf has no ending that names a format"],
    [["--results", "steady/*.json", "--output", one], `--output: ${one} is one of the files of results`],
    [[], "required option '--results <file...>'"],
  ];
  const before = readdirSync(folder.path).sort();
  await Promise.all(
    wrong.map(async ([flags, message]) => {
      const output = flags.includes("--output") ? [] : ["--output", "kept.png"];
      const { status, stdout, stderr } = await trends(...flags, ...output);
      expect({ flags, status, stdout }).toEqual({ flags, status: 2, stdout: "" });
      expect(stderr).toContain(message);
      // Where reading takes long, its progress stands before.
      if (flags.length > 0) expect(stderr.match(/^tinyai: /gm)).toHaveLength(1);
    }),
  );
  expect(readFileSync(folder.file("kept.png"), "utf8")).toBe("kept");
  expect(readdirSync(folder.path).sort()).toEqual(before);
});
