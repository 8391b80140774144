// The models that TinyAI and its peers are compared on, and how to get each: Gemma by `tinyai pull`, the others made with random
// weights by make_model.py in this folder, once, under .cache/peers.

import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { startProgress } from "../../src/cli/progress.ts";
import { pullModel } from "../../src/cli/pull.ts";
import { SetupError } from "../../src/setup/checkout.ts";
import { runProgram } from "../../src/setup/python.ts";
import { vectorsFolder } from "../../test/conformance/tokenizer-vectors.ts";
import { hashOf, type PeerPython, peersFolder } from "./install.ts";

const gemma = "gemma3-270m";
const script = join(import.meta.dir, "make_model.py");
const formats = ["F16", "Q8_0", "Q4_0"] as const;
/** Shapes that make_model.py knows, and the vocabulary of each. */
const vocabularies: Readonly<Record<string, string>> = {
  "smollm2-135m": "gpt-2",
  "qwen2-0.5b": "qwen2",
  "llama-1b": "llama-bpe",
};

export const modelNames: readonly string[] = [
  gemma,
  ...Object.keys(vocabularies).flatMap((shape) => formats.map((format) => `${shape}-${format}`)),
];
export const quickModelNames: readonly string[] = [gemma, "smollm2-135m-Q8_0"];

/**
 * The file of a model of `modelNames`, pulled or made if it is not there.
 * @throws {SetupError} saying what went wrong, if it cannot be made.
 */
export async function ensureModel(name: string, python: PeerPython): Promise<string> {
  if (name === gemma) return (await pullModel(gemma)).path;
  const format = formats.find((known) => name.endsWith(`-${known}`)) ?? "";
  const shape = name.slice(0, -format.length - 1);
  const folder = join(peersFolder, "models");
  const path = join(folder, `${name}-${hashOf(readFileSync(script, "utf8"))}.gguf`);
  if (existsSync(path)) return path;
  mkdirSync(folder, { recursive: true });
  const vocabulary = join(await vectorsFolder(), `ggml-vocab-${vocabularies[shape]}.gguf`);
  const progress = startProgress({ label: `model ${name}`, unit: "seconds" });
  const temporary = `${path}.${process.pid}.tmp`;
  try {
    const command = [...python.command, script, shape, format, vocabulary, temporary];
    const made = await runProgram(command, { env: python.environment });
    if (made.status !== 0) throw new SetupError(`${name}: make_model.py: ${made.stderr.trim().split("\n").at(-1)}`);
    renameSync(temporary, path);
    progress.done();
    return path;
  } catch (error) {
    progress.failed();
    throw error;
  } finally {
    rmSync(temporary, { force: true });
  }
}
