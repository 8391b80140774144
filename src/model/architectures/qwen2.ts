// Qwen 2 and 2.5, dense (Yang et al. 2024): Llama's shape with biases on queries, keys and values, and rotary pairs half a
// head apart.

import type { Graph } from "../../graph/graph.ts";
import { rope, type Source } from "./hyperparameters.ts";

export function qwen2(source: Source): Graph {
  const { h, g, weights } = source;
  const turn = rope(source, "qwen2", { style: "halves" });
  const embedding = weights.matrix("token_embd.weight", h.vocabulary, h.width);
  const qWidth = h.heads * h.headWidth;
  const kvWidth = h.kvHeads * h.headWidth;

  let x = g.embed(embedding);
  for (let layer = 0; layer < h.layers; layer++) {
    g.layer(layer);
    const name = (part: string) => `blk.${layer}.${part}`;
    const project = (part: string, input: typeof x, rows: number) =>
      g.matmul(input, weights.matrix(name(`${part}.weight`), rows, input.width), {
        bias: weights.optionalVector(name(`${part}.bias`), rows),
      });
    const norm = (part: string) => g.rmsNorm(x, weights.vector(name(`${part}.weight`), h.width), h.normEpsilon);

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
      normEpsilon: h.normEpsilon,
    });
    x = g.add(x, project("attn_output", attended, h.width));

    const f = norm("ffn_norm");
    const gate = project("ffn_gate", f, h.feedForwardWidth);
    const up = project("ffn_up", f, h.feedForwardWidth);
    x = g.add(x, project("ffn_down", g.glu(gate, up, "silu"), h.width));
  }
  g.layer(-1);
  const last = g.rmsNorm(g.select(x), weights.vector("output_norm.weight", h.width), h.normEpsilon);
  const head = weights.has("output.weight") ? weights.matrix("output.weight", h.vocabulary, h.width) : embedding;
  return g.finish(g.matmul(last, head, { softCap: h.logitSoftCap }), h.contextLength);
}
