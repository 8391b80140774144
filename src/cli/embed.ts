// `tinyai embed`: the vectors of texts, as lines of JSON or a file.

import { once } from "node:events";
import { extname } from "node:path";
import type { Command } from "commander";
import { type EmbedStreamOptions, poolings } from "../embed/options.ts";
import { EngineError, OptionError } from "../errors.ts";
import { isSystemError, replaceFile } from "../files.ts";
import type { Model } from "../loaded-model.ts";
import { interruption } from "./interrupt.ts";
import { addModelFlags, loadFromFlags, type ModelFlags, numberFlag, printJson, readText } from "./model.ts";
import { npyHead } from "./npy.ts";
import { startProgress } from "./progress.ts";

export interface EmbedFlags {
  readonly pooling?: string;
  readonly normalise?: boolean;
  /** False where `--no-truncate` was given. */
  readonly truncate?: boolean;
  readonly dimensions?: string;
}

interface Flags extends ModelFlags, EmbedFlags {
  readonly file?: string;
  readonly output?: string;
  readonly json?: boolean;
}

/** What a file of vectors may end in. */
const endings = [".npy", ".jsonl"];

export function registerEmbed(program: Command): void {
  const command = program.command("embed").description("the vectors of texts").argument("[texts...]", "the texts");
  addModelFlags(command)
    .option(
      "--file <path>",
      "a text a line, instead of texts; - for standard input, which is the default without texts",
    )
    .option("--pooling <how>", `what of a text is in its vector: ${poolings.join(", ")} (default: the model's own)`)
    .option("--normalise", "vectors of length 1 (default: as the model has them)")
    .option("--no-normalise", "vectors as they come")
    .option("--no-truncate", "refuse texts that are longer than the model takes, instead of cutting them")
    .option("--dimensions <count>", "only the first values of each vector")
    .option("--output <path>", "a file to write the vectors to: .npy, or .jsonl")
    .option("--json", "print all vectors as one JSON document")
    .addHelpText(
      "after",
      `
Examples:
  tinyai embed "a cat on a mat" --model all-minilm-l6-v2
  tinyai embed --file lines.txt --model all-minilm-l6-v2 --output vectors.npy
  cat lines.txt | tinyai embed --model all-minilm-l6-v2 > vectors.jsonl

Without --json and --output each text's vector is a line, a JSON array.`,
    )
    .action(run);
}

async function run(texts: string[], flags: Flags): Promise<void> {
  const { output, json } = flags;
  if (output !== undefined && !endings.includes(extname(output))) {
    throw new OptionError("--output", `is ${JSON.stringify(output)}; a path that ends in .npy or .jsonl is expected`);
  }
  if (output !== undefined && json) throw new OptionError("--json", "goes to standard output; leave out --output");
  if (texts.length > 0 && flags.file !== undefined) {
    throw new OptionError("--file", "takes the place of texts; leave one of them out");
  }
  if (texts.length === 0 && flags.file === undefined && process.stdin.isTTY) {
    throw new OptionError("texts", "are missing; give some, or --file with a text a line");
  }
  const options = embedOptions(flags);
  const inputs = texts.length > 0 ? texts : linesOf(await readText(flags.file ?? "-"));
  await using model = await loadFromFlags(flags);
  const progress = startProgress({ label: `embedding ${inputs.length} texts`, unit: "seconds" });
  try {
    if (output !== undefined) await writeVectors(output, model, inputs, options);
    else if (json) await printVectors(flags.model, model, inputs, options);
    else await printLines(model, inputs, options);
  } catch (error) {
    progress.failed();
    throw error;
  }
  progress.done();
}

/** The options that the flags give. */
export function embedOptions(flags: EmbedFlags): EmbedStreamOptions {
  return {
    // Checked where it is used.
    pooling: flags.pooling as EmbedStreamOptions["pooling"],
    normalise: flags.normalise,
    truncate: flags.truncate,
    dimensions: numberFlag("dimensions", flags.dimensions),
    signal: interruption(),
  };
}

/** A text's lines, as they are but for their ends. */
function linesOf(text: string): string[] {
  const lines = text.split(/\r?\n/);
  if (lines.at(-1) === "") lines.pop();
  return lines;
}

/** Nine digits tell float32 values apart; JavaScript's own numbers would have seventeen. */
function numbersOf(vector: Float32Array): number[] {
  return Array.from(vector, (value) => Number(value.toPrecision(9)));
}

function lineOf(vector: Float32Array): string {
  return `${JSON.stringify(numbersOf(vector))}\n`;
}

/** Takes no more vectors while whoever reads them is behind. */
async function printLines(model: Model, texts: readonly string[], options: EmbedStreamOptions) {
  for await (const vector of model.embedStream(texts, options)) {
    if (!process.stdout.write(lineOf(vector))) await once(process.stdout, "drain", { signal: interruption() });
  }
}

async function printVectors(name: string, model: Model, texts: readonly string[], options: EmbedStreamOptions) {
  const vectors: number[][] = [];
  for await (const vector of model.embedStream(texts, options)) vectors.push(numbersOf(vector));
  printJson({ model: name, dimensions: options.dimensions ?? model.embeddingWidth, vectors });
}

async function writeVectors(path: string, model: Model, texts: readonly string[], options: EmbedStreamOptions) {
  try {
    await replaceFile(path, async (append) => {
      const asNumpy = extname(path) === ".npy";
      if (asNumpy) await append(npyHead(texts.length, options.dimensions ?? model.embeddingWidth ?? 0));
      for await (const vector of model.embedStream(texts, options)) {
        await append(asNumpy ? new Uint8Array(vector.buffer) : Buffer.from(lineOf(vector)));
      }
    });
  } catch (cause) {
    if (!isSystemError(cause)) throw cause;
    throw new EngineError(`${path}: cannot be written: ${cause.message}`, { cause });
  }
}
