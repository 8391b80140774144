// Preparing a model to be measured: which file is made, kept or refused, and that every key of a configuration does what it says.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { prepareBenchmark } from "../../src/benchmark/prepare.ts";
import { ModelFileError, OptionError } from "../../src/errors.ts";
import { loadModel } from "../../src/index.ts";
import { openModelFile } from "../../src/prepared.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyEncoder } from "../support/tiny-encoder.ts";
import { writeTinyModel } from "../support/tiny-model.ts";
import { keepVariables } from "../support/variables.ts";

const folder = temporaryFolder();
keepVariables("TINYAI_HOME");
const model = folder.file("model.gguf");
const before = process.cwd();
beforeAll(() => {
  process.env["TINYAI_HOME"] = folder.file("home");
  writeTinyModel(model, { dtype: "F32", context: 256 });
  mkdirSync(folder.file("work"));
  process.chdir(folder.file("work"));
});
afterAll(() => process.chdir(before));

const text = async (path: string) => {
  await using loaded = await loadModel(path, { prepared: false });
  return (await loaded.generate("once upon", { maxLength: 8, temperature: 0, ignoreEos: true })).text;
};
const refusal = async (action: Promise<unknown>) => await action.then(() => undefined).catch((error: unknown) => error);

describe("the file", () => {
  test("is made in the working folder under the model's name, and answers as the model does", async () => {
    const prepared = await prepareBenchmark(model);
    expect(prepared).toMatchObject({ file: "made", quantized: null, tuned: null, roofs: null, interrupted: false });
    expect(prepared.path).toBe(`${process.cwd()}/model.tinyai`);
    expect(prepared.bytes).toBe(Bun.file(prepared.path).size);
    expect(prepared.sourceSha256).toBe(new Bun.CryptoHasher("sha256").update(readFileSync(model)).digest("hex"));
    expect(await text(prepared.path)).toBe(await text(model));
  });

  test("is kept where it is of the same model, and made anew where the model has changed or it is damaged", async () => {
    const path = folder.file("again.tinyai");
    const source = folder.file("again.gguf");
    writeTinyModel(source, { dtype: "F16", context: 256 });
    expect(await prepareBenchmark(source, { output: path })).toMatchObject({ file: "made" });
    expect(await prepareBenchmark(source, { output: path })).toMatchObject({ file: "kept" });
    writeTinyModel(source, { dtype: "Q8_0", context: 256 });
    const anew = await prepareBenchmark(source, { output: path });
    expect(anew.file).toBe("made");
    folder.write("again.tinyai", readFileSync(path).subarray(0, 4096));
    expect(await prepareBenchmark(source, { output: path })).toMatchObject({ file: "made", bytes: anew.bytes });
  });

  test("is copied from a prepared one as it is, which itself is kept where it is", async () => {
    const { path } = await prepareBenchmark(model);
    const elsewhere = folder.file("elsewhere.tinyai");
    expect(await prepareBenchmark(path, { output: elsewhere })).toMatchObject({ file: "copied", path: elsewhere });
    expect(readFileSync(elsewhere).equals(readFileSync(path))).toBe(true);
    // What was there of it and is damaged is replaced.
    folder.write("elsewhere.tinyai", readFileSync(path).subarray(0, 4096));
    expect(await prepareBenchmark(path, { output: elsewhere })).toMatchObject({ file: "copied" });
    expect(readFileSync(elsewhere).equals(readFileSync(path))).toBe(true);
    const modified = Bun.file(path).lastModified;
    expect(await prepareBenchmark(path)).toMatchObject({ file: "kept" });
    expect(Bun.file(path).lastModified).toBe(modified);
  });

  test("takes the place of no other kind of file, nor of the model itself", async () => {
    const document = folder.write("thesis.txt", "years of work");
    expect(String(await refusal(prepareBenchmark(model, { output: document })))).toContain("is no prepared model");
    expect(readFileSync(document, "utf8")).toBe("years of work");
    const bytes = readFileSync(model);
    expect(await refusal(prepareBenchmark(model, { output: model }))).toBeInstanceOf(OptionError);
    expect(readFileSync(model).equals(bytes)).toBe(true);
    expect(await refusal(prepareBenchmark(model, { output: folder.file("no/such/file") }))).toBeInstanceOf(OptionError);
    expect(await refusal(prepareBenchmark(folder.file("missing.gguf")))).toBeInstanceOf(OptionError);
    const damaged = folder.write("damaged.tinyai", readFileSync((await prepareBenchmark(model)).path).subarray(0, 999));
    expect(await refusal(prepareBenchmark(damaged))).toBeInstanceOf(ModelFileError);
  });

  test("is not there, and nothing else, where it was interrupted before it was whole", async () => {
    const names = readdirSync(folder.path).sort();
    const signal = AbortSignal.abort(new Error("stopped"));
    const output = folder.file("interrupted.tinyai");
    expect(String(await refusal(prepareBenchmark(model, { output, signal })))).toContain("stopped");
    expect(readdirSync(folder.path).sort()).toEqual(names);
  });
});

