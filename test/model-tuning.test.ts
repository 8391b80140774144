// What is kept of one model on this machine: the next loading uses it, unless it is told otherwise, or the file is damaged or of
// another; what trying settings gives and keeps; and batch sizes that are recommended.

import { beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { judge, tunableKnobs, tuneModel } from "../src/benchmark/tune.ts";
import { cpu } from "../src/engine/cpu.ts";
import { fixedTuning } from "../src/engine/tuning.ts";
import { loadModel, type Model, OptionError, prepareModel, recommendedBatchSize } from "../src/index.ts";
import { defaultThreads } from "../src/knobs/threads.ts";
import { loadKeys } from "../src/load-options.ts";
import { partsOf } from "../src/loaded-model.ts";
import { type ModelTuning, modelTuningKey, modelTuningPath, storeModelTuning } from "../src/model-tuning.ts";
import { runProgram } from "../src/setup/python.ts";
import { temporaryFolder } from "./support/folder.ts";
import { writeTinyEncoderFolder } from "./support/tiny-encoder.ts";
import { writeTinyModel } from "./support/tiny-model.ts";
import { keepVariables } from "./support/variables.ts";

setDefaultTimeout(60_000);

const folder = temporaryFolder();
const variables = ["TINYAI_HOME", "TINYAI_TUNING"] as const;
keepVariables(...variables);
beforeEach(() => {
  for (const name of variables) delete process.env[name];
  process.env["TINYAI_HOME"] = folder.file("home");
  rmSync(folder.file("home"), { recursive: true, force: true });
});

const tiny = folder.file("tiny.gguf");
writeTinyModel(tiny, { architecture: "gemma3", dtype: "Q8_0", heads: 2, headWidth: 32 });

const none = { distance: 0, lines: "none" } as const;
/** What nobody would choose, so that it can be seen. */
const unusual: ModelTuning = {
  threadCount: 1,
  tuning: { ...fixedTuning("avx2"), byte: none, packed: none, float: none, fewTokens: 3 },
  batchSize: 5,
};

async function keep(path = tiny, tuning: ModelTuning = unusual): Promise<string> {
  await using model = await loadModel(path);
  const { library, file, engine } = partsOf(model);
  const key = modelTuningKey(library, engine.settings.levels.matmul, file);
  await storeModelTuning(key, tuning);
  return modelTuningPath(key);
}

function settingsOf(model: Model) {
  const { threadCount, tuning } = partsOf(model).engine.settings;
  return { threadCount, fewTokens: tuning.fewTokens, lines: tuning.byte.lines };
}

const usual = { threadCount: defaultThreads(), fewTokens: 8, lines: "first" } as const;

describe("a model's tuning", () => {
  test("is how it is loaded from then on, and the model says so", async () => {
    const path = await keep();
    await using model = await loadModel(tiny);
    expect(settingsOf(model)).toEqual({ threadCount: 1, fewTokens: 3, lines: "none" });
    expect(model.tuningSource).toEqual({ threads: "model", kernels: "model", path });
    expect(model.recommendedBatchSize).toEqual({ size: "small", minimum: 5, maximum: 5, source: "measured" });
    // What a model may do at most is no tuning's.
    expect(model.batchSize).toBe(16);
    expect(await threadsOf(model)).toBe(1);
  });

  test("gives way to options, and to who wants none", async () => {
    await keep();
    const two = { threads: { count: Math.min(2, cpu.cores) } };
    await using given = await loadModel(tiny, two);
    expect(settingsOf(given)).toMatchObject({ threadCount: two.threads.count, fewTokens: 3 });
    expect(given.tuningSource).toMatchObject({ threads: "option", kernels: "model" });
    await using fixed = await loadModel(tiny, { tuning: "fixed" });
    expect(settingsOf(fixed)).toEqual(usual);
    expect(fixed.tuningSource).toEqual({ threads: "default", kernels: "table", path: undefined });
    expect(fixed.recommendedBatchSize.source).toBe("table");
    process.env["TINYAI_TUNING"] = "off";
    await using off = await loadModel(tiny);
    expect(settingsOf(off)).toEqual(usual);
  });

  test("is of models of the same shapes, whatever their weights and their container, and of no others", async () => {
    await keep();
    const other = folder.file("other.gguf");
    writeTinyModel(other, { architecture: "gemma3", dtype: "Q8_0", heads: 2, headWidth: 32, seed: 5 });
    const prepared = folder.file("tiny.tinyai");
    await prepareModel(tiny, { output: prepared });
    for (const path of [other, prepared]) {
      await using model = await loadModel(path);
      expect(model.tuningSource.kernels).toBe("model");
    }
    const deeper = folder.file("deeper.gguf");
    writeTinyModel(deeper, { architecture: "gemma3", dtype: "Q8_0", heads: 2, headWidth: 32, layers: 3 });
    await using model = await loadModel(deeper);
    expect(model.tuningSource.kernels).toBe("table");
  });

  test("is as if it were not there where it is damaged, out of bounds, or of another machine", async () => {
    const path = await keep();
    const whole = readFileSync(path, "utf8");
    const { key, tuning } = JSON.parse(whole);
    for (const text of [
      "",
      whole.slice(0, -20),
      "[]",
      JSON.stringify({ key }),
      JSON.stringify({ key, tuning: { ...tuning, threadCount: 65 } }),
      JSON.stringify({ key, tuning: { ...tuning, threadCount: cpu.cores + 1 } }),
      JSON.stringify({ key, tuning: { ...tuning, batchSize: 0 } }),
      JSON.stringify({ key, tuning: { ...tuning, tuning: { ...tuning.tuning, fewTokens: 99 } } }),
      JSON.stringify({ key: { ...key, cpu: "another" }, tuning }),
      JSON.stringify({ key: { ...key, model: "another" }, tuning }),
    ]) {
      writeFileSync(path, text);
      await using model = await loadModel(tiny);
      expect(settingsOf(model)).toEqual(usual);
      expect(model.tuningSource.path).toBeUndefined();
    }
  });
});

/** Threads that compute in a step, as a profile sees them. */
async function threadsOf(model: Model): Promise<number> {
  const { threads } = await model.profile(() => model.generate("once", { maxLength: 4, ignoreEos: true }), {
    cache: false,
    roofline: false,
  });
  return threads.length;
}

describe("trying settings", () => {
  const turns = (...requests: number[]) => requests.map((prompt) => ({ prompt, text: prompt }));

  test("chooses the fastest of those that are shown to be faster, and else what was there", () => {
    const before = turns(10, 10, 10, 10, 10, 10);
    const faster = turns(9, 9, 9, 9, 9, 9);
    const fastest = turns(5, 6, 5, 6, 5, 6);
    const sometimes = turns(1, 1, 1, 1, 1, 11);
    expect(judge(["before", "faster", "fastest", "sometimes"], [before, faster, fastest, sometimes]).chosen).toBe(2);
    expect(judge(["before", "sometimes"], [before, sometimes]).chosen).toBe(0);
    const { tried } = judge(["before", "faster"], [before, faster]);
    expect(tried.map(({ chosen }) => chosen)).toEqual([false, true]);
    expect(tried[0]?.ratios).toBeNull();
    expect(tried[1]?.ratios?.request.ratio).toBeCloseTo(0.9, 9);
    expect(tried[1]?.requestMs).toBe(18);
  });

  test("goes through every knob that a model has, and batch sizes, and gives what can be kept", async () => {
    const shares: number[] = [];
    const tuned = await tuneModel(tiny, { budgetMs: 0, onProgress: (share) => shares.push(share) });
    const tried = tuned.knobs.map(({ name }) => name);
    expect(tried).toContain("prefetch.byte");
    expect(tried).not.toContain("prefetch.packed");
    expect(tried.includes("threads")).toBe(cpu.cores > 1);
    for (const { rounds, values } of tuned.knobs) {
      expect(rounds).toBe(6);
      expect(values.filter(({ chosen }) => chosen)).toHaveLength(1);
      expect(new Set(values.map(({ value }) => value)).size).toBe(values.length);
      for (const { requestMs } of values) expect(requestMs).toBeGreaterThan(0);
    }
    expect(tuned.batches.map(({ size }) => size)).toEqual([1, 2, 4, 8, 16, 32]);
    const best = Math.max(...tuned.batches.map(({ tokensPerSecond }) => tokensPerSecond));
    const enough = tuned.batches.find(({ tokensPerSecond }) => tokensPerSecond >= 0.95 * best);
    expect(tuned.tuning?.batchSize).toBe(enough?.size ?? 0);
    expect(shares.length).toBeGreaterThan(10);
    // Nothing is kept by itself.
    expect(existsSync(folder.file("home/model-tuning"))).toBe(false);
  });

  test("says of every other option of a model why it is left as it is", async () => {
    const { knobs, left } = await tuneModel(tiny, { budgetMs: 0 });
    expect(knobs.map(({ name }) => name)).toEqual(expect.arrayContaining(["prefetch.byte", "blockSize"]));
    const options = new Set(left.map(({ knob }) => knob.split(".")[0] ?? ""));
    // Those that are tried, and those that decide nothing about speed.
    const others = new Set(["threads", "cache", "batchSize", "tuning", "onProgress", "signal"]);
    expect(new Set(loadKeys).difference(others.union(options))).toEqual(new Set());
    for (const { reason } of left) expect(reason).not.toBe("");
  });

  test("begins from what the machine prefers, not from what was kept of the model", async () => {
    await keep();
    const { knobs } = await tuneModel(tiny, { budgetMs: 0 });
    const [first] = knobs.find(({ name }) => name === "prefetch.byte")?.values ?? [];
    expect(first?.value).not.toBe("none");
  });

  test("of a model that only embeds takes its vectors", async () => {
    const encoder = folder.file("encoder");
    writeTinyEncoderFolder(encoder, { heads: 2 });
    const { knobs, batches, generatedTokens } = await tuneModel(encoder, { budgetMs: 0 });
    expect(generatedTokens).toBe(0);
    expect(knobs[0]?.values[1]?.ratios?.text ?? null).toBeNull();
    expect(batches).toHaveLength(6);
  });

  test("that is interrupted gives nothing to keep", async () => {
    const controller = new AbortController();
    let calls = 0;
    const onProgress = () => {
      if (++calls === 30) controller.abort(new Error("enough"));
    };
    const tuned = await tuneModel(tiny, { budgetMs: 0, signal: controller.signal, onProgress });
    expect(tuned.knobs.length).toBeGreaterThan(0);
    expect(tuned.tuning).toBeUndefined();
  });

  test("tries no value twice, and what is there first", async () => {
    await using model = await loadModel(tiny);
    const parts = partsOf(model);
    const state = { threadCount: 1, tuning: parts.engine.settings.tuning };
    for (const { candidates } of tunableKnobs) {
      const tried = candidates(parts, state);
      expect(tried[0]).toEqual(state);
      expect(new Set(tried.map((each) => JSON.stringify(each))).size).toBe(tried.length);
    }
  });
});

describe("tinyai tune --model", () => {
  const main = join(import.meta.dir, "..", "src", "cli", "main.ts");
  const tune = (...flags: string[]) =>
    runProgram([process.execPath, main, "tune", "--model", tiny, ...flags], { env: process.env });

  test("keeps what it found, where the next loading finds it", async () => {
    const { status, stdout } = await tune("--budget", "0", "--json");
    expect(status).toBe(0);
    const printed = JSON.parse(stdout);
    await using model = await loadModel(tiny);
    expect(model.tuningSource.path).toBe(printed.path);
    expect(model.threadCount).toBe(printed.tuning.threadCount);
    expect(model.recommendedBatchSize).toMatchObject({ minimum: printed.tuning.batchSize, source: "measured" });
    const text = await tune("--budget", "0");
    expect(text.status).toBe(0);
    expect(text.stdout).toContain("prefetching of 8-bit codes, 6 rounds");
    expect(text.stdout).toContain("of the best");
    expect(text.stdout).toMatch(/loadModel\(…, \{ batchSize: \d+ \}\)/);
    expect(text.stdout).toMatch(/^left as they are$/m);
    expect(text.stdout).toMatch(/^ +kvCache: q8_0 changes results/m);
    expect(text.stderr).toContain(printed.path);
  });

  test("refuses what does not go together", async () => {
    expect((await tune("--threads", "1")).status).toBe(2);
    expect((await tune("--budget", "-1")).status).toBe(2);
    const alone = await runProgram([process.execPath, main, "tune", "--budget", "5"], { env: process.env });
    expect(alone.status).toBe(2);
  });

  test("ends with Ctrl-C, and keeps nothing", async () => {
    const child = Bun.spawn([process.execPath, main, "tune", "--model", tiny, "--budget", "600"], {
      stdout: "pipe",
      stderr: "pipe",
      env: process.env,
    });
    await Bun.sleep(1500);
    child.kill("SIGINT");
    const [errors, code] = await Promise.all([new Response(child.stderr).text(), child.exited]);
    expect(code).toBe(130);
    expect(errors).toContain("nothing is kept");
    expect(existsSync(folder.file("home/model-tuning")) && readdirSync(folder.file("home/model-tuning"))).toBeFalsy();
  });
});

describe("a recommended batch size", () => {
  test("follows the number of parameters", () => {
    const of = (parameters: number) => {
      const { size, minimum, maximum } = recommendedBatchSize(parameters);
      return `${size}: ${minimum} to ${maximum}`;
    };
    expect(of(270e6)).toBe("small: 16 to 32");
    expect(of(1e9)).toBe("small: 16 to 32");
    expect(of(1.5e9)).toBe("medium: 8 to 16");
    expect(of(4e9)).toBe("large: 4 to 8");
    expect(of(7e9)).toBe("very large: 1 to 4");
  });

  test("gives the largest batch of each size the same arithmetic at its bound", () => {
    const work = [1e9, 2e9, 4e9].map((parameters) => parameters * recommendedBatchSize(parameters).maximum);
    expect(new Set(work).size).toBe(1);
  });

  test("is refused for what is no number of parameters", () => {
    for (const wrong of [0, -1, Number.NaN, Number.POSITIVE_INFINITY, "small"]) {
      expect(() => recommendedBatchSize(wrong as number)).toThrow(OptionError);
    }
  });

  test("is a model's own", async () => {
    await using model = await loadModel(tiny);
    expect(model.recommendedBatchSize).toEqual({ size: "small", minimum: 16, maximum: 32, source: "table" });
  });
});
