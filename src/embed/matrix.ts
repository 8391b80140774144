// Many vectors: a list of them, or one array that holds them one after the other.

import { checkKeys, describe, isRecord } from "../check.ts";
import { OptionError } from "../errors.ts";

/** Vectors of the same length in one array: number `i` is `data.subarray(i * columns, (i + 1) * columns)`. */
export interface Matrix {
  readonly rows: number;
  readonly columns: number;
  /** `rows` · `columns` values. */
  readonly data: Float32Array;
}

/** @throws {OptionError} if it is no vector of at least one value, all of them finite. */
export function checkVector(option: string, vector: unknown): asserts vector is Float32Array {
  if (!(vector instanceof Float32Array)) {
    throw new OptionError(option, `is ${describe(vector)}; a vector in a Float32Array is expected`);
  }
  if (vector.length === 0) throw new OptionError(option, "has no values; a vector has at least one");
  for (let index = 0; index < vector.length; index++) {
    if (Number.isFinite(vector[index])) continue;
    throw new OptionError(option, `has ${vector[index]} at place ${index}; finite values are expected`);
  }
}

/** Vectors of one length; each is checked as `row` is asked for. */
export interface Rows {
  readonly count: number;
  readonly columns: number;
  /** @throws {OptionError} if it is no vector of `columns` finite values. */
  row(index: number): Float32Array;
}

/**
 * The vectors of a list or a matrix.
 * @throws {OptionError} if it is neither, or there are none.
 */
export function rowsOf(option: string, vectors: readonly Float32Array[] | Matrix): Rows {
  if (Array.isArray(vectors)) return rowsOfList(option, vectors);
  if (!isRecord(vectors)) {
    throw new OptionError(option, `is ${describe(vectors)}; a list of vectors or a matrix is expected`);
  }
  checkKeys(option, vectors, ["rows", "columns", "data"]);
  const { rows, columns, data } = vectors as Matrix;
  if (!(data instanceof Float32Array)) {
    throw new OptionError(`${option}.data`, `is ${describe(data)}; a Float32Array is expected`);
  }
  const isWhole = [rows, columns].every((size) => Number.isSafeInteger(size) && size > 0);
  if (!isWhole || data.length !== rows * columns) {
    throw new OptionError(`${option}.data`, `has ${data.length} values; ${rows} rows of ${columns} are expected`);
  }
  return {
    count: rows,
    columns,
    row(index) {
      const row = data.subarray(index * columns, (index + 1) * columns);
      checkVector(`${option}[${index}]`, row);
      return row;
    },
  };
}

function rowsOfList(option: string, vectors: readonly unknown[]): Rows {
  const [first] = vectors;
  if (first === undefined) throw new OptionError(option, "is empty; give at least one vector");
  checkVector(`${option}[0]`, first);
  const columns = first.length;
  return {
    count: vectors.length,
    columns,
    row(index) {
      const row = vectors[index];
      checkVector(`${option}[${index}]`, row);
      if (row.length === columns) return row;
      throw new OptionError(`${option}[${index}]`, `has ${row.length} values and the first one has ${columns}`);
    },
  };
}

/** Divides a vector by its length; one of zeros stays one. */
export function makeUnit(vector: Float32Array): void {
  let squares = 0;
  // By index: going over a typed array's iterator takes eight times as long.
  for (let index = 0; index < vector.length; index++) squares += (vector[index] ?? 0) ** 2;
  if (squares === 0) return;
  const factor = 1 / Math.sqrt(squares);
  for (let index = 0; index < vector.length; index++) vector[index] = (vector[index] ?? 0) * factor;
}
