// The GGUF reader against files from the independent writer: whole ones come back as they were written, and each kind of
// damage ends in an error that names the file, the field and what is wrong.

import { describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, symlinkSync, truncateSync } from "node:fs";
import fc from "fast-check";
import { ModelFileError } from "../../src/errors.ts";
import { type DType, dtypeBlocks, type ModelFile } from "../../src/model/file.ts";
import { openGguf } from "../../src/model/gguf.ts";
import { temporaryFolder } from "../support/folder.ts";
import { blockSize, decodeTensor } from "../support/formats.ts";
import {
  type BuiltGguf,
  type Field,
  type FieldClass,
  GgufWriter,
  type ScalarTypeName,
  type ScalarValue,
  tensorTypeNumbers,
} from "../support/gguf-writer.ts";
import { Random } from "../support/random.ts";

const folder = temporaryFolder();
const dtypes = Object.keys(tensorTypeNumbers) as DType[];

function open(bytes: Uint8Array): ModelFile {
  return openGguf(folder.write("model.gguf", bytes));
}

/** The error of opening `bytes`, which must be a ModelFileError that names the file. */
function refusal(bytes: Uint8Array): ModelFileError {
  return refusalOf(folder.write("model.gguf", bytes));
}

function refusalOf(path: string): ModelFileError {
  try {
    openGguf(path);
  } catch (error) {
    expect(error).toBeInstanceOf(ModelFileError);
    const refused = error as ModelFileError;
    expect(refused.path).toBe(path);
    expect(refused.message).toStartWith(`${path}: ${refused.field}: `);
    return refused;
  }
  throw new Error("the file was accepted");
}

/** One key of each scalar type, one array of each, and three tensors. */
function sample(version = 3): BuiltGguf {
  return sampleWriter(version).build();
}

function sampleWriter(version = 3): GgufWriter {
  const random = new Random(7);
  const values = (count: number): Float32Array => Float32Array.from({ length: count }, () => random.normal());
  return new GgufWriter({ version, alignment: 64 })
    .set("general.architecture", "string", "llama")
    .set("a.number", "uint32", 17)
    .set("a.flag", "bool", true)
    .setArray("a.list", "int32", [3, -1, 4])
    .setArray("a.words", "string", ["one", "zwei", "трі"])
    .tensor("first", "F32", [8, 2], values(16))
    .tensor("second", "Q8_0", [64], values(64))
    .tensor("third", "F16", [2, 3, 4, 5], values(120));
}

function fieldOf(built: BuiltGguf, owner: string, fieldClass: FieldClass, which = 0): Field {
  const field = built.fields.filter((candidate) => candidate.owner === owner && candidate.class === fieldClass)[which];
  if (field === undefined) throw new Error(`no ${fieldClass} of ${owner}`);
  return field;
}

/** A copy of the file with one field's little-endian number replaced. */
function withNumber(built: BuiltGguf, owner: string, fieldClass: FieldClass, value: bigint, which = 0): Uint8Array {
  const field = fieldOf(built, owner, fieldClass, which);
  const bytes = built.bytes.slice();
  for (let index = 0; index < field.length; index++) {
    bytes[field.offset + index] = Number((value >> BigInt(8 * index)) & 255n);
  }
  return bytes;
}

function withBytes(
  built: BuiltGguf,
  owner: string,
  fieldClass: FieldClass,
  replacement: readonly number[],
): Uint8Array {
  const bytes = built.bytes.slice();
  bytes.set(replacement, fieldOf(built, owner, fieldClass).offset);
  return bytes;
}

