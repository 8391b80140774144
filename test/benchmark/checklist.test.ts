// The checklist: the guide's items in its words and order, each decided by what is there, and turned by what its command makes.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync } from "node:fs";
import { totalmem } from "node:os";
import { type Checklist, checklistOf } from "../../src/benchmark/checklist.ts";
import { readFolder } from "../../src/benchmark/folder-evidence.ts";
import type { BenchmarkResults } from "../../src/benchmark/results.ts";
import { writeResults } from "../../src/benchmark/results-file.ts";
import { tuneModel } from "../../src/benchmark/tune.ts";
import { groupLimits } from "../../src/engine/cgroup.ts";
import { cpu } from "../../src/engine/cpu.ts";
import { loadModel, type Model } from "../../src/index.ts";
import { storeModelTuning } from "../../src/model-tuning.ts";
import { inferenceResults, madeUpFigures, samplesAround } from "../support/benchmark-results.ts";
import { temporaryFolder } from "../support/folder.ts";
import { madeUpImpact } from "../support/report.ts";
import { writeTinyModel } from "../support/tiny-model.ts";
import { keepVariables } from "../support/variables.ts";

const folder = temporaryFolder();
keepVariables("TINYAI_HOME", "TINYAI_TUNING");
const path = folder.file("tiny.gguf");
const place = (name: string) => {
  mkdirSync(folder.file(name), { recursive: true });
  return folder.file(name);
};
let model: Model;
beforeAll(async () => {
  process.env["TINYAI_HOME"] = folder.file("home");
  delete process.env["TINYAI_TUNING"];
  writeTinyModel(path, { dtype: "Q8_0", layers: 1, context: 256 });
  model = await loadModel(path);
});
afterAll(() => model.close());

const itemOf = ({ items }: Checklist, name: string) => {
  const found = items.find(({ item }) => item === name);
  if (!found) throw new Error(`there is no item ${name}`);
  return found;
};

test("it has the guide's twelve items in the guide's words and order, each with evidence and a command", () => {
  const checklist = checklistOf(model, "tiny.gguf", place("empty"));
  expect(checklist.items.map(({ item }) => item)).toEqual([
    "Profile application performance",
    "Identify bottlenecks",
    "Enable SIMD operations",
    "Configure cache optimization",
    "Set appropriate batch sizes",
    "Configure thread management",
    "Set resource limits",
    "Enable performance monitoring",
    "Implement profiling",
    "Generate and analyze reports",
    "Apply recommended optimizations",
    "Validate optimization impact",
  ]);
  for (const { evidence, command } of checklist.items) {
    expect(evidence.length).toBeGreaterThan(10);
    expect(command.length).toBeGreaterThan(5);
  }
  const states = checklist.items.map(({ state }) => state);
  expect(checklist.done).toBe(states.filter((state) => state === "done").length);
  expect(checklist.of).toBe(states.filter((state) => state !== "not applicable").length);
});

describe("what the loaded model shows", () => {
  test("the instruction-set level: done at the widest, not done below it", async () => {
    const { state, evidence } = itemOf(checklistOf(model, "tiny.gguf", place("empty")), "Enable SIMD operations");
    const widest = model.simd.name;
    expect(state).toBe(widest === "scalar" ? "not applicable" : "done");
    expect(evidence).toContain(widest);
    if (widest === "scalar") return;
    await using scalar = await loadModel(path, { simd: { level: 0 } });
    const narrow = itemOf(checklistOf(scalar, "tiny.gguf", place("empty")), "Enable SIMD operations");
    expect(narrow.state).toBe("not done");
    expect(narrow.evidence).toContain(`where ${widest} would run`);
  });

  test("threads, caches and limits: done where they were asked for, not done by default", async () => {
    const plain = checklistOf(model, "tiny.gguf", place("empty"));
    const none = cpu.cores === 1 ? "not applicable" : "not done";
    expect(itemOf(plain, "Configure thread management").state).toBe(none);
    expect(itemOf(plain, "Configure cache optimization").state).toBe("not done");
    await using set = await loadModel(path, {
      threads: { count: 1 },
      cache: { prefetchDistance: 3 },
      limits: { memoryPercent: 80 },
    });
    const asked = checklistOf(set, "tiny.gguf", place("empty"));
    if (cpu.cores > 1) expect(itemOf(asked, "Configure thread management").state).toBe("done");
    expect(itemOf(asked, "Configure cache optimization")).toMatchObject({ state: "done" });
    expect(itemOf(asked, "Configure cache optimization").evidence).toContain("asked for ahead, as was asked for");
    expect(itemOf(asked, "Set resource limits").evidence).toStartWith("memory at 80 %");
    const { cpus, memoryBytes } = groupLimits();
    const isLimited = cpus < navigator.hardwareConcurrency || memoryBytes < totalmem();
    if (!isLimited) expect(itemOf(plain, "Set resource limits").state).toBe("not done");
  });

  test("what tinyai tune --model keeps turns the items that name it", async () => {
    const { key, tuning } = await tuneModel(path, { budgetMs: 0 });
    if (!tuning) throw new Error("it was not interrupted");
    const names = ["Configure cache optimization", "Set appropriate batch sizes", "Apply recommended optimizations"];
    const states = (loaded: Model) => {
      const checklist = checklistOf(loaded, "tiny.gguf", place("empty"));
      return names.map((name) => itemOf(checklist, name).state);
    };
    expect(states(model)).toEqual(["not done", "not done", "not done"]);
    await storeModelTuning(key, tuning);
    await using tuned = await loadModel(path);
    expect(states(tuned)).toEqual(["done", tuning.batchSize <= tuned.batchSize ? "done" : "not done", "done"]);
  }, 30_000);
});

