// How far encoded values are from the source's: against llama.cpp's quantizer, whose errors on the same values are stored
// (make_llama_errors.py), against the best there is where trying everything is feasible, and where the values came from the
// same format.

import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { quantizeModel } from "../../src/index.ts";
import { temporaryFolder } from "../support/folder.ts";
import { decodeTensor, encodeTensor } from "../support/formats.ts";
import { readReference } from "../support/gguf-reference.ts";
import { GgufWriter } from "../support/gguf-writer.ts";
import { typeOf } from "../support/quantization.ts";
import { Random } from "../support/random.ts";

type Quantized = Exclude<keyof typeof typeOf, "F16" | "BF16">;
const quantized = Object.keys(typeOf).filter((dtype) => dtype !== "F16" && dtype !== "BF16") as Quantized[];
const columns = 256;
const rows = 32;

const folder = temporaryFolder();
let files = 0;

/** The values, which are float32, as the format has them. */
async function through(dtype: Quantized, values: Float64Array): Promise<Float64Array> {
  const [source, target] = [folder.file(`${files}-in.gguf`), folder.file(`${files++}-out.gguf`)];
  new GgufWriter()
    .set("general.architecture", "string", "llama")
    .set("llama.block_count", "uint32", 1)
    .set("llama.attention.head_count", "uint32", 1)
    .tensor("blk.0.ffn_up.weight", "F32", [columns, values.length / columns], values)
    .write(source);
  await quantizeModel(source, target, { type: typeOf[dtype] });
  const whole = new Uint8Array(readFileSync(target));
  const tensor = readReference(whole).tensors.get("blk.0.ffn_up.weight");
  expect(tensor?.dtype).toBe(dtype);
  const begin = Number(tensor?.byteOffset);
  return decodeTensor(dtype, whole.slice(begin, begin + Number(tensor?.byteLength)));
}

function meanSquare(values: Float64Array): number {
  return values.reduce((sum, x) => sum + x * x, 0) / values.length;
}

/** Σ (1 + emphasis · x² / mean x²) · (found − x)². */
function errorOf(values: Float64Array, found: Float64Array, emphasis: number): number {
  const mean = meanSquare(values);
  return values.reduce((sum, x, i) => sum + (1 + (emphasis * x * x) / mean) * ((found[i] ?? 0) - x) ** 2, 0);
}

/** The draws of make_llama_errors.py. */
class Draws {
  #state = 7;

  uniform(): number {
    this.#state = (Math.imul(this.#state, 1664525) + 1013904223) >>> 0;
    return this.#state / 2 ** 32;
  }

  bell(): number {
    return this.uniform() + this.uniform() + this.uniform() + this.uniform() - 2;
  }
}

const kinds: Readonly<Record<string, (draws: Draws, index: number) => number>> = {
  bell: (draws) => draws.bell() * 0.03125,
  "long tails": (draws) => {
    const value = draws.bell();
    return value * value * value;
  },
  "above zero": (draws) => draws.bell() * 0.03125 + 0.0625,
  "below zero": (draws) => -Math.abs(draws.bell()),
  "one in eight": (draws) => (draws.uniform() < 0.125 ? draws.bell() : 0),
  "runs of different sizes": (draws, index) => draws.bell() * 2 ** ((Math.floor(index / 32) % 7) - 3),
};

function valuesOf(kind: string): Float64Array {
  const draws = new Draws();
  return Float64Array.from({ length: rows * columns }, (_, index) => Math.fround(kinds[kind]?.(draws, index) ?? 0));
}

describe("errors are no larger than llama.cpp's", () => {
  const stored = JSON.parse(readFileSync(join(import.meta.dir, "fixtures", "llama-cpp-errors.json"), "utf8"));
  test.each(quantized)("for %s, each value counting the same and large ones counting more", async (dtype) => {
    for (const kind of Object.keys(kinds)) {
      const values = valuesOf(kind);
      const found = await through(dtype, values);
      const [plain, weighted] = stored.errors[dtype][kind];
      const ratios = { plain: errorOf(values, found, 0) / plain, weighted: errorOf(values, found, 1) / weighted };
      expect({ kind, ratio: Math.max(ratios.plain, ratios.weighted) > 1 + 1e-6 ? ratios : 1 }).toEqual({
        kind,
        ratio: 1,
      });
    }
  });
});

/** Every finite float16 above zero. */
const halves = Array.from(new Float16Array(Uint16Array.from({ length: 0x7c00 }, (_, bits) => bits).buffer)).slice(1);

