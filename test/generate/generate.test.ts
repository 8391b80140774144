// Generating as a program uses it: texts and streams, stop texts, aborts, batches larger than the engine's slots, candidates,
// the end of a model while it works, and what the profile says of all that.

import { afterAll, describe, expect, test } from "bun:test";
import { EngineError } from "../../src/errors.ts";
import { type GenerateOptions, type GenerateResult, loadModel, type Piece } from "../../src/index.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyModel } from "../support/gguf-writer.ts";

const folder = temporaryFolder();
const path = folder.file("tiny.gguf");
writeTinyModel(path, {
  context: 1024,
  chatTemplate: "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}",
});
const model = await loadModel(path);
afterAll(() => model.close());

const options: GenerateOptions = { temperature: 1, topK: 0, topP: 1, seed: 4, maxLength: 60, ignoreEos: true };

async function collect(stream: AsyncGenerator<Piece, GenerateResult, undefined>) {
  const pieces: Piece[] = [];
  for (;;) {
    const next = await stream.next();
    if (next.done) return { pieces, result: next.value };
    pieces.push(next.value);
  }
}

async function reason(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => "nothing was thrown",
    (error) => error,
  );
}

function essence({ tokens, logprobs, text, finish }: GenerateResult) {
  return { tokens, logprobs, text, finish };
}

describe("a stream", () => {
  test("brings the same text, tokens and log-probabilities as the whole, many random bytes and characters of it", async () => {
    for (let seed = 0; seed < 10; seed++) {
      const whole = await model.generate("Zoë says 日本 ", { ...options, seed });
      const { pieces, result } = await collect(model.stream("Zoë says 日本 ", { ...options, seed }));
      expect(essence(result)).toEqual(essence(whole));
      expect(pieces.map(({ text }) => text).join("")).toBe(whole.text);
      expect(pieces.flatMap(({ token }) => token ?? [])).toEqual([...whole.tokens]);
      expect(pieces.flatMap(({ logprob }) => logprob ?? [])).toEqual([...whole.logprobs]);
      // Only whole characters: no half of a surrogate pair ends a piece.
      for (const { text } of pieces) expect(text.isWellFormed()).toBe(true);
      expect(whole.text).toBe(model.tokenizer.decode([...tokensOf("a"), ...whole.tokens]).slice("a".length));
    }
  });

  test("that is left early frees its place for others", async () => {
    for (let round = 0; round < 70; round++) {
      for await (const { token } of model.stream("once upon a time", { ...options, maxLength: 900 })) {
        expect(token).toBeDefined();
        break;
      }
    }
    expect((await model.generate("hello", options)).tokens.length).toBe(60);
  });

  test("that is never asked for anything does nothing", async () => {
    model.stream("hello", options);
    const { result } = await collect(model.stream("hello", options));
    expect(result.tokens.length).toBe(60);
  });
});

function tokensOf(text: string): number[] {
  return [...model.tokenizer.encode(text, { addSpecial: true })];
}

describe("a prompt", () => {
  test("may be tokens, which it then is exactly", async () => {
    const tokens = Uint32Array.from(tokensOf("hello world"));
    const fromTokens = await model.generate(tokens, options);
    expect(essence(fromTokens)).toEqual(essence(await model.generate("hello world", options)));
    expect(fromTokens.promptTokens).toBe(tokens.length);
  });

  test("may be a conversation, which the model's template makes a text", async () => {
    const messages = [
      { role: "user", content: "hello" },
      { role: "assistant", content: "hi" },
    ] as const;
    const tokens = model.tokenizer.encode("<s>[user] hello\n[assistant] hi\n", {
      addSpecial: false,
      parseSpecial: true,
    });
    expect(essence(await model.generate(messages, options))).toEqual(essence(await model.generate(tokens, options)));
  });

  test("has special tokens only when it is told so", async () => {
    const plain = await model.generate("<s>", { ...options, maxLength: 1 });
    const special = await model.generate("<s>", { ...options, maxLength: 1, parseSpecial: true });
    expect(plain.promptTokens).toBeGreaterThan(special.promptTokens);
  });

  test("leaves one position at least, which can be used", async () => {
    const prompt = new Uint32Array(1023).fill(300);
    const result = await model.generate(prompt, { ...options, maxLength: undefined });
    expect(result.tokens.length).toBe(1);
    expect(result.finish).toBe("length");
  });
});

