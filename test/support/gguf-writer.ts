// Writes GGUF files for tests, from ggml's docs/gguf.md alone: it shares no table with the reader that it tests. It keeps
// the place of every field it writes, so that a test can damage exactly one. It checks nothing: wrong files are its use too.

import { writeFileSync } from "node:fs";
import type { DType } from "../../src/model/file.ts";
import { encodeTensor } from "./formats.ts";

export { decodeTensor, encodeTensor } from "./formats.ts";
export { type TinyModelOptions, tinyModel, writeTinyModel } from "./tiny-model.ts";

/** Metadata types' numbers. */
export const valueTypeNumbers = {
  uint8: 0,
  int8: 1,
  uint16: 2,
  int16: 3,
  uint32: 4,
  int32: 5,
  float32: 6,
  bool: 7,
  string: 8,
  array: 9,
  uint64: 10,
  int64: 11,
  float64: 12,
} as const;

export type ScalarTypeName = Exclude<keyof typeof valueTypeNumbers, "array">;

/** Tensor types' numbers. */
export const tensorTypeNumbers: Readonly<Record<DType, number>> = {
  F32: 0,
  F16: 1,
  Q4_0: 2,
  Q4_1: 3,
  Q5_0: 6,
  Q5_1: 7,
  Q8_0: 8,
  Q2_K: 10,
  Q3_K: 11,
  Q4_K: 12,
  Q5_K: 13,
  Q6_K: 14,
  IQ4_NL: 20,
  IQ4_XS: 23,
  BF16: 30,
};

/** A metadata value; a string may be given as bytes that need not be UTF-8. */
export type ScalarValue = string | Uint8Array | number | bigint | boolean;

/** What a field of the header is. */
export type FieldClass =
  | "magic"
  | "version"
  | "count"
  | "keyLength"
  | "key"
  | "valueType"
  | "elementType"
  | "arrayLength"
  | "stringLength"
  | "value"
  | "nameLength"
  | "name"
  | "dimensions"
  | "dimension"
  | "tensorType"
  | "offset"
  | "data";

/** A field's place in the bytes that `GgufWriter.build` gives. */
export interface Field {
  readonly class: FieldClass;
  /** What it belongs to: "header", a metadata key, or "tensor NAME". */
  readonly owner: string;
  readonly offset: number;
  readonly length: number;
}

export interface BuiltGguf {
  readonly bytes: Uint8Array;
  readonly fields: readonly Field[];
}

interface WriterTensor {
  readonly name: string;
  readonly type: number;
  readonly shape: readonly number[];
  readonly data: Uint8Array;
}

type Value =
  | { readonly type: ScalarTypeName; readonly scalar: ScalarValue }
  | { readonly type: ScalarTypeName; readonly elements: ArrayLike<ScalarValue> };

export interface GgufWriterOptions {
  /** Default 3. */
  readonly version?: number;
  /** Where tensors' data begin, in the file; written as general.alignment when it is given. Default 32. */
  readonly alignment?: number;
}

export class GgufWriter {
  readonly #version: number;
  readonly #alignment: number;
  readonly #metadata: (readonly [key: string, value: Value])[] = [];
  readonly #tensors: WriterTensor[] = [];

  constructor(options: GgufWriterOptions = {}) {
    this.#version = options.version ?? 3;
    this.#alignment = options.alignment ?? 32;
    if (options.alignment !== undefined) this.set("general.alignment", "uint32", options.alignment);
  }

  /** Adds a scalar. A key may be added twice: that is a wrong file. */
  set(key: string, type: ScalarTypeName, value: ScalarValue): this {
    this.#metadata.push([key, { type, scalar: value }]);
    return this;
  }

  setArray(key: string, type: ScalarTypeName, elements: ArrayLike<ScalarValue>): this {
    this.#metadata.push([key, { type, elements }]);
    return this;
  }

  /** Takes the key out again, so that a test can leave one out or set it otherwise. */
  remove(key: string): this {
    const index = this.#metadata.findIndex(([other]) => other === key);
    if (index < 0) throw new Error(`no key ${key} to remove`);
    this.#metadata.splice(index, 1);
    return this;
  }

  /** Adds a tensor, `shape` innermost first; `data` is values to encode, or the bytes as they are. */
  tensor(name: string, dtype: DType, shape: readonly number[], data: Float32Array | Float64Array | Uint8Array): this {
    const bytes = data instanceof Uint8Array ? data : encodeTensor(dtype, data);
    this.#tensors.push({ name, type: tensorTypeNumbers[dtype], shape, data: bytes });
    return this;
  }

  /** Takes a tensor out again. */
  removeTensor(name: string): this {
    const index = this.#tensors.findIndex((tensor) => tensor.name === name);
    if (index < 0) throw new Error(`no tensor ${name} to remove`);
    this.#tensors.splice(index, 1);
    return this;
  }

