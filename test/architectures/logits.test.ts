// Every family's logits against an independent forward pass in double precision, on small random models. What is compared is
// the whole way: file, graph, plan, packed weights, kernels, paged cache.

import { describe, expect, test } from "bun:test";
import { type LoadOptions, loadModel } from "../../src/index.ts";
import type { DType } from "../../src/model/file.ts";
import { temporaryFolder } from "../support/folder.ts";
import { type GgufWriter, type TinyModelOptions, tinyModel } from "../support/gguf-writer.ts";
import { Random } from "../support/random.ts";
import { referenceModel } from "../support/reference-model.ts";

const folder = temporaryFolder();
let files = 0;

interface Comparison {
  /** Largest difference of a logit; logits have a standard deviation of about 1. */
  readonly largest: number;
  readonly rootMeanSquare: number;
}

async function compare(
  options: TinyModelOptions,
  count: number,
  change: (writer: GgufWriter) => void = () => {},
  oneByOne = false,
  kvCache: LoadOptions["kvCache"] = "f16",
): Promise<Comparison> {
  const writer = tinyModel(options);
  change(writer);
  const built = writer.build();
  const path = folder.write(`model${files++}.gguf`, built.bytes);
  const random = new Random(count);
  const tokens = Uint32Array.from({ length: count }, () => random.below(500));
  const expected = referenceModel(built, kvCache).logits(tokens);
  let row = 0;
  let largest = 0;
  let squares = 0;
  let values = 0;
  await using model = await loadModel(path, { kvCache });
  await model.score(tokens, {
    oneByOne,
    onLogits(rows, rowCount) {
      const width = rows.length / rowCount;
      for (let index = 0; index < rowCount; index++, row++) {
        const reference = expected[row] ?? new Float64Array(0);
        expect(reference.length).toBe(width);
        for (let column = 0; column < width; column++) {
          const difference = Math.abs((rows[index * width + column] ?? Number.NaN) - (reference[column] ?? Number.NaN));
          largest = Math.max(largest, difference);
          squares += difference * difference;
          values += 1;
        }
      }
    },
  });
  expect(row).toBe(count);
  return { largest, rootMeanSquare: Math.sqrt(squares / values) };
}

/**
 * What float32 arithmetic may differ by. Keys and values that lie between two float16 numbers may fall to either side,
 * which is 2^-11 of one of many terms. Measured: up to 6·10^-4 over 330 positions and six layers of Gemma, else below 3·10^-4.
 */
const floatBound = 2e-3;

const shapes: Record<string, { options: TinyModelOptions; count: number; change?: (writer: GgufWriter) => void }> = {
  "llama, untied head": { options: { architecture: "llama" }, count: 90 },
  "llama, tied head": { options: { architecture: "llama", tied: true }, count: 20 },
  "llama with linear rope scaling": { options: { architecture: "llama", ropeLinearFactor: 4 }, count: 40 },
  "llama with frequency factors": {
    options: { architecture: "llama", ropeFactors: [1, 1, 1.5, 2, 3, 4, 6, 8] },
    count: 40,
  },
  "llama with biases": {
    options: { architecture: "llama" },
    count: 20,
    change(writer) {
      const random = new Random(5);
      for (const [name, width] of [
        ["attn_q", 64],
        ["attn_k", 32],
        ["attn_v", 32],
        ["attn_output", 64],
        ["ffn_gate", 128],
        ["ffn_up", 128],
        ["ffn_down", 64],
      ] as const) {
        writer.tensor(
          `blk.1.${name}.bias`,
          "F32",
          [width],
          Float32Array.from({ length: width }, () => random.normal()),
        );
      }
    },
  },
  "llama that turns only half of each head": {
    options: { architecture: "llama" },
    count: 40,
    change: (writer) => writer.remove("llama.rope.dimension_count").set("llama.rope.dimension_count", "uint32", 8),
  },
  "llama with another head width and every head its own keys": {
    options: { architecture: "llama", heads: 3, kvHeads: 3, headWidth: 32, width: 96 },
    count: 30,
  },
  qwen2: { options: { architecture: "qwen2" }, count: 90 },
  "qwen2, untied head": { options: { architecture: "qwen2", tied: false }, count: 20 },
  qwen3: { options: { architecture: "qwen3" }, count: 90 },
  "qwen3 with heads wider than the stream": {
    options: { architecture: "qwen3", heads: 4, kvHeads: 1, headWidth: 48 },
    count: 30,
  },
  "gemma3, windows crossed and one layer without": { options: { architecture: "gemma3", layers: 7 }, count: 90 },
  "gemma3, untied head": { options: { architecture: "gemma3", tied: false }, count: 20 },
  "gemma3 with linear rope scaling of the global layers": {
    options: { architecture: "gemma3", layers: 6, ropeLinearFactor: 8 },
    count: 40,
  },
  "gemma3 with soft caps": {
    options: { architecture: "gemma3", layers: 6 },
    count: 40,
    change: (writer) =>
      writer.set("gemma3.attn_logit_softcapping", "float32", 2).set("gemma3.final_logit_softcapping", "float32", 1.5),
  },
  "gemma3 with another pattern and local base": {
    options: { architecture: "gemma3", layers: 6, slidingWindow: 8 },
    count: 40,
    change: (writer) => writer.set("gemma3.rope.freq_base_swa", "float32", 500),
  },
};

