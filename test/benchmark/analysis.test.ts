// What is said of results: figures computed anew, what is amiss named, and nothing concluded that the samples do not carry.

import { describe, expect, test } from "bun:test";
import { type Analysis, type AnalysisFinding, analyzeResults } from "../../src/benchmark/analysis.ts";
import type { BenchmarkResults, Figures, Latency, Settings } from "../../src/benchmark/results.ts";
import { latencyOf, statisticsOf } from "../../src/benchmark/statistics/describe.ts";
import {
  guideResults,
  inferenceResults,
  madeUpFigures,
  madeUpInfo,
  madeUpSettings,
  memoryResults,
  samplesAround,
  systemResults,
} from "../support/benchmark-results.ts";

/** Results of one batch size without warnings of their own, so that the analysis finds what there is. */
function resultsOf(latencies: readonly number[], changes: Partial<Figures> = {}): BenchmarkResults {
  const { warnings: _warnings, ...info } = madeUpInfo;
  const settings: Settings = { ...madeUpSettings, batch_sizes: [1] };
  return { benchmark_info: { ...info, settings }, results: { ...madeUpFigures(latencies), ...changes } };
}

const textsOf = ({ findings }: Analysis, kind: AnalysisFinding["kind"]) =>
  findings.flatMap((finding) => (finding.kind === kind ? [finding.text] : []));

describe("figures", () => {
  test("are computed from the samples, whatever the file says, and where they differ it is said", () => {
    const samples = samplesAround(80, 120);
    const wrong: Latency = { ...latencyOf(samples), mean: 40, percentiles: { "50": 80, "90": 83, "95": 84, "99": 20 } };
    const analysis = analyzeResults(resultsOf(samples, { latency: wrong }));
    const [latency] = analysis.figures;
    const mean = samples.reduce((sum, value) => sum + value, 0) / samples.length;
    expect(latency?.name).toBe("latency");
    expect(latency?.mean).toBeCloseTo(mean, 9);
    const sorted = [...samples].sort((a, b) => a - b);
    // The place of the 99th percentile of 120 is 0.99 · 119 = 117.81.
    expect(latency?.percentiles?.["99"]).toBeCloseTo(0.19 * (sorted[117] ?? 0) + 0.81 * (sorted[118] ?? 0), 9);
    const said = textsOf(analysis, "figures").join("\n");
    expect(said).toContain("latency of batch size 1: its mean is 40, but that of its samples is");
    expect(said).toContain("its percentile 99 is 20");
    expect(said).not.toContain("its std");
  });

  test("that are right are not complained of, though their intervals were drawn from other seeds", () => {
    for (let seed = 1; seed <= 12; seed++) {
      const samples = samplesAround(80, 30, 0.3, seed);
      expect(textsOf(analyzeResults(resultsOf(samples)), "figures")).toEqual([]);
    }
  });

  test("whose interval is of other samples, or whose peak a sample exceeds, are said to be wrong", () => {
    const samples = samplesAround(80, 120);
    const latency = { ...latencyOf(samples), interval: { level: 0.95, low: 60, high: 70 } };
    const memory_usage = { peak: 100, ...statisticsOf(samplesAround(300, 20)) };
    const said = textsOf(analyzeResults(resultsOf(samples, { latency, memory_usage })), "figures").join("\n");
    expect(said).toContain("latency of batch size 1: its interval is 60 to 70, but its samples give about");
    expect(said).toContain("memory usage of batch size 1: its peak is 100, but a sample is");
  });

  test("without samples that cannot be together are named", () => {
    const { latency } = guideResults.results;
    if (!latency) throw new Error("the guide has latencies");
    const said = (changed: Partial<Latency>) => {
      const results = { ...guideResults, results: { latency: { ...latency, ...changed } } };
      return textsOf(analyzeResults(results), "figures").join("\n");
    };
    expect(said({})).toBe("");
    expect(said({ min: 16 })).toContain("latency: its min, 16, is above its percentile 50, 15");
    expect(said({ mean: 20 })).toContain("its mean, 20, is above its max, 18.3");
    expect(said({ std: 9 })).toContain("its std, 9, is more than its values span");
    expect(said({ interval: { level: 0.95, low: 1, high: 2 } })).toContain("its mean, 15.2, is outside its interval");
  });

  test("of throughput that do not go with the latencies are named with the iteration", () => {
    const samples = samplesAround(80, 30);
    const rates = samples.map((latency, index) => (index === 20 ? 2 : 1) * (16_000 / latency));
    const said = textsOf(analyzeResults(resultsOf(samples, { throughput: statisticsOf(rates) })), "figures");
    expect(said).toEqual([
      "batch size 1: by its throughput and latency, iteration 21 made 32.0 of the 16 tokens or texts that the settings say",
    ]);
  });
});

