// Results compared with results: which figures, how much they changed, and what stands in the way.

import { describe, expect, test } from "bun:test";
import { type Compared, comparableMetrics } from "../../src/benchmark/comparable.ts";
import { type ComparisonReport, compareResults, comparisonJson, namesOf } from "../../src/benchmark/compare.ts";
import type { BenchmarkResults } from "../../src/benchmark/results.ts";
import { latencyOf, statisticsOf } from "../../src/benchmark/statistics/describe.ts";
import { guideResults } from "../support/benchmark-results.ts";
import { drawnLatencies, fingerprint, loadedResults, madeResults } from "../support/results.ts";

const first = drawnLatencies(12, 40, 1);
const many = drawnLatencies(12, 120, 1);
/** For what does not depend on the samples. */
const single = [12];

function compared(...results: readonly BenchmarkResults[]): Compared[] {
  return results.map((each, place) => ({ name: `v${place + 1}`, results: each }));
}

/** Of an even number of samples. */
function middle(samples: readonly number[]): number {
  const sorted = [...samples].sort((a, b) => a - b);
  const [below = 0, above = 0] = sorted.slice(sorted.length / 2 - 1);
  return below + (above - below) / 2;
}

function find(report: ComparisonReport, metric: string, batchSize: number | null = 1, other = 1) {
  const found = report.comparisons.find(
    (each) => each.metric === metric && each.batchSize === batchSize && each.other === other,
  );
  if (!found) throw new Error(`${metric} was not compared`);
  return found;
}

describe("runs of several loadings", () => {
  /** Each loading is up to 4 % faster or slower than the others, and its iterations scatter by 2 %. */
  const loadings = (ms: number, seed: number) => {
    const levels = drawnLatencies(1, 10, 100 * seed).map((level) => level ** 2);
    return levels.map((level, loading) => drawnLatencies(ms * level, 20, 100 * seed + loading));
  };

  test("are judged by those, of which some are faster and some slower", () => {
    let called = { ofSeveral: 0, ofOne: 0 };
    const seeds = Array.from({ length: 24 }, (_, index) => index + 1);
    for (const seed of seeds) {
      const [one, two] = [loadings(12, 2 * seed), loadings(12, 2 * seed + 1)];
      const isCalled = (report: ComparisonReport) => find(report, "latency").comparison?.verdict !== "undecided";
      const several = compareResults(compared(loadedResults(one), loadedResults(two)));
      const single = compareResults(compared(madeResults({ 1: one[0] ?? [] }), madeResults({ 1: two[0] ?? [] })));
      called = {
        ofSeveral: called.ofSeveral + (isCalled(several) ? 1 : 0),
        ofOne: called.ofOne + (isCalled(single) ? 1 : 0),
      };
    }
    // 5 of 100 are 1.2; of a binomial with that mean, 5 and more come once in 150 times.
    expect(called.ofSeveral).toBeLessThan(5);
    expect(called.ofOne).toBeGreaterThan(10);
  }, 60_000);

  test("show what changed by more than loadings do", () => {
    const report = compareResults(compared(loadedResults(loadings(12, 3)), loadedResults(loadings(13.8, 4))));
    expect(find(report, "latency").comparison?.verdict).toBe("slower");
    expect(report.methodology[0]).toContain("What is judged are the loadings of their models");
  });

  test("have no verdict on percentiles for which each loading has too few samples", () => {
    const report = compareResults(compared(loadedResults(loadings(12, 3)), loadedResults(loadings(16, 4))));
    expect(find(report, "latency p95").sentence).toBe("undecided: too few samples to tell");
  });

  test("are compared sample by sample with what was loaded once", () => {
    const report = compareResults(compared(loadedResults(loadings(12, 3)), madeResults({ 1: many })));
    expect(report.methodology[0]).toContain("fewer than six loadings are known");
  });
});

