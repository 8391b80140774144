// `tinyai benchmark run` as a program: the file it writes, what it prints, what it refuses, and what an interruption leaves.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { BenchmarkResults } from "../../src/benchmark/results.ts";
import { readResults } from "../../src/benchmark/results-file.ts";
import { type Finished, runProgram } from "../../src/setup/python.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyEncoder } from "../support/tiny-encoder.ts";
import { writeTinyModel } from "../support/tiny-model.ts";

setDefaultTimeout(120_000);

const folder = temporaryFolder();
const repository = join(import.meta.dir, "..", "..");
const main = join(repository, "src", "cli", "main.ts");
const env = { ...process.env, TINYAI_HOME: folder.file("home") };

writeTinyModel(folder.file("tiny.gguf"), { architecture: "gemma3", dtype: "Q8_0", heads: 2, headWidth: 32 });
writeTinyEncoder(folder.file("encoder.gguf"), { heads: 2 });

const command = (...flags: readonly string[]) => [process.execPath, main, "benchmark", "run", ...flags];

function run(...flags: readonly string[]): Promise<Finished> {
  return runProgram(command(...flags), { cwd: folder.path, env });
}

/** Interrupts a measurement without end after a while. */
async function interrupted(output: string, afterMs: number) {
  const flags = ["--model", "tiny.gguf", "--iterations", "1000000", "--warmup", "0", "--output", output];
  const running = Bun.spawn(command(...flags), { cwd: folder.path, env, stdout: "pipe", stderr: "pipe" });
  const stderr = running.stderr.getReader();
  let told = "";
  const read = async () => {
    const { done, value } = await stderr.read();
    if (value) told += new TextDecoder().decode(value);
    return !done;
  };
  while (!told.includes("measuring tiny.gguf") && (await read()));
  await Bun.sleep(afterMs);
  running.kill("SIGINT");
  while (await read());
  return { status: await running.exited, stdout: await new Response(running.stdout).text(), stderr: told };
}

