// How kernels use the caches: what a user may ask for, what holds without, and where each value comes from. No result depends on
// any of it. How a tuning is found is src/tuning.ts's, what kernels make of it zig/kernels/prefetch.zig's and the kernels'.

import { checkBoolean, checkInteger, checkKeys } from "../check.ts";
import { machineLineSize } from "../engine/caches.ts";
import {
  blockBytes,
  blockBytesMax,
  blockBytesMin,
  distanceBytesMax,
  distanceMax,
  lineSizes,
  type PrefetchKind,
  prefetchKind,
  prefetchKinds,
  type Tuning,
} from "../engine/tuning.ts";
import { OptionError } from "../errors.ts";
import type { ModelParts } from "../loaded-model.ts";
import type { FoundTuning, TuningChoice } from "../tuning.ts";

/** How kernels use the caches. What is not given is as it was measured on this machine, or as a table says. */
export interface CacheConfiguration {
  /**
   * Cache lines of a block, in which weights of several tokens, keys and values are gone through: all tokens or queries use a block
   * before the next one, and find it in the first-level cache. A block has 256 bytes to 32 KiB, so with lines of 64 bytes 4 to 512.
   * Default 10 KiB, 160 lines of 64 bytes.
   */
  readonly blockSize?: number | undefined;
  /** Bytes: 32, 64, 128 or 256. One line in so many bytes is asked for ahead. Default the machine's. */
  readonly cacheLineSize?: number | undefined;
  /**
   * Whether programs ask for memory before they read it: weights, keys and values, and what a thread that waits will begin with.
   * What the processor fetches by itself is not touched. Default true.
   */
  readonly enablePrefetch?: boolean | undefined;
  /**
   * Blocks between the weights that are multiplied with one or a few tokens and those that are asked for meanwhile: 1 to 64, and at
   * most 1 MiB. Default what was measured for each kind of weights.
   */
  readonly prefetchDistance?: number | undefined;
}

/** `option`: asked for; `measured`: on this machine, by `tinyai tune` or beside a first opening; `system`: as it describes the machine; `table`: fixed. */
export type CacheSource = "option" | "measured" | "system" | "table";

/** What holds, and where it comes from. */
export interface CacheOptimization {
  /** Cache lines of a block. */
  readonly blockSize: number;
  /** Bytes. */
  readonly cacheLineSize: number;
  readonly enablePrefetch: boolean;
  /** Blocks, for the kind of weights that most of this model's bytes are; 0: they are not asked for ahead. */
  readonly prefetchDistance: number;
  /** The same of codes of eight bits, of narrower ones and what is decoded like them, and of float values. */
  readonly prefetchDistances: Readonly<Record<PrefetchKind, number>>;
  readonly source: Readonly<Record<keyof CacheConfiguration, CacheSource>>;
}

/** What was found for this machine and the level of the products, and what was asked for since. */
export interface CacheState {
  readonly choice: TuningChoice;
  found: FoundTuning;
  given: CacheConfiguration;
}

const keys = ["blockSize", "cacheLineSize", "enablePrefetch", "prefetchDistance"] as const;

/**
 * The fields that are given, each within its bounds.
 * @throws {OptionError} if one is not, or there is none of that name.
 */
export function checkCache(option: unknown = {}): CacheConfiguration {
  checkKeys("cache", option, keys);
  const { blockSize, cacheLineSize, enablePrefetch, prefetchDistance } = option as CacheConfiguration;
  if (cacheLineSize !== undefined && !lineSizes.includes(checkInteger("cache.cacheLineSize", cacheLineSize, 32, 256))) {
    throw new OptionError("cache.cacheLineSize", `is ${cacheLineSize}; ${lineSizes.join(", ")} are possible`);
  }
  return {
    ...(blockSize !== undefined && { blockSize: checkInteger("cache.blockSize", blockSize, 1, blockBytesMax / 32) }),
    ...(cacheLineSize !== undefined && { cacheLineSize }),
    ...(enablePrefetch !== undefined && { enablePrefetch: checkBoolean("cache.enablePrefetch", enablePrefetch) }),
    ...(prefetchDistance !== undefined && {
      prefetchDistance: checkInteger("cache.prefetchDistance", prefetchDistance, 1, distanceMax),
    }),
  };
}

/**
 * What was found, changed to what was asked for.
 * @throws {OptionError} if values do not go together.
 */
