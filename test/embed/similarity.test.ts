// The cosine of two vectors.

import { expect, test } from "bun:test";
import { similarity } from "../../src/index.ts";

test("is 1 for the same direction, -1 for the opposite, 0 for a right angle", () => {
  const vector = Float32Array.of(3, -4, 12);
  const tiny = vector.map((value) => value * 1e-20);
  const opposite = vector.map((value) => -2 * value);
  expect(similarity(vector, vector)).toBe(1);
  expect(similarity(vector, tiny)).toBeCloseTo(1, 7);
  expect(similarity(vector, opposite)).toBe(-1);
  expect(similarity(Float32Array.of(1, 0), Float32Array.of(0, 5))).toBe(0);
  expect(similarity(Float32Array.of(1, 0), Float32Array.of(3, 4))).toBeCloseTo(0.6, 12);
});

test("is a number for vectors of zeros and for the largest values", () => {
  expect(similarity(Float32Array.of(0, 0), Float32Array.of(1, 1))).toBe(0);
  const large = new Float32Array(1000).fill(3e38);
  expect(similarity(large, large)).toBeCloseTo(1, 12);
});

test("of vectors of different lengths, or with a value that is not finite, is refused", () => {
  expect(() => similarity(Float32Array.of(1), Float32Array.of(1, 2))).toThrow("b: has 2 values and a has 1");
  expect(() => similarity(Float32Array.of(1, Number.NaN), Float32Array.of(1, 2))).toThrow("a: has NaN at place 1");
  expect(() => similarity([1] as never, Float32Array.of(1))).toThrow("a: is an array");
});
