// Reads and writes the head of a `.tinyai` file: a model whose matrices lie in the engine's own layout, ready to be mapped,
// and whose tokenizer's tables are flat. Everything before the weights is read at once and checked; the weights are not
// touched here. It knows no architecture and no kernel.
//
// All numbers are little endian.
//     0  magic, 8 bytes             32  bytes of the directory, u64     72  the source's SHA-256, 32 bytes
//     8  version, u32               40  checksum of all from 48 to      128  the directory, in JSON
//    12  zero, u32                      the weights (wyhash), u64            then the arrays it names, each at a multiple
//    16  where the weights          48  the source's bytes, u64              of 64, then the weights
//        begin, u64                 56  when it was modified, ns, i64
//    24  bytes of the weights, u64  64  when it was changed, ns, i64

import { closeSync, fstatSync, openSync, readSync, statSync, writeSync } from "node:fs";
import { isRecord } from "../check.ts";
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
  type ScalarType,
  type StringBytes,
  StringTable,
  type TensorEntry,
} from "./file.ts";

const magic = "TinyAI\x1a\n";
/** The container's version, and that of the packed layout in it (zig/kernels/format.zig): either one's change changes it. */
export const preparedVersion = 1;
const headBytes = 128;
const checkedFrom = 48;
/** Where weights begin: a multiple of a huge page, so that systems whose page cache has such can map them as they are. */
const weightsAlignment = 2 << 20;
const arrayAlignment = 64;
/** As the GGUF reader bounds a header. */
const prefixBytesMax = 512 * 1024 * 1024;

/** The file or folder that a prepared one was made from. */
export interface PreparedSource {
  readonly bytes: number;
  /** Nanoseconds since 1970, as the file system has them; of a folder hashes over its files'. */
  readonly modifiedNs: bigint;
  readonly changedNs: bigint;
  /** In lower-case hexadecimal. */
  readonly sha256: string;
}

/** An opened prepared file. Its matrices' entries are of packed bytes; the file it was made from is `source`. */
export interface PreparedFile extends ModelFile {
  readonly format: "tinyai";
  readonly source: PreparedSource;
}

/** Where an array lies in the file: its first byte and its length in bytes. */
type Place = readonly [offset: number, bytes: number];

/** A metadata value in the directory: scalars as they are, what JSON cannot hold as text, arrays by their place. */
type StoredValue =
  | string
  | number
  | boolean
  | readonly boolean[]
  | { readonly numbers: Place }
  | { readonly bytes: Place; readonly offsets: Place; readonly slots?: Place };

interface Directory {
  readonly metadata: readonly (readonly [key: string, type: ScalarType, value: StoredValue])[];
  readonly tensors: readonly (readonly [
    name: string,
    dtype: DType,
    shape: readonly number[],
    offset: number,
    bytes: number,
  ])[];
}

const numericArrays = {
  uint8: Uint8Array,
  int8: Int8Array,
  uint16: Uint16Array,
  int16: Int16Array,
  uint32: Uint32Array,
  int32: Int32Array,
  float32: Float32Array,
  uint64: BigUint64Array,
  int64: BigInt64Array,
  float64: Float64Array,
} as const;

function isNumeric(type: unknown): type is keyof typeof numericArrays {
  return typeof type === "string" && Object.hasOwn(numericArrays, type);
}

/** Whether the file begins as a prepared one does; false if it cannot be read. */
export function isPrepared(path: string): boolean {
  const start = new Uint8Array(magic.length);
  try {
    // Asked before it is opened: opening a device can have effects, and opening a FIFO waits.
    if (!statSync(path).isFile()) return false;
    const file = openSync(path, "r");
    try {
      return readSync(file, start, 0, start.length, 0) === start.length && latin1(start) === magic;
    } finally {
      closeSync(file);
    }
  } catch {
    return false;
  }
}

/** Gives `bytes` of a file from `offset` on, without a copy if it can. */
export type ReadHead = (path: string, bytes: number, offset: number) => Uint8Array<ArrayBuffer>;

