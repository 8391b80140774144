// Sessions: turns go on from each other's keys and values, in this process and, by a file, in another; the output is that of
// the whole text computed anew, bit for bit. A file that does not fit is refused with a reason and leaves nothing behind.

import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { openLibrary } from "../../src/engine/library.ts";
import {
  EngineError,
  type GenerateOptions,
  type GenerateResult,
  type LoadOptions,
  loadModel,
  type Model,
  OptionError,
  SessionFileError,
} from "../../src/index.ts";
import { temporaryFolder } from "../support/folder.ts";
import { Random } from "../support/random.ts";
import { type TinyModelOptions, writeTinyModel } from "../support/tiny-model.ts";

const folder = temporaryFolder();
const random = new Random(77);
const tokens = (length: number) => Uint32Array.from({ length }, () => 3 + random.below(500));
const options: GenerateOptions = { temperature: 0.8, topLogprobs: 2, ignoreEos: true, maxLength: 20, seed: 6 };

const shapes: Record<string, TinyModelOptions & Pick<LoadOptions, "kvCache">> = {
  "gemma3 with windows of 100": { architecture: "gemma3", dtype: "Q8_0", layers: 7, slidingWindow: 100 },
  llama: { architecture: "llama", dtype: "F16" },
  "qwen3 with keys and values in Q8_0": { architecture: "qwen3", dtype: "Q4_0", headWidth: 32, kvCache: "q8_0" },
};

function essence({ tokens, logprobs, top, text, finish }: GenerateResult) {
  return { tokens, logprobs, top, text, finish };
}

async function reason(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => undefined,
    (error) => error,
  );
}

/** What the model gives after these tokens when nothing is there. */
async function fresh(model: Model, prompt: Uint32Array): Promise<GenerateResult> {
  return model.generate(prompt, { ...options, cachePrompt: false });
}

for (const [name, { kvCache, ...shape }] of Object.entries(shapes)) {
  describe(`a session of ${name}`, () => {
    const path = folder.file(`${name}.gguf`);
    writeTinyModel(path, { context: 1024, ...shape });

    test("goes on from turn to turn", async () => {
      await using model = await loadModel(path, { kvCache });
      const session = await model.session();
      for (const length of [30, 1, 64, 200, 7]) {
        const before = session.tokens;
        const turn = tokens(length);
        const result = await session.generate(turn, options);
        const whole = Uint32Array.from([...before, ...turn]);
        expect(essence(result)).toEqual(essence(await fresh(model, whole)));
        expect(session.tokens).toEqual(Uint32Array.from([...whole, ...result.tokens]));
        // All but the last token drawn is there, but for the beginning of a page that is not worth a copy.
        if (before.length > 0) expect(result.reusedTokens).toBeGreaterThanOrEqual(before.length - 2);
      }
    });

    for (const length of [1, 43, 44, 45, 100, 236, 300, 600]) {
      test(`of ${length + 20} tokens is the same after a file`, async () => {
        const file = folder.file(`${name}-${length}.session`);
        const prompt = tokens(length);
        const turn = tokens(9);
        let whole: Uint32Array;
        {
          await using model = await loadModel(path, { kvCache });
          const session = await model.session();
          await session.generate(prompt, options);
          whole = session.tokens;
          expect(whole.length).toBe(length + 20);
          await session.save(file);
          const bytes = readFileSync(file);
          await session.save(file);
          expect(Buffer.compare(readFileSync(file), bytes)).toBe(0);
        }
        for (const changes of [{}, { prefixCache: false }, { batchSize: 1, prefixCache: { maxBytes: 1 } }]) {
          await using model = await loadModel(path, { kvCache, ...changes });
          const session = await model.loadSession(file);
          expect(session.tokens).toEqual(whole);
          const result = await session.generate(turn, options);
          // The file's last token was computed when it was written; a single position is not worth a copy of its page.
          expect(result.reusedTokens).toBe(whole.length % 64 === 1 ? whole.length - 1 : whole.length);
          expect(essence(result)).toEqual(essence(await fresh(model, Uint32Array.from([...whole, ...turn]))));
        }
      });
    }
  });
}