  build(): BuiltGguf {
    const sink = new Sink();
    sink.bytes("magic", "header", new TextEncoder().encode("GGUF"));
    sink.scalar("version", "header", "uint32", this.#version);
    sink.scalar("count", "header", "uint64", BigInt(this.#tensors.length));
    sink.scalar("count", "header", "uint64", BigInt(this.#metadata.length));
    for (const [key, value] of this.#metadata) {
      sink.string("keyLength", "key", key, key);
      sink.value(key, value);
    }
    let offset = 0;
    for (const tensor of this.#tensors) {
      const owner = `tensor ${tensor.name}`;
      sink.string("nameLength", "name", owner, tensor.name);
      sink.scalar("dimensions", owner, "uint32", tensor.shape.length);
      for (const size of tensor.shape) sink.scalar("dimension", owner, "uint64", BigInt(size));
      sink.scalar("tensorType", owner, "uint32", tensor.type);
      sink.scalar("offset", owner, "uint64", BigInt(offset));
      offset += Math.ceil(tensor.data.length / this.#alignment) * this.#alignment;
    }
    for (const tensor of this.#tensors) {
      sink.pad(this.#alignment);
      sink.bytes("data", `tensor ${tensor.name}`, tensor.data);
    }
    if (this.#tensors.length === 0) sink.pad(this.#alignment);
    return sink.finish();
  }

  write(path: string): void {
    writeFileSync(path, this.build().bytes);
  }
}

/** Collects little-endian bytes and where each field lies. */
class Sink {
  #bytes = new Uint8Array(64 * 1024);
  #length = 0;
  readonly #fields: Field[] = [];

  bytes(fieldClass: FieldClass, owner: string, bytes: Uint8Array): void {
    const offset = this.#reserve(bytes.length);
    this.#bytes.set(bytes, offset);
    this.#fields.push({ class: fieldClass, owner, offset, length: bytes.length });
  }

  string(lengthClass: FieldClass, fieldClass: FieldClass, owner: string, value: string | Uint8Array): void {
    const bytes = typeof value === "string" ? new TextEncoder().encode(value) : value;
    this.scalar(lengthClass, owner, "uint64", BigInt(bytes.length));
    this.bytes(fieldClass, owner, bytes);
  }

  value(key: string, value: Value): void {
    if (!("elements" in value)) {
      this.scalar("valueType", key, "uint32", valueTypeNumbers[value.type]);
      this.scalar("value", key, value.type, value.scalar);
      return;
    }
    this.scalar("valueType", key, "uint32", valueTypeNumbers.array);
    this.scalar("elementType", key, "uint32", valueTypeNumbers[value.type]);
    this.scalar("arrayLength", key, "uint64", BigInt(value.elements.length));
    for (let index = 0; index < value.elements.length; index++) {
      this.scalar("value", key, value.type, value.elements[index] ?? 0);
    }
  }

  scalar(fieldClass: FieldClass, owner: string, type: ScalarTypeName, value: ScalarValue): void {
    if (type === "string") {
      this.string("stringLength", fieldClass, owner, value instanceof Uint8Array ? value : String(value));
      return;
    }
    const view = new DataView(new ArrayBuffer(8));
    const length = putScalar(view, type, value);
    this.bytes(fieldClass, owner, new Uint8Array(view.buffer, 0, length));
  }

  pad(alignment: number): void {
    this.#reserve(Math.ceil(this.#length / alignment) * alignment - this.#length);
  }

  finish(): BuiltGguf {
    return { bytes: this.#bytes.slice(0, this.#length), fields: this.#fields };
  }

  #reserve(count: number): number {
    const offset = this.#length;
    this.#length += count;
    if (this.#length > this.#bytes.length) {
      const grown = new Uint8Array(this.#length * 2);
      grown.set(this.#bytes);
      this.#bytes = grown;
    }
    return offset;
  }
}

/** Writes a number at the view's start and gives its bytes' count. */
function putScalar(view: DataView, type: Exclude<ScalarTypeName, "string">, value: ScalarValue): number {
  const number = Number(value);
  switch (type) {
    case "uint8":
      view.setUint8(0, number);
      return 1;
    case "int8":
      view.setInt8(0, number);
      return 1;
    case "bool":
      view.setUint8(0, number);
      return 1;
    case "uint16":
      view.setUint16(0, number, true);
      return 2;
    case "int16":
      view.setInt16(0, number, true);
      return 2;
    case "uint32":
      view.setUint32(0, number, true);
      return 4;
    case "int32":
      view.setInt32(0, number, true);
      return 4;
    case "float32":
      view.setFloat32(0, number, true);
      return 4;
    case "uint64":
      view.setBigUint64(0, toBigInt(value), true);
      return 8;
    case "int64":
      view.setBigInt64(0, toBigInt(value), true);
      return 8;
    case "float64":
      view.setFloat64(0, number, true);
      return 8;
  }
}

function toBigInt(value: ScalarValue): bigint {
  return typeof value === "bigint" ? value : BigInt(Number(value));
}
