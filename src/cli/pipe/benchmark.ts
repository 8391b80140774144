// The methods of `tinyai pipe` that measure, and that read, write and judge what was measured.

import { analyzeResults } from "../../benchmark/analysis.ts";
import { resolveSettings } from "../../benchmark/config.ts";
import { findBenchmark } from "../../benchmark/registry.ts";
import { type BenchmarkType, benchmarkTypes, type Settings } from "../../benchmark/results.ts";
import { parseResults, readResults, writeResults } from "../../benchmark/results-file.ts";
import { runBenchmark } from "../../benchmark/run.ts";
import { describe } from "../../check.ts";
import { OptionError } from "../../errors.ts";
import type { Call } from "./methods.ts";
import { checkParameters, type Names, namingParameters } from "./parameters.ts";

/** Between two events that tell how far it is with the same. */
const progressMs = 100;

/** The flags that set the same; fails to compile when there is a setting that is not here. */
const flags: Names & Readonly<Record<keyof Settings, string>> = {
  model_path: "--model",
  benchmark_type: "--type",
  iterations: "--iterations",
  time_s: "--time",
  precision: "--precision",
  warmup: "--warmup",
  loadings: "--loadings",
  batch_sizes: "--batch-size",
  metrics: "--metrics",
  prompt_tokens: "--prompt-tokens",
  generated_tokens: "--generated-tokens",
  threads: "--threads",
  simd: "--simd",
  seed: "--seed",
  disk_folder: "--disk-folder",
};

/** Measures, with the settings of a configuration's file; models that were kept in memory are closed before. */
export async function run({ params, signal, models, tell }: Call): Promise<unknown> {
  const { model_path: model, benchmark_type: type, ...config } = checkParameters(params, Object.keys(flags));
  if (model !== undefined && typeof model !== "string") {
    throw new OptionError("model_path", `is ${describe(model)}; a path or the name of a model is expected`);
  }
  if (typeof type !== "string") {
    throw new OptionError("benchmark_type", `is ${describe(type)}; there are ${benchmarkTypes.join(", ")}`);
  }
  return await namingParameters(flags, async () => {
    await findBenchmark(type);
    const settings = resolveSettings(type as BenchmarkType, config);
    await models.closeIdle();
    let told = { doing: "", ms: Number.NEGATIVE_INFINITY };
    return await runBenchmark({
      model,
      type: type as BenchmarkType,
      settings,
      signal,
      onProgress(share, doing) {
        if (doing === told.doing && performance.now() - told.ms < progressMs) return;
        told = { doing, ms: performance.now() };
        void tell({ progress: share, doing });
      },
    });
  });
}

/** What can be said of results. */
export async function analyze({ params }: Call): Promise<unknown> {
  const { results } = checkParameters(params, ["results"]);
  const analysis = analyzeResults(parseResults(results, "results"));
  const { findings, conclusions, limits } = analysis;
  return { summary: analysis.summary(), findings, conclusions, limits };
}

/** The results in a file. */
export async function load({ params }: Call): Promise<unknown> {
  const { path } = checkParameters(params, ["path"]);
  return await readResults(pathOf(path));
}

/** Writes results as a file. */
export async function save({ params }: Call): Promise<unknown> {
  const { path, results } = checkParameters(params, ["path", "results"]);
  const checked = parseResults(results, "results");
  await namingParameters({ path: "--output" }, () => writeResults(pathOf(path), checked));
  return { path };
}

function pathOf(path: unknown): string {
  if (typeof path === "string" && path !== "" && !path.includes("\0")) return path;
  throw new OptionError("path", `is ${describe(path)}; the path of a file is expected`);
}
