// `tinyai benchmark compare`: files of results with each other, or models in turns. The verdicts are printed as a table, and written as a
// page. Where it is interrupted, the rounds until then are compared.

import { join } from "node:path";
import type { Command } from "commander";
import { plainLines } from "../../../profiler/words.ts";
import {
  type ComparisonReport,
  compareResults,
  comparisonJson,
  type MetricComparison,
  namesOf,
} from "../../benchmark/compare.ts";
import { type BenchmarkConfig, readBenchmarkConfig, resolveSettings } from "../../benchmark/config.ts";
import { figureText, metricText } from "../../benchmark/page/words.ts";
import { findBenchmark } from "../../benchmark/registry.ts";
import type { BenchmarkType } from "../../benchmark/results.ts";
import { readResults, writeResults } from "../../benchmark/results-file.ts";
import { compareModels } from "../../benchmark/turns.ts";
import { BenchmarkFileError, OptionError } from "../../errors.ts";
import { checkOutput, type InputFile, modelFiles } from "../../output.ts";
import { writeFile } from "../../profiling/file.ts";
import { formatTable } from "../../text-table.ts";
import { endingAtOnce, interruption } from "../interrupt.ts";
import { modelHelp, printJson } from "../model.ts";
import { awaitProgress } from "../progress.ts";
import { addBenchmarkFlags, type BenchmarkFlags, checkGenerated, flaggedSettings } from "./flags.ts";

interface Flags extends BenchmarkFlags {
  readonly models?: string[];
  readonly results?: string[];
  readonly output: string;
  readonly save?: string;
  readonly json?: boolean;
}

const outputDefault = "comparison_report.html";

/** Adds `tinyai benchmark compare`. */
export function registerCompare(benchmark: Command): void {
  const command = benchmark
    .command("compare")
    .description("compare models, which are measured in turns, or files of results; the first is the base")
    .option("--models <model...>", `two or more, each a ${modelHelp}`)
    .option("--results <file...>", "two or more files that tinyai benchmark run wrote");
  addBenchmarkFlags(command)
    .option("--output <file>", "the report, a page of HTML", outputDefault)
    .option("--save <folder>", "with --models: also write each model's results there, for later comparisons")
    .option("--json", "print the comparison, with all samples, as one JSON document")
    .addHelpText(
      "after",
      `
Examples:
  tinyai benchmark compare --models model_v1.tinyai model_v2.tinyai --type inference
  tinyai benchmark compare --models gemma3-270m gemma3-270m --iterations 100
  tinyai benchmark compare --results results_v1.json results_v2.json --output comparison_report.html

Models are loaded together and asked in turns, in rounds of random order, and loaded anew for each block of rounds, of which there are
twenty or more (--loadings): an iteration is a round, and --precision is that of the change. The same model twice shows what chance does. Ctrl-C ends it and compares the rounds until then.`,
    )
    .action(compare);
}

async function compare(flags: Flags): Promise<void> {
  const { models, results, output, save } = flags;
  if ((models === undefined) === (results === undefined)) {
    throw new OptionError("--models", "is for measuring, --results for files of results; give one of the two");
  }
  checkOutput("--output", output, inputsOf(flags));
  if (!/\.html?$/i.test(output)) {
    throw new OptionError("--output", `${output} has no ending of a page, .html; --json prints the figures`);
  }
  const config = flags.config === undefined ? {} : await readBenchmarkConfig(flags.config);
  const report = results
    ? await endingAtOnce(() => ofResults(results, flags, config))
    : await ofModels(models ?? [], flags, config);
  try {
    const { comparisonPage } = await import("../../benchmark/report.ts");
    // What was measured is kept whenever the signal comes.
    const page = results ? await endingAtOnce(() => comparisonPage(report)) : comparisonPage(report);
    await writeFile(output, [page]);
    process.stderr.write(`wrote ${output}\n`);
    if (save !== undefined) await saveResults(save, report);
  } finally {
    // No file that cannot be written shall cost what is seen, and no output that is full the files.
    if (flags.json) printJson(comparisonJson(report));
    else process.stdout.write(comparisonText(report));
  }
}

