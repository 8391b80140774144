// Small random encoders of the BERT family, in both forms that TinyAI reads: a GGUF file as llama.cpp's converter writes it, and
// a sentence-transformers folder. With the same options both hold the same values.

import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import type { DType } from "../../src/model/file.ts";
import { GgufWriter } from "./gguf-writer.ts";
import { Random } from "./random.ts";
import { safetensorsBytes, safetensorsParts, type WrittenTensor, writtenTensor } from "./safetensors-writer.ts";

export interface TinyEncoderOptions {
  /** "bert": learned positions, GELU, biases; "nomic-bert": rotary positions, SwiGLU, no biases. Default bert. */
  readonly architecture?: "bert" | "nomic-bert";
  /** Of every matrix; a folder's are F32, F16 or BF16. Vectors, positions and types are F32. Default F32. */
  readonly dtype?: DType;
  /** Default 2. */
  readonly layers?: number;
  /** Default 64; the next ones follow it. */
  readonly width?: number;
  readonly ffn?: number;
  /** Default 4; each is `width / heads` wide, which is a multiple of 16. */
  readonly heads?: number;
  /** Tokens; at least 128. Default 256. */
  readonly vocabulary?: number;
  /** Positions at most. Default 64. */
  readonly context?: number;
  /** The longest text in tokens, where it is less than the context. Default: not stated. */
  readonly maxLength?: number;
  /** Default mean. */
  readonly pooling?: "mean" | "first" | "last";
  /** Whether vectors have length 1; a GGUF file does not say it. Default true. */
  readonly normalise?: boolean;
  /** Whether a GGUF file holds a layer's queries, keys and values in one matrix. Default: for nomic-bert, as its folders do. */
  readonly fused?: boolean;
  readonly seed?: number;
}

/** A tensor by its name in GGUF, `shape` innermost first. */
export interface TinyTensor {
  readonly shape: readonly number[];
  readonly values: Float32Array;
}

export const tinyEpsilon = 1e-12;
export const tinyRopeBase = 1000;

type Shape = Required<Omit<TinyEncoderOptions, "maxLength">> & { readonly maxLength: number | undefined };

function shapeOf(options: TinyEncoderOptions): Shape {
  const architecture = options.architecture ?? "bert";
  const width = options.width ?? 64;
  return {
    architecture,
    dtype: options.dtype ?? "F32",
    layers: options.layers ?? 2,
    width,
    ffn: options.ffn ?? 2 * width,
    heads: options.heads ?? 4,
    vocabulary: options.vocabulary ?? 256,
    context: options.context ?? 64,
    maxLength: options.maxLength,
    pooling: options.pooling ?? "mean",
    normalise: options.normalise ?? true,
    fused: options.fused ?? architecture === "nomic-bert",
    seed: options.seed ?? 1,
  };
}

const specialTokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] as const;
const words = "the of and to in a is it for on with as world hello time once upon there was search text cat dog".split(
  " ",
);

/** The tokens as a vocab.txt spells them: five special ones, ASCII's punctuation, single characters, words, pieces. */
export function tinyEncoderTokens(vocabulary = 256): string[] {
  const printable = Array.from({ length: 94 }, (_, index) => String.fromCharCode(33 + index));
  const characters = printable.filter((character) => /[a-z0-9]/.test(character));
  const tokens = new Set<string>([
    ...specialTokens,
    ...printable.filter((character) => /[^A-Za-z0-9]/.test(character)),
    ...characters,
    ...characters.map((character) => `##${character}`),
    ...words,
  ]);
  for (const first of "etaoinshrdlucm") for (const second of "etaoinshrdlucm") tokens.add(`##${first}${second}`);
  for (const first of "etaoinshrdlucm") for (const second of "etaoinshrdlucm") tokens.add(first + second);
  if (vocabulary < 128 || vocabulary > tokens.size) throw new RangeError(`${vocabulary} tokens; 128 to ${tokens.size}`);
  return [...tokens].slice(0, vocabulary);
}

