// What a file says of its model and cannot be computed is refused by name, before anything runs.

import { describe, expect, test } from "bun:test";
import { ModelFileError } from "../../src/errors.ts";
import { loadModel } from "../../src/index.ts";
import { temporaryFolder } from "../support/folder.ts";
import { type GgufWriter, type TinyModelOptions, tinyModel } from "../support/gguf-writer.ts";
import { tinyEncoder } from "../support/tiny-encoder.ts";

const folder = temporaryFolder();
let files = 0;

function failure(options: TinyModelOptions, change: (writer: GgufWriter) => void): Promise<ModelFileError> {
  return failureOf(tinyModel(options), change);
}

async function failureOf(writer: GgufWriter, change: (writer: GgufWriter) => void): Promise<ModelFileError> {
  change(writer);
  const path = folder.write(`model${files++}.gguf`, writer.build().bytes);
  try {
    await using model = await loadModel(path);
    throw new Error(`${model.path} was opened, but should have been refused`);
  } catch (error) {
    if (!(error instanceof ModelFileError)) throw error;
    expect(error.path).toBe(path);
    expect(error.message).toStartWith(`${path}: ${error.field}: `);
    return error;
  }
}

const set = (key: string, type: Parameters<GgufWriter["set"]>[1], value: Parameters<GgufWriter["set"]>[2]) =>
  function change(writer: GgufWriter): void {
    writer.remove(key).set(key, type, value);
  };
const add = (key: string, type: Parameters<GgufWriter["set"]>[1], value: Parameters<GgufWriter["set"]>[2]) =>
  function change(writer: GgufWriter): void {
    writer.set(key, type, value);
  };
const ones = (length: number) => new Float32Array(length).fill(1);

/** Name of the case; what is changed in a llama; the field that the error names; words of its message. */
const metadataCases: readonly [string, (writer: GgufWriter) => void, string, RegExp][] = [
  ["no family", (writer) => writer.remove("general.architecture"), "general.architecture", /missing/],
  [
    "an unknown family",
    set("general.architecture", "string", "mamba"),
    "general.architecture",
    /"mamba".*gemma3, llama/,
  ],
  [
    "a family named like a property of every object",
    set("general.architecture", "string", "constructor"),
    "general.architecture",
    /"constructor"/,
  ],
  ["a family that is a number", set("general.architecture", "uint32", 3), "general.architecture", /string/],
  ["experts", add("llama.expert_count", "uint32", 8), "llama.expert_count", /mixtures of experts/],
  ["no layers", set("llama.block_count", "uint32", 0), "llama.block_count", /0/],
  ["2^32 − 1 layers", set("llama.block_count", "uint32", 0xffffffff), "llama.block_count", /4294967295/],
  ["a missing layer count", (writer) => writer.remove("llama.block_count"), "llama.block_count", /missing/],
  ["layers as text", set("llama.block_count", "string", "two"), "llama.block_count", /string/],
  [
    "key heads that do not divide the query heads",
    set("llama.attention.head_count_kv", "uint32", 3),
    "llama.attention.head_count_kv",
    /divide/,
  ],
  ["no heads", set("llama.attention.head_count", "uint32", 0), "llama.attention.head_count", /0/],
  ["a head width of 24", set("llama.attention.key_length", "uint32", 24), "llama.attention.value_length", /24/],
  [
    "a head width of 24 of keys and values",
    (writer) => {
      set("llama.attention.key_length", "uint32", 24)(writer);
      set("llama.attention.value_length", "uint32", 24)(writer);
    },
    "llama.attention.key_length",
    /multiples of 16/,
  ],
  [
    "values of another width than keys",
    set("llama.attention.value_length", "uint32", 32),
    "llama.attention.value_length",
    /16/,
  ],
  ["a width of 48", set("llama.embedding_length", "uint32", 48), "llama.embedding_length", /multiples of 32/],
  [
    "a negative norm epsilon",
    set("llama.attention.layer_norm_rms_epsilon", "float32", -1),
    "llama.attention.layer_norm_rms_epsilon",
    /-1/,
  ],
  [
    "a norm epsilon that is no number",
    set("llama.attention.layer_norm_rms_epsilon", "float32", Number.NaN),
    "llama.attention.layer_norm_rms_epsilon",
    /NaN/,
  ],
  [
    "tokens that see those after them",
    add("llama.attention.causal", "bool", false),
    "llama.attention.causal",
    /is false/,
  ],
  ["scores instead of vectors", add("llama.pooling_type", "uint32", 4), "llama.pooling_type", /ranks texts/],
  ["a context of nothing", set("llama.context_length", "uint32", 0), "llama.context_length", /0/],
  [
    "an odd number of turning elements",
    set("llama.rope.dimension_count", "uint32", 7),
    "llama.rope.dimension_count",
    /even/,
  ],
  [
    "more turning elements than a head has",
    set("llama.rope.dimension_count", "uint32", 18),
    "llama.rope.dimension_count",
    /18/,
  ],
  ["a rope base of 0", set("llama.rope.freq_base", "float32", 0), "llama.rope.freq_base", /positive/],
  ["yarn scaling", add("llama.rope.scaling.type", "string", "yarn"), "llama.rope.scaling.type", /"yarn"/],
  [
    "an infinite linear factor",
    add("llama.rope.scaling.factor", "float32", Number.POSITIVE_INFINITY),
    "llama.rope.scaling.factor",
    /Infinity/,
  ],
  [
    "feed-forward widths that differ",
    (writer) => writer.remove("llama.feed_forward_length").setArray("llama.feed_forward_length", "uint32", [128, 64]),
    "llama.feed_forward_length",
    /differs/,
  ],
  [
    "heads for three layers of two",
    (writer) => writer.remove("llama.attention.head_count").setArray("llama.attention.head_count", "uint32", [4, 4, 4]),
    "llama.attention.head_count",
    /3/,
  ],
];

