// `tinyai benchmark trends`: how a figure changed over many files of results, as a picture or a page, and as text.

import { existsSync } from "node:fs";
import type { Command } from "commander";
import { checkTrendPath, writeTrends } from "../../benchmark/trend-file.ts";
import { trendsText } from "../../benchmark/trend-words.ts";
import { readTrendFiles, type TrendFile, trendsOf } from "../../benchmark/trends.ts";
import { checkInteger } from "../../check.ts";
import { OptionError } from "../../errors.ts";
import { checkOutput } from "../../output.ts";
import { endingAtOnce } from "../interrupt.ts";
import { numberFlag, printJson } from "../model.ts";
import { type Progress, startProgress } from "../progress.ts";

interface Flags {
  readonly results: string[];
  readonly metric?: string;
  readonly batchSize?: string[];
  readonly output: string;
  readonly failOnRegression?: boolean;
  readonly json?: boolean;
}

const defaultOutput = "trends.png";
const batchSizeMax = 1_000_000;
/** Reading that takes longer than this shows how far it is. */
const quietMs = 500;

/** Adds `tinyai benchmark trends`. */
export function registerTrends(benchmark: Command): void {
  benchmark
    .command("trends")
    .description("show how a figure changed over many files of results, and where its level did for good")
    .requiredOption("--results <file...>", "files of results, of one type; or patterns such as 'results_*.json'")
    .option("--metric <name>", "the figure: latency, first_token, throughput, memory, latency.p99 (default: latency)")
    .option("--batch-size <size...>", "batch sizes whose figures are shown (default: the first of each file)")
    .option("--output <file>", "the picture or page; its ending says how: .png, .svg, .html, .json", defaultOutput)
    .option("--fail-on-regression", "exit with status 1 if the newest change of a level is a regression")
    .option("--json", "print points and changes as one JSON document")
    .addHelpText(
      "after",
      `
Examples:
  tinyai benchmark trends --results results_*.json --metric latency --output trends.png
  tinyai benchmark trends --results results_*.json --metric throughput --batch-size 1 8 --output trends.html
  tinyai benchmark trends --results 'nightly/*.json' --metric latency.p99 --fail-on-regression

Files are ordered by the times in them. Each model, batch size, machine and setting has a line of its own.`,
    )
    .action(trends);
}

async function trends(flags: Flags): Promise<void> {
  const { output } = flags;
  const batchSizes = flags.batchSize?.map((size) =>
    checkInteger("--batch-size", numberFlag("batch-size", size), 1, batchSizeMax),
  );
  checkTrendPath(output, "--output");
  const paths = expanded(flags.results);
  checkOutput(
    "--output",
    output,
    paths.map((path) => [path, "one of the files of results"]),
  );
  const found = await endingAtOnce(async () =>
    trendsOf(await read(paths), {
      ...(flags.metric === undefined ? {} : { metric: flags.metric }),
      ...(batchSizes === undefined ? {} : { batchSizes }),
    }),
  );
  await writeTrends(output, found);
  process.stderr.write(`wrote ${output}\n`);
  if (flags.json) printJson(found);
  else process.stdout.write(trendsText(found));
  if (flags.failOnRegression && found.regressed) process.exitCode = 1;
}

/** The files that are named, with patterns replaced by what they find: a shell may have left them as they are. */
function expanded(names: readonly string[]): string[] {
  return names.flatMap((name) => {
    if (!/[*?[{]/.test(name) || existsSync(name)) return [name];
    const pattern = process.platform === "win32" ? name.replaceAll("\\", "/") : name;
    const found = [...new Bun.Glob(pattern).scanSync({ dot: false })].sort();
    if (found.length === 0) throw new OptionError("--results", `there is no file that fits ${name}`);
    return found;
  });
}

async function read(paths: readonly string[]): Promise<TrendFile[]> {
  const startedMs = performance.now();
  let progress: Progress | undefined;
  try {
    const files = await readTrendFiles(paths, (count) => {
      if (!progress && performance.now() - startedMs > quietMs && count < paths.length) {
        const label = `reading ${paths.length} files of results`;
        progress = startProgress({ label, unit: "seconds", total: paths.length, began_ms: startedMs });
      }
      progress?.update(count);
    });
    progress?.done();
    return files;
  } catch (error) {
    progress?.failed();
    throw error;
  }
}
