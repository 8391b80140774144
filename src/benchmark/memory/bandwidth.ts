// How fast this machine reads, writes and copies at each level of its caches and in memory, by the library's own threads: every figure
// anew, in turns, with its spread. What the last level holds is as it was measured once, which is kept.

import { measurableBytes, openBandwidth, type Traffic } from "../../engine/bandwidth.ts";
import type { Library } from "../../engine/library.ts";
import { EngineError } from "../../errors.ts";
import { machineRoofs } from "../../roofs.ts";
import { availableMemory } from "../machine/memory.ts";
import type { PartOptions } from "../part.ts";
import type { BandwidthFigures } from "../results.ts";
import { eventLoopTurn, takeRounds } from "../rounds.ts";
import { statisticsOf } from "../statistics/describe.ts";
import { seededRandom } from "../statistics/random.ts";

export interface BandwidthOptions extends PartOptions {
  readonly library: Library;
  /** Index of the instruction-set level in `library.levels`. */
  readonly level: number;
  readonly threadCount: number;
  /** Memory that is free, bytes. Default: as the system says, without a limit where it does not. */
  readonly freeBytes?: number | undefined;
}

const traffics = ["read", "write", "copy"] as const satisfies readonly Traffic[];
/** A run is this long where nothing interrupts it: long beside starting it, short beside a slice. */
const runMs = 5;
/** Of memory, what all threads go over together: far more than the last level holds, however much that is. */
const memoryBytesMin = 256 << 20;
const lastLevels = 4;
/** Of what is free, what is taken at most. */
const freePart = 0.5;

/**
 * @returns an empty list if the signal came before every figure had a sample.
 * @throws {EngineError} if memory or threads are refused, or too little memory is free.
 */
export async function measureBandwidth(options: BandwidthOptions): Promise<readonly BandwidthFigures[]> {
  const { library, level, threadCount, seed, signal } = options;
  const freeBytes = options.freeBytes ?? availableMemory()?.available ?? Number.POSITIVE_INFINITY;
  const giveUp = () => signal?.aborted ?? false;
  const roofs = await machineRoofs(library, level, threadCount, giveUp);
  if (!roofs) return [];
  const memoryBytes = Math.max(memoryBytesMin, lastLevels * roofs.lastLevelBytes) / threadCount;
  const levels = roofs.bandwidth.map(({ name, workingBytes, ...roof }) => ({
    name,
    workingBytes: name === "memory" ? Math.min(workingBytes, measurableBytes(memoryBytes)) : workingBytes,
    roof,
  }));
  const bytesMax = Math.max(...levels.map(({ workingBytes }) => workingBytes));
  const neededBytes = (threadCount * bytesMax) / freePart;
  if (neededBytes > freeBytes) {
    const [needed, free] = [neededBytes, freeBytes].map((bytes) => Math.ceil(bytes / 1e6));
    throw new EngineError(`bandwidth cannot be measured: only ${free} MB of memory are free; free ${needed} MB`);
  }
  const meter = openBandwidth(library, { level, threadCount, bytesMax });
  try {
    const cases = levels.flatMap(({ roof, ...level }) =>
      traffics.map((traffic) => ({ ...level, traffic, roof: roof[traffic] })),
    );
    const takes = cases.map(({ name, workingBytes, traffic, roof }) => async (sliceMs: number) => {
      // What comes first brings a cache's bytes to where they stay. Memory's are far more than caches hold.
      if (name !== "memory") meter.measure(traffic, workingBytes, workingBytes * threadCount);
      // GB/s are 10^6 bytes a millisecond.
      const runBytes = roof * 1e6 * runMs;
      let runs = 0;
      let spentMs = 0;
      do {
        spentMs += runBytes / meter.measure(traffic, workingBytes, runBytes) / 1e6;
        runs++;
        await eventLoopTurn();
      } while (spentMs < sliceMs && !signal?.aborted);
      return (runs * runBytes) / spentMs / 1e6;
    });
    const samples = await takeRounds(takes, { ...options, random: seededRandom(seed) });
    if (samples[0]?.length === 0) return [];
    const figuresOf = (name: string) =>
      cases.flatMap(({ name: of, traffic }, place) =>
        of === name ? [[traffic, statisticsOf(samples[place] ?? [], seededRandom(seed))] as const] : [],
      );
    return levels.map(({ name, workingBytes }) => ({
      name,
      threads: threadCount,
      working_bytes: workingBytes,
      ...Object.fromEntries(figuresOf(name)),
    }));
  } finally {
    meter.close();
  }
}
