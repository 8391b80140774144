// A sentence-transformers folder opens as the GGUF file of the same model does; a bad one is refused with the file's name and what
// is wrong with it.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync } from "node:fs";
import { join } from "node:path";
import { ModelFileError, TinyAIError } from "../../src/errors.ts";
import { loadModel } from "../../src/index.ts";
import { buildGraph } from "../../src/model/architectures/index.ts";
import { dataFilesOf, type ModelFile, readBytes } from "../../src/model/file.ts";
import { openGguf } from "../../src/model/gguf.ts";
import { openSentenceTransformers } from "../../src/model/sentence-transformers.ts";
import { createTokenizer } from "../../src/tokenizer/index.ts";
import { temporaryFolder } from "../support/folder.ts";
import { Random } from "../support/random.ts";
import { safetensorsBytes, safetensorsParts } from "../support/safetensors-writer.ts";
import {
  type FolderFiles,
  type TinyEncoderOptions,
  tinyEncoderFolder,
  tinyFolderTensors,
  writeFolder,
  writeTinyEncoder,
} from "../support/tiny-encoder.ts";

// Hundreds of small folders take their time on a loaded machine.
setDefaultTimeout(60_000);

const temporary = temporaryFolder();

function write(files: FolderFiles): string {
  return writeFolder(mkdtempSync(temporary.file("model-")), files);
}

function open(files: FolderFiles): ModelFile {
  return openSentenceTransformers(write(files));
}

type Json = Record<string, unknown>;

/** The files with what one of them holds changed. */
function changed(files: FolderFiles, name: string, change: (json: Json) => Json | undefined): FolderFiles {
  const json = JSON.parse(String(files.get(name))) as Json;
  return new Map(files).set(name, JSON.stringify(change(json) ?? json));
}

/** What a model file says, apart from what only one of the forms says. */
function contents(file: ModelFile) {
  const { metadata } = file;
  const keys = metadata
    .keys()
    .filter((key) => /\.(?!tokens$|token_type$)/.test(key) && !/^general\.(?!arch)/.test(key));
  return {
    metadata: Object.fromEntries(keys.map((key) => [key, metadata.entry(key)?.value])),
    tokens: metadata.strings("tokenizer.ggml.tokens"),
    types: [...metadata.numbers("tokenizer.ggml.token_type")],
    tensors: Object.fromEntries(
      Array.from(file.tensors.values(), (entry) => [
        entry.name,
        {
          dtype: entry.dtype,
          shape: entry.shape,
          bytes: Buffer.from(readBytes(file, entry, entry.name)).toString("base64"),
        },
      ]),
    ),
  };
}

const variants: readonly (readonly [string, TinyEncoderOptions])[] = [
  ["bert", {}],
  ["bert in F16, by its first token", { dtype: "F16", pooling: "first" }],
  ["nomic-bert in BF16, by its last token", { architecture: "nomic-bert", dtype: "BF16", pooling: "last" }],
];

describe("a folder has what the GGUF file of the same model has:", () => {
  test.each(variants)("%s", (_, options) => {
    const path = temporary.file("same.gguf");
    writeTinyEncoder(path, options);
    const gguf = contents(openGguf(path));
    const folder = contents(open(tinyEncoderFolder(options)));
    expect(folder.tensors).toEqual(gguf.tensors);
    expect({ tokens: folder.tokens, types: folder.types }).toEqual({ tokens: gguf.tokens, types: gguf.types });
    for (const [key, value] of Object.entries(gguf.metadata)) {
      if (!(key in folder.metadata)) continue;
      const stated = folder.metadata[key];
      expect({ key, value: typeof stated === "number" ? Math.fround(stated) : stated }).toEqual({ key, value });
    }
    const sizes = Object.keys(gguf.metadata).filter((key) => key.startsWith(`${options.architecture ?? "bert"}.`));
    expect(Object.keys(folder.metadata)).toEqual(expect.arrayContaining(sizes));
  });
});

