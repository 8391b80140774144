// Operations whose kernels have another instruction-set level than the rest, on a loaded model: other kernels run, what they compute
// agrees with double precision whatever is mixed, and nothing that was computed before a switch gets into what is computed after it.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { type CpuFeature, chooseLevel, cpuFeatures } from "../../src/engine/cpu.ts";
import { type Library, openLibrary } from "../../src/engine/library.ts";
import { levelsOf } from "../../src/engine/settings.ts";
import { fixedTuning } from "../../src/engine/tuning.ts";
import { EngineError, OptionError, SessionFileError } from "../../src/errors.ts";
import { scoreTokens } from "../../src/generate/score.ts";
import { cpu, type LoadOptions, loadModel, type SimdOp } from "../../src/index.ts";
import { simdWithoutEffect, startSimd } from "../../src/knobs/simd.ts";
import type { DType } from "../../src/model/file.ts";
import { storeTuning, tuningKey, tuningPath } from "../../src/tuning.ts";
import { openEngine, planFile } from "../support/engine.ts";
import { temporaryFolder } from "../support/folder.ts";
import { Random } from "../support/random.ts";
import { referenceModel } from "../support/reference-model.ts";
import { tinyModel, writeTinyModel } from "../support/tiny-model.ts";
import { keepVariables } from "../support/variables.ts";

const folder = temporaryFolder();
const library = await openLibrary();
const levels = library.levels.filter(({ supported }) => supported).map(({ name }) => name);
const narrowest = levels[0] ?? "";
const widest = levels.at(-1) ?? "";
const path = folder.file("gemma3.gguf");
writeTinyModel(path, { architecture: "gemma3", dtype: "Q8_0", layers: 6, context: 1024 });

const before = process.env["TINYAI_SIMD"];
beforeAll(() => {
  delete process.env["TINYAI_SIMD"];
});
afterAll(() => {
  if (before === undefined) delete process.env["TINYAI_SIMD"];
  else process.env["TINYAI_SIMD"] = before;
});

/** What the switches switch, by the kinds that a language model's ops have. */
const kinds: Readonly<Record<Exclude<SimdOp, "conv">, readonly string[]>> = {
  matmul: ["matmul"],
  activation: ["norm", "glu", "add"],
  attention: ["rope_store", "attention", "attention_merge"],
};
const ops = Object.keys(kinds) as (keyof typeof kinds)[];

const random = new Random(17);
const tokens = (length: number) => Uint32Array.from({ length }, () => 3 + random.below(500));
const greedy = { temperature: 0, ignoreEos: true, maxLength: 12 } as const;
const text = tokens(200);

async function failure(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => undefined,
    (error: unknown) => error,
  );
}

describe.skipIf(levels.length === 1)("an operation that is switched off", () => {
  for (const op of ops) {
    test(`runs other kernels: ${op}`, async () => {
      await using model = await loadModel(path, { threads: { count: 2 } });
      const record = () =>
        model.profile(() => model.score(text.subarray(0, 40)), { roofline: false, cache: false, deterministic: true });
      const logprobs = async () => (await model.score(text)).logprobs;
      const [wide, wideLogprobs] = [await record(), await logprobs()];
      await model.enableSimd(op, false);
      const [mixed, mixedLogprobs] = [await record(), await logprobs()];
      await model.enableSimd(op, true);
      const again = await record();

      const loads = (run: typeof wide) => new Map(run.memory?.byOp.map(({ index, loads }) => [index, loads]));
      for (const [position, { index, kind, kernel }] of mixed.byOp.entries()) {
        const switched = kinds[op].includes(kind);
        expect(kernel).toEndWith(`.${switched ? narrowest : widest}`);
        expect(wide.byOp[position]?.kernel).toEndWith(`.${widest}`);
        // Registers of another width take another number of loads for the same bytes.
        const [less = 0, more = 0] = [loads(wide).get(index), loads(mixed).get(index)];
        if (switched) expect(more).toBeGreaterThan(less);
        else expect(more).toBe(less);
      }
      expect(again.byOp.map(({ kernel }) => kernel)).toEqual(wide.byOp.map(({ kernel }) => kernel));
      // They round otherwise.
      expect(mixedLogprobs).not.toEqual(wideLogprobs);
      expect(await logprobs()).toEqual(wideLogprobs);
      // The same as if it had been loaded so.
      await using loaded = await loadModel(path, { simd: { [op]: false } });
      expect(loaded.simd).toMatchObject({ level: 3, [op]: false });
      expect((await loaded.score(text)).logprobs).toEqual(mixedLogprobs);
    });
  }

  test("does not depend on threads, nor on what it is computed beside", async () => {
    const results: unknown[] = [];
    for (const count of [1, 2]) {
      await using model = await loadModel(path, { threads: { count }, simd: { matmul: false } });
      const prompts = [text.slice(0, 5), text.slice(0, 80), text];
      const together = await model.generate(prompts, greedy);
      for (const [index, prompt] of prompts.entries()) {
        const alone = await model.generate(prompt, { ...greedy, cachePrompt: false });
        expect([together[index]?.tokens, together[index]?.logprobs]).toEqual([alone.tokens, alone.logprobs]);
      }
      results.push(together.map(({ logprobs }) => logprobs));
    }
    expect(results[1]).toEqual(results[0]);
  });
});