describe("stop texts", () => {
  test("end the generation where the first of them begins, wherever tokens end", async () => {
    const { text } = await model.generate("hello", options);
    for (const [from, to] of [
      [5, 6],
      [7, 12],
      [20, 31],
      [0, 4],
    ] as const) {
      const stop = text.slice(from, to);
      const result = await model.generate("hello", { ...options, stop: ["\u0001never", stop] });
      expect(result.text).toBe(text.slice(0, text.indexOf(stop)));
      expect(result.finish).toBe("stop");
      expect(result.tokens.length).toBeLessThan(60);
      const { pieces } = await collect(model.stream("hello", { ...options, stop }));
      expect(pieces.map((piece) => piece.text).join("")).toBe(result.text);
    }
  });

  test("that never come change nothing, even if the text ends in the middle of one", async () => {
    const whole = await model.generate("hello", options);
    const result = await model.generate("hello", { ...options, stop: [`${whole.text.slice(-3)}!`, "never this"] });
    expect(essence(result)).toEqual(essence(whole));
  });
});

describe("the model's own end token", () => {
  test("ends the generation and is no text, unless it is passed over", async () => {
    const flat: GenerateOptions = { temperature: 100, topK: 0, topP: 1, maxLength: 500 };
    let ended: GenerateResult | undefined;
    let seed = 0;
    // Every token is about equally likely: each try ends early with probability 0.6.
    for (; ended === undefined && seed < 100; seed++) {
      const result = await model.generate("hello", { ...flat, seed });
      if (result.finish === "eos") ended = result;
    }
    if (!ended) throw new Error("no sequence ended");
    const [eos] = model.tokenizer.eosTokens;
    expect(ended.tokens.at(-1)).toBe(eos ?? -1);
    expect(ended.tokens.slice(0, -1)).not.toContain(eos);
    const on = await model.generate("hello", { ...flat, seed: seed - 1, ignoreEos: true });
    expect(on.tokens.slice(0, ended.tokens.length)).toEqual([...ended.tokens]);
    expect(on.tokens.length).toBe(500);
    expect(on.finish).toBe("length");
    expect(on.text).toStartWith(ended.text);
  });
});

describe("candidates", () => {
  test("come best first, with the token's own log-probability among them", async () => {
    const result = await model.generate("hello", { ...options, topLogprobs: 20 });
    expect(result.top.length).toBe(result.tokens.length);
    result.top.forEach((list, index) => {
      expect(list.length).toBe(20);
      const values = list.map(({ logprob }) => logprob);
      expect(values).toEqual([...values].sort((a, b) => b - a));
      expect(new Set(list.map(({ token }) => token)).size).toBe(20);
      const own = list.find(({ token }) => token === result.tokens[index]);
      const logprob = result.logprobs[index] ?? Number.NaN;
      if (own) expect(own.logprob).toBe(logprob);
      else expect(logprob).toBeLessThanOrEqual(values.at(-1) ?? Number.NaN);
    });
    expect(essence(result)).toEqual(essence(await model.generate("hello", options)));
  });

  test("sum to one over a whole small vocabulary", async () => {
    const { top } = await model.score("hello world", { top: 256 });
    for (const list of top) {
      const sum = list.reduce((total, { logprob }) => total + Math.exp(logprob), 0);
      expect(sum).toBeLessThan(1);
      expect(sum).toBeGreaterThan(0.5);
    }
  });

  test("greedy text takes the first of them", async () => {
    const result = await model.generate("hello", { ...options, temperature: 0, topLogprobs: 1 });
    expect(result.top.map(([best]) => best?.token)).toEqual([...result.tokens]);
  });

  test("of a scored text are as many as tokens, and name its own tokens' log-probabilities", async () => {
    const { tokens, logprobs, top } = await model.score("once upon a time", { top: 256 });
    expect(top.length).toBe(tokens.length);
    expect(logprobs.length).toBe(tokens.length - 1);
    logprobs.forEach((logprob, index) => {
      const own = top[index]?.find(({ token }) => token === tokens[index + 1]);
      if (own) expect(own.logprob).toBe(logprob);
    });
  });
});

