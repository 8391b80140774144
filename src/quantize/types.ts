// Which format each tensor of a model gets for a file type such as Q4_K_M: the rules of llama.cpp's llama-quantize without an
// importance matrix, for dense models. Tensors that need precision (the output head, values, some layers' projections) get
// more bits than the others; rows that no block of 256 fits get a format of 32. It reads names and shapes, no weights.

import type { DType } from "../graph/dtype.ts";
import { dtypeBlocks, type ModelFile, type TensorEntry } from "../model/file.ts";

interface FileType {
  /** llama.cpp's number of it, which `general.file_type` holds. */
  readonly number: number;
  /** What a tensor gets for which no rule says otherwise. */
  readonly dtype: DType;
}

const fileTypes = {
  F32: { number: 0, dtype: "F32" },
  F16: { number: 1, dtype: "F16" },
  BF16: { number: 32, dtype: "BF16" },
  Q4_0: { number: 2, dtype: "Q4_0" },
  Q4_1: { number: 3, dtype: "Q4_1" },
  Q5_0: { number: 8, dtype: "Q5_0" },
  Q5_1: { number: 9, dtype: "Q5_1" },
  Q8_0: { number: 7, dtype: "Q8_0" },
  Q2_K: { number: 10, dtype: "Q2_K" },
  Q3_K_S: { number: 11, dtype: "Q3_K" },
  Q3_K_M: { number: 12, dtype: "Q3_K" },
  Q3_K_L: { number: 13, dtype: "Q3_K" },
  Q4_K_S: { number: 14, dtype: "Q4_K" },
  Q4_K_M: { number: 15, dtype: "Q4_K" },
  Q5_K_S: { number: 16, dtype: "Q5_K" },
  Q5_K_M: { number: 17, dtype: "Q5_K" },
  Q6_K: { number: 18, dtype: "Q6_K" },
  IQ4_NL: { number: 25, dtype: "IQ4_NL" },
  IQ4_XS: { number: 30, dtype: "IQ4_XS" },
} as const satisfies Readonly<Record<string, FileType>>;

/** A type of a whole file, by llama.cpp's names. */
export type QuantizationType = keyof typeof fileTypes;

/** All of them, by falling width within each kind. */
export const quantizationTypes = Object.keys(fileTypes) as readonly QuantizationType[];

/** What `general.file_type` holds for a type. */
export function fileTypeNumber(type: QuantizationType): number {
  return fileTypes[type].number;
}

/** What a format gives way to where its block of 256 does not divide the rows. */
const narrower: Partial<Record<DType, DType>> = {
  Q2_K: "Q4_0",
  Q3_K: "Q4_0",
  Q4_K: "Q5_0",
  Q5_K: "Q5_1",
  Q6_K: "Q8_0",
  IQ4_XS: "IQ4_NL",
};

/** What the rules ask of a model beside its tensors. */
interface Model {
  readonly type: QuantizationType;
  readonly layers: number;
  /** Whether several query heads share a value head, at least four. */
  readonly grouped: boolean;
  /** Whether it is as large as Llama 2 70B, whose rules differ. */
  readonly large: boolean;
  /** Whether the token embedding is the output head as well. */
  readonly tied: boolean;
  /** Tensors of attention values. */
  readonly valueTensors: number;
}

/** The format of each of a model's tensors for `type`, by name, in the file's order. */
export function chooseTypes(file: ModelFile, type: QuantizationType): Map<string, DType> {
  const model = describe(file, type);
  const chosen = new Map<string, DType>();
  let values = 0;
  let downs = 0;
  // Rules that count tensors count in the order of the layers, whatever the file's.
  for (const tensor of [...file.tensors.values()].sort(byLayer)) {
    if (!isQuantizable(tensor)) {
      chosen.set(tensor.name, tensor.dtype);
      continue;
    }
    const kind = kindOf(tensor.name);
    const wanted = dtypeBlocks[fileTypes[type].dtype].columns === 1 ? fileTypes[type].dtype : chooseType();
    chosen.set(tensor.name, fitting(wanted, tensor));

    function chooseType(): DType {
      switch (kind) {
        case "head":
          return headType(model, tensor);
        case "value":
          return valueType(model, values++);
        case "down":
          return downType(model, downs++);
        case "output":
          return outputType(model);
        default:
          return fileTypes[type].dtype;
      }
    }

    function kindOf(name: string): "head" | "value" | "down" | "output" | "other" {
      if (name === "output.weight" || (model.tied && name === "token_embd.weight")) return "head";
      if (name.includes("attn_v.weight")) return "value";
      if (name.includes("ffn_down")) return "down";
      if (name.includes("attn_output.weight")) return "output";
      return "other";
    }
  }
  return new Map(Array.from(file.tensors.keys(), (name) => [name, chosen.get(name) ?? fileTypes[type].dtype]));
}

