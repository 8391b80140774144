// A loaded model's weights in the layout that kernels read, kept as a file: what lies where, and whether it had to be made.

import { statSync } from "node:fs";
import { EngineError } from "../errors.ts";
import type { DType } from "../graph/dtype.ts";
import type { ModelParts } from "../loaded-model.ts";
import { readHead } from "../model/prepared.ts";
import { bitsOf, groupRows } from "../plan/formats.ts";
import { findPrepared, preparedPath, startPreparing, worthPreparingBytes } from "../prepared.ts";

/** A matrix as kernels read it. */
export interface TensorLayout {
  readonly name: string;
  readonly dtype: DType;
  readonly rows: number;
  readonly columns: number;
  /** Where its values and scales begin in the weights, bytes; a multiple of 64. */
  readonly offset: number;
  readonly bytes: number;
  /** In words: rows and columns that a cache line holds, and where scales lie. */
  readonly layout: string;
}

/** What `model.optimizeMemoryLayout` found or did. */
export interface MemoryLayout {
  /** Whether nothing was left to do: the model is mapped from a prepared file, or there is one. */
  readonly already: boolean;
  /** The prepared file; undefined: the model is so small that opening it packs it in a moment, and no file is kept. */
  readonly path: string | undefined;
  /** Bytes written to the file by this call. */
  readonly bytesMoved: number;
  /** Time that the call took, ms. */
  readonly durationMs: number;
  /** The matrices, in their order in memory. */
  readonly tensors: readonly TensorLayout[];
}

/**
 * Makes the prepared file of a model that was packed while it was loaded, if there is none.
 * @throws {EngineError} if the model is closed, its file has changed since it was opened, or the copy cannot be written.
 */
export async function optimizeLayout(parts: ModelParts): Promise<MemoryLayout> {
  const { engine, file, plan, stamp } = parts;
  if (engine.closed) throw new EngineError("the model is closed; load it again");
  const startMs = performance.now();
  const done = (already: boolean, path: string | undefined, bytesMoved: number): MemoryLayout => {
    const durationMs = performance.now() - startMs;
    return { already, path, bytesMoved, durationMs, tensors: layoutsOf(parts) };
  };
  const isKept = stamp !== undefined && stamp.bytes >= worthPreparingBytes;
  // Of an earlier opening; then nothing may come between looking at what this one has begun and beginning it.
  const found = isKept && (await findPrepared(parts.path, stamp, readHead)) !== undefined;
  while (parts.preparing.state.state === "making") await parts.preparing.done;
  const before = parts.preparing.state;
  if (before.state === "used" || before.state === "made") return done(true, before.path, 0);
  if (!isKept) return done(true, undefined, 0);
  const path = preparedPath(parts.path);
  if (found) return done(true, path, 0);
  parts.preparing = startPreparing(path, { file, stamp, plan, weights: engine.weights }, undefined);
  await parts.preparing.done;
  const { state } = parts.preparing;
  if (state.state === "made") return done(false, path, statSync(path).size);
  throw new EngineError(`${path}: was not made${state.state === "none" ? `: ${state.reason}` : ""}`);
}

function layoutsOf({ plan }: ModelParts): TensorLayout[] {
  return plan.matrices
    .map(({ name, dtype, rows, columns, offset, bytes }) => {
      return { name, dtype, rows, columns, offset, bytes, layout: layoutOf(dtype) };
    })
    .sort((a, b) => a.offset - b.offset);
}

/** The layout that zig/kernels/format.zig describes. */
function layoutOf(dtype: DType): string {
  const bits = bitsOf(dtype);
  const group = `groups of ${groupRows} rows`;
  if (dtype === "BF16") return `${group}; 64 bytes hold two neighbouring columns, row by row`;
  if (bits === 32) return `${group}; 64 bytes hold a column`;
  if (bits === 16) return `${group}; 64 bytes hold two columns, one after the other`;
  const planes = bits === 8 ? "" : `; codes of ${bits} bits share bytes with those of later columns`;
  return `${group}; a byte for each of 16 rows by 4 columns in 64 bytes${planes}; scales apart`;
}
