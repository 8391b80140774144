// What to compute: values, and the operations that make them, as an architecture states them. It knows widths, not
// addresses; no kernel, no file, no fusion. src/plan decides how.
//
// Every value is a matrix of float32 with one row for each row of a step and `width` columns.

import type { DType } from "./dtype.ts";

/** A matrix of weights: `rows` outputs of `columns` inputs, row-major in the model file. */
export interface Weight {
  readonly name: string;
  /** The format that it is packed in and computed with. */
  readonly dtype: DType;
  /** The format that the file has, where it is another: values are converted while they are packed. */
  readonly sourceDtype?: DType | undefined;
  readonly rows: number;
  readonly columns: number;
  /** Where its bytes are in the model file. */
  readonly byteOffset: number;
  readonly byteLength: number;
}

/** A small vector of weights (a norm's, a bias), already in memory. */
export interface Vector {
  readonly name: string;
  readonly values: Float32Array;
}

/** The output of a node. */
export interface Value {
  readonly id: number;
  readonly width: number;
  readonly name: string;
  /** `all`: a row for each row of the step. `logits`: only for those whose logits are wanted. */
  readonly rows: "all" | "logits";
}

/** `gelu` is x · Φ(x) with the exact error function, `gelu_tanh` its approximation (Hendrycks and Gimpel 2016). */
export type ActivationName = "silu" | "gelu_tanh" | "gelu" | "relu";

/** What of a text's hidden states is its vector: their mean, the first token's, or the last one's. */
export type PoolingName = "mean" | "first" | "last";

/** How positions turn queries and keys. */
export interface Rope {
  /** `halves` pairs element i with i + pairs (GPT-NeoX), `neighbours` 2i with 2i + 1. */
  readonly style: "halves" | "neighbours";
  /** Angle per position of each pair, in radians: half as many as the elements that turn. */
  readonly frequencies: Float32Array;
  /** Multiplies cosine and sine. */
  readonly scale: number;
}

/** Grouped-query attention (Ainslie et al. 2023) over the sequence's own past. */
export interface AttentionShape {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headWidth: number;
  /** Positions looked back to, the current one included; 0 for all. */
  readonly window: number;
  /** Multiplies q·k before the softmax. */
  readonly scale: number;
  /** Where above 0, scores become cap · tanh(score / cap). */
  readonly softCap: number;
  readonly rope: Rope;
  /** RMSNorm over each head of q and of k, before the rotation. */
  readonly qNorm?: Vector | undefined;
  readonly kNorm?: Vector | undefined;
  readonly normEpsilon: number;
}

/** Attention of all rows of a text over all of them, before and behind (Vaswani et al. 2017). */
export interface EncoderShape {
  readonly heads: number;
  /** A multiple of 16. */
  readonly headWidth: number;
  /** Multiplies q·k before the softmax. */
  readonly scale: number;
  readonly rope: Rope | undefined;
}

export type Node =
  | {
      readonly kind: "embed";
      readonly out: Value;
      readonly table: Weight;
      readonly scale: number;
      readonly positions: Vector | undefined;
    }
  | {
      readonly kind: "norm";
      readonly out: Value;
      readonly x: Value;
      readonly weight: Vector;
      readonly bias: Vector | undefined;
      /** Whether the mean is subtracted: LayerNorm instead of RMSNorm. */
      readonly centred: boolean;
      readonly epsilon: number;
    }
  | {
      readonly kind: "matmul";
      readonly out: Value;
      readonly x: Value;
      readonly weight: Weight;
      readonly bias: Vector | undefined;
      readonly softCap: number;
    }
  | { readonly kind: "add"; readonly out: Value; readonly x: Value; readonly y: Value }
  | {
      readonly kind: "glu";
      readonly out: Value;
      readonly gate: Value;
      readonly up: Value;
      readonly activation: ActivationName;
    }
  | { readonly kind: "activation"; readonly out: Value; readonly x: Value; readonly activation: ActivationName }
  | {
      readonly kind: "encode";
      readonly out: Value;
      readonly q: Value;
      readonly k: Value;
      readonly v: Value;
      readonly shape: EncoderShape;
    }
  | {
      readonly kind: "attention";
      readonly out: Value;
      readonly q: Value;
      readonly k: Value;
      readonly v: Value;
      readonly shape: AttentionShape;
    }
  | { readonly kind: "select"; readonly out: Value; readonly x: Value };