describe("changes", () => {
  test("are the part by which the figures changed, and say which way is better", () => {
    const report = compareResults(compared(madeResults({ 1: first }), madeResults({ 1: first.map((ms) => ms * 0.9) })));
    const latency = find(report, "latency");
    expect(latency.comparison?.change).toBeCloseTo(0.1, 6);
    expect(latency.comparison?.verdict).toBe("faster");
    expect(latency.sentence).toStartWith("faster by 10.0 % (95 % interval ");
    expect([latency.statistic, latency.base]).toEqual(["median", middle(first)]);
    // 1 / 0.9 times as many tokens.
    expect(find(report, "throughput").comparison?.change).toBeCloseTo(1 / 0.9 - 1, 6);
    expect(find(report, "throughput").comparison?.verdict).toBe("faster");
    const back = compareResults(compared(madeResults({ 1: first.map((ms) => ms * 0.9) }), madeResults({ 1: first })));
    expect(find(back, "latency").comparison?.verdict).toBe("slower");
    expect(find(back, "latency").comparison?.change).toBeCloseTo(1 - 1 / 0.9, 6);
  });

  test("stand beside the figures that they are of, which a few samples far out do not move", () => {
    // Every tenth takes nine times as long: the typical sample is faster, and the mean slower.
    const second = many.map((ms, at) => (at % 10 === 0 ? 9 * ms : 0.7 * ms));
    const { statistic, base, figure, comparison } = find(
      compareResults(compared(madeResults({ 1: many }), madeResults({ 1: second }))),
      "latency",
    );
    expect(comparison?.verdict).toBe("faster");
    expect([statistic, base, figure]).toEqual(["median", middle(many), middle(second)]);
    expect(figure).toBeLessThan(base);
  });

  test("of percentiles are those of the samples, where these are enough", () => {
    const second = drawnLatencies(14, 120, 2);
    const report = compareResults(compared(madeResults({ 1: many }), madeResults({ 1: second })));
    const sorted = [...second].sort((a, b) => a - b);
    // The 95th of 120 lies at 0.95 · 119 = 113.05.
    const p95 = (sorted[113] ?? 0) * 0.95 + (sorted[114] ?? 0) * 0.05;
    expect(find(report, "latency p95").figure).toBeCloseTo(p95, 9);
    expect(report.comparisons.some(({ metric }) => metric === "latency p99")).toBe(false);
    expect(find(report, "latency p90").comparison?.verdict).toBe("slower");
    // The row of latency itself is of the median.
    expect(report.comparisons.some(({ metric }) => metric === "latency p50")).toBe(false);
  });

  test("of the same samples cannot be shown", () => {
    const report = compareResults(compared(madeResults({ 1: first }), madeResults({ 1: first })));
    for (const { comparison, sentence } of report.comparisons) {
      expect(comparison?.verdict).toBe("undecided");
      expect(comparison?.change).toBeCloseTo(0, 12);
      expect(sentence).toContain("no difference could be shown; one of ");
    }
  });

  test("of rounds in turns are compared in pairs, which shows what groups cannot", () => {
    // The machine's moments change all times by far more than the models differ.
    const moments = drawnLatencies(1, 60, 5).map((part) => part ** 10);
    const [one, two] = [11, 12].map((seed) => drawnLatencies(10, 60, seed).map((ms, at) => ms * (moments[at] ?? 1)));
    const slower = (two ?? []).map((ms) => ms * 1.03);
    const results = compared(madeResults({ 1: one ?? [] }), madeResults({ 1: slower }));
    const blocks = new Map([[1, Array.from({ length: 12 }, () => 5)]]);
    const inTurns = compareResults(results, { blocks });
    expect(inTurns.paired).toBe(true);
    expect(find(inTurns, "latency").comparison?.verdict).toBe("slower");
    expect(find(compareResults(results), "latency").comparison?.verdict).toBe("undecided");
  });

  test("of blocks are judged by the blocks: what one loading does to all of its rounds is no difference", () => {
    // As long as it is loaded, a model is slower or faster by up to 4 %; nothing else varies.
    const loadings = drawnLatencies(1, 24, 7);
    const latencies = (from: number) =>
      Array.from({ length: 60 }, (_, at) => 10 * (loadings[from + Math.floor(at / 5)] ?? 1));
    const results = compared(madeResults({ 1: latencies(0) }), madeResults({ 1: latencies(12) }));
    const { comparison } = find(
      compareResults(results, { blocks: new Map([[1, Array.from({ length: 12 }, () => 5)]]) }),
      "latency",
    );
    const ratios = Array.from({ length: 12 }, (_, block) => (loadings[12 + block] ?? 1) / (loadings[block] ?? 1));
    expect(comparison?.verdict).toBe("undecided");
    // The blocks' ratios are all that there is.
    expect(1 - (comparison?.change ?? 0)).toBeGreaterThan(Math.min(...ratios));
    expect(1 - (comparison?.change ?? 0)).toBeLessThan(Math.max(...ratios));
    expect((comparison?.interval?.high ?? 0) - (comparison?.interval?.low ?? 0)).toBeGreaterThan(0.01);
  });

  test("are corrected for being many: p-values are Holm's of those that each would have alone", () => {
    const second = drawnLatencies(12.08, 40, 2);
    const alone = compareResults(compared(madeResults({ 1: first }), madeResults({ 1: second })));
    const third = drawnLatencies(12, 40, 3);
    const together = compareResults(
      compared(madeResults({ 1: first }), madeResults({ 1: second }), madeResults({ 1: third })),
    );
    expect(together.comparisons.length).toBe(2 * alone.comparisons.length);
    for (const each of alone.comparisons) {
      const same = find(together, each.metric);
      expect(same.comparison?.pValue).toBeGreaterThanOrEqual(each.comparison?.pValue ?? 1);
    }
    const one = compareResults(compared(onlyLatency(first), onlyLatency(second))).comparisons;
    const least = Math.min(...one.map(({ comparison }) => comparison?.pValue ?? 1));
    expect(Math.min(...together.comparisons.map(({ comparison }) => comparison?.pValue ?? 1))).toBeGreaterThan(least);
  });

  test("are the same every time", () => {
    const results = compared(madeResults({ 1: first }), madeResults({ 1: drawnLatencies(12.3, 40, 9) }));
    expect(compareResults(results)).toEqual(compareResults(results));
  });
});

