// The safetensors reader: what it gives of a good file, and that it takes exactly the files that an independent reader takes,
// which marks the bytes that tensors use one by one.

import { describe, expect, test } from "bun:test";
import { ModelFileError } from "../../src/errors.ts";
import { openSafetensors } from "../../src/model/safetensors.ts";
import { temporaryFolder } from "../support/folder.ts";
import { Random } from "../support/random.ts";
import {
  safetensorsBytes,
  safetensorsParts,
  type WrittenTensor,
  writtenTensor,
} from "../support/safetensors-writer.ts";

const folder = temporaryFolder();

const tensors = new Map<string, WrittenTensor>([
  ["a.weight", writtenTensor("F32", [2, 3], [1, 2, 3, 4, 5, 6])],
  ["b", writtenTensor("F16", [4], [1, 2, 3, 4])],
  ["ids", { dtype: "I64", shape: [1, 2], bytes: new Uint8Array(16) }],
  ["empty", { dtype: "F32", shape: [0, 4], bytes: new Uint8Array(0) }],
  ["scalar", { dtype: "BF16", shape: [], bytes: new Uint8Array(2) }],
]);

function open(bytes: Uint8Array) {
  return openSafetensors(folder.write("model.safetensors", bytes));
}

test("tensors come with their shape and their place from the file's start", () => {
  const bytes = safetensorsBytes(safetensorsParts(tensors));
  const file = open(bytes);
  expect([...file.tensors.keys()]).toEqual([...tensors.keys()]);
  for (const [name, { dtype, shape, bytes: data }] of tensors) {
    const entry = file.tensors.get(name);
    expect(entry).toMatchObject({ name, dtype, shape, byteLength: data.length });
    const begin = entry?.byteOffset ?? 0;
    expect(bytes.slice(begin, begin + data.length)).toEqual(new Uint8Array(data));
  }
});

describe("a bad file is refused, naming the field and what is wrong:", () => {
  const good = safetensorsParts(tensors);
  const changed = (name: string, change: Record<string, unknown>) =>
    safetensorsBytes({
      header: { ...good.header, [name]: { ...good.header[name], ...change } as never },
      data: good.data,
    });
  const raw = (header: string, data = 0) => {
    const bytes = Buffer.alloc(8 + header.length + data);
    bytes.writeBigUInt64LE(BigInt(header.length));
    bytes.write(header, 8, "latin1");
    return bytes;
  };
  const whole = safetensorsBytes(good);
  test.each([
    ["no length", whole.slice(0, 5), "header.length", "cut short"],
    ["a length beyond the file", whole.slice(0, 100), "header.length", "bytes are left in the file"],
    ["a header that is no JSON", raw("{"), "header", "is not JSON"],
    ["a header that is no UTF-8", raw('{"\xff":1}'), "header", "is not JSON in UTF-8"],
    ["a header that is a list", raw("[]"), "header", "is not an object"],
    ["an entry that is none", raw('{"a":3}'), "tensor a", "has no entry"],
    ["a dtype that is unknown", changed("b", { dtype: "Q4" }), "tensor b", "has the type Q4"],
    ["a dtype of a prototype", changed("b", { dtype: "toString" }), "tensor b", "has the type toString"],
    ["a negative size", changed("b", { shape: [-4] }), "tensor b", "has a shape that is none"],
    ["a fraction as a size", changed("b", { shape: [4.5] }), "tensor b", "has a shape that is none"],
    ["nine dimensions", changed("b", { shape: [4, 1, 1, 1, 1, 1, 1, 1, 1] }), "tensor b", "has a shape that is none"],
    ["one offset", changed("b", { data_offsets: [24] }), "tensor b", "has no place"],
    ["too few bytes for the shape", changed("b", { shape: [5] }), "tensor b", "in F16 takes 10"],
    [
      "an end before the beginning",
      changed("b", { data_offsets: [32, 24] }),
      "tensor b",
      "takes the bytes from 32 to 24",
    ],
    ["an overlap", changed("b", { data_offsets: [16, 24] }), "tensor b", "begins at byte"],
    ["a hole", changed("b", { data_offsets: [40, 48] }), "tensor ids", "begins at byte"],
    ["data cut short", whole.slice(0, -1), "tensor scalar", "the download is cut short"],
    ["data behind the last tensor", new Uint8Array([...whole, 0]), "file", "its tensors end at"],
  ] as const)("%s", (_, bytes, field, problem) => {
    let error: unknown;
    try {
      open(bytes);
    } catch (caught) {
      error = caught;
    }
    expect(error).toBeInstanceOf(ModelFileError);
    expect(error).toMatchObject({ field });
    expect(String(error)).toContain(problem);
  });
});

