// `tinyai benchmark system` and `tinyai benchmark verify` as programs: what they print, and their exit status.

import { expect, setDefaultTimeout, test } from "bun:test";
import { truncateSync } from "node:fs";
import { dirname, join } from "node:path";
import { runProgram } from "../../src/setup/python.ts";
import { makeFakeNvml } from "../support/fake-nvml.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyModel } from "../support/tiny-model.ts";

// Processes take their time on a loaded machine.
setDefaultTimeout(60_000);

const main = join(import.meta.dir, "..", "..", "src", "cli", "main.ts");
const folder = temporaryFolder();

function benchmark(words: readonly string[], env: NodeJS.ProcessEnv = {}) {
  return runProgram([process.execPath, main, "benchmark", ...words], { env: { ...process.env, ...env } });
}

test("system shows the same with --specs and without, and --json is one document", async () => {
  const [text, specs, json] = await Promise.all([
    benchmark(["system"]),
    benchmark(["system", "--specs"]),
    benchmark(["system", "--specs", "--json"]),
  ]);
  // What is free changes meanwhile.
  const steady = (shown: string): string => shown.replace(/[\d.]+ .?B/g, "SIZE").replace(/now [\d.]+/, "now");
  expect([text.status, specs.status, json.status]).toEqual([0, 0, 0]);
  expect(steady(text.stdout)).toBe(steady(specs.stdout));
  for (const name of ["CPU", "caches", "SIMD", "memory", "disks", "network", "GPU", "governor", "hypervisor"]) {
    expect(specs.stdout).toMatch(new RegExp(`^${name} `, "m"));
  }
  expect(Object.keys(JSON.parse(json.stdout))).toContain("working_folder");
});

test("system shows a GPU with what its driver tells", async () => {
  const library = await makeFakeNvml(folder.path);
  if (library === undefined) return console.warn("skipped: no Zig here to compile a made-up NVML with");
  const { stdout } = await benchmark(["system"], { LD_LIBRARY_PATH: dirname(library) });
  expect(stdout).toContain("Imaginary A1, 5.0 GB of 80 GB used, 40 % busy, driver 550.54");
  expect(stdout).toContain("Imaginary A2, utilisation unknown, driver 550.54");
});

test("verify --env ends with 0, with --strict with 1 if there is a warning, and keeps stdout to its document", async () => {
  const [strict, lenient] = await Promise.all([
    benchmark(["verify", "--env", "--strict", "--json"]),
    benchmark(["verify", "--env"]),
  ]);
  const { status, stdout, stderr } = strict;
  const { environment } = JSON.parse(stdout);
  const warns = environment.findings.some(({ verdict }: { verdict: string }) => verdict === "warning");
  expect([status, environment.ok]).toEqual([warns ? 1 : 0, !warns]);
  expect(environment.noise).toBeGreaterThan(0);
  expect(stderr).toContain("looking at this machine");
  for (const { verdict, remedy } of environment.findings) expect(remedy === undefined).toBe(verdict === "ok");
  expect(lenient.status).toBe(0);
  expect(lenient.stdout).toMatch(/^(?:ok|warning|unknown) +background load +/m);
});

test("verify --model ends with 0 for a sound model, and with 1 and one line for a damaged one", async () => {
  const path = folder.file("model.gguf");
  writeTinyModel(path);
  const { status, stdout } = await benchmark(["verify", "--model", path]);
  expect(status).toBe(0);
  expect(stdout).toMatch(/^ok +forward pass +/m);
  expect(stdout).toContain(`${path} is ready to be measured`);
  const { model } = JSON.parse((await benchmark(["verify", "--model", path, "--json"])).stdout);
  expect(model).toMatchObject({ path, ok: true });

  truncateSync(path, 6000);
  const damaged = await benchmark(["verify", "--model", path, "--json"]);
  expect([damaged.status, damaged.stdout]).toEqual([1, ""]);
  expect(damaged.stderr.match(/^tinyai: /gm)).toHaveLength(1);
  expect(damaged.stderr).toContain(`tinyai: ${path}: `);
});

test("verify of nothing, strictness without an environment and a model that is not there are wrong usage", async () => {
  const wrong = [["verify"], ["verify", "--strict", "--model", "x.gguf"], ["verify", "--model", "nothing"]];
  for (const { status, stdout, stderr } of await Promise.all(wrong.map((words) => benchmark(words)))) {
    expect([status, stdout]).toEqual([2, ""]);
    expect(stderr).toMatch(/^tinyai: (?:verify|--strict|--model): /m);
  }
});
