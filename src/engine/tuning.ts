// What differs by machine and changes no result: how memory is asked for ahead, how many tokens are few, and how much of the
// weights stays in the first-level cache while tokens go by. A table where nothing was measured; candidates, and the choice between
// them by what they took. It measures on the stand, and stores nothing.

import { isRecord } from "../check.ts";
import type { DType } from "../graph/dtype.ts";
import type { Library } from "./library.ts";

/** With the weights that are multiplied, those `distance` blocks further on are asked for. */
export interface Prefetch {
  /** Blocks: 0 to 64. */
  readonly distance: number;
  /** `first`: one line of 16 rows by 32 columns, which keeps the processor's own prefetching on its way. */
  readonly lines: (typeof prefetchLines)[number];
}

export interface Tuning {
  /** Cache lines of a block (`blockBytes`): what of each weight all tokens go through before the next ones. */
  readonly blockSize: number;
  /** Bytes, one of `lineSizes`: one line in so many is asked for. */
  readonly cacheLineSize: number;
  /** Whether what has no distance is asked for too: what several tokens share, keys and values, and what a waiting thread begins with. */
  readonly ahead: boolean;
  /**
   * By what stands in memory: codes of eight bits, narrower ones, which are decoded first, and float values. Where F16 and BF16
   * are aligned first (`alignsWords`), they go with the narrower codes, and only F32 is float.
   */
  readonly byte: Prefetch;
  readonly packed: Prefetch;
  readonly float: Prefetch;
  /** Up to this many tokens decode packed codes four at a time, 1 to 16; more share what is decoded once into memory. */
  readonly fewTokens: number;
}

/** What is measured. */
export type Knob = "byte" | "packed" | "float" | "fewTokens";

/** In the order of `Ahead` in zig/kernels/table.zig. */
export const prefetchLines = ["none", "first", "all"] as const;
export const prefetchKinds = ["byte", "packed", "float"] as const satisfies readonly Knob[];
/** Weights that are asked for alike: codes of eight bits, narrower codes, and float values. */
export type PrefetchKind = (typeof prefetchKinds)[number];
/** Bytes that a cache line may have. */
export const lineSizes: readonly number[] = [32, 64, 128, 256];
/** Bytes that a block may have, as in zig/kernels/table.zig. */
export const blockBytesMin = 256;
export const blockBytesMax = 32 * 1024;
/** Blocks, and bytes, that may lie between what is multiplied and what is asked for. */
export const distanceMax = 64;
export const distanceBytesMax = 1 << 20;
const fewTokensMax = 16;

const none: Prefetch = { distance: 0, lines: "none" };
const first = (distance: number): Prefetch => ({ distance, lines: "first" });
const all = (distance: number): Prefetch => ({ distance, lines: "all" });

/**
 * Bytes of a block. A tile's two blocks and what goes with them take 26 KB of a first-level cache of 32 KB. With 4 KiB, products of
 * 256 tokens take 1 to 6 % longer, for sums are put away and taken up again more often; with 16 KiB, those of 16 tokens and K-quants
 * 8 to 11 % (Intel Xeon with AVX-512 VNNI, two cores). It does not follow the cache's size: that Xeon's has 48 KB, which have
 * room for blocks of 16 KiB, and yet those take longer; other sizes were not measured. Where another block is better, `tinyai tune
 * --model` finds it.
 */
const fixedBlockBytes = 10 * 1024;

/**
 * Where nothing was measured: what was best on processors of the Zen generations 3 and 4, and little behind the best on one of
 * the fifth. Float weights at 256 bits take so many instructions that memory is asked for too late without it.
 */
const fixed: Omit<Tuning, "blockSize" | "cacheLineSize"> = {
  ahead: true,
  byte: first(2),
  packed: all(1),
  float: none,
  fewTokens: 8,
};

