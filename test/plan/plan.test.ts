// From graphs to programs: what is fused, where values become int8, which ops run without a barrier, where everything lies.
// Random graphs are checked on the encoded program, by what zig/program.zig says that each op reads and writes.

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  type Conv2dOptions,
  type Graph,
  GraphBuilder,
  type Value,
  type Vector,
  type Weight,
} from "../../src/graph/graph.ts";
import type { DType } from "../../src/model/file.ts";
import { formRows, slotsMax } from "../../src/plan/layout.ts";
import { type Plan, type PlannedOp, type PlanOptions, pagesNeeded, planProgram } from "../../src/plan/plan.ts";
import { screenProblem } from "../../src/plan/screen.ts";
import { blockSize } from "../support/formats.ts";
import {
  arenaRegion,
  type DecodedProgram,
  decodeProgram,
  overlap,
  type ProgramOp,
  touchedBy,
} from "../support/program.ts";

const width = 64;
const vocabulary = 384;
const options: PlanOptions = {
  contextMax: 2048,
  batchMax: 4,
  rowsMax: 32,
  logitsRowsMax: 8,
  chunkPositions: 32,
  kvBytesMax: 1e9,
  keptBytesMax: 0,
};

let names = 0;
let fileOffset = 0;

function weight(rows: number, columns: number, dtype: DType = "F32"): Weight {
  const block = blockSize(dtype);
  const byteLength = (rows * columns * block.bytes) / block.columns;
  fileOffset += byteLength;
  return { name: `weight${names++}.weight`, dtype, rows, columns, byteOffset: fileOffset - byteLength, byteLength };
}

function vector(length: number): Vector {
  return { name: `vector${names++}.weight`, values: new Float32Array(length).fill(1) };
}

const ropes = [1e4, 1e6].map((base) => ({
  style: "halves" as const,
  frequencies: Float32Array.from({ length: 8 }, (_, pair) => base ** (-pair / 8)),
  scale: 1,
}));

function attention(g: GraphBuilder, input: Value, dtypes: readonly DType[], window: number, headWidth = 16): Value {
  const [a = "F32", b = "F32", c = "F32"] = dtypes;
  const q = g.matmul(input, weight(4 * headWidth, width, a));
  const k = g.matmul(input, weight(2 * headWidth, width, b));
  const v = g.matmul(input, weight(2 * headWidth, width, c));
  const [short, long] = ropes;
  const rope = window > 0 ? short : long;
  if (!rope) throw new Error("no rope");
  return g.attention(q, k, v, {
    heads: 4,
    kvHeads: 2,
    headWidth,
    window,
    scale: 0.25,
    softCap: 0,
    rope,
    normEpsilon: 1e-6,
  });
}

function finish(g: GraphBuilder, x: Value, dtype: DType = "F32", embeds = false): Graph {
  g.layer(-1);
  if (embeds) g.embedding(g.rmsNorm(x, vector(width), 1e-6));
  const last = g.rmsNorm(g.select(x), vector(width), 1e-6);
  return g.finish(g.matmul(last, weight(vocabulary, width, dtype)), 4096);
}

interface Block {
  readonly kind: "attention" | "feedForward" | "twice" | "bare";
  readonly dtypes: readonly DType[];
  readonly postNorm: boolean;
  readonly window: number;
}

const dtype = fc.constantFrom<DType>("F32", "F16", "BF16", "Q8_0", "Q4_0");
const block = fc.record<Block>({
  kind: fc.constantFrom<Block["kind"]>("attention", "feedForward", "twice", "bare"),
  dtypes: fc.array(dtype, { minLength: 4, maxLength: 4 }),
  postNorm: fc.boolean(),
  window: fc.constantFrom(0, 16, 64, 4096),
});