/** Whether a file is one: every byte behind the header is of exactly one tensor, and each is as long as it says. */
function isGood(bytes: Uint8Array): boolean {
  const sizes: Readonly<Record<string, bigint>> = {
    BOOL: 8n,
    F4: 4n,
    F6_E2M3: 6n,
    F6_E3M2: 6n,
    U8: 8n,
    I8: 8n,
    F8_E5M2: 8n,
    F8_E4M3: 8n,
    F8_E8M0: 8n,
    I16: 16n,
    U16: 16n,
    F16: 16n,
    BF16: 16n,
    I32: 32n,
    U32: 32n,
    F32: 32n,
    C64: 64n,
    F64: 64n,
    I64: 64n,
    U64: 64n,
  };
  try {
    const buffer = Buffer.from(bytes);
    const length = Number(buffer.readBigUInt64LE());
    if (length > bytes.length - 8) return false;
    const json = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes.slice(8, 8 + length)));
    if (typeof json !== "object" || json === null || Array.isArray(json)) return false;
    const uses = new Uint8Array(bytes.length - 8 - length);
    const ends = new Set([0]);
    const empty: number[] = [];
    for (const [name, entry] of Object.entries<Record<string, readonly unknown[]>>(json)) {
      if (name === "__metadata__") continue;
      const { shape = [], data_offsets: [begin, end, ...more] = [] } = entry;
      if (shape.length > 8 || more.length > 0) return false;
      const bits = shape.reduce<bigint>(
        (product, size) => product * natural(size),
        sizes[String(entry["dtype"])] ?? natural(-1),
      );
      if (8n * (natural(end) - natural(begin)) !== bits || Number(end) > uses.length) return false;
      for (let byte = Number(begin); byte < Number(end); byte++) uses[byte] = (uses[byte] ?? 0) + 1;
      if (begin === end) empty.push(Number(begin));
      else ends.add(Number(end));
    }
    return uses.every((count) => count === 1) && empty.every((place) => ends.has(place));
  } catch {
    return false;
  }
}

function natural(size: unknown): bigint {
  if (typeof size !== "number" || size < 0) throw new RangeError("no size");
  return BigInt(size);
}

test("ten thousand damaged files are taken exactly where an independent reader takes them", () => {
  const random = new Random(1);
  const small = safetensorsParts(
    new Map([
      ["x", writtenTensor("F32", [2, 2], [1, 2, 3, 4])],
      ["y", writtenTensor("F16", [3], [1, 2, 3])],
      ["z", { dtype: "U8", shape: [1, 5], bytes: new Uint8Array(5) }],
    ]),
  );
  const values = [
    0,
    1,
    2,
    3,
    4,
    5,
    6,
    16,
    22,
    27,
    -1,
    0.5,
    1e300,
    2 ** 53,
    "F32",
    "U8",
    "F64",
    null,
    [],
    {},
    [4],
    [2, 3],
  ];
  let good = 0;
  for (let count = 0; count < 10_000; count++) {
    const header = structuredClone(small.header) as Record<string, Record<string, unknown>>;
    const changes = 1 + random.below(2);
    for (let change = 0; change < changes; change++) {
      const entry = header[random.pick(["x", "y", "z"])] ?? {};
      const field = random.pick(["dtype", "shape", "data_offsets"]);
      const list = entry[field];
      if (Array.isArray(list) && random.below(3) > 0) list[random.below(list.length + 1)] = random.pick(values);
      else if (random.below(4) === 0) delete entry[field];
      else entry[field] = random.pick(values);
    }
    const bytes = safetensorsBytes({ header: header as never, data: small.data });
    if (random.below(4) === 0) bytes[random.below(bytes.length)] = random.below(256);
    const cut = random.below(10) === 0 ? bytes.slice(0, random.below(bytes.length)) : bytes;
    const expected = isGood(cut);
    let taken = true;
    try {
      open(cut);
    } catch (error) {
      if (!(error instanceof ModelFileError)) throw error;
      taken = false;
    }
    if (taken !== expected) throw new Error(`${taken ? "took" : "refused"} ${Buffer.from(cut).toString("latin1")}`);
    if (taken) good++;
  }
  // Both kinds are among them.
  expect(good).toBeGreaterThan(50);
});