describe("many requests", () => {
  test("beyond the engine's 64 wait their turn, and all give what they give alone", async () => {
    const short: GenerateOptions = { ...options, maxLength: 8 };
    const expected = await Promise.all(
      [0, 1, 2, 3].map((seed) => model.generate(`prompt ${seed}`, { ...short, seed })),
    );
    const all = await Promise.all(
      Array.from({ length: 150 }, (_, index) => model.generate(`prompt ${index % 4}`, { ...short, seed: index % 4 })),
    );
    all.forEach((result, index) => {
      expect(essence(result)).toEqual(essence(expected[index % 4] ?? result));
    });
  });

  test("as one batch come back in their order, and none gives none", async () => {
    const prompts = Array.from({ length: 30 }, (_, index) => `prompt ${index}`);
    const results = await model.generate(prompts, { ...options, maxLength: 5, batchSize: 4 });
    for (const [index, prompt] of prompts.entries()) {
      expect(essence(results[index] ?? ({} as GenerateResult))).toEqual(
        essence(await model.generate(prompt, { ...options, maxLength: 5 })),
      );
    }
    expect(await model.generate([] as string[], options)).toEqual([]);
  });
});

describe("an abort", () => {
  test("before the call is its reason, and nothing runs", async () => {
    const why = new Error("changed my mind");
    const signal = AbortSignal.abort(why);
    expect(await reason(model.generate("hello", { ...options, signal }))).toBe(why);
    expect(await reason(model.stream("hello", { ...options, signal }).next())).toBe(why);
    expect(await reason(model.score("hello", { signal }))).toBe(why);
    expect(await reason(loadModel(path, { signal }))).toBe(why);
  });

  test("during a generation ends it with its reason, and others go on", async () => {
    const controller = new AbortController();
    const beside = model.generate("hello", options);
    const why = new Error("enough");
    let count = 0;
    const running = (async () => {
      for await (const { token } of model.stream("hello", { ...options, maxLength: 900, signal: controller.signal })) {
        if (token !== undefined && ++count === 5) controller.abort(why);
      }
    })();
    expect(await reason(running)).toBe(why);
    expect(count).toBe(5);
    expect((await beside).tokens.length).toBe(60);
  });

  test("during a long prompt or a scoring ends it", async () => {
    const long = new Uint32Array(900).fill(300);
    for (const start of [
      (signal: AbortSignal) => model.generate(long, { ...options, signal }),
      (signal: AbortSignal) => model.score(long, { signal, oneByOne: true }),
      (signal: AbortSignal) => model.generate([long, long, long], { ...options, signal }),
    ]) {
      const controller = new AbortController();
      const running = start(controller.signal);
      // A turn of the event loop: a millisecond is enough for all of it on a fast CPU.
      await Bun.sleep(0);
      controller.abort();
      expect(await reason(running)).toBeInstanceOf(DOMException);
    }
  });

  test("of requests that wait for a place ends them too", async () => {
    const controller = new AbortController();
    const waiting = Array.from({ length: 100 }, () =>
      reason(model.generate("hello", { ...options, maxLength: 900, signal: controller.signal })),
    );
    await Bun.sleep(1);
    controller.abort();
    for (const error of await Promise.all(waiting)) expect(error).toBeInstanceOf(DOMException);
    expect((await model.generate("hello", options)).tokens.length).toBe(60);
  });

  test("after the end changes nothing", async () => {
    const controller = new AbortController();
    const result = await model.generate("hello", { ...options, signal: controller.signal });
    controller.abort();
    expect(result.tokens.length).toBe(60);
    expect((await model.generate("hello", options)).tokens).toEqual(result.tokens);
  });
});

test("an event loop that is blocked for a while loses no token", async () => {
  const expected = await model.generate("hello", { ...options, maxLength: 900 });
  const stream = model.stream("hello", { ...options, maxLength: 900 });
  const tokens: number[] = [];
  for await (const { token } of stream) {
    if (token !== undefined) tokens.push(token);
    if (tokens.length === 3) {
      const until = performance.now() + 200;
      while (performance.now() < until);
    }
  }
  expect(tokens).toEqual([...expected.tokens]);
});

