// What can be asked of embedding, its defaults and its bounds.

import { checkBoolean, checkInteger, checkKeys, describe } from "../check.ts";
import { OptionError } from "../errors.ts";
import type { PoolingName } from "../graph/graph.ts";

/** Options of `embedStream`. */
export interface EmbedStreamOptions {
  /**
   * What of a text's hidden states its vector is made of: their mean, or the first or the last of them. Default what the model was
   * trained for, "mean" where its file does not say.
   */
  readonly pooling?: PoolingName | undefined;
  /** Whether vectors have length 1. Default as the model was trained, true where its file does not say. */
  readonly normalise?: boolean | undefined;
  /** Whether longer texts than the model takes (`embeddingLength`) are cut; else they are refused. Default true. */
  readonly truncate?: boolean | undefined;
  /**
   * Only the first values of each vector, for models that were trained so (Kusupati et al. 2022, "Matryoshka Representation Learning").
   * 1 to the model's `embeddingWidth`, which is the default.
   */
  readonly dimensions?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Options of `embed`. */
export interface EmbedOptions extends EmbedStreamOptions {
  /** How the vectors of a list of texts come: each by itself, or all in a matrix. Default "vectors". */
  readonly as?: "vectors" | "matrix" | undefined;
  /** Called with texts done and in all. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}

/** What a model's vectors are like. */
export interface EmbeddingShape {
  /** Values of a vector. */
  readonly width: number;
  readonly pooling: PoolingName;
  readonly normalise: boolean;
  /** Tokens of a text at most. */
  readonly lengthMax: number;
}

/** Options with their defaults and within their bounds. */
export interface CheckedEmbedOptions {
  readonly pooling: PoolingName;
  readonly normalise: boolean;
  readonly truncate: boolean;
  readonly dimensions: number;
  readonly signal: AbortSignal | undefined;
}

export const poolings: readonly PoolingName[] = ["mean", "first", "last"];
const streamKeys = ["pooling", "normalise", "truncate", "dimensions", "signal"];

/**
 * Checks options and fills in what the model says.
 * @throws {OptionError} naming the option and its range.
 */
export function checkStreamOptions(options: EmbedStreamOptions, shape: EmbeddingShape): CheckedEmbedOptions {
  checkKeys("options", options, streamKeys);
  return checkShared(options, shape);
}

/** As `checkStreamOptions`, for `embed`. */
export function checkEmbedOptions(options: EmbedOptions, shape: EmbeddingShape) {
  checkKeys("options", options, [...streamKeys, "as", "onProgress"]);
  const { as = "vectors", onProgress } = options;
  if (as !== "vectors" && as !== "matrix") {
    throw new OptionError("as", `is ${describe(as)}; "vectors" or "matrix" is expected`);
  }
  if (onProgress !== undefined && typeof onProgress !== "function") {
    throw new OptionError("onProgress", `is ${describe(onProgress)}; a function is expected`);
  }
  return { ...checkShared(options, shape), as, onProgress };
}

function checkShared(options: EmbedStreamOptions, shape: EmbeddingShape): CheckedEmbedOptions {
  const {
    pooling = shape.pooling,
    normalise = shape.normalise,
    truncate = true,
    dimensions = shape.width,
    signal,
  } = options;
  if (!poolings.includes(pooling)) {
    throw new OptionError("pooling", `is ${describe(pooling)}; "mean", "first" or "last" is expected`);
  }
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw new OptionError("signal", `is ${describe(signal)}; an AbortSignal is expected`);
  }
  return {
    pooling,
    normalise: checkBoolean("normalise", normalise),
    truncate: checkBoolean("truncate", truncate),
    dimensions: checkInteger("dimensions", dimensions, 1, shape.width),
    signal,
  };
}