/**
 * Opens a prepared file and takes all of it but the weights into memory.
 * @param place where it is in the file of that path, if it is not all of it: inside an executable.
 * @throws {ModelFileError} if it cannot be read, is of another version, torn, or anything in it is out of bounds.
 */
export function openPrepared(path: string, readHead: ReadHead, place?: BytePlace): PreparedFile {
  const remedy = place
    ? "bundle the program anew, or start it anew if it was replaced"
    : "make it anew with `tinyai prepare`";
  const fail = (field: string, problem: string, options?: ErrorOptions): never => {
    throw new ModelFileError(path, field, `${problem}; ${remedy}`, options);
  };
  const bytes = readPrefix(path, readHead, place, fail);
  const view = new DataView(bytes.buffer);
  const directoryBytes = Number(view.getBigUint64(32, true));
  const weights = { offset: bytes.length, bytes: Number(view.getBigUint64(24, true)) };
  const byteLength = weights.offset + weights.bytes;
  if (directoryBytes > bytes.length - headBytes) fail("header.directory", "is longer than the file's head");
  const reader = new DirectoryReader(bytes, headBytes + directoryBytes, byteLength, fail);
  const { metadata, tensors } = reader.read(utf8.decode(bytes.subarray(headBytes, headBytes + directoryBytes)));
  return {
    path,
    startsAt: place?.byteOffset ?? 0,
    byteLength,
    format: "tinyai",
    version: preparedVersion,
    metadata: new Metadata(path, metadata),
    tensors,
    packedWeights: weights,
    head: bytes,
    source: {
      bytes: Number(view.getBigUint64(48, true)),
      modifiedNs: view.getBigInt64(56, true),
      changedNs: view.getBigInt64(64, true),
      sha256: Buffer.from(bytes.buffer, 72, 32).toString("hex"),
    },
  };
}

/** Reads `bytes` of a file by ordinary reads. */
export function readHead(path: string, bytes: number, offset: number): Uint8Array<ArrayBuffer> {
  const head = new Uint8Array(bytes);
  const file = openSync(path, "r");
  try {
    for (let done = 0; done < bytes; ) {
      const count = readSync(file, head, done, bytes - done, offset + done);
      if (count === 0) throw new ModelFileError(path, "file", `ended at byte ${offset + done} while it was read`);
      done += count;
    }
  } finally {
    closeSync(file);
  }
  return head;
}

type Fail = (field: string, problem: string, options?: ErrorOptions) => never;

/** The bytes before the weights, whose checksum is right. */
function readPrefix(
  path: string,
  readHead: ReadHead,
  place: BytePlace | undefined,
  fail: Fail,
): Uint8Array<ArrayBuffer> {
  let file: number;
  try {
    file = openSync(path, "r");
  } catch (cause) {
    throw new ModelFileError(path, "file", `cannot be opened: ${(cause as Error).message}`, { cause });
  }
  try {
    const { byteOffset: start, byteLength: size } = place ?? { byteOffset: 0, byteLength: fstatSync(file).size };
    if (start % arrayAlignment !== 0)
      fail("file", `begins at byte ${start}, which is no multiple of ${arrayAlignment}`);
    const head = new DataView(new ArrayBuffer(headBytes));
    if (readSync(file, head, 0, headBytes, start) < headBytes) fail("header", "is cut short");
    if (latin1(new Uint8Array(head.buffer, 0, magic.length)) !== magic) fail("header.magic", "is of another format");
    const version = head.getUint32(8, true);
    if (version !== preparedVersion) fail("header.version", `is ${version}; this TinyAI reads ${preparedVersion}`);
    const begin = Number(head.getBigUint64(16, true));
    if (begin < headBytes || begin > prefixBytesMax || begin % weightsAlignment !== 0) {
      fail("header.weights", `begin at byte ${begin}`);
    }
    const end = begin + Number(head.getBigUint64(24, true));
    if (end !== size) fail("file", `has ${size} bytes; its head says ${end}: it is cut short or damaged`);
    if (start + end > fstatSync(file).size) fail("file", "is cut short");
    const bytes = readHead(path, begin, start);
    if (checksum(bytes) !== head.getBigUint64(40, true)) fail("header.checksum", "does not match: the file is damaged");
    return bytes;
  } catch (cause) {
    if (cause instanceof ModelFileError) throw cause;
    throw new ModelFileError(path, "file", `cannot be read: ${(cause as Error).message}`, { cause });
  } finally {
    closeSync(file);
  }
}

