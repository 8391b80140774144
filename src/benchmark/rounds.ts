// Several things measured in turns: each round takes one sample of each, in an order that is drawn anew, so that a slow moment of the
// machine is in all of them. It knows nothing of what is measured.

import { shuffled } from "./experiment.ts";

export interface RoundOptions {
  /** Rounds, if there is time for them. At least one. */
  readonly rounds: number;
  /** For all rounds together, ms: none begins that would probably end later, but for the first. */
  readonly timeMs: number;
  /** Ends it; rounds that were whole by then are kept. */
  readonly signal?: AbortSignal | undefined;
  /** Draws the order: at least 0, below 1. */
  readonly random: () => number;
  /** Called with what is done of it, 0 to 1, before each sample. */
  readonly onProgress?: ((share: number) => void) | undefined;
}

/** Measures one thing for about so long. Once the signal is aborted it ends early, and what it gives is not kept. */
export type Take<Sample> = (sliceMs: number) => Promise<Sample> | Sample;

/** Of the time, what is given to samples; the rest is for what is between them. */
const slicedPart = 0.85;

/**
 * @returns of each in its place, the samples of the rounds that were whole, all equally many.
 * @throws what a take throws, if the signal did not come before.
 */
export async function takeRounds<Sample>(takes: readonly Take<Sample>[], options: RoundOptions): Promise<Sample[][]> {
  const { rounds, timeMs, signal, random, onProgress } = options;
  const sliceMs = (timeMs * slicedPart) / rounds / takes.length;
  const samples: Sample[][] = takes.map(() => []);
  const beganMs = performance.now();
  for (let round = 0; round < rounds; round++) {
    const elapsedMs = performance.now() - beganMs;
    if (round > 0 && elapsedMs * (1 + 1 / round) > timeMs) break;
    const taken: (readonly [place: number, sample: Sample])[] = [];
    for (const [place, take] of shuffled([...takes.entries()], random)) {
      onProgress?.((round + taken.length / takes.length) / rounds);
      await eventLoopTurn();
      if (signal?.aborted) return samples;
      try {
        taken.push([place, await take(sliceMs)]);
      } catch (error) {
        // What ends the program may end what it measures with too.
        if (!signal?.aborted) throw error;
      }
      if (signal?.aborted) return samples;
    }
    for (const [place, sample] of taken) samples[place]?.push(sample);
  }
  onProgress?.(1);
  return samples;
}

/** Lets others have their turn: timers, and signals that end what is under way. */
export function eventLoopTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
