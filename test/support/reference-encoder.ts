// An independent forward pass of BERT and nomic-bert in double precision, as plain loops over one text. It takes the tensors
// that the tiny encoders are written from and shares nothing with the product.

import {
  type TinyEncoderOptions,
  type TinyTensor,
  tinyEncoderTensors,
  tinyEpsilon,
  tinyRopeBase,
} from "./tiny-encoder.ts";

export interface ReferenceEncoder {
  /** The hidden states of a text, a row for each token. */
  hidden(tokens: ArrayLike<number>): Float64Array[];
}

/** The encoder that `tinyEncoder` writes for the same options, with its matrices rounded to bfloat16 where `rounded`. */
export function referenceEncoder(options: TinyEncoderOptions = {}, rounded = true): ReferenceEncoder {
  const tensors = tinyEncoderTensors(options);
  const rotary = options.architecture === "nomic-bert";
  const layers = options.layers ?? 2;
  const heads = options.heads ?? 4;
  const tensor = (name: string): TinyTensor => {
    const found = tensors.get(name);
    if (!found) throw new Error(`the reference misses ${name}`);
    return found;
  };
  const added = (name: string, row: number): Float32Array => {
    const { shape, values } = tensor(name);
    const [width = 0] = shape;
    return values.slice(row * width, (row + 1) * width);
  };
  const weights = new Map<string, Float64Array>();
  const matrix = (name: string): Float64Array => {
    let values = weights.get(name);
    if (!values) {
      values = Float64Array.from(tensor(name).values, (value) => (rounded ? bfloat16(value) : value));
      weights.set(name, values);
    }
    return values;
  };
  const apply = (name: string, x: Float64Array): Float64Array => {
    const [columns = 0, rows = 0] = tensor(`${name}.weight`).shape;
    const values = matrix(`${name}.weight`);
    const bias = tensors.get(`${name}.bias`)?.values;
    return Float64Array.from({ length: rows }, (_, row) => {
      let total = bias?.[row] ?? 0;
      for (let column = 0; column < columns; column++)
        total += (values[row * columns + column] ?? 0) * (x[column] ?? 0);
      return total;
    });
  };
  const norm = (name: string, x: Float64Array): Float64Array => {
    const mean = x.reduce((sum, value) => sum + value, 0) / x.length;
    const variance = x.reduce((sum, value) => sum + (value - mean) ** 2, 0) / x.length;
    const [weight, bias] = [tensor(`${name}.weight`).values, tensor(`${name}.bias`).values];
    return x.map(
      (value, index) =>
        ((value - mean) / Math.sqrt(variance + tinyEpsilon)) * (weight[index] ?? 0) + (bias[index] ?? 0),
    );
  };

  function attend(name: string, rows: readonly Float64Array[]): Float64Array[] {
    const turned = (x: Float64Array, position: number) => (rotary ? rotate(x, position, heads) : x);
    const q = rows.map((x, position) => turned(apply(`${name}.attn_q`, x), position));
    const k = rows.map((x, position) => turned(apply(`${name}.attn_k`, x), position));
    const v = rows.map((x) => apply(`${name}.attn_v`, x));
    return q.map((query) => {
      const headWidth = query.length / heads;
      const out = new Float64Array(query.length);
      for (let first = 0; first < query.length; first += headWidth) {
        const scores = k.map((key) => {
          let score = 0;
          for (let i = first; i < first + headWidth; i++) score += (query[i] ?? 0) * (key[i] ?? 0);
          return score / Math.sqrt(headWidth);
        });
        const largest = Math.max(...scores);
        const shares = scores.map((score) => Math.exp(score - largest));
        const total = shares.reduce((sum, share) => sum + share, 0);
        shares.forEach((share, index) => {
          for (let i = first; i < first + headWidth; i++)
            out[i] = (out[i] ?? 0) + (share / total) * (v[index]?.[i] ?? 0);
        });
      }
      return out;
    });
  }

  function feedForward(name: string, x: Float64Array): Float64Array {
    const up = apply(`${name}.ffn_up`, x);
    if (!rotary) return apply(`${name}.ffn_down`, up.map(gelu));
    const gate = apply(`${name}.ffn_gate`, x);
    return apply(
      `${name}.ffn_down`,
      up.map((value, index) => (value * (gate[index] ?? 0)) / (1 + Math.exp(-(gate[index] ?? 0)))),
    );
  }

  return {
    hidden(tokens) {
      const [width = 0] = tensor("token_embd.weight").shape;
      const table = matrix("token_embd.weight");
      const type = added("token_types.weight", 0);
      let rows = Array.from(tokens, (token, position) => {
        const placed = rotary ? undefined : added("position_embd.weight", position);
        const row = table.slice(token * width, (token + 1) * width);
        return norm(
          "token_embd_norm",
          row.map((value, index) => value + (type[index] ?? 0) + (placed?.[index] ?? 0)),
        );
      });
      for (let layer = 0; layer < layers; layer++) {
        const name = `blk.${layer}`;
        const attended = attend(name, rows);
        rows = rows.map((x, index) =>
          norm(`${name}.attn_output_norm`, sum(x, apply(`${name}.attn_output`, attended[index] ?? x))),
        );
        rows = rows.map((x) => norm(`${name}.layer_output_norm`, sum(x, feedForward(name, x))));
      }
      return rows;
    },
  };
}

