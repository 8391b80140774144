// What is said of two sets of samples.

import { expect, test } from "bun:test";
import { seededRandom } from "../../../src/benchmark/statistics/random.ts";
import {
  type Comparison,
  compareQuantiles,
  compareSamples,
  correct,
  memoryWords,
} from "../../../src/benchmark/statistics/verdict.ts";
import { correlated, normal, times } from "./samples.ts";

const random = seededRandom(31);
const base = times(60, 0.03, random);
const faster = times(60, 0.03, random).map((value) => 0.95 * value);

test("less time is faster, more throughput is faster, and the change is a part of the first", () => {
  const byTime = compareSamples(base, faster, { better: "less" });
  expect(byTime.verdict).toBe("faster");
  expect(Math.abs(byTime.change - 0.05)).toBeLessThan(0.015);
  expect(byTime.interval?.low).toBeGreaterThan(0.03);
  expect(byTime.interval?.high).toBeLessThan(0.07);
  expect(byTime.effect).toBeGreaterThan(0.5);
  const rate = (values: readonly number[]) => values.map((value) => 1000 / value);
  const byRate = compareSamples(rate(base), rate(faster), { better: "more" });
  expect(byRate.verdict).toBe("faster");
  // 1 / (1 - change) - 1 of the same pairs.
  expect(byRate.change).toBeCloseTo(1 / (1 - byTime.change) - 1, 10);
  expect(byRate.effect).toBeCloseTo(byTime.effect, 12);
});

test("the other way around it is slower, with the same certainty", () => {
  const [one, other] = [
    compareSamples(base, faster, { better: "less" }),
    compareSamples(faster, base, { better: "less" }),
  ];
  expect(other.verdict).toBe("slower");
  expect(other.change).toBeCloseTo(1 - 1 / (1 - one.change), 10);
  expect(other.pValue).toBe(one.pValue);
  expect(other.interval?.high).toBeLessThan(0);
});

test("a sentence has the change, its interval and its level, or what would have been seen", () => {
  const said = compareSamples(base, faster, { better: "less" });
  expect(said.sentence).toMatch(/^faster by \d\.\d % \(95 % interval \d\.\d to \d\.\d\)$/);
  expect(compareSamples(faster, base, { better: "less" }).sentence).toMatch(
    /^slower by \d\.\d % \(95 % interval \d\.\d to \d\.\d\)$/,
  );
  expect(compareSamples(base, faster, { better: "less", level: 0.99, words: memoryWords }).sentence).toMatch(
    /^less memory by \d\.\d % \(99 % interval \d\.\d to \d\.\d\)$/,
  );
  const unsaid = compareSamples(base, times(60, 0.03, random), { better: "less" });
  expect(unsaid.verdict).toBe("undecided");
  expect(unsaid.sentence).toBe(
    `no difference could be shown; one of ${(100 * (unsaid.detectable ?? 0)).toFixed(1)} % would have been`,
  );
});

test("a change far below a tenth of a percent is not said to be 0", () => {
  const exact = Array.from({ length: 30 }, (_, index) => 100 + (index % 7) * 1e-4);
  const { sentence } = compareSamples(
    exact,
    exact.map((value) => value * (1 - 2e-5)),
    { better: "less" },
  );
  expect(sentence).toMatch(/^faster by 0\.002 % \(95 % interval 0\.00[12] to 0\.002\)$/);
});

test("turns are compared in pairs, whatever they have in common", () => {
  const course = correlated(30, 0.95, random).map((value) => Math.exp(0.3 * value));
  const first = course.map((value) => value * Math.exp(0.005 * normal(random)));
  const second = course.map((value) => 0.98 * value * Math.exp(0.005 * normal(random)));
  const paired = compareSamples(first, second, { better: "less", paired: true });
  expect(paired.verdict).toBe("faster");
  expect(Math.abs(paired.change - 0.02)).toBeLessThan(0.004);
  expect(compareSamples(first, second, { better: "less" }).verdict).toBe("undecided");
});

test("fewer than six samples of one say nothing", () => {
  const { verdict, sentence, interval, detectable, pValue, change } = compareSamples([1, 1, 1, 1, 1], faster, {
    better: "less",
  });
  expect({ verdict, sentence, interval, detectable, pValue }).toEqual({
    verdict: "undecided",
    sentence: "undecided: too few samples to tell",
    interval: undefined,
    detectable: null,
    pValue: 1,
  });
  expect(change).toBeLessThan(0);
});

test("samples that are all alike are no difference, whatever their number", () => {
  const alike = new Array<number>(20).fill(512);
  const { verdict, change, sentence } = compareSamples(alike, alike, { better: "less" });
  expect({ verdict, change: Math.abs(change) }).toEqual({ verdict: "undecided", change: 0 });
  expect(sentence).toBe("no difference could be shown: all samples are alike");
});

test("samples that vary so much that not even twice the time would show are said to", () => {
  const wild = [1, 30, 2, 500, 9, 100, 4];
  const { detectable, sentence } = compareSamples(wild, wild.toReversed(), { better: "less" });
  expect(detectable).toBeGreaterThan(1);
  expect(sentence).toBe("no difference could be shown: the samples vary too much");
});

test("samples without a logarithm, none at all, and turns that lack one are refused", () => {
  expect(() => compareSamples([1, 0], [1, 2], { better: "less" })).toThrow(RangeError);
  expect(() => compareSamples([], [1], { better: "less" })).toThrow(RangeError);
  expect(() => compareSamples([1, 2], [1], { better: "less", paired: true })).toThrow(RangeError);
});

