// Options of `loadModel`, checked once at the edge.

import { checkBoolean, checkInteger, checkKeys, describe } from "./check.ts";
import { OptionError } from "./errors.ts";
import { type CacheConfiguration, checkCache } from "./knobs/cache.ts";
import { checkLimits, type LimitOptions } from "./knobs/limits.ts";
import { checkScheduler, type SchedulerOptions } from "./knobs/scheduler.ts";
import { checkSimd, type SimdOptions } from "./knobs/simd.ts";
import { checkThreads, type ThreadOptions } from "./knobs/threads.ts";
import type { KvDType } from "./plan/formats.ts";
import { sequencesMax } from "./plan/layout.ts";
import { chooseTuning, type TuningChoice } from "./tuning.ts";

/** Options of `loadModel`. */
export interface LoadOptions {
  readonly threads?: ThreadOptions | undefined;
  /** Which kernels compute: the level of instructions, and operations for which the narrowest is to do. */
  readonly simd?: SimdOptions | undefined;
  readonly limits?: LimitOptions | undefined;
  /** Positions a sequence may have. Default the model's own limit, or less where memory is short. */
  readonly contextLength?: number | undefined;
  /** Sequences that run in one step at most, 1 to 64. Default 16, or 64 for a model that only embeds. */
  readonly batchSize?: number | undefined;
  /**
   * Whether prompts that begin with tokens which another sequence has computed start from its keys and values, also after
   * that sequence has ended: the result is the same, its first token comes sooner. What ended sequences leave is kept in
   * memory that no running one needs, up to `maxBytes`; the longest unused gives way. Default true, with 256 MiB.
   */
  readonly prefixCache?: boolean | { readonly maxBytes?: number | undefined } | undefined;
  /**
   * How keys and values are kept: "f16", or "q8_0", which takes little more than half the memory and rounds them to 8 bits.
   * The latter needs heads whose width is a multiple of 32, as all but the oddest models have. Default "f16".
   */
  readonly kvCache?: "f16" | "q8_0" | undefined;
  /**
   * Whether the model's prepared copy in the cache is used, and made after the first opening. It opens in a fraction of the
   * time and is shared between processes. Default true.
   */
  readonly prepared?: boolean | undefined;
  /**
   * Whether kernels and threads work as was measured to be best, for this model (`tinyai tune --model`) or on this machine, or as a
   * table says, which is also what is done where nothing was measured. No result depends on it. Default "measured";
   * `TINYAI_TUNING=off` wins over it.
   */
  readonly tuning?: TuningChoice | undefined;
  /**
   * How kernels use the caches, where it is not to be as `tuning` says; `model.configureCacheOptimization` changes it later. No
   * result depends on it.
   */
  readonly cache?: CacheConfiguration | undefined;
  /**
   * Whether the output head is screened: most of its rows are ruled out by a copy with half the bytes, and only the others are
   * read. The tokens are the same, bit for bit; they come sooner where the vocabulary is large. It holds for draws that take the
   * most likely token (`temperature: 0`) or one of the `topK` most likely (1 to 256), in steps of few sequences; what their
   * tokens' log-probabilities are is then not known, unless `topLogprobs` asks for some. The copy takes memory
   * (`plan.screenBytes`) and is made while the model loads. Heads in Q8_0 and Q6_K have a screen. Default false.
   */
  readonly screening?: boolean | undefined;
  /**
   * Whether one op does what several would do after one another: additions in products and norms, and activations in the form that
   * products take written where they are made. Without it there are more ops, that wait for each other; results are the same, but for
   * the last bits where a norm is added (gemma3). It is there to be measured. Default true.
   */
  readonly fusion?: boolean | undefined;
  /** How much memory steps may take for how much speed. */
  readonly scheduler?: SchedulerOptions | undefined;
  /** Called while the model is being loaded, with bytes done and in all. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Names of all options of `loadModel`. */
export const loadKeys = [
  "threads",
  "simd",
  "limits",
  "contextLength",
  "batchSize",
  "prefixCache",
  "kvCache",
  "prepared",
  "tuning",
  "cache",
  "screening",
  "fusion",
  "scheduler",
  "onProgress",
  "signal",
] as const;

/** Options within their bounds; what was not given is what it is by default, or undefined where the model says. */
export type CheckedLoadOptions = ReturnType<typeof checkLoadOptions>;

/** @throws {OptionError} if an option is out of its bounds, or none that is known. */
export function checkLoadOptions(model: unknown, options: LoadOptions) {
  if (typeof model !== "string" || model.length === 0 || model.includes("\0")) {
    throw new OptionError("model", `is ${describe(model)}; a path or the name of a model is expected`);
  }
  checkKeys("options", options, loadKeys);
  const { prepared = true, screening, fusion = true, onProgress, signal } = options;
  if (onProgress !== undefined && typeof onProgress !== "function") {
    throw new OptionError("onProgress", `is ${describe(onProgress)}; a function is expected`);
  }
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw new OptionError("signal", `is ${describe(signal)}; an AbortSignal is expected`);
  }
  return {
    ...checkThreads(options.threads),
    limits: checkLimits(options.limits),
    simd: checkSimd(options.simd),
    /** Whether it was said how many; CPUs for each thread say so as well. */
    threadsGiven: options.threads?.count !== undefined || options.threads?.affinity !== undefined,
    contextLength:
      options.contextLength === undefined
        ? undefined
        : checkInteger("contextLength", options.contextLength, 16, 1 << 24),
    batchSize:
      options.batchSize === undefined ? undefined : checkInteger("batchSize", options.batchSize, 1, sequencesMax),
    keptBytesMax: checkPrefixCache(options.prefixCache),
    kvDtype: checkKvCache(options.kvCache),
    prepared: checkBoolean("prepared", prepared),
    tuning: chooseTuning(checkTuning(options.tuning)),
    cache: checkCache(options.cache),
    screening: screening === undefined ? undefined : checkBoolean("screening", screening),
    fusion: checkBoolean("fusion", fusion),
    scheduler: checkScheduler(options.scheduler),
  };
}

function checkTuning(option: unknown): TuningChoice | undefined {
  if (option === undefined || option === "measured" || option === "fixed") return option;
  throw new OptionError("tuning", `is ${describe(option)}; "measured" or "fixed" is expected`);
}

/** Bytes that may be kept; 0: nothing is; undefined: that is left open. */
function checkPrefixCache(option: LoadOptions["prefixCache"] = true): number | undefined {
  if (typeof option === "boolean") return option ? undefined : 0;
  if (typeof option !== "object" || option === null) {
    throw new OptionError("prefixCache", `is ${describe(option)}; true, false or an object with maxBytes is expected`);
  }
  checkKeys("prefixCache", option, ["maxBytes"]);
  const { maxBytes } = option;
  return maxBytes === undefined ? undefined : checkInteger("prefixCache.maxBytes", maxBytes, 1, 2 ** 44);
}

function checkKvCache(option: unknown): KvDType | undefined {
  if (option === undefined) return undefined;
  if (option === "f16") return "F16";
  if (option === "q8_0") return "Q8_0";
  throw new OptionError("kvCache", `is ${describe(option)}; "f16" or "q8_0" is expected`);
}
