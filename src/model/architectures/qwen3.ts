// Qwen 3, dense (Yang et al. 2025): no biases; each head of q and k is normalised before it turns.

import type { Graph } from "../../graph/graph.ts";
import type { Source } from "./hyperparameters.ts";
import { preNormDecoder } from "./pre-norm.ts";

export function qwen3(source: Source): Graph {
  return preNormDecoder(source, { name: "qwen3", ropeStyle: "halves", qkNorm: true, biases: false });
}