function checksum(prefix: Uint8Array): bigint {
  return BigInt(Bun.hash.wyhash(prefix.subarray(checkedFrom)));
}

/** Turns the directory into metadata and tensors. A right checksum does not make a file's author right: all is checked. */
class DirectoryReader {
  readonly #bytes: Uint8Array<ArrayBuffer>;
  readonly #arraysFrom: number;
  readonly #byteLength: number;
  readonly #fail: Fail;

  constructor(bytes: Uint8Array<ArrayBuffer>, arraysFrom: number, byteLength: number, fail: Fail) {
    this.#bytes = bytes;
    this.#arraysFrom = arraysFrom;
    this.#byteLength = byteLength;
    this.#fail = fail;
  }

  read(json: string): { metadata: Map<string, MetadataEntry>; tensors: Map<string, TensorEntry> } {
    let directory: unknown;
    try {
      directory = JSON.parse(json);
    } catch (cause) {
      return this.#fail("directory", "is not JSON", { cause });
    }
    if (!isRecord(directory)) return this.#fail("directory", "is not an object");
    const metadata = new Map<string, MetadataEntry>();
    for (const entry of this.#list("directory.metadata", directory["metadata"])) {
      const [key, type, value] = this.#list("directory.metadata", entry);
      if (typeof key !== "string") return this.#fail("directory.metadata", "has a key that is no text");
      metadata.set(key, this.#entry(key, type, value));
    }
    const tensors = new Map<string, TensorEntry>();
    for (const entry of this.#list("directory.tensors", directory["tensors"])) {
      const tensor = this.#tensor(this.#list("directory.tensors", entry));
      tensors.set(tensor.name, tensor);
    }
    return { metadata, tensors };
  }

  #list(field: string, value: unknown): readonly unknown[] {
    return Array.isArray(value) ? value : this.#fail(field, "is not a list");
  }

  #entry(key: string, type: unknown, value: unknown): MetadataEntry {
    if (isRecord(value)) {
      if (type === "string") return { type, isArray: true, value: this.#strings(key, value) };
      if (!isNumeric(type)) return this.#fail(key, "has a type that is not known");
      return { type, isArray: true, value: this.#array<NumericArray>(key, numericArrays[type], value["numbers"]) };
    }
    if (type === "bool" && Array.isArray(value)) {
      return { type, isArray: true, value: value.map((element) => element === true) };
    }
    if (type === "bool" && typeof value === "boolean") return { type, isArray: false, value };
    if (type === "string" && typeof value === "string") return { type, isArray: false, value };
    if (type === "uint64" || type === "int64") {
      if (typeof value !== "string" || !/^-?\d{1,20}$/.test(value)) return this.#fail(key, "is no whole number");
      return { type, isArray: false, value: BigInt(value) };
    }
    if (!isNumeric(type) || (typeof value !== "number" && typeof value !== "string")) {
      return this.#fail(key, "has a value of another type than it says");
    }
    return { type, isArray: false, value: Number(value) };
  }

  #strings(key: string, value: Readonly<Record<string, unknown>>): StringTable {
    const bytes = this.#array(key, Uint8Array, value["bytes"]);
    const offsets = this.#array(key, Uint32Array, value["offsets"]);
    // Offsets out of order give empty texts and nothing worse; to look at each costs more than all the rest.
    if (offsets.length < 1) return this.#fail(key, "has no offsets");
    const slots = value["slots"] === undefined ? undefined : this.#slots(key, value["slots"], offsets.length - 1);
    return new StringTable(offsets.length - 1, (limit) => {
      if (limit === offsets.length - 1) return { bytes, offsets, ...(slots && { slots }) };
      const some = offsets.subarray(0, limit + 1);
      return { bytes: bytes.subarray(0, some[limit]), offsets: some };
    });
  }