describe("a whole file", () => {
  test.each([2, 3])("of version %d comes back as it was written", (version) => {
    const built = sample(version);
    const file = open(built.bytes);
    expect(file.version).toBe(version);
    expect(file.format).toBe("gguf");
    expect(file.byteLength).toBe(built.bytes.length);
    expect(file.metadata.keys()).toEqual([
      "general.alignment",
      "general.architecture",
      "a.number",
      "a.flag",
      "a.list",
      "a.words",
    ]);
    expect(file.metadata.string("general.architecture")).toBe("llama");
    expect([...file.tensors.keys()]).toEqual(["first", "second", "third"]);
    for (const tensor of file.tensors.values()) {
      const data = fieldOf(built, `tensor ${tensor.name}`, "data");
      expect(tensor.byteOffset).toBe(data.offset);
      expect(tensor.byteLength).toBe(data.length);
      expect(tensor.byteOffset % 64).toBe(0);
    }
    expect(file.tensors.get("third")?.shape).toEqual([2, 3, 4, 5]);
  });

  test.each(dtypes)("with a tensor in %s gives the place of its bytes", (dtype) => {
    const random = new Random(11);
    const { columns, bytes: blockBytes } = blockSize(dtype);
    const values = Float64Array.from({ length: columns * 6 }, () => random.normal());
    const built = new GgufWriter().tensor("weights", dtype, [columns * 2, 3], values).build();
    const tensor = open(built.bytes).tensors.get("weights");
    expect(tensor).toMatchObject({ dtype, shape: [columns * 2, 3], byteLength: 6 * blockBytes });
    const offset = tensor?.byteOffset ?? 0;
    const decoded = decodeTensor(dtype, built.bytes.slice(offset, offset + 6 * blockBytes));
    // The coarsest format has two bits a value and is off by about a third.
    const error = decoded.reduce((sum, value, index) => sum + (value - (values[index] ?? 0)) ** 2, 0);
    const power = values.reduce((sum, value) => sum + value ** 2, 0);
    expect(error / power).toBeLessThan(0.16);
  });

  test("states for every format the block that the format's layout has", () => {
    expect(Object.keys(dtypeBlocks).sort()).toEqual([...dtypes].sort());
    for (const dtype of dtypes) expect(dtypeBlocks[dtype]).toEqual(blockSize(dtype));
  });

  test("without tensors, as vocabularies come, is opened", () => {
    const file = open(new GgufWriter().setArray("tokenizer.ggml.tokens", "string", ["a", "b"]).build().bytes);
    expect(file.tensors.size).toBe(0);
    expect(file.metadata.strings("tokenizer.ggml.tokens")).toEqual(["a", "b"]);
  });

  test("may be opened through a symbolic link", () => {
    folder.write("target.gguf", sample().bytes);
    symlinkSync(folder.file("target.gguf"), folder.file("link.gguf"));
    expect(openGguf(folder.file("link.gguf")).tensors.size).toBe(3);
  });

  test("whose tensors lie in another order than its directory is opened", () => {
    const built = new GgufWriter()
      .tensor("a", "F32", [8], new Float32Array(8))
      .tensor("b", "F32", [8], new Float32Array(8))
      .build();
    const swapped = { bytes: withNumber(built, "tensor a", "offset", 32n), fields: built.fields };
    const file = open(withNumber(swapped, "tensor b", "offset", 0n));
    expect(file.tensors.get("a")?.byteOffset).toBe((file.tensors.get("b")?.byteOffset ?? 0) + 32);
  });

  // The header is read in pieces of 256 KiB at first; a field of every kind is moved over that edge, byte by byte.
  test("is read alike wherever the pieces of its header end", () => {
    const bare = sampleWriter().set("filler", "string", "").build();
    const edge = 256 * 1024;
    const headerEnd = fieldOf(bare, "tensor third", "offset").offset + 8;
    const fillerEnd = fieldOf(bare, "filler", "value").offset;
    const late = headerEnd - fillerEnd;
    const writer = (length: number): BuiltGguf => {
      const random = new Random(7);
      const values = (count: number): Float32Array => Float32Array.from({ length: count }, () => random.normal());
      return new GgufWriter({ alignment: 64 })
        .set("filler", "string", "x".repeat(length))
        .setArray("a.words", "string", ["one", "zwei", "трі"])
        .setArray("a.list", "int32", [3, -1, 4])
        .set("a.number", "uint32", 17)
        .tensor("first", "F32", [8, 2], values(16))
        .tensor("second", "Q8_0", [64], values(64))
        .build();
    };
    for (let shift = 0; shift < late + 120; shift++) {
      const built = writer(edge - 80 - shift);
      const file = open(built.bytes);
      expect(file.metadata.number("a.number")).toBe(17);
      expect(file.metadata.strings("a.words")).toEqual(["one", "zwei", "трі"]);
      expect(file.tensors.get("second")?.byteOffset).toBe(fieldOf(built, "tensor second", "data").offset);
    }
  });

  test("with a header of more than one reservation of memory is read", () => {
    const words = Array.from({ length: 1200 }, (_, index) => `${index} ${"w".repeat(30_000)}`);
    const file = open(new GgufWriter().setArray("words", "string", words).set("after", "uint8", 5).build().bytes);
    expect(file.metadata.strings("words")[1199]?.slice(0, 8)).toBe("1199 www");
    expect(file.metadata.number("after")).toBe(5);
  });
});

