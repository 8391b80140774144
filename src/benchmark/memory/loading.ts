// What loading a model takes: time, memory at its highest, and what the native library allocates for it. The model is loaded and closed
// again and again; its file is in the system's page cache by then, as it is for whoever opens a model a second time.

import type { Library } from "../../engine/library.ts";
import type { Model } from "../../loaded-model.ts";
import type { PartOptions } from "../part.ts";
import type { LoadingFigures, NativeAllocationFigures } from "../results.ts";
import { statisticsOf } from "../statistics/describe.ts";
import { seededRandom } from "../statistics/random.ts";
import { NativeSamples } from "./allocations.ts";
import type { ResidentPeak } from "./peak.ts";

export interface LoadingOptions extends PartOptions {
  readonly library: Library;
  readonly peak: ResidentPeak;
  readonly load: () => Promise<Model>;
}

interface Loading {
  readonly loading: LoadingFigures;
  readonly native: NativeAllocationFigures;
}

/** @returns undefined if the signal came before it was loaded once. */
export async function measureLoading(options: LoadingOptions): Promise<Loading | undefined> {
  const { library, peak, load, rounds, timeMs, seed, signal, onProgress } = options;
  const samples: { readonly ms: number; readonly peakBytes: number; readonly addedBytes: number }[] = [];
  const native = new NativeSamples(library);
  const beganMs = performance.now();
  try {
    while (samples.length < rounds) {
      const elapsedMs = performance.now() - beganMs;
      if (samples.length > 0 && elapsedMs * (1 + 1 / samples.length) > timeMs) break;
      onProgress?.(Math.max(samples.length / rounds, Math.min(1, elapsedMs / timeMs)));
      // What was left of the model before is no part of what this one adds.
      Bun.gc(true);
      peak.reset();
      const before = process.memoryUsage.rss();
      const loadedMs = performance.now();
      const model = await native.take(load);
      const ms = performance.now() - loadedMs;
      const peakBytes = peak.read();
      await model.close();
      samples.push({ ms, peakBytes, addedBytes: peakBytes - before });
    }
  } catch (error) {
    if (!signal?.aborted) throw error;
  }
  const allocations = native.stop(seed);
  if (samples.length === 0) return undefined;
  const figures = (of: (sample: (typeof samples)[number]) => number) =>
    statisticsOf(samples.map(of), seededRandom(seed));
  return {
    loading: {
      time: figures(({ ms }) => ms),
      peak: figures(({ peakBytes }) => peakBytes / 1e6),
      added: figures(({ addedBytes }) => addedBytes / 1e6),
    },
    native: allocations,
  };
}
