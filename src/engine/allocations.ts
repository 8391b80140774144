// What the native library took and gave back (zig/allocations.zig): sums at any time, and sizes and lifetimes while watched.

import { Histogram } from "../../profiler/histogram.ts";
import type { Allocations } from "../../profiler/report.ts";
import type { Library } from "./library.ts";

/** All since the library was opened, of all models. */
export interface NativeMemory {
  readonly count: number;
  readonly frees: number;
  readonly allocatedBytes: number;
  readonly freedBytes: number;
  /** Heap and mapped memory. Not in it: address space that is only reserved, threads' stacks, and files mapped for reading. */
  readonly liveBytes: number;
  /** Address space of keys and values, activations, events, records and candidates. What was written of it is in the process's resident memory. */
  readonly reservedBytes: number;
  /** Changes that watchers did not see because they drained too late. */
  readonly lost: number;
}

const countWords = 7;
const changeWords = 4;
const changesPerDrain = 256;

export function nativeMemory({ symbols }: Library): NativeMemory {
  const words = new BigUint64Array(countWords);
  symbols.tinyai_allocations_read(words);
  const [count, frees, allocatedBytes, freedBytes, liveBytes, reservedBytes, lost] = Array.from(words, Number);
  return {
    count: count ?? 0,
    frees: frees ?? 0,
    allocatedBytes: allocatedBytes ?? 0,
    freedBytes: freedBytes ?? 0,
    liveBytes: liveBytes ?? 0,
    reservedBytes: reservedBytes ?? 0,
    lost: lost ?? 0,
  };
}

/** Watches that run at once; each hears of every change. */
const watches = new Set<AllocationWatch>();

/**
 * Sizes and lifetimes from its making to `stop`. Changes wait in the library, 1,024 at most, so `drain` should be called now and
 * then: a model takes and gives back about 60 pieces when it is loaded and closed, and none while it generates.
 */
export class AllocationWatch {
  readonly #library: Library;
  readonly #before: NativeMemory;
  readonly #sizes = new Histogram("bytes");
  readonly #lifetimes = new Histogram("ns");
  #peakLiveBytes: number;

  constructor(library: Library) {
    this.#library = library;
    if (watches.size === 0) library.symbols.tinyai_allocations_watch(1);
    else drainAll(library);
    this.#before = nativeMemory(library);
    this.#peakLiveBytes = this.#before.liveBytes;
    watches.add(this);
  }

  /** Takes over what has happened. */
  drain(): void {
    drainAll(this.#library);
  }

  /** What happened so far. Sizes and lifetimes are of fewer pieces than were counted if some were lost. */
  result(): Allocations {
    this.drain();
    const before = this.#before;
    const now = nativeMemory(this.#library);
    return {
      count: now.count - before.count,
      frees: now.frees - before.frees,
      allocatedBytes: now.allocatedBytes - before.allocatedBytes,
      freedBytes: now.freedBytes - before.freedBytes,
      liveBytes: now.liveBytes,
      peakLiveBytes: Math.max(this.#peakLiveBytes, now.liveBytes),
      sizes: this.#sizes.row({ histogram: true }),
      lifetimes: this.#lifetimes.row({ histogram: true }),
    };
  }

  /** Ends watching; the last one's end makes the library stop keeping changes. */
  stop(): Allocations {
    const result = this.result();
    watches.delete(this);
    if (watches.size === 0) this.#library.symbols.tinyai_allocations_watch(0);
    return result;
  }

  /** One change, as the library tells it. */
  take(bytes: number, allocatedNs: number, freedNs: number, liveBytes: number): void {
    if (freedNs === 0) this.#sizes.record(bytes);
    else this.#lifetimes.record(freedNs - allocatedNs);
    this.#peakLiveBytes = Math.max(this.#peakLiveBytes, liveBytes);
  }
}

function drainAll({ symbols }: Library): void {
  const words = new BigUint64Array(changeWords * changesPerDrain);
  for (;;) {
    const count = symbols.tinyai_allocations_drain(words, changesPerDrain);
    for (let change = 0; change < count; change++) {
      const at = change * changeWords;
      const [bytes, allocatedNs, freedNs, liveBytes] = Array.from(words.subarray(at, at + changeWords), Number);
      for (const watch of watches) watch.take(bytes ?? 0, allocatedNs ?? 0, freedNs ?? 0, liveBytes ?? 0);
    }
    if (count < changesPerDrain) return;
  }
}
