// Every family's logits against an independent forward pass in double precision, on small random models. What is compared is
// the whole way: file, graph, plan, packed weights, kernels, paged cache.

import { describe, expect, test } from "bun:test";
import { loadModel } from "../../src/index.ts";
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
): Promise<Comparison> {
  const writer = tinyModel(options);
  change(writer);
  const built = writer.build();
  const path = folder.write(`model${files++}.gguf`, built.bytes);
  const random = new Random(count);
  const tokens = Uint32Array.from({ length: count }, () => random.below(500));
  const expected = referenceModel(built).logits(tokens);
  let row = 0;
  let largest = 0;
  let squares = 0;
  let values = 0;
  await using model = await loadModel(path);
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
 * its 32, about 0.5 % of the activations' size, in each of some seven products one after another. Products with float
 * formats do not round them. Measured: 0.018 to 0.023 for the formats below 16 bits, 7·10^-6 for the others.
 */
const roundingBounds: Record<Exclude<DType, "F32">, number> = {
  F16: 0.0005,
  BF16: 0.0005,
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
