// Writes safetensors files for tests, from the format's description alone: eight bytes with the header's length, the header in
// JSON, the tensors one after another. It checks nothing: wrong files are its use too.

import type { DType } from "../../src/model/file.ts";
import { encodeTensor } from "./formats.ts";

/** A tensor as PyTorch has it: `shape` is outermost first. */
export interface WrittenTensor {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

/** A tensor's entry in the header. */
export interface HeaderEntry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

/** A header as a test may change it, and the bytes that it describes. */
export interface SafetensorsParts {
  readonly header: Record<string, HeaderEntry | Record<string, string>>;
  readonly data: Uint8Array;
}

/** Values as a tensor of one of the formats that safetensors shares with GGUF. */
export function writtenTensor(
  dtype: "F32" | "F16" | "BF16",
  shape: readonly number[],
  values: ArrayLike<number>,
): WrittenTensor {
  return { dtype, shape, bytes: encodeTensor(dtype satisfies DType, values) };
}

export function safetensorsParts(tensors: ReadonlyMap<string, WrittenTensor>): SafetensorsParts {
  const header: SafetensorsParts["header"] = { __metadata__: { format: "pt" } };
  let offset = 0;
  for (const [name, { dtype, shape, bytes }] of tensors) {
    header[name] = { dtype, shape: [...shape], data_offsets: [offset, offset + bytes.length] };
    offset += bytes.length;
  }
  return { header, data: Buffer.concat([...tensors.values()].map(({ bytes }) => bytes)) };
}

/** The file; the header is padded with spaces so that tensors begin at a multiple of 8, as the format's own writer does. */
export function safetensorsBytes({ header, data }: SafetensorsParts): Uint8Array {
  const json = Buffer.from(JSON.stringify(header));
  const padded = Buffer.alloc(Math.ceil(json.length / 8) * 8, " ");
  json.copy(padded);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  return Buffer.concat([length, padded, data]);
}
