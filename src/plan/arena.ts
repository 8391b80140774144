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
  /** By offset. */
  const placed: { readonly offset: number; readonly end: number; readonly first: number; readonly last: number }[] = [];
  let bytes = 0;

  function sizeOf(index: number): number {
    return lifetimes[index]?.bytes ?? 0;
  }

  // Written for a cold start: a model's hundreds of buffers are placed once, before anything is compiled.
  for (const index of order) {
    const lifetime = lifetimes[index];
    if (!lifetime) continue;
    const { first, last } = lifetime;
    const size = round(lifetime.bytes);
    let offset = 0;
    for (let at = 0; at < placed.length; at++) {
      const other = placed[at];
      if (!other || other.first > last || other.last < first) continue;
      if (offset + size <= other.offset) break;
      if (other.end > offset) offset = other.end;
    }
    offsets[index] = offset;
    let place = placed.length;
    while (place > 0 && (placed[place - 1]?.offset ?? 0) > offset) place--;
    placed.splice(place, 0, { offset, end: offset + size, first, last });
    bytes = Math.max(bytes, offset + size);
  }
  return { offsets, bytes };
}
