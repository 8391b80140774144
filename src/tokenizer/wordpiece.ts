// BERT's way of cutting text (Devlin et al. 2019): a text is cleaned and cut into words and signs, and each word into the longest
// pieces of the vocabulary from left to right; a word that cannot be cut so is the unknown token. The vocabulary is spelled as
// GGUF files have it: a piece that begins a word has "▁" before it, one that goes on with a word is bare.
//
// The ids are those of Hugging Face's `tokenizers`, with which such models were made. Its tables are of Unicode 8: 141 signs and
// 509 accents of rare scripts that came later are letters to it, and what Unicode says they are to this. Its ideographs are those
// of the pattern below, which is not quite Unicode's.

import type { TokenBuffer } from "./merge.ts";
import { spaceMark } from "./sentencepiece.ts";
import type { TokenTable } from "./table.ts";

/** How a text is cleaned before it is cut. */
export interface WordPieceOptions {
  readonly lowercase: boolean;
  /** Whether letters lose their accents. */
  readonly stripsAccents: boolean;
  /** Whether control characters are dropped. */
  readonly cleans: boolean;
  /** Whether each Chinese ideograph is a word. */
  readonly splitsIdeographs: boolean;
  /** Words of more characters are unknown. */
  readonly wordCharactersMax: number;
}

export const wordPieceDefaults: WordPieceOptions = {
  lowercase: true,
  stripsAccents: true,
  cleans: true,
  splitsIdeographs: true,
  wordCharactersMax: 100,
};

/** What the bytes of a text are to `cut`. All beyond ASCII are letters. */
const kind = { letter: 0, space: 1, sign: 2, dropped: 3 } as const;

/** Characters beyond ASCII whose cleaned form is kept. */
const cleanedMax = 32_768;

/** Room for a word is kept up to this many bytes. */
const keptWordMax = 4096;

/** Cuts texts by a vocabulary. */
export class WordPiece {
  readonly #texts: TokenTable;
  readonly #unknown: number;
  readonly #options: WordPieceOptions;
  /** By byte, `kind`, and what it is in a piece. */
  readonly #kinds: Uint8Array;
  readonly #lower: Uint8Array;
  /** Bytes of the longest piece. */
  readonly #longest: number;
  /** "▁" and the word at hand. */
  #word = new Uint8Array(keptWordMax);
  readonly #pieces: number[] = [];
  readonly #cleaned = new Map<string, string>();

