// The weight formats as the planner sees them: their numbers in a Program and the bytes they take once packed. The mirror of
// zig/kernels/format.zig, where the packed layout is described; a test compares the two.

import type { DType } from "../graph/dtype.ts";
import { pagePositions } from "./layout.ts";

interface PackedFormat {
  /** `Format` in zig/kernels/table.zig. */
  readonly number: number;
  /** Bits of a value's code; for float formats, of the value. */
  readonly bits: number;
  /** Columns that share a scale's float16 parts; columns are a multiple of it. */
  readonly superColumns: number;
  /** Bytes of a group's scales for each super-block: 16 rows of float16 d (and m), then 8-bit sub-scales. */
  readonly scaleBytes: number;
}

/** Rows that stand together. */
export const groupRows = 16;
const half = groupRows * 2;
/** Sub-scales of a super-block of 256 columns: a byte a row for every 16 or 32 columns. */
const per16 = groupRows * 16;
const per32 = groupRows * 8;

const formats: Readonly<Record<DType, PackedFormat>> = {
  F32: { number: 0, bits: 32, superColumns: 1, scaleBytes: 0 },
  F16: { number: 1, bits: 16, superColumns: 1, scaleBytes: 0 },
  BF16: { number: 2, bits: 16, superColumns: 1, scaleBytes: 0 },
  Q4_0: { number: 3, bits: 4, superColumns: 32, scaleBytes: half },
  Q4_1: { number: 4, bits: 4, superColumns: 32, scaleBytes: 2 * half },
  Q5_0: { number: 5, bits: 5, superColumns: 32, scaleBytes: half },
  Q5_1: { number: 6, bits: 5, superColumns: 32, scaleBytes: 2 * half },
  Q8_0: { number: 7, bits: 8, superColumns: 32, scaleBytes: half },
  Q2_K: { number: 8, bits: 2, superColumns: 256, scaleBytes: 2 * half + per16 },
  Q3_K: { number: 9, bits: 3, superColumns: 256, scaleBytes: half + per16 },
  Q4_K: { number: 10, bits: 4, superColumns: 256, scaleBytes: 2 * half + 2 * per32 },
  Q5_K: { number: 11, bits: 5, superColumns: 256, scaleBytes: 2 * half + 2 * per32 },
  Q6_K: { number: 12, bits: 6, superColumns: 256, scaleBytes: half + per16 },
  IQ4_NL: { number: 13, bits: 4, superColumns: 32, scaleBytes: half },
  IQ4_XS: { number: 14, bits: 4, superColumns: 256, scaleBytes: half + per32 },
};

/** Columns that share one scale of int8 activations. */
export const activationBlock = 32;

export function formatNumber(dtype: DType): number {
  return formats[dtype].number;
}

/** Bits of a value's code; for float formats, of the value. */
export function bitsOf(dtype: DType): number {
  return formats[dtype].bits;
}

/** Where a packed matrix's scales lie in what follows its codes; null of float formats, which have none. */
export interface PackedScales {
  /** From one super-block's to the next one's, in bytes. */
  readonly strideBytes: number;
  /** Of the float16 parts at its beginning. */
  readonly floatBytes: number;
}

export function packedScales(dtype: DType): PackedScales | null {
  const { scaleBytes } = formats[dtype];
  // What is no sub-scale is float16.
  return scaleBytes > 0 ? { strideBytes: scaleBytes, floatBytes: scaleBytes % per32 || scaleBytes } : null;
}

/**
 * What products take activations as: float32, int8, or `wide`, which is int16 at levels that multiply those and float32 at
 * the others.
 */
export type ActivationForm = "float" | "int8" | "wide";

/** The form of activations that products with this format take. */
export function activationForm(dtype: DType): ActivationForm {
  if (formats[dtype].superColumns > 1) return "int8";
  return dtype === "F32" ? "float" : "wide";
}

/** Bytes of a packed matrix: its values or codes, and its scales, each rounded up to 64. */
export function packedBytes(dtype: DType, rows: number, columns: number): { weight: number; scales: number } {
  const { bits, superColumns, scaleBytes } = formats[dtype];
  const groups = Math.ceil(rows / groupRows);
  // Bfloat16 columns stand in pairs.
  const stored = dtype === "BF16" ? columns + (columns % 2) : columns;
  const round = (bytes: number) => Math.ceil(bytes / 64) * 64;
  return {
    weight: round((groups * groupRows * stored * bits) / 8),
    scales: round(groups * (columns / superColumns) * scaleBytes),
  };
}

/** Formats in which keys and values can be kept. */
export type KvDType = "F16" | "Q8_0";

/** Dimensions of a position that share a scale: a head's width must be a multiple of it. */
export function kvBlock(dtype: KvDType): number {
  return formats[dtype].superColumns;
}

/** Bytes of one KV head's keys, or of its values, in a page: the values, and a float16 scale for each block. */
export function kvHeadBytes(dtype: KvDType, headWidth: number): number {
  const { bits, superColumns } = formats[dtype];
  const scales = superColumns > 1 ? headWidth / superColumns : 0;
  return pagePositions * ((headWidth * bits) / 8 + scales * 2);
}

/**
 * Bytes of a row of activations, whole cache lines. Int8: quants, a float32 scale for every 32, an int32 sum for every 16. Wide:
 * room for float32 values, of whole blocks.
 */
export function rowBytes(form: ActivationForm, columns: number): number {
  switch (form) {
    case "float":
      return Math.ceil((columns * 4) / 64) * 64;
    case "int8":
      return Math.ceil((columns + (columns / activationBlock) * 4 + (columns / 16) * 4) / 64) * 64;
    case "wide":
      return Math.ceil(columns / activationBlock) * activationBlock * 4;
  }
}
