// `tinyai profile`: generates after a prompt, or embeds it where the model does just that, while everything is watched, shows
// where time and bytes went, and writes the report in files. What would not be written for another reason than a full disk is
// refused before the model is loaded. Where it is interrupted, the report is of what ran until then.

import type { Command } from "commander";
import { formatReport } from "../../profiler/terminal.ts";
import { count } from "../../profiler/words.ts";
import { checkInteger } from "../check.ts";
import { OptionError } from "../errors.ts";
import { checkGenerateOptions } from "../generate/options.ts";
import { resolveModel } from "../model/resolve.ts";
import { identity, modelFiles } from "../output.ts";
import { sequencesMax } from "../plan/layout.ts";
import { checkFilePath, type ReportEnding, reportEnding, reportEndings } from "../profiling/file.ts";
import type { ProfiledRun } from "../profiling/index.ts";
import { interruption } from "./interrupt.ts";
import {
  addGenerationFlags,
  addModelFlags,
  type GenerationFlags,
  generationOptions,
  loadFromFlags,
  type ModelFlags,
  numberFlag,
  printJson,
} from "./model.ts";
import { startProgress } from "./progress.ts";

interface Flags extends ModelFlags, GenerationFlags {
  readonly prompt: string;
  readonly runs?: string;
  readonly deterministic?: boolean;
  /** False where `--no-cache` was given; so the next two. */
  readonly cache: boolean;
  readonly prefetcher: boolean;
  readonly roofline: boolean;
  readonly report?: string;
  readonly trace?: string;
  readonly text?: string;
  readonly folded?: string;
  readonly speedscope?: string;
  readonly json?: boolean;
}

/** Flags that stand for a format, whatever the file is called; its ending may only not name another one. */
const formatFlags = { trace: ".trace.json", text: ".txt", folded: ".folded", speedscope: ".speedscope.json" } as const;

/** Formats that show each moment of a run. */
const traceEndings: ReadonlySet<ReportEnding> = new Set([".trace.json", ".speedscope.json"]);

const runsMax = 10_000;

/** Adds `tinyai profile`. */
export function registerProfile(program: Command): void {
  const command = program.command("profile").description("where the time and the bytes of a generation went");
  addGenerationFlags(addModelFlags(command).requiredOption("--prompt <text>", "the text to go on from, or to embed"))
    .option("--runs <count>", "generate so often, each time from the prompt's first token (default: 1)")
    .option("--deterministic", "count on a fixed machine's caches, so that counts are the same on every machine")
    .option("--no-cache", "do without cache statistics, for which some steps are simulated afterwards")
    .option("--no-prefetcher", "simulate the caches without a hardware prefetcher")
    .option("--no-roofline", "do without the roofline, for which this machine is measured once for a few seconds")
    .option("--report <file>", `the report; its ending says how: ${reportEndings.join(", ")}`)
    .option("--trace <file>", "each step and op in time, for Perfetto")
    .option("--text <file>", "the report as plain text, with all its tables")
    .option("--folded <file>", "folded stacks, of which flame graphs are drawn")
    .option("--speedscope <file>", "each step and op in time, for speedscope")
    .option("--json", "print the report as one JSON document")
    .addHelpText(
      "after",
      `
Examples:
  tinyai profile --model gemma3-270m --prompt "Once upon a time"
  tinyai profile --model gemma3-270m --prompt "Hello" --report report.html --trace trace.json
  tinyai profile --model gemma3-270m --prompt "Hello" --runs 10 --temperature 0 --text performance_report.txt
  tinyai profile --model all-minilm-l6-v2 --prompt "a cat on a mat" --runs 100
  tinyai profile --model model.gguf --prompt "Hello" --deterministic --json`,
    )
    .action(run);
}

async function run(flags: Flags): Promise<void> {
  const signal = interruption();
  const runs = checkInteger("--runs", numberFlag("runs", flags.runs) ?? 1, 1, runsMax);
  // What one run leaves behind would save the next one its prompt, and half of the report with it.
  const options = { ...generationOptions(flags), cachePrompt: runs === 1, signal };
  const { maxLength } = checkGenerateOptions(options, sequencesMax);
  if (flags.prompt === "") throw new OptionError("--prompt", "is empty; give a text of at least one character");
  const outputs = checkOutputs(flags);
  await using model = await loadFromFlags(flags);
  const embeds = model.plan().wholePrompts;
  const what = embeds ? "an embedder" : `up to ${maxLength} tokens`;
  const label = `profiling ${runs === 1 ? "a run" : `${runs} runs`} of ${what}`;
  const progress = startProgress({ label, unit: "seconds" });
  let profiled: ProfiledRun;
  try {
    const work = async () => {
      try {
        for (let done = 0; done < runs; done++) {
          if (embeds) await model.embed(flags.prompt, { signal });
          else await model.generate(flags.prompt, options);
        }
      } catch (error) {
        if (!signal.aborted) throw error;
        process.stderr.write("interrupted; the report is of what ran until now (once more ends it at once)\n");
      }
    };
    const { cache, prefetcher, roofline, deterministic } = flags;
    profiled = await model.profile(work, { cache, prefetcher, roofline, deterministic });
    // Of nothing there is no report.
    if (profiled.steps.count === 0) signal.throwIfAborted();
  } catch (error) {
    progress.failed();
    throw error;
  }
  progress.done();
  // First what is seen: no file that cannot be written shall cost it.
  if (flags.json) printJson(profiled);
  else process.stdout.write(formatReport(profiled));
  for (const { path, ending } of outputs) {
    await profiled.write(path, ending);
    process.stderr.write(`wrote ${path}\n`);
    process.stderr.write(cutRemark({ path, ending }, profiled.untraced));
  }
}

/** A file to write, and the ending that names its format. */
interface Output {
  readonly path: string;
  readonly ending: ReportEnding;
}

/** What is said of a trace that lacks events; nothing of other files. */
export function cutRemark({ path, ending }: Output, untraced: number): string {
  if (untraced === 0 || !traceEndings.has(ending)) return "";
  const missing = `${count(untraced, "event")} came later and ${untraced === 1 ? "is" : "are"} not in it`;
  return `${path} is cut off: ${missing}; profile fewer tokens for a whole trace\n`;
}

/**
 * The files that the flags ask for.
 * @throws {OptionError} if one could not be written, would take the place of the model, or is asked for twice.
 */
function checkOutputs(flags: Flags): Output[] {
  const outputs: Output[] = [];
  // Of a model that is not there it is told now.
  resolveModel(flags.model);
  const taken = new Map(modelFiles(flags.model).map(([path, what]) => [identity(path), what]));
  for (const name of ["report", "trace", "text", "folded", "speedscope"] as const) {
    const path = flags[name];
    if (path === undefined) continue;
    const flag = `--${name}`;
    checkFilePath(flag, path);
    const named = reportEnding(path);
    const ending = name === "report" ? named : formatFlags[name];
    if (!ending) {
      throw new OptionError(flag, `${path} has no ending that names a format; there are ${reportEndings.join(", ")}`);
    }
    // `trace.json` is a good name for a trace.
    if (named !== undefined && !ending.endsWith(named)) {
      const problem = `${path} would be no ${named} file, but one in the format ${ending}; name it so, or say --report`;
      throw new OptionError(flag, problem);
    }
    const other = taken.get(identity(path));
    if (other !== undefined) throw new OptionError(flag, `${path} is ${other}; name another file`);
    taken.set(identity(path), `what ${flag} names as well`);
    outputs.push({ path, ending });
  }
  return outputs;
}
