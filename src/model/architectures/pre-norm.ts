// The decoder that Llama made common: RMSNorm before each block, grouped-query attention over rotary positions, SwiGLU, and
// a residual around both. Families of this shape state only what sets them apart.

import type { Graph, Rope, Value } from "../../graph/graph.ts";
import { checkCausal, readPooling, rope, type Source } from "./hyperparameters.ts";

/** What sets one family apart from another. */
export interface PreNormFamily {
  /** The prefix of its metadata keys. */
  readonly name: string;
  readonly ropeStyle: Rope["style"];
  /** Whether each head of q and k is normalised before it turns. */
  readonly qkNorm: boolean;
  /** Whether projections may have a bias. */
  readonly biases: boolean;
}

export function preNormDecoder(source: Source, family: PreNormFamily): Graph {
  const { file, h, g, weights } = source;
  checkCausal(file, family.name);
  const turn = rope(source, family.name, { style: family.ropeStyle });
  const embedding = weights.matrix("token_embd.weight", h.vocabulary, h.width);
  const qWidth = h.heads * h.headWidth;
  const kvWidth = h.kvHeads * h.headWidth;

  let x = g.embed(embedding);
  for (let layer = 0; layer < h.layers; layer++) {
    g.layer(layer);
    const name = (part: string) => `blk.${layer}.${part}`;
    const norm = (part: string) => g.rmsNorm(x, weights.vector(name(`${part}.weight`), h.width), h.normEpsilon);
    const headNorm = (part: string) =>
      family.qkNorm ? weights.vector(name(`${part}.weight`), h.headWidth) : undefined;
    const project = (part: string, input: Value, rows: number) =>
      g.matmul(input, weights.matrix(name(`${part}.weight`), rows, input.width), {
        bias: family.biases ? weights.optionalVector(name(`${part}.bias`), rows) : undefined,
      });

    const a = norm("attn_norm");
    const q = project("attn_q", a, qWidth);
    const k = project("attn_k", a, kvWidth);
    const v = project("attn_v", a, kvWidth);
    const attended = g.attention(q, k, v, {
      heads: h.heads,
      kvHeads: h.kvHeads,
      headWidth: h.headWidth,
      window: 0,
      scale: h.attentionScale,
      softCap: h.attentionSoftCap,
      rope: turn,
      qNorm: headNorm("attn_q_norm"),
      kNorm: headNorm("attn_k_norm"),
      normEpsilon: h.normEpsilon,
    });
    x = g.add(x, project("attn_output", attended, h.width));

    const f = norm("ffn_norm");
    const gate = project("ffn_gate", f, h.feedForwardWidth);
    const up = project("ffn_up", f, h.feedForwardWidth);
    x = g.add(x, project("ffn_down", g.glu(gate, up, "silu"), h.width));
  }
  g.layer(-1);
  const outputNorm = weights.vector("output_norm.weight", h.width);
  g.embedding(g.rmsNorm(x, outputNorm, h.normEpsilon), { pooling: readPooling(file, family.name) });
  const last = g.rmsNorm(g.select(x), outputNorm, h.normEpsilon);
  const head = weights.has("output.weight") ? weights.matrix("output.weight", h.vocabulary, h.width) : embedding;
  return g.finish(g.matmul(last, head, { softCap: h.logitSoftCap }), h.contextLength);
}
