// A vocabulary's texts and the way from bytes to a token's id, in flat typed arrays: one blob of bytes, its offsets, and an
// open-addressing hash table. It makes no JavaScript string per token, and a prepared file holds the arrays as they are. It
// knows nothing of how a text is cut into tokens.
//
// Why not `@huggingface/tokenizers`: its ids are the same on llama.cpp's vectors for llama-bpe, but it wants the vocabulary as a
// tokenizer.json object, with merges that a SentencePiece file does not hold. Version 0.2.0 takes 276 to 316 ms and 62 MB
// resident for Gemma's 262,144 tokens without any merge, and cuts GPL-3's text at 1.8 MB/s with llama-bpe's vocabulary; this
// takes 71 to 84 ms and 10 MB, and cuts at 27 to 32 MB/s (each in a fresh process of Bun 1.4.5 on two virtual cores of an AMD
// Zen 4, three runs; memory after a full collection).

import type { StringBytes } from "../model/file.ts";

/** The most tokens a vocabulary may have: an id and seven bits of its hash share 31 bits of a slot. */
export const tokenCountMax = 2 ** 24;

// The hash is FNV-1a, mixed once more at the end because the low bits choose the slot.
const hashStart = 0x811c9dc5;
const hashByte = (value: number, byte: number): number => Math.imul(value ^ byte, 0x01000193);

function hashBytes(value: number, bytes: Uint8Array, start: number, end: number): number {
  let mixed = value;
  for (let index = start; index < end; index++) mixed = hashByte(mixed, bytes[index] as number);
  return mixed;
}

function hashEnd(value: number): number {
  const mixed = Math.imul(value ^ (value >>> 15), 0x2c1b3c6d);
  return (mixed ^ (mixed >>> 13)) >>> 0;
}

// A slot is 0 when free, else 1 (1 bit), a part of the hash that the slot's index does not hold (7 bits), the id (24 bits).
const slotUsed = 0x8000_0000;
const slotIdMask = 0x00ff_ffff;
const slotTag = (value: number): number => (slotUsed | (value & 0x7f00_0000)) >>> 0;

/** Texts by id and ids by text. Token `id`'s text is `bytes.subarray(offsets[id], offsets[id + 1])`. */
export class TokenTable {
  readonly bytes: Uint8Array;
  /** One more entry than there are tokens. */
  readonly offsets: Uint32Array;
  /** The hash table; its length is a power of two, at least twice the number of tokens. */
  readonly slots: Uint32Array;

  /** Takes arrays that `build` made, in this process or in an earlier one. */
  constructor(bytes: Uint8Array, offsets: Uint32Array, slots: Uint32Array) {
    this.bytes = bytes;
    this.offsets = offsets;
    this.slots = slots;
  }

  /** The table of texts that a file holds with their hash table, or with one that is filled now, as `build` does. */
  static of({ bytes, offsets, slots }: StringBytes, onDuplicate: (earlier: number, later: number) => void): TokenTable {
    return slots ? new TokenTable(bytes, offsets, slots) : TokenTable.build(bytes, offsets, onDuplicate);
  }

  /**
   * Fills the hash table. `onDuplicate` is called when a token has an earlier one's text; the earlier one is then the one
   * that is found.
   */
  static build(
    bytes: Uint8Array,
    offsets: Uint32Array,
    onDuplicate: (earlier: number, later: number) => void,
  ): TokenTable {
    const count = offsets.length - 1;
    let capacity = 16;
    while (capacity < count * 2) capacity *= 2;
    const slots = new Uint32Array(capacity);
    const mask = capacity - 1;
    for (let id = 0; id < count; id++) {
      const start = offsets[id] ?? 0;
      const end = offsets[id + 1] ?? 0;
      const value = hashEnd(hashBytes(hashStart, bytes, start, end));
      const tag = slotTag(value);
      let slot = value & mask;
      let taken = slots[slot] ?? 0;
      while (taken !== 0) {
        if ((taken & ~slotIdMask) >>> 0 === tag) {
          const earlier = taken & slotIdMask;
          if (equal(bytes, offsets[earlier] ?? 0, offsets[earlier + 1] ?? 0, bytes, start, end)) {
            onDuplicate(earlier, id);
            break;
          }
        }
        slot = (slot + 1) & mask;
        taken = slots[slot] ?? 0;
      }
      if (taken === 0) slots[slot] = (tag | id) >>> 0;
    }
    return new TokenTable(bytes, offsets, slots);
  }

  /** The number of tokens. */
  get count(): number {
    return this.offsets.length - 1;
  }

  /** The id of the token whose text is `bytes[start, end)`, or -1. */
  find(bytes: Uint8Array, start: number, end: number): number {
    const { slots, offsets } = this;
    const mask = slots.length - 1;
    const value = hashEnd(hashBytes(hashStart, bytes, start, end));
    const tag = slotTag(value);
    let slot = value & mask;
    for (let taken = slots[slot] ?? 0; taken !== 0; taken = slots[slot] ?? 0) {
      if ((taken & ~slotIdMask) >>> 0 === tag) {
        const id = taken & slotIdMask;
        if (equal(this.bytes, offsets[id] ?? 0, offsets[id + 1] ?? 0, bytes, start, end)) return id;
      }
      slot = (slot + 1) & mask;
    }
    return -1;
  }

  /** The id of the token whose text is `bytes[start, middle)`, a space and `bytes[middle, end)`, or -1. */
  findSpaced(bytes: Uint8Array, start: number, middle: number, end: number): number {
    const { slots, offsets } = this;
    const mask = slots.length - 1;
    const left = hashByte(hashBytes(hashStart, bytes, start, middle), space);
    const value = hashEnd(hashBytes(left, bytes, middle, end));
    const tag = slotTag(value);
    let slot = value & mask;
    for (let taken = slots[slot] ?? 0; taken !== 0; taken = slots[slot] ?? 0) {
      if ((taken & ~slotIdMask) >>> 0 === tag) {
        const id = taken & slotIdMask;
        const textStart = offsets[id] ?? 0;
        const textMiddle = textStart + middle - start;
        if (
          equal(this.bytes, textStart, textMiddle, bytes, start, middle) &&
          this.bytes[textMiddle] === space &&
          equal(this.bytes, textMiddle + 1, offsets[id + 1] ?? 0, bytes, middle, end)
        ) {
          return id;
        }
      }
      slot = (slot + 1) & mask;
    }
    return -1;
  }

  /** The id of the token whose text is `text`, or -1. */
  findText(text: string): number {
    const bytes = utf8Encoder.encode(text);
    return this.find(bytes, 0, bytes.length);
  }

  /** A token's text as bytes: a view, not a copy. */
  text(id: number): Uint8Array {
    return this.bytes.subarray(this.offsets[id], this.offsets[id + 1]);
  }
}

const space = 0x20;
const utf8Encoder = new TextEncoder();

function equal(a: Uint8Array, aStart: number, aEnd: number, b: Uint8Array, bStart: number, bEnd: number): boolean {
  if (aEnd - aStart !== bEnd - bStart) return false;
  for (let i = aStart, j = bStart; i < aEnd; i++, j++) if (a[i] !== b[j]) return false;
  return true;
}
