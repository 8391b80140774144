// Damages a good GGUF file, one field at a time and reproducibly: numbers at and around their bounds, bytes that are no text,
// fields left out, doubled, moved or cut short. It does not know which damage a reader must refuse.

import type { BuiltGguf, Field, FieldClass } from "./gguf-writer.ts";
import { Random } from "./random.ts";

export interface Mutation {
  /** Enough to find the field and what was done to it. */
  readonly description: string;
  readonly fieldClass: FieldClass;
  readonly bytes: Uint8Array;
}

/** Fields that hold a number of up to 64 bits; "value" is one or a string's bytes. */
const numberClasses: ReadonlySet<FieldClass> = new Set<FieldClass>([
  "version",
  "count",
  "keyLength",
  "valueType",
  "elementType",
  "arrayLength",
  "stringLength",
  "nameLength",
  "dimensions",
  "dimension",
  "tensorType",
  "offset",
]);

/** Mutations without end: of any class in turn, or of `classes` only. The same seed gives the same ones. */
export function* mutations(
  built: BuiltGguf,
  seed: number,
  classes?: readonly FieldClass[],
): Generator<Mutation, never, undefined> {
  const random = new Random(seed);
  // By class and then by owner, so that a vocabulary's hundreds of values do not crowd out the rest.
  const byClass = Map.groupBy(built.fields, (field) => field.class);
  const owners = new Map(
    [...byClass].map(([name, fields]) => [name, [...Map.groupBy(fields, (field) => field.owner).values()]]),
  );
  const chosen = classes ?? [...byClass.keys()];
  for (;;) {
    const fieldClass = random.pick(chosen);
    const field = random.pick(random.pick(owners.get(fieldClass) ?? []));
    const [what, bytes] = mutate(built, field, random);
    const description = `${fieldClass} of ${JSON.stringify(field.owner)} at byte ${field.offset}: ${what}`;
    yield { description, fieldClass, bytes };
  }
}

type Mutated = readonly [what: string, bytes: Uint8Array];

function mutate(built: BuiltGguf, field: Field, random: Random): Mutated {
  // Most mutations change the field in its place; the others shift all that follows it.
  if (random.below(5) === 0) return restructure(built, field, random);
  if (field.length === 0) return insert(built.bytes, field.offset, random.bytes(1));
  if (random.below(6) === 0) return flipBit(built.bytes, field, random);
  if (random.below(5) === 0) return copyAnother(built, field, random);
  if (numberClasses.has(field.class)) return setNumber(built.bytes, field, random);
  return random.below(2) === 0 && field.length <= 8
    ? setNumber(built.bytes, field, random)
    : setBytes(built.bytes, field, random);
}

function restructure(built: BuiltGguf, field: Field, random: Random): Mutated {
  const { bytes } = built;
  const end = field.offset + field.length;
  switch (random.below(5)) {
    case 0: {
      const length = field.offset + random.below(field.length + 1);
      return [`file cut to ${length} bytes`, bytes.slice(0, length)];
    }
    case 1:
      return ["left out", concatenate(bytes.subarray(0, field.offset), bytes.subarray(end))];
    case 2:
      return ["doubled", concatenate(bytes.subarray(0, end), bytes.subarray(field.offset))];
    case 3:
      return insert(bytes, field.offset, random.bytes(1 + random.below(16)));
    default: {
      const others = built.fields.filter((other) => other.class === field.class && other.length !== field.length);
      if (others.length === 0) return flipBit(bytes, field, random);
      const other = random.pick(others);
      const copy = bytes.subarray(other.offset, other.offset + other.length);
      return [
        `replaced by that of byte ${other.offset}`,
        concatenate(bytes.subarray(0, field.offset), copy, bytes.subarray(end)),
      ];
    }
  }
}

function insert(bytes: Uint8Array, offset: number, added: Uint8Array): Mutated {
  return [`${added.length} bytes put before`, concatenate(bytes.subarray(0, offset), added, bytes.subarray(offset))];
}

function flipBit(bytes: Uint8Array, field: Field, random: Random): Mutated {
  if (field.length === 0) return insert(bytes, field.offset, random.bytes(1));
  const mutated = bytes.slice();
  const offset = field.offset + random.below(field.length);
  const bit = random.below(8);
  mutated[offset] = (mutated[offset] ?? 0) ^ (1 << bit);
  return [`bit ${bit} of byte ${offset} flipped`, mutated];
}

/** Puts another field's bytes, of the same class and length, here: doubled names, overlapping tensors. */
function copyAnother(built: BuiltGguf, field: Field, random: Random): Mutated {
  const others = built.fields.filter(
    (other) => other !== field && other.class === field.class && other.length === field.length,
  );
  if (others.length === 0) return flipBit(built.bytes, field, random);
  const other = random.pick(others);
  const mutated = built.bytes.slice();
  mutated.copyWithin(field.offset, other.offset, other.offset + other.length);
  return [`made that of byte ${other.offset}`, mutated];
}

function setNumber(bytes: Uint8Array, field: Field, random: Random): Mutated {
  const width = Math.min(field.length, 8);
  let value = 0n;
  for (let index = width - 1; index >= 0; index--) value = value * 256n + BigInt(bytes[field.offset + index] ?? 0);
  const small = BigInt(random.below(64));
  const power = 1n << BigInt(random.below(64));
  const wanted = random.pick([
    0n,
    1n,
    small,
    value + 1n,
    value - 1n,
    value + small,
    value * 2n,
    value / 2n,
    power,
    power - 1n,
    -1n,
    -power,
  ]);
  const mutated = bytes.slice();
  for (let index = 0; index < width; index++) {
    mutated[field.offset + index] = Number(BigInt.asUintN(64, wanted >> BigInt(8 * index)) & 255n);
  }
  return [`${value} made ${BigInt.asUintN(8 * width, wanted)}`, mutated];
}

/** Infinity and NaN as float32, a lone surrogate, an overlong and a cut UTF-8 sequence, controls, and byte tokens that are none. */
const hostileBytes: readonly (readonly number[])[] = [
  [0x00, 0x00, 0x80, 0x7f],
  [0x00, 0x00, 0xc0, 0x7f],
  [0xed, 0xa0, 0x80],
  [0xc0, 0x80],
  [0xf0, 0x9f],
  [0x1b, 0x5b, 0x32, 0x4a],
  [...new TextEncoder().encode("<0x-1>")],
  [...new TextEncoder().encode("<0xGG>")],
  [...new TextEncoder().encode("__proto__")],
];

function setBytes(bytes: Uint8Array, field: Field, random: Random): Mutated {
  const mutated = bytes.slice();
  const count = 1 + random.below(Math.min(field.length, 64));
  const start = field.offset + random.below(field.length - count + 1);
  const added = random.pick([
    new Array<number>(count).fill(0),
    new Array<number>(count).fill(255),
    random.bytes(count),
    ...hostileBytes,
  ]);
  const fitting = added.slice(0, field.offset + field.length - start);
  mutated.set(fitting, start);
  return [`bytes ${start} to ${start + fitting.length - 1} made ${Buffer.from(fitting).toString("hex")}`, mutated];
}

function concatenate(...parts: readonly Uint8Array[]): Uint8Array {
  return Uint8Array.from(Buffer.concat(parts));
}
