// Gemma 3, text (Gemma Team 2025): five layers with a sliding window to one that sees everything, norms before and after
// each block, normalised queries and keys, GeGLU, embeddings scaled by √width and shared with the head.

import type { Graph, Value } from "../../graph/graph.ts";
import { checkCausal, readPooling, rope, type Source } from "./hyperparameters.ts";

/** Every sixth layer is global, and local layers turn with this base, unless the metadata says otherwise. */
const defaultPattern = 6;
const defaultLocalBase = 10_000;
/** The 27B model, alone in its number of layers, scales scores by its width per head instead of its head width. */
const layersOf27B = 62;

export function gemma3(source: Source): Graph {
  const { file, h, g, weights } = source;
  const { metadata } = file;
  checkCausal(file, "gemma3");
  const window = metadata.integer("gemma3.attention.sliding_window", { minimum: 1, maximum: 1 << 24 });
  const pattern = metadata.integer(
    "gemma3.attention.sliding_window_pattern",
    { minimum: 1, maximum: 1024 },
    defaultPattern,
  );
  const localBase = metadata.number("gemma3.rope.freq_base_swa", defaultLocalBase);
  const globalTurn = rope(source, "gemma3", { style: "halves" });
  const localTurn = rope(source, "gemma3", { style: "halves", base: localBase, unscaled: true });
  const scale = h.layers === layersOf27B ? 1 / Math.sqrt(h.width / h.heads) : h.attentionScale;
  const embedding = weights.matrix("token_embd.weight", h.vocabulary, h.width);
  const qWidth = h.heads * h.headWidth;
  const kvWidth = h.kvHeads * h.headWidth;

  let x = g.embed(embedding, { scale: Math.sqrt(h.width) });
  for (let layer = 0; layer < h.layers; layer++) {
    g.layer(layer);
    const name = (part: string) => `blk.${layer}.${part}`;
    const project = (part: string, input: Value, rows: number) =>
      g.matmul(input, weights.matrix(name(`${part}.weight`), rows, input.width));
    const norm = (part: string, input: Value) =>
      g.rmsNorm(input, weights.vector(name(`${part}.weight`), h.width), h.normEpsilon);
    const isGlobal = layer % pattern === pattern - 1;

    const a = norm("attn_norm", x);
    const q = project("attn_q", a, qWidth);
    const k = project("attn_k", a, kvWidth);
    const v = project("attn_v", a, kvWidth);
    const attended = g.attention(q, k, v, {
      heads: h.heads,
      kvHeads: h.kvHeads,
      headWidth: h.headWidth,
      window: isGlobal ? 0 : window,
      scale,
      softCap: h.attentionSoftCap,
      rope: isGlobal ? globalTurn : localTurn,
      qNorm: weights.vector(name("attn_q_norm.weight"), h.headWidth),
      kNorm: weights.vector(name("attn_k_norm.weight"), h.headWidth),
      normEpsilon: h.normEpsilon,
    });
    x = g.add(x, norm("post_attention_norm", project("attn_output", attended, h.width)));

    const f = norm("ffn_norm", x);
    const gate = project("ffn_gate", f, h.feedForwardWidth);
    const up = project("ffn_up", f, h.feedForwardWidth);
    x = g.add(x, norm("post_ffw_norm", project("ffn_down", g.glu(gate, up, "gelu_tanh"), h.width)));
  }
  g.layer(-1);
  const outputNorm = weights.vector("output_norm.weight", h.width);
  g.embedding(g.rmsNorm(x, outputNorm, h.normEpsilon), { pooling: readPooling(file, "gemma3") });
  const last = g.rmsNorm(g.select(x), outputNorm, h.normEpsilon);
  const head = weights.has("output.weight") ? weights.matrix("output.weight", h.vocabulary, h.width) : embedding;
  return g.finish(g.matmul(last, head, { softCap: h.logitSoftCap }), h.contextLength);
}
