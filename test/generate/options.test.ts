// Every option's bounds, of generating, scoring and loading: what is outside is refused with the option named.

import { afterAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { OptionError } from "../../src/errors.ts";
import { checkGenerateOptions, type GenerateOptions } from "../../src/generate/options.ts";
import { cpu, type LoadOptions, loadModel } from "../../src/index.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyModel } from "../support/gguf-writer.ts";

const batchMax = 16;
const folder = temporaryFolder();
const path = folder.file("tiny.gguf");
writeTinyModel(path);
const model = await loadModel(path);
afterAll(() => model.close());

function refusal(run: () => unknown): OptionError {
  try {
    run();
  } catch (error) {
    if (error instanceof OptionError) return error;
    throw error;
  }
  throw new Error("nothing was refused");
}

async function rejection(promise: Promise<unknown>): Promise<OptionError> {
  const error = await promise.then(
    () => new Error("nothing was refused"),
    (reason) => reason,
  );
  if (!(error instanceof OptionError)) throw error;
  return error;
}

interface Bounds {
  readonly minimum: number;
  readonly maximum: number;
  readonly whole: boolean;
}

const numeric: Record<string, Bounds> = {
  maxLength: { minimum: 1, maximum: 1 << 24, whole: true },
  temperature: { minimum: 0, maximum: 100, whole: false },
  topK: { minimum: 0, maximum: 1 << 24, whole: true },
  topP: { minimum: Number.MIN_VALUE, maximum: 1, whole: false },
  minP: { minimum: 0, maximum: 1, whole: false },
  repeatPenalty: { minimum: 0.01, maximum: 100, whole: false },
  repeatLast: { minimum: 0, maximum: 65_536, whole: true },
  seed: { minimum: 0, maximum: Number.MAX_SAFE_INTEGER, whole: true },
  batchSize: { minimum: 1, maximum: batchMax, whole: true },
  topLogprobs: { minimum: 0, maximum: 256, whole: true },
};

/** What is no number at all, or none that can be meant. */
const neverValid = fc.constantFrom<unknown>(Number.NaN, Infinity, -Infinity, null, "1", true, [], {}, () => 1);

describe("an option of generating", () => {
  for (const [name, { minimum, maximum, whole }] of Object.entries(numeric)) {
    const check = (value: unknown) => checkGenerateOptions({ [name]: value } as GenerateOptions, batchMax);
    const inside = whole
      ? fc.integer({ min: minimum, max: Math.min(maximum, 2 ** 31) })
      : fc.double({ min: minimum, max: maximum, noNaN: true });

    test(`${name}: is taken within its bounds`, () => {
      fc.assert(
        fc.property(inside, (value) => {
          const checked: unknown = check(value)[name as keyof GenerateOptions];
          expect(Number(checked)).toBe(value);
        }),
      );
      check(minimum);
      check(maximum);
    });

    test(`${name}: is refused outside them`, () => {
      const outside = fc.oneof(
        fc.double({ max: minimum, maxExcluded: true, noNaN: true }),
        fc.double({ min: maximum, minExcluded: true, noNaN: true }),
        neverValid,
        ...(whole
          ? [fc.double({ min: minimum, max: maximum, noNaN: true }).filter((value) => !Number.isInteger(value))]
          : []),
      );
      fc.assert(
        fc.property(
          outside.filter((value) => !Object.is(value, -0)),
          (value) => {
            expect(refusal(() => check(value)).option).toBe(name);
          },
        ),
      );
    });
  }

  test("that is true or false takes nothing else", () => {
    for (const name of ["ignoreEos", "parseSpecial"]) {
      for (const value of [0, 1, "true", null, []]) {
        expect(refusal(() => checkGenerateOptions({ [name]: value } as GenerateOptions, batchMax)).option).toBe(name);
      }
      for (const value of [true, false]) checkGenerateOptions({ [name]: value }, batchMax);
    }
  });

  test("seed: takes 64 bits as a bigint and no more", () => {
    expect(checkGenerateOptions({ seed: (1n << 64n) - 1n }, batchMax).seed).toBe((1n << 64n) - 1n);
    for (const seed of [1n << 64n, -1n])
      expect(refusal(() => checkGenerateOptions({ seed }, batchMax)).option).toBe("seed");
  });

  test("stop: takes one text or up to 16, each of 1 to 1,024 characters", () => {
    expect(checkGenerateOptions({ stop: "x" }, batchMax).stop).toEqual(["x"]);
    expect(checkGenerateOptions({ stop: new Array(16).fill("x".repeat(1024)) }, batchMax).stop.length).toBe(16);
    const wrong: [unknown, string][] = [
      ["", "stop"],
      ["x".repeat(1025), "stop"],
      [new Array(17).fill("x"), "stop"],
      [["x", ""], "stop[1]"],
      [["x", 3], "stop[1]"],
      [3, "stop"],
    ];
    for (const [stop, option] of wrong) {
      expect(refusal(() => checkGenerateOptions({ stop } as GenerateOptions, batchMax)).option).toBe(option);
    }
  });

  test("speculation: takes its name, or how many tokens to guess and to compare", () => {
    const checked = (speculation: unknown) =>
      checkGenerateOptions({ speculation } as GenerateOptions, batchMax).speculation;
    expect(checked(undefined)).toBeUndefined();
    expect(checked("lookup")).toEqual({ maxDraft: 8, minMatch: 2 });
    expect(checked({ maxDraft: 31 })).toEqual({ maxDraft: 31, minMatch: 2 });
    expect(checked({ maxDraft: 1, minMatch: 16 })).toEqual({ maxDraft: 1, minMatch: 16 });
    const wrong: [unknown, string][] = [
      ["draft", "speculation"],
      [true, "speculation"],
      [null, "speculation"],
      [[], "speculation"],
      [{ draft: 3 }, "speculation.draft"],
      [{ maxDraft: 0 }, "speculation.maxDraft"],
      [{ maxDraft: 32 }, "speculation.maxDraft"],
      [{ minMatch: 0 }, "speculation.minMatch"],
      [{ minMatch: 1.5 }, "speculation.minMatch"],
    ];
    for (const [speculation, option] of wrong) expect(refusal(() => checked(speculation)).option).toBe(option);
  });

  test("signal: takes an AbortSignal alone", () => {
    expect(refusal(() => checkGenerateOptions({ signal: {} } as GenerateOptions, batchMax)).option).toBe("signal");
  });

  test("that does not exist is refused, with those that do", () => {
    const error = refusal(() => checkGenerateOptions({ topk: 3 } as GenerateOptions, batchMax));
    expect(error.option).toBe("options.topk");
    expect(error.message).toContain("topK");
    for (const options of [null, 3, "x", []]) {
      expect(refusal(() => checkGenerateOptions(options as GenerateOptions, batchMax)).option).toBe("options");
    }
  });

  test("left undefined is as if it were not given", () => {
    const { seed, ...rest } = checkGenerateOptions({}, batchMax);
    const { seed: other, ...same } = checkGenerateOptions(
      { topK: undefined, seed: undefined, stop: undefined },
      batchMax,
    );
    expect(same).toEqual(rest);
    // Two random numbers of 64 bits.
    expect(other).not.toBe(seed);
  });
});

describe("an option of loading", () => {
  const cases: [string, LoadOptions, string][] = [
    ["no thread", { threads: { count: 0 } }, "threads.count"],
    ["more threads than CPUs", { threads: { count: cpu.cores + 1 } }, "threads.count"],
    ["half a thread", { threads: { count: 0.5 } }, "threads.count"],
    ["CPUs for another number of threads", { threads: { count: 1, affinity: [0, 0] } }, "threads.affinity"],
    ["a CPU that is no number", { threads: { count: 1, affinity: ["0" as never] } }, "threads.affinity[0]"],
    ["a CPU as a number by itself", { threads: { count: 1, affinity: 0 as never } }, "threads.affinity"],
    ["an unknown option of threads", { threads: { cuont: 1 } as never }, "threads.cuont"],
    ["threads that are a number", { threads: 2 as never }, "threads"],
    ["level 4", { simd: { level: 4 } }, "simd.level"],
    ["level −1", { simd: { level: -1 } }, "simd.level"],
    ["no sequence", { batchSize: 0 }, "batchSize"],
    ["65 sequences", { batchSize: 65 }, "batchSize"],
    ["a context of 15", { contextLength: 15 }, "contextLength"],
    ["a context longer than the model's", { contextLength: 513 }, "contextLength"],
    ["keys and values in an unknown format", { kvCache: "q4_0" as never }, "kvCache"],
    ["keys and values in Q8_0 where heads are 16 wide", { kvCache: "q8_0" }, "kvCache"],
    ["an unknown option", { contextlength: 5 } as never, "options.contextlength"],
    ["a signal that is none", { signal: 5 as never }, "signal"],
    ["a progress function that is none", { onProgress: 5 as never }, "onProgress"],
  ];
  for (const [name, options, option] of cases) {
    test(`is refused: ${name}`, async () => {
      expect((await rejection(loadModel(path, options))).option).toBe(option);
    });
  }

  test("is refused: a CPU that this process may not use", async () => {
    if (process.platform !== "linux") return;
    expect((await rejection(loadModel(path, { threads: { count: 1, affinity: [1023] } }))).option).toBe(
      "threads.affinity[0]",
    );
  });

  test("is refused: a model that is no text", async () => {
    for (const wrong of ["", "a\0b", 5, undefined]) {
      expect((await rejection(loadModel(wrong as string))).option).toBe("model");
    }
  });

  test("pins threads to the CPUs it names", async () => {
    if (process.platform !== "linux") return;
    const { usableCpus } = await import("../../src/engine/cpu.ts");
    const [first = 0] = usableCpus() ?? [];
    await using pinned = await loadModel(path, { threads: { count: 1, affinity: [first] } });
    const { readdirSync, readFileSync } = await import("node:fs");
    const masks = readdirSync("/proc/self/task").map(
      (task) => /^Cpus_allowed_list:\s*(.+)$/m.exec(readFileSync(`/proc/self/task/${task}/status`, "utf8"))?.[1],
    );
    expect(masks).toContain(String(first));
    expect((await pinned.generate("a", { maxLength: 2 })).tokens.length).toBeGreaterThan(0);
  });

  test("gives what it says", async () => {
    await using small = await loadModel(path, { contextLength: 40, batchSize: 3, threads: { count: 1 } });
    expect([small.contextLength, small.batchSize, small.threadCount]).toEqual([40, 3, 1]);
  });
});

describe("a prompt is refused before any work when", () => {
  const cases: [string, unknown, GenerateOptions, string][] = [
    ["it is empty", "", {}, "prompt"],
    ["it has no tokens", new Uint32Array(0), {}, "prompt"],
    ["it is a number", 5, {}, "prompt"],
    ["it has half a character", "a\ud800b", {}, "prompt"],
    ["the second of a batch has half a character", ["a", "b\udfff"], {}, "prompt[1]"],
    ["it is nothing", null, {}, "prompt"],
    ["it has a token outside the vocabulary", Uint32Array.of(1, 512), {}, "prompt"],
    ["it fills the context", new Uint32Array(512).fill(5), {}, "prompt"],
    ["it is longer than the context", "once upon a time ".repeat(400), {}, "prompt"],
    ["the rest of the context is shorter than maxLength", new Uint32Array(500).fill(5), { maxLength: 13 }, "maxLength"],
    ["the second of a batch is empty", ["a", ""], {}, "prompt[1]"],
    ["the third of a batch is no prompt", ["a", "b", 3], {}, "prompt[2]"],
  ];
  for (const [name, prompt, options, option] of cases) {
    test(name, async () => {
      expect((await rejection(model.generate(prompt as string, options))).option).toBe(option);
      if (Array.isArray(prompt)) return;
      expect((await rejection(model.stream(prompt as string, options).next())).option).toBe(option);
    });
  }

  test("it is a conversation and the model has no template", async () => {
    const error = await rejection(model.generate([{ role: "user", content: "hello" }]));
    expect(error.option).toBe("chatTemplate");
  });
});

describe("scoring refuses", () => {
  const cases: [string, unknown, unknown, string][] = [
    ["more candidates than 256", "a", { top: 257 }, "top"],
    ["a number", 5, {}, "text"],
    ["no tokens", new Uint32Array(0), {}, "text"],
    ["more tokens than the context has", new Uint32Array(513).fill(5), {}, "text"],
    ["a token outside the vocabulary", Uint32Array.of(1, 600), {}, "text"],
    ["an unknown option", "a", { topK: 3 }, "options.topK"],
    ["logits into a number", "a", { onLogits: 3 }, "onLogits"],
  ];
  for (const [name, text, options, option] of cases) {
    test(name, async () => {
      expect((await rejection(model.score(text as string, options as object))).option).toBe(option);
    });
  }
});
