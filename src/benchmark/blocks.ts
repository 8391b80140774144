// Iterations in blocks, for each of which all that is measured is loaded anew: how memory and threads lie differs from loading to
// loading by more than what iterations of one loading scatter, so that one loading alone says little of the next. It knows nothing of what
// an iteration does.

import { type IterationSettings, type Iterations, type Timed, takeIterations } from "./iterations.ts";
import type { Settings } from "./results.ts";
import { precisionOf } from "./statistics/describe.ts";
import { loadingMeans } from "./statistics/loadings.ts";

/** What is loaded for a block. */
export interface Loaded<Sample extends Timed> {
  readonly iterate: (batchSize: number) => Promise<Sample>;
  readonly close: () => Promise<void>;
}

/** The iterations of a batch size, by block, in order. */
export interface Batch<Sample extends Timed> {
  readonly batchSize: number;
  readonly blocks: readonly Iterations<Sample>[];
}

export type BlockSettings = IterationSettings & Pick<Settings, "batch_sizes">;

export interface BlockOptions<Sample extends Timed> {
  /** Loads; may tell what is done of it, 0 to 1. */
  readonly open: (onLoading: (share: number) => void) => Promise<Loaded<Sample>>;
  /** Blocks at least, unless the time is over or there are fewer iterations: then as many as those. */
  readonly blocksMin: number;
  /** How well it is known what is measured, as a part of it. Default the mean latency, by those of the blocks. */
  readonly precisionOf?: ((batch: Batch<Sample>) => number) | undefined;
  /** Called when a block of a batch size has warmed up, and when its last iteration is over, or failed. */
  readonly onWarm?: ((batchSize: number) => void) | undefined;
  readonly onOver?: ((batchSize: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Called with what is done of it, 0 to 1, and what is being done. */
  readonly onProgress?: ((share: number, doing: string) => void) | undefined;
}

export interface TakenBlocks<Sample extends Timed> {
  /** Those of which an iteration was measured. */
  readonly batches: readonly Batch<Sample>[];
  /** What ended it. */
  readonly ended: Iterations<Sample>["ended"];
}

/** Iterations of a block at least, where their number was not given. */
const blockIterationsMin = 4;
/** Iterations that warm up later blocks at most: the program is warm by then, and only memory is new. */
const laterWarmup = 3;

interface GrowingBatch<Sample extends Timed> extends Batch<Sample> {
  readonly blocks: Iterations<Sample>[];
}

/**
 * Measures in blocks until it is enough, or the signal ends it: what was measured until then is kept.
 * @throws what loading or an iteration throws, if not because of the signal.
 */
export async function takeBlocks<Sample extends Timed>(
  settings: BlockSettings,
  options: BlockOptions<Sample>,
): Promise<TakenBlocks<Sample>> {
  const batches = settings.batch_sizes.map((batchSize): GrowingBatch<Sample> => ({ batchSize, blocks: [] }));
  let ended: Iterations<Sample>["ended"];
  try {
    ended = await take(batches, settings, options);
  } catch (error) {
    if (!options.signal?.aborted) throw error;
    ended = "signal";
  }
  return { batches: batches.filter(({ blocks }) => blocks.some(({ samples }) => samples.length > 0)), ended };
}

async function take<Sample extends Timed>(
  batches: readonly GrowingBatch<Sample>[],
  settings: BlockSettings,
  options: BlockOptions<Sample>,
): Promise<Iterations<Sample>["ended"]> {
  const { open, onWarm, onOver, signal, onProgress } = options;
  const { iterations } = settings;
  const timeMs = 1000 * (settings.time_s ?? Number.POSITIVE_INFINITY);
  const blocksMin = Math.min(options.blocksMin, iterations ?? options.blocksMin);
  // One alone says itself when it is enough.
  const isOnly = blocksMin === 1;
  let blockIterations = blockIterationsMin;
  for (let block = 0; ; block++) {
    const { share, ended } = stateOf(batches, block, { ...options, blocksMin, settings, timeMs });
    if (ended) return ended;
    const doing = `loading ${block + 1} of ${Math.max(blocksMin, block + 1)}${iterations === null && !isOnly ? " or more" : ""}`;
    onProgress?.(share, doing);
    signal?.throwIfAborted();
    const beganMs = performance.now();
    const loaded = await open((part) => onProgress?.(share, `${doing}: ${Math.floor(100 * part)} % in memory`));
    try {
      for (const [place, { batchSize, blocks }] of batches.entries()) {
        const leftMs = timeMs - sumOf(blocks);
        if (leftMs <= 0) continue;
        const given = {
          // Each block has as many as another, or one more.
          iterations: iterations === null ? blockIterations : Math.ceil((iterations - block) / blocksMin),
          precision: 0,
          ...(isOnly && settings),
          warmup: block === 0 ? settings.warmup : Math.min(laterWarmup, settings.warmup ?? laterWarmup),
          time_s: Number.isFinite(leftMs) ? leftMs / 1000 : null,
        };
        const onPart = (part: number) => {
          if (isOnly || iterations !== null) onProgress?.((block + (place + part) / batches.length) / blocksMin, doing);
        };
        try {
          const iterate = () => loaded.iterate(batchSize);
          const taken = takeIterations(iterate, given, {
            signal,
            onWarm: () => onWarm?.(batchSize),
            onProgress: onPart,
          });
          blocks.push(await taken);
        } finally {
          onOver?.(batchSize);
        }
        signal?.throwIfAborted();
      }
    } finally {
      await loaded.close();
    }
    if (iterations !== null || block > 1) continue;
    const measuredMs = batches.reduce((sum, { blocks }) => sum + sumOf(blocks.slice(-1)), 0);
    const otherMs = performance.now() - beganMs - measuredMs;
    const fitting = (ms: number) => Math.floor((ms * blockIterations) / measuredMs);
    const most = Math.max(1, fitting((timeMs * batches.length) / blocksMin));
    // Half of the time goes to iterations, and not to loading and warming up, unless those are all that there is time for. The first
    // loading does not tell: the program warms up in it as well, for as long as many blocks take.
    blockIterations = Math.min(most, block === 0 ? blockIterations : Math.max(blockIterationsMin, fitting(otherMs)));
  }
}

interface StateOptions<Sample extends Timed> extends BlockOptions<Sample> {
  readonly settings: BlockSettings;
  readonly timeMs: number;
}

/** What is done after so many blocks, and what ends it if it is enough. */
function stateOf<Sample extends Timed>(
  batches: readonly Batch<Sample>[],
  count: number,
  {
    settings: { iterations, precision },
    timeMs,
    blocksMin,
    precisionOf: known = precisionOfMean,
  }: StateOptions<Sample>,
): { readonly share: number; readonly ended?: Iterations<Sample>["ended"] } {
  if (blocksMin === 1 && count === 1) return { share: 1, ended: batches.at(-1)?.blocks.at(-1)?.ended ?? "count" };
  if (iterations !== null && count >= blocksMin) return { share: 1, ended: "count" };
  const times = batches.map(({ blocks }) => Math.min(1, sumOf(blocks) / timeMs));
  const byTime = times.reduce((sum, part) => sum + part, 0) / times.length;
  if (byTime >= 1) return { share: 1, ended: "time" };
  if (iterations !== null) return { share: count / blocksMin };
  if (count < blocksMin) return { share: Math.min(byTime, 0.99) };
  // Of those whose time is over, nothing more becomes known.
  const reached = Math.max(...batches.filter((_, place) => (times[place] ?? 0) < 1).map(known));
  if (precision > 0 && reached <= precision) return { share: 1, ended: "precision" };
  return { share: Math.max(byTime, Math.min(0.99, (precision / reached) ** 2)) };
}

/** By the means of the blocks. */
function precisionOfMean<Sample extends Timed>(batch: Batch<Sample>): number {
  const timesMs = samplesOf(batch).map(({ latencyMs }) => latencyMs);
  return precisionOf(loadingMeans(timesMs, lengthsOf(batch)));
}

/** Ms of all iterations that count. */
function sumOf<Sample extends Timed>(blocks: readonly Iterations<Sample>[]): number {
  return blocks.reduce((sum, { samples }) => samples.reduce((part, { latencyMs }) => part + latencyMs, sum), 0);
}

/** All samples, in order. */
export function samplesOf<Sample extends Timed>({ blocks }: Batch<Sample>): readonly Sample[] {
  return blocks.flatMap(({ samples }) => samples);
}

/** Of the first block, in which the program warms up as well. */
export function warmupOf<Sample extends Timed>({ blocks }: Batch<Sample>): Iterations<Sample>["warmup"] {
  return blocks[0]?.warmup ?? { iterations: 0, steady: false };
}

/** How many samples of each block follow each other; blocks without any are left out. */
export function lengthsOf<Sample extends Timed>({ blocks }: Batch<Sample>): readonly number[] {
  return blocks.map(({ samples }) => samples.length).filter((length) => length > 0);
}
