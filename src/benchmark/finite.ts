// Whether the weights of a model file are finite: of float formats every value, of others the float16 scales, whose codes are whole
// numbers. It reads a piece at a time.

import { type DType, dtypeBlocks, type ModelFile, readBytes, type TensorEntry } from "../model/file.ts";
import { packedBytes, packedScales } from "../plan/formats.ts";

/** Bytes read at a time; others get a turn in between. */
const pieceBytes = 4 << 20;

/** Float16 values of a block as files have it (`dtypeBlocks`), by the bytes at which they stand. */
const blockScales: Readonly<Partial<Record<DType, readonly number[]>>> = {
  Q4_0: [0],
  Q4_1: [0, 2],
  Q5_0: [0],
  Q5_1: [0, 2],
  Q8_0: [0],
  Q2_K: [80, 82],
  Q3_K: [108],
  Q4_K: [0, 2],
  Q5_K: [0, 2],
  Q6_K: [208],
  IQ4_NL: [0],
  IQ4_XS: [0],
};

/** Exponents of all ones: infinities, and what is no number. */
const exponents = { F32: 0x7f80_0000, F16: 0x7c00, BF16: 0x7f80 } as const;

/** Where values stand: from `begin` to `end`, in units of `strideBytes`, of which those at `places` count. */
interface Values {
  readonly dtype: keyof typeof exponents;
  readonly begin: number;
  readonly end: number;
  readonly strideBytes: number;
  readonly places: readonly number[];
}

/**
 * The first tensor that holds a value which is not finite; undefined: all are.
 * @param onProgress is called with the bytes that were looked at.
 * @throws {ModelFileError} if the file cannot be read. @throws the signal's reason if it is aborted.
 */
export async function findNotFinite(
  file: ModelFile,
  signal?: AbortSignal,
  onProgress?: (bytes: number) => void,
): Promise<string | undefined> {
  let done = 0;
  for (const tensor of file.tensors.values()) {
    const { begin, end, strideBytes, places, dtype } = valuesOf(file, tensor);
    const step = Math.max(1, Math.floor(pieceBytes / strideBytes)) * strideBytes;
    for (let at = begin; at < end; at += step) {
      signal?.throwIfAborted();
      const place = { byteOffset: at, byteLength: Math.min(step, end - at) };
      const bytes = readBytes(file, place, `tensor ${tensor.name}`);
      if (!areFinite(bytes, dtype, strideBytes, places)) return tensor.name;
      await new Promise((resolve) => setImmediate(resolve));
      onProgress?.(done + at + place.byteLength - tensor.byteOffset);
    }
    done += tensor.byteLength;
    onProgress?.(done);
  }
  return undefined;
}

function valuesOf({ packedWeights }: ModelFile, { dtype, shape, byteOffset, byteLength }: TensorEntry): Values {
  const end = byteOffset + byteLength;
  if (dtype === "F32" || dtype === "F16" || dtype === "BF16") {
    return { dtype, begin: byteOffset, end, strideBytes: dtype === "F32" ? 4 : 2, places: [0] };
  }
  const scales = packedScales(dtype);
  if (!packedWeights || byteOffset < packedWeights.offset || !scales) {
    const { bytes } = dtypeBlocks[dtype];
    return { dtype: "F16", begin: byteOffset, end, strideBytes: bytes, places: blockScales[dtype] ?? [] };
  }
  const [columns = 0, rows = 1] = shape;
  const { strideBytes, floatBytes } = scales;
  const begin = byteOffset + packedBytes(dtype, rows, columns).weight;
  // What is left at the end to whole lines is no whole unit.
  const units = Math.floor((end - begin) / strideBytes);
  const places = Array.from({ length: floatBytes / 2 }, (_, index) => 2 * index);
  return { dtype: "F16", begin, end: begin + units * strideBytes, strideBytes, places };
}

function areFinite(
  bytes: Uint8Array<ArrayBuffer>,
  dtype: keyof typeof exponents,
  strideBytes: number,
  places: readonly number[],
): boolean {
  const exponent = exponents[dtype];
  // Bytes of a copy begin at a multiple of eight, and every block has an even number of them.
  const words =
    dtype === "F32" ? new Uint32Array(bytes.buffer, bytes.byteOffset) : new Uint16Array(bytes.buffer, bytes.byteOffset);
  const stride = strideBytes / words.BYTES_PER_ELEMENT;
  for (const place of places) {
    for (let at = place / words.BYTES_PER_ELEMENT; at < words.length; at += stride) {
      // A bitwise "and" of 32 bits; the exponent has its highest one off.
      if (((words[at] ?? 0) & exponent) === exponent) return false;
    }
  }
  return true;
}