describe("a session's file", async () => {
  const path = folder.file("llama.gguf");
  const windows = folder.file("gemma3 with windows of 100.gguf");
  const file = folder.file("whole.session");
  const model = await loadModel(windows);
  afterAll(() => model.close());
  const session = await model.session();
  await session.generate(tokens(150), options);
  await session.save(file);
  const bytes = readFileSync(file);

  async function refused(other: Model, damaged: string, words: string): Promise<void> {
    const error = await reason(other.loadSession(damaged));
    expect(error).toBeInstanceOf(SessionFileError);
    expect((error as SessionFileError).message).toContain(damaged);
    expect((error as SessionFileError).message).toContain(words);
  }

  test("is its owner's alone", () => {
    expect(statSync(file).mode & 0o777).toBe(0o600);
  });

  test("holds the same bytes whatever else was in memory", async () => {
    await using other = await loadModel(windows);
    // Pages that other texts have filled, and one that begins like the session and goes on differently.
    await other.generate(tokens(900), options);
    await other.generate(Uint32Array.from([...session.tokens.slice(0, 140), ...tokens(60)]), options);
    const again = await other.loadSession(file);
    const copy = folder.file("again.session");
    await again.save(copy);
    expect(Buffer.compare(readFileSync(copy), bytes)).toBe(0);
  });

  test("is refused with any byte changed, and nothing of it is taken in", async () => {
    await using other = await loadModel(windows);
    const damaged = folder.file("damaged.session");
    const places = [0, 7, 8, 11, 12, 16, 40, bytes.length - 1, bytes.length - 33];
    for (let count = 0; count < 60; count++) places.push(random.below(bytes.length));
    for (const place of places) {
      const copy = Uint8Array.from(bytes);
      copy[place] = (copy[place] ?? 0) ^ (1 << random.below(8));
      writeFileSync(damaged, copy);
      await refused(other, damaged, "");
    }
    const { reusedTokens } = await other.generate(Uint32Array.from([...session.tokens, 5]), options);
    expect(reusedTokens).toBe(0);
  });

  test("is refused when it is cut short or too long", async () => {
    const torn = folder.file("torn.session");
    for (let count = 0; count < 20; count++) {
      writeFileSync(torn, bytes.subarray(0, random.below(bytes.length)));
      await refused(model, torn, "");
    }
    for (const length of [0, 1, 15, 16, 17, bytes.length - 1]) {
      writeFileSync(torn, bytes.subarray(0, length));
      await refused(model, torn, "");
    }
    writeFileSync(torn, Buffer.concat([bytes, Buffer.from("x")]));
    await refused(model, torn, "cut short");
  });

  test("is refused by other models, levels and contexts, and where it is something else", async () => {
    await refused(model, folder.file("missing.session"), "cannot be read");
    await refused(model, dirname(file), "cannot be read");
    expect(Bun.spawnSync(["mkfifo", folder.file("fifo.session")]).exitCode).toBe(0);
    await refused(model, folder.file("fifo.session"), "no regular file");
    writeFileSync(folder.file("text.session"), "once upon a time, a long time ago");
    await refused(model, folder.file("text.session"), "is no session");
    {
      await using other = await loadModel(path);
      await refused(other, file, "another model");
    }
    // The same shapes and metadata: only the weights differ.
    const twin = folder.file("twin.gguf");
    writeTinyModel(twin, { context: 1024, ...shapes["gemma3 with windows of 100"], seed: 2 });
    {
      await using other = await loadModel(twin);
      await refused(other, file, "another model");
    }
    {
      await using other = await loadModel(windows, { contextLength: 169 });
      await refused(other, file, "longer context");
    }
    {
      // Here the windows are as long as the context, so there is one group of pages.
      await using other = await loadModel(windows, { contextLength: 100 });
      await refused(other, file, "contextLength");
    }
    // Keys and values of one format are nothing to the other.
    const wide = folder.file("qwen3 with keys and values in Q8_0.gguf");
    const rounded = folder.file("rounded.session");
    {
      await using owner = await loadModel(wide, { kvCache: "q8_0" });
      const other = await owner.session();
      await other.generate(tokens(20), options);
      await other.save(rounded);
    }
    {
      await using other = await loadModel(wide);
      await refused(other, rounded, "kvCache");
    }
    const levels = (await openLibrary()).levels.filter(({ supported }) => supported).map(({ name }) => name);
    const level = levels.find((name) => name !== model.simd.name);
    if (level === undefined) return; // A library with one level.
    const before = process.env["TINYAI_SIMD"];
    process.env["TINYAI_SIMD"] = level;
    try {
      await using other = await loadModel(windows);
      await refused(other, file, `saved at the instruction-set level ${model.simd.name}`);
    } finally {
      if (before === undefined) delete process.env["TINYAI_SIMD"];
      else process.env["TINYAI_SIMD"] = before;
    }
  });

  test("is whole when several are saved under one name at once", async () => {
    const common = join(dirname(file), "common.session");
    const sessions = [session, await model.loadSession(file), await model.loadSession(file)];
    await Promise.all(sessions.map((each) => each.save(common)));
    expect(Buffer.compare(readFileSync(common), bytes)).toBe(0);
    expect(readdirSync(dirname(file)).filter((name) => name.endsWith(".tmp"))).toEqual([]);
  });

  test("stays as it was when it cannot be written, and nothing half-written is left", async () => {
    const blocked = join(dirname(file), "blocked");
    mkdirSync(blocked);
    expect(await reason(session.save(blocked))).toBeInstanceOf(SessionFileError);
    expect(await reason(session.save(join(dirname(file), "missing", "a.session")))).toBeInstanceOf(SessionFileError);
    expect(readdirSync(dirname(file)).filter((name) => name.endsWith(".tmp"))).toEqual([]);
    expect(Buffer.compare(readFileSync(file), bytes)).toBe(0);
    for (const wrong of ["", "a\0b", 5, undefined]) {
      expect(await reason(session.save(wrong as string))).toBeInstanceOf(OptionError);
      expect(await reason(model.loadSession(wrong as string))).toBeInstanceOf(OptionError);
    }
  });

  test("can be written and read while others generate", async () => {
    const prompt = tokens(40);
    const expected = essence(await fresh(model, prompt));
    const copy = folder.file("beside.session");
    const beside = Array.from({ length: 6 }, () => model.generate(prompt, { ...options, cachePrompt: false }));
    await session.save(copy);
    await model.loadSession(copy);
    for (const result of await Promise.all(beside)) expect(essence(result)).toEqual(expected);
    expect(Buffer.compare(readFileSync(copy), bytes)).toBe(0);
  });
});