describe("findings", () => {
  test("name outliers by their number, the farthest first, and leave them in the figures", () => {
    const samples = samplesAround(80, 100);
    samples[30] = 200;
    samples[77] = 400;
    const analysis = analyzeResults(resultsOf(samples));
    expect(textsOf(analysis, "outliers").join("\n")).toMatch(
      /^latency of batch size 1: 2 of 100 samples lie far out .*number 78 with 400\.0 ms, .*number 31 with 200\.0 ms/,
    );
    expect(analysis.figures[0]?.max).toBe(400);
    expect(analysis.figures[0]?.samples?.outliers.map(({ index }) => index)).toEqual([30, 77]);
  });

  test("say that the first iterations were slower, and say no such thing of steady ones", () => {
    const steady = samplesAround(80, 120);
    expect(textsOf(analyzeResults(resultsOf(steady)), "warm-up")).toEqual([]);
    const cold = steady.map((value, index) => (index < 12 ? 1.3 * value : value));
    const [said = ""] = textsOf(analyzeResults(resultsOf(cold)), "warm-up");
    expect(said).toMatch(/^latency of batch size 1: the first 12 iterations were slower by [23]\d\.\d % .*--warmup/);
  });

  test("say of memory that grows that something is not given back", () => {
    const growing = Array.from({ length: 60 }, (_, index) => 300 + index);
    const memory_usage = { peak: 400, ...statisticsOf(growing) };
    const said = textsOf(analyzeResults(resultsOf(samplesAround(80, 60), { memory_usage })), "memory");
    expect(said.join()).toMatch(/^memory usage of batch size 1: memory grew by 1[678]\.\d %/);
    expect(textsOf(analyzeResults(resultsOf(samplesAround(80, 60))), "memory")).toEqual([]);
  });

  test("are those of the run where it left some, and are found from the samples where it left none", () => {
    const few = samplesAround(80, 4);
    expect(textsOf(analyzeResults(resultsOf(few)), "iterations").join()).toContain("4 iterations are too few");
    const measured = analyzeResults(inferenceResults(few, { warnings: ["before measuring: background load: 3.1"] }));
    expect(textsOf(measured, "iterations")).toEqual([]);
    expect(textsOf(measured, "measured")).toEqual(["before measuring: background load: 3.1"]);
  });

  test("tell what is known of the machine, an interruption, and that a file has no samples", () => {
    const { fingerprint } = madeUpInfo;
    if (!fingerprint) throw new Error("there is one");
    const unquiet = { ...fingerprint, governor: "powersave", turbo: true, virtualization: null };
    const analysis = analyzeResults(
      inferenceResults(samplesAround(80, 20), { fingerprint: unquiet, interrupted: true }),
    );
    expect(textsOf(analysis, "machine")).toEqual([
      "the frequency governor was powersave: clocks followed the load",
      "the CPU clocked above its base as heat allowed, so that its speed changes with the time",
    ]);
    expect(textsOf(analysis, "interrupted")).toHaveLength(1);
    expect(textsOf(analyzeResults(guideResults), "samples").join()).toContain("no samples");
  });
});