/** As above, for tensors. */
const tensorCases: readonly [string, (writer: GgufWriter) => void, string, RegExp][] = [
  ["a matrix missing", (writer) => writer.removeTensor("blk.1.attn_q.weight"), "tensor blk.1.attn_q.weight", /missing/],
  [
    "the embedding missing",
    (writer) => writer.removeTensor("token_embd.weight"),
    "tensor token_embd.weight",
    /missing/,
  ],
  [
    "the last norm missing",
    (writer) => writer.removeTensor("output_norm.weight"),
    "tensor output_norm.weight",
    /missing/,
  ],
  [
    "a matrix transposed",
    (writer) =>
      writer.removeTensor("blk.0.ffn_up.weight").tensor("blk.0.ffn_up.weight", "F32", [128, 64], ones(64 * 128)),
    "tensor blk.0.ffn_up.weight",
    /\[128, 64\].*\[64, 128\]/,
  ],
  [
    "a norm too short",
    (writer) => writer.removeTensor("blk.0.attn_norm.weight").tensor("blk.0.attn_norm.weight", "F32", [32], ones(32)),
    "tensor blk.0.attn_norm.weight",
    /\[32\].*\[64\]/,
  ],
  [
    "a norm in a quantized type",
    (writer) => writer.removeTensor("blk.0.attn_norm.weight").tensor("blk.0.attn_norm.weight", "Q8_0", [64], ones(64)),
    "tensor blk.0.attn_norm.weight",
    /Q8_0.*F32, F16 or BF16/,
  ],
  [
    "a norm with a value that is no number",
    (writer) =>
      writer
        .removeTensor("blk.0.attn_norm.weight")
        .tensor("blk.0.attn_norm.weight", "F32", [64], ones(64).fill(Number.NaN, 3, 4)),
    "tensor blk.0.attn_norm.weight",
    /not a finite number/,
  ],
  [
    "a tensor that nobody knows",
    (writer) => writer.tensor("blk.0.ssm_a.weight", "F32", [64], ones(64)),
    "tensor blk.0.ssm_a.weight",
    /not part of the llama family/,
  ],
  [
    "a layer too many",
    (writer) => writer.tensor("blk.2.attn_norm.weight", "F32", [64], ones(64)),
    "tensor blk.2.attn_norm.weight",
    /not part/,
  ],
  [
    "a bias where the head has none",
    (writer) => writer.tensor("output.bias", "F32", [512], ones(512)),
    "tensor output.bias",
    /not part/,
  ],
  [
    "frequency factors too few",
    (writer) => writer.tensor("rope_freqs.weight", "F32", [4], ones(4)),
    "tensor rope_freqs.weight",
    /\[4\].*\[8\]/,
  ],
  [
    "a frequency factor of 0",
    (writer) => writer.tensor("rope_freqs.weight", "F32", [8], new Float32Array(8)),
    "tensor rope_freqs.weight",
    /positive/,
  ],
];

describe("a llama is refused with the field named when it has", () => {
  for (const [name, change, field, words] of [...metadataCases, ...tensorCases]) {
    test(name, async () => {
      const error = await failure({ architecture: "llama", dtype: "F32" }, change);
      expect(error.field).toBe(field);
      expect(error.message).toMatch(words);
    });
  }
});

