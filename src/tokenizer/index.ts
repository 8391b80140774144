// From text to a model's token ids and back, as the model file's metadata says: SentencePiece, byte-level byte-pair
// encoding, or BERT's WordPiece. The ids are those that llama.cpp gives for the same file. It knows no chat format (chat.ts) and no model.

import { OptionError } from "../errors.ts";
import type { Metadata } from "../model/file.ts";
import { printable } from "../model/file.ts";
import { decodeAlphabet } from "./alphabet.ts";
import { BytePair, readMerges } from "./byte-pair.ts";
import { TokenBuffer } from "./merge.ts";
import type { PreTokenizer } from "./pretokenize.ts";
import { findPreTokenizer, preTokenizerNames, splitWords } from "./pretokenize.ts";
import { markSpaces, SentencePiece, unmarkSpaces } from "./sentencepiece.ts";
import { SpecialTokens } from "./special.ts";
import type { Vocabulary } from "./vocabulary.ts";
import { attribute, byteOfText, keys, readVocabulary } from "./vocabulary.ts";
import { WordPiece, type WordPieceOptions, wordPieceDefaults } from "./wordpiece.ts";

/** How a text becomes tokens. */
export interface EncodeOptions {
  /** Adds the beginning-of-text and end-of-text tokens that the model file asks for. Default true. */
  readonly addSpecial?: boolean;
  /** `<bos>` and the like in the text are the tokens of that name instead of plain characters. Default false. */
  readonly parseSpecial?: boolean;
}

/** How tokens become a text. */
export interface DecodeOptions {
  /** Leaves out control tokens and the unknown token. Default true. */
  readonly skipSpecial?: boolean;
  /**
   * Keeps the space that encoding put before the first word (of vocabularies that ask for one). Set it for tokens that go on
   * from an earlier text, such as generated ones: their first space is theirs. Default false.
   */
  readonly keepLeadingSpace?: boolean;
}

/** Turns tokens into text one by one. */
export interface StreamDecoder {
  /** The characters that `token` completes: none, one or more. A character split over tokens comes with its last. */
  push(token: number): string;
  /** What was begun and not completed, as U+FFFD; the decoder is then as new. */
  finish(): string;
}

/** A model's tokenizer. */
export interface Tokenizer {
  /** The number of tokens; ids are below it. */
  readonly vocabularySize: number;
  /** The beginning-of-text token. */
  readonly bosToken: number | undefined;
  /** The end-of-text token: the one among `eosTokens` that the file names so. */
  readonly eosToken: number | undefined;
  /** All tokens that end a generation (end of text, of turn, of message), ascending. */
  readonly eosTokens: readonly number[];
  /** Whether `encode` puts the beginning-of-text token first, and the end-of-text token last. */
  readonly addBos: boolean;
  readonly addEos: boolean;
  /** The model's chat template in Jinja, for chat.ts. */
  readonly chatTemplate: string | undefined;

  /**
   * The ids of `text`. The empty text is the beginning-of-text token alone, where the model has one.
   * @throws {OptionError} if the text has a lone surrogate, is longer than 256 MiB in UTF-8, or cannot be written in the vocabulary.
   */
  encode(text: string, options?: EncodeOptions): Uint32Array;
  /**
   * The first `length` of a text's tokens, at least 2; an end-of-text token that `encode` put last stays the last. Tokens that
   * are not more are given back as they are.
   */
  truncate(tokens: Uint32Array, length: number): Uint32Array;
  /**
   * The text of `tokens`. Bytes that are not UTF-8 become U+FFFD, as TextDecoder has it.
   * @throws {OptionError} if an id is not of the vocabulary.
   */
  decode(tokens: Iterable<number>, options?: DecodeOptions): string;
  /** A decoder for tokens that come one by one; joined, what it gives is what `decode` gives. */
  decoder(options?: DecodeOptions): StreamDecoder;
  /** A token's text as it stands in a text, special tokens too; a part of a character is U+FFFD. */
  tokenText(token: number): string;
  /** A token's bytes as they stand in a text, special tokens too. */
  tokenBytes(token: number): Uint8Array;
  /** Whether the token is a control token or the unknown token, which `decode` leaves out. */
  isSpecial(token: number): boolean;
}

/** The longest text in UTF-8: working on it takes about 60 times its size. */
const textBytesMax = 2 ** 28;

/**
 * Builds the tokenizer that the metadata of a GGUF file describes.
 * @throws {ModelFileError} naming the metadata key, if the tokenizer is of a kind that is not supported or its data are damaged.
 */
