// Reads the GGUF container, versions 2 and 3: header, metadata, tensor directory. It checks every offset and count against
// the file's size before use and reads no weights. It knows nothing of any model's architecture.
//
// The layout is that of ggml's docs/gguf.md. All numbers are little endian:
//   magic "GGUF", version u32, tensor count u64, metadata count u64,
//   metadata: key (string), type u32, value; a string is a length u64 and that many bytes; an array is the elements' type
//   u32, a count u64 and the elements,
//   tensor directory: name (string), dimensions u32, one u64 for each, type u32, offset u64 from the start of the data,
//   padding to general.alignment, then the data.

import { closeSync, readSync } from "node:fs";
import { ModelFileError } from "../errors.ts";
import {
  type BytePlace,
  type DType,
  dtypeBlocks,
  Metadata,
  type MetadataEntry,
  type MetadataValue,
  type ModelFile,
  type NumericArray,
  printable,
  type ScalarType,
  type StringBytes,
  StringTable,
  type TensorEntry,
} from "./file.ts";
import { openRegularFile, reason } from "./regular-file.ts";

/** The header is read in pieces of at least this size. A model without a vocabulary has a header of some 20 KB. */
const chunkBytes = 256 * 1024;
/** Memory for the header is reserved in units of this; what is not read into it costs no physical memory. */
const reserveBytes = 16 * 1024 * 1024;
/** Headers end before this. Gemma's 262,144 tokens with their scores make 6 MB; ten million tokens would fit. */
const headerBytesMax = 256 * 1024 * 1024;
/** One string's bytes at most. Keys and tensor names are far shorter; the longest values are chat templates of some 20 KB. */
const stringBytesMax = 16 * 1024 * 1024;
/** docs/gguf.md: a key has at most 2^16 − 1 bytes. */
const keyBytesMax = 65_535;
/** docs/gguf.md: a tensor's name has at most 64 bytes. */
const tensorNameBytesMax = 64;
/** docs/gguf.md: general.alignment is a multiple of 8, and 32 where the file does not say. */
const alignmentDefault = 32;
const alignmentMin = 8;
/** Huge pages have 2 MiB; nothing that aligns data has a use for more. */
const alignmentMax = 2 * 1024 * 1024;
const dimensionsMax = 4;
/** The least a metadata entry takes: key of one byte (9), type (4), value of one byte. */
const metadataEntryBytesMin = 14;
/** The least a tensor's entry takes: name of one byte (9), dimensions (4), one dimension (8), type (4), offset (8). */
const tensorEntryBytesMin = 33;

/** ggml's numbers of tensor types. Those that `dtypeBlocks` lacks are here to be named in the error. */
const tensorTypeNames: ReadonlyMap<number, string> = new Map([
  [0, "F32"],
  [1, "F16"],
  [2, "Q4_0"],
  [3, "Q4_1"],
  [4, "Q4_2"],
  [5, "Q4_3"],
  [6, "Q5_0"],
  [7, "Q5_1"],
  [8, "Q8_0"],
  [9, "Q8_1"],
  [10, "Q2_K"],
  [11, "Q3_K"],
  [12, "Q4_K"],
  [13, "Q5_K"],
  [14, "Q6_K"],
  [15, "Q8_K"],
  [16, "IQ2_XXS"],
  [17, "IQ2_XS"],
  [18, "IQ3_XXS"],
  [19, "IQ1_S"],
  [20, "IQ4_NL"],
  [21, "IQ3_S"],
  [22, "IQ2_S"],
  [23, "IQ4_XS"],
  [24, "I8"],
  [25, "I16"],
  [26, "I32"],
  [27, "I64"],
  [28, "F64"],
  [29, "IQ1_M"],
  [30, "BF16"],
  [31, "Q4_0_4_4"],
  [32, "Q4_0_4_8"],
  [33, "Q4_0_8_8"],
  [34, "TQ1_0"],
  [35, "TQ2_0"],
  [36, "IQ4_NL_4_4"],
  [37, "IQ4_NL_4_8"],
  [38, "IQ4_NL_8_8"],
  [39, "MXFP4"],
  [40, "NVFP4"],
  [41, "Q1_0"],
]);