describe("a session", () => {
  const path = folder.file("llama.gguf");

  test("keeps what was drawn before it was left", async () => {
    await using model = await loadModel(path);
    const session = await model.session();
    const prompt = tokens(30);
    const drawn: number[] = [];
    for await (const { token } of session.stream(prompt, options)) {
      if (token !== undefined) drawn.push(token);
      if (drawn.length === 5) break;
    }
    expect(session.tokens).toEqual(Uint32Array.from([...prompt, ...drawn]));
    const result = await session.generate(Uint32Array.of(9), options);
    expect(essence(result)).toEqual(essence(await fresh(model, Uint32Array.from([...prompt, ...drawn, 9]))));
  });

  test("has a text's beginning once", async () => {
    await using model = await loadModel(path);
    const session = await model.session();
    await session.generate("once upon", { ...options, maxLength: 1 });
    await session.generate("a time", { ...options, maxLength: 1 });
    const { bosToken } = model.tokenizer;
    expect([...session.tokens].filter((token) => token === bosToken).length).toBe(1);
  });

  test("does one thing at a time, and cannot be saved empty", async () => {
    await using model = await loadModel(path);
    const session = await model.session();
    const file = folder.file("empty.session");
    expect(await reason(session.save(file))).toBeInstanceOf(EngineError);
    expect(existsSync(file)).toBe(false);
    const turn = session.generate(tokens(10), options);
    expect(await reason(session.generate(tokens(10), options))).toBeInstanceOf(EngineError);
    expect(await reason(session.save(file))).toBeInstanceOf(EngineError);
    await turn;
    expect(await reason(session.generate(tokens(2000), options))).toBeInstanceOf(OptionError);
    await session.save(file);
    expect(existsSync(file)).toBe(true);
  });

  test("that is being saved ends with the model", async () => {
    const model = await loadModel(path);
    const session = await model.session();
    await session.generate(tokens(500), options);
    const file = folder.file("closed.session");
    const saving = reason(session.save(file));
    await model.close();
    const error = await saving;
    if (error !== undefined) expect(error).toBeInstanceOf(EngineError);
    expect(existsSync(file)).toBe(error === undefined);
    expect(readdirSync(dirname(file)).filter((name) => name.endsWith(".tmp"))).toEqual([]);
  });
});
