// What each of several optimisations contributes, found by switching it off alone and on alone: which configurations that takes, in
// which order they are measured, how large their work may be in the time there is, and what is said of their figures. It knows no
// model; who calls it loads and runs.

import type { ImpactFigure, ImpactMetric, ImpactWork } from "../../profiler/impact.ts";
import { compare } from "./ratio.ts";
import { summarise } from "./statistics/summary.ts";

/** Names of the optimisations that are on. */
export type Switches = ReadonlySet<string>;

/** Whether the others are on or off where one is switched. */
export type Group = "besideAll" | "alone";
const groups = ["besideAll", "alone"] as const satisfies readonly Group[];

/** What a configuration gave in a round. */
export type Figures = Readonly<Partial<Record<ImpactMetric, number>>>;

/** A run's figures, and the tokens it drew. */
export interface Run {
  readonly figures: Figures;
  readonly tokens: readonly number[];
}

/** What can be loaded with some optimisations on, and run with those that are switched while it is loaded. */
export interface Subject {
  /** Names of optimisations. */
  readonly names: readonly string[];
  /** Those that are chosen when it is loaded. */
  readonly atLoad: ReadonlySet<string>;
  /** Tokens of the prompt whose first token is waited for. */
  readonly firstPromptTokens: number;
  readonly largest: ImpactWork;
  readonly load: (on: Switches) => Promise<Loaded>;
}

export interface Loaded {
  readonly run: (on: Switches, work: ImpactWork) => Promise<Run>;
  /** What loading took and what it takes now; asked for after the runs. */
  readonly figures: () => Figures;
  readonly close: () => Promise<void>;
}

export interface ExperimentOptions {
  /** How long it may take; fewer rounds than an interval needs are not measured, even if they take longer. */
  readonly budgetMs: number;
  /** Ends it; what was measured until then is kept. */
  readonly signal?: AbortSignal | undefined;
  /** Called with what is done of it, 0 to 1. */
  readonly onProgress?: ((share: number) => void) | undefined;
  /** Draws the order: at least 0, below 1. Default Math.random. */
  readonly random?: (() => number) | undefined;
}

/** What an optimisation did, in each group. */
export interface Effect extends Readonly<Record<Group, readonly ImpactFigure[]>> {
  readonly name: string;
  readonly sameText: boolean | null;
}

export interface Experiment {
  readonly rounds: number;
  readonly interrupted: boolean;
  readonly works: Readonly<Record<Group, ImpactWork>>;
  readonly effects: readonly Effect[];
}

/** With fewer rounds no interval of 95 % can be given. */
export const roundsMin = 6;
const roundsMax = 60;
/** The work by which the speeds are first known. */
const firstWork: ImpactWork = { promptTokens: 8, generatedTokens: 4 };
/** What the work of a round may be, the largest first. */
export const works: readonly ImpactWork[] = [4, 3, 2, 1, 0].map((power) => ({
  promptTokens: 16 * 2 ** power,
  generatedTokens: 4 * 2 ** power,
}));

/** One set of switches, and where its figures belong. */
interface Configuration {
  readonly group: Group;
  readonly on: Switches;
  /** The one that differs from the group's others; undefined: the group's base. */
  readonly switched: string | undefined;
  /** By round. */
  readonly taken: (Run | undefined)[];
}

/**
 * Measures until the budget is spent, or the signal ends it.
 * @throws the signal's reason if it came before anything could be compared.
 */
