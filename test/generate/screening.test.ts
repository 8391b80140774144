// Screening the output head changes how much of it is read, never what is drawn: tokens, texts and ends are those of a model
// without, bit for bit, alone and in batches, with guesses, at every instruction-set level; and what it cannot know it does
// not tell.

import { afterAll, describe, expect, test } from "bun:test";
import {
  type GenerateOptions,
  type GenerateResult,
  loadModel,
  type Model,
  OptionError,
  type Prompt,
} from "../../src/index.ts";
import { temporaryFolder } from "../support/folder.ts";
import { Random } from "../support/random.ts";
import { type TinyModelOptions, tinyModel, writeTinyModel } from "../support/tiny-model.ts";

const folder = temporaryFolder();

const shapes: Record<string, TinyModelOptions> = {
  "gemma3 in Q8_0": { architecture: "gemma3", dtype: "Q8_0", layers: 6, vocabulary: 3000 },
  "llama in Q8_0 with an odd vocabulary": {
    architecture: "llama",
    dtype: "Q8_0",
    vocabulary: 1003,
    width: 96,
    heads: 3,
    kvHeads: 1,
  },
  "llama in Q4_K with a Q6_K head": {
    architecture: "llama",
    dtype: "Q4_K",
    embeddingDtype: "Q6_K",
    tied: true,
    ffn: 256,
  },
};

const random = new Random(23);
const noise = Array.from({ length: 120 }, () => 3 + random.below(500));
const phrase = noise.slice(0, 17);
const prompts = [[9], phrase, [...phrase, ...phrase, ...phrase.slice(0, 5)], noise].map((tokens) =>
  Uint32Array.from(tokens),
);

const kinds: Record<string, GenerateOptions> = {
  greedy: { temperature: 0 },
  "greedy with a repeat penalty": { temperature: 0, repeatPenalty: 1.3, repeatLast: 40 },
  "greedy with a reward for repeating": { temperature: 0, repeatPenalty: 0.7 },
  "sampled as by default": {},
  "sampled from three": { temperature: 1.3, topK: 3, topP: 1 },
  "sampled from many, with everything": { temperature: 2, topK: 256, topP: 0.8, minP: 0.02, repeatPenalty: 1.2 },
};

function essence({ tokens, text, finish, seed }: GenerateResult) {
  return { tokens, text, finish, seed };
}

async function alone(model: Model, options: GenerateOptions) {
  const results = [];
  for (const [seed, prompt] of prompts.entries()) {
    results.push(essence(await model.generate(prompt, { maxLength: 60, ignoreEos: true, seed, ...options })));
  }
  return results;
}

for (const [name, shape] of Object.entries(shapes)) {
  describe(name, async () => {
    const path = folder.file(`${name}.gguf`);
    writeTinyModel(path, { context: 512, ...shape });
    const plain = await loadModel(path, { prefixCache: false });
    const screened = await loadModel(path, { prefixCache: false, screening: true });
    afterAll(() => Promise.all([plain.close(), screened.close()]));

    for (const [kind, options] of Object.entries(kinds)) {
      test(`${kind}: the same alone, in batches and with guesses`, async () => {
        const expected = await alone(plain, options);
        expect(await alone(screened, options)).toEqual(expected);
        const speculation = { maxDraft: 3, minMatch: 1 };
        expect(await alone(screened, { ...options, speculation })).toEqual(expected);
        const all = { maxLength: 60, ignoreEos: true, ...options };
        // Two, which may be screened together, and eight and more, which are not.
        for (const first of [0, 2]) {
          const two = prompts
            .slice(first, first + 2)
            .map((prompt, index) => screened.generate(prompt, { ...all, seed: first + index }).then(essence));
          expect(await Promise.all(two)).toEqual(expected.slice(first, first + 2));
        }
        const many = prompts.flatMap((prompt, seed) =>
          [undefined, speculation].map((guesses) =>
            screened.generate(prompt, { ...all, seed, speculation: guesses }).then(essence),
          ),
        );
        expect(await Promise.all(many)).toEqual(expected.flatMap((result) => [result, result]));
      });
    }

    test("many seeds draw the same", async () => {
      const options = { maxLength: 12, ignoreEos: true, temperature: 1.5 };
      for (let seed = 0; seed < 40; seed++) {
        const expected = await plain.generate("hello world", { ...options, seed });
        expect(essence(await screened.generate("hello world", { ...options, seed }))).toEqual(essence(expected));
      }
    });

    test("stop texts end it at the same place", async () => {
      const options: GenerateOptions = { maxLength: 60, ignoreEos: true, seed: 5 };
      const { text } = await plain.generate("once upon a time", options);
      const stop = text.slice(8, 11).toWellFormed();
      const expected = essence(await plain.generate("once upon a time", { ...options, stop }));
      expect(essence(await screened.generate("once upon a time", { ...options, stop }))).toEqual(expected);
    });

    test("the levels that this CPU has agree with themselves", async () => {
      for (const level of [0, 1, 2]) {
        const simd = { simd: { level }, prefixCache: false } as const;
        await using without = await loadModel(path, simd);
        await using within = await loadModel(path, { ...simd, screening: true });
        for (const options of [{ temperature: 0 }, { temperature: 0.9 }]) {
          expect(await alone(within, options)).toEqual(await alone(without, options));
        }
      }
    });

    test("one thread gives what all give", async () => {
      await using single = await loadModel(path, { threads: { count: 1 }, prefixCache: false, screening: true });
      expect(await alone(single, {})).toEqual(await alone(screened, {}));
    });
  });
}

