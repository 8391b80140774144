// A quantized file: what is in it against an independent reader and decoder, how far its values are from the source's
// against an independent quantizer, and what is refused.

import { describe, expect, test } from "bun:test";
import {
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import {
  DownloadError,
  loadModel,
  ModelFileError,
  OptionError,
  type QuantizationType,
  quantizeModel,
  TinyAIError,
} from "../../src/index.ts";
import type { DType } from "../../src/model/file.ts";
import { openGguf } from "../../src/model/gguf.ts";
import { quantizationTypes } from "../../src/quantize/types.ts";
import { temporaryFolder } from "../support/folder.ts";
import { decodeTensor, encodeTensor } from "../support/formats.ts";
import { readReference } from "../support/gguf-reference.ts";
import { GgufWriter } from "../support/gguf-writer.ts";
import { typeOf } from "../support/quantization.ts";
import { Random } from "../support/random.ts";
import { type TinyModelOptions, tinyModel, writeTinyModel } from "../support/tiny-model.ts";

const folder = temporaryFolder();
let files = 0;
const fresh = (): string => folder.file(`file${files++}.gguf`);

function tiny(options: TinyModelOptions = {}): string {
  const path = fresh();
  writeTinyModel(path, { width: 256, dtype: "F32", ...options });
  return path;
}

/** A tensor's bytes, by the independent reader. */
function tensorBytes(path: string, name: string): { dtype: DType; bytes: Uint8Array } {
  const whole = new Uint8Array(readFileSync(path));
  const tensor = readReference(whole).tensors.get(name);
  if (!tensor) throw new Error(`no tensor ${name}`);
  const begin = Number(tensor.byteOffset);
  return { dtype: tensor.dtype, bytes: whole.slice(begin, begin + Number(tensor.byteLength)) };
}

function tensorValues(path: string, name: string): Float64Array {
  const { dtype, bytes } = tensorBytes(path, name);
  return decodeTensor(dtype, bytes);
}

const squares = (a: Float64Array, b: Float64Array): number => a.reduce((sum, x, i) => sum + (x - (b[i] ?? 0)) ** 2, 0);

describe("quantizeModel", () => {
  test.each(quantizationTypes)(
    "%s: the file runs, and an independent reader finds metadata and tensors as they were",
    async (type) => {
      const source = tiny({ dtype: "F16", layers: 3 });
      const target = fresh();
      const result = await quantizeModel(source, target, { type });
      const before = readReference(new Uint8Array(readFileSync(source)));
      const after = readReference(new Uint8Array(readFileSync(target)));
      expect(after.version).toBe(3);
      expect([...after.tensors.keys()]).toEqual([...before.tensors.keys()]);
      const expected = new Map(before.metadata);
      expected.set("general.quantization_version", { type: "uint32", value: 2 });
      expected.set("general.file_type", { type: "uint32", value: fileTypes[type] });
      expect([...after.metadata]).toEqual([...expected]);
      expect(result.bytes).toBe(readFileSync(target).length);
      for (const { name, to } of result.tensors) expect(after.tensors.get(name)?.dtype).toBe(to);
      await using model = await loadModel(target, { contextLength: 64 });
      const { tokens } = await model.generate("Hello", { maxLength: 8, temperature: 0, ignoreEos: true });
      expect(tokens.length).toBe(8);
    },
  );

  test("takes the name of a model that was pulled", async () => {
    const home = process.env["TINYAI_HOME"];
    process.env["TINYAI_HOME"] = folder.path;
    try {
      mkdirSync(folder.file("models"));
      writeTinyModel(folder.file("models/gemma3-270m.gguf"), { width: 256, dtype: "F16" });
      const target = fresh();
      await quantizeModel("gemma3-270m", target, { type: "Q8_0" });
      expect(openGguf(target).metadata.integer("general.file_type")).toBe(7);
    } finally {
      rmSync(folder.file("models"), { recursive: true });
      if (home === undefined) delete process.env["TINYAI_HOME"];
      else process.env["TINYAI_HOME"] = home;
    }
  });

  test("tells how far it is, and ends at the source's bytes", async () => {
    const seen: (readonly [number, number])[] = [];
    const source = tiny();
    await quantizeModel(source, fresh(), { type: "Q4_K_M", onProgress: (done, total) => seen.push([done, total]) });
    const total = [...openGguf(source).tensors.values()].reduce((sum, { byteLength }) => sum + byteLength, 0);
    expect(seen.at(-1)).toEqual([total, total]);
  });
});

/** llama.cpp's numbers of file types. */
const fileTypes: Readonly<Record<QuantizationType, number>> = {
  F32: 0,
  F16: 1,
  Q4_0: 2,
  Q4_1: 3,
  Q8_0: 7,
  Q5_0: 8,
  Q5_1: 9,
  Q2_K: 10,
  Q3_K_S: 11,
  Q3_K_M: 12,
  Q3_K_L: 13,
  Q4_K_S: 14,
  Q4_K_M: 15,
  Q5_K_S: 16,
  Q5_K_M: 17,
  Q6_K: 18,
  IQ4_NL: 25,
  IQ4_XS: 30,
  BF16: 32,
};

const dtypes = Object.keys(typeOf) as (keyof typeof typeOf)[];

/** A file with one matrix of `rows` rows of 256 that has no rule of its own. */
function oneMatrix(dtype: DType, values: Float64Array | Uint8Array, rows: number, alignment?: number): string {
  const path = fresh();
  new GgufWriter(alignment === undefined ? {} : { alignment })
    .set("general.architecture", "string", "llama")
    .set("llama.block_count", "uint32", 1)
    .set("llama.attention.head_count", "uint32", 1)
    .tensor("rope_freqs.weight", "F32", [3], Float32Array.of(1, 2, 3))
    .tensor("blk.0.ffn_up.weight", dtype, [256, rows], values)
    .write(path);
  return path;
}

const rows = 40;
const random = new Random(9);
const kinds: readonly (readonly [name: string, value: (index: number) => number])[] = [
  ["normal values", () => random.normal() * 0.02],
  ["values with outliers", (index) => random.normal() * (index % 97 === 0 ? 20 : 1)],
  ["values of one sign", () => 0.5 + random.uniform()],
  ["runs of very different sizes", (index) => random.normal() * 2 ** ((Math.floor(index / 32) % 9) - 4)],
  ["zeros", () => 0],
  ["one value", () => 0.731],
];

describe("quantized values", () => {
  test.each(dtypes)("%s come nearer to the source's than a plain quantizer's", async (dtype) => {
    for (const [kind, value] of kinds) {
      const values = Float64Array.from({ length: 256 * rows }, (_, index) => Math.fround(value(index)));
      const target = fresh();
      await quantizeModel(oneMatrix("F32", values, rows), target, { type: typeOf[dtype] });
      const quantized = tensorBytes(target, "blk.0.ffn_up.weight");
      expect(quantized.dtype).toBe(dtype);
      const found = squares(values, decodeTensor(dtype, quantized.bytes));
      const plain = squares(values, decodeTensor(dtype, encodeTensor(dtype, values)));
      const sum = squares(values, new Float64Array(values.length));
      // Scales in float16 are off by up to 2^-11 of themselves, either way.
      expect({ kind, nearer: found <= plain * 1.000001 + 2 ** -22 * sum }).toEqual({ kind, nearer: true });
    }
  });

  test("F16 and BF16 are the nearest there are", async () => {
    const values = Float64Array.from({ length: 512 }, () =>
      Math.fround(random.normal() * 2 ** (random.below(60) - 45)),
    );
    for (const dtype of ["F16", "BF16"] as const) {
      const target = fresh();
      await quantizeModel(oneMatrix("F32", values, 2), target, { type: dtype });
      expect(tensorBytes(target, "blk.0.ffn_up.weight").bytes).toEqual(encodeTensor(dtype, values));
    }
  });

  test.each(dtypes)("%s as a source are read as they are", async (dtype) => {
    const values = Float64Array.from({ length: 256 * rows }, () => random.normal());
    const encoded = encodeTensor(dtype, values);
    const source = oneMatrix(dtype, encoded, rows);
    const target = fresh();
    await quantizeModel(source, target, { type: "F32", allowRequantize: true });
    expect(tensorValues(target, "blk.0.ffn_up.weight")).toEqual(
      Float64Array.from(decodeTensor(dtype, encoded), Math.fround),
    );
    // What has its format already stays as it is, and is no reason to refuse.
    const same = fresh();
    await quantizeModel(source, same, { type: typeOf[dtype] });
    expect(tensorBytes(same, "blk.0.ffn_up.weight").bytes).toEqual(encoded);
  });

  test("are the same bytes on one thread and on two", async () => {
    const source = tiny({ dtype: "F16", layers: 2 });
    for (const type of ["Q4_K_M", "Q8_0"] as const) {
      const [one, two] = [fresh(), fresh()];
      await quantizeModel(source, one, { type, threads: 1 });
      await quantizeModel(source, two, { type, threads: 2 });
      expect(readFileSync(two).equals(readFileSync(one))).toBe(true);
    }
  });

  test("of tensors that take several pieces are those of the tensor as a whole", async () => {
    const many = 400; // Pieces have 32,768 values: four, the last one not full.
    const values = Float64Array.from({ length: 256 * many }, () => Math.fround(random.normal()));
    const [whole, half] = [fresh(), fresh()];
    await quantizeModel(oneMatrix("F32", values, many), whole, { type: "Q6_K" });
    await quantizeModel(oneMatrix("F32", values.slice(values.length / 2), many / 2), half, { type: "Q6_K" });
    const bytes = tensorBytes(whole, "blk.0.ffn_up.weight").bytes;
    expect(tensorBytes(half, "blk.0.ffn_up.weight").bytes).toEqual(bytes.slice(bytes.length / 2));
  });
});

describe("what surrounds the tensors", () => {
  test("keeps its alignment, and the bytes between tensors are zero", async () => {
    const values = Float64Array.from({ length: 512 }, () => random.normal());
    const target = fresh();
    await quantizeModel(oneMatrix("F32", values, 2, 256), target, { type: "Q4_0" });
    const { tensors, metadata } = openGguf(target);
    expect(metadata.integer("general.alignment")).toBe(256);
    const [first, second] = [...tensors.values()];
    expect((second?.byteOffset ?? 0) - (first?.byteOffset ?? 0)).toBe(256);
    const between = readFileSync(target).subarray((first?.byteOffset ?? 0) + 12, second?.byteOffset);
    expect(between.every((byte) => byte === 0)).toBe(true);
  });

  test("replaces the file type where it stood, keeps strings that are no UTF-8, and drops what says of parts", async () => {
    const path = fresh();
    const broken = Uint8Array.of(0x61, 0xff, 0x62);
    new GgufWriter({ version: 2 })
      .set("general.architecture", "string", "llama")
      .set("general.file_type", "uint32", 1)
      .set("llama.block_count", "uint32", 1)
      .set("llama.attention.head_count", "uint32", 1)
      .set("general.name", "string", broken)
      .set("split.count", "uint16", 1)
      .set("precise", "float64", 0.1)
      .tensor("output.weight", "F16", [32, 2], new Float32Array(64))
      .write(path);
    const target = fresh();
    await quantizeModel(path, target, { type: "Q8_0" });
    expect([...readReference(new Uint8Array(readFileSync(target))).metadata.keys()]).toEqual([
      "general.architecture",
      "general.file_type",
      "llama.block_count",
      "llama.attention.head_count",
      "general.name",
      "precise",
      "general.quantization_version",
    ]);
    expect(readFileSync(target).includes(broken)).toBe(true);
    expect(openGguf(target).metadata.integer("general.file_type")).toBe(7);
  });
});

describe("is refused, and leaves nothing:", () => {
  const values = Float64Array.from({ length: 512 }, () => 1);
  async function refusal(input: string, output: string, options: Parameters<typeof quantizeModel>[2]): Promise<Error> {
    const before = readdirSync(folder.path);
    const error = await quantizeModel(input, output, options).then(
      () => new Error("it was not refused"),
      (reason: Error) => reason,
    );
    expect(readdirSync(folder.path)).toEqual(before);
    return error;
  }

  test("a source that is quantized already, unless it is allowed", async () => {
    const source = oneMatrix("Q8_0", values, 2);
    const error = await refusal(source, fresh(), { type: "Q4_0" });
    expect(error).toBeInstanceOf(ModelFileError);
    expect(error.message).toContain("blk.0.ffn_up.weight");
    expect(error.message).toContain("allowRequantize");
    await quantizeModel(source, fresh(), { type: "Q4_0", allowRequantize: true });
  });

  test("an output that is there, unless it may be replaced", async () => {
    const source = oneMatrix("F16", values, 2);
    const output = fresh();
    writeFileSync(output, "precious");
    expect(await refusal(source, output, { type: "Q4_0" })).toBeInstanceOf(OptionError);
    expect(readFileSync(output, "utf8")).toBe("precious");
    await quantizeModel(source, output, { type: "Q4_0", overwrite: true });
    expect(openGguf(output).tensors.size).toBe(2);
  });

  test("the input as its own output, by whatever name", async () => {
    const source = oneMatrix("F16", values, 2);
    const before = readFileSync(source);
    const [soft, hard] = [fresh(), fresh()];
    symlinkSync(source, soft);
    linkSync(source, hard);
    for (const output of [source, join(folder.path, ".", "x", "..", source.slice(folder.path.length)), soft, hard]) {
      const error = await refusal(source, output, { type: "Q4_0", overwrite: true });
      expect(error).toBeInstanceOf(TinyAIError);
    }
    expect(readFileSync(source)).toEqual(before);
  });

  test("values that are no numbers, or beyond float16, naming the tensor", async () => {
    for (const [bad, type, message] of [
      [Number.NaN, "Q4_K_S", "not a finite number"],
      [Number.POSITIVE_INFINITY, "BF16", "not a finite number"],
      [1e5, "Q8_0", "65,504"],
      [-1e5, "F16", "65,504"],
    ] as const) {
      const error = await refusal(oneMatrix("F32", values.with(77, bad), 2), fresh(), { type });
      expect(error).toBeInstanceOf(ModelFileError);
      expect(error.message).toContain("blk.0.ffn_up.weight");
      expect(error.message).toContain(message);
    }
    const fits = fresh();
    await quantizeModel(oneMatrix("F32", values.with(77, 2 ** 17), 2), fits, { type: "BF16" });
    expect(tensorValues(fits, "blk.0.ffn_up.weight")[77]).toBe(2 ** 17);
  });

  test("other families, and models with experts", async () => {
    const other = fresh();
    new GgufWriter().set("general.architecture", "string", "t5").write(other);
    expect((await refusal(other, fresh(), { type: "Q8_0" })).message).toContain("general.architecture");
    const experts = fresh();
    tinyModel().set("llama.expert_count", "uint32", 8).write(experts);
    expect((await refusal(experts, fresh(), { type: "Q8_0" })).message).toContain("experts");
  });

  test("a file for which the disk has too little room", async () => {
    const { bavail, bsize } = statfsSync(folder.path);
    const source = fresh();
    const count = Math.ceil((bavail * bsize) / 256) * 2;
    new GgufWriter()
      .set("general.architecture", "string", "llama")
      .set("llama.block_count", "uint32", 1)
      .set("llama.attention.head_count", "uint32", 1)
      .tensor("blk.0.ffn_up.weight", "F16", [256, count], new Uint8Array())
      .write(source);
    // A hole, which takes no room itself.
    truncateSync(source, statSync(source).size + count * 512);
    const error = await refusal(source, fresh(), { type: "Q8_0" });
    expect(error).toMatchObject({ code: "file" });
    expect(error.message).toMatch(/[\d,]+ MB are needed, and its disk has [\d,]+ MB free/);
  });

  test("names of models that there are not, or that were not pulled", async () => {
    expect(await refusal("no-such-model", fresh(), { type: "Q8_0" })).toBeInstanceOf(OptionError);
    const home = process.env["TINYAI_HOME"];
    process.env["TINYAI_HOME"] = folder.path;
    try {
      const error = await refusal("gemma3-270m", fresh(), { type: "Q8_0" });
      expect(error).toBeInstanceOf(DownloadError);
      expect(error.message).toContain("tinyai pull gemma3-270m");
    } finally {
      if (home === undefined) delete process.env["TINYAI_HOME"];
      else process.env["TINYAI_HOME"] = home;
    }
  });

  test("options out of bounds, and paths that are none", async () => {
    const source = oneMatrix("F16", values, 2);
    for (const options of [
      { type: "Q9_9" as QuantizationType },
      { type: "Q8_0", threads: 0 } as const,
      { type: "Q8_0", threads: 10_000 } as const,
      { type: "Q8_0", frobnicate: true } as { type: "Q8_0" },
    ]) {
      expect(await refusal(source, fresh(), options)).toBeInstanceOf(OptionError);
    }
    expect(await refusal("", fresh(), { type: "Q8_0" })).toBeInstanceOf(OptionError);
    expect(await refusal(source, "\0", { type: "Q8_0" })).toBeInstanceOf(OptionError);
    expect(await refusal(fresh(), fresh(), { type: "Q8_0" })).toBeInstanceOf(ModelFileError);
    const nowhere = join(folder.path, "no", "such", "folder.gguf");
    expect(await refusal(source, nowhere, { type: "Q8_0" })).toMatchObject({ code: "file" });
  });

  test("an abort, before and while it runs, and an error of the caller's own", async () => {
    const source = tiny({ layers: 4 });
    const before = AbortSignal.abort(new Error("early"));
    expect((await refusal(source, fresh(), { type: "Q4_K_M", signal: before })).message).toBe("early");
    const controller = new AbortController();
    const output = fresh();
    const late = await refusal(source, output, {
      type: "Q4_K_M",
      signal: controller.signal,
      onProgress: () => controller.abort(new Error("late")),
    });
    expect(late.message).toBe("late");
    expect(existsSync(output)).toBe(false);
    const error = await refusal(source, fresh(), {
      type: "Q4_K_M",
      onProgress() {
        throw new Error("my own");
      },
    });
    expect(error.message).toBe("my own");
  });
});
