// Reads a model's folder as sentence-transformers writes it: which modules make a text's vector (modules.json), the network's
// sizes (config.json), pooling, the tokenizer, and where the weights lie (model.safetensors). It comes out as a GGUF file of the
// same model would: the same metadata, the same tensors under the same names. What would not be computed as the folder asks for
// is refused by name. It reads no weights.

import { existsSync } from "node:fs";
import { basename, join, normalize, resolve } from "node:path";
import { describe, isRecord } from "../check.ts";
import { ModelFileError } from "../errors.ts";
import {
  type DataFile,
  type DType,
  Metadata,
  type MetadataEntry,
  type ModelFile,
  printable,
  type TensorEntry,
} from "./file.ts";
import { optionalSettings, readJson, readObject, requireFile, settingsOf } from "./json-file.ts";
import { openSafetensors, type SafetensorsEntry } from "./safetensors.ts";
import { readTokenizer } from "./tokenizer-json.ts";

/** A family as folders have it. */
interface Family {
  /** Its name in GGUF, which its metadata keys begin with. */
  readonly architecture: string;
  /** Keys of config.json for the sizes that GGUF calls so; of several the first that there is. */
  readonly sizes: Readonly<
    Record<
      "block_count" | "embedding_length" | "feed_forward_length" | "attention.head_count" | "context_length",
      readonly [string, ...string[]]
    >
  >;
  readonly epsilon: string;
  /** Settings of which one value is supported, which is also what a missing one stands for. */
  readonly fixed: Readonly<Record<string, string | number | boolean>>;
  /** PyTorch's names of tensors by GGUF's: of a layer, and those outside all. */
  readonly layer: RegExp;
  readonly layerTensors: Readonly<Record<string, string>>;
  readonly tensors: Readonly<Record<string, string>>;
  /** Tensors that have no part in a text's vector. */
  readonly ignored: RegExp;
}

const families: Readonly<Record<string, Family>> = {
  bert: {
    architecture: "bert",
    sizes: {
      block_count: ["num_hidden_layers"],
      embedding_length: ["hidden_size"],
      feed_forward_length: ["intermediate_size"],
      "attention.head_count": ["num_attention_heads"],
      context_length: ["max_position_embeddings"],
    },
    epsilon: "layer_norm_eps",
    fixed: { hidden_act: "gelu", position_embedding_type: "absolute", is_decoder: false, add_cross_attention: false },
    layer: /^encoder\.layer\.(\d+)\.(.+)\.(weight|bias)$/,
    layerTensors: {
      "attention.self.query": "attn_q",
      "attention.self.key": "attn_k",
      "attention.self.value": "attn_v",
      "attention.output.dense": "attn_output",
      "attention.output.LayerNorm": "attn_output_norm",
      "intermediate.dense": "ffn_up",
      "output.dense": "ffn_down",
      "output.LayerNorm": "layer_output_norm",
    },
    tensors: {
      "embeddings.word_embeddings": "token_embd",
      "embeddings.position_embeddings": "position_embd",
      "embeddings.token_type_embeddings": "token_types",
      "embeddings.LayerNorm": "token_embd_norm",
    },
    ignored: /^(?:embeddings\.position_ids$|pooler\.|cls\.)/,
  },
  nomic_bert: {
    architecture: "nomic-bert",
    sizes: {
      block_count: ["n_layer"],
      embedding_length: ["n_embd"],
      feed_forward_length: ["n_inner"],
      "attention.head_count": ["n_head"],
      // Beyond the positions it was trained for, the angles would be stretched.
      context_length: ["max_trained_positions", "n_positions"],
    },
    epsilon: "layer_norm_epsilon",
    fixed: {
      activation_function: "swiglu",
      prenorm: false,
      parallel_block: false,
      use_rms_norm: false,
      causal: false,
      qkv_proj_bias: false,
      mlp_fc1_bias: false,
      mlp_fc2_bias: false,
      rotary_emb_fraction: 1,
      rotary_emb_interleaved: false,
      moe_every_n_layers: 0,
    },
    layer: /^encoder\.layers\.(\d+)\.(.+)\.(weight|bias)$/,
    layerTensors: {
      "attn.Wqkv": "attn_qkv",
      "attn.out_proj": "attn_output",
      norm1: "attn_output_norm",
      "mlp.fc11": "ffn_up",
      "mlp.fc12": "ffn_gate",
      "mlp.fc2": "ffn_down",
      norm2: "layer_output_norm",
    },
    tensors: {
      "embeddings.word_embeddings": "token_embd",
      "embeddings.token_type_embeddings": "token_types",
      emb_ln: "token_embd_norm",
    },
    ignored: /^(?:pooler\.|cls\.)/,
  },
};

