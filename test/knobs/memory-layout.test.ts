// The layout of a loaded model's weights, kept as a file: what is said of it against the file, and every weight where it is said to be.

import { expect, test } from "bun:test";
import { existsSync, readFileSync, rmSync, statSync, utimesSync } from "node:fs";
import { EngineError, loadModel } from "../../src/index.ts";
import { readBytes } from "../../src/model/file.ts";
import { openModelFile, preparedPath } from "../../src/prepared.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyModel } from "../support/tiny-model.ts";
import { keepVariables } from "../support/variables.ts";

const folder = temporaryFolder();
keepVariables("TINYAI_HOME");
process.env["TINYAI_HOME"] = folder.file("home");

const path = folder.file("large.gguf");
writeTinyModel(path, { architecture: "llama", dtype: "F32", layers: 2, width: 512, ffn: 1024, vocabulary: 2048 });
const prompt = { temperature: 0, maxLength: 8, ignoreEos: true, cachePrompt: false };

test("a model that was packed while it was loaded is written as it lies in memory, once, and opened from there", async () => {
  await using model = await loadModel(path, { prepared: false });
  expect(model.preparation.state).toBe("none");
  const before = await model.generate("once upon a time", prompt);
  // One of two calls waits for the other.
  const both = await Promise.all([model.optimizeMemoryLayout(), model.optimizeMemoryLayout()]);
  const [made, again] = both.sort((a, b) => Number(a.already) - Number(b.already));
  if (!made) throw new Error("there is no first call");
  const copy = preparedPath(path);
  expect(made).toMatchObject({ already: false, path: copy, bytesMoved: statSync(copy).size });
  expect(made.durationMs).toBeGreaterThan(0);
  expect(again).toMatchObject({ already: true, path: copy, bytesMoved: 0 });
  expect(model.preparation).toEqual({ state: "made", path: copy });
  expect((await model.generate("once upon a time", prompt)).tokens).toEqual(before.tokens);

  const file = openModelFile(copy);
  const start = file.packedWeights?.offset ?? 0;
  expect(made.tensors.map(({ name }) => name).sort()).toEqual(
    [...file.tensors.values()]
      .filter(({ byteOffset }) => byteOffset >= start)
      .map(({ name }) => name)
      .sort(),
  );
  const bytes = readFileSync(copy);
  const source = openModelFile(path);
  for (const { name, rows, columns, offset, bytes: length, layout } of made.tensors) {
    const entry = file.tensors.get(name);
    expect(entry).toMatchObject({ byteOffset: start + offset, byteLength: length, shape: [columns, rows] });
    expect(layout).toBe("groups of 16 rows; 64 bytes hold a column");
    const plain = source.tensors.get(name);
    if (!plain) throw new Error(`${name} is not in the model`);
    const values = new Float32Array(readBytes(source, plain, name).buffer);
    const packed = new Float32Array(bytes.buffer, bytes.byteOffset + start + offset, length / 4);
    for (let row = 0; row < rows; row += 7) {
      for (let column = 0; column < columns; column += 13) {
        const place = Math.floor(row / 16) * 16 * columns + column * 16 + (row % 16);
        expect(packed[place]).toBe(values[row * columns + column] as number);
      }
    }
  }

  await using mapped = await loadModel(path);
  expect(mapped.preparation).toEqual({ state: "used", path: copy });
  expect(await mapped.optimizeMemoryLayout()).toMatchObject({ already: true, path: copy, tensors: made.tensors });
  expect((await mapped.generate("once upon a time", prompt)).tokens).toEqual(before.tokens);
  await using other = await loadModel(path, { prepared: false });
  expect(await other.optimizeMemoryLayout()).toMatchObject({ already: true, path: copy, bytesMoved: 0 });
});

test("a model of which opening keeps no copy has nothing to be made", async () => {
  const small = folder.file("small.gguf");
  writeTinyModel(small, { dtype: "Q4_0" });
  await using model = await loadModel(small);
  const { already, path: copy, tensors } = await model.optimizeMemoryLayout();
  expect({ already, copy }).toEqual({ already: true, copy: undefined });
  expect(tensors[0]?.layout).toContain("codes of 4 bits");
  expect(tensors.every(({ offset }) => offset % 64 === 0)).toBe(true);
});

test("closing waits until the copy is whole", async () => {
  rmSync(folder.file("home"), { recursive: true, force: true });
  const model = await loadModel(path, { prepared: false });
  const making = model.optimizeMemoryLayout();
  while (model.preparation.state !== "making") await Bun.sleep(1);
  await model.close();
  expect(await making).toMatchObject({ already: false });
  expect(existsSync(preparedPath(path))).toBe(true);
  await expect(model.optimizeMemoryLayout()).rejects.toThrow(EngineError);
});

test("a copy that cannot be made is an error that says why, and the model goes on", async () => {
  rmSync(folder.file("home"), { recursive: true, force: true });
  await using model = await loadModel(path, { prepared: false });
  const before = await model.generate("once upon a time", prompt);
  process.env["TINYAI_HOME"] = "/dev/null/tinyai";
  await expect(model.optimizeMemoryLayout()).rejects.toThrow("was not made");
  process.env["TINYAI_HOME"] = folder.file("home");
  utimesSync(path, new Date(), new Date(0));
  await expect(model.optimizeMemoryLayout()).rejects.toThrow("was changed while it was being prepared");
  expect(existsSync(preparedPath(path))).toBe(false);
  expect((await model.generate("once upon a time", prompt)).tokens).toEqual(before.tokens);
});
