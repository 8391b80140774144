// Buckets of histograms against counting the amounts themselves.

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { bucketsOf, cumulative } from "../../profiler/buckets.ts";
import { Histogram } from "../../profiler/index.ts";

/** Amounts over all magnitudes up to 2^53, several of them alike. */
const amounts = fc.array(
  fc.integer({ min: 0, max: 53 }).chain((bits) => fc.maxSafeInteger().map((value) => Math.abs(value) % 2 ** bits)),
  { maxLength: 300 },
);

function recorded(values: readonly number[]) {
  const histogram = new Histogram("ns");
  for (const value of values) histogram.record(value);
  return histogram.toJSON();
}

function countUpTo(values: readonly number[], bound: number): number {
  return values.filter((value) => value <= bound).length;
}

describe("buckets", () => {
  test("hold every amount, in ascending order, and none is a thousandth larger than the smallest in it", () => {
    fc.assert(
      fc.property(amounts, (values) => {
        let [sum, before] = [0, -1];
        for (const { value, count } of bucketsOf(recorded(values))) {
          expect(value).toBeGreaterThan(before);
          expect(count).toBeGreaterThan(0);
          sum += count;
          // A bucket has all amounts from the one before it up to its own.
          expect(sum).toBe(countUpTo(values, value));
          const smallest = Math.min(...values.filter((amount) => amount > before));
          expect(value - smallest).toBeLessThanOrEqual(smallest / 1000);
          before = value;
        }
        expect(sum).toBe(values.length);
        if (values.length > 0) expect(before).toBe(Math.max(...values));
      }),
    );
  });

  test("are exact for amounts below 2,048", () => {
    const values = [0, 0, 1, 7, 7, 7, 2047];
    const expected = [
      { value: 0, count: 2 },
      { value: 1, count: 1 },
      { value: 7, count: 3 },
      { value: 2047, count: 1 },
    ];
    expect(bucketsOf(recorded(values))).toEqual(expected);
    expect(bucketsOf(recorded([]))).toEqual([]);
  });
});

describe("cumulative counts", () => {
  test("are those of the amounts at or below each bound, but for amounts less than a thousandth below it", () => {
    const bounds = fc.array(fc.maxSafeInteger().map(Math.abs), { maxLength: 12 });
    fc.assert(
      fc.property(amounts, bounds, (values, unsorted) => {
        const ascending = [...unsorted].sort((a, b) => a - b);
        const counts = cumulative(recorded(values), ascending);
        expect(counts.length).toBe(ascending.length);
        for (const [index, bound] of ascending.entries()) {
          expect(counts[index]).toBeLessThanOrEqual(countUpTo(values, bound));
          expect(counts[index]).toBeGreaterThanOrEqual(countUpTo(values, bound / 1.001));
          expect(counts[index]).toBeGreaterThanOrEqual(counts[index - 1] ?? 0);
        }
      }),
    );
  });

  test("are exact at bounds below 2,048", () => {
    const values = Array.from({ length: 3000 }, (_, index) => index);
    const bounds = [0, 1, 100, 1000, 2047];
    expect(cumulative(recorded(values), bounds)).toEqual(bounds.map((bound) => bound + 1));
    expect(cumulative(recorded([]), bounds)).toEqual([0, 0, 0, 0, 0]);
    expect(cumulative(recorded(values), [])).toEqual([]);
  });
});