/** As for models of one level (test/architectures/logits.test.ts), of all logits in the root mean square. */
const bounds: Partial<Record<DType, number>> = { F32: 5e-4, F16: 0.001, BF16: 0.001, Q8_0: 0.04, Q4_K: 0.04 };

describe("levels that are mixed agree with a forward pass in double precision", () => {
  for (const [dtype, bound] of Object.entries(bounds)) {
    test(`on weights in ${dtype}`, async () => {
      const built = tinyModel({ architecture: "llama", dtype: dtype as DType }).build();
      const file = folder.write(`${dtype}.gguf`, built.bytes);
      const prompt = text.subarray(0, 24);
      const expected = referenceModel(built).logits(prompt);
      const opened = await openEngine(file, {}, { threadCount: 2 });
      const running = library.levels.flatMap(({ supported }, index) => (supported ? [index] : []));
      const [first = 0, last = 0] = [running[0], running.at(-1)];
      try {
        for (const other of running) {
          for (const base of new Set([first, last])) {
            for (const op of ops) {
              await opened.engine.configure({ levels: { ...levelsOf(base), [op]: other } });
              let squares = 0;
              let row = 0;
              await scoreTokens(opened, prompt, {
                onLogits(rows, count) {
                  const width = rows.length / count;
                  rows.forEach((value, index) => {
                    squares +=
                      (value - (expected[row + Math.floor(index / width)]?.[index % width] ?? Number.NaN)) ** 2;
                  });
                  row += count;
                },
              });
              expect(row).toBe(prompt.length);
              expect(Math.sqrt(squares / row / opened.plan.vocabulary)).toBeLessThan(bound);
            }
          }
        }
      } finally {
        await opened.engine.close();
      }
    });
  }
});

