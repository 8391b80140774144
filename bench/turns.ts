// What it costs to watch a model that never rests: the time of its tokens while it is watched, beside that of the same tokens when it
// is not. The machine's speed changes within seconds by more than what is to be seen. So a model is loaded twice; one is watched and the
// other is not, while they take turns every few tokens. Then they change roles, and what sets one loading apart from the other cancels:
// two such watches are a round. What a watcher does at intervals it does at the watched model's tokens, as often in that one's own time: a
// timer's would fall to both. It is in few turns, and a median of turns would leave it out; so a round is the mean of its turns.

import { compare, geometricMean } from "../src/benchmark/ratio.ts";
import { summarise } from "../src/benchmark/statistics/summary.ts";
import { startProgress } from "../src/cli/progress.ts";
import type { Model } from "../src/index.ts";
import { durations, meanMs, stampTokens } from "./token-times.ts";

/** Tokens of a request, and how many of its first ones are left out. */
const [requestTokens, skippedTokens] = [13, 4];
const prompt = "Once upon a time";

/** What watches a model. */
export interface Watch {
  /** The model had a token, so many ms after the one before. */
  passed(ms: number): void;
  end(): void;
}

/** Calls back at intervals of the time that its model had: not at the same turns of each watch. */
export class OwnTimers {
  readonly #timers = new Set<{ readonly everyMs: number; readonly tick: () => void; sinceMs: number }>();

  /** @returns what ends it. */
  every(everyMs: number, tick: () => void): () => void {
    const timer = { everyMs, tick, sinceMs: Math.random() * everyMs };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }

  passed(ms: number): void {
    for (const timer of this.#timers) {
      timer.sinceMs += ms;
      if (timer.sinceMs < timer.everyMs) continue;
      timer.sinceMs %= timer.everyMs;
      timer.tick();
    }
  }
}

export interface TurnsOptions<Side> {
  /** Begins to watch one of them. */
  readonly watch: (side: Side) => Watch;
  readonly rounds: number;
  /** Turns of a watch, an even number, and how many of them come before those that are measured. */
  readonly turns: number;
  readonly turnsBefore?: number;
}

export interface WatchCost {
  readonly rounds: number;
  /** Tokens of a round that were measured of each. */
  readonly tokensPerRound: number;
  /** Ms a token: medians of rounds. */
  readonly plainMs: number;
  readonly watchedMs: number;
  /** Watched over plain, the median of rounds, and where 95 % of such medians lie. */
  readonly ratio: number;
  readonly interval: readonly [low: number, high: number] | null;
}

/** Tokens of each, the watched ones taken either first or last; ms. */
interface Turn {
  readonly plain: readonly number[];
  readonly watched: readonly number[];
}

/** Timers of the model that is not watched: to ask them shall cost the one what it costs the other. */
const idleTimers = new OwnTimers();
idleTimers.every(1000, () => {});

const unheard = (): void => {};
let passed: (ms: number) => void = unheard;
let stampsMs: number[] = [];
stampTokens((atMs) => {
  const beforeMs = stampsMs.at(-1);
  stampsMs.push(atMs);
  if (beforeMs !== undefined) passed(atMs - beforeMs);
});

/** How long each token of a request took, ms. */
async function tokensOf(model: Model, watch: Pick<Watch, "passed"> = idleTimers): Promise<number[]> {
  stampsMs = [];
  passed = (ms) => watch.passed(ms);
  try {
    for await (const _ of model.stream(prompt, { maxLength: requestTokens, temperature: 0, ignoreEos: true }));
  } finally {
    passed = unheard;
  }
  return durations(stampsMs.slice(skippedTokens));
}

/** @param sides the same model, loaded twice. */
export async function measureTurns<Side extends { readonly model: Model }>(
  [one, other]: readonly [Side, Side],
  { watch, rounds, turns, turnsBefore = 0 }: TurnsOptions<Side>,
): Promise<WatchCost> {
  const takeTurns = async (watched: Side, plain: Side): Promise<Turn[]> => {
    const watching = watch(watched);
    try {
      const taken: Turn[] = [];
      for (let turn = 0; turn < turns; turn++) {
        if (turn % 2 === 0) {
          const first = await tokensOf(watched.model, watching);
          taken.push({ watched: first, plain: await tokensOf(plain.model) });
        } else {
          const first = await tokensOf(plain.model);
          taken.push({ watched: await tokensOf(watched.model, watching), plain: first });
        }
      }
      return taken.slice(turnsBefore);
    } finally {
      watching.end();
    }
  };
  await takeTurns(one, other);
  const plain: number[] = [];
  const watched: number[] = [];
  const progress = startProgress({ label: "rounds", unit: "seconds", total: rounds });
  while (plain.length < rounds) {
    const taken = [...(await takeTurns(one, other)), ...(await takeTurns(other, one))];
    const { median } = summarise(taken.flatMap((turn) => [...turn.plain, ...turn.watched]));
    const mean = (kind: keyof Turn) => geometricMean(taken.map((turn) => meanMs(turn[kind], median)));
    plain.push(mean("plain"));
    watched.push(mean("watched"));
    progress.update(plain.length);
  }
  progress.done();
  const { ratio, interval } = compare(watched, plain, "less");
  return {
    rounds,
    tokensPerRound: 2 * (turns - turnsBefore) * (requestTokens - skippedTokens - 1),
    plainMs: summarise(plain).median,
    watchedMs: summarise(watched).median,
    ratio,
    interval,
  };
}
