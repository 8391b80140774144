// `tinyai benchmark impact`: switches each optimisation of a model off alone and on alone, and shows what each contributes. Where it is
// interrupted, it shows what was measured until then.

import type { Command } from "commander";
import { impactSection, type OptimizationImpact } from "../../../profiler/impact.ts";
import { sectionLines } from "../../../profiler/text.ts";
import { writeText } from "../../benchmark/work.ts";
import { checkNumber } from "../../check.ts";
import { OptionError } from "../../errors.ts";
import { analyzeOptimizationImpact } from "../../impact.ts";
import { loadModel } from "../../load.ts";
import { checkOutput, modelFiles } from "../../output.ts";
import { reportEnding } from "../../profiling/file.ts";
import { addImpact } from "../../profiling/index.ts";
import { interruption } from "../interrupt.ts";
import { modelHelp, numberFlag, printJson } from "../model.ts";
import { startProgress } from "../progress.ts";

interface Flags {
  readonly model: string;
  readonly budget?: string;
  readonly only?: string[];
  readonly output?: string;
  readonly json?: boolean;
}

const budgetDefault_s = 120;
/** Formats that the figures are in. */
const endings: readonly string[] = [".html", ".txt", ".json"];
/** Tokens that the run generates whose report `--output` writes. */
const reportedTokens = 32;

/** Adds `tinyai benchmark impact`. */
export function registerImpact(benchmark: Command): void {
  benchmark
    .command("impact")
    .description("what each optimisation contributes: each is switched off alone and on alone, in turns")
    .requiredOption("--model <model>", modelHelp)
    .option("--budget <seconds>", `how long it takes, about (default: ${budgetDefault_s})`)
    .option("--only <name...>", "optimisations to switch (default: all)")
    .option("--output <file>", `a report of a run with these figures; its ending says how: ${endings.join(", ")}`)
    .option("--json", "print the figures as one JSON document")
    .addHelpText(
      "after",
      `
Examples:
  tinyai benchmark impact --model gemma3-270m
  tinyai benchmark impact --model gemma3-270m --only simd threads --budget 60
  tinyai benchmark impact --model gemma3-270m --output report.html --json

Keep the machine quiet meanwhile. Ctrl-C ends it and shows what was measured so far.`,
    )
    .action(impact);
}

async function impact(flags: Flags): Promise<void> {
  const signal = interruption();
  const budgetMs = Math.round(
    1000 * checkNumber("--budget", numberFlag("budget", flags.budget) ?? budgetDefault_s, 0, 86_400),
  );
  const { output } = flags;
  if (output !== undefined) {
    checkOutput("--output", output, modelFiles(flags.model));
    if (!endings.includes(reportEnding(output) ?? "")) {
      throw new OptionError(
        "--output",
        `${output} has no ending of a report with these figures: ${endings.join(", ")}`,
      );
    }
  }
  const progress = startProgress({ label: `switching the optimisations of ${flags.model}`, unit: "seconds", total: 1 });
  let measured: OptimizationImpact;
  try {
    measured = await analyzeOptimizationImpact(flags.model, {
      budgetMs,
      only: flags.only,
      signal,
      onProgress: (share) => progress.update(share),
    });
  } catch (error) {
    progress.failed();
    if (signal.aborted) process.stderr.write("interrupted before anything could be compared\n");
    throw error;
  }
  progress.done(measured.interrupted ? "interrupted; the figures are of what was measured until now" : undefined);
  try {
    if (output !== undefined && measured.interrupted) process.stderr.write(`interrupted: ${output} was not written\n`);
    else if (output !== undefined) await writeReport(flags.model, output, measured);
  } finally {
    // No report that cannot be written shall cost what is seen, and no output that is full the report.
    if (flags.json) printJson(measured);
    else process.stdout.write(formatImpact(measured));
  }
}

function formatImpact(impact: OptimizationImpact): string {
  const { title, ...section } = impactSection(impact);
  return `${sectionLines({ ...section, title: `${title} of ${impact.model}` }).join("\n")}\n`;
}

/** A run of the model as it is by default, with the impact in its report. */
async function writeReport(model: string, path: string, impact: OptimizationImpact): Promise<void> {
  await using loaded = await loadModel(model);
  loaded.startProfiling();
  if (loaded.plan().wholePrompts) await loaded.embed("a text whose vector is made");
  else await writeText(loaded, reportedTokens);
  await addImpact(await loaded.finishProfiling(), impact).write(path);
  process.stderr.write(`wrote ${path}\n`);
}
