// Tries on one model what no result depends on: threads, prefetching, block sizes, and how many sequences share a step. Candidates take
// turns in random order at the same request, a prompt and the text after it; one takes the place of what was there before only if the
// turns show that it is faster. It keeps nothing.

import { cpu } from "../engine/cpu.ts";
import { candidatesFor, type Prefetch, type PrefetchKind, prefetchKind, prefetchKinds } from "../engine/tuning.ts";
import { defaultThreads } from "../knobs/threads.ts";
import { loadUnwatched } from "../load.ts";
import { type Model, type ModelParts, partsOf } from "../loaded-model.ts";
import { type ModelTuning, type ModelTuningKey, modelTuningKey } from "../model-tuning.ts";
import { findTuning } from "../tuning.ts";
import { roundsMin, shuffled, works } from "./experiment.ts";
import { compare, type Ratio } from "./ratio.ts";
import { summarise } from "./statistics/summary.ts";
import { batchRate, promptRate, textRate, writeText } from "./work.ts";

/** What a model is switched to. */
type State = Pick<ModelTuning, "threadCount" | "tuning">;

interface TunableKnob {
  readonly name: string;
  readonly title: string;
  /** What to try, `from` first, none twice; alone, there is nothing to try. */
  readonly candidates: (parts: ModelParts, from: State) => readonly State[];
  readonly describe: (state: State) => string;
}

/** A value that was tried. Ratios are its time over that of the value that was there before. */
export interface TriedValue {
  readonly value: string;
  /** Median of the turns, ms. */
  readonly requestMs: number;
  /** Null for the value that was there before. */
  readonly ratios: { readonly request: Ratio; readonly prompt: Ratio; readonly text: Ratio | null } | null;
  readonly chosen: boolean;
}

export interface TriedKnob {
  readonly name: string;
  readonly title: string;
  readonly rounds: number;
  /** The one that was there before comes first. */
  readonly values: readonly TriedValue[];
}

export interface TriedBatch {
  readonly size: number;
  /** Of all sequences together, the median of the turns. */
  readonly tokensPerSecond: number;
  /** Its tokens/s over those of the best. */
  readonly ratio: Ratio;
}

export interface TunedModel {
  readonly model: string;
  readonly level: string;
  readonly key: ModelTuningKey;
  /** Undefined: it was ended before all was tried. */
  readonly tuning: ModelTuning | undefined;
  readonly promptTokens: number;
  readonly generatedTokens: number;
  readonly knobs: readonly TriedKnob[];
  /** The model is loaded as before, with `batchSize` of `loadModel`: a larger one takes more memory. What is found is recommended. */
  readonly batches: readonly TriedBatch[];
  readonly left: readonly LeftKnob[];
}

export interface TuneModelOptions {
  /** How long it takes; more rounds than an interval needs are measured only within it. */
  readonly budgetMs: number;
  readonly signal?: AbortSignal | undefined;
  /** Called with what is done of it, 0 to 1. */
  readonly onProgress?: ((share: number) => void) | undefined;
}

/** Tokens/s this near to the best are as good. */
const batchSlack = 0.05;
const batchSizes = [1, 2, 4, 8, 16, 32] as const;
/** Of the budget, for batch sizes. */
const batchPart = 1 / 3;
const roundsMax = 40;

const threads: TunableKnob = {
  name: "threads",
  title: "threads",
  candidates: (_, from) => {
    const most = Math.min(cpu.cores, 64);
    const counts = [
      from.threadCount,
      most,
      most - 1,
      Math.ceil((3 * most) / 4),
      Math.ceil(most / 2),
      Math.ceil(most / 4),
      1,
    ];
    const tried = new Set(counts.filter((count) => count >= 1));
    return [...tried].map((threadCount) => ({ ...from, threadCount }));
  },
  describe: ({ threadCount }) => `${threadCount}`,
};

const prefetchTitles: Readonly<Record<PrefetchKind, string>> = {
  byte: "prefetching of 8-bit codes",
  packed: "prefetching of packed codes",
  float: "prefetching of float values",
};

const prefetches = prefetchKinds.map(
  (kind): TunableKnob => ({
    name: `prefetch.${kind}`,
    title: prefetchTitles[kind],
    candidates: ({ plan, library, engine }, from) => {
      const level = library.levels[engine.settings.levels.matmul]?.name ?? "";
      const read = plan.matrices.some(({ dtype }) => prefetchKind(dtype, level) === kind);
      return read ? candidatesFor(kind, from.tuning).map((tuning) => ({ ...from, tuning })) : [from];
    },
    describe: ({ tuning }) => describePrefetch(tuning[kind]),
  }),
);

const blockSize: TunableKnob = {
  name: "blockSize",
  title: "block size",
  candidates: (_, from) => {
    const { cacheLineSize } = from.tuning;
    const sizes = [from.tuning.blockSize, ...[1024, 2048, 4096, 8192, 16_384].map((bytes) => bytes / cacheLineSize)];
    return [...new Set(sizes)].map((size) => ({ ...from, tuning: { ...from.tuning, blockSize: size } }));
  },
  describe: ({ tuning }) => `${tuning.blockSize} lines of ${tuning.cacheLineSize} bytes`,
};

