// `createPerformanceAnalysis` with real, tiny models: what each option changes, which models and moments reports are of, and errors.

import { afterEach, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { basename } from "node:path";
import type { Report, RequestRow } from "../../profiler/report.ts";
import { OptionError } from "../../src/errors.ts";
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

  test("is the only one until it is closed", async () => {
    await load();
    analysis = createPerformanceAnalysis();
    expect(() => createPerformanceAnalysis()).toThrow("there is an analysis already");
    await analysis.close();
    await analysis.close();
    expect(() => (analysis as PerformanceAnalysis).takeSample()).toThrow("the analysis is closed");
    await expect(analysis.generateReport(folder.file("r.txt"))).rejects.toThrow("the analysis is closed");
    analysis = createPerformanceAnalysis();
  });

  test("loses nothing to a path that cannot be written to, nor to a write that fails", async () => {
    const out = temporaryFolder();
    analysis = createPerformanceAnalysis();
    const closed = await load(otherPath);
    await generate(closed, 5);
    await closed.close();
    const model = await load();
    await generate(model, 3);
    mkdirSync(out.file("folder.json"));
    out.write("file", "");
    for (const wrong of ["none/r.json", "folder.json", "file/r.json"]) {
      await expect(analysis.generateReport(out.file(wrong))).rejects.toThrow(OptionError);
    }
    // Still one recording of the model.
    await generate(model, 4);
    // The first model's file is written, and the second's name is a folder's: that shows only when it is written.
    mkdirSync(out.file("r.tiny.json"));
    await expect(analysis.generateReport(out.file("r.json"))).rejects.toThrow("r.tiny.json");
    await generate(model, 6);
    rmSync(out.file("r.tiny.json"), { recursive: true });
    const paths = await analysis.generateReport(out.file("r.json"));
    expect(paths.map((file) => basename(file))).toEqual(["r.other.json", "r.tiny.json", "r.tiny-2.json"]);
    expect(paths.map((file) => generatedTokens(read(file)))).toEqual([5, 7, 6]);
    // And what was written is not written again.
    await generate(model, 2);
    expect(await analysis.generateReport(out.file("last.json"))).toEqual([out.file("last.json")]);
    expect(generatedTokens(read(out.file("last.json")))).toBe(2);
  });

  test("gives every model a file of its own, of the format asked for, whatever models are called", async () => {
    const sources = temporaryFolder();
    mkdirSync(sources.file("d2"));
    mkdirSync(sources.file("d3"));
    const long = "é".repeat(124);
    const names = ["x", "d2/x", "x-2", "d3/X", "trace", long, `d2/${long}`];
    analysis = createPerformanceAnalysis({ sampleIntervalMs: 0 });
    for (const [index, name] of names.entries()) {
      const file = sources.file(`${name}.gguf`);
      writeTinyModel(file, { architecture: "llama", layers: 1, dtype: "Q8_0" });
      await generate(await load(file), index + 2);
    }
    const out = temporaryFolder();
    const paths = await analysis.generateReport(out.file("r.json"));
    const written = paths.map((file) => basename(file));
    expect(written.slice(0, 5)).toEqual(["r.x.json", "r.x-2.json", "r.x-2-2.json", "r.X-3.json", "r.trace-2.json"]);
    expect(readdirSync(out.path).sort()).toEqual([...written].sort());
    expect(new Set(written.map((name) => name.toLowerCase())).size).toBe(names.length);
    for (const name of written.slice(5)) expect(name).toMatch(/^r\.é{90,}(-2)?\.json$/);
    expect(paths.map((file) => generatedTokens(read(file)))).toEqual(names.map((_, index) => index + 2));
  });

  test("and a model's own profile see the same, whichever begins first, and each ends alone", async () => {
    const model = await load();
    model.startProfiling({ cache: false, roofline: false });
    await generate(model, 3);
    analysis = createPerformanceAnalysis();
    await generate(model, 4);
    const first = model.stopProfiling();
    expect(first.requests.map(({ generatedTokens }) => generatedTokens)).toEqual([3, 4]);
    expect(first.javascript?.rows.find(({ name }) => name === "submitting")?.count).toBe(2);
    expect(() => model.stopProfiling()).toThrow("profiling has not been started");
    const second = await model.profile(() => generate(model, 5), { cache: false, roofline: false });
    expect(second.requests.map(({ generatedTokens }) => generatedTokens)).toEqual([5]);
    model.startProfiling();
    await generate(model, 6);
    const out = temporaryFolder();
    await analysis.generateReport(out.file("r.json"));
    const report = read(out.file("r.json"));
    expect(report.requests.map(({ generatedTokens }) => generatedTokens)).toEqual([4, 5, 6]);
    expect(report.javascript?.rows.find(({ name }) => name === "detokenizing")?.count).toBe(4 + 5 + 6);
    expect(report.requests[1]).toEqual(second.requests[0] as RequestRow);
    await analysis.close();
    expect(model.stopProfiling().requests.map(({ generatedTokens }) => generatedTokens)).toEqual([6]);
  });

  test("closed, leaves nothing recorded", async () => {
    const model = await load();
    analysis = createPerformanceAnalysis();
    await generate(model, 3);
    await analysis.close();
    analysis = createPerformanceAnalysis();
    await generate(model, 2);
    const out = temporaryFolder();
    await analysis.generateReport(out.file("r.json"));
    expect(generatedTokens(read(out.file("r.json")))).toBe(2);
  });

  test("reports what a model did that is closed while the report is being made", async () => {
    const model = await load();
    analysis = createPerformanceAnalysis({ trackCacheUsage: true });
    await generate(model, 9);
    const out = temporaryFolder();
    const report = analysis.generateReport(out.file("r.json"));
    await model.close();
    await report;
    const { cache, steps, requests } = read(out.file("r.json"));
    expect(requests[0]?.generatedTokens).toBe(9);
    expect(cache?.steps).toBe(steps.count);
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
    await expect(analysis.generateReport(folder.file("r.txt"))).rejects.toThrow("no model was open");
    const model = await load();
    await generate(model, 3);
    for (const wrong of [folder.file("r.doc"), folder.file("none/r.txt"), "", undefined as never]) {
      await expect(analysis.generateReport(wrong)).rejects.toThrow(OptionError);
    }
    // Nothing of it was lost.
    await analysis.generateReport(folder.file("r.json"));
    expect(generatedTokens(read(folder.file("r.json")))).toBe(3);
  });
});
