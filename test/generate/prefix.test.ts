// A prompt that begins like another starts from its keys and values, and the output is the one without, bit for bit: tokens,
// log-probabilities and candidates, for prompts that are cut anywhere, beside running sequences and after ended ones.

import { afterAll, describe, expect, test } from "bun:test";
import { openLibrary } from "../../src/engine/library.ts";
import {
  type GenerateOptions,
  type GenerateResult,
  type LoadOptions,
  loadModel,
  type Model,
  OptionError,
} from "../../src/index.ts";
import { temporaryFolder } from "../support/folder.ts";
import { Random } from "../support/random.ts";
import { type TinyModelOptions, writeTinyModel } from "../support/tiny-model.ts";

const folder = temporaryFolder();
const environment = process.env["TINYAI_SIMD"];
afterAll(() => {
  if (environment === undefined) delete process.env["TINYAI_SIMD"];
  else process.env["TINYAI_SIMD"] = environment;
});
const levels = (await openLibrary()).levels.filter(({ supported }) => supported).map(({ name }) => name);

const shapes: Record<string, TinyModelOptions & Pick<LoadOptions, "kvCache">> = {
  "gemma3 in Q8_0 with windows of 100": { architecture: "gemma3", dtype: "Q8_0", layers: 6, slidingWindow: 100 },
  "llama in F16": { architecture: "llama", dtype: "F16" },
  "qwen3 in Q4_0": { architecture: "qwen3", dtype: "Q4_0" },
  "gemma3 in Q4_0 with windows of 100, keys and values in Q8_0": {
    architecture: "gemma3",
    dtype: "Q4_0",
    layers: 6,
    slidingWindow: 100,
    headWidth: 64,
    kvCache: "q8_0",
  },
};

const random = new Random(41);
const tokens = (length: number) => Array.from({ length }, () => 3 + random.below(500));
const text = tokens(600);
const candidates: GenerateOptions = { temperature: 0.8, topK: 20, topLogprobs: 3, ignoreEos: true, maxLength: 12 };

function essence({ tokens, logprobs, top, text, finish }: GenerateResult) {
  return { tokens, logprobs, top, text, finish };
}

/** Whole pages of 64 positions, and what of the next is worth a copy. */
function reusable(positions: number): number {
  return positions % 64 < 2 ? positions - (positions % 64) : positions;
}

/** What the prompt gives when nothing is there to begin with. */
async function fresh(model: Model, prompt: Uint32Array, options: GenerateOptions): Promise<GenerateResult> {
  const result = await model.generate(prompt, { ...options, cachePrompt: false });
  expect(result.reusedTokens).toBe(0);
  return result;
}

/** Ends of the common part: inside the first page, at pages' and steps' ends and beside them, and far behind. */
const commonLengths = [5, 63, 64, 65, 100, 128, 255, 256, 257, 300, 384, 511, 512, 540];

for (const level of levels) {
  for (const [name, { kvCache, ...shape }] of Object.entries(shapes)) {
    describe(`${name} at ${level}`, async () => {
      const path = folder.file(`${name}.gguf`);
      writeTinyModel(path, { context: 1024, ...shape });
      process.env["TINYAI_SIMD"] = level;
      const model = await loadModel(path, { kvCache });
      afterAll(() => model.close());

      test("prompts that part from an ended sequence's anywhere", async () => {
        await model.generate(Uint32Array.from(text), { ...candidates, seed: 1 });
        for (const [seed, common] of commonLengths.entries()) {
          const prompt = Uint32Array.from([...text.slice(0, common), ...tokens(40)]);
          const reused = await model.generate(prompt, { ...candidates, seed });
          expect(reused.reusedTokens).toBe(reusable(common));
          expect(essence(reused)).toEqual(essence(await fresh(model, prompt, { ...candidates, seed })));
        }
      });

      test("the same prompt again, but for its last token; and a conversation that goes on", async () => {
        let prompt = tokens(70);
        for (let turn = 0; turn < 6; turn++) {
          const options = { ...candidates, seed: turn, maxLength: 80 };
          const expected = await fresh(model, Uint32Array.from(prompt), options);
          const results = [
            await model.generate(Uint32Array.from(prompt), options),
            await model.generate(Uint32Array.from(prompt), { ...options, speculation: "lookup" }),
          ];
          for (const result of results) expect(essence(result)).toEqual(essence(expected));
          expect(results[1]?.reusedTokens).toBe(reusable(prompt.length - 1));
          // Everything but the last token drawn, which was never computed.
          if (turn > 0) expect(results[0]?.reusedTokens).toBe(reusable(prompt.length - 11 - 1));
          prompt = [...prompt, ...expected.tokens, ...tokens(11)];
        }
      });
    });
  }
}

