// Reads and checks what a GGUF file says of its tokenizer: texts, scores, types and special tokens. It follows llama.cpp where
// that corrects files by a token's text (end-of-generation tokens that are not marked as control tokens, for one), and refuses
// what llama.cpp warns of. It cuts no text.

import type { Metadata, StringBytes } from "../model/file.ts";
import { printable } from "../model/file.ts";
import { TokenTable, tokenCountMax } from "./table.ts";

/** What a token is, as bits: correcting a file adds `control` to whatever the token was. */
export const attribute = { unknown: 1, unused: 2, normal: 4, control: 8, userDefined: 16, byte: 32 } as const;

// `tokenizer.ggml.token_type`, by value: undefined, normal, unknown, control, user defined, unused, byte.
const attributeOfType: readonly number[] = [
  0,
  attribute.normal,
  attribute.unknown,
  attribute.control,
  attribute.userDefined,
  attribute.unused,
  attribute.byte,
];
const byteType = 6;

/** The metadata keys, for messages too. */
export const keys = {
  model: "tokenizer.ggml.model",
  pre: "tokenizer.ggml.pre",
  tokens: "tokenizer.ggml.tokens",
  scores: "tokenizer.ggml.scores",
  types: "tokenizer.ggml.token_type",
  /** The types as `attribute` has them, by id: what a prepared file holds in their place, checked when it was made. */
  attributes: "tinyai.token_attributes",
  merges: "tokenizer.ggml.merges",
  bos: "tokenizer.ggml.bos_token_id",
  eos: "tokenizer.ggml.eos_token_id",
  eot: "tokenizer.ggml.eot_token_id",
  eom: "tokenizer.ggml.eom_token_id",
  unknown: "tokenizer.ggml.unknown_token_id",
  addBos: "tokenizer.ggml.add_bos_token",
  addEos: "tokenizer.ggml.add_eos_token",
  addSpacePrefix: "tokenizer.ggml.add_space_prefix",
  // Of BERT's tokenizers: the tokens before and behind each text ("seperator" is how GGUF spells it), and how a text is cleaned.
  // llama.cpp knows the first four; it always cleans as the others' defaults say.
  first: "tokenizer.ggml.cls_token_id",
  separator: "tokenizer.ggml.seperator_token_id",
  lowercase: "tokenizer.ggml.normalizer.lowercase",
  stripAccents: "tokenizer.ggml.normalizer.strip_accents",
  cleanText: "tinyai.tokenizer.clean_text",
  splitIdeographs: "tinyai.tokenizer.handle_chinese_chars",
  wordCharacters: "tinyai.tokenizer.max_input_chars_per_word",
  chatTemplate: "tokenizer.chat_template",
} as const;

// Ids that are only checked: most tokenizers have no use for them.
const checkedIds = ["seperator", "padding", "mask", "cls", "prefix", "suffix", "middle"] as const;

/** Texts by which tokens end a generation, whatever the file says of their type. */
const endTexts = [
  "<|eot_id|>",
  "<|im_end|>",
  "<|end|>",
  "<|return|>",
  "<|call|>",
  "<|flush|>",
  "<|calls|>",
  "<end_of_turn>",
  "<|endoftext|>",
  "</s>",
  "<|eom_id|>",
  "<EOT>",
  "_<EOT>",
  "[EOT]",
  "[EOS]",
  "<|end_of_text|>",
  "<end_of_utterance>",
  "<eos>",
  "<turn|>",
  "<|tool_response>",
  "<｜end▁of▁sentence｜>",
  "[e~[",
];

/** The tokens of fill-in-the-middle, each with the texts it goes by; the first three end no generation, the others do. */
const fillInTexts: readonly { readonly key: string; readonly ends: boolean; readonly texts: readonly string[] }[] = [
  {
    key: "fim_pre",
    ends: false,
    texts: [
      "<|fim_prefix|>",
      "<fim-prefix>",
      "<fim_prefix>",
      "<｜fim▁begin｜>",
      "<PRE>",
      "▁<PRE>",
      "<|code_prefix|>",
      "<|prefix|>",
    ],
  },
  {
    key: "fim_suf",
    ends: false,
    texts: [
      "<|fim_suffix|>",
      "<fim-suffix>",
      "<fim_suffix>",
      "<｜fim▁hole｜>",
      "<SUF>",
      "▁<SUF>",
      "<|code_suffix|>",
      "<|suffix|>",
    ],
  },
  {
    key: "fim_mid",
    ends: false,
    texts: [
      "<|fim_middle|>",
      "<fim-middle>",
      "<fim_middle>",
      "<｜fim▁end｜>",
      "<MID>",
      "▁<MID>",
      "<|code_middle|>",
      "<|middle|>",
    ],
  },
  { key: "fim_pad", ends: true, texts: ["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"] },
  { key: "fim_rep", ends: true, texts: ["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"] },
  { key: "fim_sep", ends: true, texts: ["<|file_sep|>"] },
];

