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

/** Height and width. */
export type Pair = readonly [number, number];

/**
 * Sizes of a convolution. Every row of its input is an image: its rows one after the other, in each position by position, the
 * channels of one together. A sequence is an image of height 1.
 */
export interface ConvolutionShape {
  readonly size: Pair;
  readonly channels: number;
  readonly outSize: Pair;
  readonly outputs: number;
  readonly kernel: Pair;
  readonly stride: Pair;
  readonly dilation: Pair;
  /** Rows above the image and columns before it that count as zeros; as many behind it as the outputs reach. */
  readonly padding: Pair;
  /** Equal parts of the channels and of the outputs that belong together; as many as channels: depthwise. */
  readonly groups: number;
}

/** What a convolution of images is, beside its weight. */
export interface Conv2dOptions {
  /** Of the images. */
  readonly size: Pair;
  readonly kernel: Pair;
  /** Default 1, 1. */
  readonly stride?: Pair | undefined;
  /** Default 1, 1. */
  readonly dilation?: Pair | undefined;
  /** Zeros above and below, before and behind; or above, before, below, behind. Default none. */
  readonly padding?: Pair | readonly [number, number, number, number] | undefined;
  /** Default 1. */
  readonly groups?: number | undefined;
}

/** What a convolution of sequences is, beside its weight. */
export interface Conv1dOptions {
  /** Positions of the sequences. */
  readonly length: number;
  readonly kernel: number;
  /** Default 1. */
  readonly stride?: number | undefined;
  /** Default 1. */
  readonly dilation?: number | undefined;
  /** Zeros before and behind. Default none. */
  readonly padding?: number | Pair | undefined;
  /** Default 1. */
  readonly groups?: number | undefined;
}

/** An op holds a convolution's sizes as 16-bit numbers. */
const convolutionSizeMax = 65_535;

/**
 * Sizes of a convolution, and of what comes of it.
 * @throws {RangeError} if a size is not a whole number from 1 to 65,535 (padding from 0), groups do not divide the channels and
 * the outputs, or the kernel is larger than the padded image.
 */
export function convolutionShape(channels: number, outputs: number, options: Conv2dOptions): ConvolutionShape {
  const { size, kernel, stride = [1, 1], dilation = [1, 1], padding = [0, 0], groups = 1 } = options;
  const [top, left, below = top, behind = left] = padding;
  const added: Pair = [top + below, left + behind];
  const along = (axis: 0 | 1): number =>
    Math.floor((size[axis] + added[axis] - (kernel[axis] - 1) * dilation[axis] - 1) / stride[axis]) + 1;
  const outSize: Pair = [along(0), along(1)];
  const sizes = { size, channels, outputs, kernel, stride, dilation, groups };
  for (const [name, values] of Object.entries({ ...sizes, padding: padding.map((zeros) => zeros + 1) })) {
    for (const value of [values].flat()) {
      if (Number.isInteger(value) && value >= 1 && value <= convolutionSizeMax) continue;
      throw new RangeError(`a convolution's ${name} is out of bounds: whole numbers up to ${convolutionSizeMax}`);
    }
  }
  if (channels % groups !== 0 || outputs % groups !== 0) {
    throw new RangeError(`${groups} groups do not divide ${channels} channels and ${outputs} outputs`);
  }
  for (const axis of [0, 1] as const) {
    if (outSize[axis] >= 1 && outSize[axis] <= convolutionSizeMax) continue;
    throw new RangeError(
      `a kernel of ${kernel.join(" × ")}, dilated ${dilation.join(" × ")}, does not fit images of ${size.join(" × ")} with padding ${padding.join(", ")}`,
    );
  }
  return { size, channels, outSize, outputs, kernel, stride, dilation, padding: [top, left], groups };
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
      readonly kind: "conv";
      readonly out: Value;
      readonly x: Value;
      readonly weight: Weight;
      readonly bias: Vector | undefined;
      readonly shape: ConvolutionShape;
    }
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

  /**
   * Convolution of images, one in each row of x. The weight has a row for each output, whose columns are by channel (of its
   * group), kernel row and kernel column, as PyTorch, ONNX and GGUF order them; it is computed with in F32.
   */
  conv2d(x: Value, weight: Weight, options: Conv2dOptions & { readonly bias?: Vector | undefined }): Value {
    const { size, bias } = options;
    const channels = x.width / (size[0] * size[1]);
    const shape = convolutionShape(channels, weight.rows, options);
    const { outSize, kernel, groups } = shape;
    this.#same(weight.name, weight.columns, (channels / groups) * kernel[0] * kernel[1]);
    if (weight.dtype !== "F32") throw new RangeError(`${weight.name} is in ${weight.dtype}: convolutions take F32`);
    if (bias) this.#same(bias.name, bias.values.length, weight.rows);
    const out = this.#value(outSize[0] * outSize[1] * weight.rows, stem(weight.name), x.rows);
    return this.#add({ kind: "conv", out, x, weight, bias, shape });
  }

  /** Convolution of sequences, one in each row of x: its positions one after the other, the channels of one together. */
  conv1d(x: Value, weight: Weight, options: Conv1dOptions & { readonly bias?: Vector | undefined }): Value {
    const { length, kernel, stride = 1, dilation = 1, padding = 0, groups, bias } = options;
    const [before, behind] = typeof padding === "number" ? [padding, padding] : padding;
    return this.conv2d(x, weight, {
      size: [1, length],
      kernel: [1, kernel],
      stride: [1, stride],
      dilation: [1, dilation],
      padding: [0, before, 0, behind],
      groups,
      bias,
    });
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