/** What folders of other families call them, for those whose name says little. */
const otherFamilies: Readonly<Record<string, string>> = {
  new: "GTE's own, of version 1.5",
  "xlm-roberta": "XLM-RoBERTa, whose tokenizer is another",
};

const sizeMax = 1 << 24;
/** GGUF's numbers of poolings, by the settings of a folder. */
const poolings: Readonly<Record<string, number>> = {
  pooling_mode_mean_tokens: 1,
  pooling_mode_cls_token: 2,
  pooling_mode_lasttoken: 3,
};
/** The same as newer folders name them. */
const poolingNames: Readonly<Record<string, number>> = { mean: 1, cls: 2, lasttoken: 3 };

/**
 * Opens a model's folder. What comes back holds no file handle.
 * @throws {ModelFileError} naming the file and what is wrong with it.
 */
export function openSentenceTransformers(folder: string): ModelFile {
  const { base, pooling, normalises } = readModules(folder);
  checkPrompt(folder);
  const configPath = requireFile(base, "config.json", "it says which network the model is, and how large");
  const config = settingsOf(configPath, readObject(configPath));
  const sentence = optionalSettings(join(base, "sentence_bert_config.json"));
  const family = familyOf(config);
  const own = (name: string) => `${family.architecture}.${name}`;
  const entries = new Map<string, MetadataEntry>();
  const put = (key: string, type: MetadataEntry["type"], value: string | number | boolean) =>
    entries.set(key, { type, isArray: false, value });

  put("general.architecture", "string", family.architecture);
  put("general.name", "string", basename(resolve(folder)));
  for (const [name, keys] of Object.entries(family.sizes)) put(own(name), "uint32", sizeOf(config, keys));
  put(own("attention.layer_norm_epsilon"), "float64", config.number(family.epsilon));
  put(own("attention.causal"), "bool", false);
  if (config.has("rotary_emb_base")) put(own("rope.freq_base"), "float64", config.number("rotary_emb_base"));
  put(own("pooling_type"), "uint32", readPooling(pooling, sizeOf(config, family.sizes.embedding_length)));
  put("tinyai.embedding.normalise", "bool", normalises);
  const context = sizeOf(config, family.sizes.context_length);
  put("tinyai.embedding.max_length", "uint32", longestText(base, sentence, context));
  for (const [key, entry] of readTokenizer(base, sizeOf(config, ["vocab_size"]))) entries.set(key, entry);
  if (sentence.boolean("do_lower_case", false)) put("tokenizer.ggml.normalizer.lowercase", "bool", true);

  const { dataFiles, tensors } = readTensors(base, family);
  return {
    path: folder,
    byteLength: dataFiles.reduce((sum, file) => sum + file.byteLength, 0),
    format: "safetensors",
    version: 0,
    metadata: new Metadata(folder, entries),
    dataFiles,
    tensors,
  };
}

/** The size that the first of `keys` names which the configuration has. */
function sizeOf(config: Metadata, keys: readonly [string, ...string[]]): number {
  const key = keys.find((candidate) => config.has(candidate)) ?? keys[0];
  return config.integer(key, { minimum: 1, maximum: sizeMax });
}

/** Where the network and the pooling have their files, and whether vectors are normalised. */
interface Modules {
  readonly base: string;
  readonly pooling: string;
  readonly normalises: boolean;
}

