// `tinyai benchmark analyze`, `prepare` and `checklist` as programs: what they print and where, and how they refuse what is wrong.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { analyzeResults } from "../../src/benchmark/analysis.ts";
import { writeResults } from "../../src/benchmark/results-file.ts";
import { runProgram } from "../../src/setup/python.ts";
import { guideResults, inferenceResults } from "../support/benchmark-results.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyModel } from "../support/tiny-model.ts";

setDefaultTimeout(120_000);

const folder = temporaryFolder();
const main = join(import.meta.dir, "..", "..", "src", "cli", "main.ts");
const environment = { ...process.env, TINYAI_HOME: folder.file("home") };

async function benchmark(...words: string[]) {
  const {
    status: code,
    stdout,
    stderr,
  } = await runProgram([process.execPath, main, "benchmark", ...words], {
    cwd: folder.path,
    env: environment,
  });
  return { code, stdout, stderr };
}

describe.concurrent("analyze", () => {
  test("prints the summary of one file, and of several each behind its name", async () => {
    await writeResults(folder.file("one.json"), inferenceResults());
    await writeResults(folder.file("two.json"), guideResults);
    const one = await benchmark("analyze", "--results", "one.json");
    expect(one).toEqual({ code: 0, stdout: analyzeResults(inferenceResults()).summary(), stderr: "" });
    const both = await benchmark("analyze", "--results", "one.json", "two.json");
    expect(both.stdout).toContain("\ntwo.json\nmodel.tinyai: inference, 2024-03-21T10:00:00Z\n");
  });

  test("prints one JSON document, with an item for each file", async () => {
    await writeResults(folder.file("plain.json"), guideResults);
    const { stdout, code } = await benchmark("analyze", "--results", "plain.json", "--json");
    const [item, ...others] = JSON.parse(stdout);
    expect(code).toBe(0);
    expect(others).toEqual([]);
    expect(item).toMatchObject({ path: "plain.json", summary: analyzeResults(guideResults).summary() });
    expect(item.figures[0]).toMatchObject({ name: "latency", mean: 15.2, samples: null });
  });

  test("writes a page of one file's results, and refuses one of several, or in the results' place", async () => {
    await writeResults(folder.file("drawn.json"), inferenceResults());
    const page = await benchmark("analyze", "--results", "drawn.json", "--output", "drawn.html", "--json");
    expect(page).toMatchObject({ code: 0, stderr: "wrote drawn.html\n" });
    expect(JSON.parse(page.stdout)).toHaveLength(1);
    expect(await Bun.file(folder.file("drawn.html")).text()).toStartWith("<!doctype html>");
    const refused = await Promise.all([
      benchmark("analyze", "--results", "drawn.json", "drawn.json", "--output", "two.html"),
      benchmark("analyze", "--results", "drawn.json", "--output", "drawn.json"),
      benchmark("analyze", "--results", "drawn.json", "--output", "no/such/folder.html"),
    ]);
    for (const { code, stdout } of refused) expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
  });

  test("prints nothing of any file where one is damaged, and exits with 2 and a line that names it", async () => {
    await writeResults(folder.file("whole.json"), guideResults);
    folder.write("cut.json", JSON.stringify(guideResults).slice(0, 300));
    const { code, stdout, stderr } = await benchmark("analyze", "--results", "whole.json", "cut.json");
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toMatch(/^tinyai: cut\.json: is cut short or damaged: [^\n]*\n$/);
  });
});

describe.concurrent("prepare", () => {
  test("says what was done and where the file is, and as JSON all of it", async () => {
    writeTinyModel(folder.file("ready.gguf"), { dtype: "F16", context: 256 });
    folder.write("config.json", '{\n  // small\n  "batch_sizes": [1, 4], "quantize": "Q8_0"\n}\n');
    const words = ["prepare", "--model", "ready.gguf", "--config", "config.json"];
    const text = await benchmark(...words);
    expect(text.code).toBe(0);
    expect(text.stdout).toMatch(
      /ready\.tinyai: [\d.]+ [kM]B, made\nquantized to Q8_0: .*\na benchmark of it: batch sizes 1, 4; /,
    );
    const { stdout } = await benchmark(...words, "--json");
    expect(JSON.parse(stdout)).toMatchObject({
      file: "made",
      quantized: { type: "Q8_0" },
      settings: { batch_sizes: [1, 4] },
    });
  });

  test("refuses a wrong configuration with 2 and the key, before anything is made", async () => {
    writeTinyModel(folder.file("unready.gguf"), { dtype: "F16", context: 256 });
    folder.write("wrong.json", '{ "iteration": 3 }');
    const { code, stdout, stderr } = await benchmark("prepare", "--model", "unready.gguf", "--config", "wrong.json");
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toMatch(/^tinyai: wrong\.json: there is no key "iteration"; there are iterations, [^\n]*\n$/);
    expect(await Bun.file(folder.file("unready.tinyai")).exists()).toBe(false);
    const missing = await benchmark("prepare", "--model", "missing.gguf");
    expect(missing).toMatchObject({ code: 2, stdout: "" });
    expect(missing.stderr).toMatch(/^tinyai: --model: there is no file [^\n]*\n$/);
  });
});

describe.concurrent("checklist", () => {
  test("marks each item, and says how to do what is not done", async () => {
    writeTinyModel(folder.file("checked.gguf"), { dtype: "F16", context: 256 });
    const words = ["checklist", "--model", "checked.gguf", "--folder", "home-of-nothing"];
    expect(await benchmark(...words)).toMatchObject({
      code: 2,
      stderr: "tinyai: --folder: there is no folder home-of-nothing\n",
    });
    const named = async (...flags: readonly string[]) =>
      (await benchmark("checklist", "--model", "checked.gguf", ...flags)).stderr;
    expect(await named("--folder", "checked.gguf")).toBe("tinyai: --folder: checked.gguf is no folder\n");
    expect(await named("--kv-cache", "f64")).toStartWith('tinyai: --kv-cache: is "f64"; ');
    const { code, stdout } = await benchmark("checklist", "--model", "checked.gguf", "--memory-limit", "50");
    expect(code).toBe(0);
    expect(stdout).toMatch(/^checked\.gguf: \d+ of \d+ done\n\n\[ \] Profile application performance\n/);
    expect(stdout).toContain("[x] Set resource limits\n    memory at 50 %");
    expect(stdout).toContain(
      '\n    tinyai profile --model checked.gguf --prompt "Once upon a time" --report report.html\n',
    );
    const found = JSON.parse((await benchmark("checklist", "--model", "checked.gguf", "--json")).stdout);
    expect(found.items).toHaveLength(12);
    expect(found).toMatchObject({ model: "checked.gguf", folder: "." });
  });
});

test("each of them has help with examples that begin with its name", async () => {
  await Promise.all(
    ["analyze", "prepare", "checklist"].map(async (verb) => {
      const { code, stdout } = await benchmark(verb, "--help");
      expect(code).toBe(0);
      expect(stdout).toContain(`\nExamples:\n  tinyai benchmark ${verb} --`);
    }),
  );
});
