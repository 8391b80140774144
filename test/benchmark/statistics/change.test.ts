// Changes in a row of results.

import { expect, test } from "bun:test";
import { changePoints } from "../../../src/benchmark/statistics/change.ts";
import { seededRandom } from "../../../src/benchmark/statistics/random.ts";
import { correlated, normal } from "./samples.ts";

/** Points of these levels, so many of each, that scatter by 1 %. */
function row(levels: readonly (readonly [level: number, count: number])[], seed: number) {
  const random = seededRandom(seed);
  return levels.flatMap(([level, count]) =>
    Array.from({ length: count }, () => ({ value: level * Math.exp(0.01 * normal(random)) })),
  );
}

test("a change is found where it happened, with its size", () => {
  const [found, ...others] = changePoints(
    row(
      [
        [20, 15],
        [22, 12],
      ],
      1,
    ),
  );
  expect(others).toEqual([]);
  expect(found?.index).toBe(15);
  expect(found?.before).toBeCloseTo(20, 0);
  expect(found?.after).toBeCloseTo(22, 0);
  expect(Math.abs((found?.change ?? 0) - 0.1)).toBeLessThan(0.015);
  expect(found?.interval.low).toBeGreaterThan(0.08);
  expect(found?.interval.high).toBeLessThan(0.12);
  expect(found?.pValue).toBeLessThan(0.01);
});

test("several changes are found, up and down, each between its neighbours", () => {
  const found = changePoints(
    row(
      [
        [20, 20],
        [23, 20],
        [20, 25],
      ],
      2,
    ),
  );
  expect(found.map(({ index }) => index)).toEqual([20, 40]);
  expect(found.map(({ change }) => Math.sign(change))).toEqual([1, -1]);
});

test("a few results are enough for a change that is far larger than their scatter", () => {
  const values = [20.1, 19.9, 20, 26, 26.2, 25.9];
  expect(changePoints(values.map((value) => ({ value }))).map(({ index }) => index)).toEqual([3]);
  // Not if each value's own interval is as wide as the change.
  const vague = values.map((value) => ({ value, interval: { level: 0.95, low: value - 6, high: value + 6 } }));
  expect(changePoints(vague)).toEqual([]);
});

test("rows without a change seldom show one", () => {
  const random = seededRandom(3);
  for (const count of [6, 12, 40]) {
    const rows = Array.from({ length: 100 }, () =>
      Array.from({ length: count }, () => ({ value: 10 * Math.exp(-0.05 * Math.log(1 - random())) })),
    );
    // One in a hundred is expected.
    expect(rows.filter((points) => changePoints(points, { random }).length > 0).length).toBeLessThanOrEqual(5);
  }
});

test("points that resemble their neighbours are seldom taken for a change", () => {
  const random = seededRandom(5);
  const rows = Array.from({ length: 40 }, () =>
    correlated(150, 0.4, random).map((value) => ({ value: 10 * Math.exp(0.03 * value) })),
  );
  // As if they were independent, one in six would show one.
  expect(rows.filter((points) => changePoints(points, { random }).length > 0).length).toBeLessThanOrEqual(4);
});

test("one result that is far out is no change, values that are all alike are none, and four say nothing", () => {
  const points = row([[20, 30]], 4);
  expect(changePoints(points.with(12, { value: 40 }))).toEqual([]);
  expect(changePoints(Array.from({ length: 30 }, () => ({ value: 17.3 })))).toEqual([]);
  expect(changePoints([1, 1, 9, 9].map((value) => ({ value })))).toEqual([]);
});

test("values without a logarithm are refused", () => {
  expect(() => changePoints([{ value: 0 }])).toThrow(RangeError);
});
