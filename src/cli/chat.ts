// `tinyai chat`: a conversation on the terminal, one line a turn, with the model's own chat template.

import { createInterface } from "node:readline/promises";
import type { Command } from "commander";
import { OptionError } from "../errors.ts";
import { checkGenerateOptions } from "../generate/options.ts";
import { sequencesMax } from "../plan/layout.ts";
import type { ChatMessage } from "../tokenizer/chat.ts";
import { interruption } from "./interrupt.ts";
import {
  addGenerationFlags,
  addModelFlags,
  type GenerationFlags,
  generationOptions,
  loadFromFlags,
  type ModelFlags,
  printJson,
} from "./model.ts";

interface Flags extends ModelFlags, GenerationFlags {
  readonly system?: string;
  readonly message?: string;
  readonly json?: boolean;
}

export function registerChat(program: Command): void {
  addGenerationFlags(addModelFlags(program.command("chat").description("talk with a chat model")))
    .option("--system <text>", "what the model is told first")
    .option("--message <text>", "say this, print the answer and end, instead of asking")
    .option("--json", "with --message: print the answer as JSON")
    .addHelpText(
      "after",
      `
Examples:
  tinyai chat --model model.gguf
  tinyai chat --model model.gguf --system "Answer in one sentence." --message "What is a monad?"

An empty line or Ctrl-D ends the conversation. Base models, which have no chat template, cannot chat: use generate.`,
    )
    .action(run);
}

async function run(flags: Flags): Promise<void> {
  if (flags.json && flags.message === undefined) throw new OptionError("--json", "goes with --message");
  const options = { ...generationOptions(flags), signal: interruption() };
  checkGenerateOptions(options, sequencesMax);
  await using model = await loadFromFlags(flags);
  if (model.tokenizer.chatTemplate === undefined) {
    throw new OptionError(
      "--model",
      `${flags.model} has no chat template: it is a base model; use \`tinyai generate\``,
    );
  }
  const messages: ChatMessage[] = flags.system === undefined ? [] : [{ role: "system", content: flags.system }];

  const answer = async (text: string): Promise<void> => {
    messages.push({ role: "user", content: text });
    const stream = model.stream(messages, options);
    for (;;) {
      const next = await stream.next();
      if (next.done) {
        messages.push({ role: "assistant", content: next.value.text });
        if (flags.json)
          printJson({ text: next.value.text, tokens: next.value.tokens, prompt_tokens: next.value.promptTokens });
        else process.stdout.write("\n");
        return;
      }
      if (!flags.json) process.stdout.write(next.value.text);
    }
  };

  if (flags.message !== undefined) {
    await answer(flags.message);
    return;
  }
  const lines = createInterface({ input: process.stdin, output: process.stderr, prompt: "> " });
  interruption().addEventListener("abort", () => lines.close(), { once: true });
  lines.prompt();
  for await (const line of lines) {
    if (line.trim() === "") break;
    await answer(line);
    lines.prompt();
  }
  lines.close();
}