/** Texts of tokens that are always shown, whatever the file says of their type. */
const shownTexts = ["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"];

/** A vocabulary as the file has it, checked. */
export interface Vocabulary {
  readonly count: number;
  /** The tokens' texts as the file spells them, and the ids by text. */
  readonly texts: TokenTable;
  /** Bits of `attribute` by id. */
  readonly attributes: Uint8Array;
  /** By id; higher merges earlier. Zero where the file has none. No NaN. */
  readonly scores: Float32Array;
  readonly bos: number | undefined;
  readonly eos: number | undefined;
  readonly unknown: number | undefined;
  /** All tokens that end a generation, ascending. */
  readonly ends: readonly number[];
  /** Phi-3's special tokens take the white space right of them. */
  readonly stripsRight: (id: number) => boolean;
}

/** Ids that the tokenizer's model has when the file names none; that of the unknown token only if the token is of that type. */
export interface DefaultIds {
  readonly bos?: number;
  readonly eos?: number;
  readonly unknown?: number;
}

/**
 * Reads the vocabulary.
 * @throws {ModelFileError} naming the key at fault.
 */
export function readVocabulary(metadata: Metadata, defaults: DefaultIds): Vocabulary {
  const texts = readTexts(metadata);
  const { count } = texts;
  const attributes = readAttributes(metadata, texts);
  const scores = readScores(metadata, count, metadata.has(keys.attributes));

  const id = (key: string, fallback?: number): number | undefined => {
    if (metadata.has(key)) {
      const value = metadata.number(key);
      if (Number.isInteger(value) && value >= 0 && value < count) return value;
      throw metadata.error(key, `is ${value}; an id of the vocabulary, from 0 to ${count - 1}, is expected`);
    }
    return fallback !== undefined && fallback < count ? fallback : undefined;
  };
  const bos = id(keys.bos, defaults.bos);
  const eos = id(keys.eos, defaults.eos);
  const defaultUnknown = defaults.unknown ?? 0;
  const hasDefaultUnknown = defaults.unknown !== undefined && (attributes[defaultUnknown] ?? 0) === attribute.unknown;
  const unknown = id(keys.unknown, hasDefaultUnknown ? defaultUnknown : undefined);
  for (const name of checkedIds) id(`tokenizer.ggml.${name}_token_id`);

  const ends = new Set<number>();
  const addEnd = (token: number | undefined): void => {
    if (token !== undefined) ends.add(token);
  };
  const mark = (token: number): void => {
    attributes[token] = (attributes[token] ?? 0) | attribute.control;
  };
  for (const { key, ends: endsGeneration, texts: names } of fillInTexts) {
    let token = id(`tokenizer.ggml.${key}_token_id`);
    if (token === undefined) {
      token = names.map((name) => texts.findText(name)).find((found) => found >= 0);
      if (token !== undefined) mark(token);
    }
    if (endsGeneration) addEnd(token);
  }
  for (const text of endTexts) {
    const token = texts.findText(text);
    if (token < 0) continue;
    ends.add(token);
    mark(token);
  }
  for (const text of shownTexts) {
    const token = texts.findText(text);
    if (token >= 0) attributes[token] = attribute.userDefined;
  }
  addEnd(eos);
  addEnd(id(keys.eot));
  addEnd(id(keys.eom));

  // Two families use a text of the list for something else.
  const has = (text: string): boolean => ends.has(texts.findText(text));
  const demote = (text: string, to: number): void => {
    const token = texts.findText(text);
    if (!ends.delete(token)) return;
    attributes[token] = to;
  };
  if (
    (has("<|return|>") && (has("<|call|>") || has("<|calls|>"))) ||
    (has("<|flush|>") && (has("<|call|>") || has("<|calls|>")))
  ) {
    demote("<|end|>", attribute.userDefined);
  }
  if (has("<|tool_response>")) demote("</s>", attribute.normal);

  return {
    count,
    texts,
    attributes,
    scores,
    bos,
    eos,
    unknown,
    ends: [...ends].sort((a, b) => a - b),
    stripsRight: readStripping(metadata, texts),
  };
}

/** The tokens' texts. */
export function readTexts(metadata: Metadata): TokenTable {
  const texts = nameEmpty(metadata.stringBytes(keys.tokens));
  const { bytes, offsets } = texts;
  const count = offsets.length - 1;
  if (count < 1) throw metadata.error(keys.tokens, "has no tokens");
  if (count > tokenCountMax)
    throw metadata.error(keys.tokens, `has ${count} tokens; at most ${tokenCountMax} are supported`);
  return TokenTable.of(texts, (earlier, later) => {
    const text = printable(lenientUtf8.decode(bytes.subarray(offsets[later], offsets[later + 1])));
    throw metadata.error(keys.tokens, `tokens ${earlier} and ${later} have the same text "${text}"`);
  });
}

