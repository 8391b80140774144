// What `bun run bench:kernels` measures: every kernel with the shapes that small models give it, and what each run of it reads,
// writes and computes.

import type { Measurement } from "../src/engine/stand.ts";
import { type Conv2dOptions, convolutionShape } from "../src/graph/graph.ts";
import { type DType, dtypeBlocks } from "../src/model/file.ts";
import { convolutionNumbers } from "../src/plan/convolution.ts";
import { activationForm, packedBytes, rowBytes } from "../src/plan/formats.ts";
import { attentionSplitRows } from "../src/plan/layout.ts";

/** Far more than caches hold: a run finds nothing of the last one's weights there. */
export const memoryBytes = 256 << 20;

export interface KernelCase {
  readonly kernel: string;
  readonly shape: string;
  readonly measurement: Measurement;
  /** Bytes that a run reads of its large operands, and of the others reads and writes. */
  readonly bytes: number;
  /** Operations that a run takes at least; 0: few beside its bytes. */
  readonly operations: number;
  /** What the operations are of. */
  readonly arithmetic: "float" | "int8" | "int16";
  /** Whether the large operand comes from memory. The others find everything in a cache. */
  readonly fromMemory: boolean;
}

const formats = Object.keys(dtypeBlocks) as readonly DType[];
const tokenCounts = [1, 4, 16, 512] as const;

/** Matrices by the model they are of. Formats of 256 columns a block fit only multiples of that. */
const matrices = [
  { model: "llama-1b up", rows: 8192, columns: 2048 },
  { model: "gemma3-270m up", rows: 2048, columns: 640 },
] as const;

/** Encoders, whose weights stay in a cache; their texts are of 20 or of 512 tokens, and steps of 512. */
const encoders = [{ model: "all-minilm-l6-v2", width: 384, ffn: 1536, heads: 12, headWidth: 32 }] as const;

/** Attention of a layer by the model that it is of. */
const heads = [
  { model: "llama-1b", heads: 32, kvHeads: 8, headWidth: 64 },
  { model: "gemma3-270m", heads: 4, kvHeads: 1, headWidth: 256 },
] as const;

/** Convolutions of one image or sequence by the model that they are of. */
const convolutions: readonly ({ model: string; channels: number; outputs: number } & Conv2dOptions)[] = [
  { model: "MobileNet", channels: 3, outputs: 32, size: [224, 224], kernel: [3, 3], stride: [2, 2], padding: [1, 1] },
  { model: "MobileNet", channels: 32, outputs: 32, size: [112, 112], kernel: [3, 3], padding: [1, 1], groups: 32 },
  { model: "MobileNet", channels: 512, outputs: 512, size: [14, 14], kernel: [3, 3], padding: [1, 1], groups: 512 },
  { model: "MobileNet", channels: 64, outputs: 128, size: [56, 56], kernel: [1, 1] },
  { model: "MobileNet", channels: 512, outputs: 512, size: [14, 14], kernel: [1, 1] },
  { model: "ResNet", channels: 64, outputs: 128, size: [56, 56], kernel: [3, 3], padding: [1, 1] },
  { model: "ResNet", channels: 512, outputs: 512, size: [7, 7], kernel: [3, 3], padding: [1, 1] },
  { model: "Whisper", channels: 80, outputs: 384, size: [1, 3000], kernel: [1, 3], padding: [0, 1] },
];

/** Where a step stands: tokens of it, and positions before. */
const steps = [
  { name: "generation at 512", tokens: 1, position: 511 },
  { name: "generation at 4096", tokens: 1, position: 4095 },
  { name: "prompt of 512", tokens: 512, position: 0 },
  { name: "prompt of 512 at 4096", tokens: 512, position: 4096 },
] as const;

export function kernelCases(): KernelCase[] {
  return [...products(), ...convolving(), ...attentions(), ...encoding(), ...elementwise(), ...others()];
}

