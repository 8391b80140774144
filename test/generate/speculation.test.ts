// Guessing tokens changes when they come, never which: tokens, log-probabilities, candidates and texts are those of a run
// without, bit for bit, on texts that repeat and on texts that do not, alone and in batches, to the last position.

import { afterAll, describe, expect, test } from "bun:test";
import { type GenerateOptions, type GenerateResult, type LoadOptions, loadModel, type Model } from "../../src/index.ts";
import { temporaryFolder } from "../support/folder.ts";
import { Random } from "../support/random.ts";
import { type TinyModelOptions, tinyModel, writeTinyModel } from "../support/tiny-model.ts";

const folder = temporaryFolder();

const shapes: Record<string, TinyModelOptions & Pick<LoadOptions, "kvCache">> = {
  "gemma3 in Q8_0 with windows": { architecture: "gemma3", dtype: "Q8_0", layers: 6 },
  "gemma3 in Q4_0 with windows of two pages": { architecture: "gemma3", dtype: "Q4_0", layers: 6, slidingWindow: 128 },
  "llama in F16": { architecture: "llama", dtype: "F16" },
  "qwen3 in BF16": { architecture: "qwen3", dtype: "BF16" },
  "gemma3 in Q8_0 with windows, keys and values in Q8_0": {
    architecture: "gemma3",
    dtype: "Q8_0",
    layers: 6,
    headWidth: 32,
    kvCache: "q8_0",
  },
};

const random = new Random(19);
const phrase = Array.from({ length: 23 }, () => 3 + random.below(500));
const noise = Array.from({ length: 200 }, () => 3 + random.below(500));

/** Prompts that repeat, at a distance and at once, and some that do not. */
const prompts = [
  [...phrase, ...phrase, ...phrase.slice(0, 7)],
  [...phrase, ...noise, ...phrase.slice(0, 9)],
  [5, 5, 5, 5, 5, 5],
  [7, 8, 7, 8, 7, 8, 7],
  [9],
  noise,
  Array.from({ length: 300 }, (_, index) => phrase[index % phrase.length] ?? 0),
].map((tokens) => Uint32Array.from(tokens));

const kinds: Record<string, GenerateOptions> = {
  greedy: { temperature: 0 },
  "greedy with a repeat penalty": { temperature: 0, repeatPenalty: 1.3, repeatLast: 20 },
  // Few candidates and a cool temperature: draws that repeat, and some that do not.
  "sampled, with candidates": { temperature: 0.6, topK: 3, topP: 1, topLogprobs: 4 },
  "sampled from everything, with a repeat penalty": { temperature: 1, topK: 0, topP: 1, repeatPenalty: 1.1 },
};

const lookup = { maxDraft: 8, minMatch: 1 } as const;
const long: GenerateOptions = { maxLength: 150, ignoreEos: true };

function essence({ tokens, logprobs, text, finish, top, seed }: GenerateResult) {
  return { tokens, logprobs, text, finish, top, seed };
}

async function alone(model: Model, options: GenerateOptions) {
  const results: GenerateResult[] = [];
  for (const [seed, prompt] of prompts.entries()) results.push(await model.generate(prompt, { ...options, seed }));
  return results;
}

function accepted(results: readonly GenerateResult[]): number {
  return results.reduce((sum, { speculation }) => sum + (speculation?.accepted ?? 0), 0);
}

for (const [name, { kvCache, ...shape }] of Object.entries(shapes)) {
  describe(name, async () => {
    const path = folder.file(`${name}.gguf`);
    writeTinyModel(path, { context: 512, ...shape });
    const model = await loadModel(path, { kvCache, prefixCache: false });
    afterAll(() => model.close());

    for (const [kind, options] of Object.entries(kinds)) {
      test(`${kind}: the same alone and in a batch, with and without`, async () => {
        const expected = (await alone(model, { ...long, ...options })).map(essence);
        const guessed = await alone(model, { ...long, ...options, speculation: lookup });
        expect(guessed.map(essence)).toEqual(expected);
        if (options.temperature === 0) expect(accepted(guessed)).toBeGreaterThan(0);
        // More guesses than a step has rows of logits for, and neighbours that do not guess.
        const wide = { ...lookup, maxDraft: 31 };
        const batch = prompts.flatMap((prompt, seed) =>
          [wide, undefined].map((speculation) =>
            model.generate(prompt, { ...long, ...options, seed, speculation }).then(essence),
          ),
        );
        expect(await Promise.all(batch)).toEqual(expected.flatMap((result) => [result, result]));
      });
    }
  });
}

