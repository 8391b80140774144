// `tinyai bundle` with a real model, and for other systems, whose Bun is downloaded.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { hostSystem } from "../../src/bundle/target.ts";
import { pullModel } from "../../src/cli/pull.ts";
import { loadModel } from "../../src/index.ts";
import { runProgram } from "../../src/setup/python.ts";
import { installProject, type Project } from "../bundle/project.ts";
import { generatingProgram, generation, loading, runIn } from "../bundle/support.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyModel } from "../support/tiny-model.ts";

setDefaultTimeout(600_000);

const main = join(import.meta.dir, "..", "..", "src", "cli", "main.ts");
const folder = temporaryFolder();
let project: Project;

beforeAll(async () => {
  project = await installProject(folder);
  const { status, stderr } = await project.run([process.execPath, "install", "--os=*", "--cpu=*"]);
  expect(status, stderr).toBe(0);
});

afterAll(() => project.close());

test.skipIf(process.platform !== "linux")("Gemma runs out of the executable, and is in memory once", async () => {
  const { path } = await pullModel("gemma3-270m");
  const source = `${generatingProgram(["gemma3-270m"])}
import { readFileSync } from "node:fs";
console.log(/^RssAnon:\\s+(\\d+) kB/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1]);
`;
  const output = folder.file("app");
  const program = folder.write("app.ts", source);
  const command = [process.execPath, main, "bundle", program, "--model", "gemma3-270m", "--outfile", output];
  const made = await runProgram(command, { env: process.env });
  expect(made.status, made.stderr).toBe(0);
  await using model = await loadModel(path, loading);
  const tokens = [...(await model.generate("once upon", generation)).tokens];
  const empty = folder.file("empty");
  mkdirSync(empty);
  const { stdout, stderr } = await runIn(empty, [output]);
  expect(stderr).toBe("");
  const [result = "", anonymous_kB] = stdout.split("\n");
  expect(JSON.parse(result).results).toEqual([{ path: output, tokens }]);
  // The weights have 255 MB, and Bun itself some 16.
  expect(Number(anonymous_kB)).toBeGreaterThan(1_000);
  expect(Number(anonymous_kB)).toBeLessThan(100_000);
});

test.each(["darwin-arm64", "windows-x64", "linux-arm64"])(
  "an executable for %s has that system's library and the model, at an aligned place that it names",
  async (system) => {
    if (system === hostSystem) return;
    const model = folder.file("model.gguf");
    writeTinyModel(model);
    writeFileSync(join(project.path, "app.ts"), generatingProgram(["model"], "tinyai"));
    const output = folder.file(`for-${system}`);
    const flags = ["--model", model, "--outfile", output, "--target", `bun-${system}`, "--json"];
    const made = await project.run([process.execPath, "x", "tinyai", "bundle", "app.ts", ...flags]);
    expect(made.status, made.stderr).toBe(0);
    const { path } = JSON.parse(made.stdout);
    expect(path).toBe(system.startsWith("windows") ? `${output}.exe` : output);
    const executable = readFileSync(path);
    expect(executable.includes(project.otherLibrary)).toBe(true);
    const offset = executable.indexOf("TinyAI\x1a\n");
    expect(offset % (2 << 20)).toBe(0);
    expect(executable.includes(String(offset).padStart(12, "0"))).toBe(true);
  },
);