describe("a screened model", async () => {
  const path = folder.file("screened.gguf");
  writeTinyModel(path, { architecture: "gemma3", dtype: "Q8_0", vocabulary: 4000 });
  const plain = await loadModel(path);
  const model = await loadModel(path, { screening: true });
  afterAll(() => Promise.all([plain.close(), model.close()]));
  const prompt: Prompt = "once upon a time";
  const greedy: GenerateOptions = { maxLength: 8, temperature: 0, ignoreEos: true };

  test("tells no log-probabilities of what it screens, and the right ones of what it does not", async () => {
    const result = await model.generate(prompt, greedy);
    expect(result.tokens).toHaveLength(8);
    expect(result.logprobs).toEqual([]);
    for await (const piece of model.stream(prompt, greedy)) expect(piece.logprob).toBeUndefined();
    for (const options of [
      { topLogprobs: 3 },
      { temperature: 1, topK: 0, seed: 2 },
      { temperature: 1, topK: 257, seed: 2 },
    ]) {
      const expected = await plain.generate(prompt, { ...greedy, ...options });
      const { tokens, logprobs, top } = await model.generate(prompt, { ...greedy, ...options });
      expect({ tokens, logprobs, top }).toEqual({
        tokens: expected.tokens,
        logprobs: expected.logprobs,
        top: expected.top,
      });
      expect(logprobs).toHaveLength(8);
    }
  });

  test("tells no log-probabilities either where a text outgrows the penalty that it is screened with", async () => {
    const long = Uint32Array.from({ length: 240 }, (_, index) => 3 + ((index * 7) % 990));
    const options: GenerateOptions = { ...greedy, maxLength: 40, repeatPenalty: 1.5, repeatLast: 400 };
    const result = await model.generate(long, options);
    expect(result.tokens).toEqual((await plain.generate(long, options)).tokens);
    expect(result.logprobs).toEqual([]);
  });

  test("tells the same of a sequence whatever runs beside it", async () => {
    const both = await Promise.all([
      model.generate(prompt, greedy),
      model.generate(prompt, { ...greedy, topLogprobs: 2 }),
    ]);
    expect(both.map(({ logprobs }) => logprobs.length)).toEqual([0, 8]);
    expect(both[0].tokens).toEqual(both[1].tokens);
  });

  test("scores as any other", async () => {
    const expected = await plain.score("once upon a time there was", { top: 2 });
    expect(await model.score("once upon a time there was", { top: 2 })).toEqual(expected);
  });

  test("says what memory the copy takes, and what its ops read", async () => {
    const head = 4000 * 64;
    expect(plain.plan().screenBytes).toBe(0);
    expect(model.plan().screenBytes).toBeGreaterThan(head / 2);
    expect(model.plan().screenBytes).toBeLessThan(head);
    const { byOp } = await model.profile(() => model.generate(prompt, greedy));
    const row = (name: string) => byOp.find((op) => op.name.endsWith(name));
    const groups = row(".likely")?.rows ?? 0;
    expect(groups).toBeGreaterThanOrEqual(16 * 8);
    expect((row(".likely")?.bytes ?? 0) / groups).toBeCloseTo((16 * 64 * 34) / 32, 0);
    expect(
      byOp.some(({ kind, name }) => kind === "matmul" && name === row(".screen")?.name.replace(".screen", "")),
    ).toBe(false);
  });
});

test("heads that have no screen are refused, and so is what is no boolean", async () => {
  for (const [dtype, word] of [
    ["F16", "F16"],
    ["Q4_0", "Q4_0"],
  ] as const) {
    const path = folder.file(`${dtype}.gguf`);
    writeTinyModel(path, { dtype });
    await expect(loadModel(path, { screening: true })).rejects.toThrow(new RegExp(`screening.*head is in ${word}`));
    await expect(loadModel(path, { screening: true })).rejects.toBeInstanceOf(OptionError);
  }
  // @ts-expect-error What JavaScript may pass.
  await expect(loadModel(folder.file("F16.gguf"), { screening: 1 })).rejects.toThrow(/screening/);
});

test("equal rows, rows of zeros and rows of huge scale are drawn as without a screen", async () => {
  const path = folder.file("adversarial.gguf");
  const writer = tinyModel({ architecture: "llama", dtype: "Q8_0", vocabulary: 2000, tied: false });
  const width = 64;
  const rows = new Random(4);
  const values = new Float32Array(2000 * width);
  const kept = Float32Array.from({ length: width }, () => rows.normal());
  for (let row = 0; row < 2000; row++) {
    const kind = rows.below(5);
    for (let column = 0; column < width; column++) {
      values[row * width + column] =
        kind === 0 ? 0 : kind === 1 ? (kept[column] ?? 0) : kind === 2 ? 0 : rows.normal() * (kind === 3 ? 1 : 1000);
    }
    if (kind === 2) values[row * width + (row % width)] = 3;
  }
  writer.removeTensor("output.weight").tensor("output.weight", "Q8_0", [width, 2000], values);
  writer.write(path);
  await using plain = await loadModel(path, { prefixCache: false });
  await using screened = await loadModel(path, { prefixCache: false, screening: true });
  for (const options of [{ temperature: 0 }, { temperature: 100 }, { temperature: 5, topK: 200, topP: 1 }]) {
    expect(await alone(screened, options)).toEqual(await alone(plain, options));
  }
});
