// When JavaScript's collector ran on this thread (zig/collections.zig). Bun 1.4.5 has no "gc" entries for a PerformanceObserver
// and no event for it in bun:jsc; the heap's size falls after full collections only. Memory that was lent and that nobody holds
// is freed at the end of the next collection, whichever it is.

import type { Collections } from "../../profiler/javascript.ts";
import { type Library, lendMemory, type Pointer, viewMemory } from "./library.ts";

let watched: Collections | undefined;

/** This thread's; undefined if too many threads have asked. */
export function watchCollections({ symbols }: Library): Collections | undefined {
  if (watched) return watched;
  const watch = symbols.tinyai_collections_take();
  const counter = symbols.tinyai_collections_counter();
  if (!isPointer(watch) || !isPointer(counter)) return undefined;
  const bytes = viewMemory(watch, 16);
  const numbers = new Float64Array(bytes.buffer, 0, 2);
  const lend = () => {
    lendMemory(watch, 16, watch, counter);
  };
  lend();
  watched = {
    get count() {
      return numbers[0] ?? 0;
    },
    get endedNs() {
      return numbers[1] ?? 0;
    },
    lend,
  };
  return watched;
}

function isPointer(value: Pointer | bigint | null): value is Pointer {
  return typeof value === "number" && value !== 0;
}
