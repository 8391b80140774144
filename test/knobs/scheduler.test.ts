// The layer scheduler: what it plans for less memory or more speed, that results stay the same where they must, and that no plan
// takes more for activations than the limit says.

import { afterAll, describe, expect, test } from "bun:test";
import { loadModel, type Model, OptionError, type Plan, type SchedulerOptions } from "../../src/index.ts";
import { buildGraph } from "../../src/model/architectures/index.ts";
import { openModelFile } from "../../src/prepared.ts";
import { temporaryFolder } from "../support/folder.ts";
import { Random } from "../support/random.ts";
import { writeTinyEncoderFolder } from "../support/tiny-encoder.ts";
import { writeTinyModel } from "../support/tiny-model.ts";

const folder = temporaryFolder();
const path = folder.file("gemma.gguf");
writeTinyModel(path, { architecture: "gemma3", dtype: "Q8_0", layers: 7, headWidth: 32, context: 1024 });
const model = await loadModel(path);
const encoder = await loadModel(writeTinyEncoderFolder(folder.file("encoder"), {}));
afterAll(async () => {
  await model.close();
  await encoder.close();
});

const random = new Random(3);
const prompt = Uint32Array.from({ length: 300 }, () => 3 + random.below(500));

function planOf(options: SchedulerOptions, of: Model = model): Plan {
  return of.createLayerScheduler(options).createExecutionPlan();
}

function reason(action: () => unknown): OptionError {
  try {
    action();
  } catch (error) {
    if (error instanceof OptionError) return error;
    throw error;
  }
  throw new Error("nothing was refused");
}

/** The least that a refusal names. */
function leastOf(of: Model): number {
  const { message } = reason(() => planOf({ maxActivationMemory: 1 }, of));
  return Number(/at least (\d+) bytes/.exec(message)?.[1]);
}

describe("a limit of activation memory", () => {
  for (const [name, of] of Object.entries({ "a language model": model, "an encoder": encoder })) {
    test(`is never exceeded, for ${name}, and steps are the smaller the lower it is`, () => {
      const least = leastOf(of);
      const most = of.plan().arenaBytes;
      let rowsBefore = 0;
      for (let step = 0; step <= 20; step++) {
        const limit = Math.round(least + ((most - least) * step) / 20);
        const { arenaBytes, options } = planOf({ maxActivationMemory: limit }, of);
        expect(arenaBytes).toBeLessThanOrEqual(limit);
        expect(options.rowsMax).toBeGreaterThanOrEqual(rowsBefore);
        rowsBefore = options.rowsMax;
      }
      expect(rowsBefore).toBe(of.plan().options.rowsMax);
    });

    test(`that cannot be met names the least that could, for ${name}`, () => {
      const least = leastOf(of);
      expect(planOf({ maxActivationMemory: least }, of).arenaBytes).toBe(least);
      const refusal = reason(() => planOf({ maxActivationMemory: least - 1 }, of));
      expect(refusal.message).toContain(`is ${least - 1}, but activations take at least ${least} bytes`);
    });
  }

  test("cuts prompts into smaller steps, which give the same tokens and log-probabilities", async () => {
    const maxActivationMemory = Math.round(model.plan().arenaBytes / 4);
    await using limited = await loadModel(path, { scheduler: { maxActivationMemory } });
    expect(limited.plan().arenaBytes).toBeLessThanOrEqual(maxActivationMemory);
    expect(limited.plan().options.rowsMax).toBeLessThan(256);
    const run = async (of: Model) => {
      let generated: unknown;
      const { steps } = await of.profile(
        async () => {
          const { tokens, logprobs } = await of.generate(prompt, {
            maxLength: 5,
            seed: 1,
            ignoreEos: true,
            cachePrompt: false,
          });
          generated = { tokens, logprobs, scored: await of.score(prompt, { top: 3 }) };
        },
        { deterministic: true },
      );
      return { generated, steps: steps.count };
    };
    const [usual, small] = [await run(model), await run(limited)];
    expect(small.generated).toEqual(usual.generated);
    expect(small.steps).toBeGreaterThan(usual.steps);
  });

  test("is what activations keep to in memory, after a long prompt and after many sequences at once", async () => {
    const page = 64 << 10;
    const maxActivationMemory = page * Math.floor(model.plan().arenaBytes / 3 / page);
    await using limited = await loadModel(path, { scheduler: { maxActivationMemory } });
    const long = { maxLength: 5, ignoreEos: true, cachePrompt: false };
    await limited.generate(prompt, long);
    await limited.generate(
      Array.from({ length: 20 }, () => prompt),
      long,
    );
    const { taken, resident } = limited.memoryInUse();
    expect(resident.activations).toBeWithin(1, maxActivationMemory + 1);
    expect(taken.activations).toBeLessThanOrEqual(maxActivationMemory);
    // Without the limit they take more.
    await model.generate(prompt, long);
    expect(model.memoryInUse().resident.activations).toBeGreaterThan(maxActivationMemory);
  });

  test("that changes nothing is named as one without effect", () => {
    const knobs = (options: SchedulerOptions) => planOf(options).withoutEffect.map(({ knob }) => knob);
    const { arenaBytes } = model.plan();
    expect(knobs({ maxActivationMemory: arenaBytes })).toEqual(["scheduler.maxActivationMemory"]);
    expect(knobs({ maxActivationMemory: arenaBytes - 1 })).toEqual([]);
  });
});

