// What is said of measurements, beside numbers that other programs computed.

import { expect, test } from "bun:test";
import { compare } from "../../../src/benchmark/ratio.ts";
import { quantile, spread, summarise } from "../../../src/benchmark/statistics/summary.ts";

/** Twelve values without order. */
const values = [3.1, 2.7, 8.2, 2.9, 3.3, 2.5, 3.0, 4.1, 2.8, 3.2, 2.6, 3.4];

test("quantiles lie between neighbours as Python's do", () => {
  const sorted = [...values].sort((a, b) => a - b);
  // Python: statistics.quantiles(values, n=20, method="inclusive"), and the ends.
  const expected = [2.5, 2.61, 2.775, 3.05, 4.03, 8.2];
  for (const [index, part] of [0, 0.1, 0.25, 0.5, 0.9, 1].entries()) {
    expect(quantile(sorted, part)).toBeCloseTo(expected[index] ?? 0, 12);
  }
});

test("a summary has the median, the ends and how far they are apart", () => {
  const summary = summarise(values);
  expect(summary.median).toBeCloseTo(3.05, 12);
  expect(summary).toMatchObject({ minimum: 2.5, maximum: 8.2, count: 12 });
  expect(spread(summary)).toBeCloseTo((8.2 - 2.5) / 3.05, 12);
});

test("the interval of a median has the ranks that the binomial distribution gives", () => {
  // The lower rank from 1 is the least k at which the sum of math.comb(n, 0 … k) / 2**n reaches 0.025, by Python; the upper one is as
  // far from the other end.
  const ranks = { 6: 1, 9: 2, 12: 3, 15: 4, 20: 6, 30: 10, 40: 14, 60: 22, 100: 40 };
  for (const [text, lower] of Object.entries(ranks)) {
    const count = Number(text);
    const figures = Array.from({ length: count }, (_, index) => 1 + ((index * 7) % count));
    if (new Set(figures).size !== count) throw new Error("the series must hold every rank once");
    const { interval } = compare(
      figures,
      figures.map(() => 1),
      "more",
    );
    expect(interval?.map(Math.round)).toEqual([lower, count + 1 - lower]);
  }
});
