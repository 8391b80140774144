// `tinyai benchmark compare`: the verdicts as a table, the page and the results that it writes, what it refuses before it measures, and
// that Ctrl-C leaves a comparison of what was measured.

import { beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parseResults } from "../../src/benchmark/results-file.ts";
import { runProgram } from "../../src/setup/python.ts";
import { guideResults } from "../support/benchmark-results.ts";
import { temporaryFolder } from "../support/folder.ts";
import { drawnLatencies, fingerprint, madeResults } from "../support/results.ts";
import { writeTinyModel } from "../support/tiny-model.ts";

setDefaultTimeout(120_000);

const main = join(import.meta.dir, "..", "..", "src", "cli", "main.ts");
const folder = temporaryFolder();
const [one, two] = [folder.file("model_v1.gguf"), folder.file("model_v2.gguf")];
const base = drawnLatencies(12, 40, 1);
const files: Readonly<Record<string, object>> = {
  "results_v1.json": madeResults({ 1: base }),
  "results_v2.json": madeResults({ 1: base.map((ms) => ms * 0.9) }),
  "memory.json": { ...guideResults, benchmark_info: { ...guideResults.benchmark_info, type: "memory" } },
  "guide.json": guideResults,
  "escapes.json": madeResults(
    { 1: base },
    { timestamp: "2024-03-21T10:00:00Z", fingerprint: { ...fingerprint, cpu: "\u001b[2J" } },
  ),
  "newer.json": { ...guideResults, benchmark_info: { ...guideResults.benchmark_info, version: 99 } },
};

beforeAll(() => {
  writeTinyModel(one);
  writeTinyModel(two, { layers: 3 });
  for (const [name, results] of Object.entries(files)) folder.write(name, JSON.stringify(results));
  folder.write("cut.json", JSON.stringify(guideResults).slice(0, 100));
  folder.write("config.json", '{ "iterations": 7, "batch_sizes": [2] /* two at once */ }');
});

function compare(...flags: string[]): ReturnType<typeof runProgram> {
  return runProgram([process.execPath, main, "benchmark", "compare", ...flags], { env: process.env, cwd: folder.path });
}

