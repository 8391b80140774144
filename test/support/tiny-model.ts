// Complete language models of a few hundred kilobytes with random weights and a small tokenizer, as GGUF files: metadata keys
// and tensor names are those of llama.cpp's files. They answer nonsense, but by the same computation as a real model.

import type { DType } from "../../src/model/file.ts";
import { blockSize } from "./formats.ts";
import { GgufWriter, type GgufWriterOptions } from "./gguf-writer.ts";
import { Random } from "./random.ts";

export type TinyArchitecture = "llama" | "qwen2" | "qwen3" | "gemma3";

export interface TinyModelOptions {
  readonly architecture?: TinyArchitecture;
  /** Of every matrix; vectors are F32. Its block must divide `width`, `ffn` and `heads · headWidth`. Default F16. */
  readonly dtype?: DType;
  /** Of the token embedding and the output head, when they are to differ from `dtype`. */
  readonly embeddingDtype?: DType;
  /** Default 2. Gemma's sixth layer is the first without a sliding window. */
  readonly layers?: number;
  /** Of the residual stream. Default 64, or 256 for a format with blocks of 256; the next ones follow it. */
  readonly width?: number;
  readonly ffn?: number;
  readonly heads?: number;
  readonly kvHeads?: number;
  readonly headWidth?: number;
  /** Tokens; at least 384. Default 512. */
  readonly vocabulary?: number;
  /** Positions at most. Default 512. */
  readonly context?: number;
  /** Gemma's window in positions. Default 16. */
  readonly slidingWindow?: number;
  /** Whether the output head is the embedding. Default: yes, but for llama. */
  readonly tied?: boolean;
  /** Linear rotary scaling's factor. Default: none. */
  readonly ropeLinearFactor?: number;
  /** Llama 3's frequency factors, one for each pair of a head's values, as `rope_freqs.weight`. Default: none. */
  readonly ropeFactors?: readonly number[];
  readonly seed?: number;
  /** "spm": SentencePiece with byte fallback; "bpe": byte-level. Default spm for llama and gemma3, bpe for the others. */
  readonly tokenizer?: "spm" | "bpe";
  /** The byte-level tokenizer's pre-tokenizer. Default "llama-bpe" for llama, else "qwen2". */
  readonly preTokenizer?: string;
  readonly chatTemplate?: string;
  readonly gguf?: GgufWriterOptions;
}

/** Writes the model to `path`. The same options give the same bytes. */
export function writeTinyModel(path: string, options: TinyModelOptions = {}): void {
  tinyModel(options).write(path);
}

/** The model in a writer, for a test that wants to change it before it is written. */
export function tinyModel(options: TinyModelOptions = {}): GgufWriter {
  const architecture = options.architecture ?? "llama";
  const shape = shapeOf(options, architecture);
  const writer = new GgufWriter(options.gguf);
  putParameters(writer, architecture, shape, options);
  const tokenizer = options.tokenizer ?? (architecture === "llama" || architecture === "gemma3" ? "spm" : "bpe");
  if (tokenizer === "spm") putSentencePiece(writer, shape.vocabulary);
  else
    putBytePairs(writer, shape.vocabulary, options.preTokenizer ?? (architecture === "llama" ? "llama-bpe" : "qwen2"));
  if (options.chatTemplate !== undefined) writer.set("tokenizer.chat_template", "string", options.chatTemplate);
  putTensors(writer, architecture, shape, options);
  return writer;
}

interface Shape {
  readonly dtype: DType;
  readonly layers: number;
  readonly width: number;
  readonly ffn: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headWidth: number;
  readonly vocabulary: number;
}

function shapeOf(options: TinyModelOptions, architecture: TinyArchitecture): Shape {
  const dtype = options.dtype ?? "F16";
  const width = options.width ?? Math.max(64, blockSize(dtype).columns);
  const heads = options.heads ?? 4;
  return {
    dtype,
    layers: options.layers ?? 2,
    width,
    ffn: options.ffn ?? 2 * width,
    heads,
    kvHeads: options.kvHeads ?? (architecture === "gemma3" ? 1 : heads / 2),
    headWidth: options.headWidth ?? width / heads,
    vocabulary: options.vocabulary ?? 512,
  };
}

