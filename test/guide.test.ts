// The performance guide: docs/guide.md names every call, field and enum of it, and what it gives for them type-checks, is there and is
// what the command line knows. Its own code runs as docs/examples/guide.md has it.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { usableCpus } from "../src/engine/cpu.ts";
import { cpu, Model } from "../src/index.ts";
import { root } from "../src/setup/checkout.ts";
import { runProgram } from "../src/setup/python.ts";
import { makeStage, readPage } from "./docs/pages.ts";
import { temporaryFolder } from "./support/folder.ts";
import { writeTinyModel } from "./support/tiny-model.ts";

setDefaultTimeout(60_000);

/** Every name in the guide's C code, by the calls and types that it stands in. */
const c = `
tinyaiEnableSIMD TINYAI_SIMD_OP_MATRIX_MUL TINYAI_SIMD_OP_CONV TINYAI_SIMD_OP_ACTIVATION TINYAI_SIMD_OP_ATTENTION
tinyaiSetSIMDOptimizationLevel
TinyAISIMDCapabilities tinyaiGetSIMDCapabilities avx2 avx512
TinyAICacheConfig block_size cache_line_size enable_prefetch prefetch_distance tinyaiConfigureCacheOptimization
tinyaiOptimizeMemoryLayout
TinyAICacheStats tinyaiGetCacheStats hit_rate
TinyAILayerSchedulerConfig enable_checkpointing memory_speed_tradeoff recompute_activations max_activation_memory
TinyAILayerScheduler tinyaiCreateLayerScheduler
TinyAIExecutionPlan tinyaiCreateExecutionPlan
TinyAIMemoryEstimate tinyaiEstimateMemoryUsage min_memory max_memory
TinyAIGenerationConfig max_length temperature top_k top_p batch_size
tinyaiGetCPUCoreCount tinyaiSetThreadCount tinyaiSetThreadAffinity
tinyaiSetCPULimit tinyaiSetMemoryLimit
TinyAIResourceUsage tinyaiGetResourceUsage cpu_usage memory_usage
TinyAIPerformanceConfig track_execution_time track_cache_usage sample_interval_ms
TinyAIPerformanceAnalysis tinyai_create_performance_analysis
tinyaiSetMonitoringInterval
TinyAIPerformanceMetrics tinyaiGetPerformanceMetrics inference_time throughput
tinyaiStartProfiling tinyaiGenerateText
TinyAIProfileResults tinyaiStopProfiling total_time memory_ops
tinyai_take_performance_sample tinyai_analyze_optimization_impact tinyai_generate_performance_report
`;

/** Of its command line, its Python API and its results format. */
const others = `
system --specs verify --env prepare --model run --type --iterations --batch-size --metrics
compare --models --config --results --output analyze trends --metric
benchmark.Config model_path benchmark_type iterations batch_sizes metrics benchmark.run benchmark.analyze analysis.summary
benchmark_info model type timestamp system_info cpu memory os
results latency throughput memory_usage mean std min max percentiles peak
`;

interface Row {
  /** What stands in code in the first cell. */
  readonly guide: readonly string[];
  /** In the second. */
  readonly here: readonly string[];
  /** The second cell as a whole. */
  readonly text: string;
  /** Such as `docs/guide.md:12`. */
  readonly at: string;
}

