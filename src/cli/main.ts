#!/usr/bin/env bun
// The `tinyai` command: finds the verb, loads only that verb's module, and turns errors into one line and an exit status
// (0 done, 1 failed, 2 wrong usage, 128 + n ended by signal n). What a verb does is in its own file.

import { Command, CommanderError } from "commander";
import manifest from "../../package.json" with { type: "json" };
import { BenchmarkFileError, OptionError, TinyAIError } from "../errors.ts";
import { interruptedExitCode, watchInterruptions } from "./interrupt.ts";
import { addVerbs, type Verb } from "./verbs.ts";

// Imports are literal, so that `bun build --compile` finds the modules.
const verbs: readonly Verb[] = [
  {
    name: "generate",
    summary: "generate text after a prompt",
    register: async (program) => (await import("./generate.ts")).registerGenerate(program),
  },
  {
    name: "chat",
    summary: "talk with a chat model",
    register: async (program) => (await import("./chat.ts")).registerChat(program),
  },
  {
    name: "profile",
    summary: "where the time and the bytes of a generation went",
    register: async (program) => (await import("./profile.ts")).registerProfile(program),
  },
  {
    name: "embed",
    summary: "vectors of texts",
    register: async (program) => (await import("./embed.ts")).registerEmbed(program),
  },
  {
    name: "search",
    summary: "find what is nearest to a query in meaning",
    register: async (program) => (await import("./search.ts")).registerSearch(program),
  },
  {
    name: "pull",
    summary: "get a model by name, check it, and keep it for every later use",
    register: async (program) => (await import("./pull.ts")).registerPull(program),
  },
  {
    name: "prepare",
    summary: "make the copy of a model that opens in milliseconds",
    register: async (program) => (await import("./prepare.ts")).registerPrepare(program),
  },
  {
    name: "inspect",
    summary: "tell what is in a model file: metadata, tensors, sizes",
    register: async (program) => (await import("./inspect.ts")).registerInspect(program),
  },
  {
    name: "quantize",
    summary: "write a model in smaller formats to a new file",
    register: async (program) => (await import("./quantize.ts")).registerQuantize(program),
  },
  {
    name: "bundle",
    summary: "make one executable of a program, the library and models",
    register: async (program) => (await import("./bundle.ts")).registerBundle(program),
  },
  {
    name: "perplexity",
    summary: "how well a model predicts a text",
    register: async (program) => (await import("./perplexity.ts")).registerPerplexity(program),
  },
  {
    name: "score",
    summary: "log-probabilities of a text's own tokens",
    register: async (program) => (await import("./score.ts")).registerScore(program),
  },
  {
    name: "tune",
    summary: "measure what this machine prefers",
    register: async (program) => (await import("./tune.ts")).registerTune(program),
  },
  {
    name: "benchmark",
    summary: "measure models and this machine, compare, and show trends",
    register: async (program, words) => (await import("./benchmark.ts")).registerBenchmark(program, words),
  },
  {
    name: "pipe",
    summary: "answer requests of other programs, a line of JSON each",
    register: async (program) => (await import("./pipe.ts")).registerPipe(program),
  },
  {
    name: "doctor",
    summary: "check what this machine has and say what to do about what is missing",
    register: async (program) => (await import("./doctor.ts")).registerDoctor(program),
  },
];

/** Runs the command line that `arguments_` hold (without the program's own name) and gives the exit status. */
async function run(arguments_: readonly string[]): Promise<number> {
  const program = new Command("tinyai")
    .description("Small models inside a Bun process, and where their time went.")
    .version(manifest.version)
    .exitOverride()
    .showHelpAfterError("(tinyai --help, or tinyai VERB --help, shows what there is)")
    .addHelpText(
      "after",
      `
Examples:
  tinyai pull gemma3-270m
  tinyai generate --model gemma3-270m --prompt "Once upon a time" --max-length 100
  tinyai doctor

tinyai VERB --help shows a verb's options and examples.`,
    );
  const words = arguments_.filter((argument) => !argument.startsWith("-"));
  await addVerbs(program, verbs, words);
  try {
    await program.parseAsync([...arguments_], { from: "user" });
    return interruptedExitCode() || Number(process.exitCode ?? 0);
  } catch (error) {
    if (interruptedExitCode() !== 0) return interruptedExitCode();
    return report(error);
  }
}

/** Tells an error on stderr and gives its exit status. */
function report(error: unknown): number {
  // Commander has printed its own message; help and version come this way too.
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
  const debug = Boolean(process.env["TINYAI_DEBUG"]);
  const message = error instanceof Error ? error.message : String(error);
  process.stderr.write(`tinyai: ${message}\n`);
  if (debug && error instanceof Error) process.stderr.write(`${Bun.inspect(error)}\n`);
  else if (!(error instanceof TinyAIError)) {
    process.stderr.write("tinyai: this was not expected; TINYAI_DEBUG=1 shows where it happened\n");
  }
  return error instanceof OptionError || error instanceof BenchmarkFileError ? 2 : 1;
}

// Whoever read the output has gone, as `head` does; there is nobody left to tell.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(0);
  const message = `standard output cannot be written: ${error.message.split(",")[0]}; print elsewhere`;
  process.exit(report(new TinyAIError("file", message, { cause: error })));
});
watchInterruptions();
for (const event of ["uncaughtException", "unhandledRejection"] as const) {
  process.on(event, (error: unknown) => process.exit(report(error)));
}
process.exitCode = await run(process.argv.slice(2));
// A read of standard input may still be pending, which would keep the program waiting.
if (interruptedExitCode() !== 0) process.exit();
