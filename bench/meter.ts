// Measures how fast this machine reads memory, by the library's own threads. A benchmark asks it between its own rounds, so that
// a busy or throttled machine is so for both.

import { openLibrary } from "../src/engine/library.ts";

/** What is read must be far larger than any cache, or the caches are measured. */
export const bandwidthBytes = 1 << 30;

export interface Meter {
  /** Reads `bandwidthBytes` once; GB/s. */
  measure(): number;
  close(): void;
}

/** @throws {Error} if there is not that much memory. */
export async function openMeter(threads: number): Promise<Meter> {
  const { symbols } = await openLibrary();
  const meter = symbols.tinyai_bandwidth_create(bandwidthBytes, threads);
  if (!meter) throw new Error(`no ${bandwidthBytes / 2 ** 30} GiB of memory to measure its bandwidth with; free some`);
  return {
    measure: () => bandwidthBytes / Number(symbols.tinyai_bandwidth_measure(meter)),
    close: () => symbols.tinyai_bandwidth_destroy(meter),
  };
}