/** An empty text becomes `[EMPTY_id]`, as llama.cpp names it: an empty one would match everywhere. */
function nameEmpty(texts: StringBytes): StringBytes {
  const { bytes, offsets, slots } = texts;
  if (slots) return texts;
  const empty: number[] = [];
  for (let id = 0; id + 1 < offsets.length; id++) if (offsets[id] === offsets[id + 1]) empty.push(id);
  if (empty.length === 0) return texts;
  const names = new Map(empty.map((id) => [id, utf8Encoder.encode(`[EMPTY_${id}]`)]));
  let extra = 0;
  for (const name of names.values()) extra += name.length;
  const named = new Uint8Array(bytes.length + extra);
  const moved = new Uint32Array(offsets.length);
  let position = 0;
  for (let id = 0; id + 1 < offsets.length; id++) {
    moved[id] = position;
    const text = names.get(id) ?? bytes.subarray(offsets[id], offsets[id + 1]);
    named.set(text, position);
    position += text.length;
  }
  moved[offsets.length - 1] = position;
  return { bytes: named, offsets: moved };
}

/** What the file says of each token, as bits of `attribute`. */
export function readAttributes(metadata: Metadata, texts: TokenTable): Uint8Array {
  if (metadata.has(keys.attributes)) {
    const checked = metadata.numbers(keys.attributes);
    checkLength(metadata, keys.attributes, checked.length, texts.count);
    return checked instanceof Uint8Array ? checked.slice() : Uint8Array.from(checked);
  }
  const attributes = new Uint8Array(texts.count).fill(attribute.normal);
  if (!metadata.has(keys.types)) return attributes;
  const types = metadata.numbers(keys.types);
  checkLength(metadata, keys.types, types.length, texts.count);
  for (let id = 0; id < types.length; id++) {
    const type = types[id] ?? -1;
    const bits = attributeOfType[type];
    if (bits === undefined) throw metadata.error(keys.types, `token ${id} has type ${type}; 0 to 6 are known`);
    if (type === byteType && byteOfText(texts.text(id)) === undefined) {
      const text = printable(lenientUtf8.decode(texts.text(id)));
      throw metadata.error(
        keys.tokens,
        `token ${id} is a byte token but its text is "${text}"; <0x00> to <0xFF> is expected`,
      );
    }
    attributes[id] = bits;
  }
  return attributes;
}

function readScores(metadata: Metadata, count: number, checked: boolean): Float32Array {
  if (!metadata.has(keys.scores)) return new Float32Array(count);
  const stored = metadata.numbers(keys.scores);
  checkLength(metadata, keys.scores, stored.length, count);
  const scores = stored instanceof Float32Array ? stored : Float32Array.from(stored);
  for (let id = 0; id < count && !checked; id++) {
    if (Number.isNaN(scores[id])) throw metadata.error(keys.scores, `token ${id} has no number as its score`);
  }
  return scores;
}

function checkLength(metadata: Metadata, key: string, length: number, count: number): void {
  if (length !== count)
    throw metadata.error(key, `has ${length} entries for ${count} tokens; one for each is expected`);
}

/** The byte that a byte token's text, such as `<0x0A>`, stands for; undefined if it is not of that form. */
export function byteOfText(text: Uint8Array): number | undefined {
  if (text.length !== 6) return undefined;
  const high = hexDigit(text[3] ?? 0);
  const low = hexDigit(text[4] ?? 0);
  const framed = text[0] === 0x3c && text[1] === 0x30 && text[2] === 0x78 && text[5] === 0x3e;
  return framed && high >= 0 && low >= 0 ? high * 16 + low : undefined;
}

function hexDigit(code: number): number {
  if (code >= 0x30 && code <= 0x39) return code - 0x30;
  if (code >= 0x41 && code <= 0x46) return code - 0x41 + 10;
  if (code >= 0x61 && code <= 0x66) return code - 0x61 + 10;
  return -1;
}

// GGUF has no field for it: llama.cpp goes by the model's name, and so must whoever wants its ids.
function readStripping(metadata: Metadata, texts: TokenTable): (id: number) => boolean {
  const name = metadata.string("general.name", "").toLowerCase();
  if (!name.includes("phi-3") && !name.includes("phi3")) return () => false;
  const excepted = new Set(["<unk>", "<s>", "<|endoftext|>"].map((text) => texts.findText(text)));
  return (id) => !excepted.has(id);
}

const lenientUtf8 = new TextDecoder("utf-8", { ignoreBOM: true });
const utf8Encoder = new TextEncoder();
