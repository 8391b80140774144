// Finds special tokens' texts in a prompt before anything else is cut: the longest texts first over the whole prompt, each
// from left to right, which is llama.cpp's order (not leftmost first). It works on bytes and knows no merges.

/** A token that is matched as a whole, before the tokenizer proper. */
export interface SpecialToken {
  readonly id: number;
  /** Its text, not empty. */
  readonly text: Uint8Array;
  /** White space to the right of it in the text belongs to it (Phi-3's chat tokens). */
  readonly stripsRight: boolean;
}

/** A part of a prompt: a special token, or (`token` -1) the bytes from `start` to `end`, at least one. */
export interface Segment {
  readonly token: number;
  readonly start: number;
  readonly end: number;
}

/** A set of special tokens, ready to be searched for. */
export class SpecialTokens {
  /** Longest first; equal lengths by id. */
  readonly #tokens: readonly SpecialToken[];
  // A trie over the texts. `#children` maps node * 256 + byte to a node; `#final` maps a node to its token's place in
  // `#tokens`. It only says which of thousands of tokens occur at all (Gemma has 6,400): those few are then searched for.
  readonly #children = new Map<number, number>();
  readonly #final = new Map<number, number>();
  readonly #first = new Uint8Array(256);

  constructor(tokens: readonly SpecialToken[]) {
    this.#tokens = [...tokens].sort((a, b) => b.text.length - a.text.length || a.id - b.id);
    let nodes = 1;
    for (const [place, { text }] of this.#tokens.entries()) {
      let node = 0;
      for (const byte of text) {
        const key = node * 256 + byte;
        let child = this.#children.get(key);
        if (child === undefined) {
          child = nodes++;
          this.#children.set(key, child);
        }
        node = child;
      }
      this.#final.set(node, place);
      this.#first[text[0] ?? 0] = 1;
    }
  }

  /** Cuts `bytes` into special tokens and the text between them, in order. */
  split(bytes: Uint8Array): Segment[] {
    const places = this.#occurring(bytes);
    if (places.length === 0) return bytes.length > 0 ? [{ token: -1, start: 0, end: bytes.length }] : [];
    // For each byte that belongs to a match, where the match ends; 0 for a free byte.
    const coverEnd = new Uint32Array(bytes.length);
    const matches: Segment[] = [];
    const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
    for (const place of places) {
      const special = this.#tokens[place];
      if (special === undefined) continue;
      const { id, text, stripsRight } = special;
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
        if (stripsRight) while (isSpace(bytes[coveredTo]) && coverEnd[coveredTo] === 0) coveredTo++;
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

  /** The places in `#tokens` of those that occur in `bytes`, ascending. */
  #occurring(bytes: Uint8Array): number[] {
    const found = new Set<number>();
    if (this.#tokens.length === 0) return [];
    for (let position = 0; position < bytes.length; position++) {
      if (this.#first[bytes[position] ?? 0] === 0) continue;
      let node = 0;
      for (let index = position; index < bytes.length; index++) {
        const child = this.#children.get(node * 256 + (bytes[index] ?? 0));
        if (child === undefined) break;
        node = child;
        const place = this.#final.get(node);
        if (place !== undefined) found.add(place);
      }
    }
    return [...found].sort((a, b) => a - b);
  }
}

/** White space as C's `isspace` has it, which is what llama.cpp strips. */
function isSpace(byte: number | undefined): boolean {
  return byte === 0x20 || (byte !== undefined && byte >= 0x09 && byte <= 0x0d);
}
