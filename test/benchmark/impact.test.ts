// The impact of optimisations on real, tiny models: that each entry of the registry makes the difference that it is there for, which
// entries a model cannot have, and what comes of the whole: the result, an analysis's reports, and the command line. Not how fast.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { OptimizationImpact } from "../../profiler/impact.ts";
import type { Report } from "../../profiler/report.ts";
import { type Optimization, optimizations } from "../../src/benchmark/optimizations.ts";
import { writeText } from "../../src/benchmark/work.ts";
import { openLibrary } from "../../src/engine/library.ts";
import {
  analyzeOptimizationImpact,
  createPerformanceAnalysis,
  EngineError,
  loadModel,
  MemoryLimitError,
  type Model,
  OptionError,
} from "../../src/index.ts";
import { defaultThreads } from "../../src/knobs/threads.ts";
import { type ModelParts, partsOf } from "../../src/loaded-model.ts";
import { runProgram } from "../../src/setup/python.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyEncoderFolder } from "../support/tiny-encoder.ts";
import { writeTinyModel } from "../support/tiny-model.ts";
import { keepVariables } from "../support/variables.ts";

setDefaultTimeout(120_000);

const folder = temporaryFolder();
keepVariables("TINYAI_HOME");
process.env["TINYAI_HOME"] = folder.file("home");

const tiny = folder.file("tiny.gguf");
writeTinyModel(tiny, { architecture: "gemma3", dtype: "Q8_0", heads: 2, headWidth: 32 });
/** Large enough that a prepared copy is made of it. */
const large = folder.file("large.gguf");
writeTinyModel(large, { architecture: "llama", dtype: "F32", layers: 4, width: 512, ffn: 1024, vocabulary: 2048 });
const odd = folder.file("odd.gguf");
writeTinyModel(odd, { architecture: "llama", dtype: "F16", heads: 4, headWidth: 16 });
const encoder = folder.file("encoder");
writeTinyEncoderFolder(encoder, { heads: 2 });

function entry(name: string): Optimization {
  const found = optimizations.find((optimization) => optimization.name === name);
  if (!found) throw new Error(`there is no ${name}`);
  return found;
}

/** What `look` finds of a model with an optimisation on, and off. */
async function onAndOff<T>(name: string, path: string, look: (model: Model, parts: ModelParts) => T | Promise<T>) {
  const { load, live } = entry(name);
  const found: T[] = [];
  for (const on of [true, false]) {
    await using model = await loadModel(path, load?.(on) ?? {});
    const parts = partsOf(model);
    await live?.(parts, on, parts.engine.settings);
    found.push(await look(model, parts));
  }
  return found;
}

describe("an optimisation that is switched", () => {
  test("simd: kernels of the widest level, or of the narrowest", async () => {
    const kernels = await onAndOff("simd", tiny, async (model) => {
      const { byOp } = await model.profile(() => writeText(model, 2), { cache: false, roofline: false });
      return byOp.find(({ kind }) => kind === "matmul")?.kernel;
    });
    const library = await openLibrary();
    const widest = library.levels.findLast(({ supported }) => supported)?.name;
    expect(kernels).toEqual([`matmul.q8_0.${widest}`, `matmul.q8_0.${library.levels[0]?.name}`]);
  });

  test("threads: as many as it was loaded with, or one", async () => {
    const threads = await onAndOff("threads", tiny, (_, { engine }) => new Set(engine.threadIds).size);
    expect(threads).toEqual([defaultThreads(), 1]);
  });

  test("prefetch: as tuned, or nothing is asked for ahead", async () => {
    const lines = await onAndOff("prefetch", tiny, (_, { engine }) => engine.settings.tuning.byte.lines);
    expect(lines[0]).not.toBe("none");
    expect(lines[1]).toBe("none");
  });

  test("fusion: fewer ops, or one for each thing that is done", async () => {
    const [fused = 0, apart = 0] = await onAndOff("fusion", tiny, (model) => model.plan().ops.length);
    expect(fused).toBeLessThan(apart);
  });

  test("prepared: weights mapped from the copy, or packed from the file", async () => {
    await loadModel(large).then((model) => model.close());
    expect(await onAndOff("prepared", large, ({ preparation }) => preparation.state)).toEqual(["used", "none"]);
  });

  test("kvCache: pages of eight bits, or of sixteen", async () => {
    const kept = await onAndOff("kvCache", tiny, (model) => model.plan().kvGroups.map(({ dtype }) => dtype));
    expect(kept.map((dtypes) => [...new Set(dtypes)])).toEqual([["Q8_0"], ["F16"]]);
  });

  test("screening: a copy of the head, or none", async () => {
    const bytes = await onAndOff("screening", tiny, (model) => model.plan().screenBytes > 0);
    expect(bytes).toEqual([true, false]);
  });

  test("speculation: guesses, or none", async () => {
    await using model = await loadModel(tiny);
    const { request } = entry("speculation");
    expect((await writeText(model, 8, request?.(true))).speculation).toBeDefined();
    expect((await writeText(model, 8, request?.(false))).speculation).toBeUndefined();
  });

  test("is described, and is refused with a reason where it can make no difference", async () => {
    const problemsOf = async (path: string) => {
      await using model = await loadModel(path);
      const parts = partsOf(model);
      for (const { states } of optimizations) {
        const [on, off] = states(parts);
        expect(on).not.toBe(off);
      }
      return Object.fromEntries(optimizations.map(({ name, problem }) => [name, problem(parts)]));
    };
    expect((await problemsOf(tiny))["prepared"]).toContain("so small that it is packed in a moment");
    const ofOdd = await problemsOf(odd);
    expect(ofOdd["kvCache"]).toContain("multiple of 32");
    expect(ofOdd["screening"]).toContain("F16");
    const ofEncoder = await problemsOf(encoder);
    expect(ofEncoder["speculation"]).toContain("only embeds");
    expect(ofEncoder["kvCache"]).toBeDefined();
    expect((await problemsOf(large))["prepared"]).toBeUndefined();
  });
});

