// Places buffers that live at different times in the same memory: each buffer gets an offset in one arena so that no two
// whose lifetimes overlap share a byte.

/** A buffer and the stretch of time it is needed, both ends included. */
export interface Lifetime {
  readonly bytes: number;
  readonly first: number;
  readonly last: number;
}

export interface ArenaPlan {
  /** Byte offset of each buffer, in the order given; multiples of `alignment`. */
  readonly offsets: readonly number[];
  readonly bytes: number;
}

/**
 * Greedy by size (Pisarchyk and Lee 2020, "Efficient Memory Management for Deep Neural Net Inference"): the largest buffer
 * first, each at the lowest offset that is free during its whole lifetime.
 */
export function planArena(lifetimes: readonly Lifetime[], alignment: number): ArenaPlan {
  const round = (bytes: number) => Math.ceil(bytes / alignment) * alignment;
  const order = lifetimes.map((_, index) => index).sort((a, b) => sizeOf(b) - sizeOf(a) || a - b);
  const offsets = new Array<number>(lifetimes.length).fill(0);
  const placed: { offset: number; end: number; first: number; last: number }[] = [];
  let bytes = 0;

  function sizeOf(index: number): number {
    return lifetimes[index]?.bytes ?? 0;
  }

  for (const index of order) {
    const lifetime = lifetimes[index];
    if (!lifetime) continue;
    const size = round(lifetime.bytes);
    const neighbours = placed
      .filter((other) => other.first <= lifetime.last && lifetime.first <= other.last)
      .sort((a, b) => a.offset - b.offset);
    let offset = 0;
    for (const other of neighbours) {
      if (offset + size <= other.offset) break;
      offset = Math.max(offset, other.end);
    }
    offsets[index] = offset;
    placed.push({ offset, end: offset + size, first: lifetime.first, last: lifetime.last });
    bytes = Math.max(bytes, offset + size);
  }
  return { offsets, bytes };
}