/** Without anything else to correct for. */
function onlyLatency(latenciesMs: readonly number[]): BenchmarkResults {
  const { benchmark_info } = madeResults({ 1: latenciesMs });
  return { benchmark_info, results: { by_batch_size: { 1: { throughput: statisticsOf(latenciesMs) } } } };
}

describe("what is compared", () => {
  test("are the batch sizes and metrics that two have in common; the others are named", () => {
    const one = madeResults({ 1: single, 4: single });
    const { by_batch_size = {} } = madeResults({ 4: single, 8: single }).results;
    const without = Object.fromEntries(
      Object.entries(by_batch_size).map(([size, { memory_usage, ...figures }]) => [size, figures]),
    );
    const two = { ...madeResults({ 4: single, 8: single }), results: { by_batch_size: without } };
    const report = compareResults(compared(one, two));
    expect(new Set(report.comparisons.map(({ batchSize }) => batchSize))).toEqual(new Set([4]));
    expect(report.comparisons.map(({ metric }) => metric)).not.toContain("memory usage");
    expect(report.warnings).toContain("v2 and v1: only one has batch size 1, 8; it is left out.");
    expect(report.warnings).toContain("v2: has no memory usage.");
  });

  test("files without samples stand beside each other, without a verdict", () => {
    const other = { ...guideResults, results: { ...guideResults.results, memory_usage: { peak: 2, mean: 2, std: 0 } } };
    const report = compareResults(compared(guideResults, other));
    expect(report.comparisons.map(({ metric, base, figure }) => [metric, base, figure])).toEqual([
      ["latency", 15.2, 15.2],
      ["latency p50", 15.0, 15.0],
      ["latency p90", 16.8, 16.8],
      ["latency p95", 17.5, 17.5],
      ["latency p99", 18.1, 18.1],
      ["throughput", 65.8, 65.8],
      ["memory usage", 896, 2],
    ]);
    for (const { metric, statistic, comparison, sentence } of report.comparisons) {
      const isPercentile = / p\d/.test(metric);
      expect(comparison).toBeNull();
      expect(statistic).toBe(isPercentile ? "percentile" : "mean");
      expect(sentence).toBe(isPercentile ? "no samples: no verdict" : "means without samples: no verdict");
    }
  });

  test("a file that does not say its batch size is compared with the other's first", () => {
    const report = compareResults(compared(madeResults({ 4: single, 1: single }), guideResults));
    expect(report.comparisons.every(({ batchSize }) => batchSize === 1)).toBe(true);
    expect(report.warnings.join("\n")).toContain("only one says which batch size its figures are of");
  });

  test("first tokens of a batch are one sample for each iteration, since its requests wait for the same steps", () => {
    const results = madeResults({ 2: [30, 60] });
    const figures = { ...results.results.by_batch_size?.["2"], first_token: latencyOf([10, 12, 20, 26]) };
    const of = comparableMetrics({ ...results, results: { by_batch_size: { 2: figures } } });
    const found = of.filter(({ name }) => name.startsWith("first token"));
    expect(found.map(({ name, figure, samples }) => [name, figure, samples])).toEqual([["first token", 17, [11, 23]]]);
  });

  test("of the types memory and system are their own figures, each with what is better", () => {
    const rate = statisticsOf([10, 11, 12, 10, 11, 12]);
    const less = statisticsOf([9, 10, 11, 9, 10, 11]);
    const system = (rates: typeof rate): BenchmarkResults => ({
      benchmark_info: { ...guideResults.benchmark_info, type: "system", model: "none" },
      results: {
        system: {
          disk: {
            folder: "/",
            file_system: null,
            direct: true,
            file_bytes: 1,
            sequential_read: { block_bytes: 1, queue_depth: 1, bytes: 1, rate: rates },
          },
        },
      },
    });
    const report = compareResults(compared(system(rate), system(less)));
    expect(report.comparisons.map(({ metric, unit, better }) => [metric, unit, better])).toEqual([
      ["disk sequential read", "MB/s", "more"],
    ]);
    expect(report.comparisons[0]?.comparison?.change).toBeLessThan(0);
    const memory: BenchmarkResults = {
      benchmark_info: { ...guideResults.benchmark_info, type: "memory" },
      results: {
        memory: {
          loading: { peak: rate },
          bandwidth: [{ name: "memory", threads: 2, working_bytes: 1, read: rate }],
        },
      },
    };
    expect(comparableMetrics(memory).map(({ name, unit, better }) => [name, unit, better])).toEqual([
      ["loading peak", "MB", "less"],
      ["bandwidth memory read, threads 2", "GB/s", "more"],
    ]);
  });

  test("samples of 0 have no part by which they change", () => {
    const added = (samples: readonly number[]): BenchmarkResults => ({
      benchmark_info: { ...guideResults.benchmark_info, type: "memory" },
      results: { memory: { loading: { added: statisticsOf(samples) } } },
    });
    for (const nothing of [0, 5e-324, 1e-300]) {
      const one = added([nothing, 1, nothing, nothing, nothing, nothing, nothing]);
      const [found] = compareResults(compared(one, added([1, 1, 1, 1, 1, 1, 1]))).comparisons;
      expect([found?.comparison, found?.sentence]).toEqual([null, "samples that are 0, or as good as: no verdict"]);
    }
  });

  test("means are those of the samples, whatever a file states beside them", () => {
    const { latency, ...others } = madeResults({ 1: first }).results.by_batch_size?.["1"] ?? {};
    if (latency === undefined) throw new Error("it has latencies");
    const figures = { ...others, latency: { ...latency, mean: 99_999 } };
    const results = { ...madeResults({ 1: first }), results: { by_batch_size: { 1: figures } } };
    const found = comparableMetrics(results).find(({ name }) => name === "latency");
    expect(found?.figure).toBeCloseTo(first.reduce((sum, ms) => sum + ms, 0) / first.length, 9);
  });
});