test("the same samples give the same answer", () => {
  expect(compareSamples(base, faster, { better: "less" })).toEqual(compareSamples(base, faster, { better: "less" }));
});

/** How often a difference is said. */
function said(rounds: number, compared: () => Comparison): number {
  return Array.from({ length: rounds }, compared).filter(({ verdict }) => verdict !== "undecided").length / rounds;
}

test("of the same program a difference is seldom said, though its times are skewed", () => {
  const draws = seededRandom(32);
  const skewed = () => Array.from({ length: 20 }, () => 5 - Math.log(1 - draws()));
  expect(said(60, () => compareSamples(skewed(), skewed(), { better: "less", random: draws }))).toBeLessThan(0.1);
});

test("of the same program a difference is seldom said, though its times follow each other", () => {
  const draws = seededRandom(36);
  const following = () => correlated(40, 0.6, draws).map((value) => 10 * Math.exp(0.05 * value));
  expect(said(50, () => compareSamples(following(), following(), { better: "less", random: draws }))).toBeLessThan(
    0.12,
  );
});

test("a machine that grows slower from the first run to the second makes no difference between programs", () => {
  const draws = seededRandom(33);
  const drifting = (from: number) =>
    Array.from({ length: 50 }, (_, index) => 10 * (1 + (0.1 * (from + index)) / 100) * Math.exp(0.01 * normal(draws)));
  expect(said(30, () => compareSamples(drifting(0), drifting(50), { better: "less", random: draws }))).toBe(0);
});

test("a change of what is said to be detectable is shown about four times in five", () => {
  const draws = seededRandom(34);
  const pairs = Array.from({ length: 60 }, () => [times(30, 0.05, draws), times(30, 0.05, draws)] as const);
  const detectable =
    pairs.reduce(
      (sum, [first, second]) => sum + (compareSamples(first, second, { better: "more" }).detectable ?? 0),
      0,
    ) / pairs.length;
  let next = 0;
  const shown = said(pairs.length, () => {
    const [first, second] = pairs[next++] ?? [[], []];
    return compareSamples(
      first,
      second.map((value) => value * (1 + detectable)),
      { better: "more" },
    );
  });
  expect(shown).toBeGreaterThan(0.7);
});

test("comparisons made together are corrected, and what they would have shown grows", () => {
  const nearly = times(60, 0.03, random).map((value) => 0.99 * value);
  const one = compareSamples(base, nearly, { better: "less" });
  expect(one.verdict).toBe("faster");
  const together = correct([one, ...Array.from({ length: 9 }, () => compareSamples(base, base, { better: "less" }))]);
  expect(together[0]).toMatchObject({ verdict: "undecided", change: one.change, pValue: Math.min(1, 10 * one.pValue) });
  // (2.807 + 0.842) / (1.960 + 0.842) standard errors: normal quantiles of 1 - 0.05 / 20 and of 0.8.
  expect(Math.log1p(together[0]?.detectable ?? 0) / Math.log1p(one.detectable ?? 0)).toBeCloseTo(1.3024, 3);
  expect(correct([one])).toEqual([one]);
});

test("six turns can show a difference alone, but not beside others, which is said", () => {
  const turns = [1, 2, 3, 4, 5, 6];
  const alone = compareSamples(
    turns,
    [0.53, 0.51, 0.55, 0.52, 0.56, 0.54].map((ratio, index) => ratio * (turns[index] ?? 0)),
    { better: "less", paired: true },
  );
  expect(alone.verdict).toBe("faster");
  // All six ratios on one side: 2 / 2^6.
  expect(alone.pValueLeast).toBeCloseTo(0.03125, 12);
  const [together] = correct([alone, alone]);
  expect(together).toMatchObject({
    verdict: "undecided",
    detectable: null,
    sentence: "no difference could be shown: so few samples cannot show one",
  });
});

test("a dozen samples that had nothing to do with each other show a large change beside eight others", () => {
  const draws = seededRandom(37);
  for (let round = 0; round < 20; round++) {
    const [first, second] = [times(12, 0.01, draws), times(12, 0.01, draws).map((value) => 1.05 * value)];
    const options = { better: "less", paired: true, independent: true } as const;
    const one = compareSamples(first, second, options);
    const same = compareSamples(first, first, options);
    expect(correct([one, ...new Array<Comparison>(8).fill(same)])[0]?.verdict).toBe("slower");
  }
});

test("percentiles are compared where the samples span them", () => {
  const first = times(400, 0.05, random);
  const second = times(400, 0.05, random).map((value) => value * 0.9);
  const ninetieth = compareQuantiles(first, second, 0.9, { better: "less" });
  expect(ninetieth.verdict).toBe("faster");
  expect(Math.abs(ninetieth.change - 0.1)).toBeLessThan(0.03);
  expect(ninetieth.interval?.low).toBeGreaterThan(0.06);
  expect(ninetieth.pValue).toBeLessThan(1e-4);
  expect(compareQuantiles(first.slice(0, 30), second, 0.9, { better: "less" })).toMatchObject({
    verdict: "undecided",
    detectable: null,
    pValue: 1,
  });
});

test("percentiles of the same program seldom differ", () => {
  const draws = seededRandom(35);
  const drawn = () => Array.from({ length: 100 }, () => 5 - Math.log(1 - draws()));
  expect(said(200, () => compareQuantiles(drawn(), drawn(), 0.9, { better: "less" }))).toBeLessThan(0.08);
});