/** In the order in which they are tried: each begins from what the ones before have chosen. */
export const tunableKnobs: readonly TunableKnob[] = [threads, ...prefetches, blockSize];

/** A knob that is not tried, by its name as an option of `loadModel` or `generate` or as `tinyai tune` calls it, and why. */
export interface LeftKnob {
  readonly knob: string;
  readonly reason: string;
}

const leftKnobs: readonly LeftKnob[] = [
  { knob: "simd", reason: "levels differ in the last bits of results; the widest is in use unless another is forced" },
  { knob: "threads.affinity", reason: "what else runs on a CPU differs from time to time" },
  { knob: "cache.cacheLineSize", reason: "it is the machine's own" },
  { knob: "cache.enablePrefetch", reason: "each kind of weights is tried without prefetching" },
  { knob: "tokens that decode packed codes four at a time", reason: "`tinyai tune` finds how many, for all models" },
  { knob: "kvCache", reason: "q8_0 changes results a little, for less memory" },
  { knob: "prefixCache", reason: "what it brings depends on what prompts have in common" },
  {
    knob: "screening",
    reason: "log-probabilities are not known with it; `tinyai benchmark impact` shows what it brings",
  },
  { knob: "speculation", reason: "what it brings depends on the text; `tinyai benchmark impact` shows it for one" },
  {
    knob: "fusion",
    reason: "without it some results differ in the last bits; `tinyai benchmark impact` shows what it brings",
  },
  { knob: "prepared", reason: "it is for loading, and for sharing weights between processes" },
  { knob: "scheduler", reason: "how much memory there is for speed is not known here" },
  { knob: "contextLength", reason: "how long texts get is not known here" },
  { knob: "limits", reason: "what is left to others is not known here" },
];

function describePrefetch({ lines, distance }: Prefetch): string {
  if (lines === "none") return "none";
  return `${lines === "all" ? "all lines" : "a line in 16 rows by 32 columns"}, ${distance === 1 ? "a block" : `${distance} blocks`} ahead`;
}

/**
 * Tries every knob that can matter to the model, then batch sizes.
 * @throws the signal's reason if that came before anything was tried. @throws as `loadModel`.
 */
