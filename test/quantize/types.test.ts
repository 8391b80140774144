// Which format each tensor gets, against tables written from the rules of llama.cpp's llama-quantize by hand.

import { describe, expect, test } from "bun:test";
import type { DType } from "../../src/model/file.ts";
import { openGguf } from "../../src/model/gguf.ts";
import { chooseTypes, type QuantizationType } from "../../src/quantize/types.ts";
import { temporaryFolder } from "../support/folder.ts";
import { GgufWriter } from "../support/gguf-writer.ts";

const folder = temporaryFolder();
let files = 0;

interface Shape {
  readonly architecture?: string;
  readonly layers: number;
  readonly width?: number;
  readonly heads?: number;
  readonly kvHeads?: number;
  readonly tied?: boolean;
}

/** A file with a model's names and as few rows as can be. */
function modelOf({ architecture = "llama", layers, width = 256, heads = 4, kvHeads = 4, tied = false }: Shape): string {
  const path = folder.file(`model${files++}.gguf`);
  const writer = new GgufWriter()
    .set("general.architecture", "string", architecture)
    .set(`${architecture}.block_count`, "uint32", layers)
    .set(`${architecture}.attention.head_count`, "uint32", heads)
    .set(`${architecture}.attention.head_count_kv`, "uint32", kvHeads);
  const matrix = (name: string) => writer.tensor(name, "F16", [width, 2], new Float32Array(2 * width));
  const vector = (name: string) => writer.tensor(name, "F32", [width], new Float32Array(width));
  matrix("token_embd.weight");
  for (let layer = layers - 1; layer >= 0; layer--) {
    for (const name of ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]) {
      matrix(`blk.${layer}.${name}.weight`);
    }
    vector(`blk.${layer}.attn_norm.weight`);
    vector(`blk.${layer}.attn_q.bias`);
    // A norm stays what it is even as a matrix.
    matrix(`blk.${layer}.attn_q_norm.weight`);
  }
  vector("output_norm.weight");
  if (!tied) matrix("output.weight");
  writer.write(path);
  return path;
}

function typesOf(shape: Shape, type: QuantizationType): Map<string, DType> {
  return chooseTypes(openGguf(modelOf(shape)), type);
}

/** The format of `name` in each layer. */
function byLayer(types: ReadonlyMap<string, DType>, name: string, layers: number): (DType | undefined)[] {
  return Array.from({ length: layers }, (_, layer) => types.get(`blk.${layer}.${name}.weight`));
}

