// What to compute: values, and the operations that make them, as an architecture states them. It knows widths, not
// addresses; no kernel, no file, no fusion. src/plan decides how.
//
// Every value is a matrix of float32 with one row for each row of a step and `width` columns.

import type { DType } from "./dtype.ts";

/** A matrix of weights: `rows` outputs of `columns` inputs, row-major in the model file. */
export interface Weight {
  readonly name: string;
  readonly dtype: DType;
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

export type ActivationName = "silu" | "gelu_tanh";

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

export type Node =
  | { readonly kind: "embed"; readonly out: Value; readonly table: Weight; readonly scale: number }
  | { readonly kind: "norm"; readonly out: Value; readonly x: Value; readonly weight: Vector; readonly epsilon: number }
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
  readonly logits: Value;
  readonly vocabulary: number;
  /** Positions the model was made for. */
  readonly contextLength: number;
}

/** Collects nodes in the order they are to be computed. Widths are checked as nodes are added. */
export class GraphBuilder {
  readonly #nodes: PlacedNode[] = [];
  #values = 0;
  #layer = -1;

  /** Nodes added from now on belong to `layer`; −1 for none. */
  layer(layer: number): void {
    this.#layer = layer;
  }

  /** `scale` · the table's row of each token. */
  embed(table: Weight, scale = 1): Value {
    const out = this.#value(table.columns, "embed");
    return this.#add({ kind: "embed", out, table, scale });
  }

  /** RMSNorm (Zhang and Sennrich 2019) times `weight`. */
  rmsNorm(x: Value, weight: Vector, epsilon: number): Value {
    this.#same(weight.name, weight.values.length, x.width);
    const out = this.#value(x.width, stem(weight.name), x.rows);
    return this.#add({ kind: "norm", out, x, weight, epsilon });
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

  finish(logits: Value, contextLength: number): Graph {
    if (logits.rows !== "logits") throw new RangeError("the logits must come after select()");
    return { nodes: this.#nodes, logits, vocabulary: logits.width, contextLength };
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
