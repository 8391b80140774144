// One arithmetic for everybody: a sequence gives the same tokens and the same log-probabilities, bit for bit, alone or beside
// others, whenever it joined, on any number of threads, whole or token by token.

import { afterAll, describe, expect, test } from "bun:test";
import {
  cpu,
  type GenerateOptions,
  type GenerateResult,
  type LoadOptions,
  loadModel,
  type Model,
} from "../../src/index.ts";
import { temporaryFolder } from "../support/folder.ts";
import { type TinyModelOptions, writeTinyModel } from "../support/gguf-writer.ts";
import { Random } from "../support/random.ts";

const folder = temporaryFolder();

const shapes: Record<string, TinyModelOptions & Pick<LoadOptions, "kvCache">> = {
  "gemma3 in Q8_0 with windows": { architecture: "gemma3", dtype: "Q8_0", layers: 6 },
  "llama in Q4_0": { architecture: "llama", dtype: "Q4_0" },
  "qwen2 in F16": { architecture: "qwen2", dtype: "F16" },
  "qwen3 in BF16": { architecture: "qwen3", dtype: "BF16" },
  "llama in Q4_K with Q6_K embeddings": {
    architecture: "llama",
    dtype: "Q4_K",
    embeddingDtype: "Q6_K",
    tied: true,
    ffn: 256,
  },
  "gemma3 in Q8_0 with windows, keys and values in Q8_0": {
    architecture: "gemma3",
    dtype: "Q8_0",
    layers: 6,
    headWidth: 32,
    kvCache: "q8_0",
  },
  "llama in F16 with ten heads to a key, keys and values in Q8_0": {
    architecture: "llama",
    heads: 10,
    kvHeads: 1,
    headWidth: 96,
    kvCache: "q8_0",
  },
};

/** What is compared is computed each time. */
const everyPrompt = { prefixCache: false };
const greedy: GenerateOptions = { maxLength: 30, temperature: 0, ignoreEos: true };
const sampled: GenerateOptions = {
  maxLength: 30,
  temperature: 1.2,
  topK: 0,
  topP: 1,
  repeatPenalty: 1.1,
  ignoreEos: true,
};

/** Sixteen prompts of 1 to 300 tokens: some end within a page, some fill several steps. */
const random = new Random(7);
const lengths = [1, 2, 3, 16, 17, 31, 63, 64, 65, 100, 128, 150, 200, 255, 257, 300];
const prompts = lengths.map((length) => Uint32Array.from({ length }, () => 3 + random.below(500)));

function essence({ tokens, logprobs, text, finish }: GenerateResult) {
  return { tokens, logprobs, text, finish };
}

async function alone(model: Model, options: GenerateOptions) {
  const results = [];
  for (const [seed, prompt] of prompts.entries()) {
    results.push(essence(await model.generate(prompt, { ...options, seed })));
  }
  return results;
}

/** Starts each prompt when the one before it has given a token, and a few at once. */
async function joining(model: Model, options: GenerateOptions) {
  const results: Promise<GenerateResult>[] = [];
  for (const [seed, prompt] of prompts.entries()) {
    const begun = Promise.withResolvers<void>();
    const stream = model.stream(prompt, { ...options, seed });
    results.push(
      (async () => {
        for (;;) {
          const next = await stream.next();
          begun.resolve();
          if (next.done) return next.value;
        }
      })(),
    );
    if (seed % 3 !== 0) await begun.promise;
  }
  return (await Promise.all(results)).map(essence);
}

for (const [name, { kvCache, ...shape }] of Object.entries(shapes)) {
  describe(name, async () => {
    const path = folder.file(`${name}.gguf`);
    writeTinyModel(path, { context: 1024, ...shape });
    const model = await loadModel(path, { threads: { count: 1 }, kvCache, ...everyPrompt });
    afterAll(() => model.close());

    for (const [kind, options] of Object.entries({ greedy, sampled })) {
      test(`sixteen prompts that join while others run give what each gives alone, ${kind}`, async () => {
        const expected = await alone(model, options);
        expect(await joining(model, options)).toEqual(expected);
        await using threads = await loadModel(path, {
          threads: { count: Math.min(2, cpu.cores) },
          batchSize: 5,
          kvCache,
          ...everyPrompt,
        });
        expect(await joining(threads, options)).toEqual(expected);
        expect(await alone(threads, options)).toEqual(expected);
      });
    }

    test("a text scored whole, token by token, and beside others is the same", async () => {
      const tokens = prompts.at(-1) ?? new Uint32Array(0);
      const whole = await model.score(tokens, { top: 5 });
      expect(await model.score(tokens, { top: 5, oneByOne: true })).toEqual(whole);
      const beside = prompts.slice(0, 8).map((prompt, seed) => model.generate(prompt, { ...sampled, seed }));
      const both = [model.score(tokens, { top: 5 }), model.score(tokens, { top: 5, oneByOne: true })];
      expect(await Promise.all(both)).toEqual([whole, whole]);
      await Promise.all(beside);
    });

    test("generating gives its tokens the log-probabilities that scoring gives them", async () => {
      for (const options of [greedy, sampled]) {
        const prompt = prompts[9] ?? new Uint32Array(0);
        const { tokens, logprobs } = await model.generate(prompt, { ...options, seed: 3 });
        const scored = await model.score(Uint32Array.of(...prompt, ...tokens));
        expect(scored.logprobs.slice(prompt.length - 1)).toEqual([...logprobs]);
      }
    });
  });
}

test("as many threads as there are CPUs give what one gives", async () => {
  const path = folder.file("threads.gguf");
  writeTinyModel(path, { architecture: "gemma3", dtype: "Q5_0", layers: 6 });
  const results = [];
  for (let count = 1; count <= Math.min(cpu.cores, 4); count++) {
    await using model = await loadModel(path, { threads: { count }, ...everyPrompt });
    expect(model.threadCount).toBe(count);
    results.push(essence(await model.generate("once upon a time", { ...sampled, maxLength: 60, seed: 11 })));
  }
  for (const result of results) expect(result).toEqual(results[0] ?? result);
});

test("a seed as a number and as a bigint is the same, another seed is not", async () => {
  const path = folder.file("seeds.gguf");
  writeTinyModel(path);
  await using model = await loadModel(path, everyPrompt);
  const run = (seed: number | bigint) => model.generate("hello", { ...sampled, seed });
  const [a, b, c, d] = [await run(5), await run(5n), await run(6), await run((1n << 64n) - 1n)];
  expect(essence(a)).toEqual(essence(b));
  expect(a.seed).toBe(5n);
  expect(c.tokens).not.toEqual(a.tokens);
  expect(d.tokens).not.toEqual(a.tokens);
  expect(d.seed).toBe((1n << 64n) - 1n);
  const unseeded = await model.generate("hello", sampled);
  expect(essence(await run(unseeded.seed))).toEqual(essence(unseeded));
});
