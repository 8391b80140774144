// What a loaded model keeps for reuse and how it stands: pages of keys and values, the arena, places for requests, sessions. All of
// it is set aside when the model is loaded, so that a request allocates nothing, and given back when it is closed.

import type { PageCounts } from "../engine/engine.ts";
import type { ModelParts } from "../loaded-model.ts";
import { slotsMax } from "../plan/layout.ts";

/** Pages of a group of layers, which keep their keys and values in the same pages. */
export interface PageGroup extends PageCounts {
  /** Positions that its layers look back; 0: all. */
  readonly window: number;
  readonly layers: readonly number[];
  readonly pageBytes: number;
}

/** What a loaded model keeps for reuse. */
export interface ResourcePool {
  /** Pages of keys and values, 64 positions each, of all groups together. */
  readonly pages: PageCounts;
  readonly pageGroups: readonly PageGroup[];
  /** Memory that pages cost: all that were ever taken, also those that are empty again. */
  readonly pageBytes: number;
  /** Memory set aside for activations: one arena for all steps, which costs as much as the largest step so far has written. */
  readonly arenaBytes: number;
  /** Requests that have not ended. Those beyond the model's `batchSize`, or for which there are no pages, wait. */
  readonly requests: number;
  /** Requests that the engine has a place for; more wait in JavaScript. */
  readonly requestsMax: number;
  /** Sessions that are in use: neither closed nor out of everybody's reach. */
  readonly sessions: number;
}

/** @throws {EngineError} if the model is closed. */
export function resourcePool({ engine, plan, sessions }: ModelParts): ResourcePool {
  const pageGroups = engine.pages.map((counts, index): PageGroup => {
    const { window = 0, layers = [], pageBytes = 0 } = plan.kvGroups[index] ?? {};
    return { ...counts, window, layers, pageBytes };
  });
  const sum = (of: (group: PageGroup) => number) => pageGroups.reduce((total, group) => total + of(group), 0);
  return {
    pages: {
      total: sum(({ total }) => total),
      inUse: sum(({ inUse }) => inUse),
      kept: sum(({ kept }) => kept),
      empty: sum(({ empty }) => empty),
      touched: sum(({ touched }) => touched),
    },
    pageGroups,
    pageBytes: sum(({ touched, pageBytes }) => touched * pageBytes),
    arenaBytes: plan.arenaBytes,
    requests: engine.pending,
    requestsMax: slotsMax,
    sessions: sessions.count,
  };
}
