// The encoder that BERT made common: every token sees the whole text, and a LayerNorm follows the residual around each block.
// Families of this shape state only what sets them apart.

import type { Graph, Rope, Value, Vector, Weight } from "../../graph/graph.ts";
import { readPooling, type Source } from "./hyperparameters.ts";

/** What sets one family apart from another. */
export interface PostNormFamily {
  /** The prefix of its metadata keys. */
  readonly name: string;
  /** Whether tokens know their place by a learned table, rather than by turning queries and keys. */
  readonly learnsPositions: boolean;
  readonly rope: Rope | undefined;
  /** Whether the feed-forward block has a gate (SwiGLU), rather than GELU. */
  readonly gated: boolean;
}

export function postNormEncoder(source: Source, family: PostNormFamily): Graph {
  const { file, h, g, weights } = source;
  const { metadata } = file;
  const key = (name: string) => `${family.name}.${name}`;
  checkEncoder(source, key);
  const epsilonKey = key("attention.layer_norm_epsilon");
  const epsilon = metadata.number(epsilonKey);
  if (!(epsilon > 0 && epsilon < 1))
    throw metadata.error(epsilonKey, `is ${epsilon}; a small number above 0 is expected`);

  const norm = (name: string, x: Value) =>
    g.layerNorm(x, weights.vector(`${name}.weight`, h.width), weights.vector(`${name}.bias`, h.width), epsilon);
  const linear = (name: string, x: Value, rows: number) =>
    g.matmul(x, narrowed(weights.matrix(`${name}.weight`, rows, x.width)), {
      bias: weights.optionalVector(`${name}.bias`, rows),
    });

  const table = narrowed(weights.matrix("token_embd.weight", h.vocabulary, h.width));
  let x = norm("token_embd_norm", g.embed(table, { positions: addedRows(source, family.learnsPositions) }));
  for (let layer = 0; layer < h.layers; layer++) {
    g.layer(layer);
    const name = (part: string) => `blk.${layer}.${part}`;
    const project = (part: "q" | "k" | "v") => projected(source, layer, part, x);
    const attended = g.encode(project("q"), project("k"), project("v"), {
      heads: h.heads,
      headWidth: h.headWidth,
      scale: h.attentionScale,
      rope: family.rope,
    });
    x = norm(name("attn_output_norm"), g.add(x, linear(name("attn_output"), attended, h.width)));

    const up = linear(name("ffn_up"), x, h.feedForwardWidth);
    const acted = family.gated
      ? g.glu(linear(name("ffn_gate"), x, h.feedForwardWidth), up, "silu")
      : g.activation(up, "gelu");
    x = norm(name("layer_output_norm"), g.add(x, linear(name("ffn_down"), acted, h.width)));
  }
  g.layer(-1);
  g.embedding(x, {
    pooling: readPooling(file, family.name),
    // A GGUF file does not say it, and who searches wants it.
    normalise: metadata.boolean("tinyai.embedding.normalise", true),
  });
  return g.finish(undefined, h.contextLength, h.vocabulary);
}

function checkEncoder({ file: { metadata }, h }: Source, key: (name: string) => string): void {
  const tokenizer = metadata.string("tokenizer.ggml.model");
  if (tokenizer !== "bert") {
    const problem = `is "${tokenizer}": only encoders with BERT's tokenizer are supported, RoBERTa and XLM-RoBERTa are not`;
    throw metadata.error("tokenizer.ggml.model", problem);
  }
  if (metadata.boolean(key("attention.causal"), false))
    throw metadata.error(key("attention.causal"), "is true in an encoder");
  if (h.kvHeads !== h.heads || h.heads * h.headWidth !== h.width) {
    const problem = `is ${h.heads} with ${h.kvHeads} heads of keys of ${h.headWidth} values, in a width of ${h.width}`;
    throw metadata.error(key("attention.head_count"), `${problem}; heads that fill the width are supported`);
  }
}

/**
 * What is added to each token by its position: its place in the text, where the family learns that, and the type of token that
 * all texts here are of.
 */
function addedRows({ h, weights }: Source, learnsPositions: boolean): Vector | undefined {
  const place = "position_embd.weight";
  const types = "token_types.weight";
  if (!learnsPositions && !weights.has(types)) return undefined;
  const values = learnsPositions ? weights.table(place, h.contextLength, h.width) : new Float32Array(h.width);
  if (weights.has(types)) {
    const first = weights.table(types, weights.rowsOf(types), h.width);
    for (let index = 0; index < values.length; index++)
      values[index] = (values[index] ?? 0) + (first[index % h.width] ?? 0);
  }
  return { name: learnsPositions ? place : types, values };
}

/** Queries, keys or values, whose matrices a file may have one above the other in one. */
function projected({ g, h, weights }: Source, layer: number, part: "q" | "k" | "v", x: Value): Value {
  const whole = `blk.${layer}.attn_qkv`;
  const name = `blk.${layer}.attn_${part}`;
  const first = "qkv".indexOf(part) * h.width;
  const weight = weights.has(`${whole}.weight`)
    ? weights.part(`${name}.weight`, `${whole}.weight`, 3 * h.width, first, h.width, h.width)
    : weights.matrix(`${name}.weight`, h.width, h.width);
  // Prepared, the matrices are apart, and the biases still together.
  const biases = weights.optionalVector(`${whole}.bias`, 3 * h.width)?.values;
  const bias = biases
    ? { name: `${name}.bias`, values: biases.slice(first, first + h.width) }
    : weights.optionalVector(`${name}.bias`, h.width);
  return g.matmul(x, narrowed(weight), { bias });
}

/**
 * Float32 is computed with as bfloat16, in half the memory: of all-MiniLM-L6-v2's vectors none is further from float32's than a
 * cosine of 1 − 6e-5 (59 texts of 0 to 200 words, simulated in NumPy), where 8 bits would be at 1 − 6e-4 on average.
 */
function narrowed(weight: Weight): Weight {
  return weight.dtype === "F32" ? { ...weight, dtype: "BF16", sourceDtype: "F32" } : weight;
}
