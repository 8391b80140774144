// The planner's sums of packed weights against the library's, which is what writes there.

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { openLibrary } from "../../src/engine/library.ts";
import type { DType } from "../../src/model/file.ts";
import { activationForm, formatNumber, packedBytes, rowBytes } from "../../src/plan/formats.ts";
import { blockSize } from "../support/formats.ts";
import { tensorTypeNumbers } from "../support/gguf-writer.ts";

const dtypes = Object.keys(tensorTypeNumbers) as DType[];
const { symbols } = await openLibrary();

function libraryBytes(dtype: DType, rows: number, columns: number) {
  const out = new BigUint64Array(2);
  expect(symbols.tinyai_packed_bytes(formatNumber(dtype), rows, columns, out)).toBe(1);
  return { weight: Number(out[0]), scales: Number(out[1]) };
}

describe("packed bytes equal the library's", () => {
  for (const dtype of dtypes) {
    test(dtype, () => {
      const block = blockSize(dtype).columns;
      fc.assert(
        fc.property(fc.integer({ min: 1, max: 5000 }), fc.integer({ min: 1, max: 64 }), (rows, blocks) => {
          expect(packedBytes(dtype, rows, blocks * block)).toEqual(libraryBytes(dtype, rows, blocks * block));
        }),
      );
    });
  }

  test("for the largest matrices that a graph may have", () => {
    for (const dtype of dtypes) {
      expect(packedBytes(dtype, 1 << 18, 1 << 16)).toEqual(libraryBytes(dtype, 1 << 18, 1 << 16));
    }
  });
});

test("every format has a number of its own, and the library knows no more", () => {
  const numbers = dtypes.map(formatNumber);
  expect(new Set(numbers).size).toBe(dtypes.length);
  expect(symbols.tinyai_packed_bytes(Math.max(...numbers) + 1, 1, 256, new BigUint64Array(2))).toBe(0);
});

test("packed weights are never much larger than the file's", () => {
  for (const dtype of dtypes) {
    const { columns, bytes } = blockSize(dtype);
    const { weight, scales } = packedBytes(dtype, 1024, columns * 8);
    // Q3_K and Q6_K keep their sub-scales in whole bytes, Q4_K and Q5_K also their sub-minimums.
    expect((weight + scales) / (1024 * 8 * bytes)).toBeLessThan(1.09);
    expect((weight + scales) / (1024 * 8 * bytes)).toBeGreaterThan(0.99);
  }
});

test("float32 weights take float32 activations, those of 16 bits wide ones, the others int8", () => {
  expect(dtypes.filter((dtype) => activationForm(dtype) === "float")).toEqual(["F32"]);
  expect(dtypes.filter((dtype) => activationForm(dtype) === "wide")).toEqual(["F16", "BF16"]);
});

test("a row of int8 activations holds its quants, a scale for 32 and a sum for 16, in whole cache lines", () => {
  expect(rowBytes("int8", 32)).toBe(64);
  expect(rowBytes("int8", 640)).toBe(Math.ceil((640 + 20 * 4 + 40 * 4) / 64) * 64);
});

test("a row of wide activations has room for float32, and for int16 of whole blocks with a scale each", () => {
  for (const columns of [1, 31, 32, 33, 75, 576, 4864]) {
    const blocks = Math.ceil(columns / 32);
    const bytes = rowBytes("wide", columns);
    expect(bytes % 64).toBe(0);
    expect(bytes).toBeGreaterThanOrEqual(columns * 4);
    expect(bytes).toBeGreaterThanOrEqual(blocks * (32 * 2 + 4));
    expect(bytes).toBeLessThan(columns * 4 + 128);
  }
});
