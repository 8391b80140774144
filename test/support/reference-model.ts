// An independent forward pass of the four families in double precision, as plain loops over whole sequences. It takes its
// weights and metadata from the bytes that the GGUF writer wrote, by the places the writer kept, and shares nothing with the
// product: no reader, no graph, no kernel. One thing it does as the product is meant to: keys and values are kept in float16,
// or 32 by 32 as multiples, from −127 to 127, of a float16 number.

import type { DType } from "../../src/model/file.ts";
import { type BuiltGguf, decodeTensor, tensorTypeNumbers, valueTypeNumbers } from "./gguf-writer.ts";

export interface ReferenceModel {
  /** The normalised hidden states, a row for each token. */
  hidden(tokens: ArrayLike<number>): Float64Array[];
  /** A row of logits for each token, after the tokens up to it. */
  logits(tokens: ArrayLike<number>): Float64Array[];
}

interface Matrix {
  readonly columns: number;
  readonly rows: number;
  readonly values: Float64Array;
}

export function referenceModel(built: BuiltGguf, kvCache: "f16" | "q8_0" = "f16"): ReferenceModel {
  const tensors = readTensors(built);
  const metadata = readMetadata(built);
  const family = String(metadata.get("general.architecture"));
  const number = (name: string, fallback: number): number => {
    const value = metadata.get(`${family}.${name}`);
    return value === undefined ? fallback : Number(value);
  };
  const gemma = family === "gemma3";
  const layers = number("block_count", 0);
  const heads = number("attention.head_count", 0);
  const kvHeads = number("attention.head_count_kv", heads);
  const width = number("embedding_length", 0);
  const headWidth = number("attention.key_length", width / heads);
  const epsilon = number("attention.layer_norm_rms_epsilon", Number.NaN);
  const dimensions = number("rope.dimension_count", headWidth);
  const linear = number("rope.scaling.factor", 1);
  const scoreCap = number("attn_logit_softcapping", 0);
  const logitCap = number("final_logit_softcapping", 0);
  const factors = tensors.get("rope_freqs.weight")?.values;

  const matrix = (name: string): Matrix => {
    const found = tensors.get(name);
    if (!found) throw new Error(`the reference misses ${name}`);
    return found;
  };
  const apply = (name: string, x: Float64Array): Float64Array => {
    const y = multiply(matrix(`${name}.weight`), x);
    const bias = tensors.get(`${name}.bias`);
    return bias ? y.map((value, index) => value + (bias.values[index] ?? 0)) : y;
  };
  const norm = (name: string, x: Float64Array): Float64Array => normalise(x, matrix(`${name}.weight`).values, epsilon);

  function attend(layer: number, rows: readonly Float64Array[]): Float64Array[] {
    const global = !gemma || layer % number("attention.sliding_window_pattern", 6) === 5;
    const window = gemma && !global ? number("attention.sliding_window", 0) : Number.POSITIVE_INFINITY;
    const base = gemma && !global ? number("rope.freq_base_swa", 10_000) : number("rope.freq_base", 10_000);
    const stretch = gemma && !global ? 1 : linear;
    const block = `blk.${layer}`;
    const turned = (name: string, x: Float64Array, count: number, position: number): Float64Array => {
      const out = new Float64Array(x.length);
      for (let head = 0; head < count; head++) {
        let part = x.subarray(head * headWidth, (head + 1) * headWidth);
        const weights = tensors.get(`${block}.${name}_norm.weight`);
        if (weights) part = normalise(part, weights.values, epsilon);
        out.set(rotate(part, position / stretch, base, dimensions, family === "llama", factors), head * headWidth);
      }
      return out;
    };
    const normed = rows.map((x) => norm(`${block}.attn_norm`, x));
    const q = normed.map((x, position) => turned("attn_q", apply(`${block}.attn_q`, x), heads, position));
    const kept = kvCache === "f16" ? half : rounded;
    const k = normed.map((x, position) => kept(turned("attn_k", apply(`${block}.attn_k`, x), kvHeads, position)));
    const v = normed.map((x) => kept(apply(`${block}.attn_v`, x)));
    return q.map((query, position) => {
      const out = new Float64Array(heads * headWidth);
      const first = Math.max(0, position - window + 1);
      for (let head = 0; head < heads; head++) {
        const kv = Math.floor(head / (heads / kvHeads)) * headWidth;
        const scores: number[] = [];
        for (let other = first; other <= position; other++) {
          let score = 0;
          for (let i = 0; i < headWidth; i++)
            score += (query[head * headWidth + i] ?? 0) * (k[other]?.[kv + i] ?? Number.NaN);
          score /= Math.sqrt(headWidth);
          scores.push(scoreCap > 0 ? scoreCap * Math.tanh(score / scoreCap) : score);
        }
        const largest = Math.max(...scores);
        const weights = scores.map((score) => Math.exp(score - largest));
        const total = weights.reduce((sum, weight) => sum + weight, 0);
        weights.forEach((weight, index) => {
          for (let i = 0; i < headWidth; i++) {
            const at = head * headWidth + i;
            out[at] = (out[at] ?? 0) + (weight / total) * (v[first + index]?.[kv + i] ?? Number.NaN);
          }
        });
      }
      return out;
    });
  }

  function feedForward(layer: number, x: Float64Array): Float64Array {
    const block = `blk.${layer}`;
    const normed = norm(`${block}.ffn_norm`, x);
    const gate = apply(`${block}.ffn_gate`, normed);
    const up = apply(`${block}.ffn_up`, normed);
    const activation = gemma ? gelu : silu;
    return apply(
      `${block}.ffn_down`,
      gate.map((value, index) => activation(value) * (up[index] ?? 0)),
    );
  }

  const embedding = matrix("token_embd.weight");

  function hidden(tokens: ArrayLike<number>): Float64Array[] {
    let rows: Float64Array[] = Array.from(tokens, (token) =>
      embedding.values.slice(token * width, (token + 1) * width).map((value) => value * (gemma ? Math.sqrt(width) : 1)),
    );
    for (let layer = 0; layer < layers; layer++) {
      const after = (name: string, x: Float64Array): Float64Array => (gemma ? norm(`blk.${layer}.${name}`, x) : x);
      const attended = attend(layer, rows);
      rows = rows.map((x, position) =>
        sum(x, after("post_attention_norm", apply(`blk.${layer}.attn_output`, attended[position] ?? x))),
      );
      rows = rows.map((x) => sum(x, after("post_ffw_norm", feedForward(layer, x))));
    }
    return rows.map((x) => norm("output_norm", x));
  }

  return {
    hidden,
    logits(tokens) {
      const head = tensors.get("output.weight") ?? embedding;
      return hidden(tokens).map((x) => {
        const logits = multiply(head, x);
        return logitCap > 0 ? logits.map((value) => logitCap * Math.tanh(value / logitCap)) : logits;
      });
    },
  };
}

