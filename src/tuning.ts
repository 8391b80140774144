// A machine's tuning: where it is kept, and when it is measured. Opening a model reads what is kept; nothing is measured there.
// A file is one machine's, level's and thread count's; what is damaged or of another is as if it were not there.

import { machineLineSize } from "./engine/caches.ts";
import type { Library } from "./engine/library.ts";
import { fixedTuning, isTuning, measureTuning, type Tried, type Tuning } from "./engine/tuning.ts";
import { OptionError } from "./errors.ts";
import { type KeptKind, keptPath, type MachineKey, machineKey, readKept, storeKept } from "./kept.ts";

/** The version changes whenever kernels or candidates change so much that what was measured no longer holds. */
const kept: KeptKind<Tuning> = { folder: "tuning", field: "tuning", version: 3, check: isTuning };

/** What a tuning was measured on, and for. */
export type TuningKey = MachineKey;

/** A tuning and where it comes from. */
export interface FoundTuning {
  readonly tuning: Tuning;
  readonly source: "measured" | "fixed";
  /** Where it is kept, or would be. */
  readonly path: string;
}

/** How `loadModel` comes to its tuning: what was measured on this machine, or a table. */
export type TuningChoice = "measured" | "fixed";

/**
 * `TINYAI_TUNING=off`, else the option, else what was measured.
 * @throws {OptionError} if the variable is something else.
 */
export function chooseTuning(option: TuningChoice | undefined): TuningChoice {
  const forced = process.env["TINYAI_TUNING"];
  if (forced === undefined || forced === "" || forced === "on") return option ?? "measured";
  if (forced === "off") return "fixed";
  throw new OptionError("TINYAI_TUNING", `is ${JSON.stringify(forced)}; on or off is expected`);
}

export function tuningKey(library: Library, level: number, threads: number): TuningKey {
  return machineKey(kept, library, level, threads);
}

/** The file of a key, whether it is there or not. */
export function tuningPath(key: TuningKey): string {
  return keptPath(kept, key);
}

/** What was measured on this machine for this level and so many threads, else what the table says. */
export function findTuning(library: Library, level: number, threads: number, choice: TuningChoice): FoundTuning {
  const key = tuningKey(library, level, threads);
  const path = tuningPath(key);
  const measured = choice === "measured" ? readTuning(path, key) : undefined;
  return measured
    ? { tuning: measured, source: "measured", path }
    : { tuning: fixedTuning(key.level, machineLineSize().bytes), source: "fixed", path };
}

/** The tuning in a file; undefined if there is none, or it is damaged, out of bounds, or of another key. */
export function readTuning(path: string, key: TuningKey): Tuning | undefined {
  return readKept(kept, path, key);
}

/**
 * Keeps a tuning, under a temporary name until it is whole.
 * @throws {EngineError} if it cannot be written.
 */
export async function storeTuning(path: string, key: TuningKey, tuning: Tuning): Promise<void> {
  await storeKept(kept, path, key, tuning);
}

/** What `tuneMachine` measured, chose and kept. */
export interface TunedMachine extends FoundTuning {
  readonly key: TuningKey;
  readonly tried: readonly Tried[];
}

/**
 * Measures this machine, in about a quarter of a second on all of `threads`, and keeps the result.
 * @returns undefined if it gave up.
 * @throws {EngineError} if memory or threads are refused, or the result cannot be written.
 */
export async function tuneMachine(
  library: Library,
  level: number,
  threads: number,
  giveUp?: () => boolean,
): Promise<TunedMachine | undefined> {
  const cacheLineSize = machineLineSize().bytes;
  const measured = await measureTuning(library, { level, threadCount: threads, cacheLineSize, giveUp });
  if (!measured) return undefined;
  const key = tuningKey(library, level, threads);
  const path = tuningPath(key);
  await storeTuning(path, key, measured.tuning);
  return { ...measured, key, source: "measured", path };
}

/** Whether this process may measure without being asked: not in tests, and not where programs are built and checked. */
export function mayTune(): boolean {
  return !process.env["CI"] && process.env["NODE_ENV"] !== "test";
}

const idlePeriod_ms = 100;

/** What else there is to do, as it is asked for between slices of a measurement. */
export interface Surroundings {
  /** Something is running. */
  readonly busy: () => boolean;
  /** Nobody will wait until nothing is. */
  readonly closing: () => boolean;
}

/**
 * Measures once nothing is running, and gives up while something is; never fails. What it finds serves the next opening. Where
 * the model is being closed, it measures at once or not at all.
 */
export async function tuneWhenIdle(
  library: Library,
  level: number,
  threads: number,
  { busy, closing }: Surroundings,
): Promise<void> {
  try {
    for (;;) {
      while (busy()) {
        if (closing()) return;
        await Bun.sleep(idlePeriod_ms);
      }
      if (await tuneMachine(library, level, threads, busy)) return;
    }
  } catch {
    // A machine that cannot be measured has the table.
  }
}
