// Intervals, beside scipy 1.17.1, and by how often they hold what they shall hold.

import { expect, test } from "bun:test";
import { interval, meanInterval, quantileInterval } from "../../../src/benchmark/statistics/bootstrap.ts";
import { seededRandom } from "../../../src/benchmark/statistics/random.ts";
import { quantile } from "../../../src/benchmark/statistics/summary.ts";
import { correlated, exponential, lehmer, normal } from "./samples.ts";

const skewed = lehmer(11, 60, exponential);

test("the interval of a mean is that of scipy at the level that Student's distribution asks", () => {
  const found = meanInterval(skewed, { resamples: 40_000 });
  // st.bootstrap((x,), np.mean, method="BCa", n_resamples=200000, random_state=1,
  //   confidence_level=1 - 2 * st.norm.sf(sqrt(60 / 59) * st.t.ppf(0.975, 59)))
  expect(found.level).toBe(0.95);
  expect(Math.abs(found.low - 10.789588339190155)).toBeLessThan(0.12);
  expect(Math.abs(found.high - 17.931189765639417)).toBeLessThan(0.12);
  // Skewed samples have their longer side above.
  expect(found.high - 13.763516666666668).toBeGreaterThan(13.763516666666668 - found.low);
});

test("the same samples give the same interval, another seed nearly the same", () => {
  expect(meanInterval(skewed)).toEqual(meanInterval(skewed));
  const other = meanInterval(skewed, { random: seededRandom(2) });
  expect(other.low).not.toBe(meanInterval(skewed).low);
  expect(Math.abs(other.low - meanInterval(skewed).low)).toBeLessThan(0.4);
});

/** How often an interval of `draw`'s samples holds `truth`. */
function coverage(rounds: number, truth: number, draw: () => readonly [low: number, high: number]): number {
  let held = 0;
  for (let round = 0; round < rounds; round++) {
    const [low, high] = draw();
    if (low <= truth && truth <= high) held++;
  }
  return held / rounds;
}

test("intervals of means of skewed samples hold the mean about as often as they say", () => {
  const random = seededRandom(21);
  const held = coverage(400, 1, () => {
    const samples = Array.from({ length: 25 }, () => -Math.log(1 - random()));
    const { low, high } = meanInterval(samples, { random, resamples: 500 });
    return [low, high];
  });
  expect(held).toBeGreaterThan(0.9);
  expect(held).toBeLessThan(0.98);
});

test("intervals of samples that follow each other are wide enough, and would not be if drawn one by one", () => {
  const random = seededRandom(22);
  const samples = Array.from({ length: 150 }, () => correlated(200, 0.6, random));
  const [inBlocks, alone] = [undefined, 1].map((block) => {
    let round = 0;
    return coverage(samples.length, 0, () => {
      const options = { random, resamples: 400, ...(block !== undefined && { block }) };
      const { low, high } = meanInterval(samples[round++] ?? [], options);
      return [low, high];
    });
  });
  expect(inBlocks).toBeGreaterThan(0.9);
  expect(alone).toBeLessThan(0.8);
});

test("the interval of a median lies where it shall, by drawing and by ranks", () => {
  const median = (values: Float64Array) => quantile(Float64Array.from(values).sort(), 0.5);
  const drawn = interval(skewed, median);
  const byRanks = quantileInterval(skewed, 0.5);
  // scipy: st.binom.cdf(k, 60, 0.5) <= 0.025 up to 21, st.binom.sf(k - 1, 60, 0.5) <= 0.025 from 39: ranks 21 and 38 from 0.
  expect(byRanks).toEqual({ level: 0.95, low: 6.958, high: 11.636 });
  expect(Math.abs(drawn.low - 6.958)).toBeLessThan(1.5);
  expect(Math.abs(drawn.high - 11.636)).toBeLessThan(1.5);
});

test("the ranks of a percentile's interval are those of the binomial distribution", () => {
  // Ranks from 0, by st.binom of scipy 1.17.1 as above; one sample fewer than in the last rows, and there is none.
  const expected = [
    [60, 0.5, 21, 38],
    [60, 0.9, 48, 58],
    [100, 0.95, 89, 99],
    [400, 0.99, 391, 399],
    [36, 0.9, 28, 35],
    [72, 0.95, 63, 71],
    [368, 0.99, 359, 367],
  ] as const;
  for (const [count, part, low, high] of expected) {
    // Up and down, so that the order shows no dependence.
    const samples = Array.from({ length: count }, (_, index) =>
      index % 2 === 0 ? index : count - index - (count % 2),
    );
    const sorted = [...samples].sort((a, b) => a - b);
    expect(quantileInterval(samples, part)).toEqual({ level: 0.95, low: sorted[low] ?? -1, high: sorted[high] ?? -1 });
  }
  for (const [count, part] of [
    [5, 0.5],
    [35, 0.9],
    [71, 0.95],
    [367, 0.99],
  ] as const)
    expect(
      quantileInterval(
        Array.from({ length: count }, (_, index) => index % 2),
        part,
      ),
    ).toBeUndefined();
});

test("intervals of percentiles hold them at least as often as they say", () => {
  const random = seededRandom(23);
  const held = coverage(1000, -Math.log(0.1), () => {
    const { low, high } = quantileInterval(
      Array.from({ length: 100 }, () => -Math.log(1 - random())),
      0.9,
    ) ?? { low: Number.NaN, high: Number.NaN };
    return [low, high];
  });
  expect(held).toBeGreaterThan(0.935);
});

test("samples that are all alike have an interval without width", () => {
  expect(meanInterval([2, 2, 2, 2, 2, 2])).toEqual({ level: 0.95, low: 2, high: 2 });
});

test("many samples are drawn as means of neighbours, with the same spread", () => {
  const random = seededRandom(24);
  const samples = Array.from({ length: 10_000 }, () => 10 + normal(random));
  const { low, high } = meanInterval(samples);
  // Student's interval.
  expect((high - low) / (2 * 1.96 * 0.01)).toBeGreaterThan(0.93);
  expect((high - low) / (2 * 1.96 * 0.01)).toBeLessThan(1.07);
  expect(low).toBeLessThan(samples.reduce((sum, value) => sum + value, 0) / 10_000);
});
