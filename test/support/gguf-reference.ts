// A second reader of GGUF, for the fuzz test alone: as plain as can be, on the whole file in memory and in BigInt, so that it
// shares no arithmetic with the product. It says whether a file is good, and which field is the first bad one.

import type { DType } from "../../src/model/file.ts";
import { blockSize } from "./formats.ts";
import { type ScalarTypeName, type ScalarValue, tensorTypeNumbers, valueTypeNumbers } from "./gguf-writer.ts";

export interface ReferenceValue {
  readonly type: ScalarTypeName;
  readonly value: ScalarValue | readonly ScalarValue[];
}

export interface ReferenceTensor {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly bigint[];
  readonly byteOffset: bigint;
  readonly byteLength: bigint;
}

export interface ReferenceFile {
  readonly version: number;
  readonly metadata: ReadonlyMap<string, ReferenceValue>;
  readonly tensors: ReadonlyMap<string, ReferenceTensor>;
}

/** Why a file is bad: the field as the product's errors name it. */
export class Refusal extends Error {
  readonly field: string;

  constructor(field: string) {
    super(field);
    this.field = field;
  }
}

const valueTypes = new Map<number, string>(Object.entries(valueTypeNumbers).map(([name, number]) => [number, name]));
const dtypes = new Map(Object.entries(tensorTypeNumbers).map(([name, number]) => [number, name as DType]));
const safe = BigInt(Number.MAX_SAFE_INTEGER);

/**
 * Reads a GGUF file of a few kilobytes.
 * @throws {Refusal} if it is bad.
 */
export function readReference(bytes: Uint8Array): ReferenceFile {
  const cursor = new Cursor(bytes);
  if (bytes.length === 0) throw new Refusal("file");
  if (new TextDecoder("latin1").decode(bytes.subarray(0, 4)) !== "GGUF") throw new Refusal("header.magic");
  cursor.take(4n, "header.magic");
  const version = Number(cursor.unsigned(4, "header.version"));
  if (version !== 2 && version !== 3) throw new Refusal("header.version");
  // A tensor's entry has at least a name of 1 byte, 1 dimension, type and offset; a key's at least 1 byte and a value of 1.
  const tensorCount = cursor.count("header.tensor_count", 33n);
  const metadataCount = cursor.count("header.metadata_count", 14n);
  const metadata = new Map<string, ReferenceValue>();
  for (let index = 1; index <= metadataCount; index++) {
    const key = cursor.name(`metadata entry ${index} of ${metadataCount}, key`, 65_535n);
    if (metadata.has(key)) throw new Refusal(escaped(key));
    metadata.set(key, cursor.value(escaped(key)));
  }
  if (unsignedOf(metadata, "split.count", 1n) > 1n) throw new Refusal("split.count");
  const alignment = unsignedOf(metadata, "general.alignment", 32n);
  if (
    ![3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21].some(
      (bit) => alignment === 1n << BigInt(bit),
    )
  ) {
    throw new Refusal("general.alignment");
  }
  const places = new Map<string, ReferenceTensor>();
  for (let index = 1; index <= tensorCount; index++) {
    const tensor = cursor.tensor(index, alignment, (name) => places.has(name));
    places.set(tensor.name, tensor);
  }
  const start = ((cursor.position + alignment - 1n) / alignment) * alignment;
  const tensors = new Map<string, ReferenceTensor>();
  for (const [name, place] of places) tensors.set(name, { ...place, byteOffset: start + place.byteOffset });
  checkPlaces([...tensors.values()], BigInt(bytes.length));
  return { version, metadata, tensors };
}

function checkPlaces(tensors: ReferenceTensor[], fileLength: bigint): void {
  const ascending = tensors.sort((a, b) => (a.byteOffset < b.byteOffset ? -1 : a.byteOffset > b.byteOffset ? 1 : 0));
  let end = 0n;
  for (const tensor of ascending) {
    const next = tensor.byteOffset + tensor.byteLength;
    if (next > fileLength || tensor.byteOffset < end) throw new Refusal(`tensor ${escaped(tensor.name)}`);
    end = next;
  }
}

function unsignedOf(metadata: ReadonlyMap<string, ReferenceValue>, key: string, fallback: bigint): bigint {
  const entry = metadata.get(key);
  if (entry === undefined) return fallback;
  const { value } = entry;
  const whole =
    typeof value === "bigint" || (typeof value === "number" && Number.isInteger(value)) ? BigInt(value) : -1n;
  if (whole < 0n || whole > safe) throw new Refusal(key);
  return whole;
}