  /** A hash table in which every search ends: it has a power of two slots, and free ones. */
  #slots(key: string, place: unknown, count: number): Uint32Array {
    const slots = this.#array(key, Uint32Array, place);
    const isPower = slots.length > 0 && (slots.length & (slots.length - 1)) === 0;
    if (!isPower || slots.length <= count || !slots.includes(0)) return this.#fail(key, "has a damaged hash table");
    return slots;
  }

  #array<Result extends NumericArray>(
    key: string,
    kind: {
      new (buffer: ArrayBuffer, offset: number, length: number): Result;
      readonly BYTES_PER_ELEMENT: number;
    },
    place: unknown,
  ): Result {
    const [offset, bytes] = this.#list(key, place);
    const inside =
      isSize(offset) &&
      isSize(bytes) &&
      offset % arrayAlignment === 0 &&
      bytes % kind.BYTES_PER_ELEMENT === 0 &&
      offset >= this.#arraysFrom &&
      offset + bytes <= this.#bytes.length;
    if (!inside) return this.#fail(key, "has an array outside the file's head");
    return new kind(this.#bytes.buffer, offset, bytes / kind.BYTES_PER_ELEMENT);
  }

  #tensor([name, dtype, shape, byteOffset, byteLength]: readonly unknown[]): TensorEntry {
    if (typeof name !== "string") return this.#fail("directory.tensors", "has a name that is no text");
    const field = `tensor ${name}`;
    if (typeof dtype !== "string" || !isDType(dtype)) return this.#fail(field, "has a type that is not known");
    const sizes = this.#list(field, shape);
    if (sizes.length < 1 || sizes.length > 4 || !sizes.every((size) => isSize(size) && size > 0)) {
      return this.#fail(field, "has a shape that is none");
    }
    if (Number(sizes[0]) % dtypeBlocks[dtype].columns !== 0) {
      return this.#fail(field, `has rows of ${sizes[0]} values; ${dtype} packs ${dtypeBlocks[dtype].columns} together`);
    }
    const inside =
      isSize(byteOffset) &&
      isSize(byteLength) &&
      byteOffset % arrayAlignment === 0 &&
      byteOffset >= this.#arraysFrom &&
      byteOffset + byteLength <= this.#byteLength;
    if (!inside) return this.#fail(field, "lies outside the file");
    return { name, dtype, shape: sizes as readonly number[], byteOffset, byteLength };
  }
}

/** What a prepared file is made of. */
export interface PreparedContent {
  readonly source: PreparedSource;
  /** The metadata to keep. */
  readonly metadata: readonly (readonly [key: string, entry: MetadataEntry])[];
  /** Lists of texts in place of those of the metadata: the same texts, with their hash tables. */
  readonly strings: ReadonlyMap<string, StringBytes>;
  /** Tensors that are kept as they are, with their bytes. */
  readonly vectors: readonly { readonly entry: TensorEntry; readonly bytes: Uint8Array }[];
  /** Packed matrices; `byteOffset` counts from the start of the weights. */
  readonly matrices: readonly TensorEntry[];
  readonly weightsBytes: number;
}