describe("closing", () => {
  test("ends requests that run and that wait, with an error that says so", async () => {
    const own = await loadModel(path);
    const running = Array.from({ length: 80 }, () => reason(own.generate("hello", { ...options, maxLength: 900 })));
    const scoring = reason(own.score(new Uint32Array(900).fill(300), { oneByOne: true }));
    await Bun.sleep(2);
    await own.close();
    for (const error of [...(await Promise.all(running)), await scoring]) {
      expect(error).toBeInstanceOf(EngineError);
      expect(String(error)).toContain("closed");
    }
  });

  test("twice, and at once, is as once", async () => {
    const own = await loadModel(path);
    await Promise.all([own.close(), own.close()]);
    await own.close();
  });

  test("leaves errors to those who go on using the model", async () => {
    const own = await loadModel(path);
    const stream = own.stream("hello", { ...options, maxLength: 900 });
    await stream.next();
    await own.close();
    for (const use of [
      own.generate("hello", options),
      own.generate(["a", "b"], options),
      own.score("hello"),
      own.stream("hello").next(),
      own.profile(() => 1),
      (async () => {
        while (!(await stream.next()).done);
      })(),
    ]) {
      expect(await reason(use)).toBeInstanceOf(EngineError);
    }
    expect(() => own.startProfiling()).toThrow(EngineError);
    expect(() => own.stopProfiling()).toThrow("not been started");
  });

  test("while profiling still gives the profile", async () => {
    const own = await loadModel(path);
    own.startProfiling();
    await own.generate("hello", options);
    await own.close();
    expect(own.stopProfiling().rows).toBeGreaterThan(60);
  });
});

describe("a profile", () => {
  test("adds up to the steps' own time exactly, with what is not attributed as a row of its own", async () => {
    const prompts = ["hello", "once upon a time"];
    const profile = await model.profile(() => model.generate(prompts, { ...options, cachePrompt: false }));
    const sum = (rows: readonly { totalNs: number }[]) => rows.reduce((total, { totalNs }) => total + totalNs, 0);
    const ops = sum(profile.byOp);
    expect(sum(profile.byKind)).toBe(ops);
    expect(sum(profile.byLayer)).toBe(ops);
    const { waiting, sampling, copying, engine, idle, unattributed, steps } = profile;
    expect(ops + sum([waiting, sampling, copying, engine, idle, unattributed])).toBe(steps.totalNs);
    expect(profile.attributedShare).toBeCloseTo(1 - (idle.totalNs + unattributed.totalNs) / steps.totalNs, 12);
    expect(ops).toBeGreaterThan(0);
    expect([profile.lostEvents, profile.malformedEvents, profile.clippedNs]).toEqual([0, 0, 0]);
    // Two sequences generate 60 tokens each, of which the first comes from the prompt's step.
    const tokens = tokensOf("hello").length + tokensOf("once upon a time").length;
    expect(profile.rows).toBe(tokens + 2 * 59);
    expect(profile.byOp.length).toBeGreaterThan(20);
    for (const { kernel } of profile.byOp) expect(kernel).toEndWith(`.${model.simd.name}`);
  });

  test("shows how many sequences ran in a step", async () => {
    const prompts = Array.from({ length: 12 }, () => Uint32Array.of(1, 300, 301));
    for (const batchSize of [1, 4]) {
      const profile = await model.profile(() => model.generate(prompts, { ...options, batchSize }));
      const phase = profile.phases.find((row) => row.phase === "generation");
      const mean = (phase?.sequences ?? 0) / (phase?.count ?? 0);
      expect(mean).toBeLessThanOrEqual(batchSize);
      // How many depends on how soon this thread submits the next; the engine's tests look at every step.
      if (batchSize > 1) expect(mean).toBeGreaterThan(1);
    }
  });

  test("is taken once at a time", async () => {
    model.startProfiling();
    expect(() => model.startProfiling()).toThrow(EngineError);
    expect(model.stopProfiling().steps.count).toBe(0);
    expect(() => model.stopProfiling()).toThrow("not been started");
  });

  test("ends when the work fails", async () => {
    const why = new Error("failed work");
    expect(await reason(model.profile(() => Promise.reject(why)))).toBe(why);
    expect(
      await reason(
        model.profile(() => {
          throw why;
        }),
      ),
    ).toBe(why);
    expect((await model.profile(() => model.generate("a", options))).steps.count).toBe(60);
  });
});
