// Measures how fast this machine moves memory, by the library's own threads and with a level's vectors (zig/bandwidth.zig). It
// says what one measurement reached, not what that means.

import { EngineError } from "../errors.ts";
import type { Library } from "./library.ts";

/** In the order of `Traffic` in zig/kernels/table.zig. */
const traffics = ["read", "write", "copy"] as const;
export type Traffic = (typeof traffics)[number];

/** Working sets are multiples of it, and larger ones of `largePiece`. */
const smallPiece = 1024;
const largePiece = 1 << 20;

export interface BandwidthOptions {
  /** Index of the instruction-set level in `library.levels`. */
  readonly level: number;
  /** 1 to 64; the caller is one of them. */
  readonly threadCount: number;
  /** The largest working set of a thread. */
  readonly bytesMax: number;
}

export interface BandwidthMeter {
  /**
   * What all threads reach together, GB/s: each goes over `workingBytes` (rounded down to what can be measured) of its own until
   * `totalBytes` are moved. A copy counts what it reads and what it writes. The caller waits meanwhile.
   */
  measure(traffic: Traffic, workingBytes: number, totalBytes: number): number;
  close(): void;
}

/** The largest working set that can be measured and is not above `bytes`. */
export function measurableBytes(bytes: number): number {
  const piece = bytes < largePiece ? smallPiece : largePiece;
  return Math.max(smallPiece, Math.floor(bytes / piece) * piece);
}

/** @throws {EngineError} if memory or threads are refused, or a number is out of bounds. */
export function openBandwidth({ symbols }: Library, options: BandwidthOptions): BandwidthMeter {
  const { level, threadCount, bytesMax } = options;
  const handle = symbols.tinyai_bandwidth_create(bytesMax, level, threadCount);
  if (!handle || typeof handle === "bigint") {
    const wanted = `${threadCount} times ${Math.ceil(bytesMax / 2 ** 20)} MiB`;
    throw new EngineError(`bandwidth cannot be measured: the system refused threads or memory (${wanted}); free some`);
  }
  const moved = new BigUint64Array(2);
  return {
    measure: (traffic, workingBytes, totalBytes) => {
      const bytes = measurableBytes(workingBytes);
      if (symbols.tinyai_bandwidth_measure(handle, traffics.indexOf(traffic), bytes, totalBytes, moved) !== 1) {
        throw new EngineError(`bandwidth cannot be measured: ${workingBytes} or ${totalBytes} bytes are out of bounds`);
      }
      const [bytesMoved = 0n, time_ns = 1n] = moved;
      return Number(bytesMoved) / Number(time_ns);
    },
    close: () => symbols.tinyai_bandwidth_destroy(handle),
  };
}
