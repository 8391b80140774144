// Benchmarks of inference on tiny models: what an iteration is, which figures come of iterations, and what is said of the model. How
// fast it is, no test can know.

import { describe, expect, setDefaultTimeout, spyOn, test } from "bun:test";
import { inferenceFigures, measureInference } from "../../src/benchmark/inference.ts";
import { metrics, type Settings } from "../../src/benchmark/results.ts";
import { simdLevel } from "../../src/benchmark/simd-level.ts";
import { type IterationSample, openSubject } from "../../src/benchmark/subject.ts";
import { inspect } from "../../src/cli/inspect.ts";
import { openBandwidth } from "../../src/engine/bandwidth.ts";
import { chooseLevel } from "../../src/engine/cpu.ts";
import { openLibrary } from "../../src/engine/library.ts";
import { sha256 } from "../cli/support.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyEncoder } from "../support/tiny-encoder.ts";
import { writeTinyModel } from "../support/tiny-model.ts";
import { keepVariables } from "../support/variables.ts";

setDefaultTimeout(60_000);

const folder = temporaryFolder();
keepVariables("TINYAI_HOME");
process.env["TINYAI_HOME"] = folder.file("home");

const model = folder.file("tiny.gguf");
writeTinyModel(model, { architecture: "gemma3", dtype: "Q8_0", heads: 2, headWidth: 32, layers: 3 });
const encoder = folder.file("encoder.gguf");
writeTinyEncoder(encoder, { heads: 2 });

const settings: Settings = {
  iterations: 4,
  time_s: null,
  precision: 0.02,
  warmup: 1,
  batch_sizes: [3, 1],
  metrics,
  prompt_tokens: 8,
  generated_tokens: 5,
  threads: 1,
  simd: null,
  seed: 1,
};

describe("an iteration", () => {
  test("is so many requests at once, each of which makes its tokens", async () => {
    const subject = await openSubject(model, settings);
    const beganMs = performance.now();
    const { latencyMs, firstTokensMs, made, residentBytes } = await subject.iterate(3);
    const outsideMs = performance.now() - beganMs;
    await subject.close();
    expect(latencyMs).toBeWithin(0, outsideMs);
    expect(firstTokensMs).toHaveLength(3);
    for (const firstTokenMs of firstTokensMs) expect(firstTokenMs).toBeWithin(0, latencyMs);
    expect(made).toBe(15);
    expect(residentBytes).toBeGreaterThan(1e6);
  });

  test("computes its prompts anew, each of them another", async () => {
    const subject = await openSubject(model, { ...settings, prompt_tokens: 200 });
    const profiled = await subject.model.profile(
      async () => {
        await subject.iterate(3);
        await subject.iterate(3);
      },
      { cache: false, roofline: false },
    );
    await subject.close();
    // Of none the beginning was there from another.
    expect(profiled.requests.map(({ promptTokens, reusedTokens }) => [promptTokens, reusedTokens])).toEqual(
      Array.from({ length: 6 }, () => [200, 0]),
    );
  });

  test("is of the model's prepared copy, which is made before if there is none", async () => {
    const large = folder.file("large.gguf");
    writeTinyModel(large, { architecture: "llama", dtype: "F32", layers: 1, width: 512, ffn: 1024, vocabulary: 2048 });
    const subject = await openSubject(large, settings);
    await subject.close();
    expect(subject.model.preparation.state).toBe("used");
    expect(subject.details).toMatchObject({
      bytes: Bun.file(large).size,
      sha256: sha256(await Bun.file(large).bytes()),
    });
    expect(subject.details.formats["F32"]).toBe(4 * subject.details.parameters);
  });

  test("of a model that only embeds is so many texts", async () => {
    const subject = await openSubject(encoder, settings);
    const { firstTokensMs, made } = await subject.iterate(3);
    await subject.close();
    expect(firstTokensMs).toEqual([]);
    expect(made).toBe(3);
  });

  test("has room in the model, or is refused before it is run", async () => {
    const long = openSubject(model, { ...settings, prompt_tokens: 1_000_000 });
    await expect(long).rejects.toThrow(
      "--prompt-tokens: asks for 1000000 tokens and 5 generated, but the model has room for",
    );
    const nothing = openSubject(model, { ...settings, generated_tokens: 0 });
    await expect(nothing).rejects.toThrow("--generated-tokens: is 0; at least 1 is expected");
  });
});

describe("figures", () => {
  const samples: IterationSample[] = Array.from({ length: 7 }, (_, index) => ({
    latencyMs: 10 + index,
    firstTokensMs: [1 + index, 2 + index],
    made: 8,
    residentBytes: 1e6 * (50 + index),
  }));

  test("are of the iterations, and of requests where the first token is meant", () => {
    const { latency, first_token, throughput, memory_usage } = inferenceFigures(samples, metrics, 1);
    expect(latency).toMatchObject({ mean: 13, min: 10, max: 16, percentiles: { "50": 13, "90": 15.4 } });
    expect(latency?.std).toBeCloseTo(Math.sqrt(28 / 6), 12);
    expect(first_token?.samples).toEqual([1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8]);
    expect(throughput?.samples?.[0]).toBe(800);
    expect(memory_usage).toMatchObject({ peak: 56, mean: 53 });
    expect(inferenceFigures(samples, metrics, 1, 70e6).memory_usage).toMatchObject({ peak: 70, max: 56 });
  });

  test("are those of the chosen metrics", () => {
    expect(Object.keys(inferenceFigures(samples, ["memory_usage"], 1))).toEqual(["memory_usage"]);
    expect(Object.keys(inferenceFigures(samples, ["throughput"], 1))).toEqual(["throughput"]);
    expect(Object.keys(inferenceFigures(samples, ["latency"], 1))).toEqual(["latency", "first_token"]);
  });

  test("are the same for the same seed", () => {
    expect(inferenceFigures(samples, metrics, 5)).toEqual(inferenceFigures(samples, metrics, 5));
  });
});