export function createTokenizer(metadata: Metadata): Tokenizer {
  const model = metadata.string(keys.model);
  const shared = (vocabulary: Vocabulary, addBosDefault: boolean): Shared => {
    const addBos = metadata.boolean(keys.addBos, addBosDefault);
    const addEos = metadata.boolean(keys.addEos, false);
    if (addBos && vocabulary.bos === undefined) throw missing(metadata, keys.bos, keys.addBos);
    if (addEos && vocabulary.eos === undefined) throw missing(metadata, keys.eos, keys.addEos);
    const chatTemplate = metadata.has(keys.chatTemplate) ? metadata.string(keys.chatTemplate) : undefined;
    return { vocabulary, addBos, addEos, chatTemplate };
  };

  if (model === "llama") {
    // The ids of the first LLaMA, which files of its time do not name.
    const vocabulary = readVocabulary(metadata, { bos: 1, eos: 2, unknown: 0 });
    return new SentencePieceTokenizer(shared(vocabulary, true), metadata.boolean(keys.addSpacePrefix, true));
  }
  if (model === "gpt2") {
    const preTokenizer = readPreTokenizer(metadata);
    const vocabulary = readVocabulary(metadata, {});
    const bytePair = new BytePair(vocabulary.texts, readMerges(metadata), preTokenizer.ignoresMerges);
    return new BytePairTokenizer(shared(vocabulary, preTokenizer.addsBos), bytePair, preTokenizer);
  }
  if (model === "bert") return createWordPiece(metadata);
  throw metadata.error(
    keys.model,
    `tokenizer "${printable(model)}" is not supported; llama (SentencePiece), gpt2 (byte-level byte-pair encoding) and bert (WordPiece) are`,
  );
}

/** Every text is between two tokens, which files call by names of BERT's: the first stands for the text, the last ends it. */
function createWordPiece(metadata: Metadata): Tokenizer {
  const vocabulary = readVocabulary(metadata, {});
  const token = (key: string, text: string): number => {
    const id = metadata.has(key)
      ? metadata.integer(key, { maximum: vocabulary.count - 1 })
      : vocabulary.texts.findText(text);
    if (id >= 0) return id;
    throw metadata.error(key, `is missing, and no token is called ${text}; a tokenizer like BERT's needs it`);
  };
  const unknown = token(keys.unknown, "[UNK]");
  const bos = token(keys.first, "[CLS]");
  const eos = token(keys.separator, "[SEP]");
  const lowercase = metadata.boolean(keys.lowercase, wordPieceDefaults.lowercase);
  const options: WordPieceOptions = {
    lowercase,
    stripsAccents: metadata.boolean(keys.stripAccents, lowercase),
    cleans: metadata.boolean(keys.cleanText, wordPieceDefaults.cleans),
    splitsIdeographs: metadata.boolean(keys.splitIdeographs, wordPieceDefaults.splitsIdeographs),
    wordCharactersMax: metadata.integer(keys.wordCharacters, { minimum: 1 }, wordPieceDefaults.wordCharactersMax),
  };
  const shared = {
    vocabulary: { ...vocabulary, bos, eos, unknown },
    addBos: true,
    addEos: true,
    chatTemplate: undefined,
  };
  return new WordPieceTokenizer(shared, new WordPiece(vocabulary.texts, unknown, options));
}

function missing(metadata: Metadata, key: string, flag: string): Error {
  return metadata.error(key, `is missing, but ${flag} asks for that token`);
}

function readPreTokenizer(metadata: Metadata): PreTokenizer {
  const supported = preTokenizerNames.join(", ");
  if (!metadata.has(keys.pre)) {
    const advice = "convert the model again with a newer converter, which names it";
    throw metadata.error(
      keys.pre,
      `is missing, and which pre-tokenizer it would be is not guessed (supported: ${supported}); ${advice}`,
    );
  }
  const name = metadata.string(keys.pre);
  const preTokenizer = findPreTokenizer(name);
  if (preTokenizer !== undefined) return preTokenizer;
  throw metadata.error(keys.pre, `pre-tokenizer "${printable(name)}" is not supported; ${supported} are`);
}

/** What all kinds of tokenizer read in the same way. */
interface Shared {
  readonly vocabulary: Vocabulary;
  readonly addBos: boolean;
  readonly addEos: boolean;
  readonly chatTemplate: string | undefined;
}