describe("metadata", () => {
  const integer = (low: number, high: number): fc.Arbitrary<ScalarValue> => fc.integer({ min: low, max: high });
  const scalars: Readonly<Record<ScalarTypeName, fc.Arbitrary<ScalarValue>>> = {
    uint8: integer(0, 255),
    int8: integer(-128, 127),
    uint16: integer(0, 65_535),
    int16: integer(-32_768, 32_767),
    uint32: integer(0, 2 ** 32 - 1),
    int32: integer(-(2 ** 31), 2 ** 31 - 1),
    float32: fc.float(),
    bool: fc.boolean(),
    string: fc.string({ unit: "binary" }),
    uint64: fc.bigInt(0n, 2n ** 64n - 1n),
    int64: fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n),
    float64: fc.double(),
  };
  const typeNames = Object.keys(scalars) as ScalarTypeName[];

  test.each(typeNames)("of type %s comes back, alone and in arrays", (type) => {
    fc.assert(
      fc.property(scalars[type], fc.array(scalars[type], { maxLength: 20 }), (scalar, list) => {
        const { metadata } = open(
          new GgufWriter().set("scalar", type, scalar).setArray("list", type, list).build().bytes,
        );
        const entry = metadata.entry("list");
        expect(metadata.entry("scalar")).toEqual({ type, isArray: false, value: scalar as string });
        expect([entry?.type, entry?.isArray]).toEqual([type, true]);
        if (type === "string") expect(metadata.strings("list")).toEqual(list as string[]);
        else expect(Array.from(entry?.value as ArrayLike<ScalarValue>)).toEqual(list);
      }),
      { numRuns: 50 },
    );
  });

  test("under any keys comes back in the file's order", () => {
    const key = fc.string({ unit: "binary", minLength: 1, maxLength: 40 });
    fc.assert(
      fc.property(fc.uniqueArray(key, { maxLength: 10 }), (keys) => {
        const writer = new GgufWriter();
        for (const [index, name] of keys.entries()) writer.set(name, "uint32", index);
        expect(open(writer.build().bytes).metadata.keys()).toEqual(keys);
      }),
      { numRuns: 100 },
    );
  });

  test("has strings that are not UTF-8 as bytes, and U+FFFD in their text", () => {
    const tokens = [new Uint8Array([0xff, 0x41]), "b", "", new Uint8Array([0xe6, 0x97]), "\uFEFF日"];
    const { metadata } = open(new GgufWriter().setArray("tokens", "string", tokens).build().bytes);
    expect(metadata.strings("tokens")).toEqual(["\uFFFDA", "b", "", "\uFFFD", "\uFEFF日"]);
    const { bytes, offsets } = metadata.stringBytes("tokens");
    expect([...offsets]).toEqual([0, 2, 3, 3, 5, 11]);
    expect([...bytes.subarray(0, 5)]).toEqual([0xff, 0x41, 0x62, 0xe6, 0x97]);
    expect(bytes.length).toBe(11);
  });

  const { metadata } = open(
    new GgufWriter()
      .set("text", "string", "x")
      .set("count", "uint64", 2n ** 40n)
      .set("huge", "uint64", 2n ** 60n)
      .set("half", "float64", 0.5)
      .set("negative", "int8", -3)
      .set("flag", "bool", false)
      .setArray("flags", "bool", [true, false])
      .setArray("words", "string", ["a"])
      .setArray("large", "int64", [1n, -(2n ** 40n)])
      .setArray("larger", "int64", [2n ** 60n])
      .setArray("heads", "uint32", [4, 8])
      .build().bytes,
  );

  test("gives numbers of any type as numbers, those beyond 2^53 not at all", () => {
    expect(metadata.number("count")).toBe(2 ** 40);
    expect(metadata.number("half")).toBe(0.5);
    expect(metadata.integer("count")).toBe(2 ** 40);
    expect(() => metadata.number("huge")).toThrow("huge: is 1152921504606846976, which is beyond 2^53");
    expect(Array.from(metadata.numbers("large"))).toEqual([1, -(2 ** 40)]);
    expect(() => metadata.numbers("larger")).toThrow("beyond 2^53");
  });

  test("gives whole numbers only within their bounds", () => {
    expect(metadata.integer("negative", { minimum: -5 })).toBe(-3);
    expect(() => metadata.integer("negative")).toThrow("negative: is -3; a whole number of at least 0 is expected");
    expect(() => metadata.integer("half")).toThrow("half: is 0.5; a whole number");
    expect(() => metadata.integer("count", { minimum: 1, maximum: 9 })).toThrow(
      "a whole number from 1 to 9 is expected",
    );
    expect(metadata.integer("absent", {}, 12)).toBe(12);
  });

  test("gives one value for each layer, from one number or from an array", () => {
    expect(metadata.perLayer("half", 3)).toEqual([0.5, 0.5, 0.5]);
    expect(metadata.perLayer("heads", 2)).toEqual([4, 8]);
    expect(metadata.perLayer("flags", 2)).toEqual([1, 0]);
    expect(metadata.perLayer("flag", 2)).toEqual([0, 0]);
    expect(metadata.perLayer("absent", 2, 7)).toEqual([7, 7]);
    expect(() => metadata.perLayer("heads", 3)).toThrow("heads: has 2 values for the model's 3 layers");
    expect(() => metadata.perLayer("words", 1)).toThrow("words: is array of string; a number is expected");
    expect(() => metadata.perLayer("absent", 1)).toThrow("absent: is missing");
  });

  test("of another type than the one asked for is an error with both types", () => {
    const wrong: readonly (readonly [() => unknown, string])[] = [
      [() => metadata.string("half"), "half: is float64; a string is expected"],
      [() => metadata.number("text"), "text: is string; a number is expected"],
      [() => metadata.number("heads"), "heads: is array of uint32; a number is expected"],
      [() => metadata.boolean("negative"), "negative: is int8; a boolean is expected"],
      [() => metadata.strings("heads"), "heads: is array of uint32; an array of strings is expected"],
      [() => metadata.stringBytes("text"), "text: is string; an array of strings is expected"],
      [() => metadata.numbers("words"), "words: is array of string; an array of numbers is expected"],
      [() => metadata.numbers("half"), "half: is float64; an array of numbers is expected"],
      [() => metadata.booleans("heads"), "heads: is array of uint32; an array of booleans is expected"],
    ];
    for (const [get, message] of wrong) {
      expect(get).toThrow(ModelFileError);
      expect(get).toThrow(message);
    }
  });

  test("that is absent is an error, or the fallback where one is given", () => {
    expect(metadata.string("absent", "llama")).toBe("llama");
    expect(metadata.number("absent", 0)).toBe(0);
    expect(metadata.boolean("absent", false)).toBe(false);
    const getters = [
      () => metadata.string("absent"),
      () => metadata.number("absent"),
      () => metadata.integer("absent"),
      () => metadata.boolean("absent"),
      () => metadata.strings("absent"),
      () => metadata.stringBytes("absent"),
      () => metadata.numbers("absent"),
      () => metadata.booleans("absent"),
    ];
    for (const get of getters) expect(get).toThrow("absent: is missing");
    expect(metadata.has("absent")).toBe(false);
  });
});

