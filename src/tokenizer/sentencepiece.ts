// SentencePiece's way of cutting text (Kudo and Richardson 2018): starting from characters, the neighbours whose joined text
// is the token of the highest score are merged until none are left; a character without a token becomes its UTF-8 bytes.
// It is given text with spaces already written as U+2581, and knows no special tokens.

import { OptionError } from "../errors.ts";
import type { MergeRule, Symbols, TokenBuffer } from "./merge.ts";
import { Merger } from "./merge.ts";
import type { TokenTable } from "./table.ts";

/** The three bytes of "▁" (U+2581), which stands for a space in the vocabulary. */
export const spaceMark: readonly [number, number, number] = [0xe2, 0x96, 0x81];

/** Cuts text by a vocabulary with scores. */
export class SentencePiece implements MergeRule {
  readonly #texts: TokenTable;
  readonly #scores: Float32Array;
  readonly #unknown: number | undefined;
  /** By byte: the token of that byte, or -1. Made when a character without a token is met. */
  #byteTokens: Int32Array | undefined;
  readonly #merger = new Merger(this);
  #bytes: Uint8Array = new Uint8Array(0);

  constructor(texts: TokenTable, scores: Float32Array, unknown: number | undefined) {
    this.#texts = texts;
    this.#scores = scores;
    this.#unknown = unknown;
  }

  /**
   * Appends the tokens of `bytes`, UTF-8 with every space written as U+2581.
   * @throws {OptionError} if a character has no token, nor its bytes, and the vocabulary has no unknown token either.
   */
  encode(bytes: Uint8Array, output: TokenBuffer): void {
    this.#bytes = bytes;
    const symbols = this.#split(bytes);
    this.#merger.merge();
    for (let index = 0; index >= 0 && index < symbols.count; index = symbols.next[index] ?? -1) {
      const start = symbols.start[index] ?? 0;
      const length = symbols.length[index] ?? 0;
      const token = this.#texts.find(bytes, start, start + length);
      if (token >= 0) output.push(token);
      else this.#spell(start, length, output);
    }
    this.#merger.trim();
  }

  #split(bytes: Uint8Array): Symbols {
    let characters = 0;
    for (let index = 0; index < bytes.length; index++) if (((bytes[index] ?? 0) & 0xc0) !== 0x80) characters++;
    const { symbols } = this.#merger;
    symbols.reset(characters);
    for (let start = 0; start < bytes.length; ) {
      const length = characterLength(bytes[start] ?? 0);
      symbols.push(start, length);
      start += length;
    }
    return symbols;
  }

  #spell(start: number, length: number, output: TokenBuffer): void {
    this.#byteTokens ??= findByteTokens(this.#texts);
    const byteTokens = this.#byteTokens;
    const tokens = Array.from(this.#bytes.subarray(start, start + length), (byte) => byteTokens[byte] ?? -1);
    if (tokens.every((token) => token >= 0)) {
      for (const token of tokens) output.push(token);
    } else if (this.#unknown !== undefined) {
      output.push(this.#unknown);
    } else {
      const character = new TextDecoder().decode(this.#bytes.subarray(start, start + length));
      throw new OptionError(
        "text",
        `the model's vocabulary has no token for "${character}", nor for its bytes, nor one for what is unknown: leave it out`,
      );
    }
  }

  /** The candidate is the token that the two make together. */
  candidate(symbols: Symbols, left: number, right: number): number {
    const start = symbols.start[left] ?? 0;
    const end = start + (symbols.length[left] ?? 0) + (symbols.length[right] ?? 0);
    return this.#texts.find(this.#bytes, start, end);
  }

  priority(candidate: number): number {
    return -(this.#scores[candidate] ?? 0);
  }
}

function findByteTokens(texts: TokenTable): Int32Array {
  return Int32Array.from({ length: 256 }, (_, byte) => {
    const named = texts.findText(`<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`);
    return named >= 0 ? named : texts.find(Uint8Array.of(byte), 0, 1);
  });
}

/** The bytes of a UTF-8 character by its first. */
function characterLength(lead: number): number {
  if (lead < 0xc0) return 1;
  if (lead < 0xe0) return 2;
  return lead < 0xf0 ? 3 : 4;
}

/** Writes `bytes[start, end)` with every space as U+2581, and one more before it if `prefix`. */
export function markSpaces(bytes: Uint8Array, start: number, end: number, prefix: boolean): Uint8Array {
  let spaces = prefix ? 1 : 0;
  for (let index = start; index < end; index++) if (bytes[index] === 0x20) spaces++;
  if (spaces === 0) return bytes.subarray(start, end);
  const marked = new Uint8Array(end - start + (prefix ? 1 : 0) + 2 * spaces);
  let at = 0;
  if (prefix) {
    marked.set(spaceMark, 0);
    at = 3;
  }
  for (let index = start; index < end; index++) {
    const byte = bytes[index] ?? 0;
    if (byte === 0x20) {
      marked[at] = spaceMark[0];
      marked[at + 1] = spaceMark[1];
      marked[at + 2] = spaceMark[2];
      at += 3;
    } else {
      marked[at++] = byte;
    }
  }
  return marked;
}

/** A token's text with every U+2581 as a space. */
export function unmarkSpaces(text: Uint8Array): Uint8Array {
  const plain = new Uint8Array(text.length);
  let at = 0;
  for (let index = 0; index < text.length; index++) {
    if (text[index] === spaceMark[0] && text[index + 1] === spaceMark[1] && text[index + 2] === spaceMark[2]) {
      plain[at++] = 0x20;
      index += 2;
    } else {
      plain[at++] = text[index] ?? 0;
    }
  }
  return plain.subarray(0, at);
}