/** Metadata value types in the order of their numbers; 9 is the array. */
const valueTypes: readonly (ScalarType | "array")[] = [
  "uint8",
  "int8",
  "uint16",
  "int16",
  "uint32",
  "int32",
  "float32",
  "bool",
  "string",
  "array",
  "uint64",
  "int64",
  "float64",
];

/** The bytes a value takes; for a string the least it takes, its length. */
const valueBytes: Readonly<Record<ScalarType, number>> = {
  uint8: 1,
  int8: 1,
  uint16: 2,
  int16: 2,
  uint32: 4,
  int32: 4,
  float32: 4,
  bool: 1,
  string: 8,
  uint64: 8,
  int64: 8,
  float64: 8,
};

/** What files that are not GGUF begin with, so that the error can say what they are. */
const otherFormats: readonly (readonly [start: string, name: string])[] = [
  ["FUGG", "a big-endian GGUF file; TinyAI reads little-endian ones"],
  ["lmgg", "a GGML file, the format before GGUF; convert the model to GGUF"],
  ["tjgg", "a GGJT file, a format before GGUF; convert the model to GGUF"],
  ["fmgg", "a GGMF file, a format before GGUF; convert the model to GGUF"],
  ["PK\x03\x04", "a ZIP archive, perhaps a PyTorch checkpoint; a GGUF file is expected"],
  ["version https://git-lfs", "a Git LFS pointer, not the model itself; run git lfs pull"],
  ["<!DOCTYPE", "a web page: the download gave an answer for people instead of the file"],
  ["<!doctype", "a web page: the download gave an answer for people instead of the file"],
  ["<html", "a web page: the download gave an answer for people instead of the file"],
];

/** Safetensors have no magic: a length of eight bytes, then JSON. */
const safetensors = ["", "a safetensors file; give the path of the folder that it lies in"] as const;

/** An opened GGUF file. */
export interface GgufFile extends ModelFile {
  readonly format: "gguf";
  /** Where each metadata entry lies in the file, its key included, for those that copy it as it is. */
  readonly metadataPlaces: ReadonlyMap<string, BytePlace>;
}

/**
 * Opens a GGUF file (version 2 or 3), reads its header by ordinary reads, and closes it again. What comes back has every
 * tensor inside the file, none overlapping another, and each as long as its shape and dtype say.
 * @throws {ModelFileError} naming the file and the field, if it cannot be read or anything in it is out of bounds.
 */
export function openGguf(path: string): GgufFile {
  const { file, byteLength } = openRegularFile(path, "GGUF");
  try {
    return readModelFile(new HeaderReader(path, file, byteLength));
  } finally {
    closeSync(file);
  }
}

function readModelFile(reader: HeaderReader): GgufFile {
  const version = readVersion(reader);
  const tensorCount = readCount(reader, "header.tensor_count", tensorEntryBytesMin);
  const metadataCount = readCount(reader, "header.metadata_count", metadataEntryBytesMin);
  const entries = new Map<string, MetadataEntry>();
  const metadataPlaces = new Map<string, BytePlace>();
  for (let index = 0; index < metadataCount; index++) {
    const byteOffset = reader.position;
    const key = readMetadataEntry(reader, index, metadataCount, entries);
    metadataPlaces.set(key, { byteOffset, byteLength: reader.position - byteOffset });
  }
  const metadata = new Metadata(reader.path, entries);
  refuseSplit(metadata);
  const alignment = readAlignment(metadata);
  const places: TensorPlace[] = [];
  const names = new Set<string>();
  for (let index = 0; index < tensorCount; index++) places.push(readTensorPlace(reader, index, names, alignment));
  const dataOffset = Math.ceil(reader.position / alignment) * alignment;
  const tensors = new Map<string, TensorEntry>();
  for (const { offset, ...place } of places) tensors.set(place.name, { ...place, byteOffset: dataOffset + offset });
  checkPlaces(reader, tensors);
  const { path, byteLength } = reader;
  return { path, byteLength, format: "gguf", version, metadata, metadataPlaces, tensors };
}

