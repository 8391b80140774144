// Finds a model file's tensors by name for an architecture, with their shapes checked, and reads small vectors into memory.
// Matrices stay in the file: the engine reads them.

import { closeSync, openSync, readSync } from "node:fs";
import { ModelFileError } from "../errors.ts";
import type { Vector, Weight } from "../graph/graph.ts";
import type { ModelFile, TensorEntry } from "./file.ts";

/** Norms, biases and rope factors are at most this long; a longer "vector" is a damaged file. */
const vectorLengthMax = 1 << 20;
const notFinite = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY] as const;

/** Access to one file's weights. Errors are ModelFileErrors that name the tensor. */
export class Weights {
  readonly #file: ModelFile;
  readonly #used = new Set<string>();

  constructor(file: ModelFile) {
    this.#file = file;
  }

  has(name: string): boolean {
    return this.#file.tensors.has(name);
  }

  /** The matrix `name` of `rows` outputs and `columns` inputs. */
  matrix(name: string, rows: number, columns: number): Weight {
    const entry = this.#entry(name);
    this.#shape(entry, [columns, rows]);
    const { dtype, byteOffset, byteLength } = entry;
    return { name, dtype, rows, columns, byteOffset, byteLength };
  }

  /** The vector `name` of `length` float32 values. Float16 and bfloat16 are converted. */
  vector(name: string, length: number): Vector {
    const entry = this.#entry(name);
    this.#shape(entry, [length]);
    if (length > vectorLengthMax)
      throw this.#error(entry, `has ${length} values; at most ${vectorLengthMax} are expected`);
    const values = decode(entry.dtype, this.#read(entry));
    if (!values) throw this.#error(entry, `has type ${entry.dtype}; vectors are F32, F16 or BF16`);
    // Searches of the runtime's own: a loop over all vectors' values would take longer than the rest of the graph.
    if (notFinite.some((value) => values.includes(value)))
      throw this.#error(entry, "holds a value that is not a finite number: the file is damaged");
    return { name, values };
  }

  /** The vector `name` if the file has it. */
  optionalVector(name: string, length: number): Vector | undefined {
    return this.has(name) ? this.vector(name, length) : undefined;
  }

  /** The number of rows of a matrix whose rows are only known from the file, such as the vocabulary's. */
  rowsOf(name: string): number {
    const entry = this.#entry(name);
    if (entry.shape.length !== 2)
      throw this.#error(entry, `has shape [${entry.shape.join(", ")}]; a matrix is expected`);
    return entry.shape[1] ?? 0;
  }

  /** Fails if the file has a tensor that nobody asked for. */
  requireAllUsed(architecture: string): void {
    for (const entry of this.#file.tensors.values()) {
      if (!this.#used.has(entry.name)) {
        throw this.#error(
          entry,
          `is not part of the ${architecture} family as it is known here; the model is a variant that is not supported`,
        );
      }
    }
  }

  #entry(name: string): TensorEntry {
    const entry = this.#file.tensors.get(name);
    if (!entry) {
      const problem = "is missing: the file is incomplete, or its architecture is a variant that is not supported";
      throw new ModelFileError(this.#file.path, `tensor ${name}`, problem);
    }
    this.#used.add(name);
    return entry;
  }

  #shape(entry: TensorEntry, expected: readonly number[]): void {
    // Trailing dimensions of 1 say nothing.
    const shape = [...entry.shape];
    while (shape.length > expected.length && shape.at(-1) === 1) shape.pop();
    if (shape.length !== expected.length || shape.some((size, index) => size !== expected[index])) {
      throw this.#error(entry, `has shape [${entry.shape.join(", ")}]; the metadata asks for [${expected.join(", ")}]`);
    }
  }

  #read(entry: TensorEntry): Uint8Array {
    const { head, startsAt = 0 } = this.#file;
    const end = entry.byteOffset + entry.byteLength;
    if (head && end <= head.length) return head.slice(entry.byteOffset, end);
    const bytes = new Uint8Array(entry.byteLength);
    let handle: number | undefined;
    let done = 0;
    try {
      handle = openSync(this.#file.path, "r");
      while (done < bytes.length) {
        const count = readSync(handle, bytes, done, bytes.length - done, startsAt + entry.byteOffset + done);
        if (count === 0) break;
        done += count;
      }
    } catch (cause) {
      throw this.#error(entry, `cannot be read: ${(cause as Error).message}`, cause);
    } finally {
      if (handle !== undefined) closeSync(handle);
    }
    if (done < bytes.length) {
      throw this.#error(
        entry,
        `ends after ${done} of ${bytes.length} bytes: the file was cut short while it was being read`,
      );
    }
    return bytes;
  }

  #error(entry: TensorEntry, problem: string, cause?: unknown): ModelFileError {
    return new ModelFileError(
      this.#file.path,
      `tensor ${entry.name}`,
      problem,
      cause === undefined ? undefined : { cause },
    );
  }
}

function decode(dtype: string, bytes: Uint8Array): Float32Array | undefined {
  switch (dtype) {
    case "F32":
      return new Float32Array(bytes.buffer);
    case "F16":
      return Float32Array.from(new Float16Array(bytes.buffer));
    case "BF16": {
      const bits = Uint32Array.from(new Uint16Array(bytes.buffer), (half) => half << 16);
      return new Float32Array(bits.buffer);
    }
    default:
      return undefined;
  }
}
