// Convolutions in a program that the engine runs: a small network over images that are rows of a table, beside double precision.

import { describe, expect, test } from "bun:test";
import { Profiler } from "../../profiler/index.ts";
import { openLibrary } from "../../src/engine/library.ts";
import { levelsOf } from "../../src/engine/settings.ts";
import { EngineError } from "../../src/errors.ts";
import {
  type Conv1dOptions,
  type Conv2dOptions,
  type ConvolutionShape,
  convolutionShape,
  GraphBuilder,
  type Value,
  type Vector,
  type Weight,
} from "../../src/graph/graph.ts";
import { describeOps } from "../../src/loaded-model.ts";
import { Header, none, Op } from "../../src/plan/layout.ts";
import { type Plan, planProgram } from "../../src/plan/plan.ts";
import { embed, startEngine } from "../support/engine.ts";
import { temporaryFolder } from "../support/folder.ts";
import { Random } from "../support/random.ts";

const folder = temporaryFolder();
const images = 20;

/** Weights as a file has them, made up as they are asked for, and the same numbers for the reference. */
class Weights {
  readonly #random: Random;
  readonly #parts: Float32Array[] = [];
  #bytes = 0;

  constructor(seed: number) {
    this.#random = new Random(seed);
  }

  #values(count: number): Float32Array {
    return Float32Array.from({ length: count }, () => this.#random.normal());
  }

  matrix(rows: number, columns: number): { weight: Weight; values: Float32Array } {
    const values = this.#values(rows * columns);
    const name = `matrix${this.#parts.length}.weight`;
    const weight: Weight = {
      name,
      dtype: "F32",
      rows,
      columns,
      byteOffset: this.#bytes,
      byteLength: values.byteLength,
    };
    this.#parts.push(values);
    this.#bytes += values.byteLength;
    return { weight, values };
  }

