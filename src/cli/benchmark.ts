// `tinyai benchmark`: its verbs. What each does is in its own file of benchmark/.

import type { Command } from "commander";
import { addVerbs, type Verb } from "./verbs.ts";

// Imports are literal, so that `bun build --compile` finds the modules.
const verbs: readonly Verb[] = [
  {
    name: "system",
    summary: "what this machine is: CPU, caches, memory, disks, network, GPU, limits",
    register: async (benchmark) => (await import("./benchmark/system.ts")).registerSystem(benchmark),
  },
  {
    name: "verify",
    summary: "whether this machine, or a model, is ready to be measured",
    register: async (benchmark) => (await import("./benchmark/verify.ts")).registerVerify(benchmark),
  },
  {
    name: "prepare",
    summary: "make a model's file ready to be measured",
    register: async (benchmark) => (await import("./benchmark/prepare.ts")).registerPrepare(benchmark),
  },
  {
    name: "run",
    summary: "measure a model, or this machine, and write the results",
    register: async (benchmark) => (await import("./benchmark/run.ts")).registerRun(benchmark),
  },
  {
    name: "compare",
    summary: "compare models in turns, or files of results",
    register: async (benchmark) => (await import("./benchmark/compare.ts")).registerCompare(benchmark),
  },
  {
    name: "analyze",
    summary: "say what results hold, and how far they can be trusted",
    register: async (benchmark) => (await import("./benchmark/analyze.ts")).registerAnalyze(benchmark),
  },
  {
    name: "trends",
    summary: "show how a metric changed over many files of results",
    register: async (benchmark) => (await import("./benchmark/trends.ts")).registerTrends(benchmark),
  },
  {
    name: "checklist",
    summary: "what of the optimization checklist is done for a model",
    register: async (benchmark) => (await import("./benchmark/checklist.ts")).registerChecklist(benchmark),
  },
  {
    name: "impact",
    summary: "what each optimisation contributes to a model's speed",
    register: async (benchmark) => (await import("./benchmark/impact.ts")).registerImpact(benchmark),
  },
];

/** Adds `tinyai benchmark`, and of its verbs the one that `words` begin with. */
export async function registerBenchmark(program: Command, words: readonly string[]): Promise<void> {
  const benchmark = program
    .command("benchmark")
    .description("measure models and this machine, compare, and show trends")
    .addHelpText(
      "after",
      `
Examples:
  tinyai benchmark run --model gemma3-270m --type inference
  tinyai benchmark compare --results before.json after.json
  tinyai benchmark impact --model gemma3-270m

tinyai benchmark VERB --help shows a verb's options and examples.`,
    );
  await addVerbs(benchmark, verbs, words);
}
