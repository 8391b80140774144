// What the order of samples tells, beside numpy and scipy 1.17.1.

import { expect, test } from "bun:test";
import { seededRandom } from "../../../src/benchmark/statistics/random.ts";
import { autocorrelation, dependenceOf, drift, effectiveSize } from "../../../src/benchmark/statistics/series.ts";
import { correlated, exponential, lehmer, normal } from "./samples.ts";

const skewed = lehmer(11, 60, exponential);

test("autocorrelation is that of numpy", () => {
  // c = x - x.mean(); (c[k:] * c[:-k]).sum() / (c * c).sum()
  const expected = [
    -0.023536543992320122, -0.04226976428764523, -0.17171683064803514, -0.06993835642391508, -0.04393199195229894,
  ];
  const found = autocorrelation(skewed, 5);
  expect(found).toHaveLength(5);
  for (const [index, value] of found.entries()) expect(value).toBeCloseTo(expected[index] ?? 0, 12);
  expect(autocorrelation([1, 1, 1], 5)).toEqual([0, 0]);
});

test("samples that follow each other count as fewer, by what theory says", () => {
  const random = seededRandom(3);
  for (const correlation of [0.5, 0.8]) {
    const share = effectiveSize(correlated(20_000, correlation, random)) / 20_000;
    const expected = (1 - correlation) / (1 + correlation);
    expect(share / expected).toBeGreaterThan(0.85);
    expect(share / expected).toBeLessThan(1.15);
  }
  expect(effectiveSize(Array.from({ length: 20_000 }, () => normal(random)))).toBeGreaterThan(19_000);
  // Up and down in turns says no less than independent samples.
  expect(effectiveSize([1, 2, 1, 2, 1, 2, 1, 2, 1, 2])).toBe(10);
});

test("blocks grow with dependence, and never to more than a quarter of the samples", () => {
  const random = seededRandom(4);
  expect(dependenceOf(skewed).block).toBe(1);
  const some = dependenceOf(correlated(1000, 0.5, random));
  const much = dependenceOf(correlated(1000, 0.9, random));
  expect(some.block).toBeGreaterThan(3);
  expect(much.block).toBeGreaterThan(2 * some.block);
  expect(much.kept).toBeGreaterThan(much.effective);
  expect(dependenceOf(Array.from({ length: 40 }, (_, index) => index)).block).toBe(10);
});

test("a slope and its test are those of scipy", () => {
  const rising = skewed
    .slice(0, 30)
    .map((value, index) => Math.round((5 + 0.03 * index + 0.2 * value) * 10_000) / 10_000);
  const { rise, change, pValue } = drift(rising);
  // st.theilslopes(y).slope * 29, and that over np.median(y)
  expect(rise).toBeCloseTo(0.05383636363636364 * 29, 10);
  expect(change).toBeCloseTo((0.05383636363636364 * 29) / 7.4512, 10);
  // 2 * st.norm.sf((85 - 1) / sqrt(30 * 29 * 65 / 18)); what the line leaves shows no dependence.
  expect(pValue).toBeCloseTo(0.13396533563924473, 10);
});

test("drift of many samples is that of their course", () => {
  const random = seededRandom(6);
  const drifting = Array.from({ length: 10_000 }, (_, index) => 100 * (1 + (0.02 * index) / 9999) + normal(random));
  const { change, pValue } = drift(drifting);
  expect(change).toBeGreaterThan(0.018);
  expect(change).toBeLessThan(0.021);
  expect(pValue).toBeLessThan(1e-10);
});

test("drift is seldom seen where there is none, though neighbours are alike", () => {
  const random = seededRandom(8);
  const seen = Array.from({ length: 300 }, () => drift(correlated(60, 0.5, random)).pValue < 0.05);
  // 5 % are expected; without regard to dependence it would be above 20 %.
  expect(seen.filter(Boolean).length).toBeLessThan(0.1 * 300);
});

test("no drift is told from a handful or from what does not change", () => {
  expect(drift([1, 2, 3, 4, 5]).pValue).toBe(1);
  expect(drift([3, 3, 3, 3, 3, 3, 3])).toEqual({ rise: 0, change: 0, pValue: 1 });
});