describe("the configuration", () => {
  test("quantizes before, and leaves no file between", async () => {
    const output = folder.file("small.tinyai");
    const told: [share: number, doing: string][] = [];
    const onProgress = (share: number, doing: string) => told.push([share, doing]);
    const prepared = await prepareBenchmark(model, { output, config: { quantize: "Q8_0" }, onProgress });
    const shares = told.map(([share]) => share);
    expect(shares).toEqual([...shares].sort((a, b) => a - b));
    expect(shares.at(-1)).toBeWithin(0.5, 1);
    expect([...new Set(told.map(([, doing]) => doing))]).toEqual(["quantizing", "preparing", "opening it"]);
    const { quantized, bytes } = prepared;
    expect(quantized?.type).toBe("Q8_0");
    expect(quantized?.bytes ?? 0).toBeLessThan(quantized?.bytesBefore ?? 0);
    expect(bytes).toBeLessThan(Bun.file(`${process.cwd()}/model.tinyai`).size);
    const formats = Array.from(openModelFile(output).tensors.values(), ({ dtype }) => dtype);
    expect(formats).toContain("Q8_0");
    expect(readdirSync(folder.path).filter((name) => name.startsWith("tinyai-"))).toEqual([]);
  });

  test("cannot quantize what is prepared, or quantized, already", async () => {
    const { path } = await prepareBenchmark(model);
    expect(String(await refusal(prepareBenchmark(path, { config: { quantize: "Q8_0" } })))).toContain("quantize: ");
    const quantized = folder.file("quantized.gguf");
    writeTinyModel(quantized, { dtype: "Q8_0", context: 256 });
    const output = folder.file("twice.tinyai");
    const error = await refusal(prepareBenchmark(quantized, { output, config: { quantize: "Q4_0" } }));
    expect(error).toBeInstanceOf(ModelFileError);
    expect(existsSync(output)).toBe(false);
  });

  test("has the model tuned and the machine measured, and both are used from then on", async () => {
    const began = new Map<string, number>();
    const { tuned, roofs, path } = await prepareBenchmark(model, {
      config: { tune_s: 0.01, measure_roofs: true },
      onProgress: (share, doing) => began.set(doing, Math.min(share, began.get(doing) ?? 1)),
    });
    // Of which the machine takes three seconds, and all before a moment.
    expect(began.get("trying settings")).toBeWithin(0, 0.01);
    expect(began.get("measuring the machine")).toBeWithin(0, 0.02);
    expect(existsSync(roofs ?? "")).toBe(true);
    await using loaded = await loadModel(path);
    expect(loaded.tuningSource).toMatchObject({ kernels: "model", path: tuned?.path });
    expect(loaded.recommendedBatchSize).toMatchObject({ source: "measured", maximum: tuned?.batchSize });
  }, 30_000);

  test("is checked with the model: room for the prompt, the level, and what a model of vectors does not do", async () => {
    const checked = async (config: Parameters<typeof prepareBenchmark>[1]) =>
      String(await refusal(prepareBenchmark(model, config)));
    expect(await checked({ config: { prompt_tokens: 4000 } })).toContain("but the model has room for 256");
    expect(await checked({ config: { simd: "avx1024" } })).toContain('there is no level "avx1024"');
    expect(await checked({ config: { batch_sizes: [1, 1] } })).toContain("each batch size once");
    const encoder = folder.file("encoder.gguf");
    writeTinyEncoder(encoder);
    const output = folder.file("encoder.tinyai");
    const config = { generated_tokens: 4, prompt_tokens: 16 };
    const { settings } = await prepareBenchmark(encoder, { output, config });
    expect(settings).toMatchObject({ prompt_tokens: 16, generated_tokens: 0 });
  });
});
