// Reads the WordPiece tokenizer of a model's folder, tokenizer.json or vocab.txt, into metadata under the names that a GGUF file
// has for it. Tokenizers of another kind are refused. It cuts no text.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { describe, isRecord } from "../check.ts";
import { ModelFileError } from "../errors.ts";
import { keys } from "../tokenizer/vocabulary.ts";
import { type Metadata, type MetadataEntry, printable, StringTable } from "./file.ts";
import { optionalSettings, readObject, readTextFile, settingsOf } from "./json-file.ts";

/** A vocabulary and what cuts by it. */
interface Pieces {
  /** By id, as BERT spells them; a hole is undefined. */
  readonly tokens: readonly (string | undefined)[];
  /** Ids of tokens that stand for no text, such as [CLS]. */
  readonly control: ReadonlySet<number>;
  readonly first: number;
  readonly separator: number;
  readonly unknown: number;
  readonly wordCharacters: number;
  /** How texts are cleaned, as far as the file says it. */
  readonly normaliser: Metadata;
}

const continuation = "##";
const wordCharactersDefault = 100;
/** `tokenizer.ggml.token_type` */
const types = { normal: 1, control: 3, unused: 5 } as const;

/**
 * Metadata of the tokenizer in `folder`, for a model that knows `vocabulary` tokens.
 * @throws {ModelFileError} naming the file and what is wrong with it.
 */
export function readTokenizer(folder: string, vocabulary: number): Map<string, MetadataEntry> {
  // What it says goes before what tokenizer.json says, as in the library that the model was made with.
  const config = optionalSettings(join(folder, "tokenizer_config.json"));
  const path = [join(folder, "tokenizer.json"), join(folder, "vocab.txt")].find((file) => existsSync(file));
  if (path === undefined) {
    const problem = "is missing, and so is vocab.txt: the model has no vocabulary; copy one from where it comes from";
    throw new ModelFileError(folder, "tokenizer.json", problem);
  }
  const pieces = path.endsWith(".json") ? readTokenizerJson(path) : readVocabularyText(path, config);
  const { tokens } = pieces;
  if (tokens.length > vocabulary) {
    throw new ModelFileError(
      path,
      "vocabulary",
      `has ${tokens.length} tokens, but config.json's vocab_size is ${vocabulary}: the files are of different models`,
    );
  }
  const lowercase = config.boolean("do_lower_case", pieces.normaliser.boolean("lowercase", true));
  const flag = (key: string, name: string, fallback: boolean) =>
    config.boolean(key, pieces.normaliser.boolean(name, fallback));
  const entries = new Map<string, MetadataEntry>();
  const put = (key: string, type: MetadataEntry["type"], value: MetadataEntry["value"]) =>
    entries.set(key, { type, isArray: false, value });
  put(keys.model, "string", "bert");
  entries.set(keys.tokens, { type: "string", isArray: true, value: spell(pieces, vocabulary) });
  entries.set(keys.types, { type: "int32", isArray: true, value: typesOf(pieces, vocabulary) });
  put(keys.unknown, "uint32", pieces.unknown);
  put(keys.first, "uint32", pieces.first);
  put(keys.separator, "uint32", pieces.separator);
  put(keys.lowercase, "bool", lowercase);
  put(keys.stripAccents, "bool", flag("strip_accents", "strip_accents", lowercase));
  put(keys.splitIdeographs, "bool", flag("tokenize_chinese_chars", "handle_chinese_chars", true));
  put(keys.cleanText, "bool", pieces.normaliser.boolean("clean_text", true));
  put(keys.wordCharacters, "uint32", pieces.wordCharacters);
  return entries;
}

/** The tokens as GGUF spells them; ids without a token, which models have to fill a round number, get a name of their own. */
function spell({ tokens, control }: Pieces, vocabulary: number): StringTable {
  const spelled = Array.from({ length: vocabulary }, (_, id) => {
    const token = tokens[id];
    if (token === undefined) return `[PAD${id}]`;
    if (control.has(id)) return token;
    return token.startsWith(continuation) && token !== continuation ? token.slice(continuation.length) : `▁${token}`;
  });
  const lengths = Uint32Array.from(spelled, (text) => Buffer.byteLength(text));
  return new StringTable(vocabulary, (limit) => {
    const offsets = new Uint32Array(limit + 1);
    for (let id = 0; id < limit; id++) offsets[id + 1] = (offsets[id] ?? 0) + (lengths[id] ?? 0);
    return { bytes: new Uint8Array(Buffer.from(spelled.slice(0, limit).join(""))), offsets };
  });
}

function typesOf({ tokens, control }: Pieces, vocabulary: number): Int32Array {
  return Int32Array.from({ length: vocabulary }, (_, id) => {
    if (tokens[id] === undefined) return types.unused;
    return control.has(id) ? types.control : types.normal;
  });
}

