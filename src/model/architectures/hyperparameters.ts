// The metadata that families share, read and checked once: sizes, norms, pooling, and the angles of rotary positions.

import { type Graph, GraphBuilder, type PoolingName, type Rope } from "../../graph/graph.ts";
import { arrayLength, type ModelFile, printable } from "../file.ts";
import { Weights } from "../weights.ts";

/** Sizes of a decoder, from the metadata under its architecture's name. */
export interface Hyperparameters {
  readonly layers: number;
  readonly width: number;
  readonly feedForwardWidth: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headWidth: number;
  readonly contextLength: number;
  readonly vocabulary: number;
  readonly normEpsilon: number;
  /** Multiplies q·k: 1/√headWidth unless the metadata says otherwise. */
  readonly attentionScale: number;
  /** Soft caps of attention scores and of logits; 0 for none. */
  readonly attentionSoftCap: number;
  readonly logitSoftCap: number;
}

/** Everything an architecture builds from. */
export interface Source {
  readonly file: ModelFile;
  readonly weights: Weights;
  readonly h: Hyperparameters;
  readonly g: GraphBuilder;
}

/** Turns a file of one family into a graph. */
export type Architecture = (source: Source) => Graph;

export function openSource(file: ModelFile, architecture: string): Source {
  return { file, weights: new Weights(file), h: readHyperparameters(file, architecture), g: new GraphBuilder() };
}

function readHyperparameters(file: ModelFile, architecture: string): Hyperparameters {
  const { metadata } = file;
  const key = (name: string) => `${architecture}.${name}`;
  const size = (name: string, maximum: number, fallback?: number) =>
    metadata.integer(key(name), { minimum: 1, maximum }, fallback);
  const finite = (name: string, fallback: number) => {
    const value = metadata.number(key(name), fallback);
    if (!Number.isFinite(value) || value < 0)
      throw metadata.error(key(name), `is ${value}; a number from 0 is expected`);
    return value;
  };

  if (metadata.has(key("expert_count")) && metadata.number(key("expert_count")) > 0) {
    throw metadata.error(key("expert_count"), "mixtures of experts are not supported; use a dense model");
  }
  const layers = size("block_count", 1024);
  const width = size("embedding_length", 65_536);
  const heads = uniform(file, key("attention.head_count"), layers, 1024);
  const kvHeads = metadata.has(key("attention.head_count_kv"))
    ? uniform(file, key("attention.head_count_kv"), layers, 1024)
    : heads;
  if (heads % kvHeads !== 0) {
    throw metadata.error(
      key("attention.head_count_kv"),
      `is ${kvHeads}, which does not divide the ${heads} query heads`,
    );
  }
  const headWidth = size("attention.key_length", 1024, Math.floor(width / heads));
  if (size("attention.value_length", 1024, headWidth) !== headWidth) {
    throw metadata.error(
      key("attention.value_length"),
      `differs from the key length ${headWidth}; equal lengths are supported`,
    );
  }
  if (headWidth % 16 !== 0 || headWidth > 512) {
    throw metadata.error(key("attention.key_length"), `is ${headWidth}; multiples of 16 up to 512 are supported`);
  }
  // What all heads of a key give is rounded together, in blocks of 32; texts that are computed whole have no such heads.
  const isCausal = metadata.boolean(key("attention.causal"), true);
  if ((isCausal && ((heads / kvHeads) * headWidth) % 32 !== 0) || width % 32 !== 0) {
    throw metadata.error(
      key("embedding_length"),
      `width ${width} with ${heads} heads of ${headWidth}: widths must be multiples of 32`,
    );
  }
  return {
    layers,
    width,
    feedForwardWidth: uniform(file, key("feed_forward_length"), layers, 1 << 18),
    heads,
    kvHeads,
    headWidth,
    contextLength: size("context_length", 1 << 24),
    vocabulary: tokenCount(file),
    normEpsilon: finite("attention.layer_norm_rms_epsilon", 1e-5),
    attentionScale: finite("attention.scale", 0) || 1 / Math.sqrt(headWidth),
    attentionSoftCap: finite("attn_logit_softcapping", 0),
    logitSoftCap: finite("final_logit_softcapping", 0),
  };
}

/** The vocabulary's size is the tokenizer's: files state it nowhere else reliably. */
function tokenCount({ metadata }: ModelFile): number {
  const key = "tokenizer.ggml.tokens";
  const entry = metadata.entry(key);
  if (!entry) throw metadata.error(key, "is missing; a model needs its tokenizer's tokens");
  const count = arrayLength(entry) ?? 0;
  if (count < 1 || count > 1 << 24) throw metadata.error(key, `has ${count} tokens; 1 to ${1 << 24} are expected`);
  return count;
}