abstract class BaseTokenizer implements Tokenizer {
  readonly vocabularySize: number;
  readonly bosToken: number | undefined;
  readonly eosToken: number | undefined;
  readonly eosTokens: readonly number[];
  readonly addBos: boolean;
  readonly addEos: boolean;
  readonly chatTemplate: string | undefined;
  protected readonly vocabulary: Vocabulary;
  // Made when first needed: a prompt without parseSpecial does not need the control tokens.
  #userDefined: SpecialTokens | undefined;
  #allSpecial: SpecialTokens | undefined;

  constructor({ vocabulary, addBos, addEos, chatTemplate }: Shared) {
    this.vocabulary = vocabulary;
    this.vocabularySize = vocabulary.count;
    this.bosToken = vocabulary.bos;
    this.eosToken = vocabulary.eos;
    this.eosTokens = vocabulary.ends;
    this.addBos = addBos;
    this.addEos = addEos;
    this.chatTemplate = chatTemplate;
  }

  /** Appends the tokens of `bytes[start, end)`, plain text between special tokens, not empty. */
  protected abstract encodeText(bytes: Uint8Array, start: number, end: number, output: TokenBuffer): void;

  /** A normal token's bytes as they stand in a text. */
  protected abstract normalBytes(token: number): Uint8Array;

  /** Whether encoding puts a space before the first word, and before the first after each special token. */
  protected abstract readonly addsSpace: boolean;

  encode(text: string, options: EncodeOptions = {}): Uint32Array {
    const { addSpecial = true, parseSpecial = false } = options;
    const bytes = encodeUtf8(text);
    const output = new TokenBuffer();
    if (addSpecial && this.addBos && this.vocabulary.bos !== undefined) output.push(this.vocabulary.bos);
    for (const { token, start, end } of this.#specialTokens(parseSpecial).split(bytes)) {
      if (token >= 0) output.push(token);
      else this.encodeText(bytes, start, end, output);
    }
    if (addSpecial && this.addEos && this.vocabulary.eos !== undefined) output.push(this.vocabulary.eos);
    return output.take();
  }

  truncate(tokens: Uint32Array, length: number): Uint32Array {
    if (tokens.length <= length) return tokens;
    const cut = tokens.slice(0, length);
    if (this.addEos && this.eosToken !== undefined && tokens.at(-1) === this.eosToken) cut[length - 1] = this.eosToken;
    return cut;
  }

  decode(tokens: Iterable<number>, options: DecodeOptions = {}): string {
    const bytesOf = this.#shownBytes(options);
    const parts: Uint8Array[] = [];
    for (const token of tokens) parts.push(bytesOf(token));
    return lenientUtf8.decode(Buffer.concat(parts));
  }

  decoder(options: DecodeOptions = {}): StreamDecoder {
    const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });
    let bytesOf = this.#shownBytes(options);
    return {
      push: (token) => utf8.decode(bytesOf(token), { stream: true }),
      finish: () => {
        bytesOf = this.#shownBytes(options);
        return utf8.decode();
      },
    };
  }

  /** Gives what each token of a sequence, from its first on, adds to the text. */
  #shownBytes({ skipSpecial = true, keepLeadingSpace = false }: DecodeOptions): (token: number) => Uint8Array {
    // llama.cpp leaves the space in if the sequence begins with the beginning-of-text token; here it is dropped then too, so
    // that decoding gives back what was encoded.
    let dropsSpace = this.addsSpace && !keepLeadingSpace;
    return (token) => {
      if (skipSpecial && this.isSpecial(token)) return noBytes;
      const bytes = this.tokenBytes(token);
      const drops = dropsSpace && bytes[0] === 0x20;
      dropsSpace = false;
      return drops ? bytes.subarray(1) : bytes;
    };
  }

  tokenText(token: number): string {
    return lenientUtf8.decode(this.tokenBytes(token));
  }

  tokenBytes(token: number): Uint8Array {
    this.#check(token);
    const bits = this.vocabulary.attributes[token] ?? 0;
    const { texts } = this.vocabulary;
    if ((bits & (attribute.control | attribute.unknown | attribute.userDefined)) !== 0) return texts.text(token);
    if ((bits & attribute.normal) !== 0) return this.normalBytes(token);
    const byte = (bits & attribute.byte) !== 0 ? byteOfText(texts.text(token)) : undefined;
    return byte === undefined ? noBytes : Uint8Array.of(byte);
  }

  isSpecial(token: number): boolean {
    this.#check(token);
    return ((this.vocabulary.attributes[token] ?? 0) & (attribute.control | attribute.unknown)) !== 0;
  }

  #check(token: number): void {
    if (Number.isInteger(token) && token >= 0 && token < this.vocabularySize) return;
    throw new OptionError("token", `${token} is no token; ids from 0 to ${this.vocabularySize - 1} are`);
  }

  #specialTokens(parseSpecial: boolean): SpecialTokens {
    if (parseSpecial) {
      this.#allSpecial ??= this.#collect(attribute.userDefined | attribute.control | attribute.unknown, 0);
      return this.#allSpecial;
    }
    this.#userDefined ??= this.#collect(attribute.userDefined, attribute.control | attribute.unknown);
    return this.#userDefined;
  }

  #collect(wanted: number, unwanted: number): SpecialTokens {
    const { attributes, texts, stripsRight } = this.vocabulary;
    const ids: number[] = [];
    // The runtime's own search skips the many others: a loop over all tokens would be most of the first prompt's encoding.
    for (let bits = 0; bits < 2 * attribute.byte; bits++) {
      if ((bits & wanted) === 0 || (bits & unwanted) !== 0) continue;
      for (let id = attributes.indexOf(bits); id >= 0; id = attributes.indexOf(bits, id + 1)) ids.push(id);
    }
    return new SpecialTokens(texts, ids, stripsRight);
  }
}

