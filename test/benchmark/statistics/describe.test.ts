// Samples as the figures of a results file, beside numpy 2.4.6.

import { expect, test } from "bun:test";
import { latencyOf, memoryUsageOf, precisionOf, statisticsOf } from "../../../src/benchmark/statistics/describe.ts";
import { exponential, lehmer } from "./samples.ts";

const skewed = lehmer(11, 60, exponential);

test("a latency has the figures that numpy has, its samples, and intervals where they are enough", () => {
  const latency = latencyOf(skewed);
  expect(latency.mean).toBeCloseTo(13.763516666666668, 10);
  // np.std(x, ddof=1), np.percentile(x, [50, 90, 95, 99])
  expect(latency.std).toBeCloseTo(13.508366211780828, 10);
  expect([latency.min, latency.max]).toEqual([0.002, 61.11]);
  expect(Object.keys(latency.percentiles)).toEqual(["50", "90", "95", "99"]);
  const expected = [9.291, 29.958100000000012, 43.4829, 56.05546999999997];
  for (const [index, value] of Object.values(latency.percentiles).entries())
    expect(value).toBeCloseTo(expected[index] ?? 0, 10);
  expect(latency.percentile_intervals).toEqual({
    "50": { level: 0.95, low: 6.958, high: 11.636 },
    "90": { level: 0.95, low: 23.563, high: 52.543 },
  });
  expect(latency.samples).toEqual(skewed);
  expect(latencyOf(skewed)).toEqual(latency);
});

test("one sample has no deviation, and fewer than six no interval", () => {
  expect(statisticsOf([4])).toEqual({ mean: 4, std: 0, min: 4, max: 4, samples: [4] });
  expect(statisticsOf([4, 5, 6, 7, 8]).interval).toBeUndefined();
  expect(statisticsOf([4, 5, 6, 7, 8, 9]).interval?.level).toBe(0.95);
  expect(latencyOf([4, 5]).percentile_intervals).toBeUndefined();
});

test("the peak of memory is the larger of what the system keeps and what was sampled", () => {
  expect(memoryUsageOf([10, 30, 20])).toMatchObject({ peak: 30, mean: 20, std: 10, min: 10, max: 30 });
  expect(memoryUsageOf([10, 30, 20], { peak: 42 }).peak).toBe(42);
  expect(memoryUsageOf([10, 30, 20], { peak: 25 }).peak).toBe(30);
});

test("precision is half of Student's interval as a part of the mean", () => {
  // st.t.ppf(0.975, 59) * np.std(x, ddof=1) / sqrt(60) / np.mean(x); the samples show no dependence.
  expect(precisionOf(skewed)).toBeCloseTo(
    (2.000995378088268 * 13.508366211780828) / Math.sqrt(60) / 13.763516666666668,
    8,
  );
  expect(precisionOf([1, 2, 3, 4, 5])).toBe(Number.POSITIVE_INFINITY);
  const dependent = Array.from({ length: 60 }, (_, index) => skewed[index - (index % 6)] ?? 0);
  expect(precisionOf(dependent)).toBeGreaterThan(1.8 * precisionOf(lehmer(15, 60, exponential)));
});