function readTokenizerJson(path: string): Pieces {
  const json = readObject(path);
  const fail = (field: string, problem: string): never => {
    throw new ModelFileError(path, field, problem);
  };
  const part = (name: string, expected: string): Readonly<Record<string, unknown>> => {
    const value = json[name];
    const type = isRecord(value) ? value["type"] : value;
    if (isRecord(value) && type === expected) return value;
    return fail(`${name}.type`, `is ${describe(type)}; only ${expected}, BERT's, is supported`);
  };
  const model = part("model", "WordPiece");
  const normaliser = settingsOf(path, part("normalizer", "BertNormalizer"));
  part("pre_tokenizer", "BertPreTokenizer");
  const settings = settingsOf(path, model);
  const prefix = settings.string("continuing_subword_prefix", continuation);
  if (prefix !== continuation) fail("model.continuing_subword_prefix", `is ${describe(prefix)}; "##" is supported`);

  const { vocab } = model;
  if (!isRecord(vocab) || Object.keys(vocab).length === 0) return fail("model.vocab", "is missing or has no tokens");
  const tokens: (string | undefined)[] = [];
  const put = (token: string, id: unknown, field: string) => {
    if (typeof id !== "number" || !Number.isSafeInteger(id) || id < 0 || id >= 1 << 24) {
      return fail(field, `token "${printable(token)}" has the id ${describe(id)}; a whole number from 0 is expected`);
    }
    const other = tokens[id];
    if (other !== undefined && other !== token) {
      return fail(field, `tokens "${printable(other)}" and "${printable(token)}" have the same id ${id}`);
    }
    tokens[id] = token;
    return id;
  };
  for (const [token, id] of Object.entries(vocab)) put(token, id, "model.vocab");
  const control = new Set<number>();
  const added = json["added_tokens"];
  for (const token of Array.isArray(added) ? added : []) {
    if (!isRecord(token) || typeof token["content"] !== "string")
      return fail("added_tokens", "has a token without a text");
    const id = put(token["content"], token["id"], "added_tokens");
    if (token["special"] !== true) {
      fail(
        "added_tokens",
        `has "${printable(token["content"])}", which is not a special token; only those are supported`,
      );
    }
    control.add(id);
  }
  const unknownText = settings.string("unk_token", "[UNK]");
  const unknown = vocab[unknownText];
  if (typeof unknown !== "number") return fail("model.unk_token", `is "${printable(unknownText)}", which is no token`);
  const [first, separator] = readTemplate(json["post_processor"], fail);
  for (const id of [first, separator]) {
    if (tokens[id] === undefined) fail("post_processor", `has the token ${id}, which is not of the vocabulary`);
  }
  for (const id of [first, separator, unknown]) control.add(id);
  const wordCharacters = settings.integer("max_input_chars_per_word", { minimum: 1 }, wordCharactersDefault);
  return { tokens, control, first, separator, unknown, wordCharacters, normaliser };
}

/** Ids of the tokens before and behind a text. */
function readTemplate(
  processor: unknown,
  fail: (field: string, problem: string) => never,
): readonly [first: number, separator: number] {
  const wanted = "one token before each text and one behind it, as BERT has, is supported";
  if (!isRecord(processor)) return fail("post_processor", `is ${describe(processor)}; ${wanted}`);
  if (processor["type"] === "BertProcessing") {
    const ids = ["cls", "sep"].map((name) => (Array.isArray(processor[name]) ? processor[name][1] : undefined));
    const [first, separator] = ids;
    if (isId(first) && isId(separator)) return [first, separator];
    return fail("post_processor", "has no cls and sep with their ids");
  }
  if (processor["type"] !== "TemplateProcessing") {
    return fail("post_processor.type", `is ${describe(processor["type"])}; ${wanted}`);
  }
  const { single, special_tokens: special } = processor;
  const kinds = Array.isArray(single) ? single.map((piece) => (isRecord(piece) ? Object.keys(piece).join() : "")) : [];
  if (kinds.join() !== "SpecialToken,Sequence,SpecialToken")
    return fail("post_processor.single", `is another template; ${wanted}`);
  const id = (piece: unknown): unknown => {
    const token = isRecord(piece) && isRecord(piece["SpecialToken"]) ? piece["SpecialToken"]["id"] : undefined;
    const entry = isRecord(special) && typeof token === "string" ? special[token] : undefined;
    const ids = isRecord(entry) ? entry["ids"] : undefined;
    return Array.isArray(ids) && ids.length === 1 ? ids[0] : undefined;
  };
  const [first, , separator] = (single as readonly unknown[]).map(id);
  if (isId(first) && isId(separator)) return [first, separator];
  return fail("post_processor.special_tokens", "has no ids for the tokens of its template");
}

/** vocab.txt has a token a line, and says nothing else. */
function readVocabularyText(path: string, config: Metadata): Pieces {
  const tokens = readTextFile(path)
    .split("\n")
    .map((line) => line.replace(/\r$/, ""));
  if (tokens.at(-1) === "") tokens.pop();
  const id = (key: string, fallback: string): number => {
    const text = config.string(key, fallback);
    const found = tokens.indexOf(text);
    if (found < 0) throw new ModelFileError(path, "vocabulary", `has no token "${printable(text)}": it is not BERT's`);
    return found;
  };
  const first = id("cls_token", "[CLS]");
  const separator = id("sep_token", "[SEP]");
  const unknown = id("unk_token", "[UNK]");
  const others = ["[PAD]", "[MASK]"].map((text) => tokens.indexOf(text)).filter((found) => found >= 0);
  const control = new Set([first, separator, unknown, ...others]);
  return {
    tokens,
    control,
    first,
    separator,
    unknown,
    wordCharacters: wordCharactersDefault,
    normaliser: settingsOf(path, {}),
  };
}

function isId(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}
