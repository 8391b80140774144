// `tinyai/test`: matchers for `bun test` that hold a model's speed and cost to limits. Importing it registers them. Each judges
// what `model.profile` gave, the same read from JSON, or a list of such runs.

import { expect } from "bun:test";
import { type BaselineOptions, matchBaseline } from "./baseline.ts";
import { type CostLimits, costAtMost } from "./costs.ts";
import { allocateAtMost, generateAtLeast, type ResponseLimits, respondWithin } from "./speed.ts";

export type { BaselineOptions } from "./baseline.ts";
export type { CostLimits } from "./costs.ts";
export type { Run } from "./run.ts";
export type { ResponseLimits } from "./speed.ts";

interface PerformanceMatchers {
  /**
   * How long requests took: `expect(run).toRespondWithin({ p99Ms: 200, firstTokenMs: 50 })`.
   * @throws {OptionError} if no request was profiled, or a limit is none.
   */
  toRespondWithin(limits: ResponseLimits): void;
  /** How fast tokens came while text was generated, the prompt left out. All sequences of a batch count. */
  toGenerateAtLeast(limits: { readonly tokensPerSecond: number }): void;
  /** Bytes that the native library took while it was profiled; given back or not. */
  toAllocateAtMost(bytes: number): void;
  /**
   * What was counted, the same on every run: `expect(run).toCostAtMost({ bytesRead: 40e9 })`. With a `name`, which is one in the
   * test file, the counts of the last run that passed are kept in `__performance__`, and a failure says which ops changed.
   * @throws {OptionError} if it was not counted, or a limit is none.
   */
  toCostAtMost(limits: CostLimits, name?: string): void;
  /**
   * That no op took longer, by more than the tolerance, than in runs recorded before on this machine, with the same model and options:
   * each is judged beside what the run's other ops say about the state that the machine is in. The first runs (8 at least, 48 at most,
   * each of a process of its own) are recorded in `__performance__` beside the test file and judge the later ones; in CI only with
   * `TINYAI_UPDATE_BASELINES=add`, which records a run without judging it. They should be of different hours, so that they know the
   * states of the machine. `-u` begins anew. Where the machine is in a state that no recorded run knew, nothing is judged, which is
   * said. That all ops became slower alike it does not see: hold that with `toGenerateAtLeast`.
   * @throws {BaselineFileError} in CI, if too few runs are recorded for this machine.
   */
  toMatchPerformanceBaseline(name: string, options?: BaselineOptions): void;
}

declare module "bun:test" {
  interface Matchers<T> extends PerformanceMatchers {}
  interface AsymmetricMatchers extends PerformanceMatchers {}
}

// As methods, since messages name a matcher by its function.
expect.extend({
  toRespondWithin(run, limits) {
    return respondWithin(run, limits);
  },
  toGenerateAtLeast(run, limits) {
    return generateAtLeast(run, limits);
  },
  toAllocateAtMost(run, bytes) {
    return allocateAtMost(run, bytes);
  },
  toCostAtMost(run, limits, name) {
    return costAtMost(run, limits, name);
  },
  toMatchPerformanceBaseline(run, name, options) {
    return matchBaseline(run, name, options);
  },
});