describe("the trade-off between memory and speed", () => {
  test("is named as one without effect where it is another number for the default's quarter", () => {
    const knobs = (memorySpeedTradeoff: number) =>
      planOf({ memorySpeedTradeoff }).withoutEffect.map(({ knob }) => knob);
    expect(knobs(0.7)).toEqual(["scheduler.memorySpeedTradeoff"]);
    for (const effective of [0.5, 0.4, 0.75]) expect(knobs(effective)).toEqual([]);
  });

  test("chooses rows of a step, the format of keys and values, what is kept and the screen, a quarter at a time", () => {
    const chosen = [0, 0.24, 0.25, 0.5, 0.7, 0.75, 1].map((memorySpeedTradeoff) => {
      const { options, kvGroups, screenBytes, arenaBytes } = planOf({ memorySpeedTradeoff });
      const { rowsMax, logitsRowsMax, keptBytesMax } = options;
      return {
        rowsMax,
        logitsRowsMax,
        kept: keptBytesMax / 2 ** 20,
        kv: kvGroups[0]?.dtype,
        screened: screenBytes > 0,
        arenaBytes,
      };
    });
    const [least, , less, usual, , fast] = chosen.map(({ arenaBytes: _, ...others }) => others);
    expect(least).toEqual({ rowsMax: 64, logitsRowsMax: 16, kept: 0, kv: "Q8_0", screened: false });
    expect(less).toEqual({ rowsMax: 128, logitsRowsMax: 16, kept: 64, kv: "F16", screened: false });
    expect(usual).toEqual({ rowsMax: 256, logitsRowsMax: 32, kept: 256, kv: "F16", screened: false });
    expect(fast).toEqual({ rowsMax: 512, logitsRowsMax: 64, kept: 1024, kv: "F16", screened: true });
    expect([chosen[1], chosen[4], chosen[6]]).toEqual([chosen[0], chosen[3], chosen[5]]);
    const arenas = chosen.map(({ arenaBytes }) => arenaBytes);
    expect(arenas).toEqual(arenas.toSorted((a, b) => a - b));
    expect(planOf({ memorySpeedTradeoff: 0 }).kvBytesPerSequence).toBeLessThan(0.6 * model.plan().kvBytesPerSequence);
  });

  test("is what is run: a model that is loaded with it has the plan that was made for it", async () => {
    await using small = await loadModel(path, { scheduler: { memorySpeedTradeoff: 0.1 } });
    expect(small.plan().kvGroups[0]?.dtype).toBe("Q8_0");
    expect(small.plan().options.rowsMax).toBe(64);
    const { text } = await small.generate(prompt, { maxLength: 4, ignoreEos: true, seed: 1 });
    await using same = await loadModel(path, { kvCache: "q8_0" });
    expect((await same.generate(prompt, { maxLength: 4, ignoreEos: true, seed: 1 })).text).toBe(text);
  });

  test("gives way to options that say otherwise, and to heads that Q8_0 does not fit", async () => {
    const scheduler = { memorySpeedTradeoff: 0 };
    await using told = await loadModel(path, { kvCache: "f16", prefixCache: { maxBytes: 1e6 }, scheduler });
    expect(told.plan().kvGroups[0]?.dtype).toBe("F16");
    expect(told.plan().options.keptBytesMax).toBe(1e6);
    await using plain = await loadModel(path, { screening: false, scheduler: { memorySpeedTradeoff: 1 } });
    expect(plain.plan().screenBytes).toBe(0);
    const narrow = folder.file("narrow.gguf");
    writeTinyModel(narrow, { headWidth: 16 });
    await using other = await loadModel(narrow, { scheduler });
    expect(other.plan().kvGroups[0]?.dtype).toBe("F16");
  });

  test("gives encoders twice as many rows, and never fewer than their longest text", () => {
    const { contextMax } = encoder.plan().options;
    const rows = [0, 0.25, 0.5, 1].map(
      (memorySpeedTradeoff) => planOf({ memorySpeedTradeoff }, encoder).options.rowsMax,
    );
    expect(rows).toEqual([128, 256, 512, 1024].map((count) => Math.max(count, contextMax)));
  });
});