function readVersion(reader: HeaderReader): number {
  const start = reader.peekLatin1(23);
  if (!start.startsWith("GGUF")) {
    const other = start[8] === "{" ? safetensors : otherFormats.find(([magic]) => start.startsWith(magic));
    if (other !== undefined) throw reader.error("header.magic", `is that of ${other[1]}`);
    const shown = JSON.stringify(start.slice(0, 4));
    throw reader.error("header.magic", `is ${printable(shown)} instead of "GGUF": this is not a GGUF file`);
  }
  reader.skip(4, "header.magic");
  const version = reader.uint32("header.version");
  if (version !== 0 && (version & 0xffff) === 0) {
    throw reader.error("header.version", "is byte-swapped: a big-endian GGUF file; TinyAI reads little-endian ones");
  }
  if (version !== 2 && version !== 3) {
    const advice = version < 2 ? "convert the model anew" : "a newer TinyAI may";
    throw reader.error("header.version", `is ${version}; TinyAI reads GGUF versions 2 and 3; ${advice}`);
  }
  return version;
}

/** A count of things that take at least `bytesMin` each: more than the rest of the file can hold is refused before any work. */
function readCount(reader: HeaderReader, field: string, bytesMin: number): number {
  const count = reader.uint64(field);
  if (count * bytesMin > reader.bytesLeft) {
    throw reader.error(
      field,
      `is ${grouped(count)}, which takes at least ${grouped(count * bytesMin)} bytes, but ` +
        `${grouped(reader.bytesLeft)} are left in the file: it is damaged or cut short`,
    );
  }
  return count;
}

/** Puts the next entry into `entries` and gives its key. */
function readMetadataEntry(
  reader: HeaderReader,
  index: number,
  count: number,
  entries: Map<string, MetadataEntry>,
): string {
  const place = `metadata entry ${index + 1} of ${count}`;
  const key = reader.name(`${place}, key`, keyBytesMax);
  const field = printable(key);
  if (entries.has(key)) throw reader.error(field, "is in the metadata twice: the file is damaged");
  const type = readValueType(reader, field);
  if (type !== "array") {
    entries.set(key, { type, isArray: false, value: readScalar(reader, field, type) });
    return key;
  }
  const elementType = readValueType(reader, field);
  if (elementType === "array") throw reader.error(field, "is an array of arrays, which TinyAI does not read");
  const length = readCount(reader, `${field}, length`, valueBytes[elementType]);
  entries.set(key, { type: elementType, isArray: true, value: readArray(reader, field, elementType, length) });
  return key;
}

function readValueType(reader: HeaderReader, field: string): ScalarType | "array" {
  const number = reader.uint32(field);
  const type = valueTypes[number];
  if (type === undefined) throw reader.error(field, `has the value type ${number}, which GGUF does not know`);
  return type;
}

function readScalar(reader: HeaderReader, field: string, type: ScalarType): MetadataValue {
  if (type === "string") {
    const { start, end } = reader.string(field, stringBytesMax);
    return lenientUtf8.decode(reader.bytes.subarray(start, end));
  }
  const offset = reader.skip(valueBytes[type], field);
  const { view } = reader;
  switch (type) {
    case "uint8":
      return view.getUint8(offset);
    case "int8":
      return view.getInt8(offset);
    case "uint16":
      return view.getUint16(offset, true);
    case "int16":
      return view.getInt16(offset, true);
    case "uint32":
      return view.getUint32(offset, true);
    case "int32":
      return view.getInt32(offset, true);
    case "float32":
      return view.getFloat32(offset, true);
    case "bool":
      return toBoolean(reader, field, view.getUint8(offset));
    case "uint64":
      return view.getBigUint64(offset, true);
    case "int64":
      return view.getBigInt64(offset, true);
    case "float64":
      return view.getFloat64(offset, true);
  }
}

function toBoolean(reader: HeaderReader, field: string, byte: number): boolean {
  if (byte > 1) throw reader.error(field, `has the byte ${byte} as a boolean; 0 or 1 is expected`);
  return byte === 1;
}

function readArray(reader: HeaderReader, field: string, type: ScalarType, length: number): MetadataValue {
  if (type === "string") return readStringTable(reader, field, length);
  const byteLength = length * valueBytes[type];
  const start = reader.skip(byteLength, field);
  const bytes = reader.bytes.slice(start, start + byteLength); // A copy: typed arrays need an aligned start.
  if (type === "bool") return Array.from(bytes, (byte) => toBoolean(reader, field, byte));
  return numericArray(type, bytes.buffer);
}