describe("files of results", () => {
  test("are compared in a table, and in the guide's page in the working folder", async () => {
    const { status, stdout, stderr } = await compare("--results", "results_v1.json", "results_v2.json");
    expect([status, stderr]).toEqual([0, "wrote comparison_report.html\n"]);
    const [head = "", latency = ""] = stdout.split("\n");
    expect(head.trim().split(/\s+/)).toEqual(["median", "results_v1", "results_v2"]);
    expect(latency).toMatch(/^latency +1[12]\.\d+ ms +10\.\d+ ms +faster by 10\.0 % \(95 % interval /);
    expect(readFileSync(folder.file("comparison_report.html"), "utf8")).toStartWith("<!doctype html>");
  });

  test("bring none of their control characters to a terminal", async () => {
    const { stdout } = await compare("--results", "results_v1.json", "escapes.json", "--output", "escapes.html");
    expect(stdout).toContain("�[2J");
    expect(stdout.replaceAll("\n", "")).not.toMatch(/\p{Cc}/u);
  });

  test("with --json are one document on stdout", async () => {
    const page = folder.file("json.html");
    const { status, stdout } = await compare("--results", "guide.json", "results_v2.json", "--json", "--output", page);
    expect(status).toBe(0);
    const { comparisons, compared, warnings } = JSON.parse(stdout);
    expect(comparisons[0]).toMatchObject({ metric: "latency", base: 15.2, verdict: null, name: "results_v2" });
    expect(compared[1].results.benchmark_info.tinyai).toBe("0.1.0");
    expect(warnings.join("\n")).toContain("only one says which batch size");
  });

  test("that cannot be compared are refused in a line, with exit code 2 and nothing written", async () => {
    const refused: readonly (readonly [flags: string, words: string])[] = [
      ["--results results_v1.json", "--results: names one file; two or more are compared"],
      ["--results results_v1.json memory.json", "memory: is of type memory, but results_v1 of type inference"],
      ["--results results_v1.json results_v2.json --type memory", "results_v1.json: is of type inference"],
      ["--results results_v1.json none.json", "none.json: "],
      ["--results results_*.jsn results_v1.json", "results_*.jsn: "],
      ["--results results_v1.json cut.json", "cut.json: "],
      ["--results results_v1.json newer.json", "newer.json: written by a newer TinyAI"],
      ["--results results_v1.json results_v2.json --iterations 5", "--iterations: is for measuring"],
      ["--results results_v1.json results_v2.json --batch-size 4", "--batch-size: is for measuring"],
      ["--results results_v1.json results_v2.json --models a b", "give one of the two"],
      ["", "give one of the two"],
      ["--results results_v1.json results_v2.json --output none/x.html", "there is no folder none"],
      ["--results results_v1.json results_v2.json --output x.png", "has no ending of a page"],
    ];
    const answers = await Promise.all(
      refused.map(([flags]) => {
        const given = flags === "" ? [] : flags.split(" ");
        return compare(...given, ...(flags.includes("--output") ? [] : ["--output", "refused.html"]));
      }),
    );
    for (const [place, { status, stdout, stderr }] of answers.entries()) {
      const [flags, words] = refused[place] ?? ["", ""];
      expect([flags, status, stdout]).toEqual([flags, 2, ""]);
      expect(stderr).toContain(words);
      expect(stderr.trimEnd().split("\n").length, stderr).toBe(1);
    }
    expect(existsSync(folder.file("refused.html"))).toBe(false);
  });
});

describe("models", () => {
  test("are measured in turns as flags and --config say, and each one's results are kept where --save says", async () => {
    const models = ["--models", one, two, "--type", "inference", "--config", "config.json", "--warmup", "1"];
    const { status, stdout, stderr } = await compare(...models, "--prompt-tokens", "8", "--save", ".");
    expect(status, stderr).toBe(0);
    expect(stdout.split("\n")[0]?.trim().split(/\s+/)).toEqual(["median", "model_v1.gguf", "model_v2.gguf"]);
    for (const name of ["results_1_model_v1.gguf.json", "results_2_model_v2.gguf.json"]) {
      expect(stderr).toContain(`wrote ${name}\n`);
      const { benchmark_info, results } = parseResults(JSON.parse(readFileSync(folder.file(name), "utf8")), name);
      expect(benchmark_info.settings).toMatchObject({ iterations: 7, batch_sizes: [2], prompt_tokens: 8 });
      expect(results.by_batch_size?.["2"]?.latency?.samples?.length).toBe(7);
    }
  });

  test("that cannot be measured are refused before anything is", async () => {
    const answers = await Promise.all([
      compare("--models", one, two, "--type", "training"),
      compare("--models", one, two, "--iterations", "0"),
      compare("--models", one, two, "--metrics", "speed"),
      compare("--models", one),
      compare("--models", one, two, "--type", "system"),
    ]);
    const words = ["--type: training", "--iterations", "--metrics", "--models: names one model", "--type: "];
    for (const [place, { status, stderr }] of answers.entries()) {
      expect(stderr).toStartWith(`tinyai: ${words[place] ?? ""}`);
      expect([status, stderr.trimEnd().split("\n").length, stderr]).toEqual([2, 1, stderr]);
    }
  });

  test("are compared as far as they were measured when Ctrl-C ends it", async () => {
    const page = folder.file("cut.html");
    const flags = ["--models", one, two, "--iterations", "1000000", "--output", page];
    let [said, measured] = ["", ""];
    // It looks at the machine for two seconds, and then measures; a slow machine gets more time.
    for (const seconds of [4, 15, 40]) {
      const running = Bun.spawn([process.execPath, main, "benchmark", "compare", ...flags, "--json"], {
        stdout: "pipe",
        stderr: "pipe",
        cwd: folder.path,
      });
      const told = Promise.all([new Response(running.stderr).text(), new Response(running.stdout).text()]);
      await Bun.sleep(1000 * seconds);
      running.kill("SIGINT");
      expect(await running.exited).toBe(130);
      [said, measured] = await told;
      if (measured !== "") break;
    }
    expect(said).toContain("interrupted; the comparison is of the rounds until then");
    const { compared, interrupted } = JSON.parse(measured);
    expect(interrupted).toBe(true);
    const counts = compared.map(
      (each: { results: ReturnType<typeof madeResults> }) => each.results.results.latency?.samples?.length,
    );
    expect(counts[0]).toBeGreaterThan(0);
    expect(counts[0]).toBe(counts[1]);
    expect(readdirSync(folder.path).filter((name) => name.startsWith("cut.html"))).toEqual(["cut.html"]);
  });
});