describe("errors are near the least there are", () => {
  /** The encoder's weights: what it makes least. */
  const emphasis = 0.5;
  const range = (low: number, high: number) => Array.from({ length: high - low + 1 }, (_, index) => low + index);
  const random = new Random(31);
  const blocks = Array.from({ length: 8 }, (_, block) =>
    Float64Array.from({ length: 32 }, () => Math.fround(random.normal() ** (block % 2 === 0 ? 1 : 3) * 0.05)),
  );

  /** The squared error where each value gets the nearest of `steps` (in rising order), no more than `most` of it. */
  function nearestError(values: Float64Array, weights: Float64Array, steps: readonly number[], most: number): number {
    let sum = 0;
    for (let i = 0; i < values.length && sum < most; i++) {
      const x = values[i] ?? 0;
      let least = Infinity;
      for (const step of steps) {
        const off = (step - x) ** 2;
        if (off > least) break;
        least = off;
      }
      sum += (weights[i] ?? 1) * least;
    }
    return sum;
  }

  /** Ratios to the least error that any of `grids` has, for each block. */
  async function ratios(
    dtype: Quantized,
    grids: (values: Float64Array) => Iterable<readonly number[]>,
  ): Promise<number[]> {
    // A row for each block, repeated to its length.
    const row = (block: Float64Array) => range(0, columns / 32 - 1).flatMap(() => [...block]);
    const found = await through(dtype, Float64Array.from(blocks.flatMap(row)));
    return blocks.map((values, index) => {
      const mean = meanSquare(values);
      const weights = values.map((x) => 1 + (emphasis * x * x) / mean);
      let least = Infinity;
      for (const grid of grids(values)) least = Math.min(least, nearestError(values, weights, grid, least));
      return errorOf(values, found.slice(index * columns, index * columns + 32), emphasis) / least;
    });
  }

  const scaled: readonly (readonly [Quantized, readonly number[]])[] = [
    ["Q4_0", range(-8, 7)],
    ["Q5_0", range(-16, 15)],
    ["IQ4_NL", [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]],
  ];
  test.each(scaled)("for %s, whose every scale can be tried", async (dtype, codes) => {
    const found = await ratios(dtype, function* (values) {
      const extreme = Math.max(...values.map(Math.abs));
      const outermost = Math.abs(codes[0] ?? 1);
      for (const half of halves) {
        // Far outside these, all values are cut off, or most codes are not used.
        if (half * outermost < extreme / 3 || half * outermost > extreme * 3) continue;
        yield codes.map((code) => code * half);
        yield codes.map((code) => -code * half).reverse();
      }
    });
    expect(Math.min(...found)).toBeGreaterThan(1 - 1e-6);
    expect(Math.max(...found)).toBeLessThan(1.05);
  });

  const lines: readonly (readonly [Quantized, number])[] = [
    ["Q4_1", 15],
    ["Q5_1", 31],
  ];
  test.each(lines)("for %s, whose every scale and minimum near the values' ends can be tried", async (dtype, top) => {
    const found = await ratios(dtype, function* (values) {
      const [low, high] = [Math.min(...values), Math.max(...values)];
      const step = (high - low) / top;
      const minimums = halves.map((half) => -half).filter((half) => Math.abs(half - low) < 2 * step);
      for (const half of halves) {
        if (half < 0.75 * step || half > 1.15 * step) continue;
        for (const minimum of minimums) yield range(0, top).map((code) => minimum + code * half);
      }
    });
    // With two numbers to find, a run of so few values has many lines that no small step makes better.
    expect(Math.max(...found)).toBeLessThan(1.5);
    expect(found.reduce((sum, ratio) => sum + ratio, 0) / found.length).toBeLessThan(1.1);
  });
});

describe("values that came from a format are found again in it", () => {
  const random = new Random(32);
  const values = Float64Array.from({ length: rows * columns }, () => Math.fround(random.normal() * 0.02));

  test.each(quantized)("in %s, written by a plain quantizer", async (dtype) => {
    const grid = decodeTensor(dtype, encodeTensor(dtype, values)).map(Math.fround);
    const lost = errorOf(values, grid, 0);
    expect(errorOf(grid, await through(dtype, grid), 0)).toBeLessThanOrEqual(lost * 1e-3);
  });

  test.each(quantized)("in %s, written by the encoder itself", async (dtype) => {
    const grid = (await through(dtype, values)).map(Math.fround);
    const lost = errorOf(values, grid, 0);
    expect(errorOf(grid, await through(dtype, grid), 0)).toBeLessThanOrEqual(lost * 0.01);
  });
});
