// Opens a model as loadModel does, but with the engine and the events in the test's hands.

import { Engine, type EngineOptions } from "../../src/engine/engine.ts";
import { openLibrary } from "../../src/engine/library.ts";
import type { Generator } from "../../src/generate/generate.ts";
import { buildGraph } from "../../src/model/architectures/index.ts";
import { openGguf } from "../../src/model/gguf.ts";
import { type Plan, type PlanOptions, planProgram } from "../../src/plan/plan.ts";
import { createTokenizer } from "../../src/tokenizer/index.ts";

export interface OpenedEngine extends Generator {
  readonly engine: Engine;
  readonly plan: Plan;
}

/** Plans the model of the file for a batch of 16, unless `changes` say otherwise. */
export function planFile(path: string, changes: Partial<PlanOptions> = {}): Plan {
  const graph = buildGraph(openGguf(path));
  return planProgram(graph, {
    contextMax: graph.contextLength,
    batchMax: 16,
    rowsMax: 256,
    logitsRowsMax: 32,
    chunkPositions: 256,
    kvBytesMax: 1e9,
    keptBytesMax: 1e8,
    ...changes,
  });
}

/** An engine of one thread at the widest level, unless `options` say otherwise. */
export async function startEngine(path: string, plan: Plan, options: Partial<EngineOptions> = {}): Promise<Engine> {
  const library = await openLibrary();
  return Engine.create(library, plan, {
    threadCount: 1,
    level: library.levels.findLastIndex(({ supported }) => supported),
    affinity: undefined,
    events: false,
    sourcePath: path,
    ...options,
  });
}

export async function openEngine(
  path: string,
  changes: Partial<PlanOptions> = {},
  options: Partial<EngineOptions> = {},
): Promise<OpenedEngine> {
  const plan = planFile(path, changes);
  const engine = await startEngine(path, plan, options);
  return {
    engine,
    plan,
    tokenizer: createTokenizer(openGguf(path).metadata),
    contextLength: plan.options.contextMax,
    prefixCache: true,
  };
}
