// Every instruction-set level that this CPU has computes the same model: the same arithmetic up to the order of float32 sums.

import { afterAll, describe, expect, test } from "bun:test";
import { openLibrary } from "../../src/engine/library.ts";
import { type LoadOptions, loadModel } from "../../src/index.ts";
import { temporaryFolder } from "../support/folder.ts";
import { type TinyModelOptions, writeTinyModel } from "../support/gguf-writer.ts";
import { Random } from "../support/random.ts";

const folder = temporaryFolder();
const before = process.env["TINYAI_SIMD"];
afterAll(() => {
  if (before === undefined) delete process.env["TINYAI_SIMD"];
  else process.env["TINYAI_SIMD"] = before;
});
const levels = (await openLibrary()).levels.filter(({ supported }) => supported).map(({ name }) => name);
const random = new Random(3);
const tokens = Uint32Array.from({ length: 120 }, () => 3 + random.below(500));

async function run(path: string, level: string, kvCache: LoadOptions["kvCache"]) {
  process.env["TINYAI_SIMD"] = level;
  await using model = await loadModel(path, { prefixCache: false, kvCache });
  expect(model.simd).toMatchObject({ name: level, reason: "forced by TINYAI_SIMD" });
  const logits: Float32Array[] = [];
  await model.score(tokens, {
    onLogits: (rows, count) => {
      for (let row = 0; row < count; row++)
        logits.push(rows.slice((row * rows.length) / count, ((row + 1) * rows.length) / count));
    },
  });
  const prompts = [tokens.slice(0, 3), tokens.slice(0, 70), tokens];
  const options = { temperature: 0, maxLength: 20, ignoreEos: true };
  const together = await model.generate(prompts, options);
  for (const [index, prompt] of prompts.entries()) {
    const alone = await model.generate(prompt, options);
    expect(together[index]?.tokens).toEqual(alone.tokens);
    expect(together[index]?.logprobs).toEqual(alone.logprobs);
  }
  return logits;
}

/**
 * Where two levels round an activation to different 8-bit codes, a product differs by one part in 127 of one of its terms;
 * the largest difference grows from there. Activations of 16-bit weights are float32 or have 14 bits, a 64th of that. Float32
 * weights differ by the order of sums alone.
 */
const shapes: Record<string, { options: TinyModelOptions; bound: number; kvCache?: LoadOptions["kvCache"] }> = {
  "llama in F32": { options: { architecture: "llama", dtype: "F32" }, bound: 0.002 },
  "llama in BF16": { options: { architecture: "llama", dtype: "BF16" }, bound: 0.005 },
  "gemma3 in Q8_0": { options: { architecture: "gemma3", dtype: "Q8_0" }, bound: 0.1 },
  "qwen2 in Q4_K": { options: { architecture: "qwen2", dtype: "Q4_K", embeddingDtype: "Q6_K", ffn: 256 }, bound: 0.1 },
  "qwen3 in IQ4_NL": { options: { architecture: "qwen3", dtype: "IQ4_NL" }, bound: 0.1 },
  // A key between two multiples of its scale may fall to either side.
  "llama in F32, keys and values in Q8_0": {
    options: { architecture: "llama", dtype: "F32", headWidth: 32 },
    bound: 0.02,
    kvCache: "q8_0",
  },
};

describe(`${levels.join(", ")} agree`, () => {
  for (const [name, { options, bound, kvCache }] of Object.entries(shapes)) {
    test(`on ${name}, and where two tokens are not nearly equal, on the best one`, async () => {
      const path = folder.file(`${name}.gguf`);
      writeTinyModel(path, options);
      const results: Float32Array[][] = [];
      for (const level of levels) results.push(await run(path, level, kvCache));
      const [first, ...others] = results;
      for (const other of others) {
        expect(other.length).toBe(tokens.length);
        other.forEach((row, position) => {
          const reference = first?.[position] ?? new Float32Array(0);
          const largest = row.reduce(
            (most, value, index) => Math.max(most, Math.abs(value - (reference[index] ?? Number.NaN))),
            0,
          );
          expect(largest).toBeLessThan(bound);
          const [best = 0, second = 0] = [...reference].sort((a, b) => b - a);
          if (best - second > 2 * bound) expect(row.indexOf(Math.max(...row))).toBe(reference.indexOf(best));
        });
      }
    });
  }
});

describe("a level by number", () => {
  const expected = [["scalar", "neon"], ["x86_64_v2", "neon"], ["avx2", "neon_dotprod"], [levels.at(-1) ?? ""]];
  for (const [number, names] of expected.entries()) {
    test(`${number} is ${names.join(" or ")}`, async () => {
      delete process.env["TINYAI_SIMD"];
      const path = folder.file("number.gguf");
      writeTinyModel(path);
      if (!levels.some((level) => names.includes(level))) return; // This CPU does not have it.
      await using model = await loadModel(path, { simd: { level: number } });
      expect(names).toContain(model.simd.name);
      const profile = await model.profile(() => model.generate("hello", { maxLength: 2 }), { roofline: false });
      for (const { kernel } of profile.byOp) expect(kernel).toEndWith(`.${model.simd.name}`);
    });
  }

  test("gives way to the environment's name", async () => {
    process.env["TINYAI_SIMD"] = levels[0];
    await using model = await loadModel(folder.file("number.gguf"), { simd: { level: 3 } });
    expect(model.simd.name).toBe(levels[0] ?? "");
    delete process.env["TINYAI_SIMD"];
  });
});