function products(): KernelCase[] {
  const cases: KernelCase[] = [];
  for (const format of formats) {
    for (const { model, rows, columns } of matrices) {
      if (columns % dtypeBlocks[format].columns !== 0) continue;
      for (const tokens of tokenCounts) {
        const { weight, scales } = packedBytes(format, rows, columns);
        const form = activationForm(format);
        cases.push({
          kernel: `matmul ${format}`,
          shape: `${rows} × ${columns} (${model}), ${count(tokens, "token")}`,
          measurement: { kernel: "matmul", format, rows, columns, tokens, workingBytes: memoryBytes },
          bytes: weight + scales + tokens * (rowBytes(form, columns) + rows * 4),
          operations: 2 * rows * columns * tokens,
          arithmetic: form === "wide" ? "int16" : form,
          fromMemory: true,
        });
      }
    }
  }
  return cases;
}

function convolving(): KernelCase[] {
  return convolutions.map(({ model, channels, outputs, ...options }): KernelCase => {
    const shape = convolutionShape(channels, outputs, options);
    const { size, outSize, kernel, stride, groups } = shape;
    const columns = (channels / groups) * kernel[0] * kernel[1];
    const values = outSize[0] * outSize[1] * outputs;
    const strided = stride[0] * stride[1] > 1 ? ` by ${stride.join(" × ")}` : "";
    return {
      kernel: groups === channels ? "conv depthwise" : "conv",
      shape: `${size.join(" × ")} × ${channels} to ${outputs}, ${kernel.join(" × ")}${strided} (${model})`,
      measurement: { kernel: "conv", rows: outputs, columns, tokens: 1, convolution: convolutionNumbers(shape) },
      bytes: packedBytes("F32", outputs, columns).weight + (size[0] * size[1] * channels + values) * 4,
      operations: 2 * values * columns,
      arithmetic: "float",
      fromMemory: false,
    };
  });
}

function attentions(): KernelCase[] {
  return heads.flatMap(({ model, ...shape }) =>
    steps.map(({ name, tokens, position }): KernelCase => {
      const width = shape.heads * shape.headWidth;
      // Positions that each row looks at, itself among them.
      const looks = tokens * position + (tokens * (tokens + 1)) / 2;
      return {
        kernel: "attention",
        shape: `${model}, ${name}`,
        measurement: { kernel: "attention", ...shape, tokens, position, workingBytes: memoryBytes },
        bytes:
          (position + tokens) * shape.kvHeads * shape.headWidth * 4 + tokens * (width * 4 + rowBytes("int8", width)),
        operations: 4 * width * looks,
        arithmetic: "float",
        fromMemory: tokens <= attentionSplitRows,
      };
    }),
  );
}

function encoding(): KernelCase[] {
  const format = "BF16";
  return encoders.flatMap(({ model, width, ffn, heads, headWidth }) => {
    const matrices = [
      [width, width],
      [ffn, width],
      [width, ffn],
    ] as const;
    return [20, 512].flatMap((tokens): KernelCase[] => [
      ...matrices.map(([rows, columns]): KernelCase => {
        const { weight, scales } = packedBytes(format, rows, columns);
        return {
          kernel: `matmul ${format}`,
          shape: `${rows} × ${columns} (${model}), ${tokens} tokens`,
          measurement: { kernel: "matmul", format, rows, columns, tokens },
          bytes: weight + scales + tokens * (rowBytes("wide", columns) + rows * 4),
          operations: 2 * rows * columns * tokens,
          arithmetic: "int16",
          fromMemory: false,
        };
      }),
      {
        kernel: "encode",
        shape: `${model}, a text of ${tokens}`,
        measurement: { kernel: "encode", heads, kvHeads: heads, headWidth, tokens },
        bytes: tokens * (3 * width * 4 + rowBytes("wide", width)),
        operations: 4 * width * tokens * tokens,
        arithmetic: "float",
        fromMemory: false,
      },
      {
        kernel: "activation",
        shape: `${ffn} wide, ${tokens} rows`,
        measurement: { kernel: "activation", columns: ffn, tokens },
        bytes: tokens * (ffn * 4 + rowBytes("wide", ffn)),
        operations: 0,
        arithmetic: "float",
        fromMemory: false,
      },
    ]);
  });
}

