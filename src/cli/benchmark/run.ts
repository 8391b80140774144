// `tinyai benchmark run`: measures a model, or this machine, writes the results, and says what they come to. Where it is interrupted, the
// results are of what was measured until then.

import type { Command } from "commander";
import { analyzeResults } from "../../benchmark/analysis.ts";
import { readBenchmarkConfig, resolveSettings } from "../../benchmark/config.ts";
import { findBenchmark } from "../../benchmark/registry.ts";
import type { BenchmarkResults, BenchmarkType } from "../../benchmark/results.ts";
import { writeResults } from "../../benchmark/results-file.ts";
import { checkRun, runBenchmark } from "../../benchmark/run.ts";
import { checkOutput, modelFiles } from "../../output.ts";
import { endingAtOnce, interruption } from "../interrupt.ts";
import { modelHelp, printJson } from "../model.ts";
import { awaitProgress } from "../progress.ts";
import { addBenchmarkFlags, type BenchmarkFlags, checkGenerated, flaggedSettings } from "./flags.ts";

interface Flags extends BenchmarkFlags {
  readonly model?: string;
  readonly output: string;
  readonly json?: boolean;
}

const outputDefault = "benchmark_results.json";

/** Adds `tinyai benchmark run`. */
export function registerRun(benchmark: Command): void {
  const command = benchmark
    .command("run")
    .description("measure a model, or this machine, and write the results")
    .option("--model <model>", `${modelHelp}; not of type system`);
  addBenchmarkFlags(command)
    .option("--output <file>", "where the results go", outputDefault)
    .option("--json", "print the results, as the file has them, instead of what they come to")
    .addHelpText(
      "after",
      `
Examples:
  tinyai benchmark run --model gemma3-270m --type inference
  tinyai benchmark run --model gemma3-270m --iterations 1000 --batch-size 8 --metrics latency throughput memory
  tinyai benchmark run --model all-minilm-l6-v2 --batch-size 1 4 16 --prompt-tokens 128 --output minilm.json
  tinyai benchmark run --type system --time 20 --json

Keep the machine quiet meanwhile. Ctrl-C ends it, and writes what was measured so far.`,
    )
    .action(run);
}

async function run(flags: Flags): Promise<void> {
  const signal = interruption();
  const { model, type = "inference", output } = flags;
  // Which flags there may be beside it is another question.
  await findBenchmark(type);
  const config = flags.config === undefined ? {} : await readBenchmarkConfig(flags.config);
  const flagged = flaggedSettings(flags);
  const settings = resolveSettings(type as BenchmarkType, config, flagged);
  checkOutput("--output", output, [
    ...(model === undefined ? [] : modelFiles(model)),
    ...(flags.config === undefined ? [] : [[flags.config, "the configuration itself"] as const]),
  ]);
  const options = { model, type: type as BenchmarkType, settings };
  await checkRun(options);
  if (model !== undefined) await checkGenerated([model], flagged);
  const label = `measuring ${model ?? "this machine"}`;
  const progress = awaitProgress({ label, unit: "seconds", total: 1 });
  let results: BenchmarkResults;
  try {
    results = await runBenchmark({ ...options, signal, onProgress: (share, doing) => progress.update(share, doing) });
  } catch (error) {
    progress.failed();
    if (signal.aborted) process.stderr.write(`interrupted before anything was measured; ${output} was not written\n`);
    throw error;
  }
  const { interrupted } = results.benchmark_info;
  progress.done(interrupted ? "interrupted; the results are of what was measured until now" : undefined);
  try {
    await writeResults(output, results);
    process.stderr.write(`wrote ${output}\n`);
  } finally {
    // No file that cannot be written shall cost what is seen, and no output that is full the file.
    if (flags.json) printJson(results);
    else process.stdout.write(`${await endingAtOnce(() => analyzeResults(results).summary())}\n`);
  }
}