export async function tuneModel(source: string, options: TuneModelOptions): Promise<TunedModel> {
  const { budgetMs, signal, onProgress } = options;
  const startedMs = performance.now();
  const elapsed = () => performance.now() - startedMs;
  const threadCount = defaultThreads();
  await using model = await loadUnwatched(source, {
    threads: { count: threadCount },
    batchSize: Math.max(...batchSizes),
    prefixCache: false,
    signal,
  });
  const parts = partsOf(model);
  // The first opening makes the prepared copy and then measures the machine, which would disturb what is measured here.
  await parts.settle();
  const { library, engine, file, name } = parts;
  const level = engine.settings.levels.matmul;
  // What a tuning of this model that is there already says is no place to begin from.
  let state: State = { threadCount, tuning: findTuning(library, level, threadCount, "measured").tuning };
  const tasks = tunableKnobs.map((knob) => knob.candidates(parts, state).length).filter((count) => count > 1);
  const work = await chooseWork(model, state, (budgetMs * (1 - batchPart)) / (sum(tasks) * roundsMin));
  const knobs: TriedKnob[] = [];
  const batches: TriedBatch[] = [];
  let interrupted = false;
  let done = 0;
  /** Lets candidates take turns until their part of the budget is spent. */
  const takeTurns = async (
    count: number,
    endMs: number,
    take: (candidate: number) => Promise<void>,
  ): Promise<number> => {
    const order = Array.from({ length: count }, (_, index) => index);
    let rounds = 0;
    for (let lastMs = 0; rounds < roundsMax; rounds++) {
      if (rounds >= roundsMin && elapsed() + lastMs > endMs) break;
      const begin = elapsed();
      for (const candidate of shuffled(order, Math.random)) {
        signal?.throwIfAborted();
        await take(candidate);
        done = Math.max(done, Math.min(1, budgetMs > 0 ? elapsed() / budgetMs : 1));
        onProgress?.(done);
      }
      lastMs = elapsed() - begin;
    }
    return rounds;
  };

  try {
    let endMs = elapsed();
    const knobsMs = (budgetMs - endMs) * (1 - batchPart);
    for (const knob of tunableKnobs) {
      const candidates = knob.candidates(parts, state);
      if (candidates.length < 2) continue;
      endMs += (knobsMs * candidates.length) / sum(tasks);
      const times = candidates.map((): Times[] => []);
      const rounds = await takeTurns(candidates.length, endMs, async (index) => {
        times[index]?.push(await timesOf(model, candidates[index] ?? state, work, signal));
      });
      const { tried, chosen } = judge(candidates.map(knob.describe), times);
      knobs.push({ name: knob.name, title: knob.title, rounds, values: tried });
      state = candidates[chosen] ?? state;
    }
    await parts.engine.configure(state);
    const rates = batchSizes.map((): number[] => []);
    await takeTurns(batchSizes.length, budgetMs, async (index) => {
      rates[index]?.push(await batchRate(model, batchSizes[index] ?? 1, work.batchTokens, signal));
    });
    batches.push(...judgeBatches(rates));
  } catch (error) {
    if (!signal?.aborted || knobs.length === 0) throw error;
    interrupted = true;
  }
  const batchSize = batches.find(({ tokensPerSecond }) => tokensPerSecond >= (1 - batchSlack) * bestOf(batches))?.size;
  return {
    model: name,
    level: library.levels[level]?.name ?? "",
    key: modelTuningKey(library, level, file),
    tuning: interrupted || batchSize === undefined ? undefined : { ...state, batchSize },
    promptTokens: work.promptTokens,
    generatedTokens: work.generatedTokens,
    knobs,
    batches,
    left: leftKnobs,
  };
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

/** What the parts of a request took, ms. */
interface Times {
  readonly prompt: number;
  readonly text: number;
}

interface Work {
  readonly promptTokens: number;
  readonly generatedTokens: number;
  /** That each sequence of a batch has. */
  readonly batchTokens: number;
}

async function timesOf(model: Model, state: State, work: Work, signal?: AbortSignal): Promise<Times> {
  await partsOf(model).engine.configure(state);
  const prompt = (work.promptTokens * 1000) / (await promptRate(model, work.promptTokens, signal));
  if (work.generatedTokens === 0) return { prompt, text: 0 };
  const text = textRate(await writeText(model, work.generatedTokens, { signal }));
  return { prompt, text: (work.generatedTokens * 1000) / text };
}

/** The largest request that takes at most so long, as a first small one shows. */
async function chooseWork(model: Model, state: State, requestMs: number): Promise<Work> {
  const embeds = model.plan().wholePrompts;
  const within = ({ promptTokens, generatedTokens }: (typeof works)[number]): Work => ({
    promptTokens: Math.min(promptTokens, model.contextLength - 1),
    generatedTokens: embeds ? 0 : Math.min(generatedTokens, model.contextLength >> 1),
    batchTokens: Math.min(16, generatedTokens),
  });
  const smallest = within(works.at(-1) ?? { promptTokens: 16, generatedTokens: 4 });
  await timesOf(model, state, smallest);
  const { prompt, text } = await timesOf(model, state, smallest);
  const takes = (work: Work): number =>
    (prompt * work.promptTokens) / smallest.promptTokens +
    (smallest.generatedTokens > 0 ? (text * work.generatedTokens) / smallest.generatedTokens : 0);
  return works.map(within).find((work) => takes(work) <= requestMs) ?? smallest;
}

/**
 * Compares values by their times, turn by turn, with the first one, and chooses.
 * @returns which is chosen: of those that are shown to be faster the fastest, else the first.
 */
export function judge(
  values: readonly string[],
  times: readonly (readonly Times[])[],
): { readonly tried: readonly TriedValue[]; readonly chosen: number } {
  const requests = (index: number): number[] => (times[index] ?? []).map(({ prompt, text }) => prompt + text);
  const partsOfTurns = (index: number, part: keyof Times): number[] => (times[index] ?? []).map((each) => each[part]);
  const draws = (times[0] ?? []).every(({ text }) => text > 0);
  const ratios = values.map((_, index) => ({
    request: compare(requests(index), requests(0), "less"),
    prompt: compare(partsOfTurns(index, "prompt"), partsOfTurns(0, "prompt"), "less"),
    text: draws ? compare(partsOfTurns(index, "text"), partsOfTurns(0, "text"), "less") : null,
  }));
  let chosen = 0;
  for (const [index, { request }] of ratios.entries()) {
    if (request.verdict === "ahead" && request.ratio < (ratios[chosen]?.request.ratio ?? 1)) chosen = index;
  }
  const tried = values.map((value, index) => ({
    value,
    requestMs: summarise(requests(index)).median,
    ratios: index === 0 ? null : (ratios[index] ?? null),
    chosen: index === chosen,
  }));
  return { tried, chosen };
}

function bestOf(batches: readonly TriedBatch[]): number {
  return Math.max(...batches.map(({ tokensPerSecond }) => tokensPerSecond));
}

/** @param rates of each size, by turn. */
function judgeBatches(rates: readonly (readonly number[])[]): TriedBatch[] {
  const medians = rates.map((each) => summarise(each).median);
  const best = rates[medians.indexOf(Math.max(...medians))] ?? [];
  return batchSizes.map((size, index) => ({
    size,
    tokensPerSecond: medians[index] ?? Number.NaN,
    ratio: compare(rates[index] ?? [], best, "more"),
  }));
}