describe("the impact", () => {
  test("has each optimisation's figures beside all others and alone, with intervals, and text that stays the same", async () => {
    const only = ["speculation", "screening", "prepared"];
    const impact = await analyzeOptimizationImpact(tiny, { budgetMs: 0, only });
    expect(impact).toMatchObject({ model: "tiny.gguf", rounds: 6, interrupted: false });
    expect(impact.effects.map(({ name, on, off }) => [name, on, off])).toEqual([
      ["screening", "on", "off"],
      ["speculation", "lookup", "none"],
    ]);
    expect(impact.withoutEffect.map(({ name }) => name)).toEqual(["prepared"]);
    for (const effect of impact.effects) {
      expect(effect.sameText).toBe(true);
      for (const figures of [effect.besideAll, effect.alone]) {
        const metrics = figures.map(({ metric }) => metric);
        const speeds = ["prompt", "generation", "firstToken"];
        const expected = effect.name === "screening" ? [...speeds, "loading", "memory"] : speeds;
        expect(metrics).toEqual(expected as typeof metrics);
        for (const { with: on, without, low, high, ratio, rounds } of figures) {
          expect(Math.min(on, without)).toBeGreaterThan(0);
          expect(low).toBeLessThanOrEqual(ratio);
          expect(high).toBeGreaterThanOrEqual(ratio);
          expect(rounds).toBe(6);
        }
      }
      // A screen is memory for speed.
      const memory = effect.besideAll.find(({ metric }) => metric === "memory");
      if (memory) expect(memory.with).toBeGreaterThan(memory.without);
    }
  });

  test("of a model that only embeds is of its vectors", async () => {
    const { effects, besideAll } = await analyzeOptimizationImpact(encoder, {
      budgetMs: 0,
      only: ["simd", "speculation"],
    });
    expect(effects.map(({ name, sameText }) => [name, sameText])).toEqual([["simd", null]]);
    expect(effects[0]?.alone.map(({ metric }) => metric)).toEqual(["prompt"]);
    expect(besideAll.generatedTokens).toBe(0);
  });

  test("takes a loaded model as well, which it leaves as it is", async () => {
    await using model = await loadModel(tiny, { threads: { count: 1 } });
    const before = await writeText(model, 6);
    const { effects } = await analyzeOptimizationImpact(model, { budgetMs: 0, only: ["kvCache"] });
    expect(effects[0]?.besideAll.length).toBeGreaterThan(2);
    expect((await writeText(model, 6)).tokens).toEqual(before.tokens);
    expect(model.threadCount).toBe(1);
  });

  test("of a loaded model keeps to the limits that the model has", async () => {
    await using model = await loadModel(tiny);
    const options = { budgetMs: 0, only: ["kvCache"] };
    // Far below what the process takes.
    await model.setMemoryLimit(0.01);
    await expect(analyzeOptimizationImpact(model, options)).rejects.toThrow(MemoryLimitError);
    await using analysis = createPerformanceAnalysis();
    await expect(analysis.analyzeOptimizationImpact(options)).rejects.toThrow(MemoryLimitError);
    await model.setMemoryLimit(100);
    expect((await analyzeOptimizationImpact(model, options)).rounds).toBeGreaterThan(0);
  });

  test("refuses options out of bounds, and what is no model", async () => {
    for (const wrong of [
      { budgetMs: -1 },
      { only: "simd" },
      { only: ["simb"] },
      { signal: 1 },
      { onProgress: 1 },
      { x: 1 },
    ]) {
      await expect(analyzeOptimizationImpact(tiny, wrong as object)).rejects.toThrow(OptionError);
    }
    await expect(analyzeOptimizationImpact(folder.file("none.gguf"))).rejects.toThrow(Error);
    await expect(analyzeOptimizationImpact(tiny, { signal: AbortSignal.abort() })).rejects.toThrow("abort");
  });

  test("is in an analysis's reports once it was measured, whose recording has none of its work", async () => {
    await using analysis = createPerformanceAnalysis();
    await expect(analysis.analyzeOptimizationImpact()).rejects.toThrow(EngineError);
    await using model = await loadModel(tiny);
    await model.generate("once upon", { maxLength: 5, temperature: 0, ignoreEos: true });
    const shares: number[] = [];
    const [impact] = await analysis.analyzeOptimizationImpact({
      budgetMs: 0,
      only: ["screening"],
      onProgress: (share) => shares.push(share),
    });
    expect(shares.length).toBeGreaterThan(0);
    await analysis.generateReport(folder.file("r.json"));
    const report: Report = JSON.parse(readFileSync(folder.file("r.json"), "utf8"));
    expect(report.impact).toEqual(JSON.parse(JSON.stringify(impact)));
    expect(report.requests.map(({ generatedTokens }) => generatedTokens)).toEqual([5]);
    await analysis.generateReport(folder.file("r.txt"));
    expect(readFileSync(folder.file("r.txt"), "utf8")).toContain("Impact of optimisations");
  });
});