class SentencePieceTokenizer extends BaseTokenizer {
  protected readonly addsSpace: boolean;
  readonly #sentencePiece: SentencePiece;

  constructor(shared: Shared, addsSpace: boolean) {
    super(shared);
    this.addsSpace = addsSpace;
    const { texts, scores, unknown } = shared.vocabulary;
    this.#sentencePiece = new SentencePiece(texts, scores, unknown);
  }

  protected encodeText(bytes: Uint8Array, start: number, end: number, output: TokenBuffer): void {
    this.#sentencePiece.encode(markSpaces(bytes, start, end, this.addsSpace), output);
  }

  protected normalBytes(token: number): Uint8Array {
    return unmarkSpaces(this.vocabulary.texts.text(token));
  }
}

class BytePairTokenizer extends BaseTokenizer {
  protected readonly addsSpace = false;
  readonly #bytePair: BytePair;
  readonly #preTokenizer: PreTokenizer;

  constructor(shared: Shared, bytePair: BytePair, preTokenizer: PreTokenizer) {
    super(shared);
    this.#bytePair = bytePair;
    this.#preTokenizer = preTokenizer;
  }

  protected encodeText(bytes: Uint8Array, start: number, end: number, output: TokenBuffer): void {
    const text = lenientUtf8.decode(bytes.subarray(start, end));
    // Where a character is a byte, as in most texts, a word's length is its bytes'.
    const isAscii = text.length === end - start;
    let position = start;
    for (const word of splitWords(text, this.#preTokenizer)) {
      const next = position + (isAscii ? word.length : Buffer.byteLength(word));
      this.#bytePair.encode(bytes, position, next, output);
      position = next;
    }
  }

  protected normalBytes(token: number): Uint8Array {
    const text = this.vocabulary.texts.text(token);
    return decodeAlphabet(text) ?? text;
  }
}

class WordPieceTokenizer extends BaseTokenizer {
  protected readonly addsSpace = true;
  readonly #wordPiece: WordPiece;

  constructor(shared: Shared, wordPiece: WordPiece) {
    super(shared);
    this.#wordPiece = wordPiece;
  }

  protected encodeText(bytes: Uint8Array, start: number, end: number, output: TokenBuffer): void {
    this.#wordPiece.encode(bytes, start, end, output);
  }

  protected normalBytes(token: number): Uint8Array {
    return unmarkSpaces(this.vocabulary.texts.text(token));
  }
}

function encodeUtf8(text: string): Uint8Array {
  if (!text.isWellFormed()) {
    const index = text.search(/\p{Surrogate}/u);
    const code = text.charCodeAt(index).toString(16).toUpperCase();
    throw new OptionError(
      "text",
      `has half a character (the lone surrogate U+${code}) at index ${index}; mend it, or use toWellFormed()`,
    );
  }
  const bytes = utf8Encoder.encode(text);
  if (bytes.length <= textBytesMax) return bytes;
  throw new OptionError(
    "text",
    `has ${bytes.length} bytes in UTF-8; at most ${textBytesMax} are cut at once: split it`,
  );
}

// ignoreBOM means that U+FEFF is kept: several vocabularies hold it as a token.
const lenientUtf8 = new TextDecoder("utf-8", { ignoreBOM: true });
const utf8Encoder = new TextEncoder();
const noBytes = new Uint8Array(0);
