// Qwen 2 and 2.5, dense (Yang et al. 2024): biases on queries, keys and values.

import type { Graph } from "../../graph/graph.ts";
import type { Source } from "./hyperparameters.ts";
import { preNormDecoder } from "./pre-norm.ts";

export function qwen2(source: Source): Graph {
  return preNormDecoder(source, { name: "qwen2", ropeStyle: "halves", qkNorm: false, biases: true });
}
