import { expect, test } from "bun:test";
import { Thinned } from "../../../src/benchmark/system/thinned.ts";

test("few values are all kept, and of many every so manieth, from the first on", () => {
  for (const count of [0, 1, 7, 8, 9, 16, 17, 100, 1000, 4097]) {
    const thinned = new Thinned(8);
    for (let value = 0; value < count; value++) thinned.add(value);
    const { values } = thinned;
    if (count <= 8) {
      expect(values).toEqual(Array.from({ length: count }, (_, value) => value));
      continue;
    }
    expect(values.length).toBeWithin(4, 9);
    const step = values[1] ?? 0;
    expect(values).toEqual(Array.from({ length: values.length }, (_, place) => place * step));
    // Nothing is left out at the end either.
    expect(count - (values.at(-1) ?? 0)).toBeLessThanOrEqual(step);
  }
});