export async function experiment(subject: Subject, options: ExperimentOptions): Promise<Experiment> {
  const { budgetMs, signal, random = Math.random } = options;
  const startedMs = performance.now();
  const elapsed = () => performance.now() - startedMs;
  const configurations = configurationsOf(subject.names);
  let rounds = 0;
  const takeRound = async (worksOf: Readonly<Record<Group, ImpactWork>>) => {
    for (const set of shuffled(bySwitchesAtLoad(configurations, subject.atLoad), random)) {
      signal?.throwIfAborted();
      const loaded = await subject.load(set.on);
      try {
        // The slow one first, whose work is the smaller: what it touches of memory the other's work touches as well.
        for (const group of groups.toReversed()) {
          const runs: (readonly [Configuration, Run])[] = [];
          const members = set.configurations.filter((configuration) => configuration.group === group);
          for (const configuration of shuffled(members, random)) {
            signal?.throwIfAborted();
            runs.push([configuration, await loaded.run(configuration.on, worksOf[group])]);
            options.onProgress?.(Math.min(budgetMs > 0 ? elapsed() / budgetMs : 1, rounds / roundsMin, 1));
          }
          const more = loaded.figures();
          for (const [{ taken }, { figures, tokens }] of runs)
            taken[rounds] = { figures: { ...figures, ...more }, tokens };
        }
      } finally {
        await loaded.close();
      }
    }
  };

  const smallest = within(firstWork, subject.largest);
  if (subject.names.length === 0) {
    return { rounds, interrupted: false, works: { besideAll: smallest, alone: smallest }, effects: [] };
  }
  let chosen: Record<Group, ImpactWork> = { besideAll: smallest, alone: smallest };
  let interrupted = false;
  let warm = false;
  try {
    // Warms up, and shows what there is time for.
    await takeRound(chosen);
    chosen = chooseWorks(subject, configurations, budgetMs - elapsed());
    for (const { taken } of configurations) taken.length = 0;
    warm = true;
    for (let lastMs = 0; rounds < roundsMax; rounds++) {
      if (rounds >= roundsMin && elapsed() + lastMs > budgetMs) break;
      const begin = elapsed();
      await takeRound(chosen);
      lastMs = elapsed() - begin;
    }
    options.onProgress?.(1);
  } catch (error) {
    if (!signal?.aborted) throw error;
    interrupted = true;
    // What was run to warm up says nothing.
    if (!warm) for (const { taken } of configurations) taken.length = 0;
  }
  const effects = subject.names.map((name) => effectOf(name, subject, configurations));
  if (interrupted && effects.every(({ besideAll, alone }) => besideAll.length + alone.length === 0))
    throw signal?.reason;
  return { rounds, interrupted, works: chosen, effects };
}

/** Each group's base, and what differs from it in one switch. */
function configurationsOf(names: readonly string[]): Configuration[] {
  return groups.flatMap((group) => {
    const base = group === "besideAll" ? names : [];
    const others = names.map((name) => ({
      group,
      on: new Set(group === "besideAll" ? names.filter((other) => other !== name) : [name]),
      switched: name,
      taken: [],
    }));
    return [{ group, on: new Set(base), switched: undefined, taken: [] }, ...others];
  });
}

/** Configurations that need not be loaded anew for each other. */
function bySwitchesAtLoad(configurations: readonly Configuration[], atLoad: ReadonlySet<string>) {
  const sets = new Map<string, { readonly on: Switches; readonly configurations: Configuration[] }>();
  for (const configuration of configurations) {
    const on = [...configuration.on].filter((name) => atLoad.has(name));
    const key = on.join(" ");
    const set = sets.get(key) ?? { on: new Set(on), configurations: [] };
    set.configurations.push(configuration);
    sets.set(key, set);
  }
  return [...sets.values()];
}

/** Fisher and Yates. */
export function shuffled<T>(values: readonly T[], random: () => number): T[] {
  const drawn = [...values];
  for (let last = drawn.length - 1; last > 0; last--) {
    const other = Math.floor(random() * (last + 1));
    [drawn[last], drawn[other]] = [drawn[other] as T, drawn[last] as T];
  }
  return drawn;
}

function within(work: ImpactWork, largest: ImpactWork): ImpactWork {
  return {
    promptTokens: Math.min(work.promptTokens, largest.promptTokens),
    generatedTokens: Math.min(work.generatedTokens, largest.generatedTokens),
  };
}