/** Residual blocks of random kinds and formats, some in shapes that no family has. */
function randomGraph(blocks: readonly Block[], headDtype: DType, embeds: boolean): Graph {
  const g = new GraphBuilder();
  let x = g.embed(weight(vocabulary, width));
  blocks.forEach(({ kind, dtypes, postNorm, window }, layer) => {
    g.layer(layer);
    const [a = "F32", b = "F32", c = "F32", d = "F32"] = dtypes;
    const output = (inner: Value): Value => {
      const projected = g.matmul(inner, weight(width, inner.width, d));
      return g.add(x, postNorm ? g.rmsNorm(projected, vector(width), 1e-6) : projected);
    };
    if (kind === "attention") {
      x = output(attention(g, g.rmsNorm(x, vector(width), 1e-6), dtypes, window));
    } else if (kind === "feedForward") {
      const normed = g.rmsNorm(x, vector(width), 1e-6);
      x = output(g.glu(g.matmul(normed, weight(128, width, a)), g.matmul(normed, weight(128, width, b)), "silu"));
    } else if (kind === "twice") {
      // Both branches read the stream itself; the product is read twice, so that the addition cannot take it in.
      const product = g.matmul(x, weight(width, width, a));
      const other = g.matmul(product, weight(width, width, c));
      x = g.add(x, g.add(other, product));
    } else {
      const gate = g.matmul(x, weight(width, width, a));
      x = g.add(x, g.glu(gate, gate, "gelu_tanh"));
    }
  });
  return finish(g, x, headDtype, embeds);
}

/** An encoder of such blocks: norms behind them, and no cache. */
function randomEncoder(blocks: readonly Block[], positions: boolean): Graph {
  const g = new GraphBuilder();
  const placed = positions ? vector(options.contextMax * width) : undefined;
  const norm = (value: Value, bias = true) =>
    g.layerNorm(value, vector(width), bias ? vector(width) : undefined, 1e-12);
  let x = norm(g.embed(weight(vocabulary, width), { positions: placed }));
  blocks.forEach(({ kind, dtypes, postNorm, window }, layer) => {
    g.layer(layer);
    const [a = "F32", b = "F32", c = "F32", d = "F32"] = dtypes;
    const bias = postNorm ? vector(width) : undefined;
    if (kind === "attention" || kind === "twice") {
      const [q, k, v] = [a, b, c].map((type) => g.matmul(x, weight(width, width, type), { bias }));
      if (!q || !k || !v) throw new Error("three products");
      const rope = window > 0 ? ropes[0] : undefined;
      const encoded = g.encode(q, k, v, { heads: 2, headWidth: 32, scale: 0.25, rope });
      x = norm(g.add(x, g.matmul(encoded, weight(width, width, d), { bias })), postNorm);
    } else {
      const inner = g.matmul(x, weight(128, width, a));
      const active = kind === "bare" ? g.glu(inner, inner, "relu") : g.activation(inner, "gelu");
      x = norm(g.add(x, g.matmul(active, weight(width, 128, b))), postNorm);
    }
  });
  g.layer(-1);
  g.embedding(x, { pooling: "first" });
  return g.finish(undefined, 4096, vocabulary);
}

/** What an encoder's steps may have. */
const encoding: PlanOptions = { ...options, rowsMax: options.contextMax };

/** Ops between two barriers. */
function barrierGroups(ops: readonly ProgramOp[]): ProgramOp[][] {
  const groups: ProgramOp[][] = [[]];
  for (const op of ops) {
    groups.at(-1)?.push(op);
    if (!op.joinsNext) groups.push([]);
  }
  expect(groups.pop()).toEqual([]);
  return groups;
}

function forAnyPlan(check: (plan: Plan) => void): void {
  const blocks = fc.array(block, { minLength: 1, maxLength: 6 });
  fc.assert(
    fc.property(blocks, dtype, fc.boolean(), fc.boolean(), (list, headDtype, embeds, fusion) => {
      check(planProgram(randomEncoder(list, embeds), { ...encoding, fusion }));
      const graph = randomGraph(list, headDtype, embeds);
      check(planProgram(graph, { ...options, fusion }));
      if (screenProblem(graph)) return;
      check(planProgram(graph, { ...options, screening: true, fusion }));
    }),
  );
}

function forAnyProgram(check: (program: DecodedProgram) => void): void {
  forAnyPlan((plan) => check(decodeProgram(plan.program)));
}

/** For each op, the first and the last of those that run with no barrier between them and it. */
function neighbours(ops: readonly ProgramOp[]): [first: number, last: number][] {
  let next = 0;
  return barrierGroups(ops).flatMap((group) => {
    const place: [number, number] = [next, next + group.length - 1];
    next += group.length;
    return group.map(() => place);
  });
}