/** A size that the file may give per layer but that has to be the same for all. */
function uniform(file: ModelFile, key: string, layers: number, maximum: number): number {
  const [first, ...rest] = file.metadata.perLayer(key, layers);
  if (first === undefined || !Number.isSafeInteger(first) || first < 1 || first > maximum) {
    throw file.metadata.error(key, `is ${first}; a whole number from 1 to ${maximum} is expected`);
  }
  if (rest.some((value) => value !== first)) {
    throw file.metadata.error(key, "differs between layers; the same value for all is supported");
  }
  return first;
}

/** Angles a position beyond this are no model's: real ones are at most 1. */
const frequencyMax = 1e6;

/** What `rope` may be told beside the metadata. */
export interface RopeOptions {
  readonly style: Rope["style"];
  /** Base of the frequencies; default the metadata's, else 10,000. */
  readonly base?: number;
  /** Ignore the metadata's scaling (Gemma's local layers). */
  readonly unscaled?: boolean;
}

/**
 * Rotary positions (Su et al. 2021): pair i turns by position · base^(−2i/d). Linear scaling divides the angles by its
 * factor (Chen et al. 2023); Llama 3's scaling comes as a factor for each pair in the tensor `rope_freqs.weight`.
 */
export function rope(source: Source, architecture: string, options: RopeOptions): Rope {
  const { file, weights, h } = source;
  const { metadata } = file;
  const key = (name: string) => `${architecture}.rope.${name}`;
  const dimensions = metadata.integer(key("dimension_count"), { minimum: 2, maximum: h.headWidth }, h.headWidth);
  if (dimensions % 2 !== 0)
    throw metadata.error(key("dimension_count"), `is ${dimensions}; an even number is expected`);
  const baseKey = key(options.base === undefined ? "freq_base" : "freq_base_swa");
  const base = options.base ?? metadata.number(baseKey, 10_000);
  if (!(base > 0) || !Number.isFinite(base)) throw metadata.error(baseKey, `is ${base}; a positive number is expected`);

  const pairs = dimensions / 2;
  const scaling = options.unscaled ? 1 : linearScaling(source, architecture);
  const factors = weights.optionalVector("rope_freqs.weight", pairs)?.values;
  const frequencies = new Float32Array(pairs);
  for (let pair = 0; pair < pairs; pair++) {
    const factor = factors?.[pair] ?? 1;
    if (!(factor > 0))
      throw metadata.error("tensor rope_freqs.weight", `holds ${factor}; positive factors are expected`);
    const frequency = base ** (-(2 * pair) / dimensions) / (scaling * factor);
    if (!(Math.abs(frequency) < frequencyMax))
      throw metadata.error(baseKey, `gives the angle ${frequency} a position; the file is damaged`);
    frequencies[pair] = frequency;
  }
  return { style: options.style, frequencies, scale: 1 };
}

function linearScaling(source: Source, architecture: string): number {
  const { metadata } = source.file;
  const typeKey = `${architecture}.rope.scaling.type`;
  const factorKey = `${architecture}.rope.scaling.factor`;
  const oldKey = `${architecture}.rope.scale_linear`;
  // The old key means linear scaling by itself; the new one only with its type.
  const type = metadata.string(typeKey, metadata.has(factorKey) || metadata.has(oldKey) ? "linear" : "none");
  if (type === "none") return 1;
  if (type !== "linear") {
    throw metadata.error(typeKey, `is "${printable(type)}"; "linear" and "none" are supported`);
  }
  const factor = metadata.number(metadata.has(factorKey) ? factorKey : oldKey, 1);
  if (!Number.isFinite(factor) || factor < 0)
    throw metadata.error(factorKey, `is ${factor}; a positive number is expected`);
  return factor === 0 ? 1 : factor;
}

/**
 * What of a text's states is its vector; undefined if the file does not say. llama.cpp's numbers: 0 none, 1 mean, 2 the first token,
 * 3 the last, 4 a score instead of a vector.
 */
export function readPooling({ metadata }: ModelFile, architecture: string): PoolingName | undefined {
  const key = `${architecture}.pooling_type`;
  const pooling = metadata.integer(key, { maximum: 4 }, 0);
  if (pooling === 4)
    throw metadata.error(key, "is 4: the model ranks texts, and gives no vectors; use an embedding model");
  return ([undefined, "mean", "first", "last"] as const)[pooling];
}

/** @throws {ModelFileError} if tokens are to see those after them, as in decoders that were made encoders. */
export function checkCausal({ metadata }: ModelFile, architecture: string): void {
  const key = `${architecture}.attention.causal`;
  if (!metadata.boolean(key, true))
    throw metadata.error(key, "is false: decoders whose tokens see those after them are not supported");
}