/** A node with the layer it belongs to (−1: none). */
export type PlacedNode = Node & { readonly layer: number; readonly name: string };

/** A whole model, ready to be planned. */
export interface Graph {
  readonly nodes: readonly PlacedNode[];
  /** Undefined: the model draws no tokens. */
  readonly logits: Value | undefined;
  /** The hidden states that a text's vector is made of; undefined: it has none. */
  readonly embedding: Value | undefined;
  /** What of them the model was trained to give; undefined: it was not trained to give vectors. */
  readonly pooling: PoolingName | undefined;
  /** Whether its vectors have length 1. */
  readonly normalise: boolean;
  /** Whether a token sees only what is before it; otherwise texts are computed whole. */
  readonly causal: boolean;
  readonly vocabulary: number;
  /** Positions the model was made for. */
  readonly contextLength: number;
}

/** Collects nodes in the order they are to be computed. Widths are checked as nodes are added. */
export class GraphBuilder {
  readonly #nodes: PlacedNode[] = [];
  #values = 0;
  #layer = -1;
  #embedding: Value | undefined;
  #pooling: PoolingName | undefined;
  #normalise = true;

  /** Nodes added from now on belong to `layer`; −1 for none. */
  layer(layer: number): void {
    this.#layer = layer;
  }

  /**
   * `scale` · the table's row of each token, plus the row of `positions` that its position in the text has: rows as wide as the
   * table, as many as the context is long, or one for all positions.
   */
  embed(table: Weight, options: { scale?: number; positions?: Vector | undefined } = {}): Value {
    const { scale = 1, positions } = options;
    if (positions) this.#same(positions.name, positions.values.length % table.columns, 0);
    const out = this.#value(table.columns, "embed");
    return this.#add({ kind: "embed", out, table, scale, positions });
  }

  /** RMSNorm (Zhang and Sennrich 2019) times `weight`. */
  rmsNorm(x: Value, weight: Vector, epsilon: number): Value {
    this.#same(weight.name, weight.values.length, x.width);
    const out = this.#value(x.width, stem(weight.name), x.rows);
    return this.#add({ kind: "norm", out, x, weight, bias: undefined, centred: false, epsilon });
  }

  /** (x − mean) / √(variance + epsilon) · weight (+ bias) (Ba et al. 2016). */
  layerNorm(x: Value, weight: Vector, bias: Vector | undefined, epsilon: number): Value {
    this.#same(weight.name, weight.values.length, x.width);
    if (bias) this.#same(bias.name, bias.values.length, x.width);
    const out = this.#value(x.width, stem(weight.name), x.rows);
    return this.#add({ kind: "norm", out, x, weight, bias, centred: true, epsilon });
  }

  /** weight · x (+ bias), then cap · tanh(y / cap) where `softCap` is above 0. */
  matmul(x: Value, weight: Weight, options: { bias?: Vector | undefined; softCap?: number } = {}): Value {
    this.#same(weight.name, weight.columns, x.width);
    if (options.bias) this.#same(options.bias.name, options.bias.values.length, weight.rows);
    const out = this.#value(weight.rows, stem(weight.name), x.rows);
    return this.#add({ kind: "matmul", out, x, weight, bias: options.bias, softCap: options.softCap ?? 0 });
  }

  /** x + y. */
  add(x: Value, y: Value): Value {
    this.#same("add", y.width, x.width);
    const out = this.#value(x.width, `${y.name}_add`, x.rows);
    return this.#add({ kind: "add", out, x, y });
  }

