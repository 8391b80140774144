// BERT (Devlin et al. 2019) and the embedders built on it: all-MiniLM, BGE, E5, GTE.

import type { Graph } from "../../graph/graph.ts";
import type { Source } from "./hyperparameters.ts";
import { postNormEncoder } from "./post-norm.ts";

export function bert(source: Source): Graph {
  return postNormEncoder(source, { name: "bert", learnsPositions: true, rope: undefined, gated: false });
}