describe("tinyai benchmark impact", () => {
  const main = join(import.meta.dir, "..", "..", "src", "cli", "main.ts");
  const benchmark = (...flags: string[]) =>
    runProgram([process.execPath, main, "benchmark", "impact", "--model", tiny, "--budget", "0", ...flags], {
      env: process.env,
    });

  test("prints tables, or one JSON document and nothing else, and writes a report", async () => {
    const output = folder.file("impact.html");
    const { status, stdout, stderr } = await benchmark("--only", "screening", "--output", output);
    expect(status).toBe(0);
    expect(stdout).toContain("Switched off alone, all others on:");
    expect(stdout).toContain("head screening");
    expect(stderr).toContain(`wrote ${output}`);
    expect(readFileSync(output, "utf8")).toContain("</html>");
    const printed = await benchmark("--only", "screening", "kvCache", "--json");
    expect(printed.status).toBe(0);
    const impact: OptimizationImpact = JSON.parse(printed.stdout);
    expect(impact.effects.map(({ name }) => name)).toEqual(["kvCache", "screening"]);
  });

  test("refuses what it cannot do before it loads anything", async () => {
    for (const flags of [
      ["--only", "magic"],
      ["--budget", "soon"],
      ["--output", folder.file("impact.doc")],
      ["--output", folder.file("none/impact.html")],
    ]) {
      const { status, stdout } = await benchmark(...flags);
      expect([status, stdout]).toEqual([2, ""]);
    }
  });

  test("ends with Ctrl-C, and tells what it has", async () => {
    const flags = ["--model", tiny, "--only", "kvCache", "--budget", "600", "--json"];
    // Once too early for a comparison, and at last too late, for a tiny model's rounds come to an end: between lies enough time.
    for (let waitedMs = 200; waitedMs < 20_000; waitedMs *= 1.5) {
      const child = Bun.spawn([process.execPath, main, "benchmark", "impact", ...flags], {
        stdio: ["ignore", "pipe", "ignore"],
        env: process.env,
      });
      await Bun.sleep(waitedMs);
      child.kill("SIGINT");
      const [stdout, code] = await Promise.all([new Response(child.stdout).text(), child.exited]);
      expect([code, waitedMs]).toEqual([130, waitedMs]);
      if (stdout === "") continue;
      const impact: OptimizationImpact = JSON.parse(stdout);
      expect(impact.interrupted).toBe(true);
      return;
    }
    throw new Error("nothing was compared in twenty seconds");
  });
});
