import { expect, test } from "bun:test";
import { compare, geometricMean, showRatio } from "../../bench/peers/ratio.ts";

test("a ratio and its interval are those of the paired logarithms", () => {
  const { ratio, interval, verdict } = compare([20, 44, 18, 42, 19], [10, 20, 10, 20, 10], "more");
  const logarithms = [2, 2.2, 1.8, 2.1, 1.9].map(Math.log);
  const mean = logarithms.reduce((a, b) => a + b) / 5;
  const error = Math.sqrt(logarithms.reduce((sum, x) => sum + (x - mean) ** 2, 0) / 4 / 5);
  expect(ratio).toBeCloseTo((2 * 2.2 * 1.8 * 2.1 * 1.9) ** 0.2, 12);
  expect(interval?.[0]).toBeCloseTo(Math.exp(mean - 2.776 * error), 12);
  expect(interval?.[1]).toBeCloseTo(Math.exp(mean + 2.776 * error), 12);
  expect(verdict).toBe("ahead");
});

test("rounds in which both were slow alike widen no interval", () => {
  const { ratio, interval } = compare([10, 5, 20], [5, 2.5, 10], "more");
  expect(ratio).toBeCloseTo(2, 12);
  expect(interval?.[0]).toBeCloseTo(2, 12);
  expect(interval?.[1]).toBeCloseTo(2, 12);
});

test("an interval that holds 1 is a draw, and its ratio is not shown", () => {
  const compared = compare([10, 9, 11], [9, 10, 10], "more");
  expect(compared.verdict).toBe("draw");
  expect(showRatio(compared)).toMatch(/^draw \(0\.\d\d to 1\.\d\d\)$/);
});

test("where less is better, the smaller figure is ahead", () => {
  expect(compare([1, 1.1, 1], [4, 4.2, 4], "less").verdict).toBe("ahead");
  expect(compare([4, 4.2, 4], [1, 1.1, 1], "less").verdict).toBe("behind");
  expect(compare([1, 1.1, 1], [4, 4.2, 4], "more").verdict).toBe("behind");
});

test("exchanging the two turns the ratio and its interval over", () => {
  const there = compare([3, 4, 5, 4], [2, 2, 3, 3], "more");
  const back = compare([2, 2, 3, 3], [3, 4, 5, 4], "more");
  expect(back.ratio).toBeCloseTo(1 / there.ratio, 12);
  expect(back.interval?.[0]).toBeCloseTo(1 / (there.interval?.[1] ?? 0), 12);
});

test("one round has no interval and no verdict", () => {
  const compared = compare([4], [2], "more");
  expect(compared).toEqual({ ratio: 2, interval: null, verdict: "unknown" });
  expect(showRatio(compared)).toBe("2.00 (one round)");
});

test("the more rounds, the narrower the interval of the same scatter", () => {
  const width = (rounds: number) => {
    const tinyai = Array.from({ length: rounds }, (_, index) => (index % 2 ? 2.2 : 2));
    const [low, high] = compare(
      tinyai,
      tinyai.map(() => 1),
      "more",
    ).interval ?? [0, 0];
    return high - low;
  };
  expect(width(8)).toBeLessThan(width(4));
  expect(width(64)).toBeLessThan(width(32));
});

test("figures that do not pair, or are not above 0, are refused", () => {
  expect(() => compare([1, 2], [1], "more")).toThrow("each round needs both");
  expect(() => compare([], [], "more")).toThrow("each round needs both");
  expect(() => compare([1, 0], [1, 1], "more")).toThrow("not above 0");
});

test("the geometric mean of a ratio and its reciprocal is 1", () => {
  expect(geometricMean([4, 0.25])).toBeCloseTo(1, 12);
  expect(geometricMean([2, 8])).toBeCloseTo(4, 12);
});
