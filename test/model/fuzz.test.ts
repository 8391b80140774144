// Damages a small model in every field, ten thousand times. The reader must agree with an independent one on which files are
// good, on the first bad field and on what is in the good ones; the whole loader with one step of generation may end in
// TinyAI's own errors only. And the fuzz itself is tested: with any one of the reader's checks taken out it must find that.

import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { ModelFileError, TinyAIError } from "../../src/errors.ts";
import { loadModel } from "../../src/index.ts";
import { type ModelFile, StringTable } from "../../src/model/file.ts";
import { openGguf } from "../../src/model/gguf.ts";
import { embed, openEngine } from "../support/engine.ts";
import { temporaryFolder } from "../support/folder.ts";
import { type Mutation, mutations } from "../support/gguf-mutations.ts";
import { type ReferenceFile, type ReferenceValue, Refusal, readReference } from "../support/gguf-reference.ts";
import { type BuiltGguf, type FieldClass, GgufWriter, type ScalarValue, tinyModel } from "../support/gguf-writer.ts";
import { tinyEncoder } from "../support/tiny-encoder.ts";

const folder = temporaryFolder();
/** The mutant at hand. Should one crash the process, it is still there, in the folder that the crash left behind. */
const mutantPath = folder.file("mutant.gguf");

type Open = (path: string) => ModelFile;

/** Puts `count` mutants through `check` and gives the first that it finds wrong, with why. */
async function fuzz(
  mutants: Iterable<Mutation>,
  count: number,
  check: (bytes: Uint8Array) => string | undefined | Promise<string | undefined>,
): Promise<string | undefined> {
  let done = 0;
  for (const mutant of mutants) {
    if (done++ === count) break;
    folder.write("mutant.gguf", mutant.bytes);
    const finding = await check(mutant.bytes);
    if (finding !== undefined) return `${mutant.description}: ${finding}`;
  }
  return undefined;
}

/** What is wrong with how `open` takes the file, compared with the independent reader; undefined if nothing is. */
function disagreement(bytes: Uint8Array, open: Open): string | undefined {
  const expected = attempt(() => readReference(bytes));
  const actual = attempt(() => open(mutantPath));
  if (actual.error !== undefined && !(actual.error instanceof ModelFileError)) return `threw ${actual.error}`;
  if (expected.error !== undefined && !(expected.error instanceof Refusal)) throw expected.error;
  if (expected.error !== undefined) {
    if (actual.error === undefined) return `accepted a bad ${expected.error.field}`;
    return actual.error.field === expected.error.field
      ? undefined
      : `${actual.error.message}, but the first bad field is ${expected.error.field}`;
  }
  if (actual.error !== undefined) return `refused a good file: ${actual.error.message}`;
  return difference(actual.value, expected.value);
}

function attempt<Value>(
  action: () => Value,
): { value: Value; error?: undefined } | { value?: undefined; error: unknown } {
  try {
    return { value: action() };
  } catch (error) {
    return { error };
  }
}

function difference(actual: ModelFile | undefined, expected: ReferenceFile | undefined): string | undefined {
  if (actual === undefined || expected === undefined) return "no file";
  if (actual.version !== expected.version) return `version ${actual.version} instead of ${expected.version}`;
  if (actual.metadata.keys().join("\n") !== [...expected.metadata.keys()].join("\n")) return "other keys";
  for (const [key, value] of expected.metadata) {
    const entry = actual.metadata.entry(key);
    if (entry?.type !== value.type || !sameValue(entry.value, value)) return `another value of ${key}`;
  }
  const describe = (
    tensors: Iterable<{
      name: string;
      dtype: string;
      shape: readonly unknown[];
      byteOffset: unknown;
      byteLength: unknown;
    }>,
  ) =>
    Array.from(tensors, (tensor) =>
      [tensor.name, tensor.dtype, tensor.shape.join(), tensor.byteOffset, tensor.byteLength].join(" "),
    );
  const given = describe(actual.tensors.values()).sort();
  const wanted = describe(expected.tensors.values()).sort();
  return Bun.deepEquals(given, wanted) ? undefined : `tensors ${given} instead of ${wanted}`;
}

function sameValue(actual: unknown, { value }: ReferenceValue): boolean {
  if (actual instanceof StringTable) {
    const { bytes, offsets } = actual.bytes();
    const strings = Array.from({ length: actual.length }, (_, index) =>
      bytes.subarray(offsets[index], offsets[index + 1]),
    );
    return Array.isArray(value) && sameElements(strings, value);
  }
  if (typeof actual === "string") return actual === new TextDecoder().decode(value as Uint8Array);
  if (ArrayBuffer.isView(actual) || Array.isArray(actual)) {
    return Array.isArray(value) && sameElements(Array.from(actual as ArrayLike<unknown>), value);
  }
  return Object.is(actual, value);
}

function sameElements(actual: readonly unknown[], expected: readonly ScalarValue[]): boolean {
  return (
    actual.length === expected.length &&
    actual.every((element, index) => {
      const other = expected[index];
      return other instanceof Uint8Array
        ? Buffer.compare(element as Uint8Array, other) === 0
        : Object.is(element, other);
    })
  );
}