describe("a path", () => {
  test("without a file is an error", () => {
    expect(refusalOf(folder.file("none.gguf")).message).toContain("there is no such file; check the path");
    expect(refusalOf("").message).toContain("there is no such file");
    expect(refusalOf(`${folder.write("plain", "x")}/model.gguf`).message).toContain("is not a folder");
    expect(refusalOf(`${folder.path}/${"n".repeat(300)}`).message).toContain("its name is too long");
    expect(refusalOf("model\0.gguf").message).toContain("cannot be opened");
  });

  test("of a folder, an empty file, a device or a link to itself is an error", () => {
    mkdirSync(folder.file("folder.gguf"));
    symlinkSync("circle.gguf", folder.file("circle.gguf"));
    expect(refusalOf(folder.file("folder.gguf")).message).toContain("is a folder");
    expect(refusalOf(folder.write("empty.gguf", "")).message).toContain("is empty");
    expect(refusalOf("/dev/null").message).toContain("is not a regular file");
    expect(refusalOf(folder.file("circle.gguf")).message).toContain("go in a circle");
  });

  test("of a FIFO that nobody writes to is an error at once", () => {
    const made = Bun.spawnSync(["mkfifo", folder.file("fifo.gguf")]);
    expect(made.exitCode).toBe(0);
    expect(refusalOf(folder.file("fifo.gguf")).message).toContain("is not a regular file");
  });

  // The superuser may read everything.
  test.skipIf(process.getuid?.() === 0)("that this user may not read is an error", () => {
    const path = folder.write("secret.gguf", sample().bytes);
    chmodSync(path, 0);
    expect(refusalOf(path).message).toContain("may not read it");
  });
});