/** A folder's modules are applied one after the other: the network, the pooling, and perhaps the normalisation are known. */
function readModules(folder: string): Modules {
  const path = requireFile(folder, "modules.json", "it says how a text's vector is made of the network's output");
  const fail = (problem: string): never => {
    throw new ModelFileError(path, "modules", problem);
  };
  const list = readJson(path);
  if (!Array.isArray(list)) return fail("are no list");
  const modules = list.map((module: unknown) => {
    const { type, path: place } = isRecord(module) ? module : {};
    if (typeof type !== "string" || typeof place !== "string") return fail("have an entry without a type or a path");
    // A hostile file must not lead elsewhere.
    if (place !== "" && (place !== basename(normalize(place)) || place.startsWith("."))) {
      return fail(`have the path "${printable(place)}"; a folder beside the file is expected`);
    }
    return { name: type.split(".").at(-1) ?? "", folder: join(folder, place) };
  });
  const known = ["Transformer", "Pooling", "Normalize"];
  const other = modules.find(({ name }) => !known.includes(name));
  if (other) fail(`have one of type ${printable(other.name)}, which is not supported; ${known.join(", ")} are`);
  const [transformer, pooling] = modules;
  const order = modules.map(({ name }) => name).join(", ");
  if (!transformer || !pooling || !["Transformer, Pooling", "Transformer, Pooling, Normalize"].includes(order)) {
    return fail(`are ${order || "none"}; Transformer, Pooling and perhaps Normalize, in this order, are expected`);
  }
  return { base: transformer.folder, pooling: pooling.folder, normalises: modules.length > 2 };
}

/** A text before every text would have to be a part of each vector. */
function checkPrompt(folder: string): void {
  const path = join(folder, "config_sentence_transformers.json");
  if (!existsSync(path)) return;
  const key = "default_prompt_name";
  const object = readObject(path);
  const settings = settingsOf(path, object);
  if (!settings.has(key)) return;
  const name = settings.string(key);
  const prompts = isRecord(object["prompts"]) ? object["prompts"] : {};
  const prompt = Object.hasOwn(prompts, name) ? prompts[name] : undefined;
  if (prompt === "") return;
  const problem =
    typeof prompt === "string"
      ? `asks for ${describe(prompt)} before every text, which is not added`
      : `is "${printable(name)}", which is none of the prompts there`;
  throw settings.error(key, `${problem}; set it to null, and put the prompt that you want before the texts yourself`);
}

function familyOf(config: Metadata): Family {
  const type = config.string("model_type");
  const family = Object.hasOwn(families, type) ? families[type] : undefined;
  if (!family) {
    const known = Object.keys(families).join(" and ");
    const words = Object.hasOwn(otherFamilies, type) ? ` (${otherFamilies[type]})` : "";
    throw config.error("model_type", `is "${printable(type)}"${words}, which is not supported; ${known} are`);
  }
  for (const [key, supported] of Object.entries(family.fixed)) {
    const value = config.entry(key)?.value ?? supported;
    if (value !== supported) throw config.error(key, `is ${describe(value)}; only ${describe(supported)} is supported`);
  }
  return family;
}

/** GGUF's number of the pooling. */
function readPooling(folder: string, width: number): number {
  const use = "it says what of the network's output is a text's vector";
  const path = requireFile(folder, "config.json", use);
  const pooling = settingsOf(path, readObject(path));
  const dimension = pooling.integer("word_embedding_dimension", {}, pooling.integer("embedding_dimension", {}, width));
  if (dimension !== width) {
    const problem = `is ${dimension}, but the network's width is ${width}: the files are of different models`;
    throw pooling.error("word_embedding_dimension", problem);
  }
  const supported = "mean, cls or lasttoken, one of them, is supported";
  if (pooling.has("pooling_mode")) {
    const name = pooling.string("pooling_mode");
    const number = Object.hasOwn(poolingNames, name) ? poolingNames[name] : undefined;
    if (number !== undefined) return number;
    throw pooling.error("pooling_mode", `is "${printable(name)}"; ${supported}`);
  }
  const modes = pooling.keys().filter((key) => key.startsWith("pooling_mode_") && pooling.boolean(key));
  const [mode, ...more] = modes;
  if (mode === undefined) throw pooling.error("pooling_mode_mean_tokens", `is not true, nor is another; ${supported}`);
  const number = Object.hasOwn(poolings, mode) ? poolings[mode] : undefined;
  if (number === undefined || more.length > 0) throw pooling.error(modes.join(", "), `is true; ${supported}`);
  return number;
}

/** The longest text in tokens: longer ones are cut. */
function longestText(base: string, sentence: Metadata, context: number): number {
  const key = "max_seq_length";
  // A tokenizer that knows no limit says a number that is far too large.
  const stated = sentence.has(key)
    ? sentence.integer(key, { minimum: 2 })
    : optionalSettings(join(base, "tokenizer_config.json")).number("model_max_length", context);
  return stated >= 2 ? Math.min(context, Math.floor(stated)) : context;
}

