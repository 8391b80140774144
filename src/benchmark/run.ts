// Runs a benchmark of any type: the environment is checked before, watched meanwhile, and what was amiss is in the results.

import { statSync } from "node:fs";
import { basename } from "node:path";
import { OptionError } from "../errors.ts";
import { findBundled } from "../model/bundled.ts";
import { resolveModel } from "../model/resolve.ts";
import { openModelFile } from "../prepared.ts";
import { checkEnvironment, type EnvironmentFinding, watchEnvironment } from "./environment.ts";
import { provenance } from "./fingerprint.ts";
import { type Benchmark, findBenchmark, type Measured } from "./registry.ts";
import type { BenchmarkResults, BenchmarkType, Settings } from "./results.ts";
import { simdLevel } from "./simd-level.ts";

export interface RunOptions {
  /** A path, or the name of a pulled model; none of a type that measures the machine alone. */
  readonly model?: string | undefined;
  readonly type: BenchmarkType;
  readonly settings: Settings;
  /** Ends it; the results are of what was measured until then, and say so. */
  readonly signal?: AbortSignal | undefined;
  /** Called with what is done of it, 0 to 1, and what is being done. */
  readonly onProgress?: ((share: number, doing: string) => void) | undefined;
}

/**
 * Measures a model, or the machine.
 * @throws what `checkRun` does, before anything is measured.
 * @throws the signal's reason if it came before anything was measured.
 * @example
 * const settings = resolveSettings("inference", {}, { iterations: 100, batch_sizes: [1, 8] });
 * const { results } = await runBenchmark({ model: "gemma3-270m", type: "inference", settings });
 * console.log(results.latency?.mean);
 */
export async function runBenchmark(options: RunOptions): Promise<BenchmarkResults> {
  const { type, model, settings, signal, onProgress } = options;
  const benchmark = await checkRun(options);
  onProgress?.(0, "looking at the machine");
  const before = await checkEnvironment({ noise: true, ...(signal && { signal }) });
  signal?.throwIfAborted();
  const timestamp = new Date().toISOString();
  const watch = watchEnvironment();
  let measured: Measured | undefined;
  let meanwhile: readonly EnvironmentFinding[];
  try {
    measured = await benchmark.run({ model, settings, signal, onProgress });
  } finally {
    meanwhile = watch.stop(measured?.childrenMs);
  }
  const { figures, details, methodology, warnings, interrupted } = measured;
  const noise = before.noise === null ? [] : [noiseSentence(before.noise)];
  return {
    benchmark_info: {
      model: model === undefined ? "none" : basename(model),
      type,
      timestamp,
      ...provenance(),
      settings: measured.settings ?? settings,
      ...(details && { model_details: details }),
      methodology: [...methodology, ...noise],
      warnings: [
        ...amiss(before.findings).map((warning) => `before measuring: ${warning}`),
        ...amiss(meanwhile).map((warning) => `while measuring: ${warning}`),
        ...warnings,
      ],
      ...(interrupted && { interrupted }),
    },
    results: figures,
  };
}

/**
 * The benchmark that is run, if nothing is against it; whether the model can be opened is seen from its header.
 * @throws {OptionError} if there is no such type, model, level or folder, or the type measures no model.
 * @throws {ModelFileError} if the model's file is not there or damaged.
 */
export async function checkRun({ type, model, settings }: RunOptions): Promise<Benchmark> {
  const benchmark = await findBenchmark(type);
  if (benchmark.needsModel) {
    if (model === undefined) throw new OptionError("--model", `is missing; type ${type} measures a model`);
    if (!findBundled(model)) openModelFile(resolveModel(model));
  } else if (model !== undefined) {
    throw new OptionError("--model", `type ${type} measures no model; leave it out`);
  } else if (settings.disk_folder !== undefined && !isFolder(settings.disk_folder)) {
    throw new OptionError("--disk-folder", `there is no folder ${settings.disk_folder}; name another`);
  }
  if (settings.simd !== null) await simdLevel(settings.simd);
  return benchmark;
}

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}

/** What a reader of figures has to know of what was looked at, a sentence each. */
export function amiss(findings: readonly EnvironmentFinding[]): string[] {
  return findings.flatMap(({ name, verdict, found, remedy }) => {
    if (verdict !== "warning") return [];
    return `${name}: ${found}${remedy === undefined ? "" : `; ${remedy}`}`;
  });
}

function noiseSentence(noise: number): string {
  return `Before, the times of a fixed piece of work varied by ${(100 * noise).toFixed(2)} % (standard deviation beside the mean).`;
}