/** The largest work of each group with which as many rounds as an interval needs fit into half of the time that loading leaves. */
function chooseWorks(
  { firstPromptTokens, largest, atLoad }: Subject,
  configurations: readonly Configuration[],
  leftMs: number,
): Record<Group, ImpactWork> {
  const loads = bySwitchesAtLoad(configurations, atLoad).map((set) => set.configurations[0]?.taken[0]?.figures.loading);
  const loadingMs = loads.reduce<number>((sum, ms) => sum + (ms ?? 0), 0);
  const roundMs = leftMs / roundsMin - loadingMs;
  const chosen = groups.map((group) => {
    const runs = configurations.flatMap((each) => (each.group === group ? (each.taken[0]?.figures ?? []) : []));
    const takes = ({ promptTokens, generatedTokens }: ImpactWork): number =>
      runs.reduce((sum, { prompt = Number.POSITIVE_INFINITY, generation = Number.POSITIVE_INFINITY }) => {
        const read = firstPromptTokens + (promptTokens > firstPromptTokens ? promptTokens : 0);
        return sum + 1000 * (read / prompt + generatedTokens / generation);
      }, 0);
    const fitting = works.find((work) => takes(within(work, largest)) <= roundMs / 2) ?? works.at(-1) ?? firstWork;
    return [group, within(fitting, largest)] as const;
  });
  return Object.fromEntries(chosen) as Record<Group, ImpactWork>;
}

const units: Readonly<Record<ImpactMetric, ImpactFigure["unit"]>> = {
  prompt: "tokens/s",
  generation: "tokens/s",
  firstToken: "ms",
  loading: "ms",
  memory: "bytes",
};
const metrics = Object.keys(units) as readonly ImpactMetric[];
/** What an optimisation that is switched on a loaded model does not touch. */
const ofLoading: ReadonlySet<ImpactMetric> = new Set(["loading", "memory"]);

function effectOf(name: string, { atLoad }: Subject, configurations: readonly Configuration[]): Effect {
  let sameText: boolean | null = null;
  const compared = groups.map((group) => {
    const of = (switched: string | undefined) =>
      configurations.find((each) => each.group === group && each.switched === switched)?.taken ?? [];
    const [base, other] = [of(undefined), of(name)];
    const pairs = base.flatMap((run, round) => {
      const beside = other[round];
      if (!run || !beside) return [];
      return [group === "besideAll" ? { on: run, off: beside } : { on: beside, off: run }];
    });
    for (const { on, off } of pairs) {
      if (on.tokens.length > 0) sameText = sameText !== false && Bun.deepEquals(on.tokens, off.tokens);
    }
    const figures = metrics.flatMap((metric) => {
      if (ofLoading.has(metric) && !atLoad.has(name)) return [];
      return figureOf(
        metric,
        pairs.map(({ on, off }) => [on.figures[metric], off.figures[metric]]),
      );
    });
    return [group, figures] as const;
  });
  return { name, sameText, ...(Object.fromEntries(compared) as Record<Group, ImpactFigure[]>) };
}

/** One figure, or none where no pair has the metric. */
function figureOf(
  metric: ImpactMetric,
  pairs: readonly (readonly [on: number | undefined, off: number | undefined])[],
): ImpactFigure[] {
  const whole = pairs.filter((pair): pair is readonly [number, number] => pair.every((value = 0) => value > 0));
  if (whole.length === 0) return [];
  const [ons, offs] = [whole.map(([on]) => on), whole.map(([, off]) => off)];
  const unit = units[metric];
  const { ratio, interval, verdict } = compare(ons, offs, unit === "tokens/s" ? "more" : "less");
  return [
    {
      metric,
      unit,
      with: summarise(ons).median,
      without: summarise(offs).median,
      ratio,
      low: interval?.[0] ?? null,
      high: interval?.[1] ?? null,
      verdict,
      rounds: whole.length,
    },
  ];
}
