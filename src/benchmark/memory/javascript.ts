// What a piece of work allocates of JavaScript's heap: the difference between two counts of everything in it, with no collection in
// between. Objects are counted one by one, whether anybody still holds them or not. Their bytes are not known: Bun 1.4.5 tells the
// heap's size only of what survived a collection, and its capacity by blocks, which are filled up before there are more.

import { heapStats } from "bun:jsc";
import type { Collections } from "../../../profiler/javascript.ts";
import type { PartOptions } from "../part.ts";
import type { JavaScriptAllocationFigures } from "../results.ts";
import { statisticsOf } from "../statistics/describe.ts";
import { seededRandom } from "../statistics/random.ts";

/** Hidden classes: counting itself makes as many as it likes. */
const uncounted = "Structure";

export interface HeapGrowth {
  readonly objects: number;
  /** Objects by type; fewer than before are below 0. */
  readonly types: ReadonlyMap<string, number>;
}

/** @returns undefined if the collector ran meanwhile: nothing is known then. */
export async function heapGrowth(
  work: () => Promise<unknown>,
  collections: Collections,
): Promise<HeapGrowth | undefined> {
  // With an empty heap none is due soon.
  Bun.gc(true);
  collections.lend();
  const collected = collections.count;
  // To count takes objects too: the first time more, and then as many as between these two.
  heapStats();
  const earlier = heapStats();
  const before = heapStats();
  await work();
  const after = heapStats();
  if (collections.count !== collected) return undefined;
  const types = new Map<string, number>();
  let objects = 0;
  for (const [name, count] of Object.entries(after.objectTypeCounts)) {
    if (name === uncounted) continue;
    const known = before.objectTypeCounts[name] ?? 0;
    const grown = count - known - (known - (earlier.objectTypeCounts[name] ?? 0));
    types.set(name, grown);
    objects += grown;
  }
  return { objects, types };
}

/** Times that a piece of work is tried for each sample that is wanted: in some of them the collector runs. */
const attempts = 3;
/** Types that are named. */
const typesMax = 20;

/** @returns undefined if no sample could be taken without a collection in it. */
export async function measureJavaScript(
  work: () => Promise<unknown>,
  collections: Collections,
  { rounds, timeMs, seed, signal, onProgress }: PartOptions,
): Promise<JavaScriptAllocationFigures | undefined> {
  const samples: HeapGrowth[] = [];
  const beganMs = performance.now();
  try {
    for (let attempt = 0; attempt < attempts * rounds && samples.length < rounds; attempt++) {
      const elapsedMs = performance.now() - beganMs;
      if (elapsedMs > timeMs || signal?.aborted) break;
      onProgress?.(Math.max(samples.length / rounds, Math.min(1, elapsedMs / timeMs)));
      const sample = await heapGrowth(work, collections);
      if (sample) samples.push(sample);
    }
  } catch (error) {
    if (!signal?.aborted) throw error;
  }
  if (samples.length === 0) return undefined;
  const objects = samples.map((sample) => sample.objects);
  return { objects: statisticsOf(objects, seededRandom(seed)), types: typesOf(samples) };
}

/** Means over the samples. */
function typesOf(samples: readonly HeapGrowth[]): { readonly name: string; readonly objects: number }[] {
  const names = new Set(samples.flatMap(({ types }) => [...types.keys()]));
  const sums = [...names].map((name) => ({
    name,
    objects: samples.reduce((sum, { types }) => sum + (types.get(name) ?? 0), 0) / samples.length,
  }));
  return sums
    .filter(({ objects }) => objects >= 1)
    .sort((a, b) => b.objects - a.objects)
    .slice(0, typesMax);
}
