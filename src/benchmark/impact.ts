// The impact of optimisations on a real model: loads it as each configuration says, gives all of them the same work, and describes
// what the experiment found.

import type { OptimizationImpact } from "../../profiler/impact.ts";
import { describe } from "../check.ts";
import { OptionError } from "../errors.ts";
import type { GenerateOptions } from "../generate/options.ts";
import type { Limits } from "../knobs/limits.ts";
import { loadUnwatched } from "../load.ts";
import type { LoadOptions } from "../load-options.ts";
import { type ModelParts, partsOf } from "../loaded-model.ts";
import { type ExperimentOptions, experiment, type Loaded, type Subject, type Switches } from "./experiment.ts";
import { type Optimization, optimizations } from "./optimizations.ts";
import { firstPromptTokens, promptRate, textRate, writeText } from "./work.ts";

const promptTokensMax = 256;
const generatedTokensMax = 64;

export interface MeasureOptions extends ExperimentOptions {
  /** Names of those to switch; undefined: all. */
  readonly only?: readonly string[] | undefined;
  /** That hold for every model that is loaded for it; undefined: none. */
  readonly limits?: Limits | undefined;
}

/** @throws {OptionError} if `only` names something else, or there is no such model. */
export async function measureImpact(model: string, options: MeasureOptions): Promise<OptimizationImpact> {
  const startedMs = performance.now();
  const chosen = choose(options.only);
  const { limits, signal } = options;
  const common: LoadOptions = { limits, signal };
  // As it is by default: that makes the prepared copy and tunes the machine, before anything is measured.
  const { parts, problems, measured, descriptions } = await choosable(model, chosen, common);
  const subject = subjectOf(model, parts, measured, common);
  const { rounds, interrupted, works, effects } = await experiment(subject, options);
  return {
    measuredAt: new Date().toISOString(),
    model: parts.name,
    rounds,
    interrupted,
    tookMs: performance.now() - startedMs,
    ...works,
    effects: effects.map(({ name, sameText, besideAll, alone }) => {
      const { title = name, states: [on, off] = ["", ""] } = descriptions.get(name) ?? {};
      return { name, title, on, off, sameText, besideAll, alone };
    }),
    withoutEffect: problems.flatMap(({ optimization: { name }, reason }) =>
      reason === undefined ? [] : [{ name, reason }],
    ),
  };
}

/** Which of those can make a difference, as the model says once it is wholly there. */
async function choosable(model: string, chosen: readonly Optimization[], common: LoadOptions) {
  await using whole = await loadUnwatched(model, common);
  const parts = partsOf(whole);
  // Whether there is a prepared copy is known once it has been made, or was not.
  await parts.settle();
  const problems = chosen.map((optimization) => ({ optimization, reason: optimization.problem(parts) }));
  const measured = problems.flatMap(({ optimization, reason }) => (reason === undefined ? [optimization] : []));
  const descriptions = new Map(measured.map(({ name, title, states }) => [name, { title, states: states(parts) }]));
  return { parts, problems, measured, descriptions };
}

function choose(only: readonly string[] | undefined): readonly Optimization[] {
  if (only === undefined) return optimizations;
  const names = optimizations.map(({ name }) => name);
  for (const name of only) {
    if (!names.includes(name)) throw new OptionError("only", `names ${describe(name)}; there are ${names.join(", ")}`);
  }
  return optimizations.filter(({ name }) => only.includes(name));
}

/** A model whose optimisations are switched, of which one is loaded at a time. */
function subjectOf(
  model: string,
  { plan, contextLength }: ModelParts,
  switched: readonly Optimization[],
  common: LoadOptions,
): Subject {
  return {
    names: switched.map(({ name }) => name),
    atLoad: new Set(switched.flatMap(({ name, load }) => (load ? [name] : []))),
    firstPromptTokens: plan.wholePrompts ? 0 : firstPromptTokens,
    largest: {
      promptTokens: Math.min(promptTokensMax, contextLength - 1),
      generatedTokens: plan.wholePrompts ? 0 : Math.min(generatedTokensMax, contextLength - firstPromptTokens - 1),
    },
    load: (on) => loadSwitched(model, switched, on, common),
  };
}

/**
 * @param on those that are switched by options of loading; the others are as they are by default.
 * @param common options of loading that none of them switches.
 */
async function loadSwitched(
  source: string,
  switched: readonly Optimization[],
  on: Switches,
  common: LoadOptions,
): Promise<Loaded> {
  const options = switched.map(({ name, load }): LoadOptions => load?.(on.has(name)) ?? {});
  const { signal } = common;
  const model = await loadUnwatched(source, Object.assign({ ...common, prefixCache: false }, ...options));
  const parts = partsOf(model);
  const loaded = parts.engine.settings;
  const embeds = parts.plan.wholePrompts;
  return {
    async run(runOn, { promptTokens, generatedTokens }) {
      for (const { name, live } of switched) await live?.(parts, runOn.has(name), loaded);
      if (embeds) return { figures: { prompt: await promptRate(model, promptTokens, signal) }, tokens: [] };
      const requests = switched.map(({ name, request }): GenerateOptions => request?.(runOn.has(name)) ?? {});
      const text = await writeText(model, generatedTokens, Object.assign({ signal }, ...requests));
      const { firstTokenMs, promptTokensPerSecond } = text.timings;
      // The text's own prompt is a short one; where time is short, it stands for both.
      const longer = promptTokens > firstPromptTokens;
      const prompt = longer ? await promptRate(model, promptTokens, signal) : promptTokensPerSecond;
      return { figures: { prompt, generation: textRate(text), firstToken: firstTokenMs }, tokens: text.tokens };
    },
    figures() {
      const resident = Object.values(parts.engine.memory().resident);
      return { loading: model.loadMs, memory: resident.reduce((sum, bytes) => sum + bytes, 0) };
    },
    close: () => model.close(),
  };
}