describe("what cannot be compared", () => {
  const base = madeResults({ 1: single });
  const refused = (other: BenchmarkResults) => () => compareResults(compared(base, other));
  const settings = { ...(base.benchmark_info.settings ?? ({} as never)) };

  test("is refused with the file's name and the reason", () => {
    expect(refused({ ...base, benchmark_info: { ...base.benchmark_info, type: "memory" } })).toThrow(
      "v2: is of type memory, but v1 of type inference; compare files of one type",
    );
    expect(refused(madeResults({ 1: single }, { settings: { ...settings, prompt_tokens: 128 } }))).toThrow(
      "v2: was measured with 128 tokens in each prompt, but v1 with 32: their times say nothing of each other",
    );
    expect(refused(madeResults({ 1: single }, { settings: { ...settings, generated_tokens: 1 } }))).toThrow(
      "v2: was measured with 1 tokens generated for each",
    );
    expect(refused(madeResults({ 8: single }))).toThrow("v2: has batch size 8, but v1 1: none in common");
    expect(refused({ benchmark_info: base.benchmark_info, results: {} })).toThrow(
      "v2: has no metric in common with v1",
    );
    expect(() => compareResults(compared(base))).toThrow("names one file; two or more are compared");
  });
});

describe("what differs beside the figures", () => {
  const warningsOf = (info: Partial<BenchmarkResults["benchmark_info"]>) =>
    compareResults(compared(madeResults({ 1: single }), madeResults({ 1: single }, info))).warnings;

  test("is said in a sentence, and nothing where nothing does", () => {
    expect(warningsOf({})).toEqual([]);
    expect(warningsOf({ fingerprint: { ...fingerprint, id: "x", cpu: "other" } })[0]).toContain(
      "v2 and v1 come from different machines, or one in different states (CPU: other and Intel Xeon E5-2680)",
    );
    expect(warningsOf({ tinyai: "0.2.0" })).toEqual([
      "v2 and v1 differ in TinyAI's version (0.2.0 and 0.1.0): a difference may be due to it.",
    ]);
    expect(warningsOf({ model: "other.gguf" })[0]).toContain("the comparison is of these models");
    expect(warningsOf({ interrupted: true })).toEqual([
      "v2: was interrupted; its figures are of what was measured until then.",
    ]);
    expect(warningsOf({ warnings: ["the times drift"] })).toEqual(["v2: the times drift"]);
  });

  test("of files without a fingerprint is told by what they say of the system", () => {
    const other = { ...guideResults.benchmark_info, system_info: { cpu: "M1", memory: "32GB", os: "Linux 5.4.0" } };
    const { warnings } = compareResults(compared(guideResults, { ...guideResults, benchmark_info: other }));
    expect(warnings).toEqual([
      "v2 and v1 differ in the CPU (M1 and Intel Xeon E5-2680): a difference may be the machine's.",
    ]);
  });
});

test("names of files are short where that tells them apart", () => {
  expect(namesOf(["a/results_v1.json", "b/results_v2.json"])).toEqual(["results_v1", "results_v2"]);
  expect(namesOf(["a/r.json", "b/r.json"])).toEqual(["a/r.json", "b/r.json"]);
  expect(namesOf(["gemma3-270m", "gemma3-270m", "other"])).toEqual(["gemma3-270m (1)", "gemma3-270m (2)", "other"]);
});

test("the JSON names both sides of every comparison, and has every sample", () => {
  const report = compareResults(compared(madeResults({ 1: first }), madeResults({ 1: first.map((ms) => ms * 0.9) })));
  const json = JSON.parse(JSON.stringify(comparisonJson(report)));
  expect(json.comparisons[0]).toMatchObject({
    metric: "latency",
    unit: "ms",
    batch_size: 1,
    base_name: "v1",
    name: "v2",
    verdict: "faster",
    interval: { level: 0.95 },
  });
  expect(json.compared[0].results.results.latency.samples).toEqual(first);
});