const folder = temporaryFolder();
const page = readPage("docs/guide.md");
const rows = page.text.split("\n").flatMap((line, index): Row[] => {
  const cells = line.split(/(?<!\\)\|/).map((cell) => cell.trim());
  if (cells.length !== 5 || /^-+$/.test(cells[1] ?? "") || cells[1] === "the guide") return [];
  const [, guide = "", here = ""] = cells;
  const code = (cell: string) => [...cell.matchAll(/`([^`]+)`/g)].map(([, text = ""]) => text);
  return [{ guide: code(guide), here: code(here), text: here, at: `${page.path}:${index + 1}` }];
});
const isCommand = (code: string) => code.startsWith("tinyai ");

describe("the table of the guide's names", () => {
  test("has every one of them, and none that the guide has not", () => {
    const words = (text: string) => new Set(text.split(/\s+/).filter((word) => word !== ""));
    const wanted = words(c).union(words(others));
    const there = words(rows.flatMap(({ guide }) => guide).join(" ")).difference(new Set(["tinyai", "benchmark"]));
    expect(wanted.difference(there)).toEqual(new Set());
    expect(there.difference(wanted)).toEqual(new Set());
  });

  test("gives each a name of ours, or says that it is the same", () => {
    const empty = rows.filter(({ here, text }) => here.length === 0 && text !== "the same");
    expect(empty.map(({ at }) => at)).toEqual([]);
    // Of C, all of it.
    const calls = new Set(c.trim().split(/\s+/));
    const missing = rows.filter(({ guide, here }) => here.length === 0 && guide.every((name) => calls.has(name)));
    expect(missing.map(({ at }) => at)).toEqual([]);
  });

  test("says the same of fields that results have, and of names that the Python package has", () => {
    const names = rows.filter(({ text }) => text === "the same").flatMap(({ guide }) => guide);
    expect(names.length).toBeGreaterThan(20);
    const python = ["__init__.py", "_config.py", "_results.py"].map((name) => `python/tinyai/benchmark/${name}`);
    const there = ["src/benchmark/results.schema.json", ...python].map((path) =>
      readFileSync(join(root, path), "utf8"),
    );
    const missing = names.filter((name) => {
      const word = new RegExp(`\\b${name.split(".").at(-1)}\\b`);
      return !there.some((text) => word.test(text));
    });
    expect(missing).toEqual([]);
  });

  test("gives code that type-checks", async () => {
    const code = rows.flatMap(({ here, at }) => here.filter((each) => !isCommand(each)).map((each) => ({ each, at })));
    const head = [
      'import { cpu, createPerformanceAnalysis, recommendedBatchSize } from "tinyai";',
      'import type { LayerScheduler, Model, PerformanceAnalysis } from "tinyai";',
      "declare const model: Model;",
      "declare const analysis: PerformanceAnalysis;",
      "declare const scheduler: LayerScheduler;",
      "declare const prompt: string;",
      "void [cpu, createPerformanceAnalysis, recommendedBatchSize];",
    ];
    const file = folder.write(
      "names.ts",
      [...head, ...code.map(({ each }) => `void (${each});`), "export {};", ""].join("\n"),
    );
    const settings = {
      extends: join(root, "tsconfig.json"),
      compilerOptions: {
        paths: { tinyai: [join(root, "src/index.ts")] },
        typeRoots: [join(root, "node_modules/@types")],
      },
      files: [file],
    };
    const project = folder.write("tsconfig.json", JSON.stringify(settings));
    const { stdout } = await runProgram([join(root, "node_modules/.bin/tsc"), "--pretty", "false", "-p", project]);
    const problems = [...stdout.matchAll(/^[^\n(]*names\.ts\((\d+),\d+\): error (.*)$/gm)].map(([, line, error]) => {
      const { each, at } = code[Number(line) - 1 - head.length] ?? {};
      return `${at}: ${each}: ${error}`;
    });
    expect(problems).toEqual([]);
    expect(stdout).toBe("");
  });

  test("names methods of a model that are there when it runs", () => {
    const names = rows.flatMap(({ here }) => here.map((code) => /\bmodel\.(\w+)/.exec(code)?.[1])).filter(Boolean);
    expect(names.length).toBeGreaterThan(20);
    expect(names.filter((name) => !(`${name}` in Model.prototype))).toEqual([]);
  });

  test("names verbs that the command line has", async () => {
    const commands = new Set(rows.flatMap(({ here }) => here.filter(isCommand)));
    expect(commands.size).toBeGreaterThan(0);
    for (const command of commands) {
      const [, ...words] = command.split(" ");
      const verbs = words.filter((word) => !word.startsWith("--"));
      const { status, stdout } = await runProgram([
        process.execPath,
        join(root, "src/cli/main.ts"),
        ...verbs,
        "--help",
      ]);
      const missing = words.filter((word) => word.startsWith("--") && !new RegExp(`^ +${word}\\b`, "m").test(stdout));
      expect({ command, status, missing, usage: stdout.includes(`tinyai ${verbs.join(" ")}`) }).toEqual({
        command,
        status: 0,
        missing: [],
        usage: true,
      });
    }
  });
});

describe("the guide's code", () => {
  const example = readPage("docs/examples/guide.md");
  const program = example.blocks.find(({ language }) => language === "ts")?.text ?? "";

  test("is there line by line: every call, with the guide's values", () => {
    const calls = rows.filter(({ guide }) => guide.some((name) => /^tinyai(_|[A-Z])/.test(name)));
    const methods = calls.flatMap(({ here }) => here.map((code) => /(\w+)(?=[(]|$)/.exec(code)?.[1] ?? code));
    expect(methods.filter((name) => !program.includes(name))).toEqual([]);
    const values = [
      ...['"matmul", true', '"conv", true', '"activation", true', '"attention", true', "setSimdOptimizationLevel(3)"],
      ...["blockSize: 64", "cacheLineSize: 64", "enablePrefetch: true", "prefetchDistance: 2"],
      ...["enableCheckpointing: true", "memorySpeedTradeoff: 0.7", "recomputeActivations: false"],
      ...["maxActivationMemory: 256 * 1024 * 1024", "maxLength: 100", "temperature: 0.7", "topK: 50", "topP: 0.9"],
      ...["batchSize: 8", "cores - 1", "[0, 1]", "[1, 2]", "setCpuLimit(90)", "setMemoryLimit(80)"],
      ...["trackExecutionTime: true", "trackCacheUsage: true", "sampleIntervalMs: 100", "setMonitoringInterval(1000)"],
      '"performance_report.txt"',
    ];
    expect(values.filter((value) => !program.includes(value))).toEqual([]);
  });

  test("runs, and what it prints is possible", async () => {
    const home = folder.file("home");
    mkdirSync(join(home, "models"), { recursive: true });
    const shape = { architecture: "gemma3", dtype: "Q8_0", heads: 2, headWidth: 32, context: 1024 } as const;
    writeTinyModel(join(home, "models", "gemma3-270m.gguf"), shape);
    const stage = makeStage(folder.file("stage"), home, false);
    const place = stage.folder(example.path);
    writeFileSync(join(place, "guide.ts"), program);
    const env = { ...process.env, TINYAI_HOME: home, TINYAI_TUNING: "off" };
    const { status, stdout, stderr } = await runProgram([process.execPath, "guide.ts"], { cwd: place, env });
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });

    const printed = (name: string) => new RegExp(`^${name}: (.*)$`, "m").exec(stdout)?.[1];
    const figure = (name: string) => Number.parseFloat(printed(name) ?? "");
    const { avx2, avx512 } = cpu.simd;
    expect([printed("AVX2 Support"), printed("AVX512 Support")]).toEqual(
      [avx2, avx512].map((has) => (has ? "Yes" : "No")),
    );
    for (const percent of ["Cache hit rate", "CPU Usage", "Memory Usage"]) {
      expect(figure(percent)).toBeGreaterThanOrEqual(0);
      expect(figure(percent)).toBeLessThanOrEqual(100);
    }
    expect(figure("Minimum memory")).toBeLessThanOrEqual(figure("Maximum memory"));
    for (const amount of ["Inference time", "Throughput", "Total time", "Memory operations"]) {
      expect(figure(amount)).toBeGreaterThan(0);
    }
    // Threads are pinned where the core and the thread are there.
    const threads = Math.max(1, cpu.cores - 1);
    const cores = usableCpus();
    for (const [thread, core] of [
      [0, 1],
      [1, 2],
    ] as const) {
      const there = thread < threads && (cores?.includes(core) ?? false);
      expect(stdout.includes(`Thread ${thread} was not pinned`)).toBe(!there);
    }
    expect(existsSync(join(place, "performance_report.txt"))).toBe(true);
  });
});