/** @param cacheLineSize the machine's; one of `lineSizes`. */
export function fixedTuning(level: string, cacheLineSize = 64): Tuning {
  const lines = { blockSize: fixedBlockBytes / cacheLineSize, cacheLineSize };
  return { ...lines, ...fixed, ...(level === "avx2" ? { float: all(1) } : {}) };
}

/** Bytes of a block. */
export function blockBytes({ blockSize, cacheLineSize }: Pick<Tuning, "blockSize" | "cacheLineSize">): number {
  return blockSize * cacheLineSize;
}

/**
 * What is tried of each knob beside the fixed value, and on which product. Of packed codes, those with most decoding need
 * prefetching most; with eight tokens, decoding twice and sharing what was decoded once come near each other.
 */
const knobs = {
  byte: { values: [none, first(1), first(2), all(1), all(2)], format: "Q8_0", tokens: 1 },
  packed: { values: [none, first(1), all(1), all(2), all(4)], format: "Q6_K", tokens: 1 },
  float: { values: [none, all(1), all(2)], format: "BF16", tokens: 1 },
  fewTokens: { values: [4, 8], format: "Q4_K", tokens: 8 },
} as const satisfies { readonly [K in Knob]: { values: readonly Tuning[K][]; format: DType; tokens: number } };
export const knobNames = Object.keys(knobs) as readonly Knob[];

/** Levels whose products of F16 and BF16 weights are of 16-bit integers: `has_words` in zig/kernels/vec.zig. */
const alignsWords: ReadonlySet<string> = new Set(["avx512_vnni", "amx"]);

/** How weights of a format are asked for at this level. */
export function prefetchKind(dtype: DType, level: string): PrefetchKind {
  if (dtype === "Q8_0") return "byte";
  if (dtype === "F32") return "float";
  if (dtype === "F16" || dtype === "BF16") return alignsWords.has(level) ? "packed" : "float";
  return "packed";
}

/** The format of the product that a knob is measured on: one that the knob moves at this level. */
export function measuredFormat(knob: Knob, level: string): DType {
  return knob === "float" && alignsWords.has(level) ? "F32" : knobs[knob].format;
}

/** The tunings that differ from `from` in one knob alone, the fixed one first. */
export function candidatesFor(knob: Knob, from: Tuning): readonly Tuning[] {
  const others = knobs[knob].values.filter((value) => !Bun.deepEquals(value, from[knob]));
  return [from, ...others.map((value): Tuning => ({ ...from, [knob]: value }))];
}

/** The fields of zig/kernels/table.zig's Tuning. @throws {RangeError} if one is out of bounds. */
export function encodeTuning(tuning: Tuning): Uint32Array<ArrayBuffer> {
  if (!isTuning(tuning)) throw new RangeError("a tuning is out of bounds");
  const block = blockBytes(tuning);
  const prefetches = prefetchKinds.flatMap((kind) => [
    tuning[kind].distance * block,
    prefetchLines.indexOf(tuning[kind].lines),
  ]);
  return Uint32Array.from([...prefetches, tuning.fewTokens, tuning.ahead ? 1 : 0, tuning.cacheLineSize, block]);
}

/** Whether it has every knob, within the bounds. */
export function isTuning(value: unknown): value is Tuning {
  if (!isRecord(value)) return false;
  const { blockSize, cacheLineSize, fewTokens, ahead } = value;
  if (!isWhole(cacheLineSize, 1, Infinity) || !lineSizes.includes(cacheLineSize)) return false;
  if (!isWhole(blockSize, 1, Infinity)) return false;
  const block = blockBytes({ blockSize, cacheLineSize });
  if (block < blockBytesMin || block > blockBytesMax) return false;
  const prefetches = prefetchKinds.every((kind) => isPrefetch(value[kind], block));
  return prefetches && typeof ahead === "boolean" && isWhole(fewTokens, 1, fewTokensMax);
}

function isWhole(value: unknown, minimum: number, maximum: number): value is number {
  return Number.isInteger(value) && Number(value) >= minimum && Number(value) <= maximum;
}

