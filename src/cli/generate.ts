// `tinyai generate`: text after a prompt, streamed, or as JSON with timings and a profile.

import { existsSync } from "node:fs";
import type { Command } from "commander";
import { formatProfile, type Profile } from "../../profiler/index.ts";
import { OptionError } from "../errors.ts";
import { checkGenerateOptions } from "../generate/options.ts";
import type { Session } from "../generate/session.ts";
import type { Model } from "../loaded-model.ts";
import { sequencesMax } from "../plan/layout.ts";
import { generationJson } from "./generation-json.ts";
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

interface Flags extends ModelFlags, GenerationFlags {
  readonly prompt: string;
  readonly topLogprobs?: string;
  readonly profile?: boolean;
  readonly session?: string;
  readonly json?: boolean;
}

export function registerGenerate(program: Command): void {
  const command = program.command("generate").description("generate text after a prompt");
  addGenerationFlags(addModelFlags(command).requiredOption("--prompt <text>", "the text to go on from"))
    .option("--top-logprobs <count>", "with --json: log-probabilities of the most likely tokens at each place")
    .option("--profile", "record where the time goes and show it (with --json: as `profile`)")
    .option("--session <file>", "go on from what the file holds, if there is one, and save the session to it")
    .option("--json", "print text, tokens and timings as one JSON document")
    .addHelpText(
      "after",
      `
Examples:
  tinyai generate --model gemma3-270m --prompt "Once upon a time"
  tinyai generate --model gemma3-270m --prompt "The capital of France is" --max-length 8 --temperature 0
  tinyai generate --model model.gguf --prompt "Q: 2+2? A:" --stop "Q:" --seed 7 --json
  tinyai generate --model gemma3-270m --prompt "Hello" --profile
  tinyai generate --model gemma3-270m --prompt "Once upon a time" --session story.session
  tinyai generate --model gemma3-270m --prompt " The next day" --session story.session`,
    )
    .action(run);
}

async function run(flags: Flags): Promise<void> {
  const options = {
    ...generationOptions(flags),
    topLogprobs: numberFlag("top-logprobs", flags.topLogprobs),
    signal: interruption(),
  };
  // Before the model is loaded, which takes longer.
  checkGenerateOptions(options, sequencesMax);
  if (flags.prompt === "") throw new OptionError("--prompt", "is empty; give a text of at least one character");
  if (flags.session === "") throw new OptionError("--session", "is empty; give the path of a file");
  // Nothing runs beside it: a session of any length may stay in memory.
  await using model = await loadFromFlags(flags, flags.session ? { prefixCache: { maxBytes: 2 ** 44 } } : {});
  const session = await openSession(model, flags.session);
  if (flags.profile) model.startProfiling({ cache: false, roofline: false });
  const stream = (session ?? model).stream(flags.prompt, options);
  for (;;) {
    const next = await stream.next();
    if (!next.done) {
      if (!flags.json) process.stdout.write(next.value.text);
      continue;
    }
    const result = next.value;
    const profile: Profile | undefined = flags.profile ? model.stopProfiling() : undefined;
    if (!flags.json) process.stdout.write("\n");
    if (session && flags.session) await session.save(flags.session);
    if (!flags.json) {
      if (profile) process.stderr.write(`\n${formatProfile(profile)}`);
      return;
    }
    printJson({ ...generationJson(result, model.loadMs), ...(profile ? { profile } : {}) });
    return;
  }
}

/** The session of a file, or a new one if there is no such file. */
async function openSession(model: Model, path: string | undefined): Promise<Session | undefined> {
  if (path === undefined) return undefined;
  return existsSync(path) ? await model.loadSession(path) : await model.session();
}
