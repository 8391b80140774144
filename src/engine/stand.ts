// One kernel over operands that are made up (zig/stand.zig): what benchmarks and tuning measure. It says how long a run took,
// not what that means.

import { EngineError } from "../errors.ts";
import type { DType } from "../graph/dtype.ts";
import { formatNumber } from "../plan/formats.ts";
import * as layout from "../plan/layout.ts";
import type { Library } from "./library.ts";
import { encodeTuning, type Tuning } from "./tuning.ts";

export type MeasuredKernel = (typeof layout.measuredKernels)[number];

/** A kernel and the sizes of its operands; a kernel does not look at what it has no use for. */
export interface Measurement {
  readonly kernel: MeasuredKernel;
  /** Of weights; of what is converted. Default F32. */
  readonly format?: DType;
  /** What is converted to. Default F32. */
  readonly targetFormat?: DType;
  readonly rows?: number;
  /** Of weights, or the width of rows; a vocabulary; values of a piece that is converted. */
  readonly columns?: number;
  /** Rows of activations; draws; pieces. 1 to 1,024. */
  readonly tokens?: number;
  readonly heads?: number;
  readonly kvHeads?: number;
  readonly headWidth?: number;
  /** Of the first row. */
  readonly position?: number;
  /** Sizes of a convolution, as an op has them; `rows` and `columns` are then its weight's. */
  readonly convolution?: readonly number[];
  /** Weights, or keys and values, are there so many times that they have this many bytes; each run takes the next. */
  readonly workingBytes?: number;
}

export interface StandOptions {
  /** Index of the instruction-set level in `library.levels`. */
  readonly level: number;
  /** 1 to 64; the caller is one of them. */
  readonly threadCount: number;
}

export interface Stand {
  /** What later runs are tuned to. */
  tune(tuning: Tuning): void;
  /** Runs the kernel `count` times; ns. The caller waits meanwhile. */
  run(count: number): number;
  /** Operations (or bytes) that a peak did in the last run; 0 where the level has no such instructions. */
  readonly counted: number;
  close(): void;
}

/** @throws {EngineError} if memory or threads are refused, or sizes are out of bounds. */
export function openStand({ symbols }: Library, measurement: Measurement, options: StandOptions): Stand {
  const bytes = new Uint8Array(layout.Measurement.size);
  layout.Measurement.write(new DataView(bytes.buffer), 0, {
    kernel: layout.measuredKernels.indexOf(measurement.kernel),
    format: formatNumber(measurement.format ?? "F32"),
    target_format: formatNumber(measurement.targetFormat ?? "F32"),
    rows: measurement.rows ?? 0,
    columns: measurement.columns ?? 0,
    tokens: measurement.tokens ?? 0,
    head_count: measurement.heads ?? 0,
    kv_head_count: measurement.kvHeads ?? 0,
    head_width: measurement.headWidth ?? 0,
    position: measurement.position ?? 0,
    convolution: measurement.convolution ?? [],
    working_bytes: measurement.workingBytes ?? 0,
  });
  const failure = new Uint32Array(1);
  const handle = symbols.tinyai_stand_create(bytes, options.level, options.threadCount, failure);
  if (!handle || typeof handle === "bigint") {
    throw new EngineError(`${measurement.kernel} cannot be measured: ${reasons[failure[0] ?? 0] ?? "it was refused"}`);
  }
  return {
    tune: (tuning) => {
      if (symbols.tinyai_stand_tune(handle, encodeTuning(tuning)) === 1) return;
      throw new EngineError(`${measurement.kernel} cannot be measured: a tuning is out of bounds`);
    },
    run: (count) => Number(symbols.tinyai_stand_run(handle, count)),
    get counted() {
      return Number(symbols.tinyai_stand_counted(handle));
    },
    close: () => symbols.tinyai_stand_destroy(handle),
  };
}

const reasons: Readonly<Record<number, string>> = {
  [layout.failures.indexOf("out_of_memory")]: "the system refused the memory for its operands",
  [layout.failures.indexOf("threads")]: "a thread could not be started",
  [layout.failures.indexOf("program")]: "a size is out of bounds",
};