/** The weights, queries, keys and values apart. */
export function tinyEncoderTensors(options: TinyEncoderOptions = {}): Map<string, TinyTensor> {
  const { architecture, layers, width, ffn, vocabulary, context, seed } = shapeOf(options);
  const random = new Random(seed);
  const tensors = new Map<string, TinyTensor>();
  const matrix = (name: string, columns: number, rows: number, size = 1 / Math.sqrt(columns)): void => {
    const values = Float32Array.from({ length: rows * columns }, () => random.normal() * size);
    tensors.set(`${name}.weight`, { shape: [columns, rows], values });
  };
  const vector = (name: string, length: number, mean: number): void => {
    tensors.set(name, { shape: [length], values: Float32Array.from({ length }, () => mean + 0.1 * random.normal()) });
  };
  const norm = (name: string): void => {
    vector(`${name}.weight`, width, 1);
    vector(`${name}.bias`, width, 0);
  };
  const bias = (name: string, length: number): void => {
    if (architecture === "bert") vector(`${name}.bias`, length, 0);
  };
  const linear = (name: string, columns: number, rows: number): void => {
    matrix(name, columns, rows);
    bias(name, rows);
  };
  matrix("token_embd", width, vocabulary, 1);
  matrix("token_types", width, 2, 0.3);
  if (architecture === "bert") matrix("position_embd", width, context, 0.3);
  norm("token_embd_norm");
  for (let layer = 0; layer < layers; layer++) {
    const name = (part: string): string => `blk.${layer}.${part}`;
    for (const part of ["attn_q", "attn_k", "attn_v", "attn_output"]) linear(name(part), width, width);
    norm(name("attn_output_norm"));
    linear(name("ffn_up"), width, ffn);
    if (architecture === "nomic-bert") linear(name("ffn_gate"), width, ffn);
    linear(name("ffn_down"), ffn, width);
    norm(name("layer_output_norm"));
  }
  return tensors;
}

/** Queries, keys and values of each layer joined into one tensor, as GGUF calls it. */
function fuse(tensors: ReadonlyMap<string, TinyTensor>): Map<string, TinyTensor> {
  const fused = new Map<string, TinyTensor>();
  for (const [name, tensor] of tensors) {
    const [, start, part, end] = /^(blk\.\d+\.attn_)([qkv])(\.\w+)$/.exec(name) ?? [];
    if (part === undefined) fused.set(name, tensor);
    if (part !== "q") continue;
    const parts = ["q", "k", "v"].map((letter) => tensors.get(`${start}${letter}${end}`) ?? tensor);
    const values = Float32Array.from(parts.flatMap(({ values: own }) => [...own]));
    const shape = [...tensor.shape.slice(0, -1), 3 * (tensor.shape.at(-1) ?? 0)];
    fused.set(`${start}qkv${end}`, { shape, values });
  }
  return fused;
}

/** The model in a writer, as llama.cpp's converter writes it, for a test that wants to change it before it is written. */
export function tinyEncoder(options: TinyEncoderOptions = {}): GgufWriter {
  const shape = shapeOf(options);
  const { architecture } = shape;
  const key = (name: string): string => `${architecture}.${name}`;
  const writer = new GgufWriter();
  writer.set("general.architecture", "string", architecture);
  writer.set("general.name", "string", `Tiny random ${architecture}`);
  writer.set(key("context_length"), "uint32", shape.context);
  writer.set(key("embedding_length"), "uint32", shape.width);
  writer.set(key("block_count"), "uint32", shape.layers);
  writer.set(key("feed_forward_length"), "uint32", shape.ffn);
  writer.set(key("attention.head_count"), "uint32", shape.heads);
  writer.set(key("attention.layer_norm_epsilon"), "float32", tinyEpsilon);
  writer.set(key("attention.causal"), "bool", false);
  writer.set(key("pooling_type"), "uint32", { mean: 1, first: 2, last: 3 }[shape.pooling]);
  if (architecture === "nomic-bert") writer.set(key("rope.freq_base"), "float32", tinyRopeBase);
  const tokens = tinyEncoderTokens(shape.vocabulary);
  writer.set("tokenizer.ggml.model", "string", "bert");
  writer.set("tokenizer.ggml.pre", "string", "default");
  writer.set("tokenizer.ggml.token_type_count", "uint32", 2);
  const isSpecial = (token: string): boolean => specialTokens.some((special) => special === token);
  writer.setArray(
    "tokenizer.ggml.tokens",
    "string",
    tokens.map((token) => {
      if (isSpecial(token)) return token;
      return token.startsWith("##") && token.length > 2 ? token.slice(2) : `▁${token}`;
    }),
  );
  writer.setArray(
    "tokenizer.ggml.token_type",
    "int32",
    tokens.map((token) => (isSpecial(token) ? 3 : 1)),
  );
  writer.set("tokenizer.ggml.padding_token_id", "uint32", 0);
  writer.set("tokenizer.ggml.unknown_token_id", "uint32", 1);
  writer.set("tokenizer.ggml.cls_token_id", "uint32", 2);
  writer.set("tokenizer.ggml.seperator_token_id", "uint32", 3);
  writer.set("tokenizer.ggml.mask_token_id", "uint32", 4);
  const tensors = tinyEncoderTensors(options);
  for (const [name, { shape: size, values }] of shape.fused ? fuse(tensors) : tensors) {
    writer.tensor(name, isMatrix(name, size) ? shape.dtype : "F32", size, values);
  }
  return writer;
}

