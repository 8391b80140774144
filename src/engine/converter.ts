// The converter as TypeScript sees it: a list of tensors with their places in two files goes in, and the library's threads
// fill the second file from the first. It knows formats and places, no container.

import { EngineError } from "../errors.ts";
import type { DType } from "../graph/dtype.ts";
import { formatNumber } from "../plan/formats.ts";
import * as layout from "../plan/layout.ts";
import { Bell } from "./bell.ts";
import type { Library } from "./library.ts";

/** A tensor's values in the source file and their place in the target file. */
export interface Conversion {
  readonly sourceOffset: number;
  readonly sourceDtype: DType;
  readonly targetOffset: number;
  /** The same as the source's: the bytes are copied. */
  readonly targetDtype: DType;
  /** A multiple of both formats' blocks, at least 1. */
  readonly valueCount: number;
}

export interface ConverterOptions {
  readonly sourcePath: string;
  /** Must be there; bytes outside the tensors stay as they are. */
  readonly targetPath: string;
  /** 1 to 64. */
  readonly threadCount: number;
  /** Index of the instruction-set level in `library.levels`. */
  readonly level: number;
  /** Called about every 50 ms with the values converted so far. */
  readonly onProgress?: ((values: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Why a conversion failed, and at which tensor, if it was at one. */
export interface ConversionFailure {
  readonly reason: (typeof layout.failures)[number];
  readonly index: number;
}

const progressPeriod_ms = 50;

/**
 * Converts tensors. Gives the first failure, undefined if there was none; what was aborted throws the signal's reason, once
 * all threads have ended.
 */
export async function convertTensors(
  library: Library,
  conversions: readonly Conversion[],
  options: ConverterOptions,
): Promise<ConversionFailure | undefined> {
  const { symbols } = library;
  const { signal, onProgress } = options;
  const bell = Bell.take(library);
  const encoded = encodeConversions(conversions);
  const failure = new Uint32Array(1);
  const [source, target] = [options.sourcePath, options.targetPath].map((path) => Buffer.from(`${path}\0`, "utf8"));
  const handle = symbols.tinyai_converter_create(
    encoded,
    conversions.length,
    source ?? null,
    target ?? null,
    options.threadCount,
    options.level,
    bell.writeEnd,
    failure,
  );
  if (!handle) {
    bell.release();
    return { reason: layout.failures[failure[0] ?? 0] ?? "program", index: -1 };
  }
  if (typeof handle === "bigint") throw new EngineError("the converter's address is beyond 2^53");

  const stop = () => symbols.tinyai_converter_stop(handle);
  let thrown: { readonly error: unknown } | undefined;
  const report = () => {
    try {
      onProgress?.(Number(symbols.tinyai_converter_done(handle)));
    } catch (error) {
      // The caller's own error ends the conversion, and is what it fails with.
      thrown ??= { error };
      stop();
    }
  };
  const timer = onProgress ? setInterval(report, progressPeriod_ms) : undefined;
  signal?.addEventListener("abort", stop, { once: true });
  if (signal?.aborted) stop();
  await bell.until(() => symbols.tinyai_converter_ended(handle) === 1);
  clearInterval(timer);
  signal?.removeEventListener("abort", stop);
  const failed = BigInt(symbols.tinyai_converter_failure(handle));
  if (!thrown && failed === 0n && !signal?.aborted) report();
  symbols.tinyai_converter_destroy(handle);
  bell.release();
  if (thrown) throw thrown.error;
  signal?.throwIfAborted();
  if (failed === 0n) return undefined;
  return { reason: layout.failures[Number(failed & 0xffff_ffffn)] ?? "program", index: Number(failed >> 32n) };
}

function encodeConversions(conversions: readonly Conversion[]): Uint8Array {
  // An empty array has no address.
  const bytes = new Uint8Array(Math.max(1, conversions.length) * layout.Conversion.size);
  const view = new DataView(bytes.buffer);
  for (const [index, conversion] of conversions.entries()) {
    layout.Conversion.write(view, index * layout.Conversion.size, {
      source_offset: conversion.sourceOffset,
      target_offset: conversion.targetOffset,
      value_count: conversion.valueCount,
      source_format: formatNumber(conversion.sourceDtype),
      target_format: formatNumber(conversion.targetDtype),
    });
  }
  return bytes;
}
