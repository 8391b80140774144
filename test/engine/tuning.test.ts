// A machine's tuning: what is chosen from given times, what is kept and what is ignored, and that no result depends on it.

import { beforeEach, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { cpu } from "../../src/engine/cpu.ts";
import { openLibrary } from "../../src/engine/library.ts";
import { openStand } from "../../src/engine/stand.ts";
import {
  candidatesFor,
  chooseFastest,
  encodeTuning,
  fixedTuning,
  gainMin,
  isTuning,
  knobNames,
  measuredFormat,
  type Tuning,
} from "../../src/engine/tuning.ts";
import { EngineError, loadModel, OptionError, prepareModel } from "../../src/index.ts";
import { findRoofs } from "../../src/roofs.ts";
import { runProgram } from "../../src/setup/python.ts";
import {
  chooseTuning,
  findTuning,
  mayTune,
  readTuning,
  storeTuning,
  tuneMachine,
  tuneWhenIdle,
  tuningKey,
  tuningPath,
} from "../../src/tuning.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyModel } from "../support/gguf-writer.ts";
import { keepVariables } from "../support/variables.ts";

const folder = temporaryFolder();
const library = await openLibrary();
const levels = library.levels.flatMap(({ name, supported }, index) => (supported ? [{ name, index }] : []));
const level = levels.at(-1)?.index ?? 0;
const variables = ["TINYAI_HOME", "TINYAI_TUNING", "TINYAI_SIMD"] as const;
keepVariables(...variables);
beforeEach(() => {
  for (const name of variables) delete process.env[name];
  process.env["TINYAI_HOME"] = folder.file("home");
  rmSync(folder.file("home"), { recursive: true, force: true });
});

const main = join(import.meta.dir, "..", "..", "src", "cli", "main.ts");

function tinyai(...arguments_: string[]) {
  return runProgram([process.execPath, main, ...arguments_], { env: process.env });
}

const unusual: Tuning = {
  blockSize: 8,
  cacheLineSize: 32,
  ahead: false,
  byte: { distance: 1, lines: "all" },
  packed: { distance: 64, lines: "first" },
  float: { distance: 0, lines: "none" },
  fewTokens: 16,
};

describe("the choice", () => {
  test("is the candidate with the shortest median time", () => {
    const times = [
      [100, 101, 99],
      [90, 500, 91],
      [80, 200, 300],
    ];
    expect(chooseFastest(["usual", "faster", "once faster"], times)).toBe("faster");
  });

  test("stays with the usual one where another is hardly faster, and where nothing was measured", () => {
    expect(chooseFastest(["usual", "other"], [[100], [100 * (1 - gainMin) + 0.1]])).toBe("usual");
    expect(chooseFastest(["usual", "other"], [[100], [100 * (1 - gainMin) - 0.1]])).toBe("other");
    expect(chooseFastest(["usual", "other"], [[], []])).toBe("usual");
    expect(() => chooseFastest([], [])).toThrow(RangeError);
  });

  test("is between tunings that differ in one knob, the one in force first, none twice", () => {
    for (const { name } of levels) {
      const fixed = fixedTuning(name);
      for (const knob of knobNames) {
        const candidates = candidatesFor(knob, fixed);
        expect(candidates[0]).toEqual(fixed);
        expect(candidates.length).toBeGreaterThan(1);
        expect(new Set(candidates.map((candidate) => JSON.stringify(candidate[knob]))).size).toBe(candidates.length);
        for (const candidate of candidates) {
          expect(isTuning(candidate)).toBe(true);
          expect({ ...candidate, [knob]: fixed[knob] }).toEqual(fixed);
        }
      }
    }
  });
});

describe("bounds", () => {
  const wrong: readonly unknown[] = [
    undefined,
    null,
    [],
    {},
    { ...unusual, fewTokens: 0 },
    { ...unusual, fewTokens: 17 },
    { ...unusual, fewTokens: 1.5 },
    { ...unusual, byte: undefined },
    { ...unusual, byte: { distance: 65, lines: "all" } },
    { ...unusual, byte: { distance: 1.5, lines: "all" } },
    { ...unusual, packed: { distance: -1, lines: "all" } },
    { ...unusual, packed: { distance: "1", lines: "all" } },
    { ...unusual, float: { distance: 1, lines: "some" } },
    { ...unusual, ahead: 1 },
    { ...unusual, cacheLineSize: 48 },
    { ...unusual, cacheLineSize: 512 },
    { ...unusual, blockSize: 7 },
    { ...unusual, blockSize: 8.5 },
    { ...unusual, blockSize: 1025 },
    // 33 blocks of 32 KiB are more than a mebibyte.
    { ...unusual, blockSize: 1024, packed: { distance: 33, lines: "all" } },
  ];

  test("are checked before anything crosses into the library, which checks them too", () => {
    expect([...encodeTuning(unusual)]).toEqual([256, 2, 16_384, 1, 0, 0, 16, 0, 32, 256]);
    for (const value of wrong) {
      expect(isTuning(value)).toBe(false);
      expect(() => encodeTuning(value as Tuning)).toThrow(RangeError);
    }
    const failure = new Uint32Array(1);
    const stand = library.symbols.tinyai_stand_create(new Uint8Array(48), level, 1, failure);
    expect(stand).toBe(null);
    const small = openStand(library, { kernel: "matmul", rows: 16, columns: 32, tokens: 1 }, { level, threadCount: 1 });
    small.tune(unusual);
    expect(() => small.tune({ ...unusual, fewTokens: 99 })).toThrow(RangeError);
    small.close();
  });

  test("hold for what is read from a file", async () => {
    const key = tuningKey(library, level, 2);
    const path = tuningPath(key);
    await storeTuning(path, key, unusual);
    for (const tuning of wrong) {
      writeFileSync(path, JSON.stringify({ key, tuning }));
      expect(readTuning(path, key)).toBeUndefined();
    }
  });
});

describe("what is kept", () => {
  test("is found again by this machine, level and number of threads, and by no other", async () => {
    const key = tuningKey(library, level, 2);
    const path = tuningPath(key);
    expect(findTuning(library, level, 2, "measured")).toEqual({
      tuning: fixedTuning(key.level),
      source: "fixed",
      path,
    });
    await storeTuning(path, key, unusual);
    expect(readdirSync(dirname(path)).length).toBe(1);
    expect(findTuning(library, level, 2, "measured")).toEqual({ tuning: unusual, source: "measured", path });
    expect(findTuning(library, level, 2, "fixed").source).toBe("fixed");
    expect(findTuning(library, level, 1, "measured").source).toBe("fixed");
    expect(findTuning(library, 0, 2, "measured").source).toBe(level === 0 ? "measured" : "fixed");
    for (const other of [{ cpu: "another" }, { caches: ["1K"] }, { version: 0 }, { layout: "0" }, { features: "" }]) {
      expect(readTuning(path, { ...key, ...other })).toBeUndefined();
      expect(tuningPath({ ...key, ...other })).not.toBe(path);
    }
  });

  test("is as if it were not there where it is damaged, and made anew", async () => {
    const key = tuningKey(library, level, 1);
    const path = tuningPath(key);
    await storeTuning(path, key, unusual);
    const whole = readFileSync(path, "utf8");
    for (const text of [
      "",
      "{",
      "null",
      "[]",
      "{}",
      `{"key":${JSON.stringify(key)}}`,
      whole.slice(0, -10),
      whole.replace(/\d/g, "x"),
    ]) {
      writeFileSync(path, text);
      expect(readTuning(path, key)).toBeUndefined();
    }
    rmSync(path);
    mkdirSync(path);
    expect(readTuning(path, key)).toBeUndefined();
    rmSync(path, { recursive: true });
    expect(Bun.spawnSync(["mkfifo", path]).exitCode).toBe(0);
    expect(readTuning(path, key)).toBeUndefined();
    rmSync(path);
    writeFileSync(path, whole + " ".repeat(1 << 20));
    expect(readTuning(path, key)).toBeUndefined();
    rmSync(path);
    const tuned = await tuneMachine(library, level, 1);
    expect(tuned?.path).toBe(path);
    expect(readTuning(path, key)).toEqual(tuned?.tuning as Tuning);
  });

  test("is not written where nothing may be written, and a measurement does not fail of it", async () => {
    process.env["TINYAI_HOME"] = "/dev/null/tinyai";
    await tuneWhenIdle(library, level, 1, { busy: () => false, closing: () => false });
    await expect(tuneMachine(library, level, 1)).rejects.toThrow(EngineError);
    process.env["TINYAI_HOME"] = folder.file("home");
    expect(existsSync(folder.file("home"))).toBe(false);
  });
});

describe("a measurement", () => {
  test("of float values takes a format that is float at the level, which F16 and BF16 are not where int16 is multiplied", () => {
    for (const { name, index } of levels) {
      const stand = openStand(library, { kernel: "peak_int16" }, { level: index, threadCount: 1 });
      try {
        stand.run(1);
        expect(measuredFormat("float", name)).toBe(stand.counted > 0 ? "F32" : "BF16");
      } finally {
        stand.close();
      }
    }
  });

  test("tries every knob, tells what each value took, and chooses one of them", async () => {
    const tuned = await tuneMachine(library, level, 2);
    expect(tuned?.tried.map(({ knob }) => knob)).toEqual([...knobNames]);
    for (const { knob, values, chosen } of tuned?.tried ?? []) {
      for (const { time_ns } of values) expect(time_ns).toBeGreaterThan(0);
      expect(values.map(({ value }) => value)).toContainEqual(chosen);
      expect(tuned?.tuning[knob]).toEqual(chosen);
    }
  });

  test("gives up as soon as something is running, and is tried again once nothing is", async () => {
    expect(await tuneMachine(library, level, 1, () => true)).toBeUndefined();
    let asked = 0;
    expect(await tuneMachine(library, level, 1, () => ++asked > 3)).toBeUndefined();
    expect(existsSync(folder.file("home/tuning"))).toBe(false);
    const answers = [true, false, false, true, true];
    await tuneWhenIdle(library, level, 1, { busy: () => true, closing: () => true });
    expect(existsSync(folder.file("home/tuning"))).toBe(false);
    await tuneWhenIdle(library, level, 1, { busy: () => answers.shift() ?? false, closing: () => false });
    expect(answers).toEqual([]);
    expect(findTuning(library, level, 1, "measured").source).toBe("measured");
  });

  test("is never made by tests and where programs are checked, unless asked for", async () => {
    expect(mayTune()).toBe(false);
    const path = folder.file("large.gguf");
    writeTinyModel(path, { architecture: "llama", dtype: "F32", layers: 4, width: 512, ffn: 1024, vocabulary: 2048 });
    await prepareModel(path);
    await using model = await loadModel(path);
    await model.close();
    expect(existsSync(folder.file("home/tuning"))).toBe(false);
  });
});

describe("a user's wish", () => {
  test("is the option, over which the variable wins", () => {
    expect(chooseTuning(undefined)).toBe("measured");
    expect(chooseTuning("fixed")).toBe("fixed");
    process.env["TINYAI_TUNING"] = "off";
    expect(chooseTuning("measured")).toBe("fixed");
    process.env["TINYAI_TUNING"] = "on";
    expect(chooseTuning("fixed")).toBe("fixed");
    process.env["TINYAI_TUNING"] = "maybe";
    expect(() => chooseTuning(undefined)).toThrow(OptionError);
  });

  test("that is no wish is refused", async () => {
    const path = folder.file("tiny.gguf");
    writeTinyModel(path);
    // @ts-expect-error: another word.
    await expect(loadModel(path, { tuning: "best" })).rejects.toThrow('tuning: is "best"');
  });

  test("can be given on the command line: tinyai tune measures and says what it chose", async () => {
    const { status, stdout } = await tinyai("tune", "--threads", "1", "--json");
    expect(status).toBe(0);
    const printed = JSON.parse(stdout);
    expect(isTuning(printed.tuning)).toBe(true);
    expect(findTuning(library, level, 1, "measured")).toMatchObject({ source: "measured", path: printed.path });
    expect(findRoofs(library, level, 1)).toEqual(printed.roofs);
    const text = await tinyai("tune", "--threads", "1");
    expect(text.stdout).toContain("prefetching of packed codes");
    expect(text.stdout).toContain("roofs of profiles");
    expect((await tinyai("tune", "--threads", "0")).status).toBe(2);
  }, 60_000);
});

describe("no result depends on a tuning", () => {
  const models = {
    Q8_0: { architecture: "gemma3", dtype: "Q8_0" },
    "Q4_K and Q6_K": { architecture: "qwen2", dtype: "Q4_K", embeddingDtype: "Q6_K", ffn: 256 },
    BF16: { architecture: "llama", dtype: "BF16" },
    F16: { architecture: "llama", dtype: "F16" },
  } as const;

  for (const [name, options] of Object.entries(models)) {
    test(`of ${name}: the same tokens and log-probabilities, alone and in batches, at every level`, async () => {
      const path = folder.file(`${name}.gguf`);
      writeTinyModel(path, options);
      const prompts = Array.from({ length: 7 }, (_, at) =>
        Uint32Array.from({ length: 3 + at * 5 }, (_, index) => 3 + ((index * 7 + at) % 90)),
      );
      for (const { name: levelName, index } of levels) {
        process.env["TINYAI_SIMD"] = levelName;
        const fixed = fixedTuning(levelName);
        const tunings = [fixed, unusual, ...knobNames.flatMap((knob) => candidatesFor(knob, fixed).slice(1))];
        const threads = Math.min(2, cpu.cores);
        const key = tuningKey(library, index, threads);
        let expected: unknown;
        for (const tuning of tunings) {
          await storeTuning(tuningPath(key), key, tuning);
          await using model = await loadModel(path, { threads: { count: threads }, prefixCache: false });
          const wanted = { temperature: 0, maxLength: 6, ignoreEos: true };
          const [alone] = await model.generate(prompts.slice(-1), wanted);
          const together = await model.generate(prompts, wanted);
          const found = together.map(({ tokens, logprobs }) => ({ tokens, logprobs }));
          expect(found.at(-1)).toEqual({ tokens: alone?.tokens ?? [], logprobs: alone?.logprobs ?? [] });
          expected ??= found;
          expect(found).toEqual(expected as typeof found);
        }
      }
    }, 30_000);
  }
});