/** What is added to the tokens is kept in F32, as llama.cpp's converter has it, and so are vectors. */
function isMatrix(name: string, shape: readonly number[]): boolean {
  return shape.length === 2 && !/^(?:position_embd|token_types)\./.test(name);
}

/** Writes the GGUF file. The same options give the same bytes. */
export function writeTinyEncoder(path: string, options: TinyEncoderOptions = {}): void {
  tinyEncoder(options).write(path);
}

/** A folder's files by their path in it, for a test that wants to change, add or leave out one before they are written. */
export type FolderFiles = Map<string, string | Uint8Array>;

/** PyTorch's names of a family's tensors, by GGUF's without the layer. */
const torchNames: Readonly<Record<"bert" | "nomic-bert", Readonly<Record<string, string>>>> = {
  bert: {
    token_embd: "embeddings.word_embeddings",
    position_embd: "embeddings.position_embeddings",
    token_types: "embeddings.token_type_embeddings",
    token_embd_norm: "embeddings.LayerNorm",
    attn_q: "attention.self.query",
    attn_k: "attention.self.key",
    attn_v: "attention.self.value",
    attn_output: "attention.output.dense",
    attn_output_norm: "attention.output.LayerNorm",
    ffn_up: "intermediate.dense",
    ffn_down: "output.dense",
    layer_output_norm: "output.LayerNorm",
  },
  "nomic-bert": {
    token_embd: "embeddings.word_embeddings",
    token_types: "embeddings.token_type_embeddings",
    token_embd_norm: "emb_ln",
    attn_qkv: "attn.Wqkv",
    attn_output: "attn.out_proj",
    attn_output_norm: "norm1",
    ffn_up: "mlp.fc11",
    ffn_gate: "mlp.fc12",
    ffn_down: "mlp.fc2",
    layer_output_norm: "norm2",
  },
};

/** The tensors of a folder's safetensors file. */
export function tinyFolderTensors(options: TinyEncoderOptions = {}): Map<string, WrittenTensor> {
  const { architecture, dtype } = shapeOf(options);
  if (dtype !== "F32" && dtype !== "F16" && dtype !== "BF16") throw new RangeError(`a folder's tensors in ${dtype}`);
  const names = torchNames[architecture];
  const tensors = tinyEncoderTensors(options);
  const written = new Map<string, WrittenTensor>();
  for (const [name, { shape, values }] of architecture === "nomic-bert" ? fuse(tensors) : tensors) {
    const [, layer, part = "", end] = /^(?:blk\.(\d+)\.)?(\w+)\.(\w+)$/.exec(name) ?? [];
    const place =
      layer === undefined ? "" : `${architecture === "bert" ? "encoder.layer" : "encoder.layers"}.${layer}.`;
    const stored = isMatrix(name, shape) ? dtype : "F32";
    written.set(`${place}${names[part]}.${end}`, writtenTensor(stored, shape.toReversed(), values));
  }
  return written;
}

