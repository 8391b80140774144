// Measures how fast this machine reads memory, by the library's own threads. A benchmark asks it between its own rounds, so that
// a busy or throttled machine is so for both.

import { openBandwidth } from "../src/engine/bandwidth.ts";
import { chooseLevel } from "../src/engine/cpu.ts";
import { openLibrary } from "../src/engine/library.ts";

/** What is read must be far larger than any cache, or the caches are measured. */
export const bandwidthBytes = 1 << 30;

export interface Meter {
  /** Reads `bandwidthBytes` once; GB/s. */
  measure(): number;
  close(): void;
}

/** @throws {EngineError} if there is not that much memory. */
export async function openMeter(threads: number): Promise<Meter> {
  const library = await openLibrary();
  const level = chooseLevel(library, undefined).index;
  const share = Math.ceil(bandwidthBytes / threads);
  const meter = openBandwidth(library, { level, threadCount: threads, bytesMax: share });
  return { measure: () => meter.measure("read", share, bandwidthBytes), close: () => meter.close() };
}
