// Vectors of a real model against an independent computation in float64 (embed_reference.py), on texts that differ in all that
// tokenizers and encoders may stumble over.

import { afterAll, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { pullModel } from "../../src/cli/pull.ts";
import { chooseLevel } from "../../src/engine/cpu.ts";
import { openLibrary } from "../../src/engine/library.ts";
import { loadModel, similarity } from "../../src/index.ts";
import { cachePath, runScript } from "./harness.ts";
import { variedTexts } from "./varied-texts.ts";

const { path } = await pullModel("all-minilm-l6-v2");
const texts = variedTexts();
const textsPath = cachePath("embed", "texts.json");
const vectorsPath = cachePath("embed", "vectors.f32");
writeFileSync(textsPath, JSON.stringify(texts));
const ids = JSON.parse(await runScript("embed_reference.py", path, textsPath, vectorsPath)) as number[][];
const floats = new Float32Array(await Bun.file(vectorsPath).arrayBuffer());
const model = await loadModel(path);
afterAll(() => model.close());
const width = model.embeddingWidth ?? 0;
const leastSimilarity = 0.9999;

test("there are 200 texts, and a vector of each", () => {
  expect(new Set(texts).size).toBe(200);
  expect(floats.length).toBe(200 * width);
});

test("tokens are those of Hugging Face's tokenizers, cut as the model's folder says", () => {
  for (const [index, text] of texts.entries()) {
    const tokens = model.tokenizer.truncate(model.tokenizer.encode(text), model.embeddingLength ?? 0);
    expect({ text, ids: [...tokens] }).toEqual({ text, ids: ids[index] ?? [] });
  }
});

test(`every vector's cosine with the reference's is at least ${leastSimilarity}`, async () => {
  const vectors = await model.embed(texts);
  const cosines = vectors.map((vector, index) =>
    similarity(vector, floats.subarray(index * width, (index + 1) * width)),
  );
  for (const [index, cosine] of cosines.entries()) {
    expect({ text: texts[index], near: cosine >= leastSimilarity, cosine }).toMatchObject({ near: true });
  }
  const { name } = chooseLevel(await openLibrary(), undefined);
  console.log(`least cosine ${Math.min(...cosines)} at ${name}`);
});
