// What the verbs that run a model share: the flags that load one, their values as numbers, and progress while it loads.

import { readFile } from "node:fs/promises";
import type { Command } from "commander";
import { OptionError, TinyAIError } from "../errors.ts";
import type { GenerateOptions } from "../generate/options.ts";
import { loadModel } from "../load.ts";
import type { LoadOptions } from "../load-options.ts";
import type { Model } from "../loaded-model.ts";
import { interruption } from "./interrupt.ts";
import { type Progress, startProgress } from "./progress.ts";

/** Flags as commander gives them: texts, unless the flag takes no value. */
export interface ModelFlags {
  readonly model: string;
  readonly threads?: string;
  readonly cpuLimit?: string;
  readonly memoryLimit?: string;
  readonly simdLevel?: string;
  readonly context?: string;
  readonly batchSize?: string;
  readonly kvCache?: string;
  /** False where `--no-prepared` was given. */
  readonly prepared?: boolean;
  readonly screening?: boolean;
}

export interface GenerationFlags {
  readonly maxLength?: string;
  readonly temperature?: string;
  readonly topK?: string;
  readonly topP?: string;
  readonly minP?: string;
  readonly repeatPenalty?: string;
  readonly repeatLast?: string;
  readonly seed?: string;
  readonly stop?: string[];
  readonly ignoreEos?: boolean;
  readonly speculate?: boolean;
}

/** Loading that takes longer than this shows how far it is. */
const quietLoadMs = 500;

export const modelHelp = "path of a GGUF or .tinyai file or a model's folder, or the name of a pulled model";

export function addModelFlags(command: Command): Command {
  return addRunFlags(command.requiredOption("--model <model>", modelHelp));
}

/** For a verb that knows another way to the model. */
export function addOptionalModelFlags(command: Command, otherwise: string): Command {
  return addRunFlags(command.option("--model <model>", `${modelHelp} (default: ${otherwise})`));
}

function addRunFlags(command: Command): Command {
  return command
    .option("--threads <count>", "threads that compute (default: all CPUs but one, all of one or two)")
    .option("--cpu-limit <percent>", "CPU time that they use at most, of all CPUs' (default: 100)")
    .option("--memory-limit <percent>", "memory that the process takes at most, of all (default: 100)")
    .option("--simd-level <level>", "0 scalar, 1 128-bit, 2 256-bit, 3 the widest (default)")
    .option("--context <positions>", "positions a sequence may have (default: the model's limit)")
    .option("--batch-size <sequences>", "sequences a step at most (default: 16)")
    .option("--kv-cache <format>", "how keys and values are kept: f16 (default), or q8_0 in half the memory")
    .option("--no-prepared", "neither use nor make the model's prepared copy in the cache")
    .option("--screening", "screen the output head: the same tokens sooner, for more memory; no log-probabilities");
}

export function addGenerationFlags(command: Command): Command {
  return command
    .option("--max-length <tokens>", "tokens generated at most (default: 128)")
    .option("--temperature <number>", "0 always takes the most likely token (default: 0.7)")
    .option("--top-k <count>", "only the k most likely tokens; 0 for all (default: 50)")
    .option("--top-p <share>", "only the most likely tokens that reach this share together (default: 0.9)")
    .option("--min-p <share>", "only tokens this likely beside the most likely one (default: 0)")
    .option("--repeat-penalty <number>", "1 for none (default: 1)")
    .option("--repeat-last <tokens>", "tokens that the penalty looks at (default: 64)")
    .option("--seed <number>", "the same seed gives the same text (default: random)")
    .option("--stop <text...>", "texts that end the generation")
    .option("--ignore-eos", "go on when the model would end")
    .option("--speculate", "guess tokens from the text so far: the same text, sooner where it repeats");
}

/** The number that a flag holds. Ranges are checked where the option is used. */
export function numberFlag(flag: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const value = text.trim() === "" ? Number.NaN : Number(text);
  if (Number.isNaN(value)) throw new OptionError(`--${flag}`, `is ${JSON.stringify(text)}; a number is expected`);
  return value;
}

export function generationOptions(flags: GenerationFlags): GenerateOptions {
  return {
    maxLength: numberFlag("max-length", flags.maxLength),
    temperature: numberFlag("temperature", flags.temperature),
    topK: numberFlag("top-k", flags.topK),
    topP: numberFlag("top-p", flags.topP),
    minP: numberFlag("min-p", flags.minP),
    repeatPenalty: numberFlag("repeat-penalty", flags.repeatPenalty),
    repeatLast: numberFlag("repeat-last", flags.repeatLast),
    seed: seedFlag(flags.seed),
    stop: flags.stop,
    ignoreEos: flags.ignoreEos,
    speculation: flags.speculate ? "lookup" : undefined,
  };
}

/** Seeds have 64 bits, more than a number holds. */
function seedFlag(text: string | undefined): bigint | undefined {
  if (text === undefined) return undefined;
  if (!/^\d{1,20}$/.test(text))
    throw new OptionError("--seed", `is ${JSON.stringify(text)}; a whole number is expected`);
  return BigInt(text);
}

/** Loads the model that the flags name; Ctrl-C ends it. */
export async function loadFromFlags(flags: ModelFlags, defaults: LoadOptions = {}): Promise<Model> {
  const threads = numberFlag("threads", flags.threads);
  const level = numberFlag("simd-level", flags.simdLevel);
  const startedMs = performance.now();
  let progress: Progress | undefined;
  const model = await loadModel(flags.model, {
    ...defaults,
    ...(threads === undefined ? {} : { threads: { count: threads } }),
    ...(level === undefined ? {} : { simd: { level } }),
    limits: {
      cpuPercent: numberFlag("cpu-limit", flags.cpuLimit) ?? defaults.limits?.cpuPercent,
      memoryPercent: numberFlag("memory-limit", flags.memoryLimit) ?? defaults.limits?.memoryPercent,
    },
    contextLength: numberFlag("context", flags.context) ?? defaults.contextLength,
    batchSize: numberFlag("batch-size", flags.batchSize) ?? defaults.batchSize,
    // Checked where it is used.
    kvCache: (flags.kvCache ?? defaults.kvCache) as LoadOptions["kvCache"],
    prepared: flags.prepared ?? defaults.prepared,
    screening: flags.screening ?? defaults.screening,
    signal: interruption(),
    onProgress(done, total) {
      if (!progress && performance.now() - startedMs > quietLoadMs && done < total) {
        progress = startProgress({ label: `loading ${flags.model}`, unit: "bytes", total, began_ms: startedMs });
      }
      progress?.update(done);
    },
  });
  progress?.done();
  return model;
}

/** The text of a file. Bytes that are not UTF-8 become U+FFFD. `-` is standard input, which Ctrl-C ends as well. */
export async function readText(path: string): Promise<string> {
  const interrupted = new Promise<never>((_, reject) => {
    const signal = interruption();
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
  let text: string;
  try {
    text = await Promise.race([path === "-" ? Bun.stdin.text() : readFile(path, "utf8"), interrupted]);
  } catch (cause) {
    throw new TinyAIError("file", `${path}: cannot be read: ${(cause as Error).message}`, { cause });
  }
  if (text === "") throw new OptionError("--file", `${path} is empty; give a text of at least one character`);
  return text;
}

/** One JSON document on stdout. */
export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}