function putParameters(
  writer: GgufWriter,
  architecture: TinyArchitecture,
  shape: Shape,
  options: TinyModelOptions,
): void {
  const key = (name: string): string => `${architecture}.${name}`;
  writer.set("general.architecture", "string", architecture);
  writer.set("general.type", "string", "model");
  writer.set("general.name", "string", `Tiny random ${architecture}`);
  writer.set(key("context_length"), "uint32", options.context ?? 512);
  writer.set(key("embedding_length"), "uint32", shape.width);
  writer.set(key("block_count"), "uint32", shape.layers);
  writer.set(key("feed_forward_length"), "uint32", shape.ffn);
  writer.set(key("attention.head_count"), "uint32", shape.heads);
  writer.set(key("attention.head_count_kv"), "uint32", shape.kvHeads);
  writer.set(key("attention.layer_norm_rms_epsilon"), "float32", 1e-6);
  writer.set(key("attention.key_length"), "uint32", shape.headWidth);
  writer.set(key("attention.value_length"), "uint32", shape.headWidth);
  writer.set(key("rope.freq_base"), "float32", architecture === "llama" ? 10_000 : 1_000_000);
  if (architecture === "gemma3") {
    writer.set(key("attention.sliding_window"), "uint32", options.slidingWindow ?? 16);
  } else {
    writer.set(key("rope.dimension_count"), "uint32", shape.headWidth);
    writer.set(key("vocab_size"), "uint32", shape.vocabulary);
  }
  if (options.ropeLinearFactor !== undefined) {
    writer.set(key("rope.scaling.type"), "string", "linear");
    writer.set(key("rope.scaling.factor"), "float32", options.ropeLinearFactor);
  }
  writer.set("general.quantization_version", "uint32", 2);
}

/** Pieces that tests' texts use, each joined from two that come before it or from single characters. */
const joins: readonly (readonly [left: string, right: string])[] = [
  [" ", "t"],
  ["h", "e"],
  ["i", "n"],
  ["r", "e"],
  ["o", "n"],
  [" t", "he"],
  ["e", "r"],
  [" ", "a"],
  ["a", "t"],
  ["n", "d"],
  [" ", "s"],
  ["e", "n"],
  [" ", "w"],
  [" ", "o"],
  ["o", "r"],
  ["i", "t"],
  [" o", "f"],
  ["in", "g"],
  [" a", "nd"],
  ["l", "l"],
  ["he", "ll"],
  ["hell", "o"],
  ["u", "p"],
  ["on", "ce"],
  ["c", "e"],
  ["t", "i"],
  ["m", "e"],
  ["ti", "me"],
  ["o", "u"],
  [" ", "th"],
  ["t", "h"],
  ["w", "or"],
  ["wor", "ld"],
  ["l", "d"],
];

/** `count` further pairs of lower-case letters, then triples: they fill a vocabulary with pieces that merge. */
function* moreJoins(): Generator<readonly [left: string, right: string]> {
  const letters = "etaoinshrdlucmfwypvbgkjqxz";
  for (const first of letters) for (const second of letters) yield [first, second];
  for (const first of letters) for (const second of letters) for (const third of letters) yield [first + second, third];
}

/** Distinct joins, the fixed ones first, until `count` of them exist. */
function chooseJoins(count: number): (readonly [left: string, right: string])[] {
  const chosen = new Map<string, readonly [string, string]>();
  for (const list of [joins, moreJoins()]) {
    for (const [left, right] of list) {
      if (chosen.size === count) return [...chosen.values()];
      if (!chosen.has(left + right)) chosen.set(left + right, [left, right]);
    }
  }
  if (chosen.size < count) throw new RangeError(`only ${chosen.size} of ${count} pieces: choose a smaller vocabulary`);
  return [...chosen.values()];
}

const tokenTypes = { normal: 1, unknown: 2, control: 3, byte: 6 } as const;

function putSentencePiece(writer: GgufWriter, vocabulary: number): void {
  const tokens: string[] = ["<unk>", "<s>", "</s>"];
  const scores: number[] = [0, 0, 0];
  const types: number[] = [tokenTypes.unknown, tokenTypes.control, tokenTypes.control];
  for (let byte = 0; byte < 256; byte++) {
    tokens.push(`<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`);
    scores.push(0);
    types.push(tokenTypes.byte);
  }
  const characters = [
    "▁",
    ...Array.from({ length: 94 }, (_, index) => String.fromCharCode(33 + index)),
    "é",
    "ü",
    "日",
  ];
  const pieces = chooseJoins(vocabulary - tokens.length - characters.length).map(([left, right]) => left + right);
  // As SentencePiece trains them: the earlier a merge, the higher its score; characters come after all merges.
  for (const piece of [...pieces, ...characters]) {
    tokens.push(piece.replaceAll(" ", "▁"));
    scores.push(-(tokens.length - 259));
    types.push(tokenTypes.normal);
  }
  writer.set("tokenizer.ggml.model", "string", "llama");
  writer.set("tokenizer.ggml.pre", "string", "default");
  writer.setArray("tokenizer.ggml.tokens", "string", tokens);
  writer.setArray("tokenizer.ggml.scores", "float32", scores);
  writer.setArray("tokenizer.ggml.token_type", "int32", types);
  writer.set("tokenizer.ggml.bos_token_id", "uint32", 1);
  writer.set("tokenizer.ggml.eos_token_id", "uint32", 2);
  writer.set("tokenizer.ggml.unknown_token_id", "uint32", 0);
  writer.set("tokenizer.ggml.add_bos_token", "bool", true);
  writer.set("tokenizer.ggml.add_eos_token", "bool", false);
  writer.set("tokenizer.ggml.add_space_prefix", "bool", true);
}

