// Trends: the order of files, what is a series of its own, changes of level, what else changed, and what is refused.

import { expect, test } from "bun:test";
import { symlinkSync } from "node:fs";
import { quantile } from "../../src/benchmark/statistics/summary.ts";
import { trendsText } from "../../src/benchmark/trend-words.ts";
import { readTrendFiles, type TrendFile, trendsOf } from "../../src/benchmark/trends.ts";
import { BenchmarkFileError, OptionError } from "../../src/errors.ts";
import { guideResults, inferenceResults, memoryResults, systemResults } from "../support/benchmark-results.ts";
import { temporaryFolder } from "../support/folder.ts";
import { dailyFiles, dayOf, machine } from "../support/trend-files.ts";

const folder = temporaryFolder();

function changed(file: TrendFile, info: object): TrendFile {
  const { results } = file;
  return { ...file, results: { ...results, benchmark_info: { ...results.benchmark_info, ...info } } };
}

test("files are in the order of the times in them, whatever they are called", () => {
  const [a, b, c] = dailyFiles(3, () => 15) as [TrendFile, TrendFile, TrendFile];
  const given = [
    { ...c, file: "a.json" },
    { ...a, file: "b.json" },
    // The same moment as 02:00 in Greenwich, before the others of its day.
    changed({ ...b, file: "c.json" }, { timestamp: "2026-01-01T04:00:00+02:00" }),
  ];
  const { files, series } = trendsOf(given);
  expect(files.map(({ file }) => file)).toEqual(["c.json", "b.json", "a.json"]);
  expect(series[0]?.points.map(({ place, value, interval, samples }) => ({ place, value, interval, samples }))).toEqual(
    [b, a, c].map(({ results: { results } }, place) => ({
      place,
      value: results.latency?.mean ?? 0,
      interval: results.latency?.interval ?? null,
      samples: 12,
    })),
  );
});

test("files with the guide's fields alone have points without intervals", () => {
  const files = [0, 1].map((day) => changed({ file: `${day}`, results: guideResults }, { timestamp: dayOf(day) }));
  const { series, metric } = trendsOf(files, { metric: "memory" });
  expect(metric.name).toBe("memory_usage.peak");
  expect(series[0]?.points.map(({ value, interval }) => [value, interval])).toEqual([
    [1024, null],
    [1024, null],
  ]);
  expect(series[0]).toMatchObject({ name: "model.tinyai", batch_size: null, machine: "Intel Xeon E5-2680, 32GB" });
});

test("models, machines and settings that take turns have series of their own, named by what tells them apart", () => {
  const names = (infoOf: (place: number) => object) => trendsOf(dailyFiles(6, () => 15, infoOf)).series;
  const models = names((place) => ({ model: ["a.gguf", "b.gguf"][place % 2] as string }));
  expect(models.map(({ name, points }) => [name, points.map(({ place }) => place)])).toEqual([
    ["a.gguf", [0, 2, 4]],
    ["b.gguf", [1, 3, 5]],
  ]);
  const machines = names((place) => machine({ id: `${place % 3}`, cores: [2, 2, 8][place % 3] as number }));
  expect(machines.map(({ name }) => name)).toEqual(["A CPU, 2 cores", "A CPU, 2 cores, 1", "A CPU, 8 cores"]);
  const { settings } = dailyFiles(1, () => 15)[0]?.results.benchmark_info ?? {};
  const threads = names((place) => ({ settings: { ...settings, threads: [null, 1][place % 2] } }));
  expect(threads.map(({ name }) => name)).toEqual(["default threads", "1 thread"]);
  const turns = names((place) => (place % 2 === 0 ? {} : { in_turns: true }));
  expect(turns.map(({ name }) => name)).toEqual(["by itself", "in turns with others"]);
  expect(names(() => ({})).map(({ name }) => name)).toEqual(["model.gguf"]);
});

