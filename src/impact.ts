// `analyzeOptimizationImpact`: its options, and what it gives. What measures is loaded when it is called.

import type { OptimizationImpact } from "../profiler/impact.ts";
import { checkInteger, checkKeys, describe } from "./check.ts";
import { OptionError } from "./errors.ts";
import { Model, partsOf } from "./loaded-model.ts";

/** Options of `analyzeOptimizationImpact`. */
export interface ImpactOptions {
  /**
   * How long it takes, ms, 0 to 86,400,000; longer if so short a time does not hold the six rounds that an interval needs. Default
   * 120,000.
   */
  readonly budgetMs?: number | undefined;
  /** Names of the optimisations to switch: simd, threads, prefetch, fusion, prepared, kvCache, screening, speculation. Default all. */
  readonly only?: readonly string[] | undefined;
  /** Called with what is done of it, 0 to 1. */
  readonly onProgress?: ((share: number) => void) | undefined;
  /** Ends it; the result is then of what was measured so far. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * Measures what each optimisation contributes to a model's speed, loading time and memory: switches it off alone, where all others
 * are on, and on alone, where all others are off. Configurations take turns in random order; figures are compared round by round.
 * The model is loaded anew for it, and should have the machine to itself.
 * @param model a loaded model, or what `loadModel` takes; as it is by default, whatever options it was loaded with, but within the
 * limits that a loaded one has now.
 * @throws {OptionError} if an option is out of its bounds, or there is no such model.
 * @throws the signal's reason if that came before anything could be compared.
 * @throws as `loadModel`.
 * @example
 * const { effects } = await analyzeOptimizationImpact("gemma3-270m", { budgetMs: 60_000 });
 */
export async function analyzeOptimizationImpact(
  model: Model | string,
  options: ImpactOptions = {},
): Promise<OptimizationImpact> {
  checkKeys("options", options, ["budgetMs", "only", "onProgress", "signal"]);
  const { budgetMs = 120_000, only, onProgress, signal } = options;
  checkInteger("budgetMs", budgetMs, 0, 86_400_000);
  if (only !== undefined && !Array.isArray(only)) {
    throw new OptionError("only", `is ${describe(only)}; a list of names is expected`);
  }
  if (only?.length === 0) throw new OptionError("only", "names none; leave it out to switch all of them");
  if (typeof model !== "string" && !((model as unknown) instanceof Model)) {
    const what = (model as unknown) instanceof Promise ? "a promise; await it" : describe(model);
    throw new OptionError("model", `is ${what}; a loaded model, a path or the name of a model is expected`);
  }
  if (onProgress !== undefined && typeof onProgress !== "function") {
    throw new OptionError("onProgress", `is ${describe(onProgress)}; a function is expected`);
  }
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw new OptionError("signal", `is ${describe(signal)}; an AbortSignal is expected`);
  }
  signal?.throwIfAborted();
  const { measureImpact } = await import("./benchmark/impact.ts");
  return measureImpact(typeof model === "string" ? model : partsOf(model).source, {
    budgetMs,
    limits: typeof model === "string" ? undefined : model.limits,
    only,
    onProgress,
    signal,
  });
}
