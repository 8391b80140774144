// Nomic Embed (Nussbaum et al. 2024): BERT with rotary positions, SwiGLU, and no biases.

import type { Graph } from "../../graph/graph.ts";
import { rope, type Source } from "./hyperparameters.ts";
import { postNormEncoder } from "./post-norm.ts";

export function nomicBert(source: Source): Graph {
  const turn = rope(source, "nomic-bert", { style: "halves" });
  return postNormEncoder(source, { name: "nomic-bert", learnsPositions: false, rope: turn, gated: true });
}