test("batch sizes are series where they are asked for, and the first one is shown otherwise", () => {
  const files = [0, 1].map((day) => ({
    file: `${day}`,
    results: inferenceResults(undefined, { timestamp: dayOf(day) }),
  }));
  const first = files[0]?.results.results.latency?.mean ?? 0;
  expect(trendsOf(files).series.map(({ batch_size, points }) => [batch_size, points[0]?.value])).toEqual([[1, first]]);
  const both = trendsOf(files, { batchSizes: [1, 8] });
  expect(both.series.map(({ name, points }) => [name, points[0]?.value])).toEqual([
    ["batch size 1", first],
    ["batch size 8", expect.closeTo(2 * first, 9)],
  ]);
  expect(trendsOf(files, { batchSizes: [1, 8, 1] })).toEqual(both);
  expect(() => trendsOf(files, { batchSizes: [4] })).toThrow("--batch-size: no file has");
});

test("a level that rose for good is a regression of a latency, with its size, the last good file and what else changed", () => {
  const files = dailyFiles(
    40,
    (place) => (place < 25 ? 15 : 16),
    (place) => ({ tinyai: place < 25 ? "0.1.0" : "0.2.0" }),
  );
  const trends = trendsOf(files);
  const [series] = trends.series;
  expect(series?.changes.length).toBe(1);
  const change = series?.changes[0];
  expect(change).toMatchObject({
    kind: "regression",
    file: "results_025.json",
    place: 25,
    last_before: "results_024.json",
    together_with: ["TinyAI: 0.1.0 to 0.2.0"],
  });
  // Of all pairs of a file before and one after, the median of the ratios.
  const values = series?.points.map(({ value }) => value) ?? [];
  const ratios = values.slice(0, 25).flatMap((old) => values.slice(25).map((now) => now / old));
  expect(change?.change).toBeCloseTo(
    quantile(
      ratios.sort((a, b) => a - b),
      0.5,
    ) - 1,
    9,
  );
  expect(change?.interval.low).toBeLessThan(1 / 15);
  expect(change?.interval.high).toBeGreaterThan(1 / 15);
  expect(change?.p_value).toBeLessThan(0.01);
  expect(change?.sentence).toMatch(/^slower by 6\.\d % \(95 % interval 5\.\d to [67]\.\d\)$/);
  expect(series?.last_good).toBe("results_024.json");
  expect(trends.regressed).toBe(true);
  const text = trendsText(trends);
  expect(text).toContain(`regression: ${change?.sentence} since results_025.json (2026-01-26 03:00)`);
  expect(text).toContain("last known good: results_024.json");

  const throughput = trendsOf(files, { metric: "throughput" }).series[0]?.changes[0];
  expect(throughput).toMatchObject({ kind: "regression", place: 25 });
  expect(throughput?.sentence).toMatch(/^slower by [56]\.\d %/);
});

test("the text brings no control characters of the files to a terminal", () => {
  const files = dailyFiles(
    20,
    (place) => (place < 10 ? 15 : 17),
    (place) => ({ model: "\u001b[2J\r", tinyai: place < 10 ? "0.1.0" : "\u009b2J" }),
  );
  const text = trendsText(trendsOf(files));
  expect(text).toContain("�[2J");
  expect(text).toContain("�2J, since");
  expect(text.replaceAll("\n", "")).not.toMatch(/\p{Cc}/u);
});

