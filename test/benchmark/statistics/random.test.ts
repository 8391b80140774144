// The seeded generator, beside one written in Python.

import { expect, test } from "bun:test";
import { seededRandom } from "../../../src/benchmark/statistics/random.ts";

test("a seed gives the same numbers as the algorithm in whole numbers of any size", () => {
  // Python, with & 0xffffffff after each step; the step gives 11520, 0, 5927040, 70819200 from the state 1, 2, 3, 4 as the authors' does.
  const expected = new Map([
    [1, [2442144158, 3238099751, 3819917871, 2104621829, 2021136066]],
    [4294967295, [835879718, 1921286648, 2356205009]],
  ]);
  for (const [seed, numbers] of expected) {
    const random = seededRandom(seed);
    expect(numbers.map(() => random() * 2 ** 32)).toEqual(numbers);
  }
});

test("numbers fill the range from 0 to 1 evenly", () => {
  const random = seededRandom(7);
  const counts = new Array<number>(10).fill(0);
  for (let draw = 0; draw < 100_000; draw++) {
    const bin = Math.floor(10 * random());
    counts[bin] = (counts[bin] ?? 0) + 1;
  }
  // Chi-squared with 9 degrees of freedom: above 27.9 once in a thousand seeds.
  expect(counts).toHaveLength(10);
  expect(counts.reduce((sum, count) => sum + (count - 10_000) ** 2 / 10_000, 0)).toBeLessThan(27.9);
});
