// Amounts in histograms: the precision that is promised, exact sums, merging and the way through JSON.

import { describe, expect, test } from "bun:test";
import { deflateSync, inflateSync } from "node:zlib";
import fc from "fast-check";
import { bucketsOf } from "../../profiler/buckets.ts";
import { DurationHistogram, HIGHEST_AMOUNT, Histogram, type HistogramData } from "../../profiler/index.ts";

/** Amounts over all magnitudes up to 2^53, small ones as likely as large ones, with the edges of buckets among them. */
const amounts = fc.array(
  fc.integer({ min: 0, max: 53 }).chain((bits) => {
    const power = 2 ** bits;
    return fc.oneof(
      fc.maxSafeInteger().map((value) => Math.abs(value) % power),
      fc.constantFrom(0, 1, power - 1, Math.min(power, HIGHEST_AMOUNT), Math.floor(power / 2)),
    );
  }),
  { minLength: 1, maxLength: 400 },
);

const percents = [0.1, 1, 10, 25, 50, 75, 90, 99, 99.9, 100];

function recorded(values: readonly number[]): Histogram {
  const histogram = new Histogram("bytes");
  for (const value of values) histogram.record(value);
  return histogram;
}

function exactSum(values: readonly number[]): bigint {
  return values.reduce((sum, value) => sum + BigInt(value), 0n);
}

/** What a histogram says of its sum, exactly. */
function totalOf(histogram: Histogram): bigint {
  const { total, totalRest = 0 } = histogram.toJSON();
  expect(total).toBe(histogram.total);
  return BigInt(total) + BigInt(totalRest);
}

/** Everything that a histogram says. */
function said(histogram: Histogram) {
  const { unit, count, min, max } = histogram;
  const percentiles = Array.from({ length: 201 }, (_, index) => histogram.percentile(index / 2));
  return { unit, count, min, max, total: totalOf(histogram), percentiles };
}

/** The smallest value that at least `percent` per cent of the values do not exceed. */
function exactPercentile(values: readonly number[], percent: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(Math.ceil((percent * sorted.length) / 100) - 1, 0)] ?? 0;
}

function thrownBy(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    return String(error);
  }
  return "nothing";
}

