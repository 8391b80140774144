// What requests take: memory at its highest, and what the native library allocates, for one batch size after another.

import type { Library } from "../../engine/library.ts";
import { inferenceFigures } from "../inference.ts";
import { takeIterations } from "../iterations.ts";
import type { PartOptions } from "../part.ts";
import type { InferenceFigures, NativeAllocationFigures, RunningFigures, Settings } from "../results.ts";
import { batchWarnings } from "../sample-warnings.ts";
import { statisticsOf } from "../statistics/describe.ts";
import { seededRandom } from "../statistics/random.ts";
import type { Subject } from "../subject.ts";
import { NativeSamples } from "./allocations.ts";
import type { ResidentPeak } from "./peak.ts";

export interface RunningOptions extends PartOptions {
  readonly library: Library;
  readonly peak: ResidentPeak;
  readonly subject: Subject;
  readonly settings: Settings;
}

export interface Running {
  /** By batch size; those of which nothing was measured are missing. */
  readonly bySize: Readonly<Record<string, InferenceFigures>>;
  /** Of the first batch size; missing if nothing was measured of it. */
  readonly first?: { readonly running: RunningFigures; readonly native: NativeAllocationFigures };
  readonly warnings: readonly string[];
}

/** What is touched at all is touched by then; times may still change. */
export const warmupDefault = 3;

/** Memory of an iteration is the highest that was resident during it, not what is at its end. */
export async function measureRunning(options: RunningOptions): Promise<Running> {
  const { library, peak, subject, settings, timeMs, seed, signal, onProgress } = options;
  const { batch_sizes, metrics } = settings;
  const bySize: Record<string, InferenceFigures> = {};
  const warnings: string[] = [];
  let first: Running["first"];
  for (const [index, batchSize] of batch_sizes.entries()) {
    if (signal?.aborted) break;
    const native = new NativeSamples(library);
    const iterate = async () => {
      peak.reset();
      const sample = await native.take(() => subject.iterate(batchSize));
      return { ...sample, residentBytes: peak.read() };
    };
    const warmup = settings.warmup ?? warmupDefault;
    const limits = { ...settings, warmup, time_s: timeMs / 1000 / batch_sizes.length };
    const taken = await takeIterations(iterate, limits, {
      signal,
      onWarm: () => native.forget(),
      onProgress: (share) => onProgress?.((index + share) / batch_sizes.length),
    });
    const allocations = native.stop(seed);
    if (taken.samples.length === 0) break;
    const figures = inferenceFigures(taken.samples, metrics, seed);
    bySize[batchSize] = { ...figures, warmup: taken.warmup };
    const megabytes = taken.samples.map(({ residentBytes }) => residentBytes / 1e6);
    first ??= { running: { peak: statisticsOf(megabytes, seededRandom(seed)) }, native: allocations };
    warnings.push(...batchWarnings(taken, limits, batchSize));
  }
  return { bySize, ...(first && { first }), warnings };
}