function numericArray(type: Exclude<ScalarType, "bool" | "string">, buffer: ArrayBuffer): NumericArray {
  switch (type) {
    case "uint8":
      return new Uint8Array(buffer);
    case "int8":
      return new Int8Array(buffer);
    case "uint16":
      return new Uint16Array(buffer);
    case "int16":
      return new Int16Array(buffer);
    case "uint32":
      return new Uint32Array(buffer);
    case "int32":
      return new Int32Array(buffer);
    case "float32":
      return new Float32Array(buffer);
    case "uint64":
      return new BigUint64Array(buffer);
    case "int64":
      return new BigInt64Array(buffer);
    case "float64":
      return new Float64Array(buffer);
  }
}

/** Walks the strings once to check them; their bytes stay in the header until somebody asks. */
function readStringTable(reader: HeaderReader, field: string, length: number): StringTable {
  const start = reader.position;
  reader.skipStrings(length, field, stringBytesMax);
  const byteLength = reader.position - start - length * 8;
  return new StringTable(length, (limit) => packStrings(reader.bytes, start, limit, byteLength));
}

/** Copies `count` checked strings that begin at `start`, each after its length, to one buffer without the lengths. */
function packStrings(header: Uint8Array, start: number, count: number, byteLengthMax: number): StringBytes {
  const view = new DataView(header.buffer, header.byteOffset, header.byteLength);
  const bytes = new Uint8Array(byteLengthMax);
  const offsets = new Uint32Array(count + 1);
  let from = start;
  let to = 0;
  for (let index = 1; index <= count; index++) {
    const end = from + 8 + view.getUint32(from, true);
    // Tokens have few bytes: this loop is faster than a call of set() for each.
    for (from += 8; from < end; from++) bytes[to++] = header[from] ?? 0;
    offsets[index] = to;
  }
  return { bytes: to === byteLengthMax ? bytes : bytes.slice(0, to), offsets };
}

function refuseSplit(metadata: Metadata): void {
  const count = metadata.has("split.count") ? metadata.integer("split.count") : 1;
  if (count > 1) {
    throw metadata.error(
      "split.count",
      `is ${count}: this is one part of a model in ${count} files; join them with llama-gguf-split --merge`,
    );
  }
}

/** The alignment of a file's tensors, in bytes. */
export function readAlignment(metadata: Metadata): number {
  const key = "general.alignment";
  const alignment = metadata.integer(key, {}, alignmentDefault);
  if (alignment < alignmentMin || alignment > alignmentMax || 2 ** Math.round(Math.log2(alignment)) !== alignment) {
    throw metadata.error(key, `is ${alignment}; a power of two from ${alignmentMin} to ${alignmentMax} is expected`);
  }
  return alignment;
}

/** A tensor whose `offset` still counts from the start of the data, which is known only after the last entry. */
type TensorPlace = Omit<TensorEntry, "byteOffset"> & { readonly offset: number };

function readTensorPlace(reader: HeaderReader, index: number, names: Set<string>, alignment: number): TensorPlace {
  const name = reader.name(`tensor ${index + 1}, name`, tensorNameBytesMax);
  const field = `tensor ${printable(name)}`;
  if (names.has(name)) throw reader.error(field, "is in the directory twice: the file is damaged");
  names.add(name);
  const shape = readShape(reader, field);
  const typeNumber = reader.uint32(field);
  const dtype = toDType(reader, field, typeNumber);
  const offset = reader.uint64(field);
  if (offset % alignment !== 0) {
    throw reader.error(
      field,
      `has the offset ${grouped(offset)}, which is not a multiple of the alignment ${alignment}`,
    );
  }
  return { name, dtype, shape, offset, byteLength: byteLengthOf(reader, field, dtype, shape) };
}

function readShape(reader: HeaderReader, field: string): number[] {
  const dimensions = reader.uint32(field);
  if (dimensions < 1 || dimensions > dimensionsMax) {
    throw reader.error(field, `has ${dimensions} dimensions; 1 to ${dimensionsMax} are expected`);
  }
  const shape: number[] = [];
  for (let index = 0; index < dimensions; index++) {
    const size = reader.uint64(field);
    if (size === 0) throw reader.error(field, `has no values: dimension ${index + 1} of ${dimensions} is 0`);
    shape.push(size);
  }
  return shape;
}