describe("any graph's program", () => {
  test("has no op that reads or writes what another one writes, without a barrier between them", () => {
    forAnyProgram((program) => {
      for (const group of barrierGroups(program.ops)) {
        group.forEach((op, index) => {
          const mine = touchedBy(op);
          for (const other of group.slice(index + 1)) {
            const others = touchedBy(other);
            for (const written of mine.writes) {
              for (const place of [...others.reads, ...others.writes]) expect(overlap(written, place)).toBe(false);
            }
            for (const written of others.writes) {
              for (const place of mine.reads) expect(overlap(written, place)).toBe(false);
            }
          }
        });
      }
    });
  });

  test("reads only what was written and has not been overwritten since", () => {
    forAnyProgram((program) => {
      const { ops, tensors } = program;
      const arena = tensors.filter(({ region }) => region === arenaRegion);
      const valid = new Set<number>();
      for (const op of ops) {
        const { reads, writes } = touchedBy(op);
        for (const read of reads) {
          if (typeof read !== "string" && read.region === arenaRegion) expect(valid.has(read.index)).toBe(true);
        }
        for (const written of writes) {
          if (typeof written === "string") continue;
          for (const other of arena) if (overlap(written, other)) valid.delete(other.index);
          valid.add(written.index);
        }
      }
    });
  });

  test("says of each buffer where it lies and how long it is needed, and no two share a byte while both are", () => {
    forAnyPlan(({ program, buffers, arenaBytes }) => {
      const { ops, tensors } = decodeProgram(program);
      const arena = tensors.filter(({ region }) => region === arenaRegion);
      const places = neighbours(ops);
      expect(buffers.length).toBe(arena.length);
      for (const [index, { offset, bytes, rows, columns, firstOp, lastOp }] of buffers.entries()) {
        const tensor = arena[index];
        expect(tensor).toMatchObject({ offset, bytes, rows, columns });
        expect(offset + bytes).toBeLessThanOrEqual(arenaBytes);
        const touching = places.filter((_, at) => {
          const { reads, writes } = touchedBy(ops[at] as ProgramOp);
          return [...reads, ...writes].some((place) => typeof place !== "string" && place.index === tensor?.index);
        });
        expect(firstOp).toBeLessThanOrEqual(touching[0]?.[0] ?? -1);
        expect(lastOp).toBeGreaterThanOrEqual(touching.at(-1)?.[1] ?? ops.length);
        for (const other of buffers.slice(index + 1)) {
          const together = firstOp <= other.lastOp && other.firstOp <= lastOp;
          if (together) expect(offset + bytes <= other.offset || other.offset + other.bytes <= offset).toBe(true);
        }
      }
    });
  });

  test("has its tensors aligned and inside their regions, weights without overlap", () => {
    forAnyProgram((program) => {
      const { tensors, arenaBytes, weightsBytes } = program;
      for (const { region, offset, bytes, stride, rows } of tensors) {
        expect(offset % 64).toBe(0);
        expect(stride % 64).toBe(0);
        if (region === arenaRegion) {
          expect(bytes).toBe(stride * rows);
          expect(offset + bytes).toBeLessThanOrEqual(arenaBytes);
        }
      }
      const weights = tensors.filter(({ region }) => region === 0).sort((a, b) => a.offset - b.offset);
      weights.forEach((tensor, index) => {
        expect(tensor.offset + tensor.bytes).toBeLessThanOrEqual(weights[index + 1]?.offset ?? weightsBytes);
      });
    });
  });

  test("feeds every product the form of activations that its weight takes", () => {
    forAnyProgram((program) => {
      for (const op of program.ops) {
        if (op.kind !== "matmul") continue;
        const [, x, matrix] = op.tensors;
        const format = matrix?.format ?? 0;
        expect(x?.format).toBe(format > 2 ? formRows.int8 : format > 0 ? formRows.wide : 0);
      }
    });
  });

  test("works on the wanted rows alone from the selection on, and says so to the executor", () => {
    forAnyProgram((program) => {
      const { ops } = program;
      const first = ops.findIndex(({ kind }) => kind === "gather");
      expect(first > 0 || !ops.some(({ onLogitsRows }) => onLogitsRows)).toBe(true);
      if (first < 0) return;
      ops.forEach((op, index) => {
        expect(op.onLogitsRows).toBe(index >= first);
      });
    });
  });
});