test("the size of a change is said in words that suit the figure", () => {
  const words = (metric: string, change: (value: number) => number) => {
    const files = dailyFiles(20, () => 15).map(({ file, results }, place): TrendFile => {
      const steady = 100 + (place % 3) / 10;
      const value = place < 10 ? steady : change(steady);
      const figures = { mean: value, std: 1, min: value, max: value };
      const percentiles = { "50": value, "90": value, "95": value, "99": value };
      const memory_usage = { ...figures, peak: value };
      const utilization = { cpu: figures };
      const latency = { ...figures, percentiles };
      return { file, results: { ...results, results: { latency, throughput: figures, memory_usage, utilization } } };
    });
    const found = trendsOf(files, { metric }).series[0]?.changes[0];
    return `${found?.kind}: ${found?.sentence.replace(/ by .*/, "")}`;
  };
  const [more, less] = [(value: number) => value * 1.2, (value: number) => value * 0.8];
  expect(["latency.p99", "throughput", "memory", "utilization.cpu"].map((metric) => words(metric, more))).toEqual([
    "regression: slower",
    "improvement: faster",
    "regression: more",
    "change: higher",
  ]);
  expect(["latency", "throughput", "memory", "utilization.cpu"].map((metric) => words(metric, less))).toEqual([
    "improvement: faster",
    "regression: slower",
    "improvement: less",
    "change: lower",
  ]);
});

test("what has recovered has no last good file, and of several regressions it is the one before the first", () => {
  const found = (levels: readonly number[]) => {
    const trends = trendsOf(dailyFiles(20 * levels.length, (place) => levels[Math.floor(place / 20)] ?? 0));
    const [series] = trends.series;
    return { kinds: series?.changes.map(({ kind }) => kind), good: series?.last_good, regressed: trends.regressed };
  };
  expect(found([15, 16.5, 15])).toEqual({ kinds: ["regression", "improvement"], good: null, regressed: false });
  expect(found([15, 16.5, 18])).toEqual({
    kinds: ["regression", "regression"],
    good: "results_019.json",
    regressed: true,
  });
  expect(found([15, 14, 16, 15])).toMatchObject({ good: null, regressed: false });
  expect(found([15, 15])).toEqual({ kinds: [], good: null, regressed: false });
});

test("a change between machines is theirs and no regression", () => {
  const other = machine({ id: "other", cpu: "Another CPU", cores: 4 });
  const trends = trendsOf(
    dailyFiles(
      30,
      (place) => (place < 15 ? 15 : 25),
      (place) => (place < 15 ? {} : other),
    ),
  );
  expect(trends.series.map(({ name, changes }) => [name, changes.length])).toEqual([
    ["A CPU, 2 cores", 0],
    ["Another CPU, 4 cores", 0],
  ]);
  expect(trends.marks).toEqual([
    {
      place: 15,
      file: "results_015.json",
      timestamp: dayOf(15),
      changes: ["machine: A CPU, 2 cores to Another CPU, 4 cores"],
    },
  ]);
});

test("what changed on a machine is marked where it did, and machines that take turns are not", () => {
  const marks = (infoOf: (place: number) => object) =>
    trendsOf(dailyFiles(6, () => 15, infoOf)).marks.map(({ place, changes }) => [place, ...changes]);
  expect(
    marks((place) => ({ tinyai: place < 2 ? "0.1.0" : "0.2.0", ...machine({ kernel: `6.${place < 4 ? 1 : 2}` }) })),
  ).toEqual([
    [2, "TinyAI: 0.1.0 to 0.2.0"],
    [4, "kernel: 6.1 to 6.2"],
  ]);
  const { model_details } = dailyFiles(1, () => 15)[0]?.results.benchmark_info ?? {};
  expect(
    marks((place) => ({ model_details: { ...model_details, sha256: `${place < 3}`, threads: place < 3 ? 2 : 4 } })),
  ).toEqual([[3, "model: model.gguf is another file", "threads: 2 to 4"]]);
  expect(marks((place) => machine({ id: `${place % 2}`, kernel: `6.${place % 2}` }))).toEqual([]);
  // Where a file does not say, nothing is known to have changed.
  expect(marks((place) => (place === 3 ? { tinyai: undefined } : {}))).toEqual([]);
});

