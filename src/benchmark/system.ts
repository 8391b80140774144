// Type `system`: what a machine does without a model. Its disk, its loopback network, and how its cores work together, in turn, each
// beside how busy the machine was meanwhile.

import { chooseLevel } from "../engine/cpu.ts";
import { openLibrary } from "../engine/library.ts";
import { OptionError, TinyAIError } from "../errors.ts";
import { divide, type Part, type PartOptions, shortOfSamples } from "./part.ts";
import type { Benchmark, BenchmarkContext, Measured } from "./registry.ts";
import type { Statistics, SystemFigures, SystemPart, Utilization } from "./results.ts";
import { simdLevel } from "./simd-level.ts";
import { measureDisk } from "./system/disk.ts";
import { measureNetwork } from "./system/network.ts";
import { measureThreads } from "./system/threads.ts";
import { watchUtilization } from "./utilization.ts";

const secondsDefault = 40;

const parts = {
  disk: { share: 0.45, doing: "disk" },
  network: { share: 0.2, doing: "loopback network" },
  threads: { share: 0.35, doing: "threads" },
} as const;
/** A figure of each part that has a sample for every round. */
const sampled: Readonly<Record<SystemPart, (figures: SystemFigures) => Statistics | undefined>> = {
  disk: ({ disk }) => disk?.sequential_read?.rate,
  network: ({ network }) => network?.bandwidth,
  threads: ({ threads }) => threads?.curve?.[0]?.rate,
};
const names = Object.keys(parts) as readonly SystemPart[];

export const system: Benchmark = { needsModel: false, run: measureSystem };

/** @throws the signal's reason if it came before anything was measured. */
async function measureSystem(context: BenchmarkContext): Promise<Measured> {
  const { settings, signal } = context;
  const { disk_folder: folder, threads, simd, seed } = settings;
  const library = openLibrary();
  const level = chooseLevel(library, simd === null ? undefined : await simdLevel(simd)).index;
  const measure: Readonly<Record<SystemPart, (options: PartOptions) => Promise<Part<unknown>>>> = {
    disk: (options) => measureDisk({ ...options, folder }),
    network: measureNetwork,
    threads: (options) => measureThreads({ ...options, library, level, threads: threads ?? undefined }),
  };
  const options = divide(context, parts, secondsDefault);
  const figures: SystemFigures = {};
  const utilization: Partial<Record<SystemPart, Utilization>> = {};
  const methodology: string[] = [];
  const warnings: string[] = [];
  let childrenMs = 0;
  for (const name of names) {
    if (signal?.aborted) break;
    const watch = watchUtilization({ seed });
    try {
      const found = await measure[name](options[name]);
      methodology.push(...found.methodology);
      warnings.push(...found.warnings);
      childrenMs += found.childrenMs ?? 0;
      if (found.figures === undefined) continue;
      Object.assign(figures, { [name]: found.figures });
      utilization[name] = watch.stop();
    } catch (error) {
      // What was chosen has to be there; without what was not, the other parts can still be measured.
      const chosen = error instanceof OptionError && folder !== undefined;
      if (!(error instanceof TinyAIError) || chosen) throw error;
      warnings.push(`${parts[name].doing}: not measured: ${error.message}`);
    } finally {
      watch.stop();
    }
  }
  if (!signal?.aborted) {
    for (const name of names) warnings.push(...shortOfSamples(parts[name].doing, sampled[name](figures), settings));
  }
  if (signal?.aborted && Object.keys(figures).length === 0) throw signal.reason;
  return {
    figures: { system: { ...figures, utilization } },
    methodology,
    warnings,
    interrupted: signal?.aborted ?? false,
    childrenMs,
  };
}