describe("a program that gives vectors", () => {
  test("keeps them where nothing else is written, a row for each slot", () => {
    forAnyProgram(({ ops, tensors }) => {
      const pool = ops.find(({ kind }) => kind === "pool");
      if (!pool) return;
      const [vectors] = pool.tensors;
      expect([vectors?.rows, vectors?.columns]).toEqual([slotsMax, width]);
      for (const other of tensors) {
        if (vectors && other !== vectors) expect(overlap(vectors, other)).toBe(false);
      }
    });
  });

  test("runs only for them what tokens do not need, and all else as if it gave none", () => {
    const draws = (embeds: boolean) => {
      const g = new GraphBuilder();
      return opsOf(finish(g, g.embed(weight(vocabulary, width)), "F32", embeds));
    };
    const both = draws(true);
    expect(both.filter(({ embeds }) => embeds).map(({ kind }) => kind)).toEqual(["norm", "pool"]);
    const others = both.filter(({ embeds }) => !embeds);
    expect(others.map(({ kind, u, f }) => ({ kind, u, f }))).toEqual(
      draws(false).map(({ kind, u, f }) => ({ kind, u, f })),
    );
  });

  test("of an encoder adds products to the stream, normalises it, and activates into the next product's form", () => {
    const feedForward = { kind: "feedForward", dtypes: ["BF16", "BF16", "BF16", "BF16"], postNorm: true } as const;
    const attends = { ...feedForward, kind: "attention" } as const;
    const layers = [attends, feedForward].map((part) => ({ ...part, window: 0 }));
    const ops = decodeProgram(planProgram(randomEncoder(layers, true), encoding).program).ops;
    expect(ops.map(({ kind }) => kind)).toEqual([
      ...["embed", "norm", "matmul", "matmul", "matmul", "encode", "matmul", "norm"],
      ...["matmul", "activation", "matmul", "norm", "pool"],
    ] as ProgramOp["kind"][]);
    const [, , , , , encode, output, , , activation, down] = ops;
    expect([output?.u[0], down?.u[0]]).toEqual([1, 1]);
    for (const op of [encode, activation]) {
      expect(op?.tensors[0]).toBeUndefined();
      expect(op?.tensors[1]?.format).toBe(formRows.wide);
    }
    expect(ops.filter(({ joinsNext }) => joinsNext).length).toBe(2);
  });
});

describe("a graph", () => {
  test("cannot be finished without logits and vectors, or with a cache beside texts that are whole", () => {
    const start = () => {
      const g = new GraphBuilder();
      return { g, x: g.embed(weight(vocabulary, width)) };
    };
    const { g } = start();
    expect(() => g.finish(undefined, 64, vocabulary)).toThrow("logits, an embedding, or both");
    const mixed = start();
    const shape = { heads: 2, headWidth: 32, scale: 1, rope: undefined };
    const encoded = mixed.g.encode(mixed.x, mixed.x, mixed.x, shape);
    mixed.g.embedding(attention(mixed.g, encoded, [], 0));
    expect(() => mixed.g.finish(undefined, 64, vocabulary)).toThrow("no cache");
    const wrong = start();
    expect(() => wrong.g.embed(weight(vocabulary, width), { positions: vector(width + 1) })).toThrow("width");
    expect(() => wrong.g.embedding(wrong.g.select(wrong.x))).toThrow("all its rows");
  });
});

function kinds(graph: Graph): string[] {
  return planProgram(graph, options).ops.map(({ kind }) => kind);
}

function opsOf(graph: Graph): readonly ProgramOp[] {
  return decodeProgram(planProgram(graph, options).program).ops;
}

