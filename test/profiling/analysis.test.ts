// `createPerformanceAnalysis` with real, tiny models: what each option changes, which models and moments reports are of, and errors.

import { afterEach, describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import type { Report } from "../../profiler/report.ts";
import { EngineError, OptionError } from "../../src/errors.ts";
import { createPerformanceAnalysis, loadModel, type Model, type PerformanceAnalysis } from "../../src/index.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyModel } from "../support/tiny-model.ts";

const folder = temporaryFolder();
const path = folder.file("tiny.gguf");
const otherPath = folder.file("other.gguf");
writeTinyModel(path, { architecture: "gemma3", layers: 2, dtype: "Q8_0" });
writeTinyModel(otherPath, { architecture: "llama", layers: 1, dtype: "Q8_0" });

let analysis: PerformanceAnalysis | undefined;
const models: Model[] = [];
afterEach(async () => {
  await analysis?.close();
  for (const model of models.splice(0)) await model.close();
});

async function load(file = path): Promise<Model> {
  const model = await loadModel(file, { threads: { count: 1 }, prepared: false, tuning: "fixed" });
  models.push(model);
  return model;
}

async function generate(model: Model, maxLength: number): Promise<void> {
  await model.generate("hello", { temperature: 0, maxLength, ignoreEos: true, cachePrompt: false });
}

function read(file: string): Report {
  return JSON.parse(readFileSync(file, "utf8"));
}

function generatedTokens(report: Report): number {
  return report.requests.reduce((sum, request) => sum + request.generatedTokens, 0);
}

describe("an analysis", () => {
  test("watches models that were loaded before and after it, and names each one's file", async () => {
    const before = await load();
    analysis = createPerformanceAnalysis({ trackCacheUsage: true });
    const after = await load(otherPath);
    await generate(before, 5);
    await generate(after, 7);
    const out = temporaryFolder();
    const paths = await analysis.generateReport(out.file("r.json"));
    expect(paths).toEqual([out.file("r.tiny.json"), out.file("r.other.json")]);
    const [tiny, other] = paths.map(read) as [Report, Report];
    expect([tiny.run.model, other.run.model]).toEqual(["tiny.gguf", "other.gguf"]);
    expect([generatedTokens(tiny), generatedTokens(other)]).toEqual([5, 7]);
    expect(tiny.cache?.steps).toBe(tiny.steps.count);
    expect(tiny.memoryOps).toBeGreaterThan(0);
    expect(existsSync(out.file("r.json"))).toBe(false);
  });

  test("begins anew with each report, and keeps what a closed model did for the next one", async () => {
    analysis = createPerformanceAnalysis();
    const model = await load();
    await generate(model, 4);
    const out = temporaryFolder();
    const running = generate(model, 30);
    await analysis.generateReport(out.file("first.json"));
    await running;
    await model.close();
    expect(await analysis.generateReport(out.file("second.json"))).toEqual([out.file("second.json")]);
    const [first, second] = [read(out.file("first.json")), read(out.file("second.json"))];
    expect(generatedTokens(first)).toBe(4);
    // A step that was under way is in one of them, or in neither.
    const missing = 4 + 30 - first.steps.count - second.steps.count;
    expect([0, 1]).toContain(missing);
    expect(second.memoryOps).toBeGreaterThan(0);
    expect(first.cache).toBeNull();
  });

  test("takes samples when it is told to, and by itself only every so many milliseconds if that is given", async () => {
    const model = await load();
    const out = temporaryFolder();
    analysis = createPerformanceAnalysis();
    const samples = [analysis.takeSample(), analysis.takeSample()];
    for (const sample of samples) expect(sample.residentBytes).toBeGreaterThan(1e6);
    await generate(model, 2);
    await Bun.sleep(50);
    await analysis.generateReport(out.file("r.json"));
    // A first and a last one, and those that were taken.
    expect(read(out.file("r.json")).system?.samples).toHaveLength(4);
    await analysis.close();
    analysis = createPerformanceAnalysis({ sampleIntervalMs: 10 });
    await Bun.sleep(200);
    await analysis.generateReport(out.file("r.json"));
    expect(read(out.file("r.json")).system?.samples.length).toBeGreaterThan(4);
  });

  test("watches only the system without the time", async () => {
    const model = await load();
    analysis = createPerformanceAnalysis({ trackExecutionTime: false, sampleIntervalMs: 10 });
    await generate(model, 20);
    await Bun.sleep(50);
    const out = temporaryFolder();
    await analysis.generateReport(out.file("r.json"));
    const report = read(out.file("r.json"));
    expect(report.steps.count).toBe(0);
    expect(report.byOp).toEqual([]);
    expect(report.requests).toEqual([]);
    expect([report.javascript, report.memory, report.cache, report.roofline]).toEqual([null, null, null, null]);
    expect(report.system?.samples.length).toBeGreaterThan(2);
    expect(report.run.model).toBe("tiny.gguf");
    for (const name of ["r.txt", "r.folded", "r.trace.json"]) await analysis.generateReport(out.file(name));
    expect(readFileSync(out.file("r.txt"), "utf8")).toContain("tiny.gguf");
  });

  test("lets models be profiled otherwise once it is closed, and is the only one until then", async () => {
    const model = await load();
    analysis = createPerformanceAnalysis();
    expect(() => model.startProfiling()).toThrow(EngineError);
    expect(model.profile(() => {})).rejects.toThrow("a performance analysis records this model already; close()");
    expect(() => createPerformanceAnalysis()).toThrow(EngineError);
    await analysis.close();
    await analysis.close();
    expect(() => (analysis as PerformanceAnalysis).takeSample()).toThrow("the analysis is closed");
    expect(analysis.generateReport(folder.file("r.txt"))).rejects.toThrow("the analysis is closed");
    model.startProfiling();
    expect(() => createPerformanceAnalysis()).toThrow("profiling has already been started");
    model.cancelProfiling();
    analysis = createPerformanceAnalysis();
    await generate(model, 2);
  });

  test("refuses options out of bounds, endings that name no format, and reports of nothing", async () => {
    for (const wrong of [
      { sampleIntervalMs: 9 },
      { trackCacheUsage: 1 },
      { trackExecutionTime: "yes" },
      { track: true },
    ]) {
      expect(() => createPerformanceAnalysis(wrong as object)).toThrow(OptionError);
    }
    expect(() => createPerformanceAnalysis({ trackExecutionTime: false, trackCacheUsage: true })).toThrow(OptionError);
    analysis = createPerformanceAnalysis();
    expect(analysis.takeSample().residentBytes).toBeGreaterThan(1e6);
    expect(analysis.generateReport(folder.file("r.txt"))).rejects.toThrow("no model was open");
    const model = await load();
    await generate(model, 3);
    for (const wrong of [folder.file("r.doc"), folder.file("none/r.txt"), "", undefined as never]) {
      expect(analysis.generateReport(wrong)).rejects.toThrow(OptionError);
    }
    // Nothing of it was lost.
    await analysis.generateReport(folder.file("r.json"));
    expect(generatedTokens(read(folder.file("r.json")))).toBe(3);
  });
});
