// Reads the safetensors container: the directory of a file's tensors. It checks every offset and length against the file's size
// before use and reads no weights. It knows nothing of any model.
//
// The layout is that of the format's own description: the header's length (u64, little endian), the header (JSON: for each
// tensor's name its dtype, its shape, outermost first, and where it begins and ends behind the header), then the tensors, which
// fill the rest of the file without a gap.

import { closeSync, readSync } from "node:fs";
import { isRecord } from "../check.ts";
import { ModelFileError } from "../errors.ts";
import { printable } from "./file.ts";
import { openRegularFile, reason } from "./regular-file.ts";

/** As the format's own reader bounds a header, in bytes. */
const headerBytesMax = 100_000_000;
/** No model here has tensors of more dimensions. */
const dimensionsMax = 8;

/** Bits of a value of each type that the format knows. */
const dtypeBits: Readonly<Record<string, number>> = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
};

/** A tensor as the file has it. */
export interface SafetensorsEntry {
  readonly name: string;
  readonly dtype: string;
  /** Outermost first, as PyTorch has it: a matrix is `[rows, columns]`. */
  readonly shape: readonly number[];
  /** From the file's start. */
  readonly byteOffset: number;
  readonly byteLength: number;
}

export interface SafetensorsFile {
  readonly path: string;
  readonly byteLength: number;
  /** By name. Together they fill the file behind the header, none overlapping another. */
  readonly tensors: ReadonlyMap<string, SafetensorsEntry>;
}

/**
 * Reads a safetensors file's header by ordinary reads.
 * @throws {ModelFileError} naming the file and the field, if it cannot be read or anything in it is out of bounds.
 */
export function openSafetensors(path: string): SafetensorsFile {
  const { file, byteLength } = openRegularFile(path, "safetensors");
  try {
    const { json, dataOffset } = readHeader(path, file, byteLength);
    const tensors = new Map<string, SafetensorsEntry>();
    for (const [name, value] of Object.entries(json)) {
      if (name !== "__metadata__") tensors.set(name, readEntry(path, name, value, dataOffset));
    }
    checkPlaces(path, tensors, dataOffset, byteLength);
    return { path, byteLength, tensors };
  } finally {
    closeSync(file);
  }
}

function readHeader(path: string, file: number, byteLength: number) {
  const fail = (field: string, problem: string, options?: ErrorOptions): never => {
    throw new ModelFileError(path, field, problem, options);
  };
  const read = (offset: number, count: number): Uint8Array => {
    const bytes = new Uint8Array(count);
    try {
      for (let done = 0; done < count; ) {
        const got = readSync(file, bytes, done, count - done, offset + done);
        if (got === 0) fail("file", `ended at byte ${offset + done} while it was read: it was cut short`);
        done += got;
      }
    } catch (cause) {
      if (cause instanceof ModelFileError) throw cause;
      fail("file", `cannot be read: ${reason(cause)}`, { cause });
    }
    return bytes;
  };
  if (byteLength < 8) fail("header.length", "is cut short: this is not a safetensors file");
  const wide = new DataView(read(0, 8).buffer).getBigUint64(0, true);
  if (wide > BigInt(byteLength - 8)) {
    const problem = `is ${grouped(wide)}, but ${grouped(byteLength - 8)} bytes are left in the file`;
    fail("header.length", `${problem}: it is cut short, or not a safetensors file`);
  }
  if (wide > headerBytesMax)
    fail("header.length", `is ${grouped(wide)}; at most ${grouped(headerBytesMax)} are expected`);
  const length = Number(wide);
  let json: unknown;
  try {
    json = JSON.parse(strictUtf8.decode(read(8, length)));
  } catch (cause) {
    if (cause instanceof ModelFileError) throw cause;
    fail("header", "is not JSON in UTF-8: the file is damaged, or not a safetensors file", { cause });
  }
  if (!isRecord(json)) return fail("header", "is not an object: the file is damaged");
  return { json, dataOffset: 8 + length };
}

function readEntry(path: string, name: string, value: unknown, dataOffset: number): SafetensorsEntry {
  const fail = (problem: string): never => {
    throw new ModelFileError(path, `tensor ${printable(name)}`, problem);
  };
  if (!isRecord(value)) return fail("has no entry: the file is damaged");
  const { dtype, shape, data_offsets: offsets } = value;
  const bits = typeof dtype === "string" && Object.hasOwn(dtypeBits, dtype) ? dtypeBits[dtype] : undefined;
  if (typeof dtype !== "string" || bits === undefined) {
    return fail(`has the type ${printable(String(dtype))}, which the format does not know`);
  }
  if (!isSizes(shape) || shape.length > dimensionsMax) {
    return fail(`has a shape that is none; at most ${dimensionsMax} whole numbers are expected`);
  }
  if (!isSizes(offsets) || offsets.length !== 2) return fail("has no place; where it begins and ends is expected");
  const [begin = 0, end = 0] = offsets;
  const byteLength = (shape.reduce((product, size) => product * size, 1) * bits) / 8;
  if (end - begin !== byteLength) {
    return fail(
      `takes the bytes from ${grouped(begin)} to ${grouped(end)}; [${shape.join(", ")}] in ${dtype} takes ${grouped(byteLength)}`,
    );
  }
  return { name, dtype, shape, byteOffset: dataOffset + begin, byteLength };
}

/** One after another from the header to the file's end, which says that they are inside, overlap nowhere, and hide nothing. */
function checkPlaces(
  path: string,
  tensors: ReadonlyMap<string, SafetensorsEntry>,
  dataOffset: number,
  byteLength: number,
): void {
  let end = dataOffset;
  const ascending = [...tensors.values()].sort((a, b) => a.byteOffset - b.byteOffset || a.byteLength - b.byteLength);
  for (const tensor of ascending) {
    const field = `tensor ${printable(tensor.name)}`;
    if (tensor.byteOffset !== end) {
      const where = `begins at byte ${grouped(tensor.byteOffset)} and the one before it ends at ${grouped(end)}`;
      throw new ModelFileError(path, field, `${where}: the file is damaged`);
    }
    end += tensor.byteLength;
    if (end > byteLength) {
      const where = `ends at byte ${grouped(end)} but the file has ${grouped(byteLength)}`;
      throw new ModelFileError(path, field, `${where}: the download is cut short; get the file again`);
    }
  }
  if (end !== byteLength) {
    const problem = `has ${grouped(byteLength)} bytes, and its tensors end at ${grouped(end)}: it is damaged`;
    throw new ModelFileError(path, "file", problem);
  }
}

function isSizes(value: unknown): value is readonly number[] {
  return Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && size >= 0);
}

function grouped(value: number | bigint): string {
  return value.toLocaleString("en-US");
}

const strictUtf8 = new TextDecoder("utf-8", { fatal: true });