describe("a folder's settings", () => {
  const files = tinyEncoderFolder();
  const metadata = (changedFiles: FolderFiles) => open(changedFiles).metadata;

  test("say how texts are pooled, in the old words and in the new ones", () => {
    for (const [word, number] of [
      ["mean", 1],
      ["cls", 2],
      ["lasttoken", 3],
    ] as const) {
      const pooling = changed(files, "1_Pooling/config.json", () => ({ embedding_dimension: 64, pooling_mode: word }));
      expect(metadata(pooling).integer("bert.pooling_type")).toBe(number);
    }
    expect(buildGraph(open(tinyEncoderFolder({ pooling: "first" }))).pooling).toBe("first");
  });

  test("say whether vectors have length 1", () => {
    expect(buildGraph(open(files)).normalise).toBe(true);
    expect(buildGraph(open(tinyEncoderFolder({ normalise: false }))).normalise).toBe(false);
  });

  test("say how long a text may be, which is never longer than the positions", () => {
    const longest = (changedFiles: FolderFiles) => metadata(changedFiles).integer("tinyai.embedding.max_length");
    expect(longest(tinyEncoderFolder({ maxLength: 24 }))).toBe(24);
    expect(longest(tinyEncoderFolder({ maxLength: 4096 }))).toBe(64);
    expect(longest(changed(files, "tokenizer_config.json", () => ({ model_max_length: 32 })))).toBe(32);
    expect(longest(changed(files, "tokenizer_config.json", () => ({ model_max_length: 1e30 })))).toBe(64);
  });

  test("may name a prompt to go before every text, if there is none in effect", () => {
    for (const settings of [
      {},
      { default_prompt_name: null, prompts: { query: "query: " } },
      { default_prompt_name: "document", prompts: { query: "query: ", document: "" } },
    ]) {
      const prompts = new Map(files).set("config_sentence_transformers.json", JSON.stringify(settings));
      expect(open(prompts).tensors.size).toBeGreaterThan(0);
    }
  });

  test("of the tokenizer go before what tokenizer.json says", () => {
    const cased = changed(files, "tokenizer_config.json", () => ({ do_lower_case: false }));
    expect(metadata(cased).boolean("tokenizer.ggml.normalizer.lowercase")).toBe(false);
    expect(metadata(cased).boolean("tokenizer.ggml.normalizer.strip_accents")).toBe(false);
    const lowered = new Map(cased).set("sentence_bert_config.json", '{"max_seq_length":64,"do_lower_case":true}');
    expect(metadata(lowered).boolean("tokenizer.ggml.normalizer.lowercase")).toBe(true);
    const whole = changed(files, "tokenizer_config.json", () => ({ tokenize_chinese_chars: false }));
    expect(metadata(whole).boolean("tinyai.tokenizer.handle_chinese_chars")).toBe(false);
  });
});