describe.skipIf(levels.length === 1)("after a switch", () => {
  test("in its midst a generation goes on to its end, and the tokens before are those without one", async () => {
    await using model = await loadModel(path);
    const prompt = text.slice(0, 100);
    const options = { temperature: 0.8, seed: 4, ignoreEos: true, maxLength: 600 } as const;
    const whole = await model.generate(prompt, { ...options, cachePrompt: false });
    const drawn: number[] = [];
    let switches = 0;
    for await (const piece of model.stream(prompt, { ...options, cachePrompt: false })) {
      drawn.push(...(piece.token === undefined ? [] : [piece.token]));
      if (drawn.length === 10) expect(drawn).toEqual(whole.tokens.slice(0, 10));
      const op = ops[switches % ops.length] ?? "matmul";
      if (drawn.length > 10 && switches < 2 * ops.length) await model.enableSimd(op, switches++ >= ops.length);
    }
    expect(drawn.length).toBe(600);
    expect(switches).toBe(2 * ops.length);
    // Computed at several levels in part: nobody begins with it.
    expect((await model.generate(prompt, greedy)).reusedTokens).toBe(0);
  });

  test("no prompt begins with what was computed before it", async () => {
    await using model = await loadModel(path);
    const run = (cachePrompt = true) => model.generate(text, { ...greedy, cachePrompt });
    const fresh = await run(false);
    const essence = ({ tokens, logprobs }: typeof fresh) => ({ tokens, logprobs });
    await run();
    expect((await run()).reusedTokens).toBeGreaterThan(0);
    await model.enableSimd("matmul", false);
    const after = await run();
    expect(after.reusedTokens).toBe(0);
    expect(essence(after)).toEqual(essence(await run(false)));
    expect(after.logprobs).not.toEqual(fresh.logprobs);
    expect((await run()).reusedTokens).toBeGreaterThan(0);
    await model.enableSimd("matmul", true);
    const back = await run();
    expect(back.reusedTokens).toBe(0);
    expect(essence(back)).toEqual(essence(fresh));
  });

  test("if the model has none such, what was computed before stays of use", async () => {
    await using model = await loadModel(path, { threads: { count: 1 } });
    const prompt = tokens(150);
    await model.generate(prompt, greedy);
    await model.enableSimd("conv", false);
    expect((await model.generate(prompt, greedy)).reusedTokens).toBeGreaterThan(0);
  });

  test("a session's file is for the levels at which it was saved", async () => {
    await using model = await loadModel(path);
    const file = folder.file("mixed.session");
    await model.enableSimd("attention", false);
    const session = await model.session();
    await session.generate(text.slice(0, 90), greedy);
    await session.save(file);
    await model.enableSimd("attention", true);
    const refused = await failure(model.loadSession(file));
    expect(refused).toBeInstanceOf(SessionFileError);
    expect(String(refused)).toContain(`${widest} with attention at ${narrowest}`);
    // What is being saved while the level changes is of neither.
    const saving = failure(session.save(file));
    await model.enableSimd("attention", false);
    expect(await saving).toBeInstanceOf(EngineError);
    expect((await (await model.loadSession(file)).generate(tokens(5), greedy)).reusedTokens).toBeGreaterThan(64);
  });

  test("a monitor names the kernels that run now, and a profile refuses it until it ends", async () => {
    await using model = await loadModel(path);
    using monitor = model.monitor();
    await model.generate("hello", greedy);
    const kernels = () =>
      new Set(monitor.everything().profile.byOp.map(({ kernel }) => kernel.split(".").at(-1) ?? ""));
    expect(kernels()).toEqual(new Set([widest]));
    await model.enableSimd("attention", false);
    await model.generate("hello", greedy);
    expect(kernels()).toEqual(new Set([widest, narrowest]));
    model.startProfiling();
    expect(await failure(model.enableSimd("attention", true))).toBeInstanceOf(EngineError);
    expect(await failure(model.setSimdOptimizationLevel(0))).toBeInstanceOf(EngineError);
    model.cancelProfiling();
    await model.enableSimd("attention", true);
    expect(model.simd.attention).toBe(true);
  });
});

describe.skipIf(levels.length === 1)("products are tuned", () => {
  keepVariables("TINYAI_HOME");
  beforeAll(() => {
    process.env["TINYAI_HOME"] = folder.file("home");
  });

  test("as was measured for their level, also after a switch, but for what was asked for", async () => {
    const key = tuningKey(library, 0, 1);
    await storeTuning(tuningPath(key), key, { ...fixedTuning(narrowest), byte: { distance: 7, lines: "all" } });
    await using model = await loadModel(path, { threads: { count: 1 }, cache: { blockSize: 32 } });
    const found = () => {
      const { blockSize, prefetchDistance, source } = model.cacheOptimization;
      return [blockSize, prefetchDistance, source.prefetchDistance];
    };
    const wide = found();
    expect(wide[2]).toBe("table");
    await model.enableSimd("attention", false);
    expect(found()).toEqual(wide);
    await model.enableSimd("matmul", false);
    expect(found()).toEqual([32, 7, "measured"]);
    await model.enableSimd("matmul", true);
    expect(found()).toEqual(wide);
    await model.setSimdOptimizationLevel(0);
    expect(found()).toEqual([32, 7, "measured"]);
  });
});

