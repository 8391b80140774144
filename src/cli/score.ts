// `tinyai score`: log-probabilities of a text's own tokens, for evaluation harnesses.

import { closeSync, fsyncSync, openSync, renameSync, rmSync, statSync, writeSync } from "node:fs";
import { type Command, Option } from "commander";
import { checkInteger } from "../check.ts";
import { EngineError } from "../errors.ts";
import { interruption } from "./interrupt.ts";
import { addModelFlags, loadFromFlags, type ModelFlags, numberFlag, printJson, readText } from "./model.ts";
import { startProgress } from "./progress.ts";

interface Flags extends ModelFlags {
  readonly file: string;
  readonly maxTokens?: string;
  readonly top?: string;
  readonly oneByOne?: boolean;
  readonly dumpLogits?: string;
  readonly json?: boolean;
}

export function registerScore(program: Command): void {
  addModelFlags(program.command("score").description("log-probabilities of a text's own tokens"))
    .requiredOption("--file <path>", "the text; - for standard input")
    .option("--max-tokens <count>", "only the first tokens of the text")
    .option("--top <count>", "the most likely tokens at each place (default: 0)")
    .option("--one-by-one", "feed a token a step instead of the whole; the result is the same")
    .addOption(new Option("--dump-logits <path>", "write every row of logits as little-endian float32").hideHelp())
    .option("--json", "print tokens, logprobs and top as one JSON document")
    .addHelpText(
      "after",
      `
Examples:
  tinyai score --model gemma3-270m --file text.txt --json
  tinyai score --model gemma3-270m --file text.txt --max-tokens 256 --top 5 --json

In JSON, tokens are the ids with the beginning-of-text token; logprobs[i] is that of tokens[i+1] after the tokens up to i;
top[i] are the most likely tokens there as [id, logprob], best first.`,
    )
    .action(run);
}

async function run(flags: Flags): Promise<void> {
  const top = checkInteger("--top", numberFlag("top", flags.top) ?? 0, 0, 256);
  const maxTokens = numberFlag("max-tokens", flags.maxTokens);
  if (maxTokens !== undefined) checkInteger("--max-tokens", maxTokens, 1, 1 << 24);
  const text = await readText(flags.file);
  await using model = await loadFromFlags(flags);
  const tokens = model.tokenizer.encode(text, { addSpecial: true }).slice(0, maxTokens);
  const dump = flags.dumpLogits === undefined ? undefined : new Dump(flags.dumpLogits);
  const progress = startProgress({ label: `scoring ${tokens.length} tokens`, unit: "seconds" });
  try {
    const result = await model.score(tokens, {
      top,
      oneByOne: flags.oneByOne,
      signal: interruption(),
      ...(dump ? { onLogits: (rows: Float32Array) => dump.write(rows) } : {}),
    });
    dump?.finish();
    progress.done();
    if (flags.json) {
      printJson({
        tokens: result.tokens,
        logprobs: result.logprobs,
        ...(top > 0 ? { top: result.top.map((list) => list.map(({ token, logprob }) => [token, logprob])) } : {}),
      });
    } else {
      const sum = result.logprobs.reduce((total, logprob) => total + logprob, 0);
      const mean = sum / Math.max(1, result.logprobs.length);
      process.stdout.write(
        `${result.tokens.length} tokens, mean log-probability ${mean.toFixed(4)}, perplexity ${Math.exp(-mean).toFixed(4)}\n`,
      );
    }
  } catch (error) {
    progress.failed();
    dump?.discard();
    throw error;
  }
}

/** A file that appears under its name only when it is whole; a pipe or a device that is there is written as it is. */
class Dump {
  readonly #path: string;
  readonly #inPlace: boolean;
  readonly #temporary: string;
  readonly #handle: number;
  #error: EngineError | undefined;
  #closed = false;

  constructor(path: string) {
    this.#path = path;
    try {
      const existing = statSync(path, { throwIfNoEntry: false });
      if (path === "" || existing?.isDirectory()) throw new Error("it is a folder or has no name");
      this.#inPlace = existing !== undefined && (existing.isFIFO() || existing.isCharacterDevice());
      this.#temporary = this.#inPlace ? path : `${path}.${process.pid}.tmp`;
      this.#handle = openSync(this.#temporary, "w");
    } catch (cause) {
      throw new EngineError(`${path}: cannot be written: ${(cause as Error).message}`, { cause });
    }
  }

  write(rows: Float32Array): void {
    if (this.#error) return;
    const bytes = new Uint8Array(rows.buffer, rows.byteOffset, rows.byteLength);
    try {
      for (let done = 0; done < bytes.length; ) done += writeSync(this.#handle, bytes, done);
    } catch (cause) {
      this.#error = new EngineError(`${this.#path}: cannot be written: ${(cause as Error).message}`, { cause });
    }
  }

  finish(): void {
    if (this.#error) throw this.#error;
    try {
      if (!this.#inPlace) fsyncSync(this.#handle);
      this.#close();
      if (!this.#inPlace) renameSync(this.#temporary, this.#path);
    } catch (cause) {
      throw new EngineError(`${this.#path}: cannot be written: ${(cause as Error).message}`, { cause });
    }
  }

  discard(): void {
    this.#close();
    if (!this.#inPlace) rmSync(this.#temporary, { force: true });
  }

  #close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeSync(this.#handle);
  }
}
