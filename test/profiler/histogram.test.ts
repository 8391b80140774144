// Durations in histograms: the precision that is promised, exact sums, merging and the way through JSON.

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { DurationHistogram, HIGHEST_NS } from "../../profiler/index.ts";

/** Durations over all magnitudes, small ones as likely as large ones. */
const durations = fc.array(
  fc.integer({ min: 0, max: 41 }).chain((bits) => fc.integer({ min: 0, max: Math.min(2 ** bits, HIGHEST_NS) })),
  { minLength: 1, maxLength: 400 },
);

function recorded(values: readonly number[]): DurationHistogram {
  const histogram = new DurationHistogram();
  for (const value of values) histogram.record(value);
  return histogram;
}

/** The smallest value that at least `percent` per cent of the values do not exceed. */
function exactPercentile(values: readonly number[], percent: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(Math.ceil((percent * sorted.length) / 100) - 1, 0)] ?? 0;
}

describe("a duration histogram", () => {
  test("gives percentiles within a thousandth of an exact sort", () => {
    fc.assert(
      fc.property(durations, (values) => {
        const histogram = recorded(values);
        for (const percent of [1, 10, 25, 50, 75, 90, 99, 100]) {
          const exact = exactPercentile(values, percent);
          const given = histogram.percentile(percent);
          expect(given).toBeGreaterThanOrEqual(exact);
          expect(given - exact).toBeLessThanOrEqual(exact / 1000);
        }
        expect(histogram.percentile(100)).toBe(histogram.max);
      }),
    );
  });

  test("keeps count, total, minimum and maximum exactly", () => {
    fc.assert(
      fc.property(durations, (values) => {
        const histogram = recorded(values);
        expect(histogram.count).toBe(values.length);
        expect(histogram.total).toBe(values.reduce((sum, value) => sum + value, 0));
        expect(histogram.min).toBe(Math.min(...values));
        expect(histogram.max).toBe(Math.max(...values));
      }),
    );
  });

  test("merged from parts equals the whole, however the values are dealt out", () => {
    fc.assert(
      fc.property(fc.array(durations, { minLength: 1, maxLength: 5 }), (parts) => {
        const merged = new DurationHistogram();
        for (const part of parts) merged.merge(recorded(part));
        const whole = recorded(parts.flat());
        expect([merged.count, merged.total, merged.min, merged.max]).toEqual([
          whole.count,
          whole.total,
          whole.min,
          whole.max,
        ]);
        for (let percent = 0; percent <= 100; percent += 2.5) {
          expect(merged.percentile(percent)).toBe(whole.percentile(percent));
        }
      }),
      { numRuns: 50 },
    );
  });

  test("comes back from JSON text equal", () => {
    fc.assert(
      fc.property(durations, (values) => {
        const histogram = recorded(values);
        const back = DurationHistogram.fromJSON(JSON.parse(JSON.stringify(histogram)));
        expect([back.count, back.total, back.min, back.max]).toEqual([
          histogram.count,
          histogram.total,
          histogram.min,
          histogram.max,
        ]);
        for (let percent = 0; percent <= 100; percent += 5) {
          expect(back.percentile(percent)).toBe(histogram.percentile(percent));
        }
        back.merge(histogram);
        expect(back.count).toBe(2 * values.length);
      }),
      { numRuns: 50 },
    );
  });

  test("without values is all zeros, also through JSON", () => {
    for (const histogram of [
      new DurationHistogram(),
      DurationHistogram.fromJSON(JSON.parse(JSON.stringify(new DurationHistogram()))),
    ]) {
      expect([histogram.count, histogram.total, histogram.min, histogram.max, histogram.percentile(99)]).toEqual([
        0, 0, 0, 0, 0,
      ]);
    }
  });

  test("counts what is longer than an hour in its last bucket and keeps the true maximum and total", () => {
    const histogram = recorded([5, 3 * HIGHEST_NS]);
    expect(histogram.count).toBe(2);
    expect(histogram.max).toBe(3 * HIGHEST_NS);
    expect(histogram.total).toBe(3 * HIGHEST_NS + 5);
    expect(histogram.percentile(100) / HIGHEST_NS).toBeCloseTo(1, 2);
    expect(histogram.footprintBytes).toBeLessThan(200_000);
  });

  test("refuses damaged JSON and says which field is wrong", () => {
    const data = recorded([1, 2, 3]).toJSON();
    expect(() => DurationHistogram.fromJSON({ ...data, encoded: "AAAA" })).toThrow(/encoded/);
    expect(() => DurationHistogram.fromJSON({ ...data, count: 4 })).toThrow(/count says 4 but the buckets hold 3/);
  });

  test("forgets everything on reset", () => {
    const histogram = recorded([10, 20]);
    histogram.reset();
    histogram.record(7);
    expect([histogram.count, histogram.total, histogram.min, histogram.max, histogram.percentile(50)]).toEqual([
      1, 7, 7, 7, 7,
    ]);
  });
});