describe("conclusions", () => {
  test("give the mean with its interval, and a percentile only where the samples span it", () => {
    const many = analyzeResults(resultsOf(samplesAround(80, 120)));
    expect(many.conclusions[0]).toMatch(
      /^Latency of batch size 1: on average 80\.\d+ ms, with 95 % certainty between 79\.\d+ and 8\d\.\d+; 99 of 100 took at most 8[34]\.\d+ ms\.$/,
    );
    const few = analyzeResults(resultsOf(samplesAround(80, 20)));
    expect(few.conclusions[0]).not.toContain("99 of 100");
    expect(few.limits.join("\n")).toContain("(latency of batch size 1 with 20, first token of batch size 1 with 20)");
    const bare = analyzeResults(guideResults);
    expect(bare.conclusions).toEqual(["Memory usage: at most 1,024 MB."]);
    expect(bare.limits.join("\n")).toContain("How sure latency, throughput are");
  });

  test("say which change another run would not show: less the more samples there are", () => {
    const least = (count: number) => {
      const { limits } = analyzeResults(resultsOf(samplesAround(80, count, 0.2)));
      return Number(/means below (\d+\.\d) % \(latency/.exec(limits.join("\n"))?.[1]);
    };
    // Even from -20 to 20 % has a standard deviation of 11.5 %; 3.96 standard errors of 100 are 4.6 %, of 900 a third of that.
    // Samples that happen to be like the one before count for less.
    expect(least(100)).toBeGreaterThan(4);
    expect(least(100)).toBeLessThan(7);
    expect(least(900)).toBeLessThan(0.5 * least(100));
  });

  test("name the smallest batch size that is nearly the best, and how throughput grew", () => {
    const rates = { "1": 100, "4": 300, "8": 390, "16": 400 };
    const by_batch_size = Object.fromEntries(
      Object.entries(rates).map(([size, rate]) => {
        const latencies = samplesAround((Number(size) * 16_000) / rate, 20, 0.01);
        return [size, madeUpFigures(latencies, Number(size))];
      }),
    );
    const analysis = analyzeResults(resultsOf(samplesAround(160, 20, 0.01), { by_batch_size }));
    expect(analysis.scaling.map(({ batchSize }) => batchSize)).toEqual([1, 4, 8, 16]);
    expect(analysis.scaling[2]?.speedup).toBeCloseTo(3.9, 1);
    expect(analysis.scaling[2]?.efficiency).toBeCloseTo(3.9 / 8, 2);
    expect(analysis.conclusions.join("\n")).toContain(
      "Batch size 8 is the smallest within 5.0 % of the most throughput",
    );
  });

  test("say that a batch size is enough only where no larger one may bring more, and no smaller one may do", () => {
    const said = (...rates: readonly (readonly [mean: number, low: number, high: number])[]) => {
      const by_batch_size = Object.fromEntries(
        rates.map(([mean, low, high], place) => {
          const figures = guideResults.results;
          const throughput = { mean, std: 1, min: low, max: high, interval: { level: 0.95, low, high } };
          return [`${2 ** place}`, { latency: figures.latency, throughput }];
        }),
      );
      const { conclusions, limits } = analyzeResults({ ...guideResults, results: { by_batch_size } as Figures });
      const all = [...conclusions, ...limits].flatMap(
        (text) => /^(Batch size \d|Which batch size)/.exec(text)?.[0] ?? [],
      );
      expect(all.length).toBe(1);
      return all[0];
    };
    expect(said([100, 99, 101], [101, 100, 102])).toBe("Batch size 1");
    // The second may do half as much again.
    expect(said([100, 50, 150], [100, 50, 150])).toBe("Which batch size");
    expect(said([100, 90, 110], [101, 90, 110])).toBe("Which batch size");
    expect(said([100, 99, 101], [200, 198, 202], [204, 202, 206])).toBe("Batch size 2");
    // The first may be as good as the second, or the third much better.
    expect(said([100, 80, 195], [200, 198, 202], [204, 202, 206])).toBe("Which batch size");
    expect(said([100, 99, 101], [200, 198, 202], [204, 180, 230])).toBe("Which batch size");
    // The last is the best, however wide its own interval is.
    expect(said([100, 99, 101], [200, 160, 240])).toBe("Batch size 2");
  });
});

describe("the summary", () => {
  test("shows every figure of every type with its unit, and each warning", () => {
    for (const results of [guideResults, inferenceResults(), memoryResults(), systemResults()]) {
      const analysis = analyzeResults(results);
      const text = analysis.summary();
      for (const { name, unit } of analysis.figures) expect(text).toContain(`${name}, ${unit}`);
      for (const { unit } of analysis.figures) expect(unit).not.toBe("");
      for (const { text: finding } of analysis.findings) {
        expect(text.replaceAll(/\n {4}/g, " ")).toContain(finding);
      }
      expect(text).not.toMatch(/NaN|undefined|Infinity|null|[ \t]\n/);
      expect(Math.max(...text.split("\n").map((line) => line.length))).toBeLessThan(140);
    }
  });

  test("aligns its columns: each figure ends where its title does", () => {
    const lines = analyzeResults(inferenceResults(samplesAround(80, 120)))
      .summary()
      .split("\n");
    const titles = lines.find((line) => line.includes("95 % interval")) ?? "";
    const latency = lines.find((line) => line.startsWith("latency, ms")) ?? "";
    const end = titles.indexOf("mean") + "mean".length;
    expect(latency.slice(0, end)).toMatch(/\d$/);
    expect(latency[end]).toBe(" ");
  });

  test("says of which level its intervals are", () => {
    const said = (...levels: readonly number[]) => {
      const curve = levels.map((level, place) => {
        const speedup_interval = { level, low: 1, high: 2 };
        return { threads: place + 1, rate: statisticsOf([1]), speedup: 1, speedup_interval, efficiency: 1 };
      });
      const results = { system: { threads: { kernel: "k", simd: "s", curve } } };
      return analyzeResults({ ...guideResults, results }).summary();
    };
    expect(said(0.9, 0.9)).toMatch(/ speed-up +90 % interval +eff/);
    expect(said(0.9, 0.999)).toMatch(/ speed-up +interval +eff/);
    const interval = { level: 0.999, low: 60, high: 70 };
    const { throughput = statisticsOf([65]) } = guideResults.results;
    const text = analyzeResults({ ...guideResults, results: { throughput: { ...throughput, interval } } }).summary();
    expect(text).toMatch(/ mean +99.9 % interval +spread/);
    expect(text).toContain("with 99.9 % certainty between");
  });

  test("brings no control characters of the file to a terminal", () => {
    const { benchmark_info: info, ...rest } = inferenceResults();
    const said = "\u001b]0;title\u0007\u009b2J\r";
    const summary = analyzeResults({ benchmark_info: { ...info, model: said, warnings: [said] }, ...rest }).summary();
    expect(summary).toContain("�]0;title��2J�: inference");
    expect(summary.replaceAll("\n", "")).not.toMatch(/\p{Cc}/u);
  });

  test("is the same for the same results", () => {
    const results = inferenceResults(samplesAround(80, 120));
    expect(analyzeResults(results).summary()).toBe(analyzeResults(results).summary());
  });

  test("is said of results whose figures are all zero, or whose lists are empty", () => {
    const zero = { mean: 0, std: 0, min: 0, max: 0, samples: [0, 0, 0, 0, 0, 0, 0] };
    const results: BenchmarkResults = {
      ...guideResults,
      results: {
        latency: { ...zero, percentiles: { "50": 0, "90": 0, "95": 0, "99": 0 } },
        throughput: zero,
        by_batch_size: {},
        memory: { parts: [], bandwidth: [] },
        system: { threads: { kernel: "k", simd: "s", curve: [] } },
      },
    };
    expect(analyzeResults(results).summary()).toContain("latency, ms");
    expect(analyzeResults({ ...guideResults, results: {} }).summary()).toContain("There are no figures in it.");
  });
});
