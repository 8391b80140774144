// What counts steps' loads and stores and simulates their caches, as the profiler sees it: somebody who runs a step's ops again
// with kernels that report every access. It says what is asked and answered; zig/tracer.zig runs them.

/** A sequence's part of a step. */
export interface TracedShare {
  readonly sequence: number;
  readonly firstPosition: number;
  readonly rows: number;
  /** The last of its rows. */
  readonly logitsRows: number;
  /** As in `StepShare`. */
  readonly embeds?: number;
}

/** How a step's tokens are drawn, which decides what drawing reads, and whether the head is screened. */
export interface TracedDraw {
  readonly temperature: number;
  readonly topP: number;
  readonly minP: number;
  readonly topK: number;
  readonly repeatPenalty: number;
  readonly topCount: number;
  /** A prompt's own tokens are scored, and none is drawn. */
  readonly scores: boolean;
}

/** What an op did, all threads together. Lists are by region, in the order of `regions`, or by cache level, nearest first. */
export interface TracedOp {
  readonly loads: Float64Array;
  readonly stores: Float64Array;
  readonly bytesRead: Float64Array;
  readonly bytesWritten: Float64Array;
  readonly accesses: Float64Array;
  readonly misses: Float64Array;
  /** Lines of the last level that came from memory. */
  readonly memoryLines: number;
}

export type TraceMode = "count" | "simulate" | "sample";

export interface StepTracer {
  /** Sets out a step. False: the program has no such step. */
  begin(shares: readonly TracedShare[], draw: TracedDraw): boolean;
  /**
   * What ops `first` to `end` of the step do; the one after the last is its draws. `count`: loads and stores alone. `simulate`:
   * they go through the simulated caches as well. `sample`: the same for a part of each large product, scaled up.
   * @throws {RangeError} if there are not so many.
   */
  run(first: number, end: number, mode: TraceMode): readonly TracedOp[];
  /** Empties the simulated caches. */
  forget(): void;
}
