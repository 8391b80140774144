// Byte-level byte-pair encoding (Sennrich, Haddow and Birch 2016, over bytes as in GPT-2): a word's bytes are merged pair by
// pair, the pair that comes first in the list of merges first. It works in the byte alphabet, in which files write tokens and
// merges, so that the file's texts serve as they are. It is given words that a pre-tokenizer cut, and knows no special tokens.

import type { Metadata } from "../model/file.ts";
import { printable } from "../model/file.ts";
import { encodeAlphabet } from "./alphabet.ts";
import type { MergeRule, Symbols, TokenBuffer } from "./merge.ts";
import { Merger } from "./merge.ts";
import { TokenTable, tokenCountMax } from "./table.ts";
import { keys } from "./vocabulary.ts";

/** Words longer than this give their scratch space back, in bytes. */
const keptWordMax = 4096;

/** Cuts words by a vocabulary and its merges. */
export class BytePair implements MergeRule {
  readonly #texts: TokenTable;
  /** Merge `rank` is the text `rank`: two texts in the byte alphabet with a space between. */
  readonly #merges: TokenTable;
  readonly #ignoresMerges: boolean;
  readonly #merger = new Merger(this);
  /** The word in the byte alphabet. */
  #word = new Uint8Array(2 * keptWordMax);

  constructor(texts: TokenTable, merges: TokenTable, ignoresMerges: boolean) {
    this.#texts = texts;
    this.#merges = merges;
    this.#ignoresMerges = ignoresMerges;
  }

  /** Appends the tokens of the word `bytes[start, end)`. */
  encode(bytes: Uint8Array, start: number, end: number, output: TokenBuffer): void {
    const isLong = end - start > keptWordMax;
    if (isLong) this.#word = new Uint8Array(2 * (end - start));
    const word = this.#word;
    const length = encodeAlphabet(bytes, start, end, word);
    const whole = this.#ignoresMerges ? this.#texts.find(word, 0, length) : -1;
    if (whole >= 0) output.push(whole);
    else this.#mergeWord(word, length, output);
    if (!isLong) return;
    this.#word = new Uint8Array(2 * keptWordMax);
    this.#merger.trim();
  }

  #mergeWord(word: Uint8Array, length: number, output: TokenBuffer): void {
    const { symbols } = this.#merger;
    symbols.reset(length);
    for (let at = 0; at < length; at += characterLength(word[at])) symbols.push(at, characterLength(word[at]));
    this.#merger.merge();
    for (let index = 0; index >= 0 && index < symbols.count; index = symbols.next[index] ?? -1) {
      const start = symbols.start[index] ?? 0;
      const end = start + (symbols.length[index] ?? 0);
      const token = this.#texts.find(word, start, end);
      if (token >= 0) output.push(token);
      else this.#spell(word, start, end, output);
    }
  }

  /**
   * Merges may lead to a text that is no token: its bytes are taken, as far as they are tokens. What is left is left out, as
   * llama.cpp does; a byte-level vocabulary that lacks bytes is not one that a model was trained with.
   */
  #spell(word: Uint8Array, start: number, end: number, output: TokenBuffer): void {
    for (let at = start; at < end; at += characterLength(word[at])) {
      const token = this.#texts.find(word, at, at + characterLength(word[at]));
      if (token >= 0) output.push(token);
    }
  }

  /** The candidate is the merge's rank. */
  candidate(symbols: Symbols, left: number, right: number): number {
    const start = symbols.start[left] ?? 0;
    const middle = symbols.start[right] ?? 0;
    return this.#merges.findSpaced(this.#word, start, middle, middle + (symbols.length[right] ?? 0));
  }

  priority(candidate: number): number {
    return candidate;
  }
}

/** The bytes of a character of the byte alphabet, by its first. */
function characterLength(lead: number | undefined): number {
  return lead !== undefined && lead >= 0x80 ? 2 : 1;
}

/**
 * Reads the merges, in order of rank. A pair that is listed twice keeps its first rank.
 * @throws {ModelFileError} if the merges are missing, too many, or one is not two texts with a space between.
 */
export function readMerges(metadata: Metadata): TokenTable {
  const merges = metadata.stringBytes(keys.merges);
  const { bytes, offsets } = merges;
  const count = offsets.length - 1;
  if (count > tokenCountMax) {
    throw metadata.error(keys.merges, `has ${count} merges; at most ${tokenCountMax} are supported`);
  }
  for (let rank = 0; rank < count; rank++) {
    const start = offsets[rank] ?? 0;
    const end = offsets[rank + 1] ?? 0;
    // A space that comes first is not between anything.
    let space = start + 1;
    while (space < end && bytes[space] !== 0x20) space++;
    if (space < end) continue;
    const text = printable(new TextDecoder().decode(bytes.subarray(start, end)));
    throw metadata.error(keys.merges, `merge ${rank} is "${text}"; two texts with a space between are expected`);
  }
  return TokenTable.of(merges, () => {});
}
