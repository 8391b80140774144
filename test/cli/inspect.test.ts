// `tinyai inspect` tells what the file holds, sums it up right, and passes nothing on that could steer a terminal.

import { expect, test } from "bun:test";
import { join } from "node:path";
import { formatInspection, inspect } from "../../src/cli/inspect.ts";
import { runProgram } from "../../src/setup/python.ts";
import { temporaryFolder } from "../support/folder.ts";
import { GgufWriter, writeTinyModel } from "../support/gguf-writer.ts";
import { writeTinyEncoderFolder } from "../support/tiny-encoder.ts";

const folder = temporaryFolder();
const main = join(import.meta.dir, "..", "..", "src", "cli", "main.ts");

function sample(): string {
  const path = folder.file("sample.gguf");
  new GgufWriter()
    .set("general.architecture", "string", "llama")
    .set("general.name", "string", "Evil \x1b[31mname")
    .set("large", "uint64", 2n ** 60n)
    .set("infinite", "float32", Number.POSITIVE_INFINITY)
    .set("epsilon", "float32", 1e-6)
    .setArray(
      "numbers",
      "int16",
      Array.from({ length: 100 }, (_, index) => index),
    )
    .setArray("flags", "bool", [true, false])
    .setArray("words", "string", ["a", "b"])
    .tensor("one", "F32", [64, 2], new Float32Array(128))
    .tensor("two", "Q8_0", [64, 3], new Float32Array(192))
    .tensor("three", "Q8_0", [32], new Float32Array(32))
    .write(path);
  return path;
}

test("inspect sums parameters and bytes over all tensors and by dtype", () => {
  const inspection = inspect(sample());
  expect(inspection).toMatchObject({ format: "gguf", version: 3, architecture: "llama" });
  expect(inspection.parameters).toBe(128 + 192 + 32);
  expect(inspection.tensor_bytes).toBe(512 + 204 + 34);
  expect(inspection.dtypes).toEqual([
    { dtype: "F32", tensors: 1, parameters: 128, bytes: 512 },
    { dtype: "Q8_0", tensors: 2, parameters: 224, bytes: 238 },
  ]);
  expect(inspection.tensors.map(({ name, shape, bytes }) => [name, shape, bytes])).toEqual([
    ["one", [64, 2], 512],
    ["two", [64, 3], 204],
    ["three", [32], 34],
  ]);
});

test("inspect gives metadata that survives JSON, long arrays by their first elements", () => {
  const { metadata } = JSON.parse(JSON.stringify(inspect(sample())));
  expect(metadata).toEqual([
    { key: "general.architecture", type: "string", value: "llama" },
    { key: "general.name", type: "string", value: "Evil \x1b[31mname" },
    { key: "large", type: "uint64", value: "1152921504606846976" },
    { key: "infinite", type: "float32", value: "Infinity" },
    { key: "epsilon", type: "float32", value: 1e-6 },
    { key: "numbers", type: "array of int16", length: 100, first: [0, 1, 2, 3, 4, 5, 6, 7] },
    { key: "flags", type: "array of bool", length: 2, first: [true, false] },
    { key: "words", type: "array of string", length: 2, first: ["a", "b"] },
  ]);
});

test("the text for a terminal has the sums, the metadata and, when asked, the tensors, and no control characters", () => {
  const inspection = inspect(sample());
  const short = formatInspection(inspection);
  const long = formatInspection(inspection, { tensors: true });
  expect(short).toContain("352 in 3 tensors");
  expect(short).toMatch(/^numbers +array of int16 +100: 0, 1, 2, 3, 4, 5, 6, 7, …$/m);
  expect(short).toMatch(/^Q8_0 +2 +224 +0\.0 +31\.7 % +8\.50$/m);
  expect(short).not.toMatch(/^two /m);
  expect(long).toMatch(/^two +Q8_0 +64 × 3 +0\.000$/m);
  expect(long).not.toContain("\x1b");
});

test("inspect tells about a model without tensors, and a whole tiny model", () => {
  const bare = folder.file("bare.gguf");
  new GgufWriter().write(bare);
  expect(formatInspection(inspect(bare), { tensors: true })).toContain("architecture  not named");
  const tiny = folder.file("tiny.gguf");
  writeTinyModel(tiny, { architecture: "gemma3" });
  expect(formatInspection(inspect(tiny))).toMatch(/^tokenizer\.ggml\.tokens +array of string +512: "<unk>", /m);
});

test("inspect tells of a folder what it tells of a file", () => {
  const path = writeTinyEncoderFolder(folder.file("encoder"), { maxLength: 32 });
  const inspection = inspect(path);
  expect(inspection).toMatchObject({ path, format: "safetensors", version: 0, architecture: "bert", name: "encoder" });
  expect(inspection.dtypes).toEqual([
    { dtype: "F32", tensors: 37, parameters: inspection.parameters, bytes: 4 * inspection.parameters },
  ]);
  expect(inspection.metadata).toContainEqual({ key: "tinyai.embedding.max_length", type: "uint32", value: 32 });
  expect(formatInspection(inspection)).toContain("format        safetensors\n");
});

test("inspect --plan tells how a model would be executed, as tables and as JSON", async () => {
  const path = folder.file("planned.gguf");
  writeTinyModel(path, { architecture: "gemma3" });
  const run = (...flags: string[]) =>
    runProgram([process.execPath, main, "inspect", path, "--plan", ...flags], { env: process.env });
  expect((await run()).stdout).toMatch(/^0 +rope_table\.0 +rope_table/m);
  const { ops, buffers, arenaBytes } = JSON.parse((await run("--json")).stdout);
  expect(ops.length).toBeGreaterThan(10);
  const ends = buffers.map(({ offset, bytes }: { offset: number; bytes: number }) => offset + bytes);
  expect(Math.max(...ends)).toBe(arenaBytes);
});