describe("a folder may", () => {
  const files = tinyEncoderFolder();
  const expected = contents(open(files));

  test("have vocab.txt alone", () => {
    const old = new Map(files);
    old.delete("tokenizer.json");
    expect(contents(open(old))).toEqual(expected);
    const text = "hello, world of Ångström";
    expect([...createTokenizer(open(old).metadata).encode(text)]).toEqual([
      ...createTokenizer(open(files).metadata).encode(text),
    ]);
  });

  test("have fewer tokens than its table has rows", () => {
    const wide = tinyEncoderFolder({ vocabulary: 260 });
    const tokenizer = files.get("tokenizer.json") ?? "";
    const padded = open(new Map(wide).set("tokenizer.json", tokenizer));
    const names = [256, 257, 258, 259].map((id) => `[PAD${id}]`);
    expect(padded.metadata.strings("tokenizer.ggml.tokens")).toEqual([...expected.tokens, ...names]);
    expect(createTokenizer(padded.metadata).vocabularySize).toBe(260);
  });

  test("have its network in a folder of its own", () => {
    const moved = new Map(
      Array.from(files, ([name, content]) => [
        /^(?:modules|1_Pooling)/.test(name) ? name : `0_Transformer/${name}`,
        content,
      ]),
    );
    moved.set("modules.json", String(files.get("modules.json")).replace('"path": ""', '"path": "0_Transformer"'));
    expect(contents(open(moved))).toEqual(expected);
  });

  test("have its weights in several files, of which an index tells", () => {
    const tensors = [...tinyFolderTensors()];
    const shards = [tensors.slice(0, 7), tensors.slice(7, 20), tensors.slice(20)];
    const sharded = new Map(files);
    sharded.delete("model.safetensors");
    const index: Record<string, string> = {};
    for (const [number, shard] of shards.entries()) {
      const name = `model-0000${number + 1}-of-00003.safetensors`;
      sharded.set(name, safetensorsBytes(safetensorsParts(new Map(shard))));
      for (const [tensor] of shard) index[tensor] = name;
    }
    sharded.set("model.safetensors.index.json", JSON.stringify({ metadata: {}, weight_map: index }));
    const file = open(sharded);
    expect(dataFilesOf(file)).toHaveLength(3);
    expect(contents(file)).toEqual(expected);

    const missing = structuredClone(index);
    missing["embeddings.more"] = "model-00002-of-00003.safetensors";
    sharded.set("model.safetensors.index.json", JSON.stringify({ weight_map: missing }));
    expect(() => open(sharded)).toThrow(
      "tensor embeddings.more: is missing, and the index says that it is in this file",
    );
    sharded.set("model.safetensors.index.json", JSON.stringify({ weight_map: { x: "../x.safetensors" } }));
    expect(() => open(sharded)).toThrow("a safetensors file in the folder is expected");
  });

  test("hold what has no part in a vector, and names of an earlier time", () => {
    const tensors = new Map(
      Array.from(tinyFolderTensors(), ([name, tensor]) => [
        `bert.${name}`.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"),
        tensor,
      ]),
    );
    const bytes = new Uint8Array(512);
    tensors.set("bert.embeddings.position_ids", { dtype: "I64", shape: [1, 64], bytes });
    tensors.set("bert.pooler.dense.bias", { dtype: "F64", shape: [64], bytes });
    tensors.set("cls.predictions.bias", { dtype: "F32", shape: [128], bytes });
    const old = new Map(files).set("model.safetensors", safetensorsBytes(safetensorsParts(tensors)));
    expect(contents(open(old))).toEqual(expected);
  });
});

