// The families, by the name that a file gives in `general.architecture`. A new family is a file beside this one and a line
// in the table.

import type { Graph } from "../../graph/graph.ts";
import { type ModelFile, printable } from "../file.ts";
import { bert } from "./bert.ts";
import { gemma3 } from "./gemma3.ts";
import { type Architecture, openSource } from "./hyperparameters.ts";
import { llama } from "./llama.ts";
import { nomicBert } from "./nomic-bert.ts";
import { qwen2 } from "./qwen2.ts";
import { qwen3 } from "./qwen3.ts";

const architectures: Readonly<Record<string, Architecture>> = {
  gemma3,
  llama,
  qwen2,
  qwen3,
  bert,
  "nomic-bert": nomicBert,
};

export const architectureNames: readonly string[] = Object.keys(architectures);

/**
 * The graph of a model file.
 * @throws {ModelFileError} for an unknown family, a missing or misshapen tensor, metadata out of bounds, and tensors that
 * the family does not know: what is not computed would silently give other answers.
 */
export function buildGraph(file: ModelFile): Graph {
  const { metadata } = file;
  const name = metadata.string("general.architecture");
  const architecture = Object.hasOwn(architectures, name) ? architectures[name] : undefined;
  if (!architecture) {
    const known = architectureNames.join(", ");
    throw metadata.error(
      "general.architecture",
      `is "${printable(name)}", which is not supported; supported are ${known}`,
    );
  }
  const source = openSource(file, name);
  const graph = architecture(source);
  source.weights.requireAllUsed(name);
  return graph;
}