/** ggml's number of a format. */
export function tensorTypeNumber(dtype: DType): number {
  for (const [number, name] of tensorTypeNames) if (name === dtype) return number;
  throw new RangeError(`${dtype} has no number`);
}

function toDType(reader: HeaderReader, field: string, typeNumber: number): DType {
  const name = tensorTypeNames.get(typeNumber) ?? `number ${typeNumber}`;
  if (!isDType(name)) {
    const known = Object.keys(dtypeBlocks).join(", ");
    throw reader.error(field, `has the type ${name}, which TinyAI does not read; it reads ${known}`);
  }
  return name;
}

function isDType(name: string): name is DType {
  return Object.hasOwn(dtypeBlocks, name);
}

function byteLengthOf(reader: HeaderReader, field: string, dtype: DType, shape: readonly number[]): number {
  const block = dtypeBlocks[dtype];
  const columns = shape[0] ?? 0;
  if (columns % block.columns !== 0) {
    throw reader.error(field, `has rows of ${columns} values; ${dtype} packs ${block.columns} together`);
  }
  const values = shape.reduce((product, size) => product * size, 1);
  const byteLength = (values / block.columns) * block.bytes;
  if (!(values <= Number.MAX_SAFE_INTEGER && byteLength <= Number.MAX_SAFE_INTEGER)) {
    throw reader.error(field, `has the shape ${shape.join(" × ")}, more than any file can hold`);
  }
  return byteLength;
}

function checkPlaces(reader: HeaderReader, tensors: ReadonlyMap<string, TensorEntry>): void {
  const ascending = [...tensors.values()].sort((a, b) => a.byteOffset - b.byteOffset);
  let previous: TensorEntry | undefined;
  for (const tensor of ascending) {
    const field = `tensor ${printable(tensor.name)}`;
    const end = tensor.byteOffset + tensor.byteLength;
    if (end > reader.byteLength) {
      throw reader.error(
        field,
        `ends at byte ${grouped(end)} but the file has ${grouped(reader.byteLength)}: ` +
          "the download is cut short; run tinyai pull again",
      );
    }
    if (previous !== undefined && tensor.byteOffset < previous.byteOffset + previous.byteLength) {
      throw reader.error(field, `overlaps tensor ${printable(previous.name)}: the file is damaged`);
    }
    previous = tensor;
  }
}

/**
 * The bytes of the header, read on demand in growing pieces, and a position in them. Nothing is read that the file's
 * size does not hold, so a hostile length costs nothing.
 */
class HeaderReader {
  readonly path: string;
  readonly byteLength: number;
  position = 0;
  /** What was read so far, from the file's start. Each read replaces it: do not keep it across one. */
  bytes = new Uint8Array(0);
  view = new DataView(this.bytes.buffer);
  #reserved = new Uint8Array(0);
  readonly #file: number;

  constructor(path: string, file: number, byteLength: number) {
    this.path = path;
    this.byteLength = byteLength;
    this.#file = file;
  }

  /** The bytes from the position to the file's end. */
  get bytesLeft(): number {
    return this.byteLength - this.position;
  }

  error(field: string, problem: string, options?: ErrorOptions): ModelFileError {
    return new ModelFileError(this.path, field, problem, options);
  }

  /** Moves past `count` bytes of `field`, which are in memory afterwards, and gives the place where they begin. */
  skip(count: number, field: string): number {
    const start = this.position;
    const end = start + count;
    if (end > this.bytes.length) this.#load(end, field);
    this.position = end;
    return start;
  }

  /** The first `count` bytes of the file, or fewer if it is shorter, a character each. */
  peekLatin1(count: number): string {
    const end = Math.min(count, this.byteLength);
    if (end > this.bytes.length) this.#load(end, "header");
    return String.fromCharCode(...this.bytes.subarray(0, end));
  }

  uint32(field: string): number {
    const offset = this.skip(4, field); // Before `view` is taken, as it may replace it.
    return this.view.getUint32(offset, true);
  }

