// `tinyai benchmark prepare`: makes a model's file ready to be measured in the working folder, as a configuration says, and checks the
// configuration with it.

import type { Command } from "commander";
import { readBenchmarkConfig } from "../../benchmark/config.ts";
import { type PreparedBenchmark, prepareBenchmark } from "../../benchmark/prepare.ts";
import { formatBytes } from "../../text-table.ts";
import { interruption } from "../interrupt.ts";
import { modelHelp, printJson } from "../model.ts";
import { awaitProgress } from "../progress.ts";

interface Flags {
  readonly model: string;
  readonly config?: string;
  readonly output?: string;
  readonly json?: boolean;
}

/** Adds `tinyai benchmark prepare`. */
export function registerPrepare(benchmark: Command): void {
  benchmark
    .command("prepare")
    .description("make a model's file ready to be measured, and check a configuration with it")
    .requiredOption("--model <model>", modelHelp)
    .option("--config <file>", "a benchmark's configuration: JSON with comments")
    .option(
      "--output <file>",
      "where the file is written (default: the model's name with .tinyai, in the working folder)",
    )
    .option("--json", "print what was done as one JSON document")
    .addHelpText(
      "after",
      `
Examples:
  tinyai benchmark prepare --model gemma3-270m
  tinyai benchmark prepare --model model.gguf --config benchmark_config.json
  tinyai benchmark prepare --model model-f16.gguf --output model-q4.tinyai --config benchmark_config.json

The configuration's keys quantize, tune_s and measure_roofs say what is done; those of measuring are checked with the model, so that
what does not suit it is said now. A file that was made of the same model is kept; no other than a prepared file is replaced.`,
    )
    .action(prepare);
}

async function prepare({ model, config: configPath, output, json }: Flags): Promise<void> {
  const signal = interruption();
  const config = configPath === undefined ? {} : await readBenchmarkConfig(configPath);
  const progress = awaitProgress({ label: `preparing ${model}`, unit: "seconds", total: 1 });
  let prepared: PreparedBenchmark;
  try {
    prepared = await prepareBenchmark(model, {
      config,
      output,
      signal,
      onProgress: progress.update,
    });
  } catch (error) {
    progress.failed();
    if (signal.aborted) process.stderr.write("interrupted before the file was ready\n");
    throw error;
  }
  progress.done(prepared.interrupted ? "interrupted; the file is ready, but not all was measured" : undefined);
  if (json) printJson(prepared);
  else process.stdout.write(formatPrepared(prepared));
}

function formatPrepared({ path, file, bytes, quantized, tuned, roofs, settings }: PreparedBenchmark): string {
  const how = { made: "made", copied: "copied", kept: "as it was: it is of the same model" }[file];
  const lines = [`${path}: ${formatBytes(bytes)}, ${how}`];
  if (quantized) {
    const { type, bytesBefore, bytes: after } = quantized;
    lines.push(`quantized to ${type}: ${formatBytes(bytesBefore)} became ${formatBytes(after)}`);
  }
  if (tuned) {
    const threads = tuned.threads === 1 ? "1 thread" : `${tuned.threads} threads`;
    lines.push(`tuned: ${threads}, batches of ${tuned.batchSize}; kept in ${tuned.path}`);
  }
  if (roofs !== null) lines.push(`the machine's bandwidth and arithmetic: ${roofs}`);
  const { batch_sizes, prompt_tokens, generated_tokens, metrics } = settings;
  const generated = generated_tokens > 0 ? ` and ${generated_tokens} generated` : "";
  lines.push(
    `a benchmark of it: batch sizes ${batch_sizes.join(", ")}; prompts of ${prompt_tokens} tokens${generated}; ${metrics.join(", ")}`,
  );
  return `${lines.join("\n")}\n`;
}
