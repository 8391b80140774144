// What the parts of the benchmarks of memory and of the system have in common: how long each measures, and how it is told to end.

import type { BenchmarkContext } from "./registry.ts";
import type { Settings, Statistics } from "./results.ts";

/** How long and how often a part measures. */
export interface PartOptions {
  /** Samples of each figure, if there is time for them. */
  readonly rounds: number;
  /** How long it takes, about, ms. */
  readonly timeMs: number;
  /** Draws orders and places, and for each figure anew the resamples of its interval. */
  readonly seed: number;
  /** Ends it; what was measured until then is kept. */
  readonly signal?: AbortSignal | undefined;
  /** Called with what is done of it, 0 to 1. */
  readonly onProgress?: ((share: number) => void) | undefined;
}

/** What a part of the system's benchmark found. */
export interface Part<Figures> {
  /** Missing if nothing could be measured. */
  readonly figures?: Figures;
  readonly methodology: readonly string[];
  readonly warnings: readonly string[];
  /** CPU time of processes that it started and that have ended, ms. */
  readonly childrenMs?: number;
}

/** A part before it is measured: its share of the whole time, 0 to 1, and what is being done then. */
export interface PlannedPart {
  readonly share: number;
  readonly doing: string;
}

/** Samples of each figure where the settings do not say how many. */
export const roundsDefault = 10;
/** So many rounds fit into the time by default; of more, each has the same time where there is no limit. */
const roundsInTime = 100;

/**
 * What each part is told.
 * @param parts in the order in which they are measured; their shares add up to 1.
 * @param seconds for all of them together, where the settings do not say.
 */
export function divide<Name extends string>(
  { settings, signal, onProgress }: BenchmarkContext,
  parts: Readonly<Record<Name, PlannedPart>>,
  seconds: number,
): Record<Name, PartOptions> {
  const { iterations, time_s, seed } = settings;
  const rounds = iterations ?? roundsDefault;
  const wholeMs = 1000 * (time_s ?? seconds * Math.max(1, rounds / roundsInTime));
  let before = 0;
  const divided = Object.entries<PlannedPart>(parts).map(([name, { share, doing }]) => {
    const begin = before;
    before += share;
    const tell = (of: number) => onProgress?.(Math.min(1, begin + of * share), doing);
    return [name, { rounds, timeMs: wholeMs * share, seed, signal, onProgress: tell }] as const;
  });
  return Object.fromEntries(divided) as Record<Name, PartOptions>;
}

/** What is said of a part for which there was time for fewer samples than were asked for. @param doing what was being done. */
export function shortOfSamples(
  doing: string,
  figure: Statistics | undefined,
  { iterations }: Pick<Settings, "iterations">,
): string[] {
  const count = figure?.samples?.length ?? 0;
  if (iterations === null || count === 0 || count >= iterations) return [];
  return [`${doing}: ${count} of ${iterations} samples were taken: its part of the time was over (--time)`];
}
