// Holm's correction, beside statsmodels.

import { expect, test } from "bun:test";
import { holm } from "../../../src/benchmark/statistics/multiple.ts";

test("p-values of questions asked together are those of statsmodels, in their own order", () => {
  // statsmodels 0.15.0: multipletests(values, method="holm")[1]
  const expected = [0.05, 0.12, 0.12, 0.03, 0.2, 0.12];
  for (const [index, value] of holm([0.01, 0.04, 0.03, 0.005, 0.2, 0.03]).entries()) {
    expect(value).toBeCloseTo(expected[index] ?? 0, 14);
  }
});

test("one question stays as it is, and none gives none", () => {
  expect(holm([0.04])).toEqual([0.04]);
  expect(holm([])).toEqual([]);
  expect(holm([0.9, 0.8])).toEqual([1, 1]);
});
