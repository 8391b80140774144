// Merging of adjacent symbols, the best pair first: what SentencePiece (by score) and byte-pair encoding (by rank) share.
// A priority queue makes it O(n log n) in the number of symbols, so that a megabyte without a space is no special case.
// It knows neither vocabulary: a MergeRule does.

/** A text as a chain of symbols, each a range of bytes. Merging `left` with the one after it lengthens `left` and takes the other out. */
export class Symbols {
  count = 0;
  /** First byte of each symbol. */
  start: Int32Array;
  /** Bytes of each symbol; 0 once it was merged into the one before. */
  length: Int32Array;
  /** The neighbours' indices, or -1. */
  previous: Int32Array;
  next: Int32Array;

  constructor(capacity = 64) {
    this.start = new Int32Array(capacity);
    this.length = new Int32Array(capacity);
    this.previous = new Int32Array(capacity);
    this.next = new Int32Array(capacity);
  }

  /** Empties the chain and makes room for `count` symbols. */
  reset(count: number): void {
    this.count = 0;
    if (count <= this.start.length) return;
    const capacity = Math.max(count, this.start.length * 2);
    this.start = new Int32Array(capacity);
    this.length = new Int32Array(capacity);
    this.previous = new Int32Array(capacity);
    this.next = new Int32Array(capacity);
  }

  /** Appends a symbol. */
  push(start: number, length: number): void {
    const index = this.count++;
    this.start[index] = start;
    this.length[index] = length;
    this.previous[index] = index - 1;
    this.next[index] = -1;
    if (index > 0) this.next[index - 1] = index;
  }
}

/** Which pairs merge, and in which order. A candidate is the rule's own number for one possible merge. */
export interface MergeRule {
  /** The candidate for the symbols `left` and `right`, which are neighbours, or -1. */
  candidate(symbols: Symbols, left: number, right: number): number;
  /** Lower merges earlier; of equals, the leftmost. Never NaN. */
  priority(candidate: number): number;
}

/** Scratch space above this many symbols is given back after use: 64 Ki symbols take 1 MB, their queue 2 MB. */
const keptSymbolsMax = 65_536;

/** Merges chains of symbols; keeps its scratch space between calls. */
export class Merger {
  readonly #rule: MergeRule;
  symbols = new Symbols();
  // The queue: a binary heap over three parallel arrays.
  #size = 0;
  #priority = new Float64Array(64);
  #left = new Int32Array(64);
  #bytes = new Int32Array(64);

  constructor(rule: MergeRule) {
    this.#rule = rule;
  }

  /** Gives back scratch space that a long text needed. */
  trim(): void {
    if (this.symbols.start.length > keptSymbolsMax) this.symbols = new Symbols();
    if (this.#left.length > 2 * keptSymbolsMax) {
      this.#priority = new Float64Array(64);
      this.#left = new Int32Array(64);
      this.#bytes = new Int32Array(64);
    }
  }

  /** Merges `this.symbols` until no pair has a candidate. */
  merge(): void {
    const symbols = this.symbols;
    const { length, previous, next } = symbols;
    this.#size = 0;
    for (let right = 1; right < symbols.count; right++) this.#offer(right - 1, right);
    while (this.#size > 0) {
      const left = this.#left[0] ?? 0;
      const bytes = this.#bytes[0] ?? 0;
      this.#pop();
      const right = next[left] ?? -1;
      // An entry is stale if either side has been merged since: then `left` is gone or the two have another length.
      if (length[left] === 0 || right < 0 || (length[left] ?? 0) + (length[right] ?? 0) !== bytes) continue;
      length[left] = bytes;
      length[right] = 0;
      const after = next[right] ?? -1;
      next[left] = after;
      if (after >= 0) previous[after] = left;
      const before = previous[left] ?? -1;
      if (before >= 0) this.#offer(before, left);
      if (after >= 0) this.#offer(left, after);
    }
  }

  #offer(left: number, right: number): void {
    const candidate = this.#rule.candidate(this.symbols, left, right);
    if (candidate < 0) return;
    const priority = this.#rule.priority(candidate);
    if (this.#size === this.#left.length) this.#grow();
    const priorities = this.#priority;
    let index = this.#size++;
    while (index > 0) {
      const parent = (index - 1) >> 1;
      const parentPriority = priorities[parent] ?? 0;
      if (parentPriority < priority || (parentPriority === priority && (this.#left[parent] ?? 0) <= left)) break;
      this.#move(parent, index);
      index = parent;
    }
    priorities[index] = priority;
    this.#left[index] = left;
    this.#bytes[index] = (this.symbols.length[left] ?? 0) + (this.symbols.length[right] ?? 0);
  }

  #pop(): void {
    const last = --this.#size;
    if (last === 0) return;
    const priorities = this.#priority;
    const lefts = this.#left;
    const priority = priorities[last] ?? 0;
    const left = lefts[last] ?? 0;
    let index = 0;
    for (;;) {
      let child = 2 * index + 1;
      if (child >= last) break;
      const other = child + 1;
      if (other < last && this.#before(other, child)) child = other;
      const childPriority = priorities[child] ?? 0;
      if (priority < childPriority || (priority === childPriority && left <= (lefts[child] ?? 0))) break;
      this.#move(child, index);
      index = child;
    }
    this.#move(last, index);
  }

  #before(a: number, b: number): boolean {
    const difference = (this.#priority[a] ?? 0) - (this.#priority[b] ?? 0);
    return difference < 0 || (difference === 0 && (this.#left[a] ?? 0) < (this.#left[b] ?? 0));
  }

  #move(from: number, to: number): void {
    this.#priority[to] = this.#priority[from] ?? 0;
    this.#left[to] = this.#left[from] ?? 0;
    this.#bytes[to] = this.#bytes[from] ?? 0;
  }

  #grow(): void {
    const capacity = this.#left.length * 2;
    const priority = new Float64Array(capacity);
    priority.set(this.#priority);
    this.#priority = priority;
    this.#left = widen(this.#left, capacity);
    this.#bytes = widen(this.#bytes, capacity);
  }
}

function widen(array: Int32Array<ArrayBuffer>, capacity: number): Int32Array<ArrayBuffer> {
  const wider = new Int32Array(capacity);
  wider.set(array);
  return wider;
}

/** Token ids that grow at the end. */
export class TokenBuffer {
  #tokens = new Uint32Array(64);
  #count = 0;

  get count(): number {
    return this.#count;
  }

  push(token: number): void {
    if (this.#count === this.#tokens.length) {
      const wider = new Uint32Array(this.#count * 2);
      wider.set(this.#tokens);
      this.#tokens = wider;
    }
    this.#tokens[this.#count++] = token;
  }

  /** A copy of what was pushed. */
  take(): Uint32Array {
    return this.#tokens.slice(0, this.#count);
  }
}
