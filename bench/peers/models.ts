// The models that TinyAI and its peers are compared on, and how to get each: Gemma by `tinyai pull`, the others made with random
// weights in F16 by make_model.py in this folder and quantized by TinyAI, once, under .cache/peers.

import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { startProgress } from "../../src/cli/progress.ts";
import { pullModel } from "../../src/cli/pull.ts";
import { quantizeModel } from "../../src/quantize/quantize.ts";
import { SetupError } from "../../src/setup/checkout.ts";
import { runProgram } from "../../src/setup/python.ts";
import { vectorsFolder } from "../../test/conformance/tokenizer-vectors.ts";
import { hashOf, type PeerPython, peersFolder } from "./install.ts";

const gemma = "gemma3-270m";
const script = join(import.meta.dir, "make_model.py");
const types = ["Q4_0", "Q8_0", "Q4_K_M", "F16"] as const;
/** Shapes that make_model.py knows, and the vocabulary of each. */
const vocabularies: Readonly<Record<string, string>> = {
  "smollm2-135m": "gpt-2",
  "qwen2-0.5b": "qwen2",
  "llama-1b": "llama-bpe",
};

export const modelNames: readonly string[] = [
  gemma,
  ...Object.keys(vocabularies).flatMap((shape) => types.map((type) => `${shape}-${type}`)),
];
export const quickModelNames: readonly string[] = [gemma, "smollm2-135m-Q8_0"];

/**
 * The file of a model of `modelNames`, pulled or made if it is not there.
 * @throws {SetupError} saying what went wrong, if it cannot be made.
 */
export async function ensureModel(name: string, python: PeerPython): Promise<string> {
  if (name === gemma) return (await pullModel(gemma)).path;
  const type = types.find((known) => name.endsWith(`-${known}`)) ?? "F16";
  const shape = name.slice(0, -type.length - 1);
  const made = await ensureMade(shape, python);
  if (type === "F16") return made;
  return ensureFile(name, async (path) => {
    await quantizeModel(made, path, { type });
  });
}

/** The F16 model of a shape. */
function ensureMade(shape: string, python: PeerPython): Promise<string> {
  const name = `${shape}-F16`;
  return ensureFile(name, async (path) => {
    const vocabulary = join(await vectorsFolder(), `ggml-vocab-${vocabularies[shape]}.gguf`);
    const command = [...python.command, script, shape, vocabulary, path];
    const made = await runProgram(command, { env: python.environment });
    if (made.status !== 0) throw new SetupError(`${name}: make_model.py: ${made.stderr.trim().split("\n").at(-1)}`);
  });
}

/** The file of that name, which `make` writes to the path it is given if it is not there. */
async function ensureFile(name: string, make: (path: string) => Promise<void>): Promise<string> {
  const folder = join(peersFolder, "models");
  const path = join(folder, `${name}-${hashOf(readFileSync(script, "utf8"))}.gguf`);
  if (existsSync(path)) return path;
  mkdirSync(folder, { recursive: true });
  const progress = startProgress({ label: `model ${name}`, unit: "seconds" });
  const temporary = `${path}.${process.pid}.tmp`;
  try {
    await make(temporary);
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
