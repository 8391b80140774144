// Steps that fit into a limit of memory: fewer rows whose logits are wanted first, then fewer rows. A sequence's result does not
// depend on how its prompt is cut into steps, so that what is smaller here gives the same, only later.

import type { Graph } from "../graph/graph.ts";
import { type PlanOptions, planArenaBytes } from "./plan.ts";

/** Kernels take this many rows at once; steps are a multiple of it where they have as many. */
const rowBlock = 16;

/** The smallest steps that the program can do with: a row for each sequence, or a whole text where those are not cut. */
export function smallestSteps(graph: Graph, options: PlanOptions): PlanOptions {
  const rowsMax = graph.causal ? options.batchMax : Math.max(options.contextMax, options.batchMax);
  return withRows(options, rowsMax, options.batchMax);
}

/** The largest steps, none larger than in `options`, whose activations take at most `bytesMax`; undefined: there are none. */
export function fitSteps(graph: Graph, options: PlanOptions, bytesMax: number): PlanOptions | undefined {
  const fits = (candidate: PlanOptions) => planArenaBytes(graph, candidate) <= bytesMax;
  if (fits(options)) return options;
  const least = smallestSteps(graph, options);
  if (!fits(least)) return undefined;
  const rows = largest(least.rowsMax, options.rowsMax, (count) => fits(withRows(options, count, options.batchMax)));
  const logitsMax = Math.min(options.logitsRowsMax, rows);
  return withRows(
    options,
    rows,
    largest(options.batchMax, logitsMax, (count) => fits(withRows(options, rows, count))),
  );
}

function withRows(options: PlanOptions, rowsMax: number, logitsRowsMax: number): PlanOptions {
  return { ...options, rowsMax, logitsRowsMax, chunkPositions: Math.min(options.chunkPositions, rowsMax) };
}

/** A number from `least`, which fits, to `most`: the largest that fits, and where it is not far a whole block less. */
function largest(least: number, most: number, fits: (count: number) => boolean): number {
  if (fits(most)) return most;
  let low = least;
  let high = most;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (fits(middle)) low = middle;
    else high = middle;
  }
  const whole = low - (low % rowBlock);
  return whole >= least && fits(whole) ? whole : low;
}