function describe(file: ModelFile, type: QuantizationType): Model {
  const { metadata, tensors } = file;
  const architecture = metadata.string("general.architecture");
  const layers = metadata.integer(`${architecture}.block_count`, { maximum: 10_000 });
  // A file may say it for each layer; the first one decides.
  const heads = metadata.perLayer(`${architecture}.attention.head_count`, layers)[0] ?? 0;
  const kvHeads = metadata.perLayer(`${architecture}.attention.head_count_kv`, layers, heads)[0] ?? 0;
  return {
    type,
    layers,
    grouped: kvHeads > 0 && Math.floor(heads / kvHeads) >= 4,
    large: layers === 80 && (architecture === "qwen2" || (architecture === "llama" && heads !== kvHeads)),
    tied: !tensors.has("output.weight"),
    valueTensors: [...tensors.keys()].filter((name) => name.includes("attn_v.weight")).length,
  };
}

function byLayer(a: TensorEntry, b: TensorEntry): number {
  const layerOf = (name: string) => Number(/^blk\.(\d+)\./.exec(name)?.[1] ?? -1);
  return layerOf(a.name) - layerOf(b.name) || (a.name < b.name ? -1 : 1);
}

/** Vectors and norms stay as they are. */
function isQuantizable({ name, shape }: TensorEntry): boolean {
  return shape.findLastIndex((size) => size > 1) >= 1 && name.endsWith("weight") && !name.includes("_norm.weight");
}

/** Layers at both ends, and every third between. */
function needsMoreBits(index: number, count: number): boolean {
  const eighth = Math.floor(count / 8);
  return index < eighth || index >= Math.floor((7 * count) / 8) || (index - eighth) % 3 === 2;
}

function headType({ type }: Model, { shape }: TensorEntry): DType {
  const { dtype } = fileTypes[type];
  const divides = (shape[0] ?? 0) % dtypeBlocks[dtype].columns === 0;
  return dtype === "Q8_0" || !divides ? "Q8_0" : "Q6_K";
}

function valueType(model: Model, index: number): DType {
  const dtype = ordinaryValueType(model, index);
  return model.large && (dtype === "Q3_K" || dtype === "Q4_K") ? "Q5_K" : dtype;
}

function ordinaryValueType({ type, grouped, valueTensors }: Model, index: number): DType {
  switch (type) {
    case "Q2_K":
      return grouped ? "Q4_K" : "Q3_K";
    case "Q3_K_M":
      return index < 2 ? "Q5_K" : "Q4_K";
    case "Q3_K_L":
      return "Q5_K";
    case "Q4_K_S":
      return index < 4 ? "Q5_K" : "Q4_K";
    case "Q4_K_M":
    case "Q5_K_M":
      return needsMoreBits(index, valueTensors) ? "Q6_K" : fileTypes[type].dtype;
    case "IQ4_NL":
    case "IQ4_XS":
      return grouped ? "Q5_K" : fileTypes[type].dtype;
    default:
      return fileTypes[type].dtype;
  }
}

function downType({ type, layers }: Model, index: number): DType {
  const { dtype } = fileTypes[type];
  const first = index < Math.floor(layers / 8);
  switch (type) {
    case "Q2_K":
      return "Q3_K";
    case "Q3_K_M":
      return index < Math.floor(layers / 16) ? "Q5_K" : "Q4_K";
    case "Q3_K_L":
      return "Q5_K";
    case "Q4_K_S":
    case "IQ4_NL":
    case "IQ4_XS":
      return first ? "Q5_K" : dtype;
    case "Q4_K_M":
    case "Q5_K_M":
      return needsMoreBits(index, layers) ? "Q6_K" : dtype;
    default:
      return dtype;
  }
}

function outputType({ type }: Model): DType {
  switch (type) {
    case "Q2_K":
      return "Q3_K";
    case "Q3_K_M":
      return "Q4_K";
    case "Q3_K_L":
      return "Q5_K";
    default:
      return fileTypes[type].dtype;
  }
}

/** `dtype`, or the nearest format whose blocks fit the tensor's rows. */
function fitting(dtype: DType, { shape }: TensorEntry): DType {
  const divides = (candidate: DType) => (shape[0] ?? 0) % dtypeBlocks[candidate].columns === 0;
  if (divides(dtype)) return dtype;
  const fallback = narrower[dtype] ?? dtype;
  return divides(fallback) ? fallback : "F16";
}