  vector(count: number): Vector {
    return { name: `vector${count}.bias`, values: this.#values(count) };
  }

  write(name: string): string {
    return folder.write(name, Buffer.concat(this.#parts.map((part) => Buffer.from(part.buffer))));
  }
}

function convolve(
  x: Float64Array,
  weight: Float32Array,
  bias: Float32Array | undefined,
  shape: ConvolutionShape,
): Float64Array {
  const { size, outSize, channels, outputs, kernel, stride, dilation, padding, groups } = shape;
  const [perGroup, outputsPerGroup] = [channels / groups, outputs / groups];
  const y = new Float64Array(outSize[0] * outSize[1] * outputs);
  for (let index = 0; index < y.length; index++) {
    const output = index % outputs;
    const place = Math.floor(index / outputs);
    const [oy, ox] = [Math.floor(place / outSize[1]), place % outSize[1]];
    let sum = bias?.[output] ?? 0;
    for (let c = 0; c < perGroup; c++) {
      for (let ky = 0; ky < kernel[0]; ky++) {
        for (let kx = 0; kx < kernel[1]; kx++) {
          const row = oy * stride[0] + ky * dilation[0] - padding[0];
          const column = ox * stride[1] + kx * dilation[1] - padding[1];
          if (row < 0 || row >= size[0] || column < 0 || column >= size[1]) continue;
          const channel = Math.floor(output / outputsPerGroup) * perGroup + c;
          const w = weight[((output * perGroup + c) * kernel[0] + ky) * kernel[1] + kx] ?? 0;
          sum += w * (x[(row * size[1] + column) * channels + channel] ?? 0);
        }
      }
    }
    y[index] = sum;
  }
  return y;
}

/** A network of convolutions with what each is in double precision. */
class Network {
  readonly weights: Weights;
  readonly #g = new GraphBuilder();
  readonly #table: Float32Array;
  readonly #width: number;
  readonly #layers: ((x: Float64Array) => Float64Array)[] = [];
  #value: Value;

  constructor(width: number, seed: number) {
    this.weights = new Weights(seed);
    const { weight, values } = this.weights.matrix(images, width);
    this.#width = width;
    this.#table = values;
    this.#value = this.#g.embed(weight);
  }

  conv2d(channels: number, outputs: number, options: Conv2dOptions, hasBias = true): this {
    const shape = convolutionShape(channels, outputs, options);
    const { kernel, groups } = shape;
    const { weight, values } = this.weights.matrix(outputs, (channels / groups) * kernel[0] * kernel[1]);
    const bias = hasBias ? this.weights.vector(outputs) : undefined;
    this.#value = this.#g.conv2d(this.#value, weight, { ...options, bias });
    this.#layers.push((x) => convolve(x, values, bias?.values, shape));
    return this;
  }

  conv1d(channels: number, outputs: number, options: Conv1dOptions & { kernel: number; padding: number }): this {
    const { length, kernel, stride = 1, padding } = options;
    const { weight, values } = this.weights.matrix(outputs, channels * kernel);
    const shape = convolutionShape(channels, outputs, {
      size: [1, length],
      kernel: [1, kernel],
      stride: [1, stride],
      padding: [0, padding],
    });
    this.#value = this.#g.conv1d(this.#value, weight, options);
    this.#layers.push((x) => convolve(x, values, undefined, shape));
    return this;
  }

  relu(): this {
    this.#value = this.#g.activation(this.#value, "relu");
    this.#layers.push((x) => x.map((value) => Math.max(0, value)));
    return this;
  }

  plan(): Plan {
    this.#g.embedding(this.#value);
    return planProgram(this.#g.finish(undefined, 16, images), {
      contextMax: 16,
      batchMax: 4,
      rowsMax: 32,
      logitsRowsMax: 4,
      chunkPositions: 32,
      kvBytesMax: 0,
      keptBytesMax: 0,
    });
  }

  /** The mean of what comes of these images. */
  reference(tokens: readonly number[]): Float64Array {
    const results = tokens.map((token) => {
      const image = Float64Array.from(this.#table.subarray(token * this.#width, (token + 1) * this.#width));
      return this.#layers.reduce<Float64Array>((x, layer) => layer(x), image);
    });
    return Float64Array.from(
      { length: results[0]?.length ?? 0 },
      (_, index) => results.reduce((sum, result) => sum + (result[index] ?? 0), 0) / tokens.length,
    );
  }
}

/** Images of 11 × 9 in colour through a plain convolution, a depthwise one and one of single positions. */
function imageNetwork(): Network {
  return new Network(11 * 9 * 3, 1)
    .conv2d(3, 24, { size: [11, 9], kernel: [3, 3], stride: [2, 2], padding: [1, 1] })
    .relu()
    .conv2d(24, 24, { size: [6, 5], kernel: [3, 3], padding: [1, 1], groups: 24 })
    .relu()
    .conv2d(24, 40, { size: [6, 5], kernel: [1, 1] }, false)
    .conv2d(40, 20, { size: [6, 5], kernel: [2, 2], dilation: [2, 1], padding: [0, 1, 2, 0], groups: 4 });
}

function expectClose(found: Float32Array, expected: Float64Array): void {
  expect(found.length).toBe(expected.length);
  const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  expect(Math.max(...expected.map((value, index) => Math.abs(value - (found[index] ?? Number.NaN))))).toBeLessThan(
    1e-5 * largest,
  );
}

const plain = { pooling: "mean", normalise: false } as const;
const library = await openLibrary();
const levels = library.levels.flatMap(({ supported }, level) => (supported ? [level] : []));

describe("a network of convolutions", () => {
  test("gives what double precision gives, for images and for sequences, at every level", async () => {
    const networks = {
      images: imageNetwork(),
      sequences: new Network(30 * 4, 2)
        .conv1d(4, 18, { length: 30, kernel: 3, padding: 1 })
        .relu()
        .conv1d(18, 7, { length: 30, kernel: 5, stride: 2, padding: 2 }),
    };
    for (const [name, network] of Object.entries(networks)) {
      const plan = network.plan();
      const path = network.weights.write(name);
      for (const level of levels) {
        const engine = await startEngine(path, plan, { levels: levelsOf(level) });
        for (const tokens of [[7], [3, 19, 4]]) {
          expectClose(await embed(engine, Uint32Array.from(tokens), plain), network.reference(tokens));
        }
        await engine.close();
      }
    }
  });

  test("gives an image the same bits on two threads, and beside others", async () => {
    const network = imageNetwork();
    const plan = network.plan();
    const path = network.weights.write("threads");
    const found: Float32Array[] = [];
    for (const threadCount of [1, 2]) {
      const engine = await startEngine(path, plan, { threadCount });
      found.push(await embed(engine, Uint32Array.of(5), plain));
      const [among] = await Promise.all([5, 6, 7, 8].map((token) => embed(engine, Uint32Array.of(token), plain)));
      if (among) found.push(among);
      await engine.close();
    }
    expect(found.length).toBe(4);
    for (const vector of found) expect(vector).toEqual(found[0] ?? new Float32Array());
  });

  test.skipIf(levels.length < 2)(
    "has narrow kernels where only those are switched off, between two steps",
    async () => {
      const network = imageNetwork();
      const plan = network.plan();
      const path = network.weights.write("switched");
      const widest = levels.at(-1) ?? 0;
      const narrow = { ...levelsOf(widest), conv: levels[0] ?? 0 };
      const engine = await startEngine(path, plan, { levels: levelsOf(widest) });
      const tokens = [9, 12];
      const wide = await embed(engine, Uint32Array.from(tokens), plain);
      await engine.configure({ levels: narrow });
      const profiler = new Profiler(describeOps({ plan, library, engine }));
      const end = engine.watch({ events: (events) => profiler.drain(events) });
      const switched = await embed(engine, Uint32Array.from(tokens), plain);
      end();
      await engine.close();
      const levelOf = (kernel: string) => kernel.split(".").at(-1);
      const { byOp } = profiler.result();
      const ran = (convolutions: boolean) =>
        new Set(byOp.filter(({ kind }) => (kind === "conv") === convolutions).map(({ kernel }) => levelOf(kernel)));
      expect(ran(true)).toEqual(new Set([library.levels[narrow.conv]?.name]));
      expect(ran(false)).toEqual(new Set([library.levels[widest]?.name]));
      expectClose(switched, network.reference(tokens));
      // Sums in another order, of products that are rounded first: the same numbers but for the last bits, and the same bits every time.
      expect(switched).not.toEqual(wide);
      const loaded = await startEngine(path, plan, { levels: narrow });
      expect(await embed(loaded, Uint32Array.from(tokens), plain)).toEqual(switched);
      await loaded.close();
    },
  );

  test("is in a profile by its kernel, with what it costs", async () => {
    const network = imageNetwork();
    const plan = network.plan();
    const level = levels.at(-1) ?? 0;
    const name = library.levels[level]?.name ?? "";
    const engine = await startEngine(network.weights.write("profile"), plan, { levels: levelsOf(level) });
    const profiler = new Profiler(describeOps({ plan, library, engine }));
    const end = engine.watch({ events: (events) => profiler.drain(events) });
    await embed(engine, Uint32Array.of(1, 2), plain);
    end();
    const convolutions = profiler.result().byOp.filter(({ kind }) => kind === "conv");
    expect(convolutions.map(({ kernel }) => kernel)).toEqual(new Array(4).fill(`conv.f32.${name}`));
    await engine.close();
    // Two images; each output is 3 · 3 · 3 products, depthwise 3 · 3, of a position its channels, of a group 10 · 2 · 2.
    const products = [6 * 5 * 24 * 27, 6 * 5 * 24 * 9, 6 * 5 * 40 * 24, 6 * 5 * 20 * 40];
    const costs = plan.ops.filter(({ kind }) => kind === "conv");
    expect(costs.map(({ operationsPerRow }) => operationsPerRow)).toEqual(products.map((count) => 2 * count));
    // Weights are padded to 16 outputs; a row of activations to 16 values.
    expect(costs.map(({ bytesPerStep }) => bytesPerStep)).toEqual([
      (32 * 27 + 24) * 4,
      (32 * 9 + 24) * 4,
      48 * 24 * 4,
      (32 * 40 + 20) * 4,
    ]);
    expect(costs[0]?.bytesPerRow).toBe((Math.ceil((11 * 9 * 3) / 16) * 16 + 6 * 5 * 24) * 4);
  });
});

test("a program whose convolution would reach beyond its tensors is refused", async () => {
  const network = imageNetwork();
  const plan = network.plan();
  const path = network.weights.write("damaged");
  const start = (program: Uint8Array) => startEngine(path, { ...plan, program }, {}).then((engine) => engine.close());
  await start(plan.program);
  const view = new DataView(plan.program.buffer, plan.program.byteOffset);
  const at = Number(view.getBigUint64(Header.offset("ops_offset"), true)) + Op.size;
  for (let number = 0; number < 8; number++) {
    // Strides, dilation and padding only move what is read, which is cut off at the image.
    if ([3, 4, 5].includes(number)) continue;
    for (const low of [true, false]) {
      if (number === 7 && !low) continue;
      const program = plan.program.slice();
      const place = at + Op.offset("u") + number * 4 + (low ? 0 : 2);
      new DataView(program.buffer).setUint16(place, view.getUint16(place, true) + 1, true);
      await expect(start(program)).rejects.toBeInstanceOf(EngineError);
    }
  }
  // No tensor, and that of another operand.
  for (const slot of [0, 1, 2]) {
    for (const index of [none, view.getUint32(at + Op.offset("tensors") + ((slot + 1) % 3) * 4, true)]) {
      const program = plan.program.slice();
      new DataView(program.buffer).setUint32(at + Op.offset("tensors") + slot * 4, index, true);
      await expect(start(program)).rejects.toBeInstanceOf(EngineError);
    }
  }
});
