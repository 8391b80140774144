// `estimateMemory`: what a model would take, before it is loaded. Headers and small tensors are read, weights are not.

import { openLibrary } from "./engine/library.ts";
import { memoryLeft } from "./knobs/limits.ts";
import { estimatePlan, type MemoryEstimate } from "./knobs/memory-estimate.ts";
import { levelsOfSimd, startSimd } from "./knobs/simd.ts";
import { type CheckedLoadOptions, checkLoadOptions, type LoadOptions } from "./load-options.ts";
import { planModel } from "./memory.ts";
import { buildGraph } from "./model/architectures/index.ts";
import { findBundled } from "./model/bundled.ts";
import { readHead } from "./model/prepared.ts";
import { resolveModel } from "./model/resolve.ts";
import { findSettings } from "./model-tuning.ts";
import type { Plan } from "./plan/plan.ts";
import { findModel } from "./prepared.ts";

/**
 * What a model would take of memory at least and at most if it were loaded with these options, in bytes.
 * @param model as for `loadModel`.
 * @throws {ModelFileError} if the file is missing, damaged, or of a kind that is not supported.
 * @throws {OptionError} if an option is out of its bounds, or there is no model of that name.
 * @throws {EngineError} if there is not the memory for it. @throws {MemoryLimitError} if its limit leaves too little.
 * @example
 * const { minMemory, maxMemory } = await estimateMemory("gemma3-270m", { contextLength: 2048 });
 */
export async function estimateMemory(model: string, options: LoadOptions = {}): Promise<MemoryEstimate> {
  const checked = checkLoadOptions(model, options);
  const { library, plan, threadCount } = await planned(model, checked);
  return estimatePlan(library, plan, threadCount);
}

/** The plan that a model would be loaded with. @throws as `estimateMemory`. */
export async function planBefore(model: string, options: LoadOptions = {}): Promise<Plan> {
  return (await planned(model, checkLoadOptions(model, options))).plan;
}

async function planned(model: string, checked: CheckedLoadOptions) {
  const library = openLibrary();
  const inside = findBundled(model);
  const { file } = await findModel(inside?.path ?? resolveModel(model), checked.prepared, async () => readHead, inside);
  const level = levelsOfSimd(startSimd(library, checked.simd)).matmul;
  const { threadCount } = findSettings(library, level, file, checked);
  const limit = memoryLeft(checked.limits.memoryPercent);
  return { library, threadCount, plan: planModel(file, buildGraph(file), checked, { library, threadCount, limit }) };
}