describe("a file type", () => {
  // type: [most matrices, embedding, head]
  const simple: readonly (readonly [QuantizationType, DType, DType, DType])[] = [
    ["F32", "F32", "F32", "F32"],
    ["F16", "F16", "F16", "F16"],
    ["BF16", "BF16", "BF16", "BF16"],
    ["Q4_0", "Q4_0", "Q4_0", "Q6_K"],
    ["Q4_1", "Q4_1", "Q4_1", "Q6_K"],
    ["Q5_0", "Q5_0", "Q5_0", "Q6_K"],
    ["Q5_1", "Q5_1", "Q5_1", "Q6_K"],
    ["Q8_0", "Q8_0", "Q8_0", "Q8_0"],
    ["Q2_K", "Q2_K", "Q2_K", "Q6_K"],
    ["Q3_K_S", "Q3_K", "Q3_K", "Q6_K"],
    ["Q3_K_M", "Q3_K", "Q3_K", "Q6_K"],
    ["Q3_K_L", "Q3_K", "Q3_K", "Q6_K"],
    ["Q4_K_S", "Q4_K", "Q4_K", "Q6_K"],
    ["Q4_K_M", "Q4_K", "Q4_K", "Q6_K"],
    ["Q5_K_S", "Q5_K", "Q5_K", "Q6_K"],
    ["Q5_K_M", "Q5_K", "Q5_K", "Q6_K"],
    ["Q6_K", "Q6_K", "Q6_K", "Q6_K"],
    ["IQ4_NL", "IQ4_NL", "IQ4_NL", "Q6_K"],
    ["IQ4_XS", "IQ4_XS", "IQ4_XS", "Q6_K"],
  ];
  test.each(simple)("%s gives most matrices, the embedding and the head theirs", (type, most, embedding, head) => {
    const untied = typesOf({ layers: 2 }, type);
    expect(untied.get("blk.1.ffn_gate.weight")).toBe(most);
    expect(untied.get("blk.0.attn_q.weight")).toBe(most);
    expect(untied.get("token_embd.weight")).toBe(embedding);
    expect(untied.get("output.weight")).toBe(head);
    const tied = typesOf({ layers: 2, tied: true }, type);
    expect(tied.get("token_embd.weight")).toBe(head);
    for (const types of [tied, untied]) {
      expect(types.get("blk.0.attn_norm.weight")).toBe("F32");
      expect(types.get("blk.0.attn_q.bias")).toBe("F32");
      expect(types.get("blk.0.attn_q_norm.weight")).toBe("F16");
      expect(types.get("output_norm.weight")).toBe("F32");
    }
  });

  test("gives values and down projections more bits at both ends and every third layer between", () => {
    // 16 layers: the first two, the last two, and from the second on those whose distance from it leaves 2 modulo 3.
    const more = [0, 1, 4, 7, 10, 13, 14, 15];
    for (const [type, most] of [
      ["Q4_K_M", "Q4_K"],
      ["Q5_K_M", "Q5_K"],
    ] as const) {
      const types = typesOf({ layers: 16 }, type);
      const expected = Array.from({ length: 16 }, (_, layer) => (more.includes(layer) ? "Q6_K" : most));
      expect(byLayer(types, "attn_v", 16)).toEqual(expected);
      expect(byLayer(types, "ffn_down", 16)).toEqual(expected);
      expect(byLayer(types, "attn_output", 16)).toEqual(new Array(16).fill(most));
    }
  });

  test("gives the first layers more bits where the type is a small one", () => {
    const small = typesOf({ layers: 16 }, "Q4_K_S");
    expect(byLayer(small, "attn_v", 16)).toEqual([...new Array(4).fill("Q5_K"), ...new Array(12).fill("Q4_K")]);
    expect(byLayer(small, "ffn_down", 16)).toEqual([...new Array(2).fill("Q5_K"), ...new Array(14).fill("Q4_K")]);
    const medium = typesOf({ layers: 16 }, "Q3_K_M");
    expect(byLayer(medium, "attn_v", 16)).toEqual([...new Array(2).fill("Q5_K"), ...new Array(14).fill("Q4_K")]);
    expect(byLayer(medium, "ffn_down", 16)).toEqual(["Q5_K", ...new Array(15).fill("Q4_K")]);
    expect(byLayer(medium, "attn_output", 16)).toEqual(new Array(16).fill("Q4_K"));
    const large = typesOf({ layers: 16 }, "Q3_K_L");
    for (const name of ["attn_v", "ffn_down", "attn_output"]) {
      expect(byLayer(large, name, 16)).toEqual(new Array(16).fill("Q5_K"));
    }
    const least = typesOf({ layers: 16 }, "Q2_K");
    for (const name of ["attn_v", "ffn_down", "attn_output"]) {
      expect(byLayer(least, name, 16)).toEqual(new Array(16).fill("Q3_K"));
    }
    const curved = typesOf({ layers: 16 }, "IQ4_XS");
    expect(byLayer(curved, "ffn_down", 16)).toEqual([...new Array(2).fill("Q5_K"), ...new Array(14).fill("IQ4_XS")]);
    expect(byLayer(curved, "attn_v", 16)).toEqual(new Array(16).fill("IQ4_XS"));
  });

  test("gives values that four query heads share more bits", () => {
    const shared = { layers: 8, heads: 8, kvHeads: 2 };
    expect(byLayer(typesOf(shared, "Q2_K"), "attn_v", 8)).toEqual(new Array(8).fill("Q4_K"));
    expect(byLayer(typesOf(shared, "IQ4_NL"), "attn_v", 8)).toEqual(new Array(8).fill("Q5_K"));
    // Three do not.
    expect(byLayer(typesOf({ layers: 8, heads: 9, kvHeads: 3 }, "Q2_K"), "attn_v", 8)).toEqual(
      new Array(8).fill("Q3_K"),
    );
  });

  test("gives the values of a model as large as Llama 2 70B at least Q5_K", () => {
    const large = { layers: 80, heads: 8, kvHeads: 2 };
    expect(byLayer(typesOf(large, "Q3_K_S"), "attn_v", 80)).toEqual(new Array(80).fill("Q5_K"));
    expect(byLayer(typesOf({ ...large, kvHeads: 8 }, "Q3_K_S"), "attn_v", 80)).toEqual(new Array(80).fill("Q3_K"));
  });
});

describe("rows that a block of 256 does not divide", () => {
  const fallbacks: readonly (readonly [QuantizationType, DType])[] = [
    ["Q2_K", "Q4_0"],
    ["Q3_K_S", "Q4_0"],
    ["Q4_K_S", "Q5_0"],
    ["Q5_K_S", "Q5_1"],
    ["Q6_K", "Q8_0"],
    ["IQ4_XS", "IQ4_NL"],
    ["Q4_0", "Q4_0"],
  ];
  test.each(fallbacks)("get the next format of 32 for %s, and the head Q8_0", (type, expected) => {
    for (const width of [576, 640, 896]) {
      const types = typesOf({ layers: 2, width }, type);
      expect(types.get("blk.1.ffn_up.weight")).toBe(expected);
      expect(types.get("output.weight")).toBe("Q8_0");
    }
    expect(typesOf({ layers: 16, width: 576 }, "Q4_K_M").get("blk.0.ffn_down.weight")).toBe("Q8_0");
  });

  test("get F16 where not even one of 32 does", () => {
    for (const type of ["Q4_K_M", "Q8_0", "Q4_0", "IQ4_XS"] as const) {
      const types = typesOf({ layers: 2, width: 48 }, type);
      expect(types.get("blk.1.ffn_up.weight")).toBe("F16");
      expect(types.get("output.weight")).toBe("F16");
    }
  });
});