describe("lowering", () => {
  test("adds a product to the stream in the product itself", () => {
    const g = new GraphBuilder();
    const x = g.embed(weight(vocabulary, width));
    const inner = g.matmul(g.rmsNorm(x, vector(width), 1e-6), weight(width, width));
    const graph = finish(g, g.add(x, inner));
    expect(kinds(graph)).toEqual(["embed", "norm", "matmul", "gather", "norm", "matmul"]);
    const [embed, , product] = opsOf(graph);
    expect(product?.u[0]).toBe(1);
    expect(product?.tensors[0]).toEqual(embed?.tensors[0]);
  });

  test("adds a norm to the stream in the norm itself", () => {
    const g = new GraphBuilder();
    const x = g.embed(weight(vocabulary, width));
    const inner = g.matmul(g.rmsNorm(x, vector(width), 1e-6), weight(width, width));
    const graph = finish(g, g.add(x, g.rmsNorm(inner, vector(width), 1e-6)));
    expect(kinds(graph)).toEqual(["embed", "norm", "matmul", "norm", "gather", "norm", "matmul"]);
    const [embed, , , norm] = opsOf(graph);
    expect(norm?.tensors[4]).toEqual(embed?.tensors[0]);
    expect(norm?.tensors[0]).toEqual(embed?.tensors[0]);
  });

  test("leaves a product alone that is read twice, or that has a soft cap", () => {
    const twice = new GraphBuilder();
    let x = twice.embed(weight(vocabulary, width));
    const product = twice.matmul(x, weight(width, width));
    x = twice.add(x, twice.add(twice.matmul(product, weight(width, width)), product));
    expect(kinds(finish(twice, x)).filter((kind) => kind === "add").length).toBe(2);

    const capped = new GraphBuilder();
    x = capped.embed(weight(vocabulary, width));
    x = capped.add(x, capped.matmul(x, weight(width, width), { softCap: 3 }));
    const ops = opsOf(finish(capped, x));
    expect(ops.map(({ kind }) => kind)).toEqual(["embed", "matmul", "add", "gather", "norm", "matmul"]);
    expect(ops[1]?.f[0]).toBe(3);
  });

  test("refuses an addition whose first operand is needed afterwards", () => {
    const g = new GraphBuilder();
    const x = g.embed(weight(vocabulary, width));
    const y = g.add(x, g.matmul(x, weight(width, width)));
    expect(() => planProgram(finish(g, g.add(y, x)), options)).toThrow("used again");
  });

  test("writes int8 activations where the value is made, in its own op only where that cannot", () => {
    const g = new GraphBuilder();
    const x = g.embed(weight(vocabulary, width));
    const direct = g.matmul(x, weight(width, width, "Q8_0"));
    const normed = g.rmsNorm(direct, vector(width), 1e-6);
    const a = g.matmul(normed, weight(width, width, "Q8_0"));
    const b = g.matmul(normed, weight(width, width, "Q4_0"));
    const graph = finish(g, g.glu(a, b, "silu"), "Q8_0");
    expect(kinds(graph)).toEqual([
      "embed",
      "quantize",
      "matmul",
      "norm",
      "matmul",
      "matmul",
      "glu",
      "gather",
      "norm",
      "matmul",
    ]);
    const [, , , norm, , , glu, , last] = opsOf(graph);
    // Only int8 is wanted of the norms, only float32 of the unit before the selection.
    expect(norm?.tensors.slice(0, 2).map((tensor) => tensor?.format)).toEqual([undefined, formRows.int8]);
    expect(glu?.tensors.slice(0, 2).map((tensor) => tensor?.format)).toEqual([0, undefined]);
    expect(last?.tensors.slice(0, 2).map((tensor) => tensor?.format)).toEqual([undefined, formRows.int8]);
  });

  test("writes both forms where both are wanted", () => {
    const g = new GraphBuilder();
    const normed = g.rmsNorm(g.embed(weight(vocabulary, width)), vector(width), 1e-6);
    const a = g.matmul(normed, weight(width, width, "Q8_0"));
    const b = g.matmul(normed, weight(width, width));
    const [, norm] = opsOf(finish(g, g.glu(a, b, "silu")));
    expect(norm?.tensors.slice(0, 2).map((tensor) => tensor?.format)).toEqual([0, formRows.int8]);
  });

  test("writes a third form from float32, which is then kept", () => {
    const g = new GraphBuilder();
    const normed = g.rmsNorm(g.embed(weight(vocabulary, width)), vector(width), 1e-6);
    const a = g.matmul(normed, weight(width, width, "Q8_0"));
    const b = g.matmul(normed, weight(width, width, "F16"));
    const graph = finish(g, g.glu(a, b, "silu"));
    expect(kinds(graph).slice(0, 5)).toEqual(["embed", "norm", "quantize", "matmul", "matmul"]);
    const [, norm, quantize] = opsOf(graph);
    expect(norm?.tensors.slice(0, 2).map((tensor) => tensor?.format)).toEqual([0, formRows.int8]);
    expect(quantize?.tensors.slice(0, 2).map((tensor) => tensor?.format)).toEqual([formRows.wide, 0]);
  });

  test("without fusion adds, and makes the forms that products take, in ops of their own", () => {
    const g = new GraphBuilder();
    const x = g.embed(weight(vocabulary, width));
    const normed = g.rmsNorm(x, vector(width), 1e-6);
    const product = g.matmul(normed, weight(width, width, "Q8_0"));
    const graph = finish(g, g.add(g.add(x, product), g.rmsNorm(product, vector(width), 1e-6)), "Q8_0");
    const kindsOf = (fusion: boolean) => planProgram(graph, { ...options, fusion }).ops.map(({ kind }) => kind);
    const alike: string[] = [
      "embed",
      "norm",
      "quantize",
      "matmul",
      "add",
      "norm",
      "add",
      "gather",
      "norm",
      "quantize",
      "matmul",
    ];
    expect(kindsOf(false)).toEqual(alike as PlannedOp["kind"][]);
    expect(kindsOf(true)).toEqual(["embed", "norm", "matmul", "add", "norm", "gather", "norm", "matmul"]);
  });

  test("inserts nothing for float32 weights", () => {
    const g = new GraphBuilder();
    const x = g.embed(weight(vocabulary, width));
    const graph = finish(g, g.add(x, g.matmul(attention(g, x, [], 0), weight(width, width))));
    expect(kinds(graph)).not.toContain("quantize");
    const { tensors } = decodeProgram(planProgram(graph, options).program);
    expect(tensors.some(({ format }) => format >= formRows.int8)).toBe(false);
  });

  test("runs products of the same input, and tables, without a barrier between them", () => {
    const g = new GraphBuilder();
    const x = g.embed(weight(vocabulary, width));
    const normed = g.rmsNorm(x, vector(width), 1e-6);
    const attended = attention(g, normed, [], 16);
    const again = attention(g, attended, [], 0);
    const groups = barrierGroups(opsOf(finish(g, g.add(x, g.matmul(again, weight(width, width))))));
    expect(groups.map((group) => group.map(({ kind }) => kind).join(" ")).slice(0, 4)).toEqual([
      "rope_table rope_table embed",
      "norm",
      "matmul matmul matmul",
      "rope_store",
    ]);
  });

  test("gives a convolution its sizes, and makes what products take of it in an op of its own", () => {
    const g = new GraphBuilder();
    const x = g.embed(weight(vocabulary, 5 * 4 * 3));
    const options = { size: [5, 4], kernel: [3, 2], stride: [2, 1], padding: [1, 0, 0, 1] } as const;
    const image = g.conv2d(x, weight(16, 18), { ...options, bias: vector(16) });
    const sequence = g.conv1d(image, weight(32, 4), { length: 2 * 4, kernel: 1, groups: 4 });
    expect([image.width, sequence.width]).toEqual([2 * 4 * 16, 2 * 4 * 32]);
    const graph = finish(g, g.matmul(sequence, weight(width, 2 * 4 * 32, "Q8_0")));
    expect(kinds(graph).slice(0, 5)).toEqual(["embed", "conv", "conv", "quantize", "matmul"]);
    const [, first, second] = opsOf(graph);
    const pairs = (op: ProgramOp | undefined) =>
      op?.u.flatMap((number) => [number % 2 ** 16, Math.floor(number / 2 ** 16)]);
    expect(pairs(first)).toEqual([5, 4, 3, 16, 3, 2, 2, 1, 1, 1, 1, 0, 2, 4, 1, 0]);
    expect(pairs(second)).toEqual([1, 8, 16, 32, 1, 1, 1, 1, 1, 1, 0, 0, 1, 8, 4, 0]);
    expect(first?.tensors.slice(0, 4).map((tensor) => tensor?.columns)).toEqual([2 * 4 * 16, 60, 18, 16]);
    expect(second?.tensors[3]).toBeUndefined();
  });

  test("refuses a convolution that its operands do not fit, or its kernel not the image", () => {
    const g = new GraphBuilder();
    const x = g.embed(weight(vocabulary, 5 * 4 * 3));
    const refused = (matrix: Weight, changes: Partial<Conv2dOptions>, words: string) =>
      expect(() => g.conv2d(x, matrix, { size: [5, 4], kernel: [3, 3], ...changes })).toThrow(words);
    refused(weight(16, 26), {}, "width 26 where 27 is expected");
    refused(weight(16, 27, "F16"), {}, "convolutions take F32");
    refused(weight(16, 27), { size: [5, 5] }, "channels is out of bounds");
    refused(weight(16, 27), { stride: [0, 1] }, "stride is out of bounds");
    refused(weight(16, 27), { padding: [-1, 0] }, "padding is out of bounds");
    refused(weight(16, 27), { dilation: [1, 2] }, "does not fit images of 5 × 4");
    refused(weight(16, 9), { groups: 3 }, "3 groups do not divide 3 channels and 16 outputs");
  });

  test("makes one table for layers that turn alike", () => {
    const g = new GraphBuilder();
    let x = g.embed(weight(vocabulary, width));
    for (const window of [0, 0, 16, 0, 16]) x = attention(g, x, [], window);
    expect(kinds(finish(g, x)).filter((kind) => kind === "rope_table").length).toBe(2);
  });
});