  /** act(gate) · up, elementwise (Shazeer 2020). */
  glu(gate: Value, up: Value, activation: ActivationName): Value {
    this.#same("glu", up.width, gate.width);
    const out = this.#value(gate.width, this.#named("ffn_glu"), gate.rows);
    return this.#add({ kind: "glu", out, gate, up, activation });
  }

  /** act(x), elementwise. */
  activation(x: Value, activation: ActivationName): Value {
    const out = this.#value(x.width, this.#named("ffn_act"), x.rows);
    return this.#add({ kind: "activation", out, x, activation });
  }

  /** Attends over the whole text, both ways; nothing is kept of it. */
  encode(q: Value, k: Value, v: Value, shape: EncoderShape): Value {
    for (const [name, value] of Object.entries({ q, k, v })) {
      this.#same(name, value.width, shape.heads * shape.headWidth);
    }
    const out = this.#value(q.width, this.#named("attn"));
    return this.#add({ kind: "encode", out, q, k, v, shape });
  }

  /** Stores k and v in the sequence's cache and attends over it. */
  attention(q: Value, k: Value, v: Value, shape: AttentionShape): Value {
    this.#same("q", q.width, shape.heads * shape.headWidth);
    this.#same("k", k.width, shape.kvHeads * shape.headWidth);
    this.#same("v", v.width, shape.kvHeads * shape.headWidth);
    const out = this.#value(q.width, this.#named("attn"));
    return this.#add({ kind: "attention", out, q, k, v, shape });
  }

  /** Only the rows whose logits are wanted: what follows is computed for them alone. */
  select(x: Value): Value {
    const out = this.#value(x.width, "select", "logits");
    return this.#add({ kind: "select", out, x });
  }

  /**
   * x are the hidden states that a text's vector is made of. `pooling` and `normalise` are what the model was trained for:
   * by default vectors have length 1. What nothing else needs is only computed for texts whose vector is wanted.
   */
  embedding(x: Value, options: { pooling?: PoolingName | undefined; normalise?: boolean | undefined } = {}): void {
    if (x.rows !== "all") throw new RangeError("a text's vector is made of all its rows, not of those after select()");
    this.#embedding = x;
    this.#pooling = options.pooling;
    this.#normalise = options.normalise ?? true;
  }

  /** Without logits the model only gives vectors, and `vocabulary` says how many tokens it knows. */
  finish(logits: Value | undefined, contextLength: number, vocabulary = logits?.width): Graph {
    if (logits && logits.rows !== "logits") throw new RangeError("the logits must come after select()");
    if (vocabulary === undefined) throw new RangeError("without logits the vocabulary must be given");
    if (!logits && !this.#embedding) throw new RangeError("a model has logits, an embedding, or both");
    const kinds = new Set(this.#nodes.map((node) => node.kind));
    if (kinds.has("encode") && (kinds.has("attention") || logits)) {
      throw new RangeError("texts that are encoded whole have no cache, and no token is drawn after them");
    }
    return {
      nodes: this.#nodes,
      logits,
      embedding: this.#embedding,
      pooling: this.#pooling,
      normalise: this.#normalise,
      causal: !kinds.has("encode"),
      vocabulary,
      contextLength,
    };
  }

  #named(name: string): string {
    return this.#layer < 0 ? name : `blk.${this.#layer}.${name}`;
  }

  #value(width: number, name: string, rows: "all" | "logits" = "all"): Value {
    return { id: this.#values++, width, name, rows };
  }

  #add(node: Node): Value {
    this.#nodes.push({ ...node, layer: this.#layer, name: node.out.name });
    return node.out;
  }

  // Architectures check shapes with better words as they read weights; this catches a mistake in an architecture.
  #same(what: string, actual: number, expected: number): void {
    if (actual !== expected) throw new RangeError(`${what}: width ${actual} where ${expected} is expected`);
  }
}

function stem(weightName: string): string {
  return weightName.replace(/\.weight$/, "");
}
