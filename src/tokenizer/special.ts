// Finds special tokens' texts in a prompt before anything else is cut: the longest texts first over the whole prompt, each
// from left to right, which is llama.cpp's order (not leftmost first). It works on bytes and knows no merges.

import type { TokenTable } from "./table.ts";

/** A part of a prompt: a special token, or (`token` -1) the bytes from `start` to `end`, at least one. */
export interface Segment {
  readonly token: number;
  readonly start: number;
  readonly end: number;
}

/** A set of special tokens, ready to be searched for. */
export class SpecialTokens {
  readonly #texts: TokenTable;
  readonly #ids: ReadonlySet<number>;
  readonly #stripsRight: (id: number) => boolean;
  // Which of thousands of tokens occur at all (Gemma has 6,400) is looked up in the table of all tokens; only those few are
  // then searched for. What can begin with two given bytes, or is but one byte, has few lengths: only those are looked up.
  readonly #lengths = new Map<number, number[]>();
  readonly #begins = new Uint8Array(256);

  /**
   * @param ids of tokens with texts that are not empty.
   * @param stripsRight whether white space to the right of a token in the text belongs to it (Phi-3's chat tokens).
   */
  constructor(texts: TokenTable, ids: readonly number[], stripsRight: (id: number) => boolean) {
    this.#texts = texts;
    this.#ids = new Set(ids);
    this.#stripsRight = stripsRight;
    const { bytes, offsets } = texts;
    for (const id of ids) {
      const start = offsets[id] ?? 0;
      const length = (offsets[id + 1] ?? 0) - start;
      const first = bytes[start] ?? 0;
      const key = length === 1 ? first : beginning(first, bytes[start + 1] ?? 0);
      const lengths = this.#lengths.get(key);
      if (lengths === undefined) this.#lengths.set(key, [length]);
      else if (!lengths.includes(length)) lengths.push(length);
      this.#begins[first] = 1;
    }
  }

  /** Cuts `bytes` into special tokens and the text between them, in order. */
  split(bytes: Uint8Array): Segment[] {
    const ids = this.#occurring(bytes);
    if (ids.length === 0) return bytes.length > 0 ? [{ token: -1, start: 0, end: bytes.length }] : [];
    // For each byte that belongs to a match, where the match ends; 0 for a free byte.
    const coverEnd = new Uint32Array(bytes.length);
    const matches: Segment[] = [];
    const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
    for (const id of ids) {
      const text = this.#texts.text(id);
      let from = 0;
      for (;;) {
        const start = buffer.indexOf(text, from);
        if (start < 0) break;
        // What is taken was at least as long as this, so it overlaps at one end or the other.
        const end = start + text.length;
        const taken = coverEnd[start] || coverEnd[end - 1] || 0;
        if (taken !== 0) {
          from = taken;
          continue;
        }
        let coveredTo = end;
        if (this.#stripsRight(id)) while (isSpace(bytes[coveredTo]) && coverEnd[coveredTo] === 0) coveredTo++;
        coverEnd.fill(coveredTo, start, coveredTo);
        matches.push({ token: id, start, end: coveredTo });
        from = coveredTo;
      }
    }
    matches.sort((a, b) => a.start - b.start);
    const segments: Segment[] = [];
    let position = 0;
    for (const match of matches) {
      if (match.start > position) segments.push({ token: -1, start: position, end: match.start });
      segments.push(match);
      position = match.end;
    }
    if (position < bytes.length) segments.push({ token: -1, start: position, end: bytes.length });
    return segments;
  }

  /** Those that occur in `bytes`: the longest first, equal lengths by id. */
  #occurring(bytes: Uint8Array): number[] {
    const found = new Map<number, number>();
    for (let position = 0; position < bytes.length; position++) {
      const first = bytes[position] ?? 0;
      if (this.#begins[first] === 0) continue;
      for (const key of [first, beginning(first, bytes[position + 1] ?? 0)]) {
        for (const length of this.#lengths.get(key) ?? []) {
          if (position + length > bytes.length) continue;
          const id = this.#texts.find(bytes, position, position + length);
          if (id >= 0 && this.#ids.has(id)) found.set(id, length);
        }
      }
    }
    return [...found].sort(([a, aLength], [b, bLength]) => bLength - aLength || a - b).map(([id]) => id);
  }
}

/** Stands for all texts of two bytes or more that begin with these. */
function beginning(first: number, second: number): number {
  return 256 + first * 256 + second;
}

/** White space as C's `isspace` has it, which is what llama.cpp strips. */
function isSpace(byte: number | undefined): boolean {
  return byte === 0x20 || (byte !== undefined && byte >= 0x09 && byte <= 0x0d);
}
