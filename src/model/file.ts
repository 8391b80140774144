// What every reader of a model file hands on: where each tensor's bytes lie, and the metadata behind typed getters. It
// holds no weights, and knows neither a container's layout (gguf.ts does) nor a model's architecture.

import { closeSync, openSync, readSync } from "node:fs";
import { ModelFileError } from "../errors.ts";
import type { DType } from "../graph/dtype.ts";

export type { DType };

/** A format's unit of storage: `columns` consecutive values of a row, packed in `bytes` bytes. */
export interface DTypeBlock {
  readonly columns: number;
  readonly bytes: number;
}

/**
 * Each format's block. The bytes are the sums of ggml's block structs: a Q4_K block, for one, is two float16 scales (4),
 * eight 6-bit scales and minima (12) and 256 4-bit quants (128): 144.
 */
export const dtypeBlocks: Readonly<Record<DType, DTypeBlock>> = {
  F32: { columns: 1, bytes: 4 },
  F16: { columns: 1, bytes: 2 },
  BF16: { columns: 1, bytes: 2 },
  Q4_0: { columns: 32, bytes: 18 },
  Q4_1: { columns: 32, bytes: 20 },
  Q5_0: { columns: 32, bytes: 22 },
  Q5_1: { columns: 32, bytes: 24 },
  Q8_0: { columns: 32, bytes: 34 },
  Q2_K: { columns: 256, bytes: 84 },
  Q3_K: { columns: 256, bytes: 110 },
  Q4_K: { columns: 256, bytes: 144 },
  Q5_K: { columns: 256, bytes: 176 },
  Q6_K: { columns: 256, bytes: 210 },
  IQ4_NL: { columns: 32, bytes: 18 },
  IQ4_XS: { columns: 256, bytes: 136 },
};

/**
 * A tensor's place in the file. `shape` is innermost first, as GGUF stores it: a matrix of `rows` rows is
 * `[columns, rows]`. `byteOffset` counts from the file's start.
 */
export interface TensorEntry {
  readonly name: string;
  readonly dtype: DType;
  /** One to four dimensions, each at least 1, innermost first. The first is a multiple of the dtype's block. */
  readonly shape: readonly number[];
  readonly byteOffset: number;
  readonly byteLength: number;
}

/** An array of numbers as the file stores it. */
export type NumericArray =
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float32Array
  | Float64Array
  | BigUint64Array
  | BigInt64Array;

/** A numeric array without bigints: what `Metadata.numbers` gives. */
export type NumberArray = Exclude<NumericArray, BigUint64Array | BigInt64Array>;

/** Many strings in one buffer: string `i` is `bytes.subarray(offsets[i], offsets[i + 1])`; `offsets` has one more entry than there are strings. */
export interface StringBytes {
  readonly bytes: Uint8Array;
  readonly offsets: Uint32Array;
  /** A hash table over the strings (src/tokenizer/table.ts), where the file holds one. */
  readonly slots?: Uint32Array;
}

/**
 * An array of strings that stays bytes until somebody asks: Gemma's vocabulary of 262,144 pieces as JavaScript strings
 * takes longer to make than the rest of the header takes to read.
 */
export class StringTable {
  /** The number of strings. */
  readonly length: number;
  readonly #pack: (limit: number) => StringBytes;

  /** `pack(limit)` gives the first `limit` strings, packed; it is called anew each time they are wanted, and not kept. */
  constructor(length: number, pack: (limit: number) => StringBytes) {
    this.length = length;
    this.#pack = pack;
  }

  /** All strings as bytes. They need not be valid UTF-8: a token may be a part of a character. */
  bytes(): StringBytes {
    return this.#pack(this.length);
  }

  /** The first `limit` strings, all if not given. Bytes that are not UTF-8 become U+FFFD. */
  strings(limit = this.length): string[] {
    const { bytes, offsets } = this.#pack(Math.min(limit, this.length));
    const strings: string[] = [];
    for (let index = 1; index < offsets.length; index++) {
      strings.push(lenientUtf8.decode(bytes.subarray(offsets[index - 1], offsets[index])));
    }
    return strings;
  }
}

// ignoreBOM means that U+FEFF is kept: several vocabularies hold it as a token.
const lenientUtf8 = new TextDecoder("utf-8", { ignoreBOM: true });

/** GGUF's names of scalar types, which other containers' readers use too. */
export type ScalarType =
  | "uint8"
  | "int8"
  | "uint16"
  | "int16"
  | "uint32"
  | "int32"
  | "float32"
  | "bool"
  | "string"
  | "uint64"
  | "int64"
  | "float64";

/** A metadata value as stored: 64-bit integers are bigints. */
export type MetadataValue = string | number | bigint | boolean | readonly boolean[] | StringTable | NumericArray;

/** One metadata entry: the value with the type it has in the file; for an array, `type` is its elements' type. */
export interface MetadataEntry {
  readonly type: ScalarType;
  readonly isArray: boolean;
  readonly value: MetadataValue;
}