// Each looks at the machine for two seconds first, in which it does nothing.
describe.concurrent("a run", () => {
  test("writes the results of several batch sizes, from whose samples Python computes the same figures", async () => {
    const sizes = ["--batch-size", "3", "1", "--prompt-tokens", "9", "--generated-tokens", "4", "--seed", "7"];
    const metrics = ["--metrics", "latency", "throughput", "memory"];
    const flags = ["--type", "inference", "--iterations", "12", "--threads", "1", ...sizes, ...metrics];
    const { status, stdout, stderr } = await run("--model", "tiny.gguf", ...flags);
    expect({ status, stderr }).toEqual({ status: 0, stderr: expect.stringContaining("wrote benchmark_results.json") });
    expect(stdout).toContain("tiny.gguf: inference");
    const path = folder.file("benchmark_results.json");
    const { benchmark_info: info, results } = await readResults(path);
    expect(info).toMatchObject({
      model: "tiny.gguf",
      type: "inference",
      version: 1,
      settings: { iterations: 12, time_s: null, batch_sizes: [3, 1], prompt_tokens: 9, generated_tokens: 4, seed: 7 },
      model_details: { architecture: "gemma3", layers: 2, threads: 1 },
    });
    expect(info.fingerprint?.cpu).toBe(info.system_info.cpu);
    expect(info.methodology?.join(" ")).toContain("a prompt of 9 tokens and 4 tokens after it");
    expect(info.warnings?.join(" ")).toContain("batch size 1: of 12 iterations the 99th percentile");
    expect(info.interrupted).toBeUndefined();
    expect(results.latency?.samples).toHaveLength(12);
    expect(Object.keys(results.by_batch_size ?? {}).sort()).toEqual(["1", "3"]);

    const python = await runProgram(["python3", join(repository, "bench", "recompute.py"), path]);
    if (python.status === null) return console.warn(`not compared with Python: ${python.stderr}`);
    expect(python).toMatchObject({ status: 0, stdout: expect.stringMatching(/ \d{2,} figures compared, 0 differ/) });
    // It can fail.
    const wrong: BenchmarkResults = structuredClone(await readResults(path));
    Object.assign(wrong.results.by_batch_size?.["1"]?.latency ?? {}, { std: (results.latency?.std ?? 0) * (1 + 1e-8) });
    const changed = folder.write("changed.json", JSON.stringify(wrong));
    const { status: failed, stdout: told } = await runProgram([
      "python3",
      join(repository, "bench", "recompute.py"),
      changed,
    ]);
    expect({ failed, told }).toEqual({
      failed: 1,
      told: expect.stringContaining("results.by_batch_size.1.latency.std is"),
    });
  });

  test("prints nothing but the file's document for programs, with the chosen metrics alone", async () => {
    folder.write("config.json", '{ "iterations": 3, /* few */ "metrics": ["latency"], "warmup": 2 }');
    const { status, stdout } = await run(
      "--model",
      "encoder.gguf",
      "--config",
      "config.json",
      "--json",
      "--output",
      "vectors.json",
    );
    expect(status).toBe(0);
    const printed: BenchmarkResults = JSON.parse(stdout);
    expect(printed).toEqual(JSON.parse(readFileSync(folder.file("vectors.json"), "utf8")));
    expect(Object.keys(printed.results).sort()).toEqual([
      "by_batch_size",
      "latency",
      "loadings",
      "utilization",
      "warmup",
    ]);
    expect(printed.results.warmup?.iterations).toBe(2);
    expect(printed.benchmark_info.settings?.generated_tokens).toBe(0);
  });

  test("that is interrupted has written what was measured until then", async () => {
    // How long it takes until something is measured, nobody knows.
    for (let afterMs = 3000; ; afterMs *= 2) {
      const { status, stdout, stderr } = await interrupted("cut.json", afterMs);
      expect(status).toBe(130);
      if (stderr.includes("before anything was measured")) continue;
      expect(stderr).toContain("interrupted; the results are of what was measured until now");
      expect(stdout).toContain("tiny.gguf: inference");
      const { benchmark_info, results } = await readResults(folder.file("cut.json"));
      expect(benchmark_info.interrupted).toBe(true);
      expect(results.latency?.samples?.length).toBeWithin(1, 1_000_000);
      return;
    }
  });

  test("that is interrupted before anything was measured leaves what was there", async () => {
    folder.write("old.json", "old");
    const { status, stdout, stderr } = await interrupted("old.json", 0);
    expect({ status, stdout }).toEqual({ status: 130, stdout: "" });
    expect(stderr).toContain("interrupted before anything was measured; old.json was not written");
    expect(readFileSync(folder.file("old.json"), "utf8")).toBe("old");
  });

  test("is refused in one line, before anything is measured, where it cannot be", async () => {
    folder.write("unknown.json", '{ "iteration": 3 }');
    folder.write("damaged.gguf", readFileSync(folder.file("tiny.gguf")).subarray(0, 5000));
    const model = ["--model", "tiny.gguf"];
    const cases: readonly (readonly [flags: readonly string[], status: number, problem: string])[] = [
      [[...model, "--type", "training"], 2, "--type: training cannot be measured: TinyAI does not train models yet"],
      [[...model, "--type", "speed"], 2, '--type: there is no type "speed"; there are inference, memory, system'],
      [[], 2, "--model: is missing; type inference measures a model"],
      [[...model, "--type", "system"], 2, "--model: type system measures no model"],
      [["--type", "system", "--disk-folder", "nofolder"], 2, "--disk-folder: there is no folder nofolder"],
      [["--model", "missing.gguf"], 1, "missing.gguf: file: cannot be opened"],
      [["--model", "damaged.gguf"], 1, "damaged.gguf: "],
      [[...model, "--iterations", "0"], 2, "--iterations: is 0"],
      [[...model, "--iterations", "-5"], 2, "--iterations: is -5"],
      [[...model, "--batch-size", "2", "many"], 2, '--batch-size: is "many"; a number is expected'],
      [[...model, "--metrics", "latency", "charm"], 2, '--metrics: there is no metric "charm"'],
      [[...model, "--simd", "avx9000"], 2, '--simd: there is no level "avx9000"'],
      [[...model, "--config", "unknown.json"], 2, 'unknown.json: there is no key "iteration"'],
      [[...model, "--output", "nowhere/results.json"], 2, "--output: there is no folder nowhere"],
      [
        ["--model", "encoder.gguf", "--generated-tokens", "5"],
        2,
        "--generated-tokens: is 5, but encoder.gguf only embeds",
      ],
      [[...model, "--output", "tiny.gguf"], 2, "--output: tiny.gguf is the model itself"],
    ];
    const bytes = readFileSync(folder.file("tiny.gguf"));
    for (const [flags, status, problem] of cases) {
      const { stdout, stderr, ...ended } = await run(...flags);
      expect({ flags, status: ended.status, stdout }).toEqual({ flags, status, stdout: "" });
      expect(stderr).toStartWith(`tinyai: ${problem}`);
      expect(stderr.trim().split("\n")).toHaveLength(1);
    }
    expect(readFileSync(folder.file("tiny.gguf"))).toEqual(bytes);
  });
});
