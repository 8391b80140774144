// Without fusion the same is computed by more ops: results agree to rounding, and ops that were taken in are there again.

import { expect, test } from "bun:test";
import { loadModel, type Model } from "../../src/index.ts";
import { temporaryFolder } from "../support/folder.ts";
import { Random } from "../support/random.ts";
import { writeTinyEncoderFolder } from "../support/tiny-encoder.ts";
import { type TinyModelOptions, writeTinyModel } from "../support/tiny-model.ts";

const folder = temporaryFolder();
const random = new Random(11);
const prompt = Uint32Array.from({ length: 80 }, () => 3 + random.below(500));
/** Of log-probabilities: a norm that is added is rounded once less where that is one op. Measured: 10⁻⁶ with gemma3, else 0. */
const rounding = 1e-5;

const shapes: Record<string, TinyModelOptions> = {
  "gemma3 in Q8_0": { architecture: "gemma3", dtype: "Q8_0", layers: 6 },
  "llama in Q4_K": { dtype: "Q4_K", ffn: 256 },
  "qwen2 in BF16": { architecture: "qwen2", dtype: "BF16" },
};

function count(model: Model, kind: string): number {
  return model.plan().ops.filter((op) => op.kind === kind).length;
}

for (const [name, shape] of Object.entries(shapes)) {
  test(`${name} gives the same without fusion but for rounding, with more ops`, async () => {
    const path = folder.file(`${name}.gguf`);
    writeTinyModel(path, shape);
    await using fused = await loadModel(path, { prefixCache: false });
    await using plain = await loadModel(path, { prefixCache: false, fusion: false });
    expect(plain.plan().ops.length).toBeGreaterThan(fused.plan().ops.length);
    expect(count(fused, "add") + count(fused, "quantize")).toBe(0);
    expect(count(plain, "add")).toBe(2 * (shape.layers ?? 2));
    expect(count(plain, "quantize")).toBeGreaterThan(0);
    const [a, b] = [await fused.score(prompt), await plain.score(prompt)];
    const distance = Math.max(...a.logprobs.map((value, index) => Math.abs(value - (b.logprobs[index] ?? 0))));
    expect(distance).toBeLessThan(rounding);
  });
}

test("an encoder gives the same vectors without fusion but for rounding", async () => {
  const path = writeTinyEncoderFolder(folder.file("encoder"), {});
  await using fused = await loadModel(path);
  await using plain = await loadModel(path, { fusion: false });
  expect(count(plain, "add")).toBeGreaterThan(count(fused, "add"));
  const [a, b] = [await fused.embed("the cat sleeps"), await plain.embed("the cat sleeps")];
  for (const [index, value] of a.entries()) expect(Math.abs(value - (b[index] ?? 0))).toBeLessThan(rounding);
});