/** A sentence-transformers folder's files. */
export function tinyEncoderFolder(options: TinyEncoderOptions = {}): FolderFiles {
  const shape = shapeOf(options);
  const tokens = tinyEncoderTokens(shape.vocabulary);
  const json = (value: unknown): string => JSON.stringify(value, null, 2);
  const modules = ["Transformer", "Pooling", ...(shape.normalise ? ["Normalize"] : [])];
  const files: FolderFiles = new Map();
  files.set("config.json", json(shape.architecture === "bert" ? bertConfig(shape) : nomicConfig(shape)));
  files.set(
    "modules.json",
    json(
      modules.map((name, idx) => ({
        idx,
        name: String(idx),
        path: idx === 0 ? "" : `${idx}_${name}`,
        type: `sentence_transformers.models.${name}`,
      })),
    ),
  );
  files.set(
    "1_Pooling/config.json",
    json({
      word_embedding_dimension: shape.width,
      pooling_mode_cls_token: shape.pooling === "first",
      pooling_mode_mean_tokens: shape.pooling === "mean",
      pooling_mode_max_tokens: false,
      pooling_mode_mean_sqrt_len_tokens: false,
      pooling_mode_lasttoken: shape.pooling === "last",
    }),
  );
  if (shape.maxLength !== undefined) {
    files.set("sentence_bert_config.json", json({ max_seq_length: shape.maxLength, do_lower_case: false }));
  }
  files.set("tokenizer.json", json(tokenizerOf(tokens)));
  files.set("tokenizer_config.json", json({ do_lower_case: true, model_max_length: shape.context }));
  files.set("vocab.txt", `${tokens.join("\n")}\n`);
  files.set("model.safetensors", safetensorsBytes(safetensorsParts(tinyFolderTensors(options))));
  return files;
}

function bertConfig(shape: Shape): Record<string, unknown> {
  return {
    architectures: ["BertModel"],
    model_type: "bert",
    hidden_act: "gelu",
    hidden_size: shape.width,
    intermediate_size: shape.ffn,
    layer_norm_eps: tinyEpsilon,
    max_position_embeddings: shape.context,
    num_attention_heads: shape.heads,
    num_hidden_layers: shape.layers,
    position_embedding_type: "absolute",
    type_vocab_size: 2,
    vocab_size: shape.vocabulary,
  };
}

function nomicConfig(shape: Shape): Record<string, unknown> {
  return {
    architectures: ["NomicBertModel"],
    model_type: "nomic_bert",
    activation_function: "swiglu",
    layer_norm_epsilon: tinyEpsilon,
    max_trained_positions: shape.context,
    n_positions: 4 * shape.context,
    mlp_fc1_bias: false,
    mlp_fc2_bias: false,
    n_embd: shape.width,
    n_head: shape.heads,
    n_inner: shape.ffn,
    n_layer: shape.layers,
    prenorm: false,
    qkv_proj_bias: false,
    rotary_emb_base: tinyRopeBase,
    rotary_emb_fraction: 1,
    rotary_emb_interleaved: false,
    rotary_emb_scale_base: null,
    rotary_scaling_factor: null,
    type_vocab_size: 2,
    vocab_size: shape.vocabulary,
  };
}

/** A tokenizer.json as the `tokenizers` library writes BERT's. */
export function tokenizerOf(tokens: readonly string[]): Record<string, unknown> {
  const id = (token: string): number => tokens.indexOf(token);
  const special = (token: string) => ({ SpecialToken: { id: token, type_id: 0 } });
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: specialTokens.map((content) => ({
      id: id(content),
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: {
      type: "BertNormalizer",
      clean_text: true,
      handle_chinese_chars: true,
      strip_accents: null,
      lowercase: true,
    },
    pre_tokenizer: { type: "BertPreTokenizer" },
    post_processor: {
      type: "TemplateProcessing",
      single: [special("[CLS]"), { Sequence: { id: "A", type_id: 0 } }, special("[SEP]")],
      pair: [],
      special_tokens: Object.fromEntries(
        ["[CLS]", "[SEP]"].map((token) => [token, { id: token, ids: [id(token)], tokens: [token] }]),
      ),
    },
    decoder: { type: "WordPiece", prefix: "##", cleanup: true },
    model: {
      type: "WordPiece",
      unk_token: "[UNK]",
      continuing_subword_prefix: "##",
      max_input_chars_per_word: 100,
      vocab: Object.fromEntries(tokens.map((token, index) => [token, index])),
    },
  };
}

/** Writes a folder's files and gives the folder's path. */
export function writeFolder(path: string, files: FolderFiles): string {
  for (const [name, content] of files) {
    const place = join(path, name);
    mkdirSync(dirname(place), { recursive: true });
    writeFileSync(place, content);
  }
  return path;
}

/** Writes the sentence-transformers folder. The same options give the same bytes. */
export function writeTinyEncoderFolder(path: string, options: TinyEncoderOptions = {}): string {
  return writeFolder(path, tinyEncoderFolder(options));
}
