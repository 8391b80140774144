// The meter of bandwidths, which roofs are measured with and benchmarks print beside a model's speed; and what is said of
// measurements.

import { describe, expect, test } from "bun:test";
import { quantile, spread, summarise } from "../../src/benchmark/statistics/summary.ts";
import { measurableBytes, openBandwidth } from "../../src/engine/bandwidth.ts";
import { openLibrary } from "../../src/engine/library.ts";
import { EngineError } from "../../src/errors.ts";

const library = await openLibrary();
const levels = library.levels.flatMap(({ supported }, level) => (supported ? [level] : []));

describe("the bandwidth meter", () => {
  test("moves all of its memory every time, at every level, on one thread and on more than there are CPUs", () => {
    for (const level of levels) {
      for (const threadCount of [1, 2, 64]) {
        const meter = openBandwidth(library, { level, threadCount, bytesMax: 2 << 20 });
        for (const traffic of ["read", "write", "copy"] as const) {
          for (const bytes of [1024, 10_000, 2 << 20]) {
            const speed = meter.measure(traffic, bytes, 8 << 20);
            // 100,000 GB/s would be 8 MiB in less than 100 ns: nothing was moved.
            expect(speed).toBeGreaterThan(0);
            expect(speed).toBeLessThan(100_000);
          }
        }
        meter.close();
      }
    }
  });

  test("measures working sets of whole pieces", () => {
    expect([1, 1024, 2047, 3 << 19, 5 << 20].map(measurableBytes)).toEqual([1024, 1024, 1024, 1 << 20, 5 << 20]);
  });

  test("is refused for no memory, no thread, too many threads, no level, and more memory than there is", () => {
    const open =
      (bytesMax: number, threadCount: number, level = 0) =>
      () =>
        openBandwidth(library, { level, threadCount, bytesMax });
    expect(open(0, 1)).toThrow(EngineError);
    expect(open(1 << 20, 0)).toThrow(EngineError);
    expect(open(1 << 20, 65)).toThrow(EngineError);
    expect(open(1 << 20, 1, library.levels.length)).toThrow(EngineError);
    expect(open(2 ** 50, 1)).toThrow("bandwidth cannot be measured: the system refused threads or memory");
    const meter = openBandwidth(library, { level: 0, threadCount: 1, bytesMax: 1 << 20 });
    expect(() => meter.measure("read", 2 << 20, 1 << 20)).toThrow("out of bounds");
    expect(() => meter.measure("read", 1 << 20, 0)).toThrow("out of bounds");
    meter.close();
  });
});

describe("what is said of measurements", () => {
  test("is the median, the ends, and their distance as a part of the median", () => {
    const summary = summarise([5, 1, 3, 2, 4]);
    expect(summary).toEqual({ median: 3, minimum: 1, maximum: 5, count: 5 });
    expect(spread(summary)).toBeCloseTo(4 / 3, 12);
    expect(summarise([2, 1]).median).toBe(1.5);
  });

  test("is a quantile between neighbours by their distance", () => {
    expect(quantile([0, 10], 0.25)).toBe(2.5);
    expect(quantile([7], 0.99)).toBe(7);
  });
});