function multiply({ rows, columns, values }: Matrix, x: Float64Array): Float64Array {
  const y = new Float64Array(rows);
  for (let row = 0; row < rows; row++) {
    let total = 0;
    for (let column = 0; column < columns; column++) total += (values[row * columns + column] ?? 0) * (x[column] ?? 0);
    y[row] = total;
  }
  return y;
}

function normalise(x: Float64Array, weights: Float64Array, epsilon: number): Float64Array {
  let squares = 0;
  for (const value of x) squares += value * value;
  const scale = 1 / Math.sqrt(squares / x.length + epsilon);
  return x.map((value, index) => value * scale * (weights[index] ?? 0));
}

function rotate(
  x: Float64Array,
  position: number,
  base: number,
  dimensions: number,
  neighbours: boolean,
  factors: Float64Array | undefined,
): Float64Array {
  const out = x.slice();
  const pairs = dimensions / 2;
  for (let pair = 0; pair < pairs; pair++) {
    const angle = (position * base ** (-(2 * pair) / dimensions)) / (factors?.[pair] ?? 1);
    const a = neighbours ? 2 * pair : pair;
    const b = neighbours ? 2 * pair + 1 : pair + pairs;
    out[a] = (x[a] ?? 0) * Math.cos(angle) - (x[b] ?? 0) * Math.sin(angle);
    out[b] = (x[a] ?? 0) * Math.sin(angle) + (x[b] ?? 0) * Math.cos(angle);
  }
  return out;
}

function half(x: Float64Array): Float64Array {
  return Float64Array.from(Float16Array.from(x));
}

function rounded(x: Float64Array): Float64Array {
  const out = new Float64Array(x.length);
  for (let first = 0; first < x.length; first += 32) {
    const block = x.subarray(first, first + 32);
    const [scale = 0] = Float16Array.of(Math.max(...block.map(Math.abs)) / 127);
    block.forEach((value, index) => {
      out[first + index] = scale === 0 ? 0 : scale * Math.max(-127, Math.min(127, Math.round(value / scale)));
    });
  }
  return out;
}

function sum(x: Float64Array, y: Float64Array): Float64Array {
  return x.map((value, index) => value + (y[index] ?? 0));
}

function silu(x: number): number {
  return x / (1 + Math.exp(-x));
}

/** The approximation with tanh (Hendrycks and Gimpel 2016). */
function gelu(x: number): number {
  return 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));
}

function readTensors({ bytes, fields }: BuiltGguf): Map<string, Matrix> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const shapes = new Map<string, number[]>();
  const dtypes = new Map<string, DType>();
  const tensors = new Map<string, Matrix>();
  for (const field of fields) {
    if (!field.owner.startsWith("tensor ")) continue;
    const name = field.owner.slice("tensor ".length);
    if (field.class === "dimension") {
      shapes.set(name, [...(shapes.get(name) ?? []), Number(view.getBigUint64(field.offset, true))]);
    } else if (field.class === "tensorType") {
      const type = view.getUint32(field.offset, true);
      for (const [dtype, value] of Object.entries(tensorTypeNumbers))
        if (value === type) dtypes.set(name, dtype as DType);
    } else if (field.class === "data") {
      const [columns = 0, rows = 1] = shapes.get(name) ?? [];
      const data = bytes.slice(field.offset, field.offset + field.length);
      tensors.set(name, { columns, rows, values: decodeTensor(dtypes.get(name) ?? "F32", data) });
    }
  }
  return tensors;
}

/** Scalars of the types that hyperparameters have. */
function readMetadata({ bytes, fields }: BuiltGguf): Map<string, string | number> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const types = new Map<string, number>();
  const metadata = new Map<string, string | number>();
  for (const field of fields) {
    if (field.class === "valueType") types.set(field.owner, view.getUint32(field.offset, true));
    if (field.class !== "value" || metadata.has(field.owner)) continue;
    const type = types.get(field.owner);
    if (type === valueTypeNumbers.uint32) metadata.set(field.owner, view.getUint32(field.offset, true));
    else if (type === valueTypeNumbers.float32) metadata.set(field.owner, view.getFloat32(field.offset, true));
    else if (type === valueTypeNumbers.string) {
      metadata.set(field.owner, new TextDecoder().decode(bytes.subarray(field.offset, field.offset + field.length)));
    }
  }
  return metadata;
}