describe("the level by number", () => {
  test("is read back with its name, what it is for and why, and leaves alone what is switched off", async () => {
    await using model = await loadModel(path, { simd: { activation: false } });
    expect(model.simd).toEqual({
      level: 3,
      name: widest,
      reason: "the widest level that this CPU runs",
      matmul: true,
      conv: true,
      activation: false,
      attention: true,
      levels: { matmul: widest, conv: widest, activation: narrowest, attention: widest, other: widest },
    });
    const run = () => model.profile(() => model.generate("hello", greedy), { roofline: false, cache: false });
    for (const [number, names] of [
      ["scalar", "neon"],
      ["x86_64_v2", "neon"],
      ["avx2", "neon_dotprod"],
      [widest],
    ].entries()) {
      const there = names.some((name) => levels.includes(name));
      const problem = await failure(model.setSimdOptimizationLevel(number));
      if (!there) {
        expect(problem).toBeInstanceOf(OptionError);
        expect(String(problem)).toContain("does not run on this CPU");
        continue;
      }
      expect(model.simd).toMatchObject({ level: number, activation: false });
      expect(names).toContain(model.simd.name);
      for (const { kind, kernel } of (await run()).byOp) {
        expect(kernel).toEndWith(`.${kinds.activation.includes(kind) ? narrowest : model.simd.name}`);
      }
    }
  });

  test("that the CPU lacks is refused with the widest that it has", () => {
    const narrow = {
      levels: [
        { name: "scalar", supported: true },
        { name: "avx2", supported: false },
      ],
    } as unknown as Library;
    expect(() => chooseLevel(narrow, 2)).toThrow(
      "level 2 (avx2 or neon_dotprod) does not run on this CPU; the widest is scalar",
    );
    expect(chooseLevel(narrow, 3)).toMatchObject({ name: "scalar", number: 3, forced: false });
  });

  test("and the switches give way to TINYAI_SIMD, at loading silently, later with an error that names it", async () => {
    process.env["TINYAI_SIMD"] = narrowest;
    try {
      await using model = await loadModel(path, { simd: { level: 3, matmul: false } });
      expect(model.simd).toMatchObject({ name: narrowest, matmul: true, reason: "forced by TINYAI_SIMD" });
      delete process.env["TINYAI_SIMD"];
      for (const promise of [model.setSimdOptimizationLevel(3), model.enableSimd("matmul", false)]) {
        expect(await failure(promise)).toMatchObject({ name: "OptionError", option: "TINYAI_SIMD" });
      }
      expect(new Set(Object.values(model.simd.levels))).toEqual(new Set([narrowest]));
    } finally {
      delete process.env["TINYAI_SIMD"];
    }
  });

  test("and the switches are checked", async () => {
    const options: [string, LoadOptions["simd"]][] = [
      ["simd.level", { level: 4 }],
      ["simd.matmul", { matmul: 1 as unknown as boolean }],
      ["simd.convolution", { convolution: true } as unknown as LoadOptions["simd"]],
    ];
    for (const [option, simd] of options) {
      expect(await failure(loadModel(path, { simd }))).toMatchObject({ name: "OptionError", option });
    }
    await using model = await loadModel(path);
    expect(await failure(model.enableSimd("other" as SimdOp, false))).toMatchObject({ option: "op" });
    expect(await failure(model.enableSimd("conv", 0 as unknown as boolean))).toMatchObject({ option: "on" });
    expect(await failure(model.setSimdOptimizationLevel(1.5))).toMatchObject({ option: "level" });
    expect(model.simd).toMatchObject({ level: 3, conv: true });
  });
});