/** Every class of field, every type of value, and few enough bytes that ten thousand mutants take seconds. */
function smallFile(): BuiltGguf {
  return new GgufWriter({ alignment: 32 })
    .set("general.architecture", "string", "llama")
    .set("split.count", "uint16", 1)
    .set("a", "uint8", 200)
    .set("b", "int8", -100)
    .set("c", "uint16", 60_000)
    .set("d", "int16", -30_000)
    .set("e", "uint32", 4_000_000_000)
    .set("f", "int32", -2_000_000_000)
    .set("g", "float32", 0.1)
    .set("h", "bool", true)
    .set("i", "uint64", 2n ** 63n + 1n)
    .set("j", "int64", -(2n ** 62n) - 1n)
    .set("k", "float64", 0.1)
    .setArray("l", "int16", [1, -2, 3])
    .setArray("m", "bool", [true, false, true])
    .setArray("n", "string", ["one", "", "трі"])
    .setArray("o", "uint64", [1n, 2n ** 60n])
    .setArray("p", "float32", [0.5, -1.5])
    .tensor("x", "F32", [8, 2], new Float32Array(16))
    .tensor("y", "Q8_0", [32, 2], new Float32Array(64))
    .tensor("z", "F16", [2, 2, 2, 2], new Float32Array(16))
    .build();
}

const mutantCount = 10_000;
/** For ten thousand files, written and opened, on a machine with other work. Each takes a millisecond or less. */
const longTestMs = 300_000;

describe("the reader", () => {
  test(
    "agrees with an independent reader on ten thousand damaged files",
    async () => {
      const finding = await fuzz(mutations(smallFile(), 1), mutantCount, (bytes) => disagreement(bytes, openGguf));
      expect(finding).toBeUndefined();
    },
    longTestMs,
  );

  test(
    "agrees with it on damaged models too",
    async () => {
      const model = tinyModel({ layers: 1, width: 32, heads: 2, vocabulary: 384 }).build();
      const finding = await fuzz(mutations(model, 2), 300, (bytes) => disagreement(bytes, openGguf));
      expect(finding).toBeUndefined();
    },
    longTestMs,
  );
});

/** What is wrong with how the model at hand is loaded and takes one step; undefined if all is well. */
async function loadingFault(): Promise<string | undefined> {
  try {
    await using model = await loadModel(mutantPath, { threads: { count: 1 }, batchSize: 1 });
    const { tokens } = await model.generate("Hello, the world!", { maxLength: 1, seed: 1 });
    const [token] = tokens;
    if (tokens.length !== 1 || token === undefined || token >= model.tokenizer.vocabularySize)
      return `generated ${tokens}`;
    return undefined;
  } catch (error) {
    return error instanceof TinyAIError ? undefined : `threw ${Bun.inspect(error)}`;
  }
}

/** The same for an encoder, which gives a text's vector. */
async function embeddingFault(): Promise<string | undefined> {
  try {
    await using model = await loadModel(mutantPath, { threads: { count: 1 }, batchSize: 1 });
    const { contextLength: contextMax } = model;
    const { engine, tokenizer } = await openEngine(mutantPath, { contextMax, rowsMax: Math.max(512, contextMax) });
    try {
      const vector = await embed(engine, tokenizer.encode("Hello, the world!"));
      return vector.every(Number.isFinite) ? undefined : `gave ${vector}`;
    } finally {
      await engine.close();
    }
  } catch (error) {
    return error instanceof TinyAIError ? undefined : `threw ${Bun.inspect(error)}`;
  }
}

describe("the loader", () => {
  test.each(["bert", "nomic-bert"] as const)(
    "gives a vector of a damaged %s or ends in an error of TinyAI's",
    async (architecture) => {
      const built = tinyEncoder({ architecture, layers: 1, width: 32, heads: 1, vocabulary: 128 }).build();
      folder.write("mutant.gguf", built.bytes);
      const { engine, tokenizer } = await openEngine(mutantPath);
      expect(await embed(engine, tokenizer.encode("Hello"))).toHaveLength(32);
      await engine.close();
      const finding = await fuzz(mutations(built, 7), 1000, embeddingFault);
      expect(finding).toBeUndefined();
    },
    longTestMs,
  );

  const families = ["llama", "qwen2", "qwen3", "gemma3"] as const;

  test.each(families)(
    "takes a step of a damaged %s model or ends in an error of TinyAI's",
    async (architecture) => {
      const built = tinyModel({ architecture, layers: 1, width: 32, heads: 2, vocabulary: 384, context: 64 }).build();
      folder.write("mutant.gguf", built.bytes);
      await using whole = await loadModel(mutantPath, { threads: { count: 1 }, batchSize: 1 });
      expect((await whole.generate("Hello", { maxLength: 1 })).tokens).toHaveLength(1);
      const finding = await fuzz(mutations(built, 6), mutantCount / families.length, loadingFault);
      expect(finding).toBeUndefined();
    },
    longTestMs,
  );
});

