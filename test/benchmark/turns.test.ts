// Models compared in turns: each once in every round, in an order of chance, until it is enough; what cannot be compared is refused, and
// whatever happens, every model is closed.

import { beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { resolveSettings } from "../../src/benchmark/config.ts";
import type { Settings } from "../../src/benchmark/results.ts";
import type { openSubject, Subject } from "../../src/benchmark/subject.ts";
import { compareModels, measureInTurns } from "../../src/benchmark/turns.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyModel } from "../support/tiny-model.ts";

setDefaultTimeout(60_000);

const folder = temporaryFolder();
const [one, two] = [folder.file("one.gguf"), folder.file("two.gguf")];
beforeAll(() => {
  writeTinyModel(one);
  writeTinyModel(two, { layers: 3 });
});

/** Models that take as long as they are told, which nothing else is needed for. */
function pretend(
  latencyMs: (model: string, iteration: number) => number | Promise<number>,
  embeds: (model: string) => boolean = () => false,
) {
  const asked: string[] = [];
  const closed: string[] = [];
  const iterations: Record<string, number> = {};
  const open = (async (model: string, _settings, { signal } = {}): Promise<Subject> => {
    return {
      details: { path: model } as Subject["details"],
      model: {} as Subject["model"],
      embeds: embeds(model),
      async iterate(batchSize) {
        signal?.throwIfAborted();
        asked.push(model);
        const iteration = iterations[model] ?? 0;
        iterations[model] = iteration + 1;
        const ms = await latencyMs(model, iteration);
        return { latencyMs: ms, firstTokensMs: [ms / 2], made: 16 * batchSize, residentBytes: 1e6 };
      },
      close: async () => void closed.push(model),
    };
  }) as typeof openSubject;
  return { open, asked, closed };
}

const settings = (given: Partial<Settings>) => resolveSettings("inference", {}, { warmup: 0, ...given });

describe("rounds", () => {
  test("ask every model once, in an order of chance that the seed gives again", async () => {
    const orders = async (seed: number) => {
      const { open, asked } = pretend(() => 5);
      await measureInTurns({ models: ["a", "b", "c"], settings: settings({ iterations: 40, seed }), open });
      return Array.from({ length: asked.length / 3 }, (_, round) => asked.slice(3 * round, 3 * round + 3).join(""));
    };
    const seen = await orders(1);
    expect(seen.length).toBe(40);
    // All six orders, and no letter twice.
    expect([...new Set(seen)].sort()).toEqual(["abc", "acb", "bac", "bca", "cab", "cba"]);
    expect(await orders(1)).toEqual(seen);
    expect(await orders(2)).not.toEqual(seen);
  });

  test("keep their samples in order, by model and batch size", async () => {
    const { open } = pretend((model, iteration) => (model === "a" ? 10 : 20) + iteration);
    const given = settings({ iterations: 3, batch_sizes: [1, 4] });
    const { compared, blocks } = await measureInTurns({ models: ["a", "b"], settings: given, open });
    const [a, b] = compared;
    const of = (results: typeof a, size: number) => results?.results.results.by_batch_size?.[size]?.latency?.samples;
    expect([of(a, 1), of(b, 1)]).toEqual([
      [10, 12, 14],
      [20, 22, 24],
    ]);
    expect([of(a, 4), of(b, 4)]).toEqual([
      [11, 13, 15],
      [21, 23, 25],
    ]);
    expect(b?.results.results.by_batch_size?.[4]?.throughput?.samples?.[0]).toBeCloseTo((1000 * 64) / 21, 9);
    // Three rounds are three blocks.
    expect(blocks.get(4)).toEqual([1, 1, 1]);
  });

  test("come in up to twenty blocks, for each of which all models are loaded anew", async () => {
    const { open, closed } = pretend(() => 5);
    const { blocks } = await measureInTurns({ models: ["a", "b"], settings: settings({ iterations: 30 }), open });
    // As evenly as rounds can be spread.
    expect(blocks.get(1)).toEqual([...Array.from({ length: 10 }, () => 2), ...Array.from({ length: 10 }, () => 1)]);
    expect(closed.length).toBe(40);
    const given = settings({ iterations: 120 });
    const more = await measureInTurns({ models: ["a", "b"], settings: given, open: pretend(() => 5).open });
    expect(more.blocks.get(1)).toEqual(Array.from({ length: 20 }, () => 6));
  });

  test("end when the change is known well enough, however much the times themselves vary", async () => {
    // Each round's moment is in both models alike.
    const moment = (iteration: number) => 1 + (iteration % 7);
    const { open, asked } = pretend((model, iteration) => (model === "a" ? 1 : 1.1) * moment(iteration));
    await measureInTurns({ models: ["a", "b"], settings: settings({ precision: 0.01, time_s: 60 }), open });
    // Four rounds in each of twenty blocks.
    expect(asked.length / 2).toBe(80);
  });

  test("that are under way when it is interrupted are not counted", async () => {
    const controller = new AbortController();
    const { open, closed } = pretend((_, iteration) => {
      if (iteration === 7) controller.abort(new Error("enough"));
      return 5;
    });
    const given = settings({ iterations: 1000, batch_sizes: [1, 4] });
    const { signal } = controller;
    const { compared } = await measureInTurns({ models: ["a", "b"], settings: given, open, signal });
    for (const { results } of compared) {
      expect(results.benchmark_info.interrupted).toBe(true);
      expect(Object.keys(results.results.by_batch_size ?? {})).toEqual(["1"]);
      expect(results.results.latency?.samples?.length).toBe(7);
    }
    expect(closed).toEqual(["a", "b"]);
  });

  test("of which none was whole leave nothing to compare", async () => {
    const controller = new AbortController();
    const { open, closed } = pretend(() => {
      controller.abort(new Error("enough"));
      return 5;
    });
    const measured = measureInTurns({
      models: ["a", "b"],
      settings: settings({ iterations: 9 }),
      open,
      signal: controller.signal,
    });
    await expect(measured).rejects.toThrow("enough");
    expect(closed).toEqual(["a", "b"]);
  });
});

describe("what is refused", () => {
  test("are models of which some only embed, and all are closed", async () => {
    const { open, closed } = pretend(
      () => 5,
      (model) => model === "b",
    );
    const measured = measureInTurns({ models: ["a", "b"], settings: settings({ iterations: 9 }), open });
    await expect(measured).rejects.toThrow("--models: b only embeds, but a generates; compare models of one kind");
    expect(closed).toEqual(["a", "b"]);
  });

  test("are other types, a single model, and memory alone, before anything is opened", async () => {
    const { open, asked, closed } = pretend(() => 5);
    const refused = async (given: object, words: string) => {
      const options = { models: [one, two], settings: settings({ iterations: 9 }), open, ...given };
      await expect(compareModels(options)).rejects.toThrow(words);
    };
    await refused({ type: "memory" }, "--type: memory cannot be measured in turns; run it for each model");
    await refused({ type: "training" }, "--type: training cannot be measured");
    await refused({ models: [one] }, "--models: names one model; two or more are compared");
    await refused({ models: [one, folder.file("none.gguf")] }, "none.gguf");
    await refused({ settings: settings({ metrics: ["memory_usage"] }) }, "--metrics: memory cannot be told apart");
    expect([asked, closed]).toEqual([[], []]);
  });
});

test("real models are measured, and the report says what they are", async () => {
  const report = await compareModels({ models: [one, two], settings: settings({ iterations: 8, prompt_tokens: 8 }) });
  expect(report.paired).toBe(true);
  expect(report.interrupted).toBe(false);
  expect(report.compared.map(({ name }) => name)).toEqual(["one.gguf", "two.gguf"]);
  const [first, second] = report.compared.map(({ results }) => results.benchmark_info.model_details);
  expect([first?.layers, second?.layers]).toEqual([2, 3]);
  const metrics = report.comparisons.map(({ metric }) => metric);
  for (const metric of ["latency", "first token", "throughput"]) expect(metrics).toContain(metric);
  expect(metrics).not.toContain("memory usage");
  expect(report.warnings.join("\n")).not.toContain("differ in the model");
});