/** Bounds of an integer, both inclusive. */
export interface IntegerBounds {
  /** Default 0. */
  readonly minimum?: number;
  /** Default the largest safe integer. */
  readonly maximum?: number;
}

/**
 * A model file's metadata. Each getter throws a ModelFileError that names the file and the key when the key is absent
 * (and no fallback was given) or has another type than the getter's.
 */
export class Metadata {
  readonly #path: string;
  readonly #entries: ReadonlyMap<string, MetadataEntry>;

  /** `path` is for messages only. */
  constructor(path: string, entries: ReadonlyMap<string, MetadataEntry>) {
    this.#path = path;
    this.#entries = entries;
  }

  /** The number of keys. */
  get size(): number {
    return this.#entries.size;
  }

  /** The keys in the file's order. */
  keys(): string[] {
    return [...this.#entries.keys()];
  }

  has(key: string): boolean {
    return this.#entries.has(key);
  }

  /** The entry as stored, whatever its type: for those that show metadata rather than use it. */
  entry(key: string): MetadataEntry | undefined {
    return this.#entries.get(key);
  }

  /** A string. Bytes that are not UTF-8 are U+FFFD in it. */
  string(key: string, fallback?: string): string {
    const entry = this.#entries.get(key);
    if (entry === undefined) return this.#fallback(key, "a string", fallback);
    if (typeof entry.value !== "string") throw this.#wrongType(key, "a string", entry);
    return entry.value;
  }

  /** A number of any integer or float type, finite or not. A 64-bit integer that a JavaScript number cannot hold exactly is an error. */
  number(key: string, fallback?: number): number {
    const entry = this.#entries.get(key);
    if (entry === undefined) return this.#fallback(key, "a number", fallback);
    const { value } = entry;
    if (typeof value === "number") return value;
    if (typeof value === "bigint") return this.#safe(key, value);
    throw this.#wrongType(key, "a number", entry);
  }

  /** A whole number within bounds (0 to the largest safe integer unless given). A float that holds a whole number passes. */
  integer(key: string, bounds: IntegerBounds = {}, fallback?: number): number {
    const { minimum = 0, maximum = Number.MAX_SAFE_INTEGER } = bounds;
    const value = this.number(key, fallback);
    if (!Number.isSafeInteger(value) || value < minimum || value > maximum) {
      const range = maximum === Number.MAX_SAFE_INTEGER ? `of at least ${minimum}` : `from ${minimum} to ${maximum}`;
      throw this.error(key, `is ${value}; a whole number ${range} is expected`);
    }
    return value;
  }

  boolean(key: string, fallback?: boolean): boolean {
    const entry = this.#entries.get(key);
    if (entry === undefined) return this.#fallback(key, "a boolean", fallback);
    if (typeof entry.value !== "boolean") throw this.#wrongType(key, "a boolean", entry);
    return entry.value;
  }

  /** An array of strings, made anew at each call: prefer `stringBytes` for a vocabulary. */
  strings(key: string): readonly string[] {
    return this.#stringTable(key).strings();
  }

  /** An array of strings as bytes. They need not be valid UTF-8. */
  stringBytes(key: string): StringBytes {
    return this.#stringTable(key).bytes();
  }

  /** An array of any number type, as stored; 64-bit integers come as float64, and one that is not exact there is an error. */
  numbers(key: string): NumberArray {
    const entry = this.#entries.get(key);
    if (entry === undefined) throw this.#missing(key, "an array of numbers");
    const { value } = entry;
    if (!ArrayBuffer.isView(value)) throw this.#wrongType(key, "an array of numbers", entry);
    if (!(value instanceof BigUint64Array || value instanceof BigInt64Array)) return value;
    return Float64Array.from(value, (element: bigint) => this.#safe(key, element));
  }

  booleans(key: string): readonly boolean[] {
    const entry = this.#entries.get(key);
    if (entry === undefined) throw this.#missing(key, "an array of booleans");
    if (!isBooleans(entry.value)) throw this.#wrongType(key, "an array of booleans", entry);
    return entry.value;
  }

  /**
   * A value that a file gives once for all layers or as an array with one for each: `count` numbers. Booleans are 0 and 1.
   * An array of another length than `count` is an error.
   */
  perLayer(key: string, count: number, fallback?: number): readonly number[] {
    const entry = this.#entries.get(key);
    if (entry === undefined) {
      const value = this.#fallback(key, "a number, or an array with one for each layer", fallback);
      return new Array<number>(count).fill(value);
    }
    const { value } = entry;
    if (typeof value === "boolean") return new Array<number>(count).fill(Number(value));
    if (isBooleans(value) || ArrayBuffer.isView(value)) {
      const values = isBooleans(value) ? value.map(Number) : Array.from(this.numbers(key));
      if (values.length !== count) {
        throw this.error(key, `has ${values.length} values for the model's ${count} layers; one for each is expected`);
      }
      return values;
    }
    return new Array<number>(count).fill(this.number(key));
  }

  /** An error about a key of this file, for callers that find its value wrong. */
  error(key: string, problem: string): ModelFileError {
    return new ModelFileError(this.#path, printable(key), problem);
  }

  #stringTable(key: string): StringTable {
    const entry = this.#entries.get(key);
    if (entry === undefined) throw this.#missing(key, "an array of strings");
    if (!(entry.value instanceof StringTable)) throw this.#wrongType(key, "an array of strings", entry);
    return entry.value;
  }

  #fallback<Value>(key: string, expected: string, fallback: Value | undefined): Value {
    if (fallback !== undefined) return fallback;
    throw this.#missing(key, expected);
  }

  #missing(key: string, expected: string): ModelFileError {
    return this.error(key, `is missing; ${expected} is expected. The file may hold something else than a model`);
  }