test("what a model was loaded with can be read back, with what it is by default of the rest", async () => {
  const usual = {
    enableCheckpointing: false,
    memorySpeedTradeoff: 0.5,
    recomputeActivations: false,
    maxActivationMemory: undefined,
  };
  expect(model.scheduler).toEqual(usual);
  const asked = { memorySpeedTradeoff: 0.2, maxActivationMemory: model.plan().arenaBytes };
  await using other = await loadModel(path, { scheduler: asked });
  expect(other.scheduler).toEqual({ ...usual, ...asked });
  // A scheduler of the same options plans what runs.
  expect(planOf(other.scheduler, other).program).toEqual(other.plan().program);
  planOf({ memorySpeedTradeoff: 1 }, other);
  expect(other.scheduler).toEqual({ ...usual, ...asked });
});

describe("checkpoints for training", () => {
  const graph = buildGraph(openModelFile(path));
  const plan = planOf({ enableCheckpointing: true });

  /** What each layer's nodes compute, in bytes for all rows of a step, and what comes into it from the layer before. */
  const layerBytes = Array.from({ length: 7 }, (_, layer) =>
    graph.nodes.filter((node) => node.layer === layer).reduce((sum, { out }) => sum + 4 * 256 * out.width, 0),
  );
  const outsideBytes = graph.nodes
    .filter(({ layer }) => layer < 0)
    .reduce((sum, { out }) => sum + 4 * out.width * (out.rows === "logits" ? 32 : 256), 0);
  const streamBytes = 4 * 256 * 64;

  /** Goes back through the segments, and keeps what is there at each moment. */
  function peak(segments: readonly (readonly number[])[]): number {
    let most = 0;
    for (const [index, layers] of segments.entries()) {
      const inside = layers.reduce((sum, layer) => sum + (layerBytes[layer] ?? 0), 0);
      most = Math.max(most, outsideBytes + streamBytes * index + inside);
    }
    return most;
  }

  function split(count: number): number[][] {
    const layers = layerBytes.map((_, layer) => layer);
    return Array.from({ length: count }, (_, index) =>
      layers.slice(Math.floor((index * 7) / count), Math.floor(((index + 1) * 7) / count)),
    );
  }

  test("lie where a backward pass needs the least memory", () => {
    const { checkpoints } = plan;
    const peaks = layerBytes.map((_, index) => peak(split(index + 1)));
    const best = peaks.indexOf(Math.min(...peaks)) + 1;
    expect(checkpoints?.segments.map(({ firstLayer, lastLayer }) => [firstLayer, lastLayer])).toEqual(
      split(best).map((layers) => [layers[0] ?? 0, layers.at(-1) ?? 0]),
    );
    expect(checkpoints?.peakBytes).toBe(Math.min(...peaks));
    expect(checkpoints?.allBytes).toBe(outsideBytes + layerBytes.reduce((sum, bytes) => sum + bytes, 0));
    // All but the last segment is computed twice.
    expect(checkpoints?.extraOperations).toBeGreaterThan(0);
    expect(checkpoints?.extraOperations).toBeLessThan(checkpoints?.operations ?? 0);
  });

  test("are as few as a limit allows", () => {
    // Twelve million bytes of a step's own activations leave room for all of the layers' only in some of the splits.
    const peaks = layerBytes.map((_, index) => peak(split(index + 1)));
    const limit = ((peaks[0] ?? 0) + (peaks[1] ?? 0)) / 2;
    const { checkpoints } = planOf({ enableCheckpointing: true, maxActivationMemory: Math.floor(limit) });
    expect(checkpoints?.segments.length).toBe(peaks.findIndex((bytes) => bytes <= limit) + 1);
    expect(checkpoints?.peakBytes).toBeLessThanOrEqual(limit);
  });

  test("leave out what is cheap to compute again, where that is wanted", () => {
    const alone = planOf({ recomputeActivations: true }).checkpoints;
    expect(alone?.segments.length).toBe(1);
    expect(alone?.keptBytes).toBeLessThan(alone?.allBytes ?? 0);
    expect(alone?.peakBytes).toBeLessThan(alone?.allBytes ?? 0);
    expect((alone?.extraOperations ?? 0) / (alone?.operations ?? 1)).toBeLessThan(0.1);
  });

  test("change nothing that runs, which the plan says", () => {
    const without = planOf({ enableCheckpointing: true, recomputeActivations: true }).withoutEffect;
    expect(without.map(({ knob }) => knob)).toEqual([
      "scheduler.enableCheckpointing",
      "scheduler.recomputeActivations",
    ]);
    expect(plan.program).toEqual(model.plan().program);
    expect(model.plan().checkpoints).toBeUndefined();
  });
});

