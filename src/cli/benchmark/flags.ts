// The flags that `run` and `compare` share: what is measured, how often, and with which settings. Values out of bounds are refused
// where settings are put together (src/benchmark/config.ts), which knows the flags' names.

import type { Command } from "commander";
import { metricsOf, type Settings } from "../../benchmark/results.ts";
import { OptionError } from "../../errors.ts";
import { planBefore } from "../../estimate.ts";
import { numberFlag } from "../model.ts";

/** Flags as commander gives them. */
export interface BenchmarkFlags {
  readonly type?: string;
  readonly config?: string;
  readonly iterations?: string;
  readonly time?: string;
  readonly precision?: string;
  readonly warmup?: string;
  readonly loadings?: string;
  readonly batchSize?: string[];
  readonly metrics?: string[];
  readonly promptTokens?: string;
  readonly generatedTokens?: string;
  readonly threads?: string;
  readonly simd?: string;
  readonly seed?: string;
  readonly diskFolder?: string;
}

/** Adds them. */
export function addBenchmarkFlags(command: Command): Command {
  return command
    .option("--type <type>", "what is measured: inference (default), memory or system")
    .option("--config <file>", "settings from a file of JSON with comments; flags win over it")
    .option(
      "--iterations <count>",
      "iterations of each batch size (default: until the mean latency is known well enough); types memory and system: samples, if there is time",
    )
    .option(
      "--time <seconds>",
      "measure each batch size so long; with --precision or --iterations, so long at most (default: 60); types memory and system: all of it (60, 40)",
    )
    .option("--precision <share>", "enough: half the interval of the mean latency beside the mean (default: 0.02)")
    .option(
      "--warmup <count>",
      "iterations before the first that counts (default: until the times are steady; type memory: 3)",
    )
    .option(
      "--loadings <count>",
      "times that a model is loaded at least, iterations being spread over them (default: 10; models in turns: 20)",
    )
    .option("--batch-size <requests...>", "requests at once; several are measured one after another (default: 1)")
    .option("--metrics <name...>", "latency, throughput and memory, or some of them (default: all)")
    .option("--prompt-tokens <count>", "tokens of each prompt or text (default: 32)")
    .option("--generated-tokens <count>", "tokens generated for each prompt (default: 16)")
    .option("--threads <count>", "threads that compute (default: all CPUs but one, all of one or two)")
    .option("--simd <level>", "instruction-set level by name or number, 0 scalar to 3 the widest (default)")
    .option("--seed <number>", "draws orders and resamples (default: 1)")
    .option("--disk-folder <folder>", "type system: where a file is written and read (default: TinyAI's folder)");
}

/**
 * Looks at models before they are loaded.
 * @throws {OptionError} if a flag asks one for tokens that only embeds. A configuration may: it can be for several models.
 */
export async function checkGenerated(models: readonly string[], settings: Partial<Settings>): Promise<void> {
  if (!settings.generated_tokens) return;
  for (const model of models) {
    if (!(await planBefore(model)).wholePrompts) continue;
    throw new OptionError(
      "--generated-tokens",
      `is ${settings.generated_tokens}, but ${model} only embeds; leave it out`,
    );
  }
}

/** What the flags say, with what they do not say left out. @throws {OptionError} if one holds no number, or an unknown metric. */
export function flaggedSettings(flags: BenchmarkFlags): Partial<Settings> {
  const given = {
    iterations: numberFlag("iterations", flags.iterations),
    time_s: numberFlag("time", flags.time),
    precision: numberFlag("precision", flags.precision),
    warmup: numberFlag("warmup", flags.warmup),
    loadings: numberFlag("loadings", flags.loadings),
    batch_sizes: flags.batchSize?.map((size) => numberFlag("batch-size", size)),
    metrics: flags.metrics && metricsOf(flags.metrics),
    prompt_tokens: numberFlag("prompt-tokens", flags.promptTokens),
    generated_tokens: numberFlag("generated-tokens", flags.generatedTokens),
    threads: numberFlag("threads", flags.threads),
    simd: flags.simd,
    seed: numberFlag("seed", flags.seed),
    disk_folder: flags.diskFolder,
  };
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
}
