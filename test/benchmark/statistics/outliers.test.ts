// Samples that lie far out, named.

import { expect, test } from "bun:test";
import { outliers } from "../../../src/benchmark/statistics/outliers.ts";
import { seededRandom } from "../../../src/benchmark/statistics/random.ts";
import { times } from "./samples.ts";

test("a slow moment is named with its place, and how far out it is", () => {
  const samples = [10, 11, 9, 12, 10, 11, 10, 40, 9, 11];
  // The median is 10.5; distances above it are 0.5, 0.5, 0.5, 1.5, 29.5: their median 0.5 times 1.4826 is a deviation of 0.7413.
  expect(outliers(samples)).toEqual([{ index: 7, value: 40, why: "39.8 deviations above the median" }]);
});

test("a long side does not make outliers on it, and does not hide them on the other", () => {
  const skewed = Array.from({ length: 101 }, (_, index) => 100 + (index <= 50 ? index / 50 - 1 : (index - 50) / 2));
  expect(outliers(skewed)).toEqual([]);
  expect(outliers([...skewed, 90])).toMatchObject([{ index: 101, value: 90, why: expect.stringContaining("below") }]);
});

test("where most samples are alike those that differ are measured by their mean", () => {
  expect(outliers([5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 6])).toMatchObject([{ index: 12, value: 6 }]);
  expect(outliers([5, 5, 5, 5, 5, 5])).toEqual([]);
});

test("times that scatter as usual have none, and a handful says nothing", () => {
  expect(outliers(times(1000, 0.05, seededRandom(2)))).toEqual([]);
  expect(outliers([1, 1, 1, 1, 100])).toEqual([]);
});