  constructor(texts: TokenTable, unknown: number, options: WordPieceOptions) {
    this.#texts = texts;
    this.#unknown = unknown;
    this.#options = options;
    this.#kinds = Uint8Array.from({ length: 256 }, (_, byte) => kindOf(byte, options.cleans));
    this.#lower = Uint8Array.from({ length: 256 }, (_, byte) =>
      options.lowercase && byte >= 0x41 && byte <= 0x5a ? byte + 0x20 : byte,
    );
    let longest = 0;
    for (let id = 0; id < texts.count; id++) {
      longest = Math.max(longest, (texts.offsets[id + 1] ?? 0) - (texts.offsets[id] ?? 0));
    }
    this.#longest = longest;
    this.#word.set(spaceMark);
  }

  /** Appends the tokens of the UTF-8 text `bytes[start, end)`. */
  encode(bytes: Uint8Array, start: number, end: number, output: TokenBuffer): void {
    let at = start;
    while (at < end && (bytes[at] ?? 0) < 0x80) at++;
    if (at === end) {
      this.#cut(bytes, start, end, output);
    } else {
      const clean = utf8Encoder.encode(this.#clean(utf8.decode(bytes.subarray(start, end))));
      this.#cut(clean, 0, clean.length, output);
    }
    if (this.#word.length > keptWordMax) this.#reserve(keptWordMax);
  }

  /**
   * A text in which spaces stand around all ideographs and all signs beyond ASCII, and no other white space is beyond ASCII.
   * What becomes of a character does not depend on those beside it.
   */
  #clean(text: string): string {
    let clean = "";
    for (const character of text) {
      if (character < "\x80") {
        clean += character;
        continue;
      }
      let known = this.#cleaned.get(character);
      if (known === undefined) {
        known = cleanCharacter(character, this.#options);
        if (this.#cleaned.size === cleanedMax) this.#cleaned.clear();
        this.#cleaned.set(character, known);
      }
      clean += known;
    }
    return clean;
  }

  #reserve(bytes: number): void {
    this.#word = new Uint8Array(bytes);
    this.#word.set(spaceMark);
  }

  /** A text in which what is beyond ASCII is only letters. */
  #cut(bytes: Uint8Array, start: number, end: number, output: TokenBuffer): void {
    if (end - start + spaceMark.length > this.#word.length) this.#reserve(end - start + spaceMark.length);
    const word = this.#word;
    const empty = spaceMark.length;
    let length: number = empty;
    for (let at = start; at < end; at++) {
      const byte = bytes[at] ?? 0;
      const is = this.#kinds[byte];
      if (is === kind.letter) {
        word[length++] = this.#lower[byte] ?? 0;
        continue;
      }
      if (is === kind.dropped) continue;
      if (length > empty) this.#cutWord(length, output);
      length = empty;
      if (is === kind.space) continue;
      word[empty] = byte;
      this.#cutWord(empty + 1, output);
    }
    if (length > empty) this.#cutWord(length, output);
  }

  /** The word that ends at `length`. */
  #cutWord(length: number, output: TokenBuffer): void {
    const pieces = this.#pieces;
    pieces.length = 0;
    const known = characters(this.#word, length) - 1 <= this.#options.wordCharactersMax;
    let from = 0;
    while (known && from < length) {
      const { token, end } = this.#longestPiece(from, length);
      if (token < 0) break;
      pieces.push(token);
      from = end;
    }
    if (from < length) output.push(this.#unknown);
    else for (const piece of pieces) output.push(piece);
  }

  #longestPiece(from: number, length: number): { token: number; end: number } {
    const word = this.#word;
    // The mark alone begins no word. In the middle of one it is a character of the text, and goes on with no word.
    const least = from > 0 ? from : spaceMark.length;
    if (from > 0 && spaceMark.every((byte, index) => word[from + index] === byte)) return { token: -1, end: from };
    for (let end = Math.min(length, from + this.#longest); end > least; end--) {
      // A piece ends where a character does.
      if (end < length && ((word[end] ?? 0) & 0xc0) === 0x80) continue;
      const token = this.#texts.find(word, from, end);
      if (token >= 0) return { token, end };
    }
    return { token: -1, end: from };
  }
}

function characters(word: Uint8Array, length: number): number {
  let count = 0;
  for (let at = 0; at < length; at++) if (((word[at] ?? 0) & 0xc0) !== 0x80) count++;
  return count;
}

function kindOf(byte: number, cleans: boolean): number {
  const character = String.fromCharCode(byte);
  if (byte >= 0x80) return kind.letter;
  if (cleans && controls.test(character)) return kind.dropped;
  if (/\s/.test(character)) return kind.space;
  return /[!-/:-@[-`{-~]/.test(character) ? kind.sign : kind.letter;
}

/** A character beyond ASCII as it is cut. */
function cleanCharacter(character: string, options: WordPieceOptions): string {
  if (options.cleans && controls.test(character)) return "";
  let clean = character;
  if (options.stripsAccents) clean = clean.normalize("NFD").replaceAll(/\p{Mn}/gu, "");
  if (options.lowercase) clean = clean.toLowerCase();
  if (/\p{White_Space}/u.test(clean)) return " ";
  const isWord = /\p{P}/u.test(clean) || (options.splitsIdeographs && ideographs.test(character));
  return isWord ? ` ${clean} ` : clean;
}

/** Control characters, those that only format, those for private use, and the sign for what could not be read. */
const controls = /[^\P{C}\p{Cn}\p{Cs}\t\n\r]|\u{fffd}/u;
const ideographs =
  /[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u{20000}-\u{2a6df}\u{2a700}-\u{2b81f}\u{2b920}-\u{2ceaf}\u{2f800}-\u{2fa1f}]/u;

const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });
const utf8Encoder = new TextEncoder();
