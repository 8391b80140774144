// What each optimisation of a model contributes, as an experiment found it: the types of its result, and its words and tables.
// Plain data, JSON as it is; schema.json describes it. It measures nothing.

import type { Section, SectionTable } from "./sections.ts";
import { bytes, count, duration, grouped, plain } from "./words.ts";

/** What is compared with an optimisation and without it; memory is the engine's own, as far as it is resident. */
export type ImpactMetric = "prompt" | "generation" | "firstToken" | "loading" | "memory";

/** One comparison: the same work with the optimisation and without it, in turns. */
export interface ImpactFigure {
  readonly metric: ImpactMetric;
  /** More tokens/s are better, and less of all others. */
  readonly unit: "tokens/s" | "ms" | "bytes";
  /** Medians of the rounds. */
  readonly with: number;
  readonly without: number;
  /** With it over without it: the median of the rounds' ratios. */
  readonly ratio: number;
  /** The 95 % interval of that median; null with fewer than six rounds, which cannot carry one. */
  readonly low: number | null;
  readonly high: number | null;
  /** `draw`: no difference could be shown, the interval holds 1. `unknown`: too few rounds. */
  readonly verdict: "ahead" | "behind" | "draw" | "unknown";
  /** Rounds in which both were measured. */
  readonly rounds: number;
}

/** What an optimisation contributes. */
export interface OptimizationEffect {
  /** Such as `simd`. */
  readonly name: string;
  /** Such as `SIMD level`. */
  readonly title: string;
  /** What it was switched on to and off to, such as `avx512_vnni` and `scalar`. */
  readonly on: string;
  readonly off: string;
  /** Whether greedy text was the same with it and without; null: none was generated. */
  readonly sameText: boolean | null;
  /** All others on: what is lost when it alone is switched off. */
  readonly besideAll: readonly ImpactFigure[];
  /** All others off: what is gained when it alone is switched on. */
  readonly alone: readonly ImpactFigure[];
}

/** What was run each time. */
export interface ImpactWork {
  readonly promptTokens: number;
  readonly generatedTokens: number;
}

/** What every optimisation contributes to one model on one machine. */
export interface OptimizationImpact {
  /** ISO 8601. */
  readonly measuredAt: string;
  readonly model: string;
  /** Whole rounds, each with every configuration once in random order. */
  readonly rounds: number;
  /** Whether it was ended before it had its time. */
  readonly interrupted: boolean;
  readonly tookMs: number;
  /** The work where all others are on, and where they are off, which is slower. */
  readonly besideAll: ImpactWork;
  readonly alone: ImpactWork;
  readonly effects: readonly OptimizationEffect[];
  /** What could not make a difference to this model on this machine. */
  readonly withoutEffect: readonly { readonly name: string; readonly reason: string }[];
}

const metrics: Readonly<Record<ImpactMetric, string>> = {
  prompt: "prompt speed",
  generation: "generation speed",
  firstToken: "first token",
  loading: "loading",
  memory: "memory",
};

/** The section of an impact's report. */
export function impactSection(impact: OptimizationImpact): Section {
  const { effects, withoutEffect, besideAll, alone } = impact;
  const figures = effects.flatMap((effect) => [...effect.besideAll, ...effect.alone]);
  const judged = figures.filter(({ verdict }) => verdict !== "unknown");
  const work = ({ promptTokens, generatedTokens }: ImpactWork): string =>
    `a prompt of ${count(promptTokens, "token")}${generatedTokens > 0 ? ` and ${count(generatedTokens, "token")} of greedy text that goes on from a phrase said twice` : ""}`;
  const words = [
    `${count(impact.rounds, "round")} in ${duration(Math.round(impact.tookMs * 1e6))}${impact.interrupted ? ", interrupted" : ""}, each with every configuration once, in random order. Each figure is what it is with the optimisation over what it is without, of the rounds' pairs the median with its 95 % interval: above 1 is better for speeds, below 1 for times and memory.`,
    `Where the others are on, the work is ${work(besideAll)}; where they are off, ${work(alone)}.`,
    `–: no difference could be shown.${judged.length > 0 ? ` One in twenty intervals of 95 % shows one by chance; there are ${grouped(judged.length, 0)}.` : ""}`,
    ...withoutEffect.map(({ name, reason }) => `Not measured: ${plain(name)}: ${plain(reason)}.`),
  ];
  return {
    id: "impact",
    title: "Impact of optimisations",
    words,
    tables: [
      switchesTable(effects),
      ratioTable("Switched off alone, all others on", effects, (effect) => effect.besideAll),
      ratioTable("Switched on alone, all others off", effects, (effect) => effect.alone),
      figuresTable(effects),
    ],
    missing: null,
  };
}