  /** A 64-bit number that a JavaScript number holds exactly; counts, lengths and offsets of real files are far smaller. */
  uint64(field: string): number {
    const offset = this.skip(8, field);
    const value = this.view.getUint32(offset, true) + this.view.getUint32(offset + 4, true) * 2 ** 32;
    if (value > Number.MAX_SAFE_INTEGER) {
      throw this.error(
        field,
        `has the number ${this.view.getBigUint64(offset, true)}, which no file can hold: it is damaged`,
      );
    }
    return value;
  }

  /** Moves past a string and gives its place in `bytes`. */
  string(field: string, bytesMax: number): { start: number; end: number } {
    const length = this.uint64(field);
    if (length > this.bytesLeft) {
      throw this.error(
        field,
        `has a string that ends at byte ${grouped(this.position + length)} but the file has ` +
          `${grouped(this.byteLength)}: it is damaged or cut short`,
      );
    }
    if (length > bytesMax) {
      throw this.error(field, `has a string of ${grouped(length)} bytes; at most ${grouped(bytesMax)} are expected`);
    }
    const start = this.skip(length, field);
    return { start, end: start + length };
  }

  /** Moves past `count` strings. Those that are in memory cost a few instructions each; `string` sees to the others. */
  skipStrings(count: number, field: string, bytesMax: number): void {
    let { view, position } = this;
    for (let index = 0; index < count; index++) {
      if (position + 8 <= view.byteLength && view.getUint32(position + 4, true) === 0) {
        const length = view.getUint32(position, true);
        const end = position + 8 + length;
        if (length <= bytesMax && end <= view.byteLength) {
          position = end;
          continue;
        }
      }
      this.position = position;
      this.string(field, bytesMax);
      ({ view, position } = this);
    }
    this.position = position;
  }

  /** A key or a tensor's name: valid UTF-8 and not empty. */
  name(field: string, bytesMax: number): string {
    const { start, end } = this.string(field, bytesMax);
    if (start === end) throw this.error(field, "is empty: the file is damaged");
    try {
      return strictUtf8.decode(this.bytes.subarray(start, end));
    } catch (cause) {
      throw this.error(field, "is not valid UTF-8: the file is damaged", { cause });
    }
  }

  #load(end: number, field: string): void {
    if (end > this.byteLength) {
      throw this.error(
        field,
        `ends at byte ${grouped(end)} but the file has ${grouped(this.byteLength)}: ` +
          "the download is cut short; run tinyai pull again",
      );
    }
    if (end > headerBytesMax) {
      throw this.error(field, `ends at byte ${grouped(end)}; the header is expected within ${grouped(headerBytesMax)}`);
    }
    const loaded = this.bytes.length;
    if (end > this.#reserved.length) {
      const reserved = new Uint8Array(Math.min(this.byteLength, Math.ceil(end / reserveBytes) * 2 * reserveBytes));
      reserved.set(this.bytes);
      this.#reserved = reserved;
    }
    // Pieces grow with the header: few system calls for a long one, little read past the end of a short one.
    const wanted = Math.min(this.#reserved.length, Math.max(end, Math.floor(loaded * 1.5), chunkBytes));
    this.#readInto(this.#reserved.subarray(0, wanted), loaded);
    this.bytes = this.#reserved.subarray(0, wanted);
    this.view = new DataView(this.#reserved.buffer, 0, wanted);
  }

  /** Fills `bytes` from `start` on with the file's bytes at the same places. */
  #readInto(bytes: Uint8Array, start: number): void {
    let offset = start;
    while (offset < bytes.length) {
      const count = this.#readOnce(bytes, offset);
      if (count === 0) throw this.error("file", `ended at byte ${grouped(offset)} while it was read: it was cut short`);
      offset += count;
    }
  }

  #readOnce(bytes: Uint8Array, offset: number): number {
    try {
      return readSync(this.#file, bytes, offset, bytes.length - offset, offset);
    } catch (cause) {
      throw this.error("file", `cannot be read: ${reason(cause)}`, { cause });
    }
  }
}

const strictUtf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const lenientUtf8 = new TextDecoder("utf-8", { ignoreBOM: true });

function grouped(value: number): string {
  return value.toLocaleString("en-US");
}
