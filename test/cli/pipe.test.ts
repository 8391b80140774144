// `tinyai pipe`: lines of JSON in, lines of JSON out, and what it does with lines that are none.

import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { copyFileSync, existsSync, utimesSync } from "node:fs";
import { join } from "node:path";
import manifest from "../../package.json" with { type: "json" };
import { analyzeResults } from "../../src/benchmark/analysis.ts";
import type { BenchmarkResults } from "../../src/benchmark/results.ts";
import { readResults } from "../../src/benchmark/results-file.ts";
import { linesOf } from "../../src/cli/pipe/lines.ts";
import { Models, modelsMax } from "../../src/cli/pipe/models.ts";
import { Turns } from "../../src/cli/pipe/turns.ts";
import { MemoryLimitError } from "../../src/errors.ts";
import { loadModel, type Model } from "../../src/index.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyEncoder } from "../support/tiny-encoder.ts";
import { writeTinyModel } from "../support/tiny-model.ts";

// Processes take their time on a loaded machine.
setDefaultTimeout(120_000);

const folder = temporaryFolder();
const model = folder.file("model.gguf");
const encoder = folder.file("encoder.gguf");
const patient = folder.file("patient.gguf");
writeTinyModel(model);
writeTinyModel(patient, { context: 1 << 16 });
writeTinyEncoder(encoder);
/** Runs for seconds. */
const long = { model: patient, prompt: "hello world", max_length: 60_000, ignore_eos: true, stream: true };

type Message = Readonly<Record<string, unknown>>;

