// The experiment that switches optimisations off alone and on alone, on a subject whose speeds are known: what it measures, in which
// order, and what it says of it.

import { describe, expect, test } from "bun:test";
import { type Effect, type Experiment, experiment, type Subject } from "../../src/benchmark/experiment.ts";

/** A repeatable series of values in [0, 1). */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 48271) % 0x7fffffff;
    return state / 0x7fffffff;
  };
}

/** What each optimisation multiplies the speed by; `layout` halves the memory as well, and is chosen when it is loaded. */
const factors: Readonly<Record<string, number>> = { layout: 3, wide: 4, nothing: 1, worse: 0.5 };
const names = Object.keys(factors);

interface Log {
  readonly loads: string[];
  readonly runs: string[];
}

/** A subject that notes what is done with it. Its speeds change from round to round, and within a round not at all. */
function knownSubject(log: Log, changes: Partial<Subject> = {}): Subject {
  let loads = 0;
  return {
    names,
    atLoad: new Set(["layout"]),
    firstPromptTokens: 16,
    largest: { promptTokens: 256, generatedTokens: 64 },
    async load(loadedWith) {
      // There are two sets of options of loading.
      const moment = 1 + (Math.floor(loads++ / 2) % 5);
      log.loads.push([...loadedWith].join());
      return {
        async run(on, work) {
          log.runs.push(`${[...on].sort().join()} ${work.promptTokens} ${work.generatedTokens}`);
          const speed = [...on].reduce((product, name) => product * (factors[name] ?? 1), moment * 1e6);
          const text = [...on].includes("worse") ? [7, 8] : [7, 7];
          return { figures: { prompt: speed, generation: speed, firstToken: 1e6 / speed }, tokens: text };
        },
        figures: () => ({ loading: moment, memory: (loadedWith.has("layout") ? 1000 : 2000) * moment }),
        close: async () => {},
      };
    },
    ...changes,
  };
}

function figureOf(effect: Effect | undefined, group: "besideAll" | "alone", metric: string) {
  return effect?.[group].find((figure) => figure.metric === metric);
}

async function measured(log: Log = { loads: [], runs: [] }): Promise<Experiment> {
  return experiment(knownSubject(log), { budgetMs: 0, random: random(3) });
}