describe("a histogram", () => {
  test("gives percentiles within a thousandth of an exact sort", () => {
    fc.assert(
      fc.property(amounts, (values) => {
        const histogram = recorded(values);
        for (const percent of percents) {
          const exact = exactPercentile(values, percent);
          const given = histogram.percentile(percent);
          expect(given).toBeGreaterThanOrEqual(exact);
          expect(given - exact).toBeLessThanOrEqual(exact / 1000);
        }
        expect(histogram.percentile(100)).toBe(histogram.max);
      }),
      { numRuns: 300 },
    );
  });

  test("keeps count, total, minimum and maximum exactly, also where the total is beyond 2^53", () => {
    fc.assert(
      fc.property(amounts, (values) => {
        const histogram = recorded(values);
        expect(histogram.count).toBe(values.length);
        expect(totalOf(histogram)).toBe(exactSum(values));
        expect(histogram.total).toBe(Number(exactSum(values)));
        expect(histogram.min).toBe(Math.min(...values));
        expect(histogram.max).toBe(Math.max(...values));
      }),
    );
  });

  test("merged from parts equals the whole, however the amounts are dealt out, also through JSON text", () => {
    fc.assert(
      fc.property(fc.array(amounts, { minLength: 1, maxLength: 5 }), fc.boolean(), (parts, throughText) => {
        const merged = new Histogram("bytes");
        for (const part of parts) {
          const histogram = recorded(part);
          merged.merge(throughText ? Histogram.fromJSON(JSON.parse(JSON.stringify(histogram))) : histogram);
        }
        expect(said(merged)).toEqual(said(recorded(parts.flat())));
      }),
      { numRuns: 60 },
    );
  });

  test("comes back from JSON text equal, and can be added to", () => {
    fc.assert(
      fc.property(amounts, (values) => {
        const histogram = recorded(values);
        const back = Histogram.fromJSON(JSON.parse(JSON.stringify(histogram)));
        expect(said(back)).toEqual(said(histogram));
        back.merge(histogram);
        expect(said(back)).toEqual(said(recorded([...values, ...values])));
      }),
      { numRuns: 50 },
    );
  });

  test("records an amount many times as it would one by one", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.maxSafeInteger().map(Math.abs), fc.integer({ min: 1, max: 9 }))), (pairs) => {
        const histogram = new Histogram("bytes");
        for (const [amount, times] of pairs) histogram.record(amount, times);
        const values = pairs.flatMap(([amount, times]) => Array.from({ length: times }, () => amount));
        expect(said(histogram)).toEqual(said(recorded(values)));
      }),
      { numRuns: 50 },
    );
  });

  test("counts beyond 2^32 in one bucket, recorded, merged or through JSON text", () => {
    const many = 3_000_000_000;
    const recordedTwice = new Histogram("misses");
    recordedTwice.record(7, many);
    recordedTwice.record(7, many);
    recordedTwice.record(2 ** 40, 1);
    const merged = new Histogram("misses");
    for (const amount of [7, 7]) {
      const part = new Histogram("misses");
      part.record(amount, many);
      merged.merge(part);
    }
    merged.record(2 ** 40);
    const back = Histogram.fromJSON(JSON.parse(JSON.stringify(merged)));
    const doubled = Histogram.fromJSON(back.toJSON());
    doubled.merge(back);
    for (const histogram of [recordedTwice, merged, back]) {
      expect([histogram.count, histogram.percentile(99.9), histogram.max]).toEqual([2 * many + 1, 7, 2 ** 40]);
      expect(totalOf(histogram)).toBe(14n * BigInt(many) + 2n ** 40n);
    }
    expect([doubled.count, doubled.percentile(99.9)]).toEqual([4 * many + 2, 7]);
  });

  test("without amounts is all zeros, also through JSON text", () => {
    for (const histogram of [
      new DurationHistogram(),
      Histogram.fromJSON(JSON.parse(JSON.stringify(new DurationHistogram()))),
    ]) {
      expect(histogram.row()).toEqual({ unit: "ns", count: 0, total: 0, min: 0, p50: 0, p90: 0, p99: 0, max: 0 });
    }
  });

  test("gives a row in figures, with all amounts when asked", () => {
    const histogram = recorded([5, 1, 9, 1000]);
    const row = { unit: "bytes", count: 4, total: 1015, min: 1, p50: 5, p90: 1000, p99: 1000, max: 1000 } as const;
    expect(histogram.row()).toEqual(row);
    expect(histogram.row({ histogram: true })).toEqual({ ...row, histogram: histogram.toJSON() });
  });

  test("counts what is beyond 2^53 in its last bucket and keeps the true maximum and total", () => {
    const histogram = recorded([5, 2 ** 60]);
    expect([histogram.count, histogram.max, histogram.total]).toEqual([2, 2 ** 60, 2 ** 60]);
    expect(totalOf(histogram)).toBe(2n ** 60n + 5n);
    expect(histogram.percentile(100) / 2 ** 53).toBeCloseTo(1, 2);
    expect(histogram.footprintBytes).toBeLessThan(200_000);
  });

  test("is as small as its largest amount allows", () => {
    expect(recorded([65_535]).footprintBytes).toBeLessThan(30_000);
    expect(recorded([3_600_000_000_000]).footprintBytes).toBeLessThan(140_000);
  });

  test("refuses to add amounts of another unit", () => {
    expect(() => new DurationHistogram().merge(recorded([1]))).toThrow(/bytes cannot be added to ns/);
  });

  test("refuses damaged JSON and says which field is wrong", () => {
    const data = recorded([1, 2, 3]).toJSON();
    expect(() => Histogram.fromJSON({ ...data, encoded: "AAAA" })).toThrow(/encoded/);
    expect(() => Histogram.fromJSON({ ...data, count: 4 })).toThrow(/count says 4 but the buckets hold 3/);
  });

  test("refuses, before it takes time or memory, whatever asks for more than a histogram has", () => {
    const data = recorded([1, 2, 3]).toJSON();
    const unpacked = inflateSync(Buffer.from(data.encoded, "base64").subarray(8));
    /** As the format has it, with the header's words changed. */
    const packed = (change: (header: Buffer) => void, payload: readonly number[] | Buffer = unpacked.subarray(40)) => {
      const header = Buffer.from(unpacked.subarray(0, 40));
      header.writeInt32BE(payload.length, 4);
      change(header);
      const body = deflateSync(Buffer.concat([header, Buffer.from(payload)]));
      const start = Buffer.alloc(8);
      start.writeInt32BE(0x1c849314, 0);
      start.writeInt32BE(body.length, 4);
      return Buffer.concat([start, body]).toString("base64");
    };
    const same = (): void => {};
    expect(said(Histogram.fromJSON({ ...data, encoded: packed(same) }))).toEqual(said(recorded([1, 2, 3])));
    expect(bucketsOf({ ...data, encoded: packed(same) })).toEqual(bucketsOf(data));
    const cut = Buffer.from(data.encoded, "base64");
    cut.writeInt32BE(0x7fffffff, 4);
    const hostile = {
      "the payload's length of 2^31 - 1": "HISTBAAAAB94nJNpmcxc////fwYIYIbSjBDq/3/7DxAWEwDKEgfm",
      "a length of 2^31 - 1": packed((header) => header.writeInt32BE(0x7fffffff, 4)),
      "a length of -1": packed((header) => header.writeInt32BE(-1, 4)),
      "a packed length of 2^31 - 1": cut.toString("base64"),
      "2^31 empty buckets": packed(same, [0xff, 0xff, 0xff, 0xff, 0x0f, 2]),
      "2^31 empty buckets many times": packed(same, Buffer.alloc(300_000, Buffer.from([0xff, 0xff, 0xff, 0xff, 0x0f]))),
      "20 MB": packed(same, Buffer.alloc(20_000_000)),
      "a text of 8 MB": "A".repeat(8_000_000),
      "a count that never ends": packed(same, Buffer.alloc(1000, 0xff)),
      "a count that is cut off": packed(same, [0xff]),
      "another format": packed((header) => header.writeInt32BE(1, 0)),
      "5 digits": packed((header) => header.writeInt32BE(5, 12)),
      "a lowest amount of 0": packed((header) => header.writeBigInt64BE(0n, 16)),
      "a highest amount of 2^62": packed((header) => header.writeBigInt64BE(2n ** 62n, 24)),
      "a highest amount of -1": packed((header) => header.writeBigInt64BE(-1n, 24)),
      "buckets beyond the maximum": packed(same, [0, 2, 2, 0, 2]),
      nothing: "",
    };
    for (const [what, encoded] of Object.entries(hostile)) {
      for (const read of [Histogram.fromJSON, bucketsOf]) {
        expect({ what, thrown: thrownBy(() => read({ ...data, encoded })) }).toEqual({
          what,
          thrown: expect.stringMatching(/^RangeError: histogram: the field encoded is not /),
        });
      }
    }
    for (const field of ["count", "total", "totalRest", "min", "max"] as const) {
      for (const value of [Number.NaN, Number.POSITIVE_INFINITY, "3", null]) {
        const damaged = { ...data, [field]: value } as HistogramData;
        for (const read of [Histogram.fromJSON, bucketsOf]) {
          expect(thrownBy(() => read(damaged))).toMatch(new RegExp(`^RangeError: histogram: the field ${field} `));
        }
      }
    }
  });

  test("forgets everything on reset", () => {
    const histogram = recorded([10, 2 ** 53]);
    histogram.reset();
    histogram.record(7);
    expect(said(histogram)).toEqual(said(recorded([7])));
    expect(histogram.footprintBytes).toBeLessThan(30_000);
  });
});