function switchesTable(effects: readonly OptimizationEffect[]): SectionTable {
  const texts = (same: boolean | null): string => (same === null ? "–" : same ? "the same" : "another");
  return {
    title: "What was switched",
    columns: ["", "on", "off", "text with and without"],
    rows: effects.map(({ title, on, off, sameText }) => [plain(title), plain(on), plain(off), texts(sameText)]),
  };
}

function ratioTable(
  title: string,
  effects: readonly OptimizationEffect[],
  figuresOf: (effect: OptimizationEffect) => readonly ImpactFigure[],
): SectionTable {
  const present = (Object.keys(metrics) as ImpactMetric[]).filter((metric) =>
    effects.some((effect) => figuresOf(effect).some((figure) => figure.metric === metric)),
  );
  const rows = effects.map((effect) => [
    plain(effect.title),
    ...present.map((metric) => {
      const figure = figuresOf(effect).find((each) => each.metric === metric);
      return figure === undefined ? "" : ratioOf(figure);
    }),
  ]);
  return { title, columns: ["", ...present.map((metric) => metrics[metric])], rows };
}

/** "1.25 (1.20 to 1.31)"; a ratio that the data do not carry is not shown. */
export function ratioOf({ ratio, low, high, verdict }: ImpactFigure): string {
  if (low === null || high === null) return `${ratio.toFixed(2)} (few rounds)`;
  const shown = verdict === "draw" ? "–" : ratio.toFixed(2);
  return `${shown} (${low.toFixed(2)} to ${high.toFixed(2)})`;
}

function figuresTable(effects: readonly OptimizationEffect[]): SectionTable {
  const cells = (effect: OptimizationEffect, others: string, figure: ImpactFigure): string[] => [
    plain(effect.title),
    others,
    metrics[figure.metric],
    amountOf(figure.with, figure.unit),
    amountOf(figure.without, figure.unit),
    ratioOf(figure),
    grouped(figure.rounds, 0),
  ];
  return {
    title: "Figures",
    columns: ["", "others", "what", "with", "without", "ratio", "rounds"],
    rows: effects.flatMap((effect) => [
      ...effect.besideAll.map((figure) => cells(effect, "on", figure)),
      ...effect.alone.map((figure) => cells(effect, "off", figure)),
    ]),
  };
}

function amountOf(value: number, unit: ImpactFigure["unit"]): string {
  if (unit === "bytes") return bytes(Math.round(value));
  if (unit === "ms") return duration(Math.round(value * 1e6));
  return `${grouped(value, value < 100 ? 1 : 0)} tokens/s`;
}

/** What each optimisation contributes beside all others, a line each. */
export function impactLines(impact: OptimizationImpact): string[] {
  return impact.effects.map(({ title, besideAll }) => {
    const shown = besideAll.filter(({ verdict }) => verdict === "ahead" || verdict === "behind");
    const figures = shown.map((figure) => `${metrics[figure.metric]} ${ratioOf(figure)}`);
    return `${plain(title)}: ${figures.length > 0 ? figures.join(", ") : "no difference could be shown"}.`;
  });
}