/** As the product shows names in messages. */
function escaped(text: string): string {
  const cut = text.length > 120 ? `${text.slice(0, 120)}…` : text;
  return cut.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (character) => {
    const assigned = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u.test(character);
    return assigned ? `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}` : character;
  });
}

class Cursor {
  position = 0n;
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  take(count: bigint, field: string): Uint8Array {
    if (this.position + count > BigInt(this.#bytes.length)) throw new Refusal(field);
    const start = Number(this.position);
    this.position += count;
    return this.#bytes.slice(start, start + Number(count));
  }

  unsigned(byteCount: number, field: string): bigint {
    return this.take(BigInt(byteCount), field).reduceRight((value, byte) => value * 256n + BigInt(byte), 0n);
  }

  unsigned64(field: string): bigint {
    const value = this.unsigned(8, field);
    if (value > safe) throw new Refusal(field);
    return value;
  }

  count(field: string, bytesEach: bigint): number {
    const count = this.unsigned64(field);
    if (this.position + count * bytesEach > BigInt(this.#bytes.length)) throw new Refusal(field);
    return Number(count);
  }

  string(field: string, bytesMax: bigint): Uint8Array {
    const length = this.unsigned64(field);
    if (length > bytesMax) throw new Refusal(field);
    return this.take(length, field);
  }

  name(field: string, bytesMax: bigint): string {
    const bytes = this.string(field, bytesMax);
    const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
    // Decoding what is not UTF-8 does not come back.
    if (text === "" || Buffer.compare(Buffer.from(text), bytes) !== 0) throw new Refusal(field);
    return text;
  }

  value(field: string): ReferenceValue {
    const type = this.#type(field);
    if (type !== "array") return { type, value: this.#scalar(field, type) };
    const elementType = this.#type(field);
    if (elementType === "array") throw new Refusal(field);
    const length = this.count(`${field}, length`, BigInt(sizes[elementType]));
    return { type: elementType, value: Array.from({ length }, () => this.#scalar(field, elementType)) };
  }

  tensor(index: number, alignment: bigint, isKnown: (name: string) => boolean): ReferenceTensor {
    const name = this.name(`tensor ${index}, name`, 64n);
    const field = `tensor ${escaped(name)}`;
    const refuseIf = (bad: boolean): void => {
      if (bad) throw new Refusal(field);
    };
    refuseIf(isKnown(name));
    const dimensions = Number(this.unsigned(4, field));
    refuseIf(dimensions < 1 || dimensions > 4);
    const shape = Array.from({ length: dimensions }, () => this.unsigned64(field));
    refuseIf(shape.includes(0n));
    const dtype = dtypes.get(Number(this.unsigned(4, field)));
    if (dtype === undefined) throw new Refusal(field);
    const byteOffset = this.unsigned64(field);
    refuseIf(byteOffset % alignment !== 0n);
    const block = blockSize(dtype);
    refuseIf((shape[0] ?? 0n) % BigInt(block.columns) !== 0n);
    const values = shape.reduce((product, size) => product * size, 1n);
    const byteLength = (values / BigInt(block.columns)) * BigInt(block.bytes);
    refuseIf(values > safe || byteLength > safe);
    return { name, dtype, shape, byteOffset, byteLength };
  }

  #type(field: string): ScalarTypeName | "array" {
    const type = valueTypes.get(Number(this.unsigned(4, field)));
    if (type === undefined) throw new Refusal(field);
    return type as ScalarTypeName | "array";
  }

  #scalar(field: string, type: ScalarTypeName): ScalarValue {
    if (type === "string") return this.string(field, 1n << 24n);
    const bits = this.unsigned(sizes[type], field);
    switch (type) {
      case "bool":
        if (bits > 1n) throw new Refusal(field);
        return bits === 1n;
      case "float32":
        return new Float32Array(new Uint32Array([Number(bits)]).buffer)[0] ?? 0;
      case "float64":
        return new Float64Array(new BigUint64Array([bits]).buffer)[0] ?? 0;
      case "uint64":
        return bits;
      case "int64":
        return BigInt.asIntN(64, bits);
      default:
        return Number(type.startsWith("int") ? BigInt.asIntN(8 * sizes[type], bits) : bits);
    }
  }
}

const sizes: Readonly<Record<ScalarTypeName, number>> = {
  uint8: 1,
  int8: 1,
  bool: 1,
  uint16: 2,
  int16: 2,
  uint32: 4,
  int32: 4,
  float32: 4,
  // The least a string takes: its length.
  string: 8,
  uint64: 8,
  int64: 8,
  float64: 8,
};