describe("what is not GGUF", () => {
  const starts: readonly (readonly [start: string, message: string])[] = [
    ["FUGG\0\0\0\x03", "a big-endian GGUF file"],
    ["lmgg\x01\0\0\0", "a GGML file"],
    ["tjgg\x03\0\0\0", "a GGJT file"],
    ["fmgg\x01\0\0\0", "a GGMF file"],
    ["PK\x03\x04rest", "a ZIP archive"],
    ["version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"],
    ["<!DOCTYPE html><html>", "a web page"],
    ["<html><body>", "a web page"],
    ["\x89PNG\r\n", "this is not a GGUF file"],
    ["GGU", "this is not a GGUF file"],
    ["G", "this is not a GGUF file"],
  ];
  test.each(starts)("%j is called by its name", (start, message) => {
    const error = refusal(Buffer.from(start, "latin1"));
    expect(error.field).toBe("header.magic");
    expect(error.message).toContain(message);
  });

  test("is shown without its control characters", () => {
    expect(refusal(Buffer.from("\x1b[2J", "latin1")).message).not.toContain("\x1b");
  });

  test.each([0n, 1n, 4n, 99n])("but has the magic and version %d is refused by that version", (version) => {
    const error = refusal(withNumber(sample(), "header", "version", version));
    expect(error.field).toBe("header.version");
    expect(error.message).toContain(`is ${version}; TinyAI reads GGUF versions 2 and 3`);
  });

  test("in big-endian order is called that", () => {
    expect(refusal(withNumber(sample(), "header", "version", 0x0300_0000n)).message).toContain(
      "a big-endian GGUF file",
    );
  });
});

