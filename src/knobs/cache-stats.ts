// How well the caches do: of what was recorded last, else of one step that stands for what the model does.

import { simulateCaches } from "../../profiler/cache.ts";
import type { CountedOp, CountedStep } from "../../profiler/memory.ts";
import type { CacheCounts, CacheStatistics } from "../../profiler/report.ts";
import { findCaches } from "../engine/caches.ts";
import { EngineError } from "../errors.ts";
import type { ModelParts } from "../loaded-model.ts";
import { poolings } from "../plan/layout.ts";
import { findRoofs } from "../roofs.ts";

/** How often what kernels read and wrote was in a cache. */
export interface CacheStats {
  /** Of the first level, 0 to 1. */
  readonly hitRate: number;
  /** Accesses that the first level had, and that it had not. */
  readonly hits: number;
  readonly misses: number;
  /** Nearest first. A level's accesses are what the one before it missed, and what was asked for ahead is none. */
  readonly levels: readonly CacheCounts[];
  /** Bytes that came from memory, those asked for ahead included. */
  readonly memoryBytes: number;
  readonly source: CacheStatistics["source"];
  /** `recorded`: the model's last profile or analysis; `example`: nothing was recorded, and one step was simulated. */
  readonly over: "recorded" | "example";
  /** Steps that it is of. */
  readonly steps: number;
  /** In sentences: what was counted or simulated, on which caches. */
  readonly description: string;
}

/** Of the example: where its token stands, or how long its text is, at most. */
const examplePosition = 255;
const exampleRows = 64;
const turnMs = 20;

/**
 * @param recorded what the last recording gave, if there was one.
 * @throws {EngineError} if the model is closed, or memory for a second set of activations is refused.
 * @throws {MemoryLimitError} if memory's limit leaves none for them.
 */
export async function cacheStatsOf(
  parts: ModelParts,
  ops: readonly CountedOp[],
  recorded: CacheStatistics | undefined,
): Promise<CacheStats> {
  const found = recorded ?? (await simulateExample(parts, ops));
  const [first] = found.levels;
  return {
    hitRate: found.hitRate,
    hits: first?.hits ?? 0,
    misses: first?.misses ?? 0,
    levels: found.levels,
    memoryBytes: found.memoryBytes,
    source: found.source,
    over: recorded ? "recorded" : "example",
    steps: found.steps,
    description: found.description,
  };
}

/** A step behind one that is like it, on this machine's caches and in turns with the event loop; no request sees it. */
async function simulateExample(parts: ModelParts, ops: readonly CountedOp[]): Promise<CacheStatistics> {
  const { engine, library, plan } = parts;
  const { threadCount, settings } = engine;
  const roofs = findRoofs(library, settings.levels.matmul, threadCount);
  const caches = findCaches({ threads: threadCount, lastLevelBytes: roofs?.lastLevelBytes });
  const tracer = engine.tracer({ threadCount, caches: caches.levels, prefetcher: true });
  try {
    const simulating = simulateCaches([exampleOf(parts)], ops, tracer, {
      geometry: caches.levels,
      prefetcher: true,
      weightsBytes: plan.weightsBytes,
      description: caches.description,
    });
    for (let turn = performance.now(); ; ) {
      const { done, value } = simulating.next();
      if (done && value) return value;
      if (done) throw new EngineError("the caches cannot be simulated: the program has no such step");
      if (performance.now() - turn < turnMs) continue;
      await new Promise<void>((resolve) => setImmediate(resolve));
      turn = performance.now();
      if (engine.closed) throw new EngineError("the model was closed meanwhile; load it again");
    }
  } finally {
    engine.closeTracer(tracer);
  }
}

/** A token that is drawn greedily in a text of some length, or, of a model that only makes vectors, a text. */
function exampleOf({ plan, contextLength, embedding }: ModelParts): CountedStep {
  const share = { request: 0, sequence: 0, accepted: 0 };
  const draw = { temperature: 0, topP: 1, minP: 0, topK: 0, repeatPenalty: 1, topCount: 0, scores: false };
  if (!plan.wholePrompts) {
    const firstPosition = Math.min(examplePosition, contextLength - 1);
    return { shares: [{ ...share, firstPosition, rows: 1, logitsRows: 1 }], draw, count: 1 };
  }
  const rows = Math.min(exampleRows, embedding?.lengthMax ?? exampleRows, contextLength);
  // As `Embeds` of zig/program.zig: wanted, how its rows become one, normalised, complete.
  const embeds = 1 | (poolings[embedding?.pooling ?? "mean"] << 1) | (embedding?.normalise ? 8 : 0) | 16;
  return { shares: [{ ...share, firstPosition: 0, rows, logitsRows: 0, embeds }], draw, count: 1 };
}
