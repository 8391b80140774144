// `embed` and `embedStream`: which vectors come in which order, how many texts are under way, what ends them, and what is refused.
// That the vectors are right is for others to show: here they are compared with those of single texts.

import { afterAll, describe, expect, test } from "bun:test";
import { type EmbedInput, loadModel, type Model, OptionError, similarity } from "../../src/index.ts";
import { temporaryFolder } from "../support/folder.ts";
import { tinyModel, writeTinyModel } from "../support/gguf-writer.ts";
import { Random } from "../support/random.ts";
import { writeTinyEncoder } from "../support/tiny-encoder.ts";

const folder = temporaryFolder();
const encoderPath = folder.file("encoder.gguf");
writeTinyEncoder(encoderPath, { context: 64, maxLength: 40 });
const languagePath = folder.file("language.gguf");
writeTinyModel(languagePath, { architecture: "llama" });
const encoder = await loadModel(encoderPath);
const language = await loadModel(languagePath, { contextLength: 64 });
afterAll(() => Promise.all([encoder.close(), language.close()]));

const words = "the of and to in a is it for on with world hello time once upon there search text cat dog".split(" ");
const random = new Random(5);
const texts = Array.from({ length: 300 }, (_, index) =>
  Array.from({ length: index === 7 ? 0 : random.below(30) }, () => random.pick(words)).join(" "),
);

async function each(model: Model, inputs: readonly EmbedInput[]): Promise<Float32Array[]> {
  const vectors: Float32Array[] = [];
  for (const input of inputs) vectors.push(await model.embed(input));
  return vectors;
}

async function collect(stream: AsyncIterable<Float32Array>): Promise<Float32Array[]> {
  const vectors: Float32Array[] = [];
  for await (const vector of stream) vectors.push(vector);
  return vectors;
}

for (const [name, model] of [
  ["an encoder", encoder],
  ["a language model", language],
] as const) {
  describe(name, () => {
    const expected = each(model, texts);

    test("gives a list, a matrix and a stream of texts the vectors that each has alone, in their order", async () => {
      const single = await expected;
      expect(await model.embed(texts)).toEqual(single);
      const { rows, columns, data } = await model.embed(texts, { as: "matrix" });
      expect([rows, columns]).toEqual([texts.length, model.embeddingWidth ?? 0]);
      expect(data).toEqual(Float32Array.from(single.flatMap((vector) => [...vector])));
      expect(await collect(model.embedStream(texts))).toEqual(single);
      expect(await model.embed([])).toEqual([]);
    });

    test("answers calls that run at once each in its own order", async () => {
      const single = await expected;
      const parts = [texts.slice(0, 100), texts.slice(100, 150).reverse(), texts.slice(50, 250)];
      const answers = await Promise.all([...parts.map((part) => model.embed(part)), model.embed(texts[3] ?? "")]);
      expect(answers).toEqual([
        single.slice(0, 100),
        single.slice(100, 150).reverse(),
        single.slice(50, 250),
        single[3] ?? new Float32Array(),
      ] as typeof answers);
    });

    test("takes tokens as they are, and longer texts up to its limit", async () => {
      const most = model.embeddingLength ?? 0;
      const long = "cat dog ".repeat(100);
      const tokens = model.tokenizer.encode(long);
      const cut = model.tokenizer.truncate(tokens, most);
      expect(cut.length).toBe(most);
      const vector = await model.embed(cut);
      expect(await model.embed(tokens)).toEqual(vector);
      expect(await model.embed(long)).toEqual(vector);
      const refused = model.embed(["cat", long], { truncate: false }).catch((error: OptionError) => error);
      expect(await refused).toMatchObject({ code: "option", option: "texts[1]" });
      expect(await model.embed(cut, { truncate: false })).toEqual(vector);
    });

    test("has vectors of length 1 unless asked otherwise, and short ones that begin like long ones", async () => {
      const text = "hello world of text";
      const raw = await model.embed(text, { normalise: false });
      const unit = await model.embed(text, { normalise: true });
      const length = Math.hypot(...raw);
      expect(Math.hypot(...unit)).toBeCloseTo(1, 5);
      for (const [index, value] of unit.entries()) expect(value).toBeCloseTo((raw[index] ?? 0) / length, 5);
      expect(await model.embed(text, { normalise: false, dimensions: 10 })).toEqual(raw.slice(0, 10));
      const short = await model.embed(text, { normalise: true, dimensions: 10 });
      expect(Math.hypot(...short)).toBeCloseTo(1, 5);
      expect(similarity(short, raw.slice(0, 10))).toBeCloseTo(1, 6);
    });

    test("makes the mean of a text of one token what its first and its last state are", async () => {
      const [token] = model.tokenizer.encode("cat", { addSpecial: false });
      const one = Uint32Array.of(token ?? 0);
      const [first, mean, last] = await Promise.all(
        (["first", "mean", "last"] as const).map((pooling) => model.embed(one, { pooling })),
      );
      expect(first).toEqual(mean ?? new Float32Array());
      expect(last).toEqual(mean ?? new Float32Array());
      const two = model.tokenizer.encode("cat dog", { addSpecial: false });
      const [start, middle, end] = await Promise.all(
        (["first", "mean", "last"] as const).map((pooling) =>
          model.embed(two.slice(0, 2), { pooling, normalise: false }),
        ),
      );
      const halves = start?.map((value, index) => (value + (end?.[index] ?? 0)) / 2) ?? new Float32Array();
      expect(similarity(middle ?? halves, halves)).toBeCloseTo(1, 5);
    });
  });
}