describe("damage", () => {
  const built = sample();
  const past = 2n ** 60n;
  /** What is changed, where the error must point, and what it must say. */
  const damages: readonly (readonly [what: string, bytes: () => Uint8Array, field: string, message: string])[] = [
    ["2^60 tensors", () => withNumber(built, "header", "count", past), "header.tensor_count", "no file can hold"],
    ["2^60 keys", () => withNumber(built, "header", "count", past, 1), "header.metadata_count", "no file can hold"],
    [
      "2^40 tensors",
      () => withNumber(built, "header", "count", 1n << 40n),
      "header.tensor_count",
      "are left in the file",
    ],
    [
      "2^40 keys",
      () => withNumber(built, "header", "count", 1n << 40n, 1),
      "header.metadata_count",
      "are left in the file",
    ],
    [
      "a key of 2^40 bytes",
      () => withNumber(built, "a.number", "keyLength", 1n << 40n),
      "metadata entry 3 of 6, key",
      "ends at byte 1,099,511,627,",
    ],
    [
      "a key of 2^63 bytes",
      () => withNumber(built, "a.number", "keyLength", 1n << 63n),
      "metadata entry 3 of 6, key",
      "9223372036854775808",
    ],
    ["an empty key", () => withNumber(built, "a.number", "keyLength", 0n), "metadata entry 3 of 6, key", "is empty"],
    [
      "a key that is not UTF-8",
      () => withBytes(built, "a.number", "key", [0xff]),
      "metadata entry 3 of 6, key",
      "is not valid UTF-8",
    ],
    ["an unknown value type", () => withNumber(built, "a.number", "valueType", 13n), "a.number", "value type 13"],
    ["an unknown element type", () => withNumber(built, "a.list", "elementType", 99n), "a.list", "value type 99"],
    ["arrays in an array", () => withNumber(built, "a.list", "elementType", 9n), "a.list", "an array of arrays"],
    ["an array of 2^60", () => withNumber(built, "a.list", "arrayLength", past), "a.list, length", "no file can hold"],
    ["an array of 2^40", () => withNumber(built, "a.list", "arrayLength", 1n << 40n), "a.list, length", "are left in"],
    ["2^40 strings", () => withNumber(built, "a.words", "arrayLength", 1n << 40n), "a.words, length", "are left in"],
    [
      "a string of 2^40 bytes in an array",
      () => withNumber(built, "a.words", "stringLength", 1n << 40n),
      "a.words",
      "has a string that ends at byte 1,099,511,628,",
    ],
    [
      "a string of 2^40 bytes",
      () => withNumber(built, "general.architecture", "stringLength", 1n << 40n),
      "general.architecture",
      "has a string that ends at byte 1,099,511,627,",
    ],
    ["a boolean of 2", () => withNumber(built, "a.flag", "value", 2n), "a.flag", "has the byte 2 as a boolean"],
    [
      "an alignment of 2^31",
      () => withNumber(built, "general.alignment", "value", 1n << 31n),
      "general.alignment",
      "2147483648",
    ],
    [
      "an alignment of 0",
      () => withNumber(built, "general.alignment", "value", 0n),
      "general.alignment",
      "is 0; a power",
    ],
    [
      "an alignment of 4",
      () => withNumber(built, "general.alignment", "value", 4n),
      "general.alignment",
      "is 4; a power",
    ],
    [
      "an alignment of 48",
      () => withNumber(built, "general.alignment", "value", 48n),
      "general.alignment",
      "is 48; a power",
    ],
    [
      "an alignment that is a float",
      () => withNumber(built, "general.alignment", "valueType", 6n),
      "general.alignment",
      "a whole number",
    ],
    ["an empty tensor name", () => withNumber(built, "tensor first", "nameLength", 0n), "tensor 1, name", "is empty"],
    [
      "a tensor name of 65 bytes",
      () => new GgufWriter().tensor("n".repeat(65), "F32", [1], new Float32Array(1)).build().bytes,
      "tensor 1, name",
      "a string of 65 bytes; at most 64",
    ],
    [
      "a tensor name that is not UTF-8",
      () => withBytes(built, "tensor second", "name", [0xc0]),
      "tensor 2, name",
      "is not valid UTF-8",
    ],
    ["no dimensions", () => withNumber(built, "tensor first", "dimensions", 0n), "tensor first", "has 0 dimensions"],
    ["five dimensions", () => withNumber(built, "tensor first", "dimensions", 5n), "tensor first", "has 5 dimensions"],
    [
      "a dimension of 0",
      () => withNumber(built, "tensor first", "dimension", 0n, 1),
      "tensor first",
      "dimension 2 of 2 is 0",
    ],
    [
      "dimensions whose product overflows",
      () => withNumber(built, "tensor first", "dimension", 1n << 52n, 1),
      "tensor first",
      "more than any file can hold",
    ],
    [
      "a dimension of 2^60",
      () => withNumber(built, "tensor first", "dimension", past),
      "tensor first",
      "no file can hold",
    ],
    [
      "rows that are no whole number of blocks",
      () => withNumber(built, "tensor second", "dimension", 65n),
      "tensor second",
      "has rows of 65 values; Q8_0 packs 32 together",
    ],
    [
      "an unknown tensor type",
      () => withNumber(built, "tensor first", "tensorType", 999n),
      "tensor first",
      "type number 999",
    ],
    ["an offset of 2^60", () => withNumber(built, "tensor first", "offset", past), "tensor first", "no file can hold"],
    [
      "an offset past the end",
      () => withNumber(built, "tensor first", "offset", 1n << 40n),
      "tensor first",
      `ends at byte 1,099,511,628,`,
    ],
    [
      "an offset off the alignment",
      () => withNumber(built, "tensor second", "offset", 65n),
      "tensor second",
      "has the offset 65, which is not a multiple of the alignment 64",
    ],
    [
      "tensors that overlap",
      () => withNumber(built, "tensor second", "offset", 0n),
      "tensor second",
      "overlaps tensor first",
    ],
    [
      "a tensor larger than its place",
      () => withNumber(built, "tensor first", "dimension", 3n, 1),
      "tensor second",
      "overlaps tensor first",
    ],
    [
      "a key that is there twice",
      () => new GgufWriter().set("twice", "uint8", 1).set("twice", "uint8", 1).build().bytes,
      "twice",
      "is in the metadata twice",
    ],
    [
      "a tensor that is there twice",
      () => {
        const values = new Float32Array(8);
        return new GgufWriter().tensor("twice", "F32", [8], values).tensor("twice", "F32", [8], values).build().bytes;
      },
      "tensor twice",
      "is in the directory twice",
    ],
    [
      "one part of several",
      () => new GgufWriter().set("split.count", "uint16", 3).build().bytes,
      "split.count",
      "one part of a model in 3 files",
    ],
    [
      "a key of more than 65,535 bytes",
      () => new GgufWriter().set("k".repeat(70_000), "uint8", 1).build().bytes,
      "metadata entry 1 of 1, key",
      "a string of 70,000 bytes; at most 65,535",
    ],
    [
      "a string of more than 16 MiB",
      () => new GgufWriter().set("text", "string", new Uint8Array(2 ** 24 + 1)).build().bytes,
      "text",
      "at most 16,777,216",
    ],
  ];

  test("is not in the sample as it is", () => {
    expect(open(built.bytes).tensors.size).toBe(3);
  });

  test.each(damages)("%s: is refused where it is", (_what, bytes, field, message) => {
    const error = refusal(bytes());
    expect(error.field).toBe(field);
    expect(error.message).toContain(message);
  });

  const otherTypes: readonly (readonly [number: number, name: string])[] = [
    [4, "Q4_2"],
    [9, "Q8_1"],
    [15, "Q8_K"],
    [16, "IQ2_XXS"],
    [17, "IQ2_XS"],
    [18, "IQ3_XXS"],
    [19, "IQ1_S"],
    [21, "IQ3_S"],
    [22, "IQ2_S"],
    [24, "I8"],
    [28, "F64"],
    [29, "IQ1_M"],
    [31, "Q4_0_4_4"],
    [34, "TQ1_0"],
    [35, "TQ2_0"],
    [39, "MXFP4"],
    [40, "NVFP4"],
  ];
  test.each(otherTypes)("tensor type %d is refused by its name %s", (number, name) => {
    const error = refusal(withNumber(built, "tensor second", "tensorType", BigInt(number)));
    expect(error.field).toBe("tensor second");
    expect(error.message).toContain(`has the type ${name}, which TinyAI does not read; it reads F32, F16, BF16, Q4_0,`);
  });

  test("names are shown without control characters", () => {
    const name = "\x1b]0;owned\x07";
    const bytes = new GgufWriter().tensor(name, "F32", [1], new Float32Array(1)).build();
    const error = refusal(withNumber(bytes, `tensor ${name}`, "tensorType", 77n));
    expect(error.message).not.toContain("\x1b");
    expect(error.message).toContain("\\u{1b}]0;owned\\u{7}");
  });

  test("every shorter beginning of the file is refused, and its data's loss by the advice to pull again", () => {
    const path = folder.file("shrinking.gguf");
    const dataStart = fieldOf(built, "tensor first", "data").offset;
    folder.write("shrinking.gguf", built.bytes);
    for (let length = built.bytes.length - 1; length >= 0; length--) {
      truncateSync(path, length);
      const error = refusalOf(path);
      if (length > dataStart) expect(error.message).toContain("the download is cut short; run tinyai pull again");
    }
  });

  test("trailing bytes after the last tensor do no harm", () => {
    expect(open(Buffer.concat([built.bytes, new Uint8Array(100)])).tensors.size).toBe(3);
  });
});
