// Tests and estimates of ranks, beside scipy 1.17.1: st.mannwhitneyu(first, second) and st.wilcoxon as said; Cliff's delta and medians
// of all pairs by numpy 2.4.6: np.mean(np.sign(b[None, :] - a[:, None])), np.median(b[None, :] - a[:, None]).

import { expect, test } from "bun:test";
import { seededRandom } from "../../../src/benchmark/statistics/random.ts";
import {
  cliffsDelta,
  hodgesLehmann,
  hodgesLehmannRatio,
  mannWhitney,
  pseudoMedian,
  ranks,
  signedRank,
} from "../../../src/benchmark/statistics/rank.ts";
import { exponential, lehmer } from "./samples.ts";

const small = [12.1, 11.4, 13.9, 12.8, 11.9, 12.3];
const smallOther = [13.3, 12.9, 14.2, 13.6, 12.7, 15.0, 13.1];
const nine = [5.1, 4.8, 6.3, 5.5, 4.9, 7.2, 5.8, 6.1, 5.3];
const nineOther = [5.6, 6.4, 6.0, 7.7, 5.9, 8.1, 6.6, 5.2, 7.0, 6.8];
const skewed = lehmer(11, 60, exponential);
const skewedOther = lehmer(12, 80, exponential).map((value) => Math.round(1.3 * value * 1000) / 1000);
const tied = lehmer(13, 200, (part) => Math.floor(part * 6));
const tiedOther = lehmer(14, 150, (part) => Math.floor(part * 6.9));

interface Expected {
  readonly name: string;
  readonly first: readonly number[];
  readonly second: readonly number[];
  readonly u: number;
  readonly p: number;
  readonly delta: number;
  readonly shift: number;
}

const cases: readonly Expected[] = [
  { name: "few, counted", first: small, second: smallOther, u: 6, p: 0.03496503496503496, delta: 5 / 7, shift: 1.15 },
  {
    name: "few with ties",
    first: [3, 4, 4, 5, 5, 5, 6, 7],
    second: [4, 5, 5, 6, 6, 7, 7, 8, 9],
    u: 17,
    p: 0.06935045438181722,
    delta: 0.5277777777777778,
    shift: 1,
  },
  { name: "nine and ten", first: nine, second: nineOther, u: 20, p: 0.04545529484905846, delta: 5 / 9, shift: 0.85 },
  {
    name: "skewed",
    first: skewed,
    second: skewedOther,
    u: 2436,
    p: 0.8811733385408222,
    delta: -0.015,
    shift: -0.182,
  },
  {
    name: "many with ties",
    first: tied,
    second: tiedOther,
    u: 15273.5,
    p: 0.7677068650312021,
    delta: -0.018233333333333334,
    shift: 0,
  },
  {
    name: "3 beside 40, counted",
    first: skewed.slice(0, 3),
    second: skewedOther.slice(0, 40),
    u: 52,
    p: 0.7357588526051373,
    delta: 0.13333333333333333,
    shift: 1.3485,
  },
  {
    name: "8 beside 60, counted",
    first: skewedOther.slice(0, 8),
    second: skewed,
    u: 161,
    p: 0.13717983252535115,
    delta: 0.32916666666666666,
    shift: 4.41,
  },
];

for (const { name, first, second, u, p, delta, shift } of cases) {
  test(`two samples are compared as scipy does: ${name}`, () => {
    const { statistic, pValue } = mannWhitney(first, second);
    expect(statistic).toBe(u);
    expect(pValue).toBeCloseTo(p, 12);
    expect(cliffsDelta(first, second).delta).toBeCloseTo(delta, 12);
    expect(hodgesLehmann(first, second)).toBeCloseTo(shift, 10);
    expect(mannWhitney(second, first).pValue).toBeCloseTo(p, 12);
  });
}

test("a ratio is the shift of logarithms", () => {
  const one = (values: readonly number[]) => values.map((value) => value + 1);
  // np.exp(np.median(np.log(b[None, :] + 1) - np.log(a[:, None] + 1)))
  expect(hodgesLehmannRatio(one(skewed), one(skewedOther))).toBeCloseTo(0.9742357892488199, 12);
});

test("signed ranks are those of scipy: counted, with ties, and many", () => {
  const differences = skewed.map((value, index) => Math.round(((skewedOther[index] ?? 0) - value) * 1000) / 1000);
  // st.wilcoxon(values)
  const few = signedRank([1.2, -0.4, 2.3, 0.9, -1.1, 3.0, 0.7, 1.8, 2.6, -0.2]);
  expect(few.statistic).toBe(47);
  expect(few.pValue).toBeCloseTo(0.048828125, 12);
  // st.wilcoxon(values, method="exact")
  const forty = signedRank(differences.slice(0, 40));
  expect(forty.statistic).toBe(399);
  expect(forty.pValue).toBeCloseTo(0.8890015714441688, 12);
  // st.wilcoxon(values, method="asymptotic", correction=True)
  const sixty = signedRank(differences);
  expect(sixty.statistic).toBe(907);
  expect(sixty.pValue).toBeCloseTo(0.9559695509669096, 12);
  const ties = signedRank([1, 2, -1, 3, 0, 2, -2, 4, 1, 5, -3, 2, 1, 0, 2, 3]);
  expect(ties.statistic).toBe(84.5);
  expect(ties.pValue).toBeCloseTo(0.046126908222309436, 12);
});

test("samples that are all alike are no difference", () => {
  expect(mannWhitney([2, 2, 2, 2], [2, 2, 2]).pValue).toBe(1);
  expect(signedRank([0, 0, 0]).pValue).toBe(1);
  expect(cliffsDelta([2, 2], [2, 2])).toEqual({ delta: 0, magnitude: "negligible" });
  expect(hodgesLehmann([2, 2, 2], [2, 2])).toBe(0);
});

test("how large a difference is has a word", () => {
  const magnitude = (above: number) =>
    cliffsDelta(
      [5],
      Array.from({ length: 1000 }, (_, index) => (index < above ? 6 : 5)),
    ).magnitude;
  expect([146, 148, 329, 331, 473, 475].map(magnitude)).toEqual([
    "negligible",
    "small",
    "small",
    "medium",
    "medium",
    "large",
  ]);
});

test("values that are alike share their places", () => {
  // st.rankdata
  expect(ranks([3, 1, 3, 2, 3])).toEqual([4, 1, 4, 2, 4]);
});

test("medians of all pairs are exactly those of making every pair", () => {
  const random = seededRandom(5);
  const middle = (values: number[]) => {
    values.sort((a, b) => a - b);
    const at = values.length >> 1;
    return values.length % 2 === 1 ? values[at] : ((values[at - 1] ?? 0) + (values[at] ?? 0)) / 2;
  };
  for (let round = 0; round < 300; round++) {
    // Half of them are whole, so that there are ties.
    const draw = () => (random() < 0.5 ? Math.floor(random() * 5) : random() * 5);
    const first = Array.from({ length: 1 + Math.floor(random() * 12) }, draw);
    const second = Array.from({ length: 1 + Math.floor(random() * 12) }, draw);
    expect(hodgesLehmann(first, second)).toBe(middle(first.flatMap((a) => second.map((b) => b - a))) ?? 0);
    const means = first.flatMap((a, index) => first.slice(index).map((b) => (a + b) / 2));
    expect(pseudoMedian(first)).toBe(middle(means) ?? 0);
  }
});
