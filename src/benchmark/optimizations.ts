// The optimisations whose impact is measured: one entry each. An entry says how it is switched (as an option of loading, on the
// loaded model, or with a request), what it is when it is on and off, and why it may make no difference.

import type { EngineSettings } from "../engine/settings.ts";
import { OptionError } from "../errors.ts";
import type { GenerateOptions } from "../generate/options.ts";
import { configureCache } from "../knobs/cache.ts";
import { setSimdOptimizationLevel } from "../knobs/simd.ts";
import { setThreadCount } from "../knobs/threads.ts";
import type { LoadOptions } from "../load-options.ts";
import type { ModelParts } from "../loaded-model.ts";
import { checkHeadWidths } from "../memory.ts";
import { buildGraph } from "../model/architectures/index.ts";

/** One that can be switched. Exactly one of `load`, `live` and `request` is there. */
export interface Optimization {
  readonly name: string;
  readonly title: string;
  /** What it is, switched on and off, in a word or two. */
  readonly states: (parts: ModelParts) => readonly [on: string, off: string];
  /** Why it makes no difference to this model on this machine; undefined: it may. */
  readonly problem: (parts: ModelParts) => string | undefined;
  /** Options of `loadModel`, of which no other entry has the same. */
  readonly load?: (on: boolean) => LoadOptions;
  /** On a loaded model, which was loaded with these settings. */
  readonly live?: (parts: ModelParts, on: boolean, loaded: EngineSettings) => Promise<void>;
  /** Options of `generate`. */
  readonly request?: (on: boolean) => GenerateOptions;
}

const embedsOnly = "the model only embeds, and draws no tokens";

/** In the order in which they are shown. */
export const optimizations: readonly Optimization[] = [
  {
    name: "simd",
    title: "SIMD level",
    states: ({ library, simd }) => [simd.level.name, library.levels[0]?.name ?? ""],
    problem: ({ simd }) => {
      if (simd.level.index === 0) return `${simd.level.name} is the only level in use here`;
      return simd.level.forced ? "TINYAI_SIMD forces a level" : undefined;
    },
    live: (parts, on) => setSimdOptimizationLevel(parts, on ? 3 : 0),
  },
  {
    name: "threads",
    title: "threads",
    states: ({ engine }) => [`${engine.threadCount}`, "1"],
    problem: ({ engine }) => (engine.threadCount === 1 ? "one thread computes here" : undefined),
    live: (parts, on, loaded) => setThreadCount(parts, on ? loaded.threadCount : 1),
  },
  {
    name: "prefetch",
    title: "prefetching",
    states: () => ["as tuned", "none"],
    problem: () => undefined,
    live: (parts, on) => configureCache(parts, { enablePrefetch: on }),
  },
  {
    name: "fusion",
    title: "fusion",
    states: () => ["one op for several", "an op for each"],
    problem: () => undefined,
    load: (fusion) => ({ fusion }),
  },
  {
    name: "prepared",
    title: "prepared copy",
    states: () => ["mapped", "packed at load"],
    problem: ({ preparing, path }) => {
      if (preparing.state.state === "none") return `it has none: ${preparing.state.reason}`;
      return preparing.state.path === path ? "the model is a prepared file itself" : undefined;
    },
    load: (prepared) => ({ prepared }),
  },
  {
    name: "kvCache",
    title: "keys and values",
    states: () => ["q8_0", "f16"],
    problem: ({ plan, file }) => {
      if (plan.kvGroups.length === 0) return "the model keeps no keys and values";
      try {
        checkHeadWidths(buildGraph(file), "Q8_0");
        return undefined;
      } catch (error) {
        if (error instanceof OptionError) return error.message;
        throw error;
      }
    },
    load: (on) => ({ kvCache: on ? "q8_0" : "f16" }),
  },
  {
    name: "screening",
    title: "head screening",
    states: () => ["on", "off"],
    problem: ({ run, plan }) => (plan.wholePrompts ? embedsOnly : (run().options.screeningProblem ?? undefined)),
    load: (screening) => ({ screening }),
  },
  {
    name: "speculation",
    title: "speculation",
    states: () => ["lookup", "none"],
    problem: ({ plan }) => (plan.wholePrompts ? embedsOnly : undefined),
    request: (on) => ({ speculation: on ? "lookup" : undefined }),
  },
];