describe("a model that repeats itself", async () => {
  const path = folder.file("repeats.gguf");
  writeTinyModel(path, { architecture: "gemma3", layers: 6, context: 256 });
  const model = await loadModel(path, { prefixCache: false });
  afterAll(() => model.close());
  const prompt = prompts[0] ?? new Uint32Array(0);
  const greedy: GenerateOptions = { temperature: 0, ignoreEos: true };

  test("is asked less often than it gives tokens, and says so", async () => {
    const { tokens, speculation } = await model.generate(prompt, { ...greedy, maxLength: 100, speculation: "lookup" });
    if (!speculation) throw new Error("nothing was said");
    expect(tokens.length).toBe(100);
    expect(speculation.accepted).toBeGreaterThan(50);
    expect(speculation.drafted).toBeGreaterThanOrEqual(speculation.accepted);
    const plain = await model.generate(prompt, { ...greedy, maxLength: 100 });
    expect(plain.speculation).toBeUndefined();
  });

  test("runs fewer steps for the same text, and the profile counts the tokens that they gave", async () => {
    const phases = async (speculation: GenerateOptions["speculation"]) => {
      const profile = await model.profile(() => model.generate(prompt, { ...greedy, maxLength: 100, speculation }));
      return profile.phases.map(({ phase, count, rows }) => ({ phase, count, rows }));
    };
    const [read, plain] = await phases(undefined);
    expect(plain).toEqual({ phase: "generation", count: 99, rows: 99 });
    const [readAsWell, guessed] = await phases("lookup");
    expect(readAsWell).toEqual(read);
    expect(guessed).toEqual({ phase: "generation", count: expect.any(Number), rows: 99 });
    expect(guessed?.count).toBeLessThan(50);
  });

  test("ends at every length, up to the context's last position", async () => {
    const whole = await model.generate(prompt, { ...greedy, maxLength: 256 - prompt.length });
    for (const maxLength of [1, 2, 3, 4, 5, 7, 10, 17, 40, 256 - prompt.length]) {
      const result = await model.generate(prompt, { ...greedy, maxLength, speculation: lookup });
      expect(result.tokens).toEqual(whole.tokens.slice(0, maxLength));
      expect(result.logprobs).toEqual(whole.logprobs.slice(0, maxLength));
      expect(result.finish).toBe("length");
    }
  });

  test("ends at a stop text, wherever in a step it comes", async () => {
    const { text } = await model.generate(prompt, { ...greedy, maxLength: 80 });
    for (let from = 3; from < 40; from += 3) {
      const stop = text.slice(from, from + 4);
      const options = { ...greedy, maxLength: 80, stop };
      const expected = await model.generate(prompt, options);
      expect(expected.finish).toBe("stop");
      expect(essence(await model.generate(prompt, { ...options, speculation: lookup }))).toEqual({
        ...essence(expected),
        seed: expect.anything(),
      });
    }
  });

  test("can be left at any token, and then serves others", async () => {
    const expected = await model.generate(prompt, { ...greedy, maxLength: 60, seed: 1 });
    for (let count = 1; count < 40; count++) {
      const tokens: number[] = [];
      for await (const { token } of model.stream(prompt, { ...greedy, maxLength: 100, speculation: lookup })) {
        if (token !== undefined) tokens.push(token);
        if (tokens.length === count) break;
      }
      expect(tokens).toEqual(expected.tokens.slice(0, count));
    }
    const after = await model.generate(prompt, { ...greedy, maxLength: 60, seed: 1, speculation: lookup });
    expect(essence(after)).toEqual(essence(expected));
  });

  test("scores and reads prompts beside sequences that guess as much as they may", async () => {
    const options = { ...greedy, maxLength: 100, speculation: { maxDraft: 31, minMatch: 1 } };
    const scored = await model.score(prompts[5] ?? prompt, { top: 3 });
    const generated = essence(await model.generate(prompt, { ...options, seed: 2 }));
    const beside = Array.from({ length: 15 }, () => model.generate(prompt, { ...options, seed: 2 }));
    expect(await model.score(prompts[5] ?? prompt, { top: 3 })).toEqual(scored);
    for (const result of await Promise.all(beside)) expect(essence(result)).toEqual(generated);
  });
});

test("the model's end token ends the text inside a guess as well", async () => {
  const shape: TinyModelOptions = { architecture: "gemma3", layers: 6, context: 256 };
  const prompt = prompts[0] ?? new Uint32Array(0);
  const options: GenerateOptions = { temperature: 0, maxLength: 100, seed: 1 };
  const run = async (eos: number | undefined, changes: GenerateOptions) => {
    const path = folder.file("ends.gguf");
    const writer = tinyModel(shape);
    if (eos !== undefined) writer.set("tokenizer.ggml.eot_token_id", "uint32", eos);
    writer.write(path);
    await using model = await loadModel(path);
    return await model.generate(prompt, { ...options, ...changes });
  };
  const { tokens } = await run(undefined, { ignoreEos: true });
  const late = [...new Set(tokens)].filter((token) => tokens.indexOf(token) > 0);
  expect(late.length).toBeGreaterThan(0);
  for (const eos of late) {
    const expected = await run(eos, {});
    expect(expected.finish).toBe("eos");
    expect(expected.tokens.length).toBe(tokens.indexOf(eos) + 1);
    expect(essence(await run(eos, { speculation: lookup }))).toEqual(essence(expected));
  }
});
