// Byte-level byte-pair encoding (Sennrich, Haddow and Birch 2016, over bytes as in GPT-2): a word's bytes are merged pair by
// pair, the pair that comes first in the list of merges first. It is given words that a pre-tokenizer cut, and knows no special
// tokens.

import type { Metadata } from "../model/file.ts";
import { printable } from "../model/file.ts";
import { decodeAlphabet } from "./alphabet.ts";
import type { MergeRule, Symbols, TokenBuffer } from "./merge.ts";
import { Merger } from "./merge.ts";
import { TokenTable } from "./table.ts";
import { keys } from "./vocabulary.ts";

/** The most merges a file may have: as for tokens. */
const mergeCountMax = 2 ** 24;

/**
 * The merges as flat arrays: merge `rank` makes `merged[rank]` of `left[rank]` and `right[rank]`. `slots` is a hash table of
 * pairs: 0 when free, else a rank plus 1. Ids from the vocabulary's size up are of texts that are no tokens: merging may pass
 * through them, as it does in llama.cpp.
 */
export interface MergeTable {
  readonly left: Uint32Array;
  readonly right: Uint32Array;
  readonly merged: Uint32Array;
  readonly slots: Uint32Array;
  /** By byte: the id with which merging starts. */
  readonly byteIds: Uint32Array;
}

/** Cuts words by a vocabulary and its merges. */
export class BytePair implements MergeRule {
  /** The tokens' bytes: their texts with the byte alphabet undone. Tokens that are not written in it are not found here. */
  readonly pieces: TokenTable;
  readonly #merges: MergeTable;
  readonly #ignoresMerges: boolean;
  readonly #merger = new Merger(this);

  constructor(pieces: TokenTable, merges: MergeTable, ignoresMerges: boolean) {
    this.pieces = pieces;
    this.#merges = merges;
    this.#ignoresMerges = ignoresMerges;
  }

  /** Appends the tokens of the word `bytes[start, end)`. */
  encode(bytes: Uint8Array, start: number, end: number, output: TokenBuffer): void {
    if (this.#ignoresMerges || end - start === 1) {
      const whole = this.pieces.find(bytes, start, end);
      if (whole >= 0) {
        output.push(whole);
        return;
      }
    }
    const { symbols } = this.#merger;
    symbols.reset(end - start);
    for (let index = start; index < end; index++) symbols.push(index, 1, this.#merges.byteIds[bytes[index] ?? 0] ?? 0);
    this.#merger.merge();
    for (let index = 0; index >= 0 && index < symbols.count; index = symbols.next[index] ?? -1) {
      const token = symbols.token[index] ?? 0;
      if (token < this.pieces.count) output.push(token);
      else this.#spell(bytes, symbols.start[index] ?? 0, symbols.length[index] ?? 0, output);
    }
    if (end - start > 64) this.#merger.trim();
  }

  /**
   * A text that is no token: its bytes, as far as they are tokens. The rest is left out, as llama.cpp does; a byte-level
   * vocabulary that lacks bytes is not one that a model was trained with.
   */
  #spell(bytes: Uint8Array, start: number, length: number, output: TokenBuffer): void {
    for (let index = start; index < start + length; index++) {
      const token = this.#merges.byteIds[bytes[index] ?? 0] ?? 0;
      if (token < this.pieces.count) output.push(token);
    }
  }