describe("logits equal the reference's", () => {
  for (const [name, { options, count, change }] of Object.entries(shapes)) {
    test(`${name}`, async () => {
      expect((await compare({ dtype: "F32", ...options }, count, change)).largest).toBeLessThan(floatBound);
    });
  }

  test("over several pages and prompt chunks", async () => {
    const options: TinyModelOptions = { architecture: "gemma3", dtype: "F32", layers: 6, slidingWindow: 70 };
    expect((await compare(options, 330)).largest).toBeLessThan(floatBound);
  });

  test("a token a step, past the positions that one thread's share of attention covers", async () => {
    const options: TinyModelOptions = { architecture: "llama", dtype: "F32", context: 1024 };
    expect((await compare(options, 600, undefined, true)).largest).toBeLessThan(floatBound);
  });
});

/**
 * Products with packed weights take activations of 8 bits per 32 columns: each rounds to half of 1/127 of the largest of
 * its 32, about 0.5 % of the activations' size, in each of some seven products one after another. Products with formats of
 * 16 bits take 14 bits where the level multiplies 16-bit integers, 64 times finer, of weights too, and float32 elsewhere.
 * Measured: 0.018 to 0.023 for the formats below 16 bits; for the others 0.0006, or 7·10^-6 with float32.
 */
const roundingBounds: Record<Exclude<DType, "F32">, number> = {
  F16: 0.001,
  BF16: 0.001,
  Q4_0: 0.04,
  Q4_1: 0.04,
  Q5_0: 0.04,
  Q5_1: 0.04,
  Q8_0: 0.04,
  Q2_K: 0.04,
  Q3_K: 0.04,
  Q4_K: 0.04,
  Q5_K: 0.04,
  Q6_K: 0.04,
  IQ4_NL: 0.04,
  IQ4_XS: 0.04,
};

describe("logits of rounded weights lie near the reference's", () => {
  for (const [dtype, bound] of Object.entries(roundingBounds)) {
    test(`llama in ${dtype}`, async () => {
      const result = await compare({ architecture: "llama", dtype: dtype as DType }, 12);
      expect(result.rootMeanSquare).toBeLessThan(bound);
    });
  }

  test("gemma3 with layers in Q5_0 and a shared embedding in Q8_0, as its own files have it", async () => {
    const options: TinyModelOptions = { architecture: "gemma3", dtype: "Q5_0", embeddingDtype: "Q8_0", layers: 6 };
    expect((await compare(options, 40)).rootMeanSquare).toBeLessThan(0.04);
  });
});

/**
 * A key or value that lies between two multiples of its scale may fall to either side, which is 1/127 of the largest of its
 * 32. Measured: up to 5·10^-3, in the root mean square up to 6·10^-4.
 */
const stepBound = 0.02;

describe("with keys and values in Q8_0, logits equal those of a reference that rounds them alike", () => {
  const wide: Record<string, TinyModelOptions> = {
    llama: { architecture: "llama", headWidth: 32 },
    "qwen2, each head its own keys": { architecture: "qwen2", kvHeads: 4, headWidth: 64 },
    "qwen3 with twelve heads to a key": { architecture: "qwen3", heads: 12, kvHeads: 1, headWidth: 96 },
    "gemma3, windows crossed": { architecture: "gemma3", layers: 6, headWidth: 32, slidingWindow: 70 },
  };
  for (const [name, options] of Object.entries(wide)) {
    for (const oneByOne of [false, true]) {
      test(`${name}, ${oneByOne ? "a token a step" : "whole"}`, async () => {
        const result = await compare({ dtype: "F32", ...options }, 150, undefined, oneByOne, "q8_0");
        expect(result.largest).toBeLessThan(stepBound);
        expect(result.rootMeanSquare).toBeLessThan(stepBound / 10);
      });
    }
  }
});

/** Rows of logits of a text scored with a model's keys and values in the format. */
async function rowsWith(path: string, tokens: Uint32Array, kvCache: LoadOptions["kvCache"]): Promise<Float32Array[]> {
  const list: Float32Array[] = [];
  await using model = await loadModel(path, { kvCache });
  await model.score(tokens, {
    onLogits(rows, count) {
      const width = rows.length / count;
      for (let row = 0; row < count; row++) list.push(rows.slice(row * width, (row + 1) * width));
    },
  });
  return list;
}

/** Σ p ln(p / q) of the distributions that two rows of logits stand for. */
function divergence(a: Float32Array, b: Float32Array): number {
  const logSum = (row: Float32Array) => Math.log(row.reduce((sum, value) => sum + Math.exp(value), 0));
  const [sumA, sumB] = [logSum(a), logSum(b)];
  return a.reduce((sum, value, index) => {
    const logP = value - sumA;
    return sum + Math.exp(logP) * (logP - ((b[index] ?? Number.NaN) - sumB));
  }, 0);
}

test("keys and values in Q8_0 answer nearly as those in float16 do", async () => {
  const random = new Random(8);
  const tokens = Uint32Array.from({ length: 400 }, () => random.below(500));
  for (const architecture of ["llama", "gemma3"] as const) {
    const path = folder.file(`${architecture}.gguf`);
    tinyModel({ architecture, dtype: "F32", layers: 6, headWidth: 64, slidingWindow: 100 }).write(path);
    const [half, rounded] = [await rowsWith(path, tokens, "f16"), await rowsWith(path, tokens, "q8_0")];
    const divergences = half.map((row, index) => divergence(row, rounded[index] ?? new Float32Array(0)));
    const mean = divergences.reduce((sum, value) => sum + value, 0) / divergences.length;
    // Above 0: they are not the same numbers. Measured: 7·10^-5 and 3·10^-5.
    expect(mean).toBeGreaterThan(0);
    expect(mean).toBeLessThan(2e-4);
  }
});
