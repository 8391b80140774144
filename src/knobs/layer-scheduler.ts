// A layer scheduler: plans a loaded model's steps anew under other conditions, and says what they would take. A plan is run by
// loading the model with the same options (`scheduler`).

import type { ModelParts } from "../loaded-model.ts";
import { keptWithin } from "../memory.ts";
import { buildGraph } from "../model/architectures/index.ts";
import { type Plan, planProgram } from "../plan/plan.ts";
import { estimatePlan, type MemoryEstimate } from "./memory-estimate.ts";
import {
  checkScheduler,
  explainSchedule,
  fitLimit,
  type SchedulerConfig,
  type SchedulerOptions,
  scheduled,
} from "./scheduler.ts";

/** Plans how a model's layers are executed, within limits of memory. */
export interface LayerScheduler {
  /** What it plans for. */
  readonly config: SchedulerConfig;
  /**
   * What would run, in order, and what memory it would take, for the model's context and batch as they are loaded.
   * @throws {OptionError} if the model cannot do with so little memory, with the least that it can do with.
   */
  createExecutionPlan(): Plan;
  /** What an engine that runs this plan takes of memory. @throws {OptionError} as `createExecutionPlan`. */
  estimateMemoryUsage(): MemoryEstimate;
}

/** @throws {OptionError} if a field is out of its bounds. */
export function createLayerScheduler(parts: ModelParts, options: SchedulerOptions): LayerScheduler {
  const config = checkScheduler(options);
  let made: Plan | undefined;
  const plan = () => {
    made ??= planWith(parts, config);
    return made;
  };
  return {
    config,
    createExecutionPlan: plan,
    estimateMemoryUsage: () => estimatePlan(parts.library, plan(), parts.engine.threadCount),
  };
}

function planWith({ file, plan, loadOptions }: ModelParts, config: SchedulerConfig): Plan {
  const graph = buildGraph(file);
  const { options } = plan;
  const { keptBytesMax, ...steps } = scheduled(graph, config, options, loadOptions);
  const wanted = { ...options, ...steps, keptBytesMax: keptWithin(keptBytesMax) };
  return explainSchedule(graph, planProgram(graph, fitLimit(graph, wanted, config)), config);
}