describe("what the folder shows", () => {
  test("a report of this model turns what is profiled, as data and as a page; one of another model does not", async () => {
    const report = await model.profile(() => model.generate("hello", { maxLength: 4, ignoreEos: true }), {
      cache: false,
      roofline: false,
    });
    for (const ending of ["json", "html"]) {
      const reports = place(`reports-${ending}`);
      await report.write(`${reports}/report.${ending}`);
      const checklist = checklistOf(model, "tiny.gguf", reports);
      for (const name of ["Profile application performance", "Identify bottlenecks", "Generate and analyze reports"]) {
        expect(itemOf(checklist, name).state).toBe("done");
      }
      const { evidence } = itemOf(checklist, "Identify bottlenecks");
      const most = [...report.byKind].sort((a, b) => b.share - a.share)[0];
      expect(evidence).toStartWith(`report.${ending}: ${most?.kind} takes ${(100 * (most?.share ?? 0)).toFixed(0)} %`);
      expect(readFolder(reports, "another.gguf").reports).toEqual([]);
      expect(readFolder(reports, "tiny.tinyai").reports).toHaveLength(1);
    }
  });

  test("results turn reports and batch sizes, but only an impact validates", async () => {
    const bench = place("bench");
    const by_batch_size = {
      "1": madeUpFigures(samplesAround(80, 20)),
      "4": madeUpFigures(samplesAround(90, 20), 4),
    };
    const results: BenchmarkResults = {
      ...inferenceResults(samplesAround(80, 20), { model: "tiny.gguf" }),
      results: { by_batch_size },
    };
    await writeResults(`${bench}/benchmark_results.json`, results);
    const first = checklistOf(model, "tiny.gguf", bench);
    expect(itemOf(first, "Generate and analyze reports").state).toBe("done");
    expect(itemOf(first, "Set appropriate batch sizes")).toMatchObject({ state: "done" });
    expect(itemOf(first, "Set appropriate batch sizes").evidence).toContain(
      "by benchmark_results.json 4 brings the most of those measured",
    );
    await writeResults(`${bench}/later.json`, {
      ...results,
      benchmark_info: { ...results.benchmark_info, timestamp: "2026-11-29T00:00:00Z" },
    });
    expect(itemOf(checklistOf(model, "tiny.gguf", bench), "Validate optimization impact")).toMatchObject({
      state: "not done",
      command: "tinyai benchmark impact --model tiny.gguf --output impact.html",
    });
    const impact = { ...madeUpImpact(), model: "tiny.gguf" };
    await Bun.write(`${bench}/impact.json`, JSON.stringify(impact));
    const validated = itemOf(checklistOf(model, "tiny.gguf", bench), "Validate optimization impact");
    expect(validated.state).toBe("done");
    expect(validated.evidence).toStartWith("impact.json: ");
  });

  test("programs of the folder turn what they call, by file and line, and only where they name tinyai", () => {
    const project = place("project");
    mkdirSync(`${project}/src`, { recursive: true });
    mkdirSync(`${project}/node_modules/tinyai`, { recursive: true });
    const program = 'import { loadModel } from "tinyai";\nconst model = await loadModel("tiny");\n';
    folder.write("project/src/app.ts", `${program}const monitor = model.monitor();\nawait model.profile(() => {});\n`);
    folder.write("project/speed.test.ts", 'import "tinyai/test";\n');
    folder.write("project/other.ts", "robot.monitor();\n");
    folder.write("project/node_modules/tinyai/index.js", '"tinyai"; model.setMemoryLimit(3);\n');
    const checklist = checklistOf(model, "tiny.gguf", project);
    expect(itemOf(checklist, "Enable performance monitoring")).toMatchObject({
      state: "done",
      evidence: "src/app.ts:3",
    });
    expect(itemOf(checklist, "Implement profiling").evidence).toBe("src/app.ts:4, speed.test.ts:1");
    expect(readFolder(project, "tiny.gguf").uses.limits).toEqual([]);
  });

  test("files that are damaged, empty, or something else are passed over", () => {
    const odd = place("odd");
    folder.write("odd/empty.json", "");
    folder.write("odd/cut.json", '{"run": {"model": "tiny.gguf"');
    folder.write("odd/list.json", "[1]");
    folder.write("odd/half.json", '{"run": {"model": "tiny.gguf", "startedAt": "x"}, "byKind": 3}');
    folder.write("odd/page.html", '<script id="report-data">AAAA</script>');
    folder.write("odd/impact.json", '{"model": "tiny.gguf", "measuredAt": "x", "effects": [3]}');
    expect(readFolder(odd, "tiny.gguf")).toMatchObject({ reports: [], impacts: [], results: [], cut: false });
  });
});