function windows(list: readonly number[], changes: Partial<PlanOptions> = {}): Plan {
  const g = new GraphBuilder();
  let x = g.embed(weight(vocabulary, width));
  list.forEach((window, layer) => {
    g.layer(layer);
    x = attention(g, x, [], window);
  });
  return planProgram(finish(g, x), { ...options, ...changes });
}

describe("the KV cache's plan", () => {
  // float16 keys and values of 2 heads of 16 for 64 positions.
  const layerPageBytes = 2 * 2 * 16 * 64 * 2;

  test("groups layers that look back equally far", () => {
    const { kvGroups } = windows([16, 16, 0, 16, 128]);
    expect(kvGroups.map(({ window, layers }) => ({ window, layers }))).toEqual([
      { window: 16, layers: [0, 1, 3] },
      { window: 0, layers: [2] },
      { window: 128, layers: [4] },
    ]);
    expect(kvGroups.map(({ pageBytes }) => pageBytes)).toEqual([3 * layerPageBytes, layerPageBytes, layerPageBytes]);
  });

  test("knows that a window as long as the context is none", () => {
    const { kvGroups } = windows([2048, 0, 4096, 2047]);
    expect(kvGroups.map(({ window, layers }) => ({ window, layers }))).toEqual([
      { window: 0, layers: [0, 1, 2] },
      { window: 2047, layers: [3] },
    ]);
  });

  test("has pages for a whole batch where memory allows", () => {
    const plan = windows([0, 16]);
    // 2,048 positions in pages of 64; 16 + 32 positions touch at most two pages.
    expect(plan.kvGroups.map(({ pageCount }) => pageCount)).toEqual([4 * 32, 4 * 2]);
    expect(plan.kvBytesPerSequence).toBe((32 + 2) * layerPageBytes);
  });

  test("has fewer where it does not, and never fewer than one sequence needs", () => {
    const all = windows([0, 16]).kvBytesPerSequence;
    expect(windows([0, 16], { kvBytesMax: 2.5 * all }).kvGroups.map(({ pageCount }) => pageCount)).toEqual([80, 5]);
    expect(windows([0, 16], { kvBytesMax: 0 }).kvGroups.map(({ pageCount }) => pageCount)).toEqual([32, 2]);
  });

  test("takes 34 bytes for 32 keys or values in Q8_0, and says so of what attention reads", () => {
    const planOf = (kvDtype: PlanOptions["kvDtype"]) => {
      const g = new GraphBuilder();
      g.layer(0);
      const x = g.matmul(attention(g, g.embed(weight(vocabulary, width)), [], 0, 96), weight(width, 4 * 96));
      return planProgram(finish(g, x), { ...options, kvDtype });
    };
    const [half, rounded] = [planOf(undefined), planOf("Q8_0")];
    expect(half.kvGroups.map(({ dtype, pageBytes }) => [dtype, pageBytes])).toEqual([["F16", 2 * 2 * 96 * 64 * 2]]);
    expect(rounded.kvGroups.map(({ dtype, pageBytes }) => [dtype, pageBytes])).toEqual([["Q8_0", 2 * 2 * 3 * 34 * 64]]);
    expect(rounded.kvBytesPerSequence / half.kvBytesPerSequence).toBe(34 / 64);
    const read = ({ ops }: Plan) => ops.find(({ kind }) => kind === "attention")?.bytesPerPosition;
    expect([read(half), read(rounded)]).toEqual([2 * 2 * 96 * 2, 2 * 2 * 3 * 34]);
    expect(() => windows([0], { kvDtype: "Q8_0" })).toThrow("heads of 16");
  });

  test("keeps pages of ended sequences, each group the same bytes, in pages of their own where memory allows", () => {
    const kept = (changes: Partial<PlanOptions>) =>
      windows([0, 16, 16], changes).kvGroups.map(({ pageCount, keptMax }) => [pageCount, keptMax]);
    const running = 4 * (32 + 2 * 2) * layerPageBytes;
    // A group's half of the bytes holds 12 pages of one layer, and 6 of two.
    const keptBytesMax = 24 * layerPageBytes;
    expect(kept({})).toEqual([
      [4 * 32, 0],
      [4 * 2, 0],
    ]);
    expect(kept({ keptBytesMax })).toEqual([
      [4 * 32 + 12, 12],
      [4 * 2 + 6, 6],
    ]);
    expect(kept({ keptBytesMax, kvBytesMax: running + keptBytesMax / 2 })).toEqual([
      [4 * 32 + 6, 12],
      [4 * 2 + 3, 6],
    ]);
    expect(kept({ keptBytesMax, kvBytesMax: running })).toEqual([
      [4 * 32, 12],
      [4 * 2, 6],
    ]);
    // Never more than there are, nor than 64 whole contexts.
    expect(kept({ keptBytesMax, kvBytesMax: 0 })).toEqual([
      [32, 12],
      [2, 2],
    ]);
    expect(kept({ keptBytesMax: 1e9 - running })).toEqual([
      [4 * 32 + 64 * 32, 64 * 32],
      [4 * 2 + 64 * 32, 64 * 32],
    ]);
  });

  test("has pages enough for a window wherever a step begins and however many rows it adds", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 700 }),
        fc.integer({ min: 1, max: 300 }),
        fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: 1, maxLength: 40 }),
        (window, rowsMax, steps) => {
          const context = 4096;
          let computed = 0;
          let released = 0;
          for (const part of steps) {
            const rows = Math.min(1 + Math.floor(part * (rowsMax - 1)), context - computed);
            if (rows === 0) break;
            const held = Math.ceil((computed + rows) / 64) - released;
            expect(held).toBeLessThanOrEqual(pagesNeeded(window, context, rowsMax));
            computed += rows;
            // The next row looks back to the position window − 1 before it.
            released = Math.max(0, Math.floor((computed + 1 - window) / 64));
          }
        },
      ),
    );
  });
});

describe("an op's cost", () => {
  test("is its weights' packed bytes once a step, and two operations a weight and row", () => {
    const g = new GraphBuilder();
    const x = g.embed(weight(vocabulary, width));
    const plan = planProgram(finish(g, x, "Q8_0"), options);
    const head = plan.ops.at(-1);
    // 384 rows of 64 int8 with a float16 scale for each 32.
    expect(head).toMatchObject({
      kind: "matmul",
      format: "q8_0",
      bytesPerStep: vocabulary * (64 + 2 * 2),
      operationsPerRow: 2 * vocabulary * 64,
    });
  });
});