describe("a bad folder is refused, naming the file and what is wrong:", () => {
  const files = tinyEncoderFolder();
  const nomic = tinyEncoderFolder({ architecture: "nomic-bert" });
  const without = (...names: string[]) => new Map([...files].filter(([name]) => !names.includes(name)));
  const config = (change: Json, from = files) => changed(from, "config.json", (json) => ({ ...json, ...change }));
  const pooling = (change: Json) => changed(files, "1_Pooling/config.json", (json) => ({ ...json, ...change }));
  const modules = (text: (json: string) => string) =>
    new Map(files).set("modules.json", text(String(files.get("modules.json"))));
  const prompts = (settings: Json) => new Map(files).set("config_sentence_transformers.json", JSON.stringify(settings));
  const tokenizer = (change: (json: Json) => Json | undefined) => changed(files, "tokenizer.json", change);
  const weights = (change: (tensors: ReturnType<typeof tinyFolderTensors>) => void) => {
    const tensors = tinyFolderTensors();
    change(tensors);
    return new Map(files).set("model.safetensors", safetensorsBytes(safetensorsParts(tensors)));
  };
  const query = "encoder.layer.0.attention.self.query.weight";
  const norm = "embeddings.LayerNorm.bias";
  const values = (dtype: string, shape: number[], bytes: number) => ({ dtype, shape, bytes: new Uint8Array(bytes) });

  const cases: readonly (readonly [what: string, files: FolderFiles, file: string, problem: string])[] = [
    ["no modules", without("modules.json"), "modules.json", "is missing: it says how a text's vector is made"],
    ["no pooling", without("1_Pooling/config.json"), "config.json", "is missing: it says what of the network's output"],
    ["no config", without("config.json"), "config.json", "is missing: it says which network the model is"],
    ["no vocabulary", without("tokenizer.json", "vocab.txt"), "tokenizer.json", "the model has no vocabulary"],
    ["no weights", without("model.safetensors"), "model.safetensors", "is missing: it holds the weights"],
    [
      "weights of PyTorch",
      without("model.safetensors").set("pytorch_model.bin", ""),
      "model.safetensors",
      "pytorch_model.bin, which is there instead, is not read",
    ],
    ["a config that is no JSON", new Map(files).set("config.json", "{"), "file", "is not JSON"],
    ["a config that is a list", new Map(files).set("config.json", "[]"), "file", "is not a JSON object"],
    ["a size of none", config({ hidden_size: 0 }), "hidden_size", "is 0; a whole number from 1"],
    [
      "a size that is a text",
      config({ num_hidden_layers: "2" }),
      "num_hidden_layers",
      "is string; a number is expected",
    ],
    ["XLM-RoBERTa", config({ model_type: "xlm-roberta" }), "model_type", "XLM-RoBERTa, whose tokenizer is another"],
    [
      "GTE's new family",
      config({ model_type: "new" }),
      "model_type",
      'is "new" (GTE\'s own, of version 1.5), which is not supported; bert and nomic_bert are',
    ],
    ["another activation", config({ hidden_act: "relu" }), "hidden_act", 'is "relu"; only "gelu" is supported'],
    [
      "other positions",
      config({ position_embedding_type: "relative_key" }),
      "position_embedding_type",
      'only "absolute"',
    ],
    ["a decoder", config({ is_decoder: true }), "is_decoder", "is true; only false is supported"],
    ["nomic with biases", config({ qkv_proj_bias: true }, nomic), "qkv_proj_bias", "is true; only false is supported"],
    ["nomic of experts", config({ moe_every_n_layers: 2 }, nomic), "moe_every_n_layers", "is 2; only 0 is supported"],
    [
      "pooling by the greatest",
      pooling({ pooling_mode_mean_tokens: false, pooling_mode_max_tokens: true }),
      "pooling_mode_max_tokens",
      "mean, cls or lasttoken",
    ],
    [
      "two poolings",
      pooling({ pooling_mode_cls_token: true }),
      "pooling_mode_cls_token, pooling_mode_mean_tokens",
      "one of them",
    ],
    [
      "no pooling at all",
      pooling({ pooling_mode_mean_tokens: false }),
      "pooling_mode_mean_tokens",
      "is not true, nor is another",
    ],
    ["a new pooling", pooling({ pooling_mode: "max" }), "pooling_mode", 'is "max"'],
    [
      "pooling of another width",
      pooling({ word_embedding_dimension: 384 }),
      "word_embedding_dimension",
      "the network's width is 64",
    ],
    [
      "a module that is not known",
      modules((json) => json.replace("models.Normalize", "models.Dense")),
      "modules",
      "one of type Dense, which is not supported",
    ],
    [
      "modules in another order",
      modules((json) => JSON.stringify(JSON.parse(json).toReversed())),
      "modules",
      "are Normalize, Pooling, Transformer",
    ],
    [
      "modules that lead elsewhere",
      modules((json) => json.replace("1_Pooling", "../1_Pooling")),
      "modules",
      'the path "../1_Pooling"',
    ],
    ["no modules in the list", modules(() => "[]"), "modules", "are none"],
    [
      "a prompt before every text",
      prompts({ default_prompt_name: "query", prompts: { query: "query: " } }),
      "default_prompt_name",
      'asks for "query: " before every text, which is not added; set it to null',
    ],
    [
      "a prompt that is not there",
      prompts({ default_prompt_name: "toString", prompts: { query: "" } }),
      "default_prompt_name",
      'is "toString", which is none of the prompts there',
    ],
    [
      "a prompt's name that is a number",
      prompts({ default_prompt_name: 1, prompts: { 1: "" } }),
      "default_prompt_name",
      "a string is expected",
    ],
    [
      "SentencePiece",
      tokenizer((json) => ({ ...json, model: { type: "Unigram" } })),
      "model.type",
      'is "Unigram"; only WordPiece',
    ],
    [
      "another normaliser",
      tokenizer((json) => ({ ...json, normalizer: null })),
      "normalizer.type",
      "is null; only BertNormalizer",
    ],
    ["another template", tokenizer((json) => ({ ...json, post_processor: null })), "post_processor", "is null"],
    [
      "a tokenizer without tokens",
      tokenizer((json) => ({ ...json, model: { ...(json["model"] as Json), vocab: {} } })),
      "model.vocab",
      "has no tokens",
    ],
    [
      "one id for two tokens",
      new Map(files).set("tokenizer.json", String(files.get("tokenizer.json")).replace(/"the": \d+/, '"the": 7')),
      "model.vocab",
      "have the same id 7",
    ],
    [
      "more tokens than the network knows",
      config({ vocab_size: 255 }),
      "vocabulary",
      "has 256 tokens, but config.json's vocab_size is 255",
    ],
    [
      "a tensor that is missing",
      weights((tensors) => tensors.delete(query)),
      "tensor blk.0.attn_q.weight",
      "is missing",
    ],
    [
      "a tensor of another shape",
      weights((tensors) => tensors.set(query, values("F32", [64, 32], 8192))),
      "tensor blk.0.attn_q.weight",
      "has shape [32, 64]; the metadata asks for [64, 64]",
    ],
    [
      "a tensor of whole numbers",
      weights((tensors) => tensors.set(query, values("I8", [64, 64], 4096))),
      `tensor ${query}`,
      "has the type I8, which is not read",
    ],
    [
      "a norm that is not finite",
      weights((tensors) => tensors.set(norm, { ...values("F32", [64], 256), bytes: new Uint8Array(256).fill(0xff) })),
      "tensor token_embd_norm.bias",
      "not a finite number",
    ],
    [
      "a head",
      weights((tensors) => tensors.set("classifier.weight", values("F32", [2, 64], 512))),
      "tensor classifier.weight",
      "is not part of the bert family",
    ],
  ];
  test.each(cases)("%s", (_, bad, field, problem) => {
    const path = write(bad);
    let error: unknown;
    try {
      const file = openSentenceTransformers(path);
      createTokenizer(file.metadata);
      buildGraph(file);
    } catch (caught) {
      error = caught;
    }
    expect(error).toBeInstanceOf(ModelFileError);
    expect(error).toMatchObject({ field });
    expect(String(error)).toContain(problem);
    expect((error as ModelFileError).path).toStartWith(path);
  });

  test("weights that are not finite, which loading finds", async () => {
    const bad = weights((tensors) => {
      const bytes = new Uint8Array(tensors.get(query)?.bytes ?? []);
      bytes.fill(0xff, 400, 404);
      tensors.set(query, { dtype: "F32", shape: [64, 64], bytes });
    });
    await expect(loadModel(write(bad))).rejects.toThrow(
      "tensor blk.0.attn_q.weight holds values that are not finite numbers",
    );
  });

  test("a path to the weights alone, and a folder that is none", async () => {
    const path = join(write(files), "model.safetensors");
    await expect(loadModel(path)).rejects.toThrow("a safetensors file; give the path of the folder that it lies in");
    await expect(loadModel(temporary.path)).rejects.toThrow("modules.json: is missing");
  });
});