  /** The candidate is the merge's rank. */
  candidate(symbols: Symbols, left: number, right: number): number {
    return findMerge(this.#merges, symbols.token[left] ?? 0, symbols.token[right] ?? 0);
  }

  priority(candidate: number): number {
    return candidate;
  }

  token(candidate: number): number {
    return this.#merges.merged[candidate] ?? 0;
  }
}

function pairSlot(left: number, right: number, mask: number): number {
  const mixed = Math.imul(left, 0x9e3779b1) ^ Math.imul(right, 0x85ebca77);
  return (mixed ^ (mixed >>> 15)) & mask;
}

function findMerge(table: MergeTable, left: number, right: number): number {
  const { slots } = table;
  const mask = slots.length - 1;
  let slot = pairSlot(left, right, mask);
  for (let taken = slots[slot] ?? 0; taken !== 0; taken = slots[slot] ?? 0) {
    if (table.left[taken - 1] === left && table.right[taken - 1] === right) return taken - 1;
    slot = (slot + 1) & mask;
  }
  return -1;
}

/** Undoes the byte alphabet in a vocabulary. A text that is not written in it stays as it is and is not found by its bytes. */
export function decodePieces(texts: TokenTable): TokenTable {
  const bytes = new Uint8Array(texts.bytes.length);
  const offsets = new Uint32Array(texts.count + 1);
  const decodable = new Uint8Array(texts.count);
  let at = 0;
  for (let id = 0; id < texts.count; id++) {
    const start = texts.offsets[id] ?? 0;
    const end = texts.offsets[id + 1] ?? 0;
    const written = decodeAlphabet(texts.bytes, start, end, bytes, at);
    if (written < 0) bytes.set(texts.bytes.subarray(start, end), at);
    else decodable[id] = 1;
    at += written < 0 ? end - start : written;
    offsets[id + 1] = at;
  }
  // Different texts stand for different bytes, and the texts were found to differ.
  const never = (): never => {
    throw new Error("two texts of the byte alphabet stand for the same bytes");
  };
  return TokenTable.build(bytes.slice(0, at), offsets, never, (id) => decodable[id] === 1);
}

/**
 * Reads the merges, each "left right" in the byte alphabet, in order of rank. A pair that is listed twice keeps its first
 * rank; one with characters outside the alphabet can never apply and is passed over.
 * @throws {ModelFileError} if the merges are missing, too many, or one is not two texts with a space between.
 */
export function readMerges(metadata: Metadata, pieces: TokenTable): MergeTable {
  const { bytes, offsets } = metadata.stringBytes(keys.merges);
  const count = offsets.length - 1;
  if (count > mergeCountMax)
    throw metadata.error(keys.merges, `has ${count} merges; at most ${mergeCountMax} are supported`);
  let capacity = 16;
  while (capacity < count * 2) capacity *= 2;
  const mask = capacity - 1;

  // Texts that are no tokens, by their bytes as Latin-1, with ids beyond the vocabulary's.
  const strays = new Map<string, number>();
  const idOf = (source: Uint8Array, start: number, end: number): number => {
    const found = pieces.find(source, start, end);
    if (found >= 0) return found;
    const text = Buffer.from(source.buffer, source.byteOffset + start, end - start).toString("latin1");
    const stray = strays.get(text) ?? pieces.count + strays.size;
    strays.set(text, stray);
    return stray;
  };

  const byteIds = Uint32Array.from({ length: 256 }, (_, byte) => idOf(Uint8Array.of(byte), 0, 1));
  const table: MergeTable = {
    left: new Uint32Array(count),
    right: new Uint32Array(count),
    merged: new Uint32Array(count),
    slots: new Uint32Array(capacity),
    byteIds,
  };
  let scratch = new Uint8Array(256);
  for (let rank = 0; rank < count; rank++) {
    const start = offsets[rank] ?? 0;
    const end = offsets[rank + 1] ?? 0;
    // A space that comes first belongs to the left half, which llama.cpp's reading is too.
    let space = start + 1;
    while (space < end && bytes[space] !== 0x20) space++;
    if (space >= end) {
      const text = printable(new TextDecoder().decode(bytes.subarray(start, end)));
      throw metadata.error(keys.merges, `merge ${rank} is "${text}"; two texts with a space between are expected`);
    }
    if (scratch.length < end - start) scratch = new Uint8Array((end - start) * 2);
    const leftLength = decodeAlphabet(bytes, start, space, scratch, 0);
    if (leftLength <= 0) continue;
    const rightLength = decodeAlphabet(bytes, space + 1, end, scratch, leftLength);
    if (rightLength <= 0) continue;
    const left = idOf(scratch, 0, leftLength);
    const right = idOf(scratch, leftLength, leftLength + rightLength);
    let slot = pairSlot(left, right, mask);
    let taken = table.slots[slot] ?? 0;
    while (taken !== 0 && (table.left[taken - 1] !== left || table.right[taken - 1] !== right)) {
      slot = (slot + 1) & mask;
      taken = table.slots[slot] ?? 0;
    }
    if (taken !== 0) continue;
    table.left[rank] = left;
    table.right[rank] = right;
    table.merged[rank] = idOf(scratch, 0, leftLength + rightLength);
    table.slots[slot] = rank + 1;
  }
  return table;
}