describe("a benchmark of inference", () => {
  test("has the first batch size's figures, and all by batch size, of as many iterations as asked for", async () => {
    const shares: number[] = [];
    const { figures, interrupted } = await measureInference({
      model,
      settings,
      onProgress: (share) => shares.push(share),
    });
    const { by_batch_size, ...first } = figures;
    expect(Object.keys(by_batch_size ?? {}).sort()).toEqual(["1", "3"]);
    expect(by_batch_size?.["3"]).toEqual(first);
    for (const [name, { latency, first_token, throughput, memory_usage, warmup, loadings }] of Object.entries(
      by_batch_size ?? {},
    )) {
      const size = Number(name);
      expect(latency?.samples).toHaveLength(4);
      expect(first_token?.samples).toHaveLength(4 * size);
      expect(throughput?.samples).toEqual(latency?.samples?.map((ms) => (1000 * 5 * size) / ms) ?? []);
      expect(memory_usage?.samples).toHaveLength(4);
      expect(warmup?.iterations).toBe(1);
      // Four iterations, and so four loadings.
      expect(loadings).toEqual([1, 1, 1, 1]);
    }
    expect(interrupted).toBe(false);
    expect(Math.max(...shares)).toBeLessThanOrEqual(1);
    expect(shares).toEqual([...shares].sort((a, b) => a - b));
  });

  test("describes the model as its file does", async () => {
    const { details } = await measureInference({ model, settings: { ...settings, simd: "scalar" } });
    const { parameters, dtypes, bytes } = inspect(model);
    expect(details).toMatchObject({
      path: model,
      bytes,
      sha256: sha256(await Bun.file(model).bytes()),
      architecture: "gemma3",
      parameters,
      formats: Object.fromEntries(dtypes.map((each) => [each.dtype, each.bytes])),
      layers: 3,
      simd: "scalar",
      threads: 1,
    });
  });

  test("of a model that only embeds counts texts, and generates nothing", async () => {
    const measured = await measureInference({ model: encoder, settings });
    expect(measured.settings?.generated_tokens).toBe(0);
    expect(measured.figures.first_token).toBeUndefined();
    const { latency, throughput } = measured.figures;
    expect(throughput?.samples).toEqual(latency?.samples?.map((ms) => 3000 / ms) ?? []);
    expect(measured.methodology.join()).toContain("texts");
  });

  test("that is interrupted has what was measured until then", async () => {
    const controller = new AbortController();
    const open = async (...given: Parameters<typeof openSubject>) => {
      const subject = await openSubject(...given);
      let left = 3;
      return {
        ...subject,
        iterate: async (batchSize: number) => {
          if (left-- === 0) controller.abort();
          return subject.iterate(batchSize);
        },
      };
    };
    const context = { model, settings: { ...settings, loadings: 1 }, signal: controller.signal };
    const { figures, interrupted } = await measureInference(context, open);
    expect(interrupted).toBe(true);
    expect(figures.latency?.samples).toHaveLength(2);
    expect(Object.keys(figures.by_batch_size ?? {})).toEqual(["3"]);
    const early = measureInference({ ...context, settings: { ...context.settings, warmup: 9 } }, open);
    await expect(early).rejects.toThrow("abort");
  });

  test.skipIf(process.platform !== "linux")("has the peak of memory that was taken within iterations", async () => {
    const taken = 64 << 20;
    const library = openLibrary();
    const { index: level } = chooseLevel(library, undefined);
    const open = async (...given: Parameters<typeof openSubject>) => {
      const subject = await openSubject(...given);
      const iterate = async (batchSize: number) => {
        const meter = openBandwidth(library, { level, threadCount: 1, bytesMax: taken });
        meter.measure("write", taken, taken);
        meter.close();
        return subject.iterate(batchSize);
      };
      return { ...subject, iterate };
    };
    const { figures, methodology } = await measureInference({ model, settings }, open);
    const { peak = 0, max = 0 } = figures.memory_usage ?? {};
    expect(peak - max).toBeGreaterThan(50);
    expect(methodology.join()).toContain("the peak is the most at any time while iterations counted");
  });

  test("looks at the machine no longer when an iteration fails", async () => {
    let iterations = 3;
    const open = async (...given: Parameters<typeof openSubject>) => {
      const subject = await openSubject(...given);
      const iterate = async (batchSize: number) => {
        if (iterations-- === 0) throw new Error("an iteration failed");
        return subject.iterate(batchSize);
      };
      return { ...subject, iterate };
    };
    const started = spyOn(globalThis, "setInterval");
    const stopped = spyOn(globalThis, "clearInterval");
    await expect(measureInference({ model, settings }, open)).rejects.toThrow("an iteration failed");
    const left = new Set<unknown>(started.mock.results.map(({ value }) => value));
    expect(left.size).toBeGreaterThan(0);
    for (const [timer] of stopped.mock.calls) left.delete(timer);
    expect(left.size).toBe(0);
    started.mockRestore();
    stopped.mockRestore();
  });
});

describe("a level", () => {
  test("is named or numbered, and refused where the CPU has none of that name", async () => {
    expect(await simdLevel("scalar")).toBe(0);
    expect(await simdLevel("0")).toBe(0);
    expect(await simdLevel("3")).toBe(3);
    await expect(simdLevel("avx9000")).rejects.toThrow(
      '--simd: there is no level "avx9000" here; there are scalar (0)',
    );
  });
});
