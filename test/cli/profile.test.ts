// `tinyai profile`: what it prints and writes, what it refuses before it computes, and that Ctrl-C leaves nothing half-written.

import { beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { linkSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Report } from "../../profiler/report.ts";
import { cutRemark } from "../../src/cli/profile.ts";
import { runProgram } from "../../src/setup/python.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyModel } from "../support/tiny-model.ts";

setDefaultTimeout(120_000);

const main = join(import.meta.dir, "..", "..", "src", "cli", "main.ts");
const folder = temporaryFolder();
const model = folder.file("tiny.gguf");

beforeAll(() => writeTinyModel(model));

const always = ["--model", model, "--prompt", "once upon a time", "--ignore-eos", "--temperature", "0"];

function profile(...flags: string[]): ReturnType<typeof runProgram> {
  // Measuring the machine takes seconds, and no test here is about it.
  return runProgram([process.execPath, main, "profile", ...always, "--no-roofline", ...flags], { env: process.env });
}

test("the report goes to stdout and nothing else does, with --json as one document", async () => {
  const shown = await profile("--max-length", "12");
  expect(shown.status).toBe(0);
  expect(shown.stdout).toContain("Findings");
  expect(shown.stdout).toContain("all steps: 12 steps, 21 rows");
  expect(shown.stderr).toContain("profiling a run of up to 12 tokens");

  const { status, stdout } = await profile("--max-length", "12", "--json", "--deterministic");
  expect(status).toBe(0);
  const report: Report = JSON.parse(stdout);
  expect(report.run.model).toBe("tiny.gguf");
  expect(report.cache?.description).toContain("reference machine");
  expect(JSON.parse((await profile("--max-length", "12", "--json", "--no-cache")).stdout).cache).toBeNull();
  expect(report.phases.find(({ phase }) => phase === "generation")?.rows).toBe(11);
});

test("every run computes the whole prompt", async () => {
  const promptRows = async (...flags: string[]) => {
    const { stdout } = await profile("--max-length", "4", "--json", ...flags);
    const report: Report = JSON.parse(stdout);
    return report.phases.map(({ phase, rows }) => ({ phase, rows }));
  };
  const [one, three] = [await promptRows(), await promptRows("--runs", "3")];
  expect(three).toEqual(one.map(({ phase, rows }) => ({ phase, rows: 3 * rows })));
});

test("files are written in the format of their flag, or of their ending", async () => {
  const files = ["r.json", "t.json", "performance_report.txt", "f", "s.json"].map((name) => folder.file(name));
  const [report = "", trace = "", text = "", folded = "", scope = ""] = files;
  const asked = ["--report", report, "--trace", trace, "--text", text, "--folded", folded, "--speedscope", scope];
  const { status, stderr } = await profile("--max-length", "4", ...asked);
  expect(status).toBe(0);
  for (const file of files) expect(stderr).toContain(`wrote ${file}\n`);
  expect(JSON.parse(readFileSync(report, "utf8")).schema).toBe(1);
  expect(JSON.parse(readFileSync(trace, "utf8")).traceEvents.length).toBeGreaterThan(10);
  expect(readFileSync(text, "utf8")).toStartWith("TinyAI performance report\n");
  expect(readFileSync(folded, "utf8")).toMatch(/^generation;layer 0;blk\.0\.\w+ \d+$/m);
  expect(JSON.parse(readFileSync(scope, "utf8")).$schema).toContain("speedscope");
  expect(readdirSync(folder.path).filter((name) => name.includes("tmp") || /\.\d+\./.test(name))).toEqual([]);
});

test("traces that are cut off are told of, and no other files", () => {
  const remark =
    "t.json is cut off: 1,234 events came later and are not in it; profile fewer tokens for a whole trace\n";
  for (const ending of [".trace.json", ".speedscope.json"] as const) {
    expect(cutRemark({ path: "t.json", ending }, 1_234)).toBe(remark);
    expect(cutRemark({ path: "t.json", ending }, 0)).toBe("");
  }
  expect(cutRemark({ path: "t.json", ending: ".json" }, 1_234)).toBe("");
});

test("--no-prefetcher simulates the caches without one", async () => {
  const { status, stdout } = await profile("--max-length", "4", "--json", "--no-prefetcher");
  expect(status).toBe(0);
  const { cache }: Report = JSON.parse(stdout);
  expect(cache).toMatchObject({ source: "simulator", prefetcher: false });
  expect(cache?.description).toEndWith(" No prefetcher was modelled.");
});

test("what is no regular file is written into and stays what it is, whatever it is called", async () => {
  const pipe = folder.file("pipe");
  await runProgram(["mkfifo", pipe]);
  const reader = Bun.spawn(["cat", pipe], { stdout: "pipe" });
  const [{ status }, text] = await Promise.all([
    profile("--max-length", "4", "--folded", pipe),
    new Response(reader.stdout).text(),
  ]);
  expect(status).toBe(0);
  expect(text).toMatch(/^.*;.* \d+\n/);
  expect(statSync(pipe).isFIFO()).toBe(true);
});

test("what could not be written, or would cost the model, is refused before anything is computed", async () => {
  const bytes = readFileSync(model);
  mkdirSync(folder.file("folder.json"));
  linkSync(model, folder.file("link.json"));
  writeFileSync(folder.file("file"), "");
  for (const [flags, problem] of [
    [["--report", folder.file("link.json")], "is the model itself"],
    [["--text", model], "is the model itself"],
    [["--report", folder.file("none/r.json")], "there is no folder"],
    [["--report", folder.file("file/r.json")], "there is no folder"],
    [["--report", folder.file("folder.json")], "is a folder"],
    [["--trace", folder.file("x.html")], "x.html would be no .html file, but one in the format .trace.json"],
    [["--text", folder.file("x.JSON")], "would be no .json file"],
    [["--speedscope", folder.file("x.trace.json")], "would be no .trace.json file"],
    [["--report", folder.file("r.pdf")], "no ending that names a format"],
    [["--report", ""], "the path of a file is expected"],
    [["--text", folder.file("x"), "--trace", `${folder.path}/./x`], "is what --trace names as well"],
    [["--runs", "0"], "--runs: is 0"],
    [["--runs", "many"], "a number is expected"],
    [["--max-length", "0"], "maxLength: is 0"],
    [["--prompt", ""], "--prompt: is empty"],
  ] as const) {
    const { status, stdout, stderr } = await profile(...flags);
    expect({ flags, status, stdout }).toEqual({ flags, status: 2, stdout: "" });
    expect(stderr).toContain(problem);
    expect(stderr).not.toContain("profiling");
  }
  expect(readFileSync(model)).toEqual(bytes);
});

/** Profiles runs without end to a file, where one was before, and interrupts them when one is under way. */
async function interrupted(name: string) {
  const report = folder.write(name, "old");
  const flags = [...always, "--no-roofline", "--max-length", "400", "--runs", "10000", "--report", report];
  const running = Bun.spawn([process.execPath, main, "profile", ...flags], {
    env: process.env,
    stdout: "pipe",
    stderr: "pipe",
  });
  const stderr = running.stderr.getReader();
  const until = async (words: string) => {
    for (let told = ""; !told.includes(words); ) {
      const { done, value } = await stderr.read();
      if (done) throw new Error(`it ended without "${words}": ${told}`);
      told += new TextDecoder().decode(value);
    }
  };
  await until("profiling 10000 runs");
  await Bun.sleep(100);
  running.kill("SIGINT");
  return { running, report, until };
}

test("Ctrl-C ends the runs, and the report is of what ran until then", async () => {
  const { running, report, until } = await interrupted("cut.json");
  await until(`wrote ${report}`);
  expect(await running.exited).toBe(130);
  expect(await new Response(running.stdout).text()).toContain("Findings");
  const { steps, requests }: Report = JSON.parse(readFileSync(report, "utf8"));
  expect(steps.count).toBeGreaterThan(0);
  expect(requests.length).toBeLessThan(10_000);
  expect(readdirSync(folder.path).filter((name) => name.startsWith("cut.json"))).toEqual(["cut.json"]);
});

test("a second Ctrl-C ends it at once: the file is the old one, or whole", async () => {
  const { running, report, until } = await interrupted("old.json");
  await until("interrupted");
  running.kill("SIGINT");
  expect(await running.exited).toBe(130);
  const left = readFileSync(report, "utf8");
  if (left !== "old") expect(JSON.parse(left).schema).toBe(1);
});