function elementwise(): KernelCase[] {
  const cases: KernelCase[] = [];
  for (const tokens of [1, 512]) {
    const add = (kernel: "norm" | "glu" | "quantize", columns: number, floats: number, other: number) =>
      cases.push({
        kernel,
        shape: `${columns} wide, ${count(tokens, "row")}`,
        measurement: { kernel, columns, tokens },
        bytes: tokens * (floats * columns * 4 + rowBytes("int8", columns)) + other,
        operations: 0,
        arithmetic: "float",
        fromMemory: false,
      });
    // A norm reads its rows twice, the second time from the first-level cache, which is not counted.
    add("norm", 640, 1, 640 * 4);
    add("norm", 2048, 1, 2048 * 4);
    add("glu", 2048, 2, 0);
    add("glu", 8192, 2, 0);
    add("quantize", 2048, 1, 0);
    for (const { model, ...shape } of heads) {
      const q = shape.heads * shape.headWidth;
      const k = shape.kvHeads * shape.headWidth;
      cases.push({
        kernel: "rope_store",
        shape: `${model}, ${count(tokens, "row")}`,
        measurement: { kernel: "rope_store", ...shape, tokens, position: 0 },
        // q read and written, k and v read as float32 and written as float16, a row of the table.
        bytes: tokens * (q * 8 + k * 12 + shape.headWidth * 4),
        operations: 0,
        arithmetic: "float",
        fromMemory: false,
      });
    }
  }
  return cases;
}

function others(): KernelCase[] {
  const cases: KernelCase[] = [];
  for (const format of ["F16", "Q8_0", "Q6_K"] as const) {
    const [rows, columns, tokens] = [64_000, 2048, 512];
    const { weight, scales } = packedBytes(format, rows, columns);
    cases.push({
      kernel: `embed ${format}`,
      shape: `${columns} wide, ${tokens} tokens of ${rows}`,
      measurement: { kernel: "embed", format, rows, columns, tokens },
      bytes: tokens * ((weight + scales) / rows + columns * 4),
      operations: 0,
      arithmetic: "float",
      fromMemory: false,
    });
  }
  for (const vocabulary of [49_152, 262_144]) {
    cases.push({
      kernel: "sample",
      shape: `one of ${vocabulary}, top-k 40, top-p 0.95`,
      measurement: { kernel: "sample", columns: vocabulary, tokens: 1 },
      bytes: vocabulary * 4,
      operations: 0,
      arithmetic: "float",
      fromMemory: false,
    });
  }
  for (const format of formats) {
    const [rows, columns] = [2048, 2048];
    const { weight, scales } = packedBytes(format, rows, columns);
    cases.push({
      kernel: `pack ${format}`,
      shape: `${rows} × ${columns}`,
      measurement: { kernel: "pack", format, rows, columns },
      // The packed layout is as large as the file's.
      bytes: 2 * (weight + scales),
      operations: 0,
      arithmetic: "float",
      fromMemory: false,
    });
  }
  for (const targetFormat of formats) {
    if (targetFormat === "F32") continue;
    const [columns, tokens] = [32_768, 16];
    const { weight, scales } = packedBytes(targetFormat, 16, columns / 16);
    cases.push({
      kernel: `convert ${targetFormat}`,
      shape: `${tokens} × ${columns} values of F32`,
      measurement: { kernel: "convert", format: "F32", targetFormat, columns, tokens },
      bytes: tokens * (columns * 4 + weight + scales),
      operations: 0,
      arithmetic: "float",
      fromMemory: false,
    });
  }
  return cases;
}

function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}
