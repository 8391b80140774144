// `tinyai benchmark analyze`: says what files of results hold, and how far their figures can be trusted. It measures nothing.

import type { Command } from "commander";
import { type Analysis, analyzeResults } from "../../benchmark/analysis.ts";
import type { BenchmarkResults } from "../../benchmark/results.ts";
import { readResults } from "../../benchmark/results-file.ts";
import { OptionError } from "../../errors.ts";
import { checkOutput as checkFile } from "../../output.ts";
import { writeFile } from "../../profiling/file.ts";
import { endingAtOnce } from "../interrupt.ts";
import { printJson } from "../model.ts";

interface Flags {
  readonly results: string[];
  readonly output?: string;
  readonly json?: boolean;
}

/** Adds `tinyai benchmark analyze`. */
export function registerAnalyze(benchmark: Command): void {
  benchmark
    .command("analyze")
    .description("what results hold: figures computed anew from their samples, what is amiss, and what follows")
    .requiredOption("--results <file...>", "files of results, as tinyai benchmark run writes them")
    .option("--output <file>", "a page of one file's results, with charts (.html)")
    .option("--json", "print the analyses as one JSON document, a list with an item for each file")
    .addHelpText(
      "after",
      `
Examples:
  tinyai benchmark analyze --results benchmark_results.json
  tinyai benchmark analyze --results before.json after.json
  tinyai benchmark analyze --results benchmark_results.json --output results.html
  tinyai benchmark analyze --results benchmark_results.json --json

Several files are analysed one after another; tinyai benchmark compare says whether they differ.`,
    )
    .action(analyze);
}

async function analyze({ results: paths, output, json }: Flags): Promise<void> {
  if (output !== undefined) checkOutput(output, paths);
  const analyses = await endingAtOnce(async () => {
    // All are read before anything is said.
    const files = await Promise.all(paths.map(async (path) => ({ path, results: await readResults(path) })));
    return files.map(({ path, results }) => {
      const analysis = analyzeResults(results);
      return { path, results, analysis, summary: analysis.summary() };
    });
  });
  const [first] = analyses;
  try {
    if (output !== undefined && first) await writePage(output, first);
  } finally {
    // No page that cannot be written shall cost what is seen, and no output that is full the page.
    if (json) printJson(analyses.map(({ path, analysis, summary }) => ({ path, ...analysis, summary })));
    else {
      const texts = analyses.map(({ path, summary }) => (analyses.length === 1 ? summary : `${path}\n${summary}`));
      process.stdout.write(texts.join("\n"));
    }
  }
}

interface Analyzed {
  readonly path: string;
  readonly results: BenchmarkResults;
  readonly analysis: Analysis;
}

async function writePage(output: string, { path, results, analysis }: Analyzed): Promise<void> {
  const { resultsPage } = await import("../../benchmark/report.ts");
  const { findings, conclusions, limits } = analysis;
  // What was said when it was measured has a place of its own there.
  const found = findings.filter(({ kind }) => kind !== "measured").map(({ text }) => text);
  const sentences = [...conclusions, ...found, ...limits.map((text) => `Not known: ${text}`)];
  const page = await endingAtOnce(() => resultsPage(results, path, sentences));
  await writeFile(output, [page]);
  process.stderr.write(`wrote ${output}\n`);
}

function checkOutput(output: string, paths: readonly string[]): void {
  checkFile(
    "--output",
    output,
    paths.map((path) => [path, "the file of results itself"]),
  );
  if (!/\.html?$/i.test(output)) throw new OptionError("--output", `${output} has no ending of a page, .html`);
  if (paths.length > 1) {
    throw new OptionError("--output", "is a page of one file; tinyai benchmark compare makes one of several");
  }
}
