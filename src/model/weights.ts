// Finds a model file's tensors by name for an architecture, with their shapes checked, and reads small vectors into memory.
// Matrices stay in the file: the engine reads them.

import { ModelFileError } from "../errors.ts";
import type { Vector, Weight } from "../graph/graph.ts";
import { type ModelFile, readBytes, type TensorEntry } from "./file.ts";

/** Norms, biases and rope factors are at most this long; a longer "vector" is a damaged file. */
const vectorLengthMax = 1 << 20;
/** Values of a small matrix that is read into memory; positions of 8,192 tokens with 1,024 values each would fit. */
const tableLengthMax = 1 << 24;
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
    const { packedWeights } = this.#file;
    if (packedWeights && byteOffset < packedWeights.offset)
      throw this.#error(entry, "is not packed; make the file anew");
    return { name, dtype, rows, columns, byteOffset, byteLength };
  }

  /** `rows` rows of the matrix `whole`, from row `first` on, as a matrix `name`. The whole has `wholeRows` rows. */
  part(name: string, whole: string, wholeRows: number, first: number, rows: number, columns: number): Weight {
    const { dtype, byteOffset, byteLength } = this.matrix(whole, wholeRows, columns);
    const rowBytes = byteLength / wholeRows;
    return { name, dtype, rows, columns, byteOffset: byteOffset + first * rowBytes, byteLength: rows * rowBytes };
  }

  /** The vector `name` of `length` float32 values. Float16 and bfloat16 are converted. */
  vector(name: string, length: number): Vector {
    return { name, values: this.#values(name, [length], vectorLengthMax) };
  }

  /** The values of the small matrix `name`, row by row. */
  table(name: string, rows: number, columns: number): Float32Array {
    return this.#values(name, [columns, rows], tableLengthMax);
  }

  #values(name: string, shape: readonly number[], lengthMax: number): Float32Array {
    const entry = this.#entry(name);
    this.#shape(entry, shape);
    const length = shape.reduce((product, size) => product * size, 1);
    if (length > lengthMax) throw this.#error(entry, `has ${length} values; at most ${lengthMax} are expected`);
    const values = decode(entry.dtype, readBytes(this.#file, entry, `tensor ${entry.name}`));
    if (!values) throw this.#error(entry, `has type ${entry.dtype}; vectors are F32, F16 or BF16`);
    // Searches of the runtime's own: a loop over all vectors' values would take longer than the rest of the graph.
    if (notFinite.some((value) => values.includes(value)))
      throw this.#error(entry, "holds a value that is not a finite number: the file is damaged");
    return values;
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

  #error(entry: TensorEntry, problem: string): ModelFileError {
    return new ModelFileError(this.#file.path, `tensor ${entry.name}`, problem);
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
