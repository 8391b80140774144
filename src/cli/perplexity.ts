// `tinyai perplexity`: how well a model predicts a text, measured as llama-perplexity does: the text's tokens are cut into
// chunks of the context's length, each begins with the beginning-of-text token in place of its first, and the second half of
// each is scored.

import type { Command } from "commander";
import { checkInteger } from "../check.ts";
import { OptionError } from "../errors.ts";
import { interruption } from "./interrupt.ts";
import { addModelFlags, loadFromFlags, type ModelFlags, numberFlag, printJson, readText } from "./model.ts";
import { startProgress } from "./progress.ts";

interface Flags extends ModelFlags {
  readonly file: string;
  readonly chunks?: string;
  readonly json?: boolean;
}

const contextDefault = 512;

export function registerPerplexity(program: Command): void {
  addModelFlags(program.command("perplexity").description("how well a model predicts a text"))
    .requiredOption("--file <path>", "the text; - for standard input")
    .option("--chunks <count>", "chunks of --context tokens at most (default: all that the text fills)")
    .option("--json", "print perplexity, chunks and tokens as one JSON document")
    .addHelpText(
      "after",
      `
Examples:
  tinyai perplexity --model gemma3-270m --file text.txt
  tinyai perplexity --model gemma3-270m --file text.txt --context 512 --chunks 8 --json`,
    )
    .action(run);
}

async function run(flags: Flags): Promise<void> {
  const context = checkInteger("--context", numberFlag("context", flags.context) ?? contextDefault, 16, 1 << 24);
  const wanted = numberFlag("chunks", flags.chunks);
  if (wanted !== undefined) checkInteger("--chunks", wanted, 1, 1 << 24);
  const text = await readText(flags.file);
  await using model = await loadFromFlags({ ...flags, context: String(context) });
  const { tokenizer } = model;
  const tokens = tokenizer.encode(text, { addSpecial: true });
  const available = Math.floor(tokens.length / context);
  const count = Math.min(wanted ?? available, available);
  if (count === 0) {
    throw new OptionError(
      "--context",
      `is ${context}, but the text has only ${tokens.length} tokens; give a longer text or a smaller --context`,
    );
  }
  const progress = startProgress({ label: `scoring ${count} chunks of ${context} tokens`, unit: "seconds" });
  const first = Math.floor(context / 2);
  let sum = 0;
  let scored = 0;
  try {
    for (let chunk = 0; chunk < count; chunk++) {
      const part = tokens.slice(chunk * context, (chunk + 1) * context);
      if (tokenizer.addBos && tokenizer.bosToken !== undefined) part[0] = tokenizer.bosToken;
      const { logprobs } = await model.score(part, { signal: interruption() });
      for (const logprob of logprobs.slice(first)) {
        sum -= logprob;
        scored += 1;
      }
    }
  } catch (error) {
    progress.failed();
    throw error;
  }
  progress.done();
  const perplexity = Math.exp(sum / scored);
  if (flags.json) printJson({ perplexity, chunks: count, context, tokens: scored });
  else
    process.stdout.write(
      `perplexity ${perplexity.toFixed(4)} over ${scored} tokens of ${count} chunks of ${context}\n`,
    );
}