/** The bytes before the weights, which follow them in the file. */
export function encodePrepared(content: PreparedContent): Uint8Array<ArrayBuffer> {
  const arrays: { bytes: Uint8Array; offset: number }[] = [];
  let end = 0;
  // Places count from the first array until the directory's length is known; then the directory is written again.
  const layOut = (arraysFrom: number): string => {
    arrays.length = 0;
    end = arraysFrom;
    const place = ({ buffer, byteOffset, byteLength }: ArrayBufferView): Place => {
      const offset = end;
      arrays.push({ bytes: new Uint8Array(buffer, byteOffset, byteLength), offset });
      end = alignUp(offset + byteLength, arrayAlignment);
      return [offset, byteLength];
    };
    const metadata = content.metadata.map(
      ([key, { type, value }]) => [key, type, store(value, content.strings.get(key), place)] as const,
    );
    const vectors = content.vectors.map(
      ({ entry: { name, dtype, shape }, bytes }) => [name, dtype, shape, ...place(bytes)] as const,
    );
    const weightsFrom = alignUp(end, weightsAlignment);
    const matrices = content.matrices.map(
      ({ name, dtype, shape, byteOffset, byteLength }) =>
        [name, dtype, shape, weightsFrom + byteOffset, byteLength] as const,
    );
    const directory: Directory = { metadata, tensors: [...vectors, ...matrices] };
    return JSON.stringify(directory);
  };
  const room = Buffer.byteLength(layOut(0));
  // Offsets grow by some digits when the arrays move behind the directory.
  const arraysFrom = alignUp(headBytes + room + 16 * (arrays.length + content.matrices.length), arrayAlignment);
  const directory = Buffer.from(layOut(arraysFrom));
  const prefix = new Uint8Array(alignUp(end, weightsAlignment));
  const view = new DataView(prefix.buffer);
  prefix.set(Buffer.from(magic, "latin1"));
  view.setUint32(8, preparedVersion, true);
  view.setBigUint64(16, BigInt(prefix.length), true);
  view.setBigUint64(24, BigInt(content.weightsBytes), true);
  view.setBigUint64(32, BigInt(directory.length), true);
  prefix.set(directory, headBytes);
  for (const { bytes, offset } of arrays) prefix.set(bytes, offset);
  stampPrepared(prefix, content.source);
  return prefix;
}

/** Writes the source into a prefix, and the checksum that then holds. */
function stampPrepared(prefix: Uint8Array<ArrayBuffer>, source: PreparedSource): void {
  const view = new DataView(prefix.buffer);
  view.setBigUint64(48, BigInt(source.bytes), true);
  view.setBigInt64(56, source.modifiedNs, true);
  view.setBigInt64(64, source.changedNs, true);
  prefix.set(Buffer.from(source.sha256, "hex"), 72);
  view.setBigUint64(40, checksum(prefix), true);
}

/** Tells a prepared file of its source's new times. The few bytes are written in place: torn, the checksum fails. */
export function restampPrepared(path: string, source: PreparedSource): void {
  try {
    const prefix = readPrefix(path, readHead, undefined, (field, problem) => {
      throw new ModelFileError(path, field, problem);
    });
    stampPrepared(prefix, source);
    const file = openSync(path, "r+");
    try {
      writeSync(file, prefix, 0, headBytes, 0);
    } finally {
      closeSync(file);
    }
  } catch {
    // A cache that cannot be written to costs a hash at every opening, and nothing else.
  }
}

function store(
  value: MetadataValue,
  strings: StringBytes | undefined,
  place: (view: ArrayBufferView) => Place,
): StoredValue {
  if (value instanceof StringTable) {
    const { bytes, offsets, slots } = strings ?? value.bytes();
    return { bytes: place(bytes), offsets: place(offsets), ...(slots && { slots: place(slots) }) };
  }
  if (ArrayBuffer.isView(value)) return { numbers: place(value) };
  if (typeof value === "bigint") return String(value);
  // JSON has no infinities.
  return typeof value === "number" && !Number.isFinite(value) ? String(value) : value;
}

function alignUp(value: number, alignment: number): number {
  return Math.ceil(value / alignment) * alignment;
}

function isSize(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

function isDType(name: string): name is DType {
  return Object.hasOwn(dtypeBlocks, name);
}

function latin1(bytes: Uint8Array): string {
  return String.fromCharCode(...bytes);
}

const utf8 = new TextDecoder("utf-8");