/** GPT-2's printable stand-in for each byte: itself where it is printable and no space, else from U+0100 on. */
function byteCharacters(): string[] {
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    return String.fromCharCode(printable ? byte : next++);
  });
}

function putBytePairs(writer: GgufWriter, vocabulary: number, preTokenizer: string): void {
  const characters = byteCharacters();
  const special = ["<|begin_of_text|>", "<|end_of_text|>"];
  const spaced = (text: string): string => text.replaceAll(" ", characters[32] ?? "");
  const pairs = chooseJoins(vocabulary - characters.length - special.length);
  const tokens = [...characters, ...pairs.map(([left, right]) => spaced(left + right)), ...special];
  const types = tokens.map((_, token) =>
    token < vocabulary - special.length ? tokenTypes.normal : tokenTypes.control,
  );
  writer.set("tokenizer.ggml.model", "string", "gpt2");
  writer.set("tokenizer.ggml.pre", "string", preTokenizer);
  writer.setArray("tokenizer.ggml.tokens", "string", tokens);
  writer.setArray("tokenizer.ggml.token_type", "int32", types);
  writer.setArray(
    "tokenizer.ggml.merges",
    "string",
    pairs.map(([left, right]) => `${spaced(left)} ${spaced(right)}`),
  );
  writer.set("tokenizer.ggml.bos_token_id", "uint32", vocabulary - 2);
  writer.set("tokenizer.ggml.eos_token_id", "uint32", vocabulary - 1);
  writer.set("tokenizer.ggml.add_bos_token", "bool", preTokenizer === "llama-bpe");
}

function putTensors(writer: GgufWriter, architecture: TinyArchitecture, shape: Shape, options: TinyModelOptions): void {
  const random = new Random(options.seed ?? 1);
  const matrix = (name: string, columns: number, rows: number, dtype: DType = shape.dtype): void => {
    // Rows of length about 1, so that values keep their size from layer to layer.
    const values = Float32Array.from({ length: rows * columns }, () => random.normal() / Math.sqrt(columns));
    writer.tensor(`${name}.weight`, dtype, [columns, rows], values);
  };
  const vector = (name: string, width: number, mean: number): void => {
    writer.tensor(
      name,
      "F32",
      [width],
      Float32Array.from({ length: width }, () => mean + 0.1 * random.normal()),
    );
  };
  const norm = (name: string, width: number): void => vector(`${name}.weight`, width, 1);
  const { width, ffn, heads, kvHeads, headWidth, vocabulary } = shape;
  const embeddingDtype = options.embeddingDtype ?? shape.dtype;

  norm("output_norm", width);
  matrix("token_embd", width, vocabulary, embeddingDtype);
  if (!(options.tied ?? architecture !== "llama")) matrix("output", width, vocabulary, embeddingDtype);
  if (options.ropeFactors !== undefined) {
    writer.tensor("rope_freqs.weight", "F32", [options.ropeFactors.length], Float32Array.from(options.ropeFactors));
  }
  for (let layer = 0; layer < shape.layers; layer++) {
    const name = (part: string): string => `blk.${layer}.${part}`;
    norm(name("attn_norm"), width);
    matrix(name("attn_q"), width, heads * headWidth);
    matrix(name("attn_k"), width, kvHeads * headWidth);
    matrix(name("attn_v"), width, kvHeads * headWidth);
    matrix(name("attn_output"), heads * headWidth, width);
    if (architecture === "qwen2") {
      vector(name("attn_q.bias"), heads * headWidth, 0);
      vector(name("attn_k.bias"), kvHeads * headWidth, 0);
      vector(name("attn_v.bias"), kvHeads * headWidth, 0);
    }
    if (architecture === "qwen3" || architecture === "gemma3") {
      norm(name("attn_q_norm"), headWidth);
      norm(name("attn_k_norm"), headWidth);
    }
    norm(name("ffn_norm"), width);
    matrix(name("ffn_gate"), width, ffn);
    matrix(name("ffn_up"), width, ffn);
    matrix(name("ffn_down"), ffn, width);
    if (architecture === "gemma3") {
      norm(name("post_attention_norm"), width);
      norm(name("post_ffw_norm"), width);
    }
  }
}
