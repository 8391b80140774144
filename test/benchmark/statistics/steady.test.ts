// When warming up is over.

import { expect, test } from "bun:test";
import { seededRandom } from "../../../src/benchmark/statistics/random.ts";
import { SteadyDetector, steadyFrom } from "../../../src/benchmark/statistics/steady.ts";
import { normal } from "./samples.ts";

/** Times that begin slower by `extra` and come down with each iteration, by a factor of e in `over`; noise is a part. */
function warming(count: number, extra: number, over: number, noise: number, seed = 1): number[] {
  const random = seededRandom(seed);
  return Array.from(
    { length: count },
    (_, index) => 10 * (1 + extra * Math.exp(-index / over)) * Math.exp(noise * normal(random)),
  );
}

test("times that are steady from the begin are so after few iterations, after more where they scatter more", () => {
  const medians = [0.001, 0.02, 0.1].map((noise) => {
    const found = Array.from({ length: 20 }, (_, seed) => steadyFrom(warming(200, 0, 1, noise, seed + 1)));
    expect(found.every(({ steady, iterations }) => steady && iterations >= 10)).toBe(true);
    return found.map(({ iterations }) => iterations).sort((a, b) => a - b)[10] ?? 0;
  });
  expect(medians[0]).toBe(10);
  expect(medians[1]).toBeLessThan(20);
  expect(medians[2]).toBeLessThan(60);
});

test("a slow warm-up is waited for until little of it is left", () => {
  for (let seed = 1; seed <= 20; seed++) {
    const { steady, iterations } = steadyFrom(warming(300, 0.5, 20, 0.01, seed), { iterationsMax: 300 });
    expect(steady).toBe(true);
    // What the first iteration that counts is slower by.
    expect(0.5 * Math.exp(-iterations / 20)).toBeLessThan(0.05);
  }
});

test("times that keep rising are not steady, which is said at the bound", () => {
  const rising = Array.from({ length: 100 }, (_, index) => 10 + 0.3 * index);
  expect(steadyFrom(rising, { iterationsMax: 60 })).toEqual({ iterations: 60, steady: false });
  expect(steadyFrom(rising)).toEqual({ iterations: 100, steady: false });
});

test("a detector says at each time whether it is over, and takes no more after that", () => {
  const detector = new SteadyDetector({ iterationsMax: 3 });
  expect([5, 4, 3, 3].map((time) => detector.add(time))).toEqual([false, false, true, true]);
  expect([detector.iterations, detector.steady, detector.over]).toEqual([3, false, true]);
});