/** A running `tinyai pipe`, and its lines as they come. */
class Peer implements AsyncDisposable {
  readonly #child = Bun.spawn([process.execPath, join(import.meta.dir, "../../src/cli/main.ts"), "pipe"], {
    cwd: folder.path,
    env: { ...process.env, TINYAI_HOME: folder.file("home"), TINYAI_TUNING: "off" },
    stdin: "pipe",
    stdout: "pipe",
    stderr: "pipe",
  });
  readonly #lines = linesOf(this.#child.stdout, 1 << 28);
  /** Everything it said, in order. */
  readonly said: Message[] = [];
  readonly #errors = new Response(this.#child.stderr).text();

  send(...messages: readonly (Message | string | Uint8Array)[]): void {
    for (const message of messages) {
      this.#child.stdin.write(message instanceof Uint8Array ? message : `${asLine(message)}\n`);
    }
    this.#child.stdin.flush();
  }

  /** Its next line. */
  async next(): Promise<Message> {
    const { value } = await this.#lines.next();
    if (!value || "problem" in value) throw new Error(`it said no more: ${await this.#errors}`);
    const message: Message = JSON.parse(value.text);
    this.said.push(message);
    return message;
  }

  /** The lines up to the first that fits, and that one. */
  async until(fits: (message: Message) => boolean): Promise<Message> {
    for (;;) {
      const message = await this.next();
      if (fits(message)) return message;
    }
  }

  /** What ends the request of that id. */
  answer(id: number | null): Promise<Message> {
    return this.until((message) => message["id"] === id && !("event" in message));
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Ends its input, and says how it ended. */
  async end(): Promise<{ readonly status: number; readonly errors: string }> {
    await this.#child.stdin.end();
    for await (const line of this.#lines) if ("text" in line) this.said.push(JSON.parse(line.text));
    return { status: await this.#child.exited, errors: await this.#errors };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#child.exited;
  }
}

function asLine(message: Message | string): string {
  return typeof message === "string" ? message : JSON.stringify(message);
}

describe("tinyai pipe", () => {
  // One for the tests that leave it as it was.
  const peer = new Peer();
  afterAll(() => peer[Symbol.asyncDispose]());

  test("begins with its protocol and version", async () => {
    expect(await peer.next()).toEqual({ protocol: 1, tinyai: manifest.version });
  });

  test("generates what the library does, and streams the same in pieces", async () => {
    const params = { model, prompt: "once upon a time", max_length: 12, seed: "18446744073709551615", top_logprobs: 2 };
    await using opened = await loadModel(model, { prepared: false });
    const expected = await opened.generate(params.prompt, { maxLength: 12, seed: 2n ** 64n - 1n, topLogprobs: 2 });
    peer.send({ id: 7, method: "generate", params });
    const { id, result } = await peer.next();
    expect(id).toBe(7);
    expect(result).toMatchObject({
      text: expected.text,
      tokens: expected.tokens,
      logprobs: expected.logprobs,
      top: expected.top.map((list) => list.map(({ token, logprob }) => [token, logprob])),
      prompt_tokens: expected.promptTokens,
      finish: expected.finish,
      seed: "18446744073709551615",
    });
    peer.send({ id: 7, method: "generate", params: { ...params, stream: true } });
    const begin = peer.said.length;
    expect(await peer.answer(7)).toMatchObject({ result: { text: expected.text } });
    const pieces = peer.said.slice(begin, -1).map(({ event }) => (event as { text: string }).text);
    expect(pieces.length).toBeGreaterThan(1);
    expect(pieces.join("")).toBe(expected.text);
  });

  test("gives the library's vectors, bit for bit, in events that do not grow with their number", async () => {
    await using opened = await loadModel(encoder, { prepared: false });
    const texts = Array.from({ length: 1100 }, (_, index) => ["hello world", "the cat", "time", ""][index % 4] ?? "");
    const expected = await opened.embed(texts);
    const begin = peer.said.length;
    peer.send({ id: 1, method: "embed", params: { model: encoder, texts } });
    expect(await peer.answer(1)).toEqual({ id: 1, result: { count: 1100, dimensions: 64 } });
    const parts = peer.said.slice(begin, -1).map(({ event }) => (event as { vectors: string }).vectors);
    expect(parts.length).toBe(2);
    const bytes = Buffer.concat(parts.map((part) => Buffer.from(part, "base64")));
    expect(Buffer.concat(expected.map((vector) => new Uint8Array(vector.buffer))).equals(bytes)).toBe(true);
    peer.send({ id: 2, method: "embed", params: { model: encoder, texts: ["time"], dimensions: 8, normalise: false } });
    const [{ event }, last] = [await peer.next(), await peer.next()];
    const short = await opened.embed("time", { dimensions: 8, normalise: false });
    expect(last["result"]).toEqual({ count: 1, dimensions: 8 });
    expect(Buffer.from((event as { vectors: string }).vectors, "base64")).toEqual(
      Buffer.from(short.buffer as ArrayBuffer),
    );
  });

  test("answers several requests at once, each under its id", async () => {
    peer.send(
      { id: 1, method: "generate", params: { model, prompt: "hello world", max_length: 500, ignore_eos: true } },
      { id: 2, method: "generate", params: { model, prompt: "time", max_length: 2 } },
    );
    // The short one is answered while the long one runs.
    expect(await peer.next()).toMatchObject({ id: 2, result: { finish: "length" } });
    expect(await peer.next()).toMatchObject({ id: 1, result: { finish: "length" } });
  });

  test("says what is wrong with parameters by their names here", async () => {
    const wrong: [method: string, params: unknown, option: string, message: string | RegExp][] = [
      ["generate", { model, prompt: "x", max_length: 0 }, "max_length", /^max_length: is 0; a whole number from 1 /],
      ["generate", { model, prompt: "x", threads: 0 }, "threads", /^threads: is 0; a whole number from 1 /],
      [
        "generate",
        { model, prompt: "x", maxLength: 1 },
        "maxLength",
        /^maxLength: is not a parameter; there are model,/,
      ],
      ["generate", { model, prompt: "" }, "prompt", /^prompt: is empty/],
      ["generate", { model, prompt: "x", stream: 1 }, "stream", "stream: is 1; true or false is expected"],
      ["generate", { model, prompt: "x", seed: "-1" }, "seed", /^seed: is "-1"/],
      ["generate", { prompt: "x" }, "model", /^model: is undefined; a path or the name of a model is expected/],
      ["generate", "x", "params", 'params: is "x"; an object is expected'],
      ["generate", { model: encoder, prompt: "x" }, "model", /makes vectors of texts and no texts/],
      ["embed", { model: encoder, texts: "x" }, "texts", 'texts: is "x"; a list of texts is expected'],
      ["embed", { model: encoder, texts: ["x", 1] }, "texts[1]", /^texts\[1\]: is 1; a text /],
      ["close", { model: 1 }, "model", /^model: is 1/],
    ];
    for (const [method, params, option, message] of wrong) {
      peer.send({ id: 3, method, params });
      const { id, error } = await peer.next();
      expect({ id, error }).toEqual({
        id: 3,
        error: {
          code: "option",
          name: "OptionError",
          message: typeof message === "string" ? message : expect.stringMatching(message),
          option,
        },
      });
    }
    peer.send({ id: 3, method: "generate", params: { model: "./none.gguf", prompt: "x" } });
    expect(await peer.next()).toMatchObject({ id: 3, error: { code: "model_file", path: "./none.gguf" } });
  });

  test("answers a line that is no request with an error of no id, and goes on", async () => {
    const wrong: [line: string | Uint8Array, message: string | RegExp][] = [
      ["nonsense", /^the line is no JSON: /],
      ["[1]", "the line is an array; a request is expected"],
      ["{}", "id: is undefined; a whole number from 0 on is expected"],
      ['{"id":-1,"method":"models"}', "id: is -1; a whole number from 0 on is expected"],
      ['{"id":"1","method":"models"}', 'id: is "1"; a whole number from 0 on is expected'],
      ['{"cancel":"1"}', 'cancel: is "1"; a whole number from 0 on is expected'],
      ['{"cancel":1,"id":1}', /^id: is nothing of a cancellation/],
      [new Uint8Array([0x22, 0xff, 0x22, 0x0a]), "the line is no UTF-8"],
    ];
    for (const [line, message] of wrong) {
      peer.send(line);
      const { id, error } = await peer.next();
      expect({ line, id, error }).toEqual({
        line,
        id: null,
        error: {
          code: "request",
          name: "TinyAIError",
          message: typeof message === "string" ? message : expect.stringMatching(message),
        },
      });
    }
    peer.send({ id: 1, method: "toString" }, { id: 2, method: "models", more: 1 });
    expect(await peer.next()).toMatchObject({ id: 1, error: { code: "request" } });
    expect(await peer.next()).toMatchObject({
      id: 2,
      error: { code: "request", message: expect.stringMatching(/^more: is nothing/) },
    });
    peer.send("", '{"id":4,"method":"models"}');
    expect(await peer.next()).toMatchObject({ id: 4, result: {} });
  });

  test("ends a request that is cancelled, and passes over what has ended", async () => {
    peer.send({ cancel: 99 }, { id: 5, method: "generate", params: long }, { id: 5, method: "models" });
    expect(await peer.until(({ id }) => id === null)).toMatchObject({
      error: { message: expect.stringMatching(/^id: 5 is in use/) },
    });
    await peer.until((message) => "event" in message);
    peer.send({ cancel: 5 });
    expect(await peer.answer(5)).toEqual({
      id: 5,
      error: { code: "cancelled", name: "TinyAIError", message: "was cancelled" },
    });
    peer.send({ cancel: 5 }, { id: 5, method: "models" });
    expect(await peer.next()).toMatchObject({ id: 5, result: {} });
  });

  test("keeps models, a bounded number of them, and the changed file of one is another", async () => {
    peer.send({ id: 0, method: "close" });
    await peer.next();
    peer.send({ id: 1, method: "models" });
    expect(await peer.next()).toEqual({ id: 1, result: { models: [] } });
    const copies = Array.from({ length: modelsMax + 1 }, (_, index) => folder.file(`copy${index}.gguf`));
    for (const copy of copies) {
      copyFileSync(model, copy);
      peer.send({ id: 1, method: "generate", params: { model: copy, prompt: "x", max_length: 1 } });
      await peer.next();
    }
    peer.send({ id: 2, method: "models" });
    const kept = copies.slice(1).map((copy) => ({ model: copy, in_use: false }));
    expect(await peer.next()).toEqual({ id: 2, result: { models: kept } });

    const [, used = "", , third = "", changed = ""] = copies;
    utimesSync(changed, 1, 1);
    for (const copy of [used, changed]) {
      peer.send({ id: 1, method: "generate", params: { model: copy, prompt: "x", max_length: 1 } });
      await peer.next();
    }
    peer.send({ id: 2, method: "models" });
    // The second made room; what the changed file held before is the next to do so but one.
    const names = [third, changed, used, changed];
    expect(await peer.next()).toMatchObject({ result: { models: names.map((name) => ({ model: name })) } });
    peer.send({ id: 3, method: "close", params: { model: used } });
    expect(await peer.next()).toMatchObject({ id: 3, result: { closed: 1 } });
    peer.send({ id: 4, method: "close" });
    expect(await peer.next()).toMatchObject({ id: 4, result: { closed: names.length - 1 } });
  });

  test("measures alone, tells how far it is, and gives what was measured when it is cancelled", async () => {
    peer.send({ id: 1, method: "generate", params: { model: patient, prompt: "x", max_length: 1 } });
    await peer.next();
    const wanted = { model_path: model, benchmark_type: "inference", batch_sizes: [2], iterations: 1_000_000, seed: 7 };
    peer.send(
      { id: 2, method: "benchmark.run", params: wanted },
      { id: 3, method: "generate", params: { model, prompt: "x", max_length: 1 } },
      { id: 4, method: "models" },
    );
    const begin = peer.said.length;
    // Of the first loading, of which an iteration is over.
    const telling = await peer.until(({ event }) => ((event as { progress?: number })?.progress ?? 0) > 0);
    expect(telling["event"]).toMatchObject({ doing: "loading 1 of 10" });
    peer.send({ cancel: 2 });
    const { result } = (await peer.answer(2)) as { result: BenchmarkResults };
    // Nothing else was answered meanwhile.
    expect(new Set(peer.said.slice(begin).map(({ id }) => id))).toEqual(new Set([2]));
    const { benchmark_info: info, results } = result;
    expect(info).toMatchObject({ model: "model.gguf", type: "inference", interrupted: true });
    expect(info.settings).toMatchObject({ batch_sizes: [2], iterations: 1_000_000, seed: 7 });
    expect(results.latency?.samples?.length).toBeGreaterThan(0);
    // The model that was kept before is kept no more.
    const after = [await peer.next(), await peer.next()].sort((a, b) => Number(a["id"]) - Number(b["id"]));
    expect(after).toMatchObject([
      { id: 3, result: { finish: "length" } },
      { id: 4, result: { models: [{ model }] } },
    ]);

    const path = folder.file("results.json");
    peer.send({ id: 5, method: "benchmark.save", params: { path, results: result } });
    expect(await peer.next()).toEqual({ id: 5, result: { path } });
    expect(await readResults(path)).toEqual(result);
    peer.send({ id: 6, method: "benchmark.load", params: { path } });
    expect(await peer.next()).toEqual({ id: 6, result });
    const { findings, conclusions, limits, ...analysis } = analyzeResults(result);
    peer.send({ id: 7, method: "benchmark.analyze", params: { results: result } });
    const expected = { summary: analysis.summary(), findings, conclusions, limits };
    expect(await peer.next()).toEqual({ id: 7, result: JSON.parse(JSON.stringify(expected)) });
  });

  test("refuses benchmarks and files of results by the names of their parameters", async () => {
    const inference = { model_path: model, benchmark_type: "inference" };
    const wrong: [method: string, params: Message, where: Message, message: string | RegExp][] = [
      [
        "benchmark.run",
        { model_path: model },
        { option: "benchmark_type" },
        /^benchmark_type: is undefined; there are /,
      ],
      ["benchmark.run", { benchmark_type: "inference" }, { option: "model_path" }, /^model_path: is missing/],
      [
        "benchmark.run",
        { ...inference, benchmark_type: "x" },
        { option: "benchmark_type" },
        /^benchmark_type: there is/,
      ],
      ["benchmark.run", { ...inference, iterations: 0 }, { option: "iterations" }, /^iterations: is 0; /],
      ["benchmark.run", { ...inference, batch_sizes: [] }, { option: "batch_sizes" }, /^batch_sizes: /],
      ["benchmark.run", { ...inference, simd: "x" }, { option: "simd" }, /^simd: there is no level "x"/],
      ["benchmark.run", { ...inference, tune_s: 1 }, { option: "tune_s" }, /^tune_s: is not a parameter; /],
      ["benchmark.analyze", { results: {} }, { path: "results" }, /^results: has no benchmark_info/],
      ["benchmark.load", { path: "none.json" }, { path: "none.json" }, /^none.json: cannot be read: /],
      ["benchmark.load", { path: 1 }, { option: "path" }, /^path: is 1; /],
      ["benchmark.save", { path: "x.json", results: 1 }, { path: "results" }, /^results: has no benchmark_info/],
    ];
    for (const [method, params, where, message] of wrong) {
      peer.send({ id: 3, method, params });
      const { error } = await peer.answer(3);
      expect({ method, params, error }).toMatchObject({
        method,
        params,
        error: { message: expect.stringMatching(message), ...where },
      });
    }
    expect(existsSync(folder.file("x.json"))).toBe(false);
  });

  test("cancels what runs when its input ends, says nothing but its protocol, and ends with 0", async () => {
    peer.send({ id: 8, method: "generate", params: long });
    await peer.until((message) => "event" in message);
    expect(await peer.end()).toEqual({ status: 0, errors: "" });
    expect(peer.said.at(-1)).toMatchObject({ id: 8, error: { code: "cancelled" } });
  });
});

test("a signal ends tinyai pipe with the signal's status, what runs cancelled", async () => {
  await using peer = new Peer();
  peer.send({ id: 1, method: "generate", params: long });
  await peer.until((message) => "event" in message);
  peer.kill("SIGTERM");
  expect(await peer.answer(1)).toMatchObject({ error: { code: "cancelled" } });
  expect(await peer.end()).toEqual({ status: 143, errors: "" });
});

test("one who reads no answers is read no more, and gets all of them later", async () => {
  await using peer = new Peer();
  const wrong = Array.from({ length: 20_000 }, (_, index) => `nonsense ${index}`);
  peer.send(...wrong);
  await Bun.sleep(1000);
  for (let left = wrong.length; left > 0; left--) await peer.answer(null);
  // Neither waits for room with a listener of its own, of which Bun warns.
  expect(await peer.end()).toEqual({ status: 0, errors: "" });
});

test("lines are cut wherever the chunks end, and one that is too long is told and passed over", async () => {
  const text = "ab\n\ntoo long\ncd€\ne";
  const bytes = new TextEncoder().encode(text);
  for (let size = 1; size <= bytes.length; size++) {
    const chunks = (async function* () {
      for (let begin = 0; begin < bytes.length; begin += size) yield bytes.slice(begin, begin + size);
    })();
    expect(await Array.fromAsync(linesOf(chunks, 5))).toEqual([
      { text: "ab" },
      { text: "" },
      { problem: "is longer than 5 bytes" },
      { text: "cd€" },
      { text: "e" },
    ]);
  }
});

test("one who wants to be alone waits for the others, and is not overtaken", async () => {
  const turns = new Turns();
  const { signal } = new AbortController();
  const order: string[] = [];
  const begin = async (name: string, alone: boolean) => {
    const turn = await turns.take(alone, signal);
    order.push(name);
    return turn;
  };
  const [first, second] = [await begin("first", false), await begin("second", false)];
  const alone = begin("alone", true);
  const third = begin("third", false);
  first[Symbol.dispose]();
  await Promise.resolve();
  expect(order).toEqual(["first", "second"]);
  second[Symbol.dispose]();
  const turn = await alone;
  await Promise.resolve();
  expect(order).toEqual(["first", "second", "alone"]);
  turn[Symbol.dispose]();
  (await third)[Symbol.dispose]();
  expect(order).toEqual(["first", "second", "alone", "third"]);
});

test("one who gives up waiting lets those behind go on", async () => {
  const turns = new Turns();
  const controller = new AbortController();
  const running = await turns.take(false, controller.signal);
  const alone = turns.take(true, controller.signal);
  const behind = turns.take(false, new AbortController().signal);
  controller.abort(new Error("enough"));
  expect(alone).rejects.toThrow("enough");
  (await behind)[Symbol.dispose]();
  running[Symbol.dispose]();
});

describe("models that are kept", () => {
  const copies = Array.from({ length: modelsMax + 1 }, (_, index) => folder.file(`kept${index}.gguf`));
  for (const copy of copies) copyFileSync(model, copy);
  const names = copies.map((copy) => copy.slice(copy.lastIndexOf("kept"), -".gguf".length));
  const nameOf = (source: string) => names.find((name) => source.endsWith(`${name}.gguf`)) ?? source;
  const { signal } = new AbortController();
  const idle = async () => {};

  /** What is loaded and closed, in order; it fails where more than `room` would be open. */
  function watched(room: number) {
    const order: string[] = [];
    let open = 0;
    const load = (source: string) => {
      const name = nameOf(source);
      order.push(`load ${name}`);
      if (open >= room) return Promise.reject(new MemoryLimitError(name, 2, 1, "use a smaller one"));
      open++;
      const close = async () => {
        await Promise.resolve();
        open--;
        order.push(`close ${name}`);
      };
      return Promise.resolve({ close } as unknown as Model);
    };
    return { order, models: new Models(load as typeof loadModel) };
  }

  test("make room before another is loaded", async () => {
    const { order, models } = watched(modelsMax);
    for (const copy of copies) await models.use(copy, {}, signal, idle);
    expect(order.slice(modelsMax)).toEqual(["close kept0", `load kept${modelsMax}`]);
    expect(models.list().length).toBe(modelsMax);
  });

  test("are closed, but for those in use, where the limit of memory leaves no room for another", async () => {
    const { order, models } = watched(2);
    const [first = "", second = "", third = ""] = copies;
    await models.use(second, {}, signal, idle);
    await models.use(first, {}, signal, async () => {
      await models.use(third, {}, signal, idle);
      expect(order.slice(2)).toEqual(["load kept2", "close kept1", "load kept2"]);
      // Now none is idle but the third.
      await models.use(third, {}, signal, async () => {
        await expect(models.use(second, {}, signal, idle)).rejects.toThrow(MemoryLimitError);
      });
    });
    expect(order.slice(5)).toEqual(["load kept1"]);
  });
});