describe("the fuzz", () => {
  const source = readFileSync(new URL("../../src/model/gguf.ts", import.meta.url), "utf8");
  const built = smallFile();
  let mutantModules = 0;

  /** `openGguf` of the reader with its source changed. */
  async function readerOf(changed: string): Promise<Open> {
    const absolute = changed.replaceAll(
      /from "(\.[^"]+)"/g,
      (_, path: string) =>
        `from ${JSON.stringify(new URL(path, new URL("../../src/model/", import.meta.url)).pathname)}`,
    );
    const path = folder.write(`gguf-${mutantModules++}.ts`, absolute);
    const module: { openGguf: Open } = await import(path);
    return module.openGguf;
  }

  function seeded(from: string, to: string): string {
    if (source.split(from).length !== 2) throw new Error(`the reader's source has not exactly one ${from}`);
    return source.replace(from, () => to);
  }

  test("finds nothing in the reader as it is, imported in the same way", async () => {
    const open = await readerOf(source);
    expect(await fuzz(mutations(built, 3), 2000, (bytes) => disagreement(bytes, open))).toBeUndefined();
  });

  /** A bug for each class of field, found by damaging that class alone. */
  const bugs: readonly (readonly [fieldClass: FieldClass, from: string, to: string])[] = [
    ["magic", 'if (!start.startsWith("GGUF"))', 'if (!start.startsWith("GG"))'],
    ["version", "version !== 2 && version !== 3", "version < 2"],
    ["count", "count * bytesMin > reader.bytesLeft", "count > reader.byteLength * 2 ** 20"],
    [
      "keyLength",
      'if (start === end) throw this.error(field, "is empty',
      'if (false) throw this.error(field, "is empty',
    ],
    ["key", "if (entries.has(key))", "if (false)"],
    ["valueType", "valueTypes[number];", "valueTypes[number & 15];"],
    ["elementType", 'if (elementType === "array")', "if (false)"],
    [
      "arrayLength",
      "const byteLength = length * valueBytes[type];",
      "const byteLength = (length & 7) * valueBytes[type];",
    ],
    ["stringLength", "length <= bytesMax && end <= view.byteLength", "length <= bytesMax"],
    ["value", "view.getInt8(offset)", "view.getUint8(offset)"],
    ["nameLength", "tensorNameBytesMax = 64", "tensorNameBytesMax = 60_000"],
    ["name", "if (names.has(name))", "if (false)"],
    ["dimensions", "dimensions < 1 || dimensions > dimensionsMax", "dimensions > dimensionsMax"],
    ["dimension", "if (size === 0)", "if (false)"],
    ["tensorType", '[11, "Q3_K"]', '[11, "Q4_0"]'],
    [
      "offset",
      "tensor.byteOffset < previous.byteOffset + previous.byteLength",
      "tensor.byteOffset < previous.byteOffset",
    ],
    ["data", "if (end > reader.byteLength)", "if (end > reader.byteLength + 64)"],
  ];

  test("has a seeded bug for each class of field", () => {
    const classes = new Set(built.fields.map((field) => field.class));
    expect(new Set(bugs.map(([fieldClass]) => fieldClass))).toEqual(classes);
  });

  test.each(bugs)(
    "finds a seeded bug in the class %s",
    async (fieldClass, from, to) => {
      const open = await readerOf(seeded(from, to));
      const finding = await fuzz(mutations(built, 4, [fieldClass]), mutantCount, (bytes) => disagreement(bytes, open));
      expect(finding).toBeDefined();
    },
    longTestMs,
  );

  /** Checks whose loss no damaged small file can show, and why. */
  const unseen: readonly (readonly [condition: string, why: string])[] = [
    ["end > headerBytesMax", "needs a file of 256 MiB"],
    ["count === 0", "needs a file that shrinks while it is read"],
    ["value > Number.MAX_SAFE_INTEGER", "what is beyond it is beyond the file's size, which is checked after it"],
    ["length > bytesMax", "needs longer strings; tested with one"],
    ["length > this.bytesLeft", "the read that follows refuses it too, with a message less clear"],
    ["other !== undefined", "it only words the refusal of another format; tested with each"],
    ["version !== 0 && (version & 0xffff) === 0", "it only words the refusal of a big-endian file; tested with one"],
  ];

  const guards = [...source.matchAll(/if \((.*)\) (?:\{\n\s*)?throw /g)].map((match) => ({
    text: match[0],
    condition: match[1] ?? "",
  }));

  test("knows the checks that it cannot see", () => {
    expect(guards.length).toBeGreaterThan(20);
    for (const [condition] of unseen) expect(guards.map((guard) => guard.condition)).toContain(condition);
  });

  test.each(guards.filter(({ condition }) => !unseen.some(([other]) => other === condition)))(
    "finds out when the check $condition is missing",
    async ({ text, condition }) => {
      const open = await readerOf(
        seeded(
          text,
          text.replace(condition, () => `false && (${condition})`),
        ),
      );
      const finding = await fuzz(mutations(built, 5), mutantCount, (bytes) => disagreement(bytes, open));
      expect(finding).toBeDefined();
    },
    longTestMs,
  );
});