describe("a model with windows", async () => {
  process.env["TINYAI_SIMD"] = levels.at(-1);
  const path = folder.file("windows.gguf");
  writeTinyModel(path, { architecture: "gemma3", dtype: "Q5_1", layers: 7, slidingWindow: 100, context: 1024 });
  const model = await loadModel(path);
  afterAll(() => model.close());

  test("takes over from sequences that are still running, and from prompts that came with it", async () => {
    const shared = tokens(300);
    const prompts = Array.from({ length: 16 }, () => Uint32Array.from([...shared, ...tokens(20)]));
    const options = { ...candidates, seed: 3, maxLength: 60 };
    const expected: GenerateResult[] = [];
    for (const prompt of prompts) expected.push(await fresh(model, prompt, options));
    const results = await model.generate(prompts, options);
    expect(results.map(essence)).toEqual(expected.map(essence));
    // The first fills a step with 256 rows; the others come after it.
    const [first = -1, ...others] = results.map(({ reusedTokens }) => reusedTokens);
    expect(first).toBe(0);
    expect(Math.min(...others)).toBeGreaterThanOrEqual(256);
    expect(Math.max(...others)).toBe(shared.length);
  });

  test("goes on after a sequence that was left in its middle", async () => {
    const prompt = Uint32Array.from(tokens(200));
    const options = { ...candidates, seed: 9, maxLength: 100 };
    const expected = await fresh(model, prompt, options);
    for (const count of [1, 30, 64]) {
      let drawn = 0;
      for await (const { token } of model.stream(prompt, options)) {
        if (token !== undefined) drawn += 1;
        if (drawn === count) break;
      }
      const longer = Uint32Array.from([...prompt, ...expected.tokens.slice(0, count), ...tokens(5)]);
      const result = await model.generate(longer, options);
      expect(result.reusedTokens).toBeGreaterThanOrEqual(prompt.length + count - 1);
      expect(essence(result)).toEqual(essence(await fresh(model, longer, options)));
    }
  });

  test("scores whole texts whatever is there, and what it scored is there for others", async () => {
    const prompt = Uint32Array.from(tokens(270));
    const before = await model.score(prompt, { top: 2 });
    expect(await model.score(prompt, { top: 2 })).toEqual(before);
    const result = await model.generate(prompt, { ...candidates, seed: 4 });
    expect(result.reusedTokens).toBe(prompt.length - 1);
    expect(essence(result)).toEqual(essence(await fresh(model, prompt, { ...candidates, seed: 4 })));
    expect(await model.score(prompt, { top: 2 })).toEqual(before);
  });

  test("neither takes nor gives where it is told not to", async () => {
    const prompt = Uint32Array.from(tokens(150));
    await fresh(model, prompt, candidates);
    expect((await model.generate(prompt, candidates)).reusedTokens).toBe(0);
    await fresh(model, prompt, candidates);
    expect((await model.generate(prompt, candidates)).reusedTokens).toBe(prompt.length - 1);
  });
});

test("where few pages are kept, long texts push each other out, and the output stays", async () => {
  const path = folder.file("windows.gguf");
  // A page of the layers with windows takes 49 KB, one of the layer without 8 KB.
  await using model = await loadModel(path, { batchSize: 1, prefixCache: { maxBytes: 800_000 } });
  const prompts = Array.from({ length: 6 }, () => Uint32Array.from([...text.slice(0, 200), ...tokens(400)]));
  const options = { ...candidates, seed: 5 };
  const seen: number[] = [];
  for (let round = 0; round < 2; round++) {
    for (const prompt of prompts) {
      const result = await model.generate(prompt, options);
      expect(essence(result)).toEqual(essence(await fresh(model, prompt, options)));
      seen.push(result.reusedTokens);
    }
  }
  expect(Math.max(...seen)).toBeGreaterThanOrEqual(128);
  // Kept or not, a text's own pages were gone when it came again.
  expect(Math.max(...seen)).toBeLessThan(400);
});

test("a model loaded without reuse computes every prompt", async () => {
  await using model = await loadModel(folder.file("windows.gguf"), { prefixCache: false });
  const prompt = Uint32Array.from(tokens(150));
  const [first, second] = [await model.generate(prompt, candidates), await model.generate(prompt, candidates)];
  expect([first.reusedTokens, second.reusedTokens]).toEqual([0, 0]);
});

test("options out of bounds are named", async () => {
  const path = folder.file("windows.gguf");
  const load = (prefixCache: unknown) => loadModel(path, { prefixCache: prefixCache as boolean });
  const reasons = [load(1), load(null), load({ maxBytes: 0 }), load({ bytes: 5 })].map((loading) =>
    loading.then(
      () => undefined,
      (error) => error,
    ),
  );
  for (const reason of await Promise.all(reasons)) {
    expect(reason).toBeInstanceOf(OptionError);
    expect(reason.option).toStartWith("prefixCache");
  }
});