test("a switch that changes nothing is told with its reason", () => {
  const plan = planFile(path);
  const told = (libraryThere: Library, level?: number) => {
    const simd = startSimd(libraryThere, { level, off: new Set() });
    return simdWithoutEffect({ library: libraryThere, plan, simd });
  };
  const conv = { knob: "simd.conv", reason: "the model has no op of this kind" };
  const narrow = { ...library, levels: library.levels.slice(0, 1) };
  const ofOne = ops.map((op) => ({ knob: `simd.${op}`, reason: `all kernels are of the level ${narrowest} already` }));
  if (levels.length > 1) {
    expect(told(library)).toEqual([conv]);
    expect(told(library, 0)).toEqual(expect.arrayContaining([conv, ...ofOne]));
  }
  const alone = { knob: "simd.level", reason: `of the library's levels this CPU runs ${narrowest} alone` };
  expect(told(narrow)).toEqual(expect.arrayContaining([conv, ...ofOne, alone]));
  process.env["TINYAI_SIMD"] = narrowest;
  try {
    expect(told(library)).toEqual([{ knob: "simd", reason: `TINYAI_SIMD forces all kernels to ${narrowest}` }]);
  } finally {
    delete process.env["TINYAI_SIMD"];
  }
});

/**
 * What Linux calls the features that kernels look for: all of a list where several are one of ours. What is not there is of another
 * architecture.
 */
const linuxNames: Readonly<Partial<Record<CpuFeature, readonly string[]>>> =
  process.arch === "arm64"
    ? { neon: ["asimd"], dotprod: ["asimddp"], i8mm: ["i8mm"], bf16: ["bf16"], invariantTsc: ["asimd"] }
    : {
        sse42: ["sse4_2", "popcnt"],
        avx: ["avx"],
        avx2: ["avx2", "bmi1", "bmi2"],
        fma: ["fma"],
        f16c: ["f16c"],
        avx512f: ["avx512f"],
        avx512bw: ["avx512bw", "avx512cd"],
        avx512vl: ["avx512vl"],
        avx512dq: ["avx512dq"],
        avx512vnni: ["avx512_vnni"],
        avx512bf16: ["avx512_bf16"],
        avx512fp16: ["avx512_fp16"],
        avxVnni: ["avx_vnni"],
        amxTile: ["amx_tile"],
        amxInt8: ["amx_tile", "amx_int8"],
        amxBf16: ["amx_tile", "amx_bf16"],
        invariantTsc: ["nonstop_tsc"],
      };

/** Those whose names came to Linux after the first CPUs that have them. */
const newer = new Set<CpuFeature>([
  "avx512bf16",
  "avx512fp16",
  "avxVnni",
  "amxTile",
  "amxInt8",
  "amxBf16",
  "bf16",
  "i8mm",
]);

test.skipIf(process.platform !== "linux")("cpu.simd has the features that the system says the CPU has", () => {
  const line = /^(?:flags|Features)\s*:\s*(.*)$/m.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1] ?? "";
  const there = new Set(line.split(" "));
  const { simd } = cpu;
  const features = Object.keys(cpuFeatures(library)) as CpuFeature[];
  const told = features.flatMap((name) => {
    const names = linuxNames[name] ?? [];
    const has = names.length > 0 && names.every((each) => there.has(each));
    // A system may be older than the CPU, and have no name for what that has.
    return has || !newer.has(name) ? [[name, has] as const] : [];
  });
  // Linux grants tiles to processes that ask, and may refuse.
  const tiles = simd.amxTile ? {} : { amxTile: false, amxInt8: false, amxBf16: false };
  expect(simd).toMatchObject({ ...Object.fromEntries(told), ...tiles });
});

test("cpu.simd tells the level that models have, and why", async () => {
  const { simd } = cpu;
  expect([simd.neon, simd.avx2 && simd.neon]).toEqual([process.arch === "arm64", false]);
  expect([simd.dotprod || simd.i8mm, simd.neon]).not.toEqual([true, false]);
  const { avx512f, avx512bw, avx512vl, avx512dq } = simd;
  expect(simd.avx512).toBe([avx512f, avx512bw, avx512vl, avx512dq].every(Boolean));
  expect(simd.level).toBe(widest);
  expect(simd.reason).toBe("the widest level that this CPU runs");
  expect(simd.levels).toEqual(library.levels);
  await using model = await loadModel(path);
  expect(model.simd.name).toBe(simd.level);
});