describe("a stream", () => {
  test("takes no more texts than a bounded number ahead of what is taken from it", async () => {
    let given = 0;
    let taken = 0;
    let ahead = 0;
    function* source() {
      for (; given < 2000; given++) yield texts[given % texts.length] ?? "";
    }
    for await (const _ of encoder.embedStream(source())) {
      taken += 1;
      ahead = Math.max(ahead, given - taken);
      if (taken % 500 === 0) await Bun.sleep(5);
    }
    expect(taken).toBe(2000);
    expect(ahead).toBeLessThanOrEqual(130);
  });

  test("of texts that come one by one gives each vector before the next text", async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    async function* source() {
      yield "cat";
      await promise;
      yield "dog";
    }
    const stream = encoder.embedStream(source());
    expect((await stream.next()).value).toEqual(await encoder.embed("cat"));
    const next = stream.next();
    resolve();
    expect((await next).value).toEqual(await encoder.embed("dog"));
    expect((await stream.next()).done).toBe(true);
  });

  test("gives the vectors before a text that is none, and before its source's error", async () => {
    async function* source() {
      yield "cat";
      throw new Error("mine");
    }
    for (const [inputs, problem] of [
      [["cat", 5 as unknown as string], "texts[1]: is 5"],
      [["cat", "\ud800"], "texts[1]: has half a character"],
      [["cat", Uint32Array.of(1, 100_000)], "texts[1]: has token 100000"],
      [source(), "mine"],
    ] as const) {
      const stream = encoder.embedStream(inputs);
      expect((await stream.next()).value?.length).toBe(64);
      await expect(stream.next()).rejects.toThrow(problem);
      expect((await stream.next()).done).toBe(true);
    }
  });

  test("that is left ends its source", async () => {
    let ended = false;
    function* source() {
      try {
        for (;;) yield "cat";
      } finally {
        ended = true;
      }
    }
    for await (const _ of encoder.embedStream(source())) break;
    await Bun.sleep(1);
    expect(ended).toBe(true);
  });
});

describe("a signal", () => {
  test("ends a list, a text and a stream with its reason, and the model goes on", async () => {
    const aborted = AbortSignal.abort(new Error("mine"));
    await expect(encoder.embed("cat", { signal: aborted })).rejects.toThrow("mine");
    await expect(encoder.embed(["cat"], { signal: aborted })).rejects.toThrow("mine");
    const controller = new AbortController();
    const { signal } = controller;
    const many = encoder.embed(
      Array.from({ length: 5000 }, () => "cat dog"),
      { signal },
    );
    const waiting = encoder.embedStream(never(), { signal }).next();
    setImmediate(() => controller.abort(new Error("mine")));
    for (const end of await Promise.allSettled([many, waiting])) {
      expect(end).toMatchObject({ status: "rejected", reason: { message: "mine" } });
    }
    expect((await encoder.embed("cat")).length).toBe(64);
  });

  async function* never() {
    await new Promise(() => {});
    yield "";
  }
});

describe("what is out of bounds is refused before any work", () => {
  for (const [options, option] of [
    [{ pooling: "max" }, "pooling"],
    [{ normalise: 1 }, "normalise"],
    [{ truncate: "no" }, "truncate"],
    [{ dimensions: 0 }, "dimensions"],
    [{ dimensions: 65 }, "dimensions"],
    [{ as: "array" }, "as"],
    [{ signal: {} }, "signal"],
    [{ onProgress: 1 }, "onProgress"],
    [{ batchSize: 1 }, "options.batchSize"],
  ] as const) {
    test(`${JSON.stringify(options)}`, async () => {
      const error = await encoder.embed(["cat"], options as never).catch((thrown) => thrown);
      expect(error).toBeInstanceOf(OptionError);
      expect(error.option).toBe(option);
    });
  }

  test("no texts", async () => {
    const refusal = (input: unknown) => encoder.embed(input as string).catch((error: OptionError) => error.message);
    expect(await refusal(undefined)).toContain("text: is undefined; a text or a Uint32Array of tokens is expected");
    expect(await refusal(["a", null])).toContain("texts[1]: is null");
    expect(await refusal(Uint32Array.of())).toContain("has no tokens");
    await expect(encoder.embed("cat", { as: "matrix" })).rejects.toThrow("as: ");
    await expect(encoder.embedStream("cat").next()).rejects.toThrow("texts: is");
  });
});

test.each(["llama", "qwen3", "gemma3"] as const)(
  "a %s that was trained to give vectors pools as its file says",
  async (architecture) => {
    const path = folder.file(`${architecture}.gguf`);
    tinyModel({ architecture }).set(`${architecture}.pooling_type`, "uint32", 3).write(path);
    await using model = await loadModel(path, { contextLength: 64 });
    const text = "once upon a time";
    expect(await model.embed(text)).toEqual(await model.embed(text, { pooling: "last" }));
    expect(await model.embed(text)).not.toEqual(await model.embed(text, { pooling: "mean" }));
  },
);

test("an encoder says that it generates nothing, and what to call", async () => {
  const problem = "encoder.gguf makes vectors of texts and no texts; call embed";
  await expect(encoder.generate("cat")).rejects.toThrow(problem);
  await expect(encoder.stream("cat").next()).rejects.toThrow(problem);
  await expect(encoder.score("cat")).rejects.toThrow(problem);
  await expect(encoder.session()).rejects.toThrow(problem);
  await expect(encoder.loadSession("none")).rejects.toThrow(problem);
});

test("progress is told text by text, and what it throws ends the call", async () => {
  const told: (readonly [number, number])[] = [];
  await encoder.embed(["cat", "dog"], { onProgress: (done, total) => told.push([done, total]) });
  expect(told).toEqual([
    [1, 2],
    [2, 2],
  ]);
  const failing = encoder.embed(texts, {
    onProgress() {
      throw new Error("mine");
    },
  });
  await expect(failing).rejects.toThrow("mine");
});
