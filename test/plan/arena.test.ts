// The arena planner on random lifetimes, against what must hold for any placement.

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { planArena } from "../../src/plan/arena.ts";

const lifetime = fc
  .record({ bytes: fc.integer({ min: 1, max: 10_000 }), first: fc.nat(30), length: fc.nat(10) })
  .map(({ bytes, first, length }) => ({ bytes, first, last: first + length }));
const lifetimes = fc.array(lifetime, { maxLength: 40 });
const alignment = fc.constantFrom(1, 16, 64, 4096);

describe("buffers in the arena", () => {
  test("never share a byte with one that is needed at the same time", () => {
    fc.assert(
      fc.property(lifetimes, alignment, (list, align) => {
        const { offsets } = planArena(list, align);
        list.forEach((a, i) => {
          list.forEach((b, j) => {
            if (i >= j || a.last < b.first || b.last < a.first) return;
            const [from, other] = [offsets[i] ?? -1, offsets[j] ?? -1];
            expect(from + a.bytes <= other || other + b.bytes <= from).toBe(true);
          });
        });
      }),
    );
  });

  test("are aligned, and lie inside the arena", () => {
    fc.assert(
      fc.property(lifetimes, alignment, (list, align) => {
        const { offsets, bytes } = planArena(list, align);
        expect(offsets.length).toBe(list.length);
        list.forEach((buffer, index) => {
          const offset = offsets[index] ?? -1;
          expect(offset % align).toBe(0);
          expect(offset).toBeGreaterThanOrEqual(0);
          expect(offset + buffer.bytes).toBeLessThanOrEqual(bytes);
        });
      }),
    );
  });

  test("take no less than the largest sum of one moment and no more than the sum of all", () => {
    fc.assert(
      fc.property(lifetimes, (list) => {
        const { bytes } = planArena(list, 1);
        const sumAt = (moment: number) =>
          list.reduce((sum, { bytes: size, first, last }) => sum + (first <= moment && moment <= last ? size : 0), 0);
        expect(bytes).toBeGreaterThanOrEqual(Math.max(0, ...list.map(({ first }) => sumAt(first))));
        expect(bytes).toBeLessThanOrEqual(list.reduce((sum, { bytes: size }) => sum + size, 0));
      }),
    );
  });

  test("that follow one another share one place", () => {
    const list = Array.from({ length: 10 }, (_, index) => ({ bytes: 100, first: index, last: index }));
    expect(planArena(list, 64)).toEqual({ offsets: new Array(10).fill(0), bytes: 128 });
  });

  test("can be none", () => {
    expect(planArena([], 64)).toEqual({ offsets: [], bytes: 0 });
  });
});
