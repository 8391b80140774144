// `tinyai tune`: measures by hand what this machine prefers, and what it does at most; shows what was tried and found. What one model
// prefers (`--model`) is tune-model.ts's.

import type { Command } from "commander";
import type { MachineRoofs } from "../../profiler/report.ts";
import { grouped } from "../../profiler/words.ts";
import { checkInteger } from "../check.ts";
import { chooseLevel } from "../engine/cpu.ts";
import { openLibrary } from "../engine/library.ts";
import type { Knob, Prefetch, Tried } from "../engine/tuning.ts";
import { EngineError, OptionError } from "../errors.ts";
import { defaultThreads } from "../knobs/threads.ts";
import { measureMachine, roofsPath } from "../roofs.ts";
import { tuneMachine } from "../tuning.ts";
import { modelHelp } from "./model.ts";
import { budgetDefault_s, tuneModelVerb } from "./tune-model.ts";

function formatValue(value: Prefetch | number): string {
  if (typeof value === "number") return `up to ${value} tokens`;
  if (value.lines === "none") return "none";
  return `${value.lines === "all" ? "all lines" : "a line in 16 rows by 32 columns"}, ${value.distance} blocks ahead`;
}

const titles: Readonly<Record<Knob, string>> = {
  byte: "prefetching of 8-bit codes",
  packed: "prefetching of packed codes",
  float: "prefetching of float values",
  fewTokens: "tokens that decode packed codes four at a time",
};

function formatTried({ knob, values, chosen }: Tried): string {
  const usual = values[0]?.time_ns ?? Number.NaN;
  const lines = values.map(({ value, time_ns }, index) => {
    const change = index === 0 ? "without tuning" : `${((time_ns / usual - 1) * 100).toFixed(1)} % of time`;
    return `  ${Bun.deepEquals(value, chosen) ? "*" : " "} ${formatValue(value).padEnd(40)}${change}\n`;
  });
  return `${titles[knob]}\n${lines.join("")}`;
}

function formatRoofs({ bandwidth, peaks }: MachineRoofs): string {
  const read = bandwidth.map(({ name, read }) => `${name} ${grouped(read, 1)}`).join(", ");
  const measured = Object.entries(peaks).filter(([, peak]) => peak > 0);
  const peak = measured.map(([name, peak]) => `${name} ${grouped(peak, 0)}`).join(", ");
  return `roofs of profiles\n  reading, GB/s: ${read}\n  arithmetic, 10^9 operations/s: ${peak}\n`;
}

interface Flags {
  readonly model?: string;
  readonly budget?: string;
  readonly threads?: string;
  readonly json?: boolean;
}

/** Adds `tinyai tune`. */
export function registerTune(program: Command): void {
  program
    .command("tune")
    .description("measure what this machine prefers, for generation, and what it does at most, for profiles")
    .option("--model <model>", `${modelHelp}: to try its settings instead`)
    .option("--budget <seconds>", `how long that takes, about (default: ${budgetDefault_s})`)
    .option("--threads <n>", `threads to measure for, without a model (default: ${defaultThreads()})`)
    .option("--json", "print what was measured and chosen as JSON")
    .addHelpText(
      "after",
      `
Examples:
  tinyai tune
  tinyai tune --model gemma3-270m --budget 120
  TINYAI_SIMD=avx2 tinyai tune --threads 1

With a model it tries threads, prefetching, block sizes and batch sizes, keeps what was shown to be faster in
$TINYAI_HOME/model-tuning, and that model is loaded so from then on, but for the batch size, which is only recommended:
loadModel has to be given it. Without one it takes 2 to 4 seconds and is kept in $TINYAI_HOME/tuning and $TINYAI_HOME/roofs. All
are in the user's cache folder where TINYAI_HOME is not set. Making a model's prepared copy tunes the machine by itself, the first
profile measures the roofs; do both anew on a quiet machine if that one was busy. No result of a model depends on it. TINYAI_TUNING=off does without tuning.`,
    )
    .action(async (options: Flags) => {
      const { model } = options;
      if (model !== undefined && options.threads !== undefined) {
        throw new OptionError("--threads", "is tried where a model is tuned; leave it out, or leave --model out");
      }
      if (model !== undefined) return tuneModelVerb({ ...options, model });
      if (options.budget !== undefined) throw new OptionError("--budget", "is for one model; name it with --model");
      const threads =
        options.threads === undefined ? defaultThreads() : checkInteger("threads", Number(options.threads), 1, 64);
      const library = await openLibrary();
      const level = chooseLevel(library, undefined);
      const tuned = await tuneMachine(library, level.index, threads);
      const roofs = tuned && (await measureMachine(library, level.index, threads));
      if (!roofs) throw new EngineError("the machine could not be measured");
      if (options.json) process.stdout.write(`${JSON.stringify({ ...tuned, roofs })}\n`);
      else {
        process.stdout.write(`${level.name}, ${threads} ${threads === 1 ? "thread" : "threads"}\n\n`);
        process.stdout.write(tuned.tried.map(formatTried).join(""));
        process.stdout.write(formatRoofs(roofs));
        process.stderr.write(`\n${tuned.path}\n${roofsPath(library, level.index, threads)}\n`);
      }
    });
}