export function tunedTo(found: Tuning, given: CacheConfiguration): Tuning {
  const { cacheLineSize = found.cacheLineSize, enablePrefetch = true } = given;
  // A block that was not asked for has as many bytes, whatever the lines.
  const { blockSize = Math.round(blockBytes(found) / cacheLineSize) } = given;
  const block = blockBytes({ blockSize, cacheLineSize });
  if (block < blockBytesMin || block > blockBytesMax) {
    const range = `${Math.ceil(blockBytesMin / cacheLineSize)} to ${blockBytesMax / cacheLineSize}`;
    throw new OptionError(
      "cache.blockSize",
      `is ${blockSize}; of lines of ${cacheLineSize} bytes ${range} are possible`,
    );
  }
  const most = Math.min(distanceMax, Math.floor(distanceBytesMax / block));
  const { prefetchDistance } = given;
  if (prefetchDistance !== undefined && prefetchDistance > most) {
    const problem = `is ${prefetchDistance}; of blocks of ${block} bytes 1 to ${most} are possible`;
    throw new OptionError("cache.prefetchDistance", problem);
  }
  const prefetch = (kind: PrefetchKind): Tuning[PrefetchKind] => {
    const { lines, distance } = found[kind];
    if (!enablePrefetch) return { distance: 0, lines: "none" };
    if (prefetchDistance === undefined) return { distance: Math.min(distance, most), lines };
    return { distance: prefetchDistance, lines: lines === "none" ? "all" : lines };
  };
  return {
    ...found,
    blockSize,
    cacheLineSize,
    ahead: enablePrefetch,
    byte: prefetch("byte"),
    packed: prefetch("packed"),
    float: prefetch("float"),
  };
}

/**
 * Changes what is given; the rest stays as it is.
 * @throws {OptionError} if a value is out of its bounds, and nothing is changed.
 */
export async function configureCache({ engine, cache }: ModelParts, changes: CacheConfiguration): Promise<void> {
  const given = { ...cache.given, ...checkCache(changes) };
  const tuning = tunedTo(cache.found.tuning, given);
  cache.given = given;
  await engine.configure({ tuning });
}

/** What holds, and where it comes from. */
export function cacheOptimizationOf(parts: ModelParts): CacheOptimization {
  const { engine, cache, settings } = parts;
  const { given, found } = cache;
  const { tuning } = engine.settings;
  // Of machines prefetching is measured, of models blocks too.
  const ofModel = settings.source.kernels === "model" && found.path === settings.found.path;
  const measured: CacheSource = found.source === "measured" ? "measured" : "table";
  const line: CacheSource = machineLineSize().source === "system" ? "system" : "table";
  const from = (key: keyof CacheConfiguration, otherwise: CacheSource): CacheSource =>
    given[key] === undefined ? otherwise : "option";
  const distanceOf = (kind: PrefetchKind): number => (tuning[kind].lines === "none" ? 0 : tuning[kind].distance);
  return {
    blockSize: tuning.blockSize,
    cacheLineSize: tuning.cacheLineSize,
    enablePrefetch: tuning.ahead,
    prefetchDistance: distanceOf(mostlyOf(parts)),
    prefetchDistances: { byte: distanceOf("byte"), packed: distanceOf("packed"), float: distanceOf("float") },
    source: {
      blockSize: from("blockSize", ofModel ? "measured" : "table"),
      cacheLineSize: from("cacheLineSize", line),
      enablePrefetch: from("enablePrefetch", "table"),
      prefetchDistance: given.enablePrefetch === false ? "option" : from("prefetchDistance", measured),
    },
  };
}

/** The kind of weights that most of a model's bytes are. */
function mostlyOf(parts: ModelParts): PrefetchKind {
  const level = productLevel(parts);
  const bytesOf = (kind: PrefetchKind): number =>
    parts.plan.matrices.reduce((sum, { dtype, bytes }) => sum + (prefetchKind(dtype, level) === kind ? bytes : 0), 0);
  return [...prefetchKinds].sort((a, b) => bytesOf(b) - bytesOf(a))[0] ?? "packed";
}

/** The instruction-set level that products run at. */
function productLevel({ engine, library }: ModelParts): string {
  return library.levels[engine.settings.levels.matmul]?.name ?? "";
}

/** Knobs that change nothing for this model as it is, and why. */
export function cacheWithoutEffect(parts: ModelParts): { knob: string; reason: string }[] {
  const { engine, plan, cache } = parts;
  const without: { knob: string; reason: string }[] = [];
  const level = productLevel(parts);
  const blocks = !plan.wholePrompts || plan.matrices.some(({ dtype }) => prefetchKind(dtype, level) !== "float");
  if (!engine.settings.tuning.ahead) {
    const reason = "nothing is asked for ahead: cache.enablePrefetch is false";
    without.push({ knob: "cache.prefetchDistance", reason });
    // A block that was asked for has so many lines; another keeps its bytes.
    if (cache.given.blockSize === undefined || !blocks) without.push({ knob: "cache.cacheLineSize", reason });
  }
  if (!blocks) {
    const reason = `at ${level}, weights like this model's are not gone through in blocks, and it keeps no keys and values`;
    without.push({ knob: "cache.blockSize", reason });
  }
  return without;
}