test("options out of their bounds are refused with their path", () => {
  const wrong: [object, string][] = [
    [{ memorySpeedTradeoff: 1.5 }, "scheduler.memorySpeedTradeoff: is 1.5; a number from 0 to 1"],
    [{ maxActivationMemory: 0.5 }, "scheduler.maxActivationMemory: is 0.5; a whole number from 1"],
    [{ enableCheckpointing: 1 }, "scheduler.enableCheckpointing: is 1; true or false"],
    [{ recompute: true }, "scheduler.recompute: is not an option"],
  ];
  for (const [options, words] of wrong) {
    expect(reason(() => model.createLayerScheduler(options)).message).toContain(words);
  }
});

describe("a plan", () => {
  const plan = planOf({ enableCheckpointing: true });

  test("is JSON but for the program, and comes back as it was", () => {
    const { program: _, ...others } = plan;
    const parsed: unknown = JSON.parse(JSON.stringify(plan));
    expect(parsed).toEqual(JSON.parse(JSON.stringify(others)));
    expect(Object.keys(others)).toContain("buffers");
    expect(parsed).not.toHaveProperty("program");
  });

  test("is a table of memory, ops, buffers, checkpoints and knobs without effect as text", () => {
    const text = String(plan);
    for (const { name } of [...plan.ops, ...plan.buffers]) expect(text).toContain(name);
    expect(text).toMatch(/^\d+ ops; 1,024 positions, a batch of 16, steps of 256 rows, 32 of them with logits$/m);
    expect(text).toMatch(/^activations +\d+\.\d /m);
    expect(text).toMatch(/^0 to \d +/m);
    expect(text).toMatch(/^scheduler\.enableCheckpointing +this program only runs forward/m);
  });
});