test("a folder whose JSON is damaged anywhere opens, or ends in an error of TinyAI's", () => {
  const random = new Random(3);
  const models = [tinyEncoderFolder({ maxLength: 32 }), tinyEncoderFolder({ architecture: "nomic-bert" })].map(
    (files) => ({
      files,
      path: write(files),
      names: [...files.keys()].filter((name) => name.endsWith(".json")),
    }),
  );
  const values = [
    null,
    true,
    false,
    0,
    1,
    -1,
    0.5,
    2 ** 31,
    1e300,
    "",
    "x",
    "gelu",
    "[CLS]",
    [],
    {},
    [[]],
    { type: "x" },
  ];
  let opened = 0;
  for (let count = 0; count < 1500; count++) {
    const { files, path, names } = random.pick(models);
    const name = random.pick(names);
    const whole = String(files.get(name));
    const root = { root: JSON.parse(whole) as unknown };
    // Down to some place, and there one thing.
    let place: Json = root;
    let key = "root";
    while (typeof place[key] === "object" && place[key] !== null && random.below(4) > 0) {
      place = place[key] as Json;
      key = random.pick([...Object.keys(place), "more"]);
    }
    if (random.below(4) === 0) delete place[key];
    else place[key] = random.pick(values);
    const json = JSON.stringify(root.root) ?? "";
    const text = random.below(10) === 0 ? json.slice(0, random.below(json.length + 1)) : json;
    writeFolder(path, new Map([[name, text]]));
    try {
      const file = openSentenceTransformers(path);
      createTokenizer(file.metadata).encode("hello world 日本");
      buildGraph(file);
      opened++;
    } catch (error) {
      if (!(error instanceof TinyAIError)) throw new Error(`${name} as ${text.slice(0, 500)}`, { cause: error });
    }
    writeFolder(path, new Map([[name, whole]]));
  }
  expect(opened).toBeGreaterThan(100);
});
