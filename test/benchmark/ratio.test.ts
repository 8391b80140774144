import { expect, test } from "bun:test";
import { compare, geometricMean, showRatio } from "../../src/benchmark/ratio.ts";

/** A repeatable series of values in [0, 1). */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 48271) % 0x7fffffff;
    return state / 0x7fffffff;
  };
}

test("a ratio is the median of the pairs', its interval that of the second from either end of nine", () => {
  const peer = [10, 20, 10, 20, 10, 20, 10, 20, 10];
  const ratios = [2, 2.2, 1.8, 2.1, 1.9, 2.3, 1.7, 2.05, 9];
  const tinyai = peer.map((value, index) => value * (ratios[index] ?? 0));
  const { ratio, interval, verdict } = compare(tinyai, peer, "more");
  expect(ratio).toBeCloseTo(2.05, 12);
  expect(interval?.[0]).toBeCloseTo(1.8, 12);
  expect(interval?.[1]).toBeCloseTo(2.3, 12);
  expect(verdict).toBe("ahead");
});

test("turns in which both were slow alike widen no interval", () => {
  const { ratio, interval } = compare([10, 5, 20, 10, 5, 20], [5, 2.5, 10, 5, 2.5, 10], "more");
  expect(ratio).toBeCloseTo(2, 12);
  expect(interval?.[0]).toBeCloseTo(2, 12);
  expect(interval?.[1]).toBeCloseTo(2, 12);
});

test("a turn in which only one was disturbed moves neither the ratio nor the verdict of nine", () => {
  const calm = [2, 2, 2, 2, 2, 2, 2, 2, 2];
  const peer = calm.map(() => 1);
  expect(compare([...calm.slice(1), 0.1], peer, "more")).toEqual(compare(calm, peer, "more"));
});

test("the interval holds the true median in at least 95 of 100 series, whatever the scatter's shape", () => {
  const next = random(7);
  for (const count of [6, 9, 12, 18]) {
    let held = 0;
    for (let series = 0; series < 2000; series++) {
      // Half of the ratios lie below 1, and a few far above.
      const tinyai = Array.from({ length: count }, () => (next() < 0.5 ? 0.9 + 0.1 * next() : 1 + 5 * next() ** 8));
      const { interval } = compare(
        tinyai,
        tinyai.map(() => 1),
        "more",
      );
      if (interval && interval[0] <= 1 && interval[1] >= 1) held++;
    }
    expect(held).toBeGreaterThanOrEqual(1885); // 95 % less three standard errors.
  }
});

test("of very many turns the interval is narrow", () => {
  const next = random(11);
  const tinyai = Array.from({ length: 5001 }, () => 1 + next());
  const { ratio, interval } = compare(
    tinyai,
    tinyai.map(() => 1),
    "more",
  );
  expect(ratio).toBeCloseTo(1.5, 1);
  // The median of n values that are even in 1 to 2 has a standard error of 0.5 / √n.
  expect((interval?.[1] ?? 0) - (interval?.[0] ?? 0)).toBeWithin(0.02, 0.035);
});

test("an interval that holds 1 is a draw, and its ratio is not shown", () => {
  const compared = compare([10, 9, 11, 10, 9, 11], [9, 10, 10, 9, 10, 10], "more");
  expect(compared.verdict).toBe("draw");
  expect(showRatio(compared)).toMatch(/^draw \(0\.\d\d to 1\.\d\d\)$/);
});

test("where less is better, the smaller figure is ahead", () => {
  const one = [1, 1.1, 1, 1, 1, 1];
  const four = [4, 4.2, 4, 4, 4, 4];
  expect(compare(one, four, "less").verdict).toBe("ahead");
  expect(compare(four, one, "less").verdict).toBe("behind");
  expect(compare(one, four, "more").verdict).toBe("behind");
});

test("exchanging the two turns the ratio and its interval over", () => {
  const one = [3, 4, 5, 4, 7, 6];
  const other = [2, 2, 3, 3, 4, 5];
  const there = compare(one, other, "more");
  const back = compare(other, one, "more");
  expect(back.ratio).toBeCloseTo(1 / there.ratio, 12);
  expect(back.interval?.[0]).toBeCloseTo(1 / (there.interval?.[1] ?? 0), 12);
});

test("five turns have no interval and no verdict", () => {
  const compared = compare([4, 4, 4, 4, 4], [2, 2, 2, 2, 2], "more");
  expect(compared).toEqual({ ratio: 2, interval: null, verdict: "unknown" });
  expect(showRatio(compared)).toBe("2.00 (few turns)");
});

test("the more turns, the narrower the interval of the same scatter", () => {
  const width = (turns: number) => {
    const tinyai = Array.from({ length: turns }, (_, index) => 2 + ((index * 7) % turns) / turns);
    const [low, high] = compare(
      tinyai,
      tinyai.map(() => 1),
      "more",
    ).interval ?? [0, 0];
    return high - low;
  };
  expect(width(9)).toBeLessThan(width(6));
  expect(width(36)).toBeLessThan(width(9));
});

test("figures that do not pair, or are not above 0, are refused", () => {
  expect(() => compare([1, 2], [1], "more")).toThrow("each turn needs both");
  expect(() => compare([], [], "more")).toThrow("each turn needs both");
  expect(() => compare([1, 0], [1, 1], "more")).toThrow("not above 0");
});

test("the geometric mean of a ratio and its reciprocal is 1", () => {
  expect(geometricMean([4, 0.25])).toBeCloseTo(1, 12);
  expect(geometricMean([2, 8])).toBeCloseTo(4, 12);
});