const shardsKey = "weight_map";

function readTensors(base: string, family: Family) {
  const dataFiles: DataFile[] = [];
  const tensors = new Map<string, TensorEntry>();
  let begin = 0;
  for (const { path, names } of weightFiles(base)) {
    const file = openSafetensors(path);
    for (const entry of file.tensors.values()) {
      const name = names && !names.has(entry.name) ? undefined : nameOf(entry.name, family);
      if (name === undefined) continue;
      if (tensors.has(name)) throw new ModelFileError(path, `tensor ${printable(entry.name)}`, "is there twice");
      tensors.set(name, tensorOf(path, name, entry, begin));
    }
    for (const name of names ?? []) {
      if (file.tensors.has(name)) continue;
      throw new ModelFileError(
        path,
        `tensor ${printable(name)}`,
        "is missing, and the index says that it is in this file",
      );
    }
    dataFiles.push({ path, byteLength: file.byteLength });
    begin += file.byteLength;
  }
  return { dataFiles, tensors };
}

/** The files with the weights; where an index lists several, with the names of the tensors that it says are in each. */
function weightFiles(base: string): readonly { readonly path: string; readonly names?: ReadonlySet<string> }[] {
  const whole = join(base, "model.safetensors");
  const index = join(base, "model.safetensors.index.json");
  if (existsSync(whole) || !existsSync(index)) {
    const hasTorch = existsSync(join(base, "pytorch_model.bin"));
    const instead = hasTorch ? "pytorch_model.bin, which is there instead, is not read; " : "";
    requireFile(base, "model.safetensors", `${instead}it holds the weights`);
    return [{ path: whole }];
  }
  const map = readObject(index)[shardsKey];
  if (!isRecord(map)) throw new ModelFileError(index, shardsKey, "is missing; the file of each tensor is expected");
  const files = new Map<string, Set<string>>();
  for (const [name, file] of Object.entries(map)) {
    if (typeof file !== "string" || file !== basename(file) || !file.endsWith(".safetensors")) {
      const problem = `says that ${printable(name)} is in ${describe(file)}; a safetensors file in the folder is expected`;
      throw new ModelFileError(index, shardsKey, problem);
    }
    const names = files.get(file);
    if (names) names.add(name);
    else files.set(file, new Set([name]));
  }
  if (files.size === 0) throw new ModelFileError(index, shardsKey, "names no tensors");
  return [...files].map(([file, names]) => ({
    path: requireFile(base, file, "it holds a part of the weights"),
    names,
  }));
}

/** GGUF's name of a tensor; undefined if it has no part in a text's vector. Others keep their name, which no family knows. */
function nameOf(torchName: string, family: Family): string | undefined {
  // Models that were saved with a head have the network's name before, and old ones have other names for a norm's vectors.
  const name = torchName
    .replace(/^(?:bert|model)\./, "")
    .replace(/LayerNorm\.gamma$/, "LayerNorm.weight")
    .replace(/LayerNorm\.beta$/, "LayerNorm.bias");
  if (family.ignored.test(name)) return undefined;
  const [, layer, part = "", end] = family.layer.exec(name) ?? [];
  if (layer !== undefined && Object.hasOwn(family.layerTensors, part)) {
    return `blk.${Number(layer)}.${family.layerTensors[part]}.${end}`;
  }
  const [, whole = "", last] = /^(.+)\.(weight|bias)$/.exec(name) ?? [];
  return Object.hasOwn(family.tensors, whole) ? `${family.tensors[whole]}.${last}` : torchName;
}

/** Of the types that safetensors and GGUF share, those that weights here have. */
function tensorOf(path: string, name: string, entry: SafetensorsEntry, begin: number): TensorEntry {
  const field = `tensor ${printable(entry.name)}`;
  const { dtype, shape, byteOffset, byteLength } = entry;
  if (!isWeightType(dtype)) {
    throw new ModelFileError(path, field, `has the type ${dtype}, which is not read; F32, F16 and BF16 are`);
  }
  if (shape.length === 0 || byteLength === 0) throw new ModelFileError(path, field, "has no values");
  return { name, dtype, shape: shape.toReversed(), byteOffset: begin + byteOffset, byteLength };
}

function isWeightType(dtype: string): dtype is DType & ("F32" | "F16" | "BF16") {
  return dtype === "F32" || dtype === "F16" || dtype === "BF16";
}