test("a vocabulary of another size than the embedding's is refused", async () => {
  const { message } = await failure({ architecture: "llama" }, (writer) =>
    writer.remove("tokenizer.ggml.tokens").setArray(
      "tokenizer.ggml.tokens",
      "string",
      Array.from({ length: 500 }, (_, index) => `t${index}`),
    ),
  );
  expect(message).toMatch(/500|512/);
});

test("a qwen2 without its biases, which some variants lack, is opened", async () => {
  const writer = tinyModel({ architecture: "qwen2" });
  for (const part of ["q", "k", "v"]) writer.removeTensor(`blk.0.attn_${part}.bias`);
  await using model = await loadModel(folder.write("qwen2.gguf", writer.build().bytes));
  expect(model.plan().ops.length).toBeGreaterThan(0);
});

test("a qwen3 without its norms of queries is refused", async () => {
  const error = await failure({ architecture: "qwen3" }, (writer) => writer.removeTensor("blk.1.attn_q_norm.weight"));
  expect(error.field).toBe("tensor blk.1.attn_q_norm.weight");
});

test("a gemma3 without a window is refused", async () => {
  const error = await failure({ architecture: "gemma3" }, (writer) => writer.remove("gemma3.attention.sliding_window"));
  expect(error.field).toBe("gemma3.attention.sliding_window");
});

test("a gemma3 whose tokens see those after them is refused, whatever its heads are like", async () => {
  const error = await failure({ architecture: "gemma3", kvHeads: 4 }, add("gemma3.attention.causal", "bool", false));
  expect(error.field).toBe("gemma3.attention.causal");
});

test("a refused file leaves no descriptor open", async () => {
  const { readdirSync } = await import("node:fs");
  const count = () => (process.platform === "linux" ? readdirSync("/proc/self/fd").length : 0);
  const options: TinyModelOptions = { architecture: "llama", dtype: "F32" };
  await failure(options, (writer) => writer.removeTensor("output_norm.weight"));
  const before = count();
  for (let index = 0; index < 5; index++) {
    await failure(options, (writer) => writer.tensor("extra.weight", "F32", [64], ones(64)));
  }
  expect(count()).toBe(before);
});

/** The same for an encoder of BERT's kind. */
const encoderCases: readonly [string, (writer: GgufWriter) => void, string, RegExp][] = [
  ["another tokenizer", set("tokenizer.ggml.model", "string", "t5"), "tokenizer.ggml.model", /"t5".*XLM-RoBERTa/],
  ["scores instead of vectors", set("bert.pooling_type", "uint32", 4), "bert.pooling_type", /ranks texts/],
  ["a pooling that is not known", set("bert.pooling_type", "uint32", 5), "bert.pooling_type", /from 0 to 4/],
  ["attention to the past alone", set("bert.attention.causal", "bool", true), "bert.attention.causal", /encoder/],
  [
    "no epsilon",
    (writer) => writer.remove("bert.attention.layer_norm_epsilon"),
    "bert.attention.layer_norm_epsilon",
    /missing/,
  ],
  [
    "a negative epsilon",
    set("bert.attention.layer_norm_epsilon", "float32", -1),
    "bert.attention.layer_norm_epsilon",
    /-1/,
  ],
  [
    "fewer heads of keys",
    add("bert.attention.head_count_kv", "uint32", 1),
    "bert.attention.head_count",
    /fill the width/,
  ],
  [
    "more positions than it has rows for",
    set("bert.context_length", "uint32", 128),
    "tensor position_embd.weight",
    /\[64, 64\].*\[64, 128\]/,
  ],
  ["no positions", (writer) => writer.removeTensor("position_embd.weight"), "tensor position_embd.weight", /missing/],
  [
    "no bias of a norm",
    (writer) => writer.removeTensor("token_embd_norm.bias"),
    "tensor token_embd_norm.bias",
    /missing/,
  ],
  [
    "a head that ranks",
    (writer) => writer.tensor("cls.weight", "F32", [64, 64], ones(4096)),
    "tensor cls.weight",
    /not part of the bert family/,
  ],
  ["no beginning of a text", set("tokenizer.ggml.cls_token_id", "uint32", 256), "tokenizer.ggml.cls_token_id", /256/],
];

describe("an encoder", () => {
  test.each(encoderCases)("with %s is refused", async (_, change, field, words) => {
    const error = await failureOf(tinyEncoder({ heads: 2 }), change);
    expect(error.field).toBe(field);
    expect(error.message).toMatch(words);
  });
});
