// Scaling over threads: Amdahl's law on curves that are known, and the curve of this machine's own threads.

import { describe, expect, test } from "bun:test";
import { fitAmdahl, speedupsOf } from "../../../src/benchmark/system/amdahl.ts";
import { curveOf, measureThreads, threadCounts } from "../../../src/benchmark/system/threads.ts";
import { chooseLevel, cpu } from "../../../src/engine/cpu.ts";
import { openLibrary } from "../../../src/engine/library.ts";
import { Random } from "../../support/random.ts";

describe("Amdahl's law", () => {
  test("is found again in curves that follow it", () => {
    for (const serial of [0, 0.01, 0.25, 0.9, 1]) {
      const threads = [1, 2, 3, 7, 64];
      const fit = fitAmdahl(
        threads,
        threads.map((count) => 1 / (serial + (1 - serial) / count)),
      );
      expect(fit.serial).toBeCloseTo(serial, 12);
      expect(fit.residual).toBeCloseTo(0, 9);
    }
  });

  test("is fitted as scipy fits it where the curve does not follow it", () => {
    // scipy.optimize.curve_fit(lambda n, a: a + (1 - a) / n, n, 1 / speedups), of scipy 1.17, and the root of the mean square of
    // speedups - 1 / (a + (1 - a) / n).
    const fit = fitAmdahl([1, 2, 4, 8, 16], [1, 1.81, 3.02, 4.66, 5.91]);
    expect(fit.serial).toBeCloseTo(0.10806390714, 8);
    expect(fit.residual).toBeCloseTo(0.0990034443, 6);
  });

  test("gives no part below nothing or above all", () => {
    expect(fitAmdahl([1, 2, 4], [1, 2.2, 4.9]).serial).toBe(0);
    expect(fitAmdahl([1, 2, 4], [1, 0.8, 0.7]).serial).toBe(1);
  });
});

describe("a curve", () => {
  const rates = [
    [10, 12, 8, 10, 11, 9],
    [19, 24, 15, 20, 22, 18],
    [30, 37, 26, 31, 33, 29],
  ];

  test("has speed-ups that are ratios of mean rates, and efficiencies that are parts of them", () => {
    expect(speedupsOf(rates, [0, 1])).toEqual([1, 43 / 22, 67 / 22]);
    const { curve = [] } = curveOf([1, 2, 4], rates, 1);
    const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
    for (const [place, { speedup, efficiency, threads, rate, speedup_interval }] of curve.entries()) {
      const of = rates[place] ?? [];
      expect(rate.mean).toBeCloseTo(mean(of), 12);
      expect(speedup).toBeCloseTo(mean(of) / mean(rates[0] ?? []), 12);
      expect(efficiency).toBeCloseTo(speedup / threads, 12);
      if (threads > 1) expect(speedup).toBeWithin(speedup_interval?.low ?? 9, speedup_interval?.high ?? 0);
    }
  });

  test("draws whole rounds: a slow moment that all had leaves the interval narrow", () => {
    const random = new Random(3);
    const slow = Array.from({ length: 20 }, () => 0.5 + random.uniform());
    const paired = [slow.map((pace) => 10 * pace), slow.map((pace) => 18 * pace)];
    const { curve = [], amdahl } = curveOf([1, 2], paired, 1);
    const { low = 0, high = 9 } = curve[1]?.speedup_interval ?? {};
    expect(high - low).toBeLessThan(1e-9);
    // 1 / 1.8 = serial + (1 - serial) / 2
    expect(amdahl?.serial).toBeCloseTo(1 / 9, 9);
    expect(amdahl?.speedup_max).toBeCloseTo(9, 6);
    expect(amdahl?.interval?.low).toBeCloseTo(1 / 9, 9);
  });

  test("of few rounds has no intervals, and of one thread no law", () => {
    const [point] = curveOf([1], [[3, 4]], 1).curve ?? [];
    expect(point).toMatchObject({ speedup: 1, efficiency: 1 });
    expect(curveOf([1], [[3, 4]], 1).amdahl).toBeUndefined();
    expect(
      curveOf(
        [1, 2],
        rates.slice(0, 2).map((of) => of.slice(0, 5)),
        1,
      ).amdahl?.interval,
    ).toBeUndefined();
  });
});

test("numbers of threads go from one to the most, and none is left out where there are few", () => {
  expect(threadCounts(1)).toEqual([1]);
  expect(threadCounts(3)).toEqual([1, 2, 3]);
  expect(threadCounts(20)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20]);
  expect(threadCounts(64).at(-1)).toBe(64);
});

test("this machine's threads are measured on as many as was asked for", async () => {
  const library = openLibrary();
  const level = chooseLevel(library, undefined).index;
  const threads = Math.min(2, cpu.cores);
  const options = { library, level, threads, rounds: 2, timeMs: 200, seed: 1 };
  const { figures, warnings } = await measureThreads(options);
  expect(figures?.simd).toBe(library.levels[level]?.name as string);
  expect(figures?.curve?.map((point) => point.threads)).toEqual([1, 2].slice(0, threads));
  for (const { rate } of figures?.curve ?? []) {
    // On a busy machine there may be time for one round alone.
    expect(rate.samples?.length).toBeWithin(1, 3);
    expect(rate.min).toBeGreaterThan(0);
  }
  if (threads === 1) expect(warnings[0]).toStartWith("Only one thread was measured");
});

test("an interruption before a round was whole gives no figures", async () => {
  const library = openLibrary();
  const level = chooseLevel(library, undefined).index;
  const options = { library, level, threads: 1, rounds: 2, timeMs: 200, seed: 1, signal: AbortSignal.abort() };
  expect((await measureThreads(options)).figures).toBeUndefined();
});