test("files without the figure, and interrupted ones, are said", () => {
  const files = dailyFiles(
    3,
    () => 15,
    (place) => ({ interrupted: place === 2 }),
  );
  const [first] = files as [TrendFile];
  const { latency: _latency, ...others } = first.results.results;
  const trends = trendsOf([{ ...first, results: { ...first.results, results: others } }, ...files.slice(1)]);
  expect(trends.series[0]?.points.map(({ place }) => place)).toEqual([1, 2]);
  expect(trends.warnings).toEqual([
    "results_000.json: has no latency.mean; it is left out.",
    "results_002.json: was interrupted; its figures are of what was measured until then.",
  ]);
});

test("of one file, and of few, it is said that a trend needs more", () => {
  expect(trendsText(trendsOf(dailyFiles(1, () => 15)))).toContain("This is one file; a trend needs more.");
  expect(trendsText(trendsOf(dailyFiles(4, () => 15)))).toContain("A change of level can be found from 5 files on");
});

test("memory and system benchmarks are followed as well", () => {
  for (const [results, metric, value] of [
    [memoryResults(), "loading.time", memoryResults().results.memory?.loading?.time?.mean],
    [systemResults(), "network.latency.p99", systemResults().results.system?.network?.latency?.percentiles["99"]],
  ] as const) {
    const trends = trendsOf([{ file: "a", results }], { metric });
    expect(trends.series[0]?.points[0]?.value).toBe(value ?? Number.NaN);
    expect(trends.series[0]?.name).toBe(results.benchmark_info.type === "system" ? "A CPU, 2 cores" : "model.gguf");
    expect(trendsText(trends)).toContain("1 file");
  }
});

test("what is no trend is refused by the file's name", () => {
  const [a, b] = dailyFiles(2, () => 15) as [TrendFile, TrendFile];
  const refused = (files: readonly TrendFile[]): unknown => {
    try {
      return trendsOf(files);
    } catch (error) {
      return error;
    }
  };
  expect(refused([])).toBeInstanceOf(OptionError);
  const types = refused([a, changed({ file: "memory.json", results: memoryResults() }, { timestamp: dayOf(5) })]);
  expect(types).toBeInstanceOf(BenchmarkFileError);
  expect((types as Error).message).toBe(
    "memory.json: is of type memory, but results_000.json of type inference; a trend is of files of one type",
  );
  const times = refused([a, changed(b, { timestamp: a.results.benchmark_info.timestamp })]);
  expect(times).toBeInstanceOf(BenchmarkFileError);
  expect((times as Error).message).toBe(
    `results_001.json: is of the same time as results_000.json (${dayOf(0)}); leave one of them out`,
  );
  // Two models may be measured at once.
  expect(trendsOf([a, changed(b, { timestamp: dayOf(0), model: "other.gguf" })]).series.length).toBe(2);
});

test("a file is read once, and what is no file of results is refused", async () => {
  const path = folder.write("a.json", JSON.stringify(guideResults));
  symlinkSync(path, folder.file("link.json"));
  expect((await readTrendFiles([path])).map(({ results }) => results)).toEqual([guideResults]);
  const newer = { ...guideResults, benchmark_info: { ...guideResults.benchmark_info, version: 99 } };
  for (const [paths, message] of [
    [[path, path], "a.json: is named twice"],
    [[path, folder.file("link.json")], "link.json: is the same file as"],
    [[folder.write("newer.json", JSON.stringify(newer))], "newer TinyAI (version 99)"],
    [[folder.file("none.json")], "cannot be read"],
    [[folder.write("empty.json", "")], "is empty"],
    [[folder.write("cut.json", JSON.stringify(guideResults).slice(0, 90))], "is cut short or damaged"],
    [[folder.write("foreign.json", "[1]")], "holds no benchmark results"],
  ] as const) {
    const failed = await readTrendFiles(paths).catch((error: unknown) => error);
    expect(failed).toBeInstanceOf(BenchmarkFileError);
    expect((failed as Error).message).toContain(message);
  }
});
