// Writes the header of a GGUF file, version 3, for the tensors of another file in other formats: the same metadata, byte for
// byte but for the keys that change, the same tensors in the same order, at the same alignment. It writes no weights. The
// layout is described in gguf.ts.

import { type DType, dtypeBlocks, type TensorEntry } from "./file.ts";
import { type GgufFile, readAlignment, tensorTypeNumber } from "./gguf.ts";

/** A header and where the tensors behind it belong. */
export interface GgufHeader {
  /** Up to the first tensor. */
  readonly bytes: Uint8Array;
  /** In the source file's order. */
  readonly tensors: readonly TensorEntry[];
  /** The whole file's size. */
  readonly byteLength: number;
}

/** What `writeGgufHeader` changes. */
export interface GgufChanges {
  /** Each tensor's format by its name; tensors that are not in it keep theirs. */
  readonly dtypes: ReadonlyMap<string, DType>;
  /** Metadata of type uint32 that is set, or added behind the others. */
  readonly numbers: Readonly<Record<string, number>>;
  /** Keys that are left out. */
  readonly without: readonly string[];
}

/** GGUF's number of the metadata type uint32. */
const uint32Type = 4;
const version = 3;

/**
 * The header of `source` with `changes`. `read` gives the source file's bytes at a place.
 * A new format's block must divide the tensor's rows.
 */
export function writeGgufHeader(
  source: GgufFile,
  changes: GgufChanges,
  read: (byteOffset: number, byteLength: number) => Uint8Array,
): GgufHeader {
  const alignment = readAlignment(source.metadata);
  const added = Object.keys(changes.numbers).filter((key) => !source.metadataPlaces.has(key));
  const kept = [...source.metadataPlaces].filter(([key]) => !changes.without.includes(key));
  const parts = [
    concatenate([
      new TextEncoder().encode("GGUF"),
      uint32(version),
      uint64(source.tensors.size),
      uint64(kept.length + added.length),
    ]),
  ];
  for (const [key, { byteOffset, byteLength }] of kept) {
    const number = changes.numbers[key];
    parts.push(number === undefined ? read(byteOffset, byteLength) : metadataNumber(key, number));
  }
  for (const key of added) parts.push(metadataNumber(key, changes.numbers[key] ?? 0));
  const places: TensorEntry[] = [];
  let offset = 0;
  for (const { name, shape, dtype: before } of source.tensors.values()) {
    const dtype = changes.dtypes.get(name) ?? before;
    const values = shape.reduce((product, size) => product * size, 1);
    const byteLength = (values / dtypeBlocks[dtype].columns) * dtypeBlocks[dtype].bytes;
    places.push({ name, dtype, shape, byteOffset: offset, byteLength });
    parts.push(text(name), uint32(shape.length), ...shape.map(uint64), uint32(tensorTypeNumber(dtype)), uint64(offset));
    offset = alignUp(offset + byteLength, alignment);
  }
  const header = concatenate(parts);
  const bytes = new Uint8Array(alignUp(header.length, alignment));
  bytes.set(header);
  const tensors = places.map((place) => ({ ...place, byteOffset: bytes.length + place.byteOffset }));
  return { bytes, tensors, byteLength: bytes.length + offset };
}

function metadataNumber(key: string, value: number): Uint8Array {
  return concatenate([text(key), uint32(uint32Type), uint32(value)]);
}

function text(value: string): Uint8Array {
  const bytes = new TextEncoder().encode(value);
  return concatenate([uint64(bytes.length), bytes]);
}

function uint32(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  return bytes;
}

function uint64(value: number): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(value), true);
  return bytes;
}

function concatenate(parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    bytes.set(part, offset);
    offset += part.length;
  }
  return bytes;
}

function alignUp(value: number, alignment: number): number {
  return Math.ceil(value / alignment) * alignment;
}