/** A text's vector of its hidden states. */
export function pooled(
  rows: readonly Float64Array[],
  pooling: "mean" | "first" | "last" = "mean",
  normalise = true,
): Float64Array {
  const [first] = rows;
  const last = rows.at(-1);
  if (!first || !last) throw new Error("a text has at least one row");
  const mean = () => first.map((_, index) => rows.reduce((sum, row) => sum + (row[index] ?? 0), 0) / rows.length);
  const vector = pooling === "first" ? first : pooling === "last" ? last : mean();
  const length = normalise ? Math.hypot(...vector) : 1;
  return vector.map((value) => value / length);
}

/** Cosine of the angle between two vectors. */
export function cosine(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let [product, squaresA, squaresB] = [0, 0, 0];
  for (let index = 0; index < a.length; index++) {
    const [x, y] = [a[index] ?? Number.NaN, b[index] ?? Number.NaN];
    product += x * y;
    squaresA += x * x;
    squaresB += y * y;
  }
  return product / Math.sqrt(squaresA * squaresB);
}

/** Rounds to the nearest, ties to even. */
function bfloat16(value: number): number {
  const bits = new Uint32Array(Float32Array.of(value).buffer);
  const [word = 0] = bits;
  bits[0] = (word + 0x7fff + ((word >>> 16) & 1)) & 0xffff0000;
  return new Float32Array(bits.buffer)[0] ?? Number.NaN;
}

function rotate(x: Float64Array, position: number, heads: number): Float64Array {
  const out = x.slice();
  const headWidth = x.length / heads;
  for (let first = 0; first < x.length; first += headWidth) {
    for (let pair = 0; pair < headWidth / 2; pair++) {
      const angle = position * tinyRopeBase ** (-(2 * pair) / headWidth);
      const [a, b] = [first + pair, first + pair + headWidth / 2];
      out[a] = (x[a] ?? 0) * Math.cos(angle) - (x[b] ?? 0) * Math.sin(angle);
      out[b] = (x[a] ?? 0) * Math.sin(angle) + (x[b] ?? 0) * Math.cos(angle);
    }
  }
  return out;
}

function sum(x: Float64Array, y: Float64Array): Float64Array {
  return x.map((value, index) => value + (y[index] ?? 0));
}

/** x · Φ(x). */
function gelu(x: number): number {
  return (x * (1 + erf(x / Math.SQRT2))) / 2;
}

/** By its power series, which converges for all x; beyond 5 it is 1 to the last digit. */
function erf(x: number): number {
  if (Math.abs(x) > 5) return Math.sign(x);
  let term = x;
  let total = x;
  for (let n = 1; Math.abs(term) > 1e-17; n++) {
    term *= (-x * x) / n;
    total += term / (2 * n + 1);
  }
  return (2 / Math.sqrt(Math.PI)) * total;
}
