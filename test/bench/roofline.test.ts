// The rows of `bun run bench:kernels`: what a run of each costs, and the stand that runs them.

import { describe, expect, test } from "bun:test";
import { kernelCases, memoryBytes } from "../../bench/kernel-cases.ts";
import { openLibrary } from "../../src/engine/library.ts";
import { type Measurement, openStand } from "../../src/engine/stand.ts";
import { dtypeBlocks } from "../../src/model/file.ts";
import { measuredKernels } from "../../src/plan/layout.ts";

const library = await openLibrary();
const levels = library.levels.flatMap(({ supported }, level) => (supported ? [level] : []));

describe("the rows", () => {
  const cases = kernelCases();

  test("have every kernel, and products in every format at 1, 4, 16 and 512 tokens", () => {
    const kernels = new Set(cases.map(({ measurement }) => measurement.kernel));
    expect([...kernels].sort()).toEqual(measuredKernels.filter((name) => !name.startsWith("peak")).sort());
    for (const format of Object.keys(dtypeBlocks)) {
      const counts = cases
        .filter(({ kernel }) => kernel === `matmul ${format}`)
        .map(({ measurement }) => measurement.tokens);
      for (const tokens of [1, 4, 16, 512]) expect(counts).toContain(tokens);
    }
    expect(new Set(cases.map(({ kernel, shape }) => `${kernel} ${shape}`)).size).toBe(cases.length);
  });

  test("take their large operands from more memory than caches have, unless they say that they do not", () => {
    for (const { fromMemory, measurement } of cases) {
      if (fromMemory) expect(measurement.workingBytes).toBe(memoryBytes);
    }
  });

  test("count what a run moves: a token's weights and activations, a token's keys and values", () => {
    const bytesOf = (kernel: string, part: string) =>
      cases.find((row) => row.kernel === kernel && row.shape.includes(part))?.bytes ?? Number.NaN;
    // 4.5 bits a weight; a row of 2,048 int8, 64 scales and 128 sums; 8,192 float32 results.
    expect(bytesOf("matmul Q4_0", "llama-1b up), 1 token")).toBe(
      (8192 * 2048 * 4.5) / 8 + 2048 + 64 * 4 + 128 * 4 + 8192 * 4,
    );
    expect(bytesOf("matmul F32", "llama-1b up), 4 tokens")).toBe(8192 * 2048 * 4 + 4 * (2048 * 4 + 8192 * 4));
    // 4,096 positions of 8 heads of 64 values, keys and values in float16.
    expect(bytesOf("attention", "llama-1b, generation at 4096")).toBeGreaterThan(4096 * 8 * 64 * 2 * 2);
    expect(bytesOf("attention", "llama-1b, generation at 4096")).toBeLessThan(4096 * 8 * 64 * 2 * 2 * 1.01);
  });
});

describe("a stand", () => {
  test("runs the smallest row of each kernel at every level, and says how long that took", () => {
    for (const level of levels) {
      const done = new Set<string>();
      for (const { kernel, measurement } of kernelCases()) {
        if (done.has(kernel)) continue;
        done.add(kernel);
        const small: Measurement = { ...measurement, tokens: 1, workingBytes: 0 };
        const stand = openStand(library, small, { level, threadCount: 2 });
        expect(stand.run(1)).toBeGreaterThan(0);
        expect(stand.counted).toBe(0);
        stand.close();
      }
    }
  });

  test("counts what a peak does, the same in every run", () => {
    const stand = openStand(library, { kernel: "peak_float" }, { level: 0, threadCount: 2 });
    stand.run(1);
    const { counted } = stand;
    expect(counted).toBeGreaterThan(0);
    stand.run(2);
    expect(stand.counted).toBe(counted);
    stand.close();
  });

  test("says what was refused", () => {
    const open = (measurement: Measurement, threadCount = 1) =>
      openStand(library, measurement, { level: 0, threadCount });
    expect(() => open({ kernel: "matmul", format: "Q4_K", rows: 16, columns: 32, tokens: 1 })).toThrow(
      "matmul cannot be measured: a size is out of bounds",
    );
    expect(() => open({ kernel: "norm", columns: 64, tokens: 0 })).toThrow("a size is out of bounds");
    expect(() => open({ kernel: "norm", columns: 64, tokens: 1 }, 65)).toThrow("a size is out of bounds");
  });
});