async function saveResults(save: string, report: ComparisonReport): Promise<void> {
  for (const [place, { results: measured }] of report.compared.entries()) {
    const file = savedPath(save, place, measured.benchmark_info.model);
    await writeResults(file, measured);
    process.stderr.write(`wrote ${file}\n`);
  }
}

function inputsOf({ models = [], results = [], config }: Flags): readonly InputFile[] {
  return [
    ...models.flatMap(modelFiles),
    ...results.map((path): InputFile => [path, "a file of results that is compared"]),
    ...(config === undefined ? [] : [[config, "the configuration itself"] as const]),
  ];
}

async function ofResults(paths: readonly string[], flags: Flags, config: BenchmarkConfig): Promise<ComparisonReport> {
  const {
    type,
    models: _models,
    results: _results,
    output: _output,
    json: _json,
    config: _config,
    ...measuring
  } = flags;
  const [unused] = Object.keys(measuring);
  if (unused !== undefined) {
    const flag = unused.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
    throw new OptionError(`--${flag}`, "is for measuring, but --results compares what was measured; leave it out");
  }
  const names = namesOf(paths);
  const compared = [];
  for (const [place, path] of paths.entries()) {
    const results = await readResults(path);
    const found = results.benchmark_info.type;
    if (type !== undefined && found !== type) {
      throw new BenchmarkFileError(path, `is of type ${found}, but --type asks for ${type}`);
    }
    compared.push({ name: names[place] ?? path, results });
  }
  return compareResults(compared, { level: config.confidence_level });
}

async function ofModels(models: readonly string[], flags: Flags, config: BenchmarkConfig): Promise<ComparisonReport> {
  const { type = "inference", save } = flags;
  await findBenchmark(type);
  // What it found is one of them.
  const flagged = flaggedSettings(flags);
  const settings = resolveSettings(type as BenchmarkType, config, flagged);
  if (save !== undefined) {
    const written: readonly InputFile[] = [...inputsOf(flags), [flags.output, "what --output names as well"]];
    for (const [place, name] of namesOf(models).entries()) checkOutput("--save", savedPath(save, place, name), written);
  }
  await checkGenerated(models, flagged);
  const signal = interruption();
  const progress = awaitProgress({ label: `comparing ${models.join(", ")}`, unit: "seconds", total: 1 });
  try {
    const level = config.confidence_level;
    const options = { models, type: type as BenchmarkType, settings, level, signal };
    const report = await compareModels({ ...options, onProgress: (share, doing) => progress.update(share, doing) });
    progress.done(report.interrupted ? "interrupted; the comparison is of the rounds until then" : undefined);
    return report;
  } catch (error) {
    progress.failed();
    if (signal.aborted) process.stderr.write("interrupted before anything could be compared\n");
    throw error;
  }
}

function savedPath(folder: string, place: number, model: string): string {
  return join(folder, `results_${place + 1}_${model.replaceAll(/[^\w.-]+/g, "_")}.json`);
}

/** The verdicts as a table for each of those compared with the first, and what has to be known of them. */
function comparisonText({ compared, comparisons, warnings, paired }: ComparisonReport): string {
  const base = compared[0]?.name ?? "";
  const several = new Set(comparisons.map(({ batchSize }) => batchSize)).size > 1;
  const row = ({ metric, unit, batchSize, base, figure, sentence }: MetricComparison) => [
    metricText(metric, batchSize, several),
    figureText(base, unit),
    figureText(figure, unit),
    sentence,
  ];
  const tables = compared.slice(1).map(({ name }, place) => {
    const shown = comparisons.filter(({ other }) => other === place + 1);
    const what = shown.some(({ statistic }) => statistic === "median") ? "median" : "";
    return formatTable([[what, base, name, ""], ...shown.map(row)]);
  });
  const said = warnings.length === 0 ? [] : [`${warnings.map((warning) => `warning: ${warning}`).join("\n")}\n`];
  const differs = comparisons.some(({ comparison }) => comparison && comparison.verdict !== "undecided");
  const doubt = "Differences may be the machine's own, which was not quiet or not the same: see the warnings.\n";
  return plainLines([...tables, ...(differs && !paired && warnings.length > 0 ? [doubt] : []), ...said].join("\n"));
}
