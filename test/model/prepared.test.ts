// Prepared files: what comes out of one is what went in, and one that is damaged anywhere is refused or does no harm.

import { describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { basename } from "node:path";
import { ModelFileError, OptionError } from "../../src/errors.ts";
import { loadModel, prepareModel } from "../../src/index.ts";
import { type DType, dtypeBlocks, type MetadataEntry, StringTable } from "../../src/model/file.ts";
import { openGguf } from "../../src/model/gguf.ts";
import { encodePrepared, openPrepared, readHead } from "../../src/model/prepared.ts";
import { findModel, preparedPath } from "../../src/prepared.ts";
import { createTokenizer } from "../../src/tokenizer/index.ts";
import { temporaryFolder } from "../support/folder.ts";
import { type TinyModelOptions, writeTinyModel } from "../support/gguf-writer.ts";
import { Random } from "../support/random.ts";
import { keepVariables } from "../support/variables.ts";

const folder = temporaryFolder();
const cache = folder.file("home/prepared");
mkdirSync(cache, { recursive: true });

// The cache is a folder of this test's own.
keepVariables("TINYAI_HOME");
process.env["TINYAI_HOME"] = folder.file("home");

const dtypes = Object.keys(dtypeBlocks) as DType[];
const families: readonly TinyModelOptions[] = [
  { architecture: "gemma3", dtype: "Q4_0", layers: 6 },
  { architecture: "llama", dtype: "Q8_0", ropeFactors: Array.from({ length: 8 }, (_, pair) => 1 + pair) },
  { architecture: "qwen2", dtype: "F16" },
  { architecture: "qwen3", dtype: "Q4_K", embeddingDtype: "Q6_K" },
];

/** A tiny model as GGUF, and prepared. */
async function prepare(name: string, options: TinyModelOptions): Promise<{ source: string; prepared: string }> {
  const source = folder.file(`${name}.gguf`);
  const prepared = folder.file(`${name}.tinyai`);
  writeTinyModel(source, options);
  expect(await prepareModel(source, { output: prepared })).toEqual({
    path: prepared,
    bytes: statSync(prepared).size,
    made: true,
  });
  return { source, prepared };
}

/** All that can be seen of a model's work: tokens, log-probabilities, runners-up, scores. */
async function answers(path: string): Promise<unknown> {
  await using model = await loadModel(path, { batchSize: 2 });
  const options = { maxLength: 12, temperature: 0.8, seed: 3, topLogprobs: 4 } as const;
  const texts = await model.generate(["the first text", "second"], options);
  const score = await model.score("a text of some words, and more words");
  return {
    tokens: texts.map(({ text, tokens, logprobs, top }) => [text, tokens, logprobs, top]),
    scores: score.logprobs,
    decoded: model.tokenizer.decode(model.tokenizer.encode("déjà vu\n")),
  };
}

describe("a prepared file", () => {
  test.each(dtypes)("of %s answers as the file it was made from", async (dtype) => {
    const { source, prepared } = await prepare(`type-${dtype}`, { architecture: "llama", dtype });
    expect(await answers(prepared)).toEqual(await answers(source));
  });

  test.each(families)("of $architecture answers as the file it was made from", async (options) => {
    const { source, prepared } = await prepare(`family-${options.architecture}`, options);
    expect(await answers(prepared)).toEqual(await answers(source));
    await using model = await loadModel(prepared);
    expect(model.preparation).toEqual({ state: "used", path: prepared });
  });

  test.each(families)("of $architecture has the metadata and the vectors of its source", async (options) => {
    const { source, prepared } = await prepare(`metadata-${options.architecture}`, options);
    const [from, to] = [openGguf(source), openPrepared(prepared, readHead)];
    for (const key of from.metadata.keys()) {
      if (key === "tokenizer.ggml.token_type") continue; // Kept as attributes.
      expect(plain(to.metadata.entry(key))).toEqual(plain(from.metadata.entry(key)));
    }
    expect([...to.tensors.keys()].sort()).toEqual([...from.tensors.keys()].sort());
    const [original, copy] = [readFileSync(source), readFileSync(prepared)];
    for (const { name, shape, byteOffset, byteLength } of from.tensors.values()) {
      if (shape.length !== 1) continue;
      const entry = to.tensors.get(name);
      expect(copy.subarray(entry?.byteOffset, (entry?.byteOffset ?? 0) + byteLength)).toEqual(
        original.subarray(byteOffset, byteOffset + byteLength),
      );
    }
    const digest = new Bun.CryptoHasher("sha256").update(original).digest("hex");
    expect(to.source).toMatchObject({ bytes: original.length, sha256: digest });
  });

  test("keeps every kind of metadata value", () => {
    const entries: [string, MetadataEntry][] = [
      ["a", { type: "uint64", isArray: false, value: 2n ** 64n - 1n }],
      ["b", { type: "int64", isArray: false, value: -(2n ** 63n) }],
      ["c", { type: "float32", isArray: false, value: Number.NEGATIVE_INFINITY }],
      ["d", { type: "float64", isArray: false, value: Number.NaN }],
      ["e", { type: "bool", isArray: true, value: [true, false] }],
      ["f", { type: "float64", isArray: true, value: Float64Array.of(1.5, Number.NaN) }],
      ["g", { type: "uint64", isArray: true, value: BigUint64Array.of(1n, 2n ** 63n) }],
      ["h", { type: "string", isArray: false, value: 'quotes " and \u2028' }],
      [
        "i",
        {
          type: "string",
          isArray: true,
          value: new StringTable(2, () => ({ bytes: Uint8Array.of(0xff, 0x41), offsets: Uint32Array.of(0, 1, 2) })),
        },
      ],
      ["j", { type: "int8", isArray: false, value: -3 }],
    ];
    const prefix = encodePrepared({
      source: { bytes: 1, modifiedNs: 2n, changedNs: 3n, sha256: "00".repeat(32) },
      metadata: entries,
      strings: new Map(),
      vectors: [],
      matrices: [],
      weightsBytes: 0,
    });
    const { metadata } = openPrepared(folder.write("values.tinyai", prefix), readHead);
    for (const [key, entry] of entries) expect(plain(metadata.entry(key))).toEqual(plain(entry));
  });

  test("with any byte of its head changed is refused, or answers as before", async () => {
    const { prepared } = await prepare("flipped", { architecture: "llama", vocabulary: 384, layers: 1 });
    const whole = readFileSync(prepared);
    const head = openPrepared(prepared, readHead).packedWeights?.offset ?? 0;
    const random = new Random(5);
    const path = folder.file("flip.tinyai");
    let refused = 0;
    for (let round = 0; round < 400; round++) {
      const at = round < 128 ? round : Math.floor(random.uniform() * head);
      const bytes = Buffer.from(whole);
      bytes[at] = (bytes[at] ?? 0) ^ (1 << Math.floor(random.uniform() * 8));
      writeFileSync(path, bytes);
      try {
        openPrepared(path, readHead);
      } catch (error) {
        expect(error).toBeInstanceOf(ModelFileError);
        expect((error as Error).message).toStartWith(path);
        refused += 1;
      }
    }
    // Bytes 12 to 15 mean nothing.
    expect(refused).toBeGreaterThanOrEqual(400 - 4);
  });

  test("that is cut short anywhere is refused", async () => {
    const { prepared } = await prepare("cut", { layers: 1 });
    const whole = readFileSync(prepared);
    for (const bytes of [0, 7, 100, 128, 5000, whole.length - 1]) {
      const path = folder.write("cut-copy.tinyai", whole.subarray(0, bytes));
      expect(() => openPrepared(path, readHead)).toThrow(ModelFileError);
    }
  });
});

/** A directory that says what it should not, with a right checksum. */
describe("a prepared file whose author means harm", () => {
  const lies: readonly (readonly [what: string, change: (json: string) => string])[] = [
    ["a tensor beyond the file", (json) => json.replace(/(\["output\.weight","F16",\[\d+,\d+\],)\d+/, "$199999999999")],
    ["a matrix that is too short", (json) => json.replace(/(\["output\.weight","F16",\[\d+,\d+\],\d+,)\d+/, "$164")],
    ["a matrix outside the weights", (json) => json.replace(/(\["output\.weight","F16",\[\d+,\d+\],)\d+/, "$165536")],
    ["rows that are no whole blocks", (json) => json.replace('"output.weight","F16"', '"output.weight","Q4_K"')],
    ["a negative offset", (json) => json.replace(/(\["output_norm\.weight","F32",\[\d+\],)\d+/, "$1-64")],
    ["a type that does not exist", (json) => json.replace('"output.weight","F16"', '"output.weight","F17"')],
    ["texts outside the head", (json) => json.replace(/"offsets":\[\d+/, '"offsets":[9999872')],
    ["an odd hash table", (json) => json.replace(/("slots":\[\d+,)\d+/, "$112")],
    ["no list of tensors", (json) => json.replace('"tensors"', '"tenors"')],
    ["no JSON", (json) => json.replace("{", "[")],
  ];
  test.each(lies)("%s is refused", async (what, change) => {
    const { prepared } = await prepare("honest", { architecture: "llama", vocabulary: 384, layers: 1 });
    const bytes = readFileSync(prepared);
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    const length = Number(view.getBigUint64(32, true));
    const json = bytes.subarray(128, 128 + length).toString();
    const changed = Buffer.from(change(json));
    expect(changed.toString()).not.toBe(json);
    expect(changed.length).toBeLessThan(length + 64);
    bytes.fill(0, 128, 128 + length);
    changed.copy(bytes, 128);
    view.setBigUint64(32, BigInt(changed.length), true);
    const head = Number(view.getBigUint64(16, true));
    view.setBigUint64(40, BigInt(Bun.hash.wyhash(bytes.subarray(48, head))), true);
    const path = folder.write(`${what.replaceAll(" ", "-")}.tinyai`, bytes);
    const error = await loadModel(path).then(
      () => undefined,
      (thrown) => thrown,
    );
    expect(error).toBeInstanceOf(ModelFileError);
    expect(error.message).toStartWith(path);
  });
});

describe("the cache of prepared copies", () => {
  const large: TinyModelOptions = { architecture: "llama", dtype: "F32", vocabulary: 16_000, width: 256, layers: 1 };

  test("has a copy after the first opening, which the second uses; a changed model is prepared anew", async () => {
    const path = folder.file("large.gguf");
    writeTinyModel(path, large);
    const first = await loadModel(path);
    expect(first.preparation).toEqual({ state: "making", path: preparedPath(path) });
    const text = await first.generate("a text", { maxLength: 8, temperature: 0 });
    await first.close();
    expect(first.preparation.state).toBe("made");
    expect(readdirSync(cache).filter((name) => name.includes("large"))).toEqual([basename(preparedPath(path))]);
    {
      await using second = await loadModel(path);
      expect(second.preparation).toEqual({ state: "used", path: preparedPath(path) });
      expect(second.path).toBe(path);
      expect((await second.generate("a text", { maxLength: 8, temperature: 0 })).text).toBe(text.text);
    }

    // Touched, but the same: found by its content, and known by its times from then on.
    utimesSync(path, new Date(), new Date());
    const touched = await findModel(path, true, async () => readHead);
    expect(touched.preparation.state).toBe("used");
    const times = statSync(path, { bigint: true });
    expect(openPrepared(preparedPath(path), readHead).source.modifiedNs).toBe(times.mtimeNs);

    // Another model of the same size under the same name.
    writeTinyModel(path, { ...large, seed: 77 });
    expect(statSync(path, { bigint: true }).size).toBe(times.size);
    expect((await findModel(path, true, async () => readHead)).preparation.state).toBe("making");

    // A copy that was damaged is not used either.
    expect((await prepareModel(path)).made).toBe(true);
    expect((await prepareModel(path)).made).toBe(false);
    writeFileSync(preparedPath(path), readFileSync(preparedPath(path)).subarray(0, 1_000_000));
    expect((await prepareModel(path)).made).toBe(true);
  }, 60_000);

  test("is left alone if so asked, and by small models", async () => {
    const path = folder.file("left-alone.gguf");
    writeTinyModel(path, { ...large, seed: 4 });
    {
      await using model = await loadModel(path, { prepared: false });
      expect(model.preparation).toEqual({ state: "none", reason: "it was not asked for" });
    }
    const small = folder.file("small.gguf");
    writeTinyModel(small);
    {
      await using model = await loadModel(small);
      expect(model.preparation.state).toBe("none");
    }
    expect(existsSync(preparedPath(path))).toBe(false);
    expect(existsSync(preparedPath(small))).toBe(false);
  }, 60_000);

  test("loses what killed processes left, and not what others are writing", async () => {
    const path = folder.file("left-over.gguf");
    writeTinyModel(path, { seed: 9 });
    const copy = preparedPath(path);
    writeFileSync(`${copy}.2147483646.tmp`, "half");
    await prepareModel(path);
    expect(readdirSync(cache).filter((name) => name.includes("left-over"))).toEqual([basename(copy)]);
    writeFileSync(`${copy}.1.tmp`, "another's");
    writeTinyModel(path, { seed: 10 });
    await expect(prepareModel(path)).rejects.toThrow("process 1 is making it");
  });

  test("a load that is aborted while its copy is written leaves none", async () => {
    const path = folder.file("aborted.gguf");
    writeTinyModel(path, { ...large, seed: 5 });
    const abort = new AbortController();
    const model = await loadModel(path, { signal: abort.signal });
    abort.abort();
    await model.close();
    expect(model.preparation.state).toBe("none");
    expect(readdirSync(cache).filter((name) => name.includes("aborted"))).toEqual([]);
  }, 60_000);
});

test("a prepared file is not prepared again, nor written over its own model", async () => {
  const { source, prepared } = await prepare("own", { layers: 1 });
  await expect(prepareModel(prepared)).rejects.toThrow(OptionError);
  await expect(prepareModel(source, { output: source })).rejects.toThrow("is the model itself");
  await expect(prepareModel(folder.file("absent.gguf"))).rejects.toThrow("there is no file");
});

test("a path that is no regular file is refused without being opened", async () => {
  const path = folder.file("fifo");
  expect(Bun.spawnSync(["mkfifo", path]).exitCode).toBe(0);
  await expect(loadModel(path)).rejects.toThrow("is not a regular file");
});

test("an error of the caller's own ends the preparing, and nothing is left", async () => {
  const source = folder.file("thrown.gguf");
  writeTinyModel(source, { layers: 1 });
  const own = new Error("the caller's own");
  const onProgress = () => {
    throw own;
  };
  await expect(prepareModel(source, { output: folder.file("thrown.tinyai"), onProgress })).rejects.toBe(own);
  expect(readdirSync(folder.path).filter((name) => name.includes("thrown"))).toEqual(["thrown.gguf"]);
});

test("tokens cut by a prepared tokenizer are those of the file's, bytes and special tokens included", async () => {
  for (const tokenizer of ["spm", "bpe"] as const) {
    const { source, prepared } = await prepare(`tokenizer-${tokenizer}`, { tokenizer, layers: 1 });
    const [from, to] = [openGguf(source), openPrepared(prepared, readHead)].map((file) =>
      createTokenizer(file.metadata),
    );
    for (const text of ["", " hello  world\n", "ünï 漢字 🎈", "<s> the end </s>", "a".repeat(300)]) {
      for (const parseSpecial of [false, true]) {
        expect(to?.encode(text, { parseSpecial })).toEqual(from?.encode(text, { parseSpecial }) ?? new Uint32Array());
      }
    }
  }
});

/** An entry with its texts written out, for comparison. */
function plain(entry: MetadataEntry | undefined): unknown {
  if (!entry) return undefined;
  const { value } = entry;
  if (ArrayBuffer.isView(value))
    return { ...entry, kind: value.constructor.name, value: Array.from(value as Float64Array) };
  if (!(value instanceof StringTable)) return entry;
  const { bytes, offsets } = value.bytes();
  return { ...entry, value: { bytes: bytes.slice(0, offsets.at(-1)), offsets: offsets.slice() } };
}
