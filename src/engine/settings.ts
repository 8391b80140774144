// What may change between the steps of a loaded engine, and how it crosses into Zig.

import * as layout from "../plan/layout.ts";
import { encodeTuning, type Tuning } from "./tuning.ts";

export interface EngineSettings {
  readonly threadCount: number;
  /** Indexes into the library's levels. */
  readonly levels: Readonly<Record<layout.Family, number>>;
  /** CPU of each thread, in order; undefined, and threads beyond the list: where the system puts them. */
  readonly affinity: readonly (number | undefined)[];
  /** Percent of one CPU's time that all threads together may use, up to 6,400; 0: all that they can. */
  readonly cpuPercent: number;
  readonly tuning: Tuning;
}

/** The same level for all kernels. */
export function levelsOf(level: number): EngineSettings["levels"] {
  return { matmul: level, conv: level, activation: level, attention: level, other: level };
}

/** @param version which of the engine's settings these are. */
export function encodeSettings(settings: EngineSettings, version: number): Uint8Array {
  const { threadCount, levels, affinity, cpuPercent, tuning } = settings;
  const bytes = new Uint8Array(layout.Settings.size);
  layout.Settings.write(new DataView(bytes.buffer), 0, {
    version,
    thread_count: threadCount,
    levels: layout.families.map((family) => levels[family]),
    cpu_percent: cpuPercent,
    // Also of threads that there are not, so that more or fewer of them are no change of it.
    affinity: Array.from({ length: layout.threadsMax }, (_, thread) => affinity[thread] ?? layout.none),
    tuning: [...encodeTuning(tuning)],
  });
  return bytes;
}
