// The types of benchmarks: which there are, and what is said of other names.

import { expect, test } from "bun:test";
import { findBenchmark } from "../../src/benchmark/registry.ts";

test("a type is found by its name, and no other name is one, even if every object has a field of it", async () => {
  expect((await findBenchmark("inference")).needsModel).toBe(true);
  expect((await findBenchmark("system")).needsModel).toBe(false);
  for (const name of ["speed", "", "__proto__", "constructor", "toString", "hasOwnProperty"]) {
    const problem = `--type: there is no type ${JSON.stringify(name)}; there are inference, memory, system`;
    await expect(findBenchmark(name)).rejects.toThrow(problem);
  }
});