function isPrefetch(value: unknown, block: number): boolean {
  if (!isRecord(value)) return false;
  const { distance, lines } = value;
  const within = isWhole(distance, 0, distanceMax) && distance * block <= distanceBytesMax;
  return within && (prefetchLines as readonly unknown[]).includes(lines);
}

/** A candidate must be this much faster than the fixed one: less is the machine's unrest. */
export const gainMin = 0.03;

/**
 * The candidate that takes the shortest time, if it is shorter than the first one's by `gainMin`; else the first one.
 * @param times for each candidate, what its runs took.
 */
export function chooseFastest<T>(tried: readonly T[], times: readonly (readonly number[])[]): T {
  const medians = times.map(medianOf);
  const [usual = Number.NaN] = medians;
  const best = medians.indexOf(Math.min(...medians));
  const chosen = (medians[best] ?? Number.NaN) <= usual * (1 - gainMin) ? tried[best] : tried[0];
  if (chosen === undefined) throw new RangeError("there is nothing to choose from");
  return chosen;
}

function medianOf(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? Number.NaN;
}

export interface TuneOptions {
  /** Index of the instruction-set level in `library.levels`. */
  readonly level: number;
  readonly threadCount: number;
  /** The machine's; default 64. */
  readonly cacheLineSize?: number;
  /** Asked before every slice of a few milliseconds; true: it gives up. */
  readonly giveUp?: (() => boolean) | undefined;
}

/** A knob's values, the fixed one first, with the median of what each took, in ns, and the one chosen. */
export interface Tried {
  readonly knob: Knob;
  readonly values: readonly { readonly value: Prefetch | number; readonly time_ns: number }[];
  readonly chosen: Prefetch | number;
}

/**
 * A product's shape, and enough copies that most caches do not hold them. Small models have small matrices, at whose end what
 * was asked for too far ahead is lost; large ones hardly mind.
 */
const shape = { rows: 2048, columns: 1024, workingBytes: 64 << 20 } as const;
/** What a knob's candidates run in turns. With the operands' making, the whole takes about 250 ms. */
const turnsTime_ns = 30e6;
const roundsMin = 5;

/**
 * Measures the candidates of every knob in turns, in slices between which others get a turn.
 * @returns undefined if it gave up.
 * @throws {EngineError} if memory or threads are refused.
 */
export async function measureTuning(
  library: Library,
  { level, threadCount, cacheLineSize, giveUp }: TuneOptions,
): Promise<{ readonly tuning: Tuning; readonly tried: readonly Tried[] } | undefined> {
  const { openStand } = await import("./stand.ts");
  const levelName = library.levels[level]?.name ?? "";
  let tuning = fixedTuning(levelName, cacheLineSize);
  const tried: Tried[] = [];
  for (const knob of knobNames) {
    if (giveUp?.()) return undefined;
    const candidates = candidatesFor(knob, tuning);
    const times: number[][] = candidates.map(() => []);
    const { tokens } = knobs[knob];
    const format = measuredFormat(knob, levelName);
    const stand = openStand(library, { kernel: "matmul", format, tokens, ...shape }, { level, threadCount });
    try {
      stand.run(1);
      for (let spent_ns = 0, round = 0; spent_ns < turnsTime_ns || round < roundsMin; round++) {
        await new Promise((resolve) => setImmediate(resolve));
        if (giveUp?.()) return undefined;
        for (const [index, candidate] of candidates.entries()) {
          stand.tune(candidate);
          const time_ns = stand.run(1);
          times[index]?.push(time_ns);
          spent_ns += time_ns;
        }
      }
    } finally {
      stand.close();
    }
    tuning = chooseFastest(candidates, times);
    const values = candidates.map((candidate, index) => ({
      value: candidate[knob],
      time_ns: medianOf(times[index] ?? []),
    }));
    tried.push({ knob, values, chosen: tuning[knob] });
  }
  return { tuning, tried };
}
