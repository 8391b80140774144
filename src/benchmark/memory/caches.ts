// How well the caches serve requests, and what the garbage collector does meanwhile, as a profile of some requests has it.

import type { Report } from "../../../profiler/report.ts";
import type { PartOptions } from "../part.ts";
import type { CacheFigures, JavaScriptAllocationFigures } from "../results.ts";
import type { Subject } from "../subject.ts";

/** Simulating takes a second for each GB of weights and step, and the requests are alike. */
const requests = 2;

interface Profiled {
  readonly cache?: CacheFigures;
  readonly collections?: Required<JavaScriptAllocationFigures>["collections"];
}

/** @returns nothing if the signal came before the requests had their answers. */
export async function profileRequests(
  { model, iterate }: Subject,
  batchSize: number,
  { signal, onProgress }: PartOptions,
): Promise<Profiled> {
  const work = async () => {
    for (let request = 0; request < requests; request++) {
      signal?.throwIfAborted();
      onProgress?.(request / (requests + 1));
      await iterate(batchSize);
    }
    onProgress?.(requests / (requests + 1));
  };
  try {
    // With the roofline: what the last level really holds is measured for it, if it was not before.
    const report = await model.profile(work, { sampleIntervalMs: 0 });
    return { ...cacheOf(report), ...collectionsOf(report) };
  } catch (error) {
    if (!signal?.aborted) throw error;
    return {};
  }
}

function cacheOf({ cache }: Report): Pick<Profiled, "cache"> {
  if (cache === null) return {};
  const { source, description, levels, geometry, memoryBytes, steps, simulatedSteps } = cache;
  return {
    cache: {
      source,
      description,
      levels: levels.flatMap(({ name, accesses, hits, hitRate }) => {
        const found = geometry.find((each) => each.name === name);
        if (!found) return [];
        return [{ name, bytes: found.bytes, shared_by: found.sharedBy, accesses, hits, hit_rate: hitRate }];
      }),
      memory_per_step: memoryBytes / 1e6 / Math.max(1, steps),
      steps,
      followed_steps: simulatedSteps,
    },
  };
}

function collectionsOf({ javascript }: Report): Pick<Profiled, "collections"> {
  const row = javascript?.rows.find(({ name }) => name === "garbageCollection");
  if (!row) return {};
  return { collections: { count: row.count, total_ms: row.totalNs / 1e6, max_ms: row.maxNs / 1e6 } };
}
