// The meter of the memory's read bandwidth, which `bun run bench` prints beside the model's speed.

import { describe, expect, test } from "bun:test";
import { quantile, spread, summarise } from "../../bench/statistics.ts";
import { openLibrary } from "../../src/engine/library.ts";

const { symbols } = await openLibrary();

describe("the bandwidth meter", () => {
  test("reads all of its memory every time, on one thread and on more than there are CPUs", () => {
    for (const threads of [1, 2, 64]) {
      const meter = symbols.tinyai_bandwidth_create(8 << 20, threads);
      if (!meter) throw new Error("no meter");
      for (let round = 0; round < 3; round++) {
        // 8 MiB in less than 1 µs would be 8,000 GB/s: nothing was read.
        expect(Number(symbols.tinyai_bandwidth_measure(meter))).toBeGreaterThan(1000);
      }
      symbols.tinyai_bandwidth_destroy(meter);
    }
  });

  test("is refused for no memory, no thread, too many threads, and more memory than there is", () => {
    expect(symbols.tinyai_bandwidth_create(0, 1)).toBe(null);
    expect(symbols.tinyai_bandwidth_create(1 << 20, 0)).toBe(null);
    expect(symbols.tinyai_bandwidth_create(1 << 20, 65)).toBe(null);
    expect(symbols.tinyai_bandwidth_create(2 ** 50, 1)).toBe(null);
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
