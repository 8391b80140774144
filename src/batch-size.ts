// How many sequences a step should have: by a model's size, or as was measured.

import { checkNumber } from "./check.ts";
import type { ModelFile } from "./model/file.ts";

/** A recommended number of sequences in a step (`batchSize`), from `minimum` to `maximum`. */
export interface BatchSizeRecommendation {
  readonly size: "small" | "medium" | "large" | "very large";
  readonly minimum: number;
  readonly maximum: number;
  /** `table`: by the model's size alone. `measured`: what `tinyai tune --model` found best for this model on this machine. */
  readonly source: "table" | "measured";
}

/**
 * The largest number of parameters of each size. From one size to the next the parameters double and the sequences halve, so that a
 * step of the largest recommended batch takes the same arithmetic: at most 32 · 10⁹ multiplications and as many additions, which two
 * cores do in a fifth of a second at the 300 GFLOP/s that they reach in float32, and sooner in int8. Longer than that nobody should
 * wait for a token.
 */
const sizes = [
  { size: "small", parameters: 1e9, minimum: 16, maximum: 32 },
  { size: "medium", parameters: 2e9, minimum: 8, maximum: 16 },
  { size: "large", parameters: 4e9, minimum: 4, maximum: 8 },
  { size: "very large", parameters: Number.POSITIVE_INFINITY, minimum: 1, maximum: 4 },
] as const;

/**
 * The batch size for many prompts at once by a model's size: up to 10⁹ parameters (small) 16 to 32, up to 2 · 10⁹ (medium) 8 to 16, up
 * to 4 · 10⁹ (large) 4 to 8, beyond (very large) 1 to 4. The ranges are those of the performance guide; the bounds keep a step's
 * arithmetic the same. A model's own `recommendedBatchSize` is better once `tinyai tune --model` has measured it.
 * @param parameters values of all tensors, above 0.
 * @throws {OptionError} if that is no such number.
 */
export function recommendedBatchSize(parameters: number): BatchSizeRecommendation {
  checkNumber("parameters", parameters, 1, Number.MAX_SAFE_INTEGER);
  const { size, minimum, maximum } = sizes.find((each) => parameters <= each.parameters) ?? sizes[3];
  return { size, minimum, maximum, source: "table" };
}

/** What is recommended for a model. @param measured what was found best for it here, if anything was. */
export function recommendFor(file: ModelFile, measured: number | undefined): BatchSizeRecommendation {
  const table = recommendedBatchSize(parametersOf(file));
  return measured === undefined ? table : { ...table, minimum: measured, maximum: measured, source: "measured" };
}

/** Values of all tensors. */
export function parametersOf({ tensors }: ModelFile): number {
  return Array.from(tensors.values()).reduce((sum, { shape }) => sum + shape.reduce((all, size) => all * size, 1), 0);
}