describe("an experiment", () => {
  test("finds what each optimisation multiplies, beside all others and alone, whatever the rounds' speed", async () => {
    const { effects, rounds } = await measured();
    expect(rounds).toBe(6);
    expect(effects.map(({ name }) => name)).toEqual(names);
    for (const effect of effects) {
      for (const group of ["besideAll", "alone"] as const) {
        const factor = factors[effect.name] ?? 0;
        const speed = figureOf(effect, group, "generation");
        expect(speed?.ratio).toBeCloseTo(factor, 9);
        expect(speed?.low).toBeCloseTo(factor, 9);
        expect(speed?.verdict).toBe(factor > 1 ? "ahead" : factor < 1 ? "behind" : "draw");
        // Less time is better.
        expect(figureOf(effect, group, "firstToken")?.ratio).toBeCloseTo(1 / factor, 9);
        expect(figureOf(effect, group, "firstToken")?.verdict).toBe(speed?.verdict ?? "unknown");
      }
    }
  });

  test("tells loading and memory of those alone that are chosen when it is loaded", async () => {
    const { effects } = await measured();
    for (const effect of effects) {
      const memory = figureOf(effect, "besideAll", "memory");
      if (effect.name !== "layout") expect(memory).toBeUndefined();
      else expect(memory).toMatchObject({ ratio: 0.5, verdict: "ahead", unit: "bytes", rounds: 6 });
    }
  });

  test("says whose text is another", async () => {
    const { effects } = await measured();
    expect(effects.filter(({ sameText }) => sameText === false).map(({ name }) => name)).toEqual(["worse"]);
  });

  test("loads once in a round for each set of options, in an order that is drawn, and runs all configurations", async () => {
    const log: Log = { loads: [], runs: [] };
    await measured(log);
    // A round to warm up, and six: with the layout and without it.
    expect(log.loads).toHaveLength(2 * 7);
    expect(new Set(log.loads.filter((_, index) => index % 2 === 0)).size).toBe(2);
    const configurations = 2 * (1 + names.length);
    expect(log.runs).toHaveLength(7 * configurations);
    const rounds = Array.from({ length: 7 }, (_, round) =>
      log.runs.slice(round * configurations, (round + 1) * configurations),
    );
    const all = [...names].sort().join();
    for (const runs of rounds) {
      expect(runs.filter((run) => run.startsWith(`${all} `))).toHaveLength(1);
      for (const name of names) {
        const others = names.filter((other) => other !== name).sort();
        expect(runs.some((run) => run.startsWith(`${name} `))).toBe(true);
        expect(runs.some((run) => run.startsWith(`${others.join()} `))).toBe(true);
      }
    }
    expect(new Set(rounds.slice(1).map((runs) => runs.join(";"))).size).toBe(6);
  });

  test("gives slow configurations less work than fast ones, and all of a group the same", async () => {
    const log: Log = { loads: [], runs: [] };
    const subject = knownSubject(log, { largest: { promptTokens: 200, generatedTokens: 40 } });
    // With all on it is six times as fast as with all off: 100 s hold the largest work of the former.
    const slow = async (on: ReadonlySet<string>) => {
      const loaded = await subject.load(on);
      return {
        ...loaded,
        async run(runOn: ReadonlySet<string>, work: { promptTokens: number; generatedTokens: number }) {
          const { figures, tokens } = await loaded.run(runOn, work);
          const slower = runOn.size > 2 ? 1e-3 : 1e-6;
          return {
            figures: { prompt: (figures.prompt ?? 0) * slower, generation: (figures.generation ?? 0) * slower },
            tokens,
          };
        },
      };
    };
    // Ends after the rounds that are needed: the clock has hardly moved, so rounds are bounded by the signal.
    const controller = new AbortController();
    let loads = 0;
    const { works, interrupted } = await experiment(
      {
        ...subject,
        load: (on) => {
          if (++loads > 6) controller.abort();
          return slow(on);
        },
      },
      { budgetMs: 1e6, random: random(5), signal: controller.signal },
    );
    expect(interrupted).toBe(true);
    expect(works.besideAll).toEqual({ promptTokens: 200, generatedTokens: 40 });
    expect(works.alone.promptTokens).toBeLessThan(200);
  });

  test("that is interrupted tells what it has, and throws the reason where it has nothing", async () => {
    const controller = new AbortController();
    let loads = 0;
    const stopping = (at: number): Subject => {
      const subject = knownSubject({ loads: [], runs: [] });
      return {
        ...subject,
        load: (on) => {
          if (++loads === at) controller.abort(new Error("enough"));
          controller.signal.throwIfAborted();
          return subject.load(on);
        },
      };
    };
    const options = { budgetMs: 0, random: random(9), signal: controller.signal };
    const { rounds, interrupted, effects } = await experiment(stopping(7), options);
    expect([rounds, interrupted]).toEqual([2, true]);
    const few = figureOf(effects[0], "alone", "prompt");
    expect(few).toMatchObject({ rounds: 2, low: null, high: null, verdict: "unknown" });
    loads = 0;
    await expect(experiment(stopping(1), options)).rejects.toThrow("enough");
  });

  test("tells how far it is, and ends at 1", async () => {
    const shares: number[] = [];
    await experiment(knownSubject({ loads: [], runs: [] }), {
      budgetMs: 0,
      random: random(1),
      onProgress: (share) => shares.push(share),
    });
    expect(shares.at(-1)).toBe(1);
    expect(shares[0]).toBe(0);
    expect(shares).toEqual([...shares].sort((a, b) => a - b));
  });

  test("lets its subject's own errors through", async () => {
    const subject = knownSubject({ loads: [], runs: [] });
    const broken = { ...subject, load: () => Promise.reject(new Error("there is no such model")) };
    await expect(experiment(broken, { budgetMs: 0 })).rejects.toThrow("there is no such model");
  });
});
