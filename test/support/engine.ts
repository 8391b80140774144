// Opens a model as loadModel does, but with the engine and the events in the test's hands.

import { drawsNothing, Engine, type EngineOptions, type EngineRequest } from "../../src/engine/engine.ts";
import { mapWeights, openLibrary } from "../../src/engine/library.ts";
import { levelsOf } from "../../src/engine/settings.ts";
import type { Generator } from "../../src/generate/generate.ts";
import { buildGraph } from "../../src/model/architectures/index.ts";
import { dataFilesOf } from "../../src/model/file.ts";
import { type Plan, type PlanOptions, planProgram } from "../../src/plan/plan.ts";
import { openModelFile } from "../../src/prepared.ts";
import { createTokenizer } from "../../src/tokenizer/index.ts";

export interface OpenedEngine extends Generator {
  readonly engine: Engine;
  readonly plan: Plan;
}

/** Plans the model of the file or folder for a batch of 16, unless `changes` say otherwise. */
export function planFile(path: string, changes: Partial<PlanOptions> = {}): Plan {
  const file = openModelFile(path);
  const graph = buildGraph(file);
  return planProgram(graph, {
    contextMax: graph.contextLength,
    batchMax: 16,
    rowsMax: 256,
    logitsRowsMax: 32,
    chunkPositions: 256,
    kvBytesMax: 1e9,
    keptBytesMax: 1e8,
    packedWeights: file.packedWeights,
    ...(graph.causal ? {} : { batchMax: 64, rowsMax: Math.max(512, graph.contextLength), logitsRowsMax: 64 }),
    ...changes,
  });
}

/** An engine of one thread at the widest level, unless `options` say otherwise. */
export async function startEngine(path: string, plan: Plan, options: Partial<EngineOptions> = {}): Promise<Engine> {
  const library = await openLibrary();
  return Engine.create(library, plan, {
    threadCount: 1,
    levels: levelsOf(library.levels.findLastIndex(({ supported }) => supported)),
    affinity: undefined,
    events: false,
    sourcePaths: [path],
    ...options,
  });
}

export async function openEngine(
  path: string,
  changes: Partial<PlanOptions> = {},
  options: Partial<EngineOptions> = {},
): Promise<OpenedEngine> {
  const plan = planFile(path, changes);
  const file = openModelFile(path);
  const { packedWeights } = file;
  const engine = await startEngine(path, plan, {
    sourcePaths: dataFilesOf(file).map((part) => part.path),
    mapped: packedWeights && mapWeights(await openLibrary(), path, packedWeights.offset, packedWeights.bytes),
    ...options,
  });
  return {
    engine,
    plan,
    tokenizer: createTokenizer(file.metadata),
    contextLength: plan.options.contextMax,
    prefixCache: true,
  };
}

/** A request for a text's vector: the mean of its hidden states, of length 1. */
export function embedding(tokens: Uint32Array, changes: Partial<EngineRequest> = {}): EngineRequest {
  const nothing = { topCount: 0, chunkRows: 0, dumpLogits: false, sharesPrefix: false };
  return { kind: "embed", tokens, ...drawsNothing, ...nothing, pooling: "mean", normalise: true, ...changes };
}

/** A text's vector. */
export function embed(
  engine: Engine,
  tokens: Uint32Array,
  changes: Partial<EngineRequest> = {},
): Promise<Float32Array> {
  const { promise, resolve, reject } = Promise.withResolvers<Float32Array>();
  let vector: Float32Array | undefined;
  engine.submit(embedding(tokens, changes), {
    onToken: () => reject(new Error("a text's vector has no tokens")),
    onEmbedding(values) {
      vector = values;
    },
    onFinish: (finish) => (vector ? resolve(vector) : reject(new Error(finish))),
    onError: reject,
  });
  return promise;
}