  #wrongType(key: string, expected: string, entry: MetadataEntry): ModelFileError {
    return this.error(key, `is ${describeType(entry)}; ${expected} is expected`);
  }

  #safe(key: string, value: bigint): number {
    const number = Number(value);
    if (!Number.isSafeInteger(number)) throw this.error(key, `is ${value}, which is beyond 2^53`);
    return number;
  }
}

/** A range of bytes in a file. */
export interface BytePlace {
  readonly byteOffset: number;
  readonly byteLength: number;
}

/** One of the files that hold a model's tensors. */
export interface DataFile {
  readonly path: string;
  readonly byteLength: number;
}

/** An opened model file: its directory, not its weights. It holds no file handle. */
export interface ModelFile {
  /** As the caller gave it; of a model in several files their folder. */
  readonly path: string;
  /** Where it begins in the file of that path, when that is a program with the model inside. Offsets count from here. Default 0. */
  readonly startsAt?: number;
  /** The whole file's size. */
  readonly byteLength: number;
  readonly format: "gguf" | "safetensors" | "tinyai";
  /** The container's version; 0 where it has none. */
  readonly version: number;
  readonly metadata: Metadata;
  /** By name, in the file's order. Every entry lies inside the file and overlaps no other. */
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  /** The files that hold the tensors, whose offsets count through all of them as if they were one. Undefined: `path` does. */
  readonly dataFiles?: readonly DataFile[];
  /** The part of the file that holds all matrices in the engine's own layout; undefined: they are row-major. */
  readonly packedWeights?: PackedWeights;
  /** The file's first bytes, where they are in memory. Read-only: writing to them may end the process. */
  readonly head?: Uint8Array<ArrayBuffer>;
}

/** A range of bytes of a file. */
export interface PackedWeights {
  readonly offset: number;
  readonly bytes: number;
}

/** The files that hold a model's tensors, in the order in which offsets count through them. */
export function dataFilesOf({ path, byteLength, dataFiles }: ModelFile): readonly DataFile[] {
  return dataFiles ?? [{ path, byteLength }];
}

/**
 * A copy of some bytes of a model's files, all in one of them. `field` is what they are.
 * @throws {ModelFileError} if they cannot be read.
 */
export function readBytes(model: ModelFile, place: BytePlace, field: string): Uint8Array<ArrayBuffer> {
  const { head, startsAt = 0 } = model;
  const end = place.byteOffset + place.byteLength;
  if (head && end <= head.length) return head.slice(place.byteOffset, end);
  let offset = place.byteOffset;
  let path = model.path;
  for (const file of dataFilesOf(model)) {
    path = file.path;
    if (offset < file.byteLength) break;
    offset -= file.byteLength;
  }
  const fail = (problem: string, options?: ErrorOptions) => new ModelFileError(path, field, problem, options);
  const bytes = new Uint8Array(place.byteLength);
  let handle: number | undefined;
  let done = 0;
  try {
    handle = openSync(path, "r");
    while (done < bytes.length) {
      const count = readSync(handle, bytes, done, bytes.length - done, startsAt + offset + done);
      if (count === 0) break;
      done += count;
    }
  } catch (cause) {
    throw fail(`cannot be read: ${(cause as Error).message}`, { cause });
  } finally {
    if (handle !== undefined) closeSync(handle);
  }
  if (done === bytes.length) return bytes;
  throw fail(`ends after ${done} of ${bytes.length} bytes: the file was cut short while it was being read`);
}

/** A metadata entry's type in words: `uint32`, `array of string`. */
export function describeType(entry: MetadataEntry): string {
  return entry.isArray ? `array of ${entry.type}` : entry.type;
}

/** The number of elements of an array's value; undefined for a scalar. */
export function arrayLength(entry: MetadataEntry): number | undefined {
  const { value } = entry;
  return isBooleans(value) || value instanceof StringTable || ArrayBuffer.isView(value) ? value.length : undefined;
}

/**
 * Text from a file as it may appear in a message or on a terminal: control characters escaped, so that a hostile file
 * cannot steer the terminal, and cut at `limit` characters.
 */
export function printable(text: string, limit = 120): string {
  const cut = text.length > limit ? `${text.slice(0, limit)}…` : text;
  return cut.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, (character) => {
    const code = character.codePointAt(0) ?? 0;
    return `\\u{${code.toString(16)}}`;
  });
}

function isBooleans(value: MetadataValue): value is readonly boolean[] {
  return Array.isArray(value);
}
