// Llama 1 to 3 (Touvron et al. 2023, Dubey et al. 2024) and what shares its shape: SmolLM, TinyLlama, Mistral without a
// window. Its GGUF files store queries and keys so that neighbouring elements turn together.

import type { Graph } from "../../graph/graph.ts";
import type { Source } from "./hyperparameters.ts";
import { preNormDecoder } from "./pre-norm.ts";

export function llama(source: Source): Graph {
  return preNormDecoder(source, { name: "llama", ropeStyle: "neighbours", qkNorm: false, biases: true });
}
