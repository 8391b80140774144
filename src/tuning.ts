// A machine's tuning: where it is kept, and when it is measured. Opening a model reads what is kept; nothing is measured there.
// A file is one machine's, level's and thread count's; what is damaged or of another is as if it were not there.

import { mkdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { cpu } from "./engine/cpu.ts";
import type { Library } from "./engine/library.ts";
import { fixedTuning, isTuning, measureTuning, type Tried, type Tuning } from "./engine/tuning.ts";
import { EngineError, OptionError } from "./errors.ts";
import { isSystemError, replaceFile } from "./files.ts";
import { homeFolder } from "./model/folders.ts";
import { layoutHash } from "./plan/layout.ts";

/** Changes whenever kernels or candidates change so much that what was measured no longer holds. */
const tuningVersion = 2;
/** A file that is larger is none. */
const tuningBytesMax = 64 << 10;

/** What a tuning was measured on, and for. */
export interface TuningKey {
  readonly version: number;
  /** Of the library's structs. */
  readonly layout: string;
  readonly cpu: string;
  readonly features: string;
  /** Sizes of the first CPU's caches, as the system writes them; empty where it does not. */
  readonly caches: readonly string[];
  readonly level: string;
  readonly threads: number;
}

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
  return {
    version: tuningVersion,
    layout: layoutHash().toString(16),
    cpu: cpu.model,
    features: library.features.toString(16),
    caches: cacheSizes(),
    level: library.levels[level]?.name ?? "",
    threads,
  };
}

function cacheSizes(): string[] {
  const sizes: string[] = [];
  try {
    for (let index = 0; index < 8; index++) {
      sizes.push(readFileSync(`/sys/devices/system/cpu/cpu0/cache/index${index}/size`, "utf8").trim());
    }
  } catch {}
  return sizes;
}

/** The file of a key, whether it is there or not. */
export function tuningPath(key: TuningKey): string {
  const name = Bun.hash.wyhash(JSON.stringify(key)).toString(16).padStart(16, "0");
  return join(homeFolder(), "tuning", `${key.level}-${key.threads}-${name}.json`);
}

/** What was measured on this machine for this level and so many threads, else what the table says. */
export function findTuning(library: Library, level: number, threads: number, choice: TuningChoice): FoundTuning {
  const key = tuningKey(library, level, threads);
  const path = tuningPath(key);
  const measured = choice === "measured" ? readTuning(path, key) : undefined;
  return measured
    ? { tuning: measured, source: "measured", path }
    : { tuning: fixedTuning(key.level), source: "fixed", path };
}

/** The tuning in a file; undefined if there is none, or it is damaged, out of bounds, or of another key. */
export function readTuning(path: string, key: TuningKey): Tuning | undefined {
  try {
    // Asked before it is opened: opening a FIFO waits.
    const stats = statSync(path);
    if (!stats.isFile() || stats.size > tuningBytesMax) return undefined;
    const stored: unknown = JSON.parse(readFileSync(path, "utf8"));
    if (typeof stored !== "object" || stored === null || !("key" in stored) || !("tuning" in stored)) return undefined;
    if (!Bun.deepEquals(stored.key, key) || !isTuning(stored.tuning)) return undefined;
    return stored.tuning;
  } catch {
    return undefined;
  }
}

/**
 * Keeps a tuning, under a temporary name until it is whole.
 * @throws {EngineError} if it cannot be written.
 */
export async function storeTuning(path: string, key: TuningKey, tuning: Tuning): Promise<void> {
  try {
    mkdirSync(dirname(path), { recursive: true });
    const text = `${JSON.stringify({ key, tuning }, null, 2)}\n`;
    await replaceFile(path, (append) => append(Buffer.from(text)));
  } catch (cause) {
    if (!isSystemError(cause)) throw cause;
    throw new EngineError(`${path}: cannot be written: ${cause.message}; name another folder (TINYAI_HOME)`, { cause });
  }
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
  const measured = await measureTuning(library, { level, threadCount: threads, giveUp });
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
