// Options of `loadModel`, checked once at the edge.

import { checkBoolean, checkInteger, checkKeys, describe } from "./check.ts";
import { cpu, usableCpus } from "./engine/cpu.ts";
import { OptionError } from "./errors.ts";
import type { KvDType } from "./plan/formats.ts";
import { sequencesMax } from "./plan/layout.ts";
import { chooseTuning, type TuningChoice } from "./tuning.ts";

/** Options of `loadModel`. */
export interface LoadOptions {
  readonly threads?:
    | {
        /** Threads that compute, at most the CPUs this process may use, which is the default. */
        readonly count?: number | undefined;
        /** The CPU of each thread; threads stay where the system puts them if not given. */
        readonly affinity?: readonly number[] | undefined;
      }
    | undefined;
  readonly simd?:
    | {
        /** 0 scalar, 1 128-bit, 2 256-bit, 3 the widest (default). `TINYAI_SIMD` wins over it. */
        readonly level?: number | undefined;
      }
    | undefined;
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
   * Whether kernels work as was measured to be best on this machine, or as a table says, which is also what is done where
   * nothing was measured. No result depends on it. Default "measured"; `TINYAI_TUNING=off` wins over it.
   */
  readonly tuning?: TuningChoice | undefined;
  /**
   * Whether the output head is screened: most of its rows are ruled out by a copy with half the bytes, and only the others are
   * read. The tokens are the same, bit for bit; they come sooner where the vocabulary is large. It holds for draws that take the
   * most likely token (`temperature: 0`) or one of the `topK` most likely (1 to 256), in steps of few sequences; what their
   * tokens' log-probabilities are is then not known, unless `topLogprobs` asks for some. The copy takes memory
   * (`plan.screenBytes`) and is made while the model loads. Heads in Q8_0 and Q6_K have a screen. Default false.
   */
  readonly screening?: boolean | undefined;
  /** Called while the model is being loaded, with bytes done and in all. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

const keptBytesDefault = 256 * 2 ** 20;

const loadKeys = [
  "threads",
  "simd",
  "contextLength",
  "batchSize",
  "prefixCache",
  "kvCache",
  "prepared",
  "tuning",
  "screening",
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
  const { threads = {}, simd = {}, prepared = true, screening = false, onProgress, signal } = options;
  if (onProgress !== undefined && typeof onProgress !== "function") {
    throw new OptionError("onProgress", `is ${describe(onProgress)}; a function is expected`);
  }
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw new OptionError("signal", `is ${describe(signal)}; an AbortSignal is expected`);
  }
  checkKeys("threads", threads, ["count", "affinity"]);
  checkKeys("simd", simd, ["level"]);
  const threadCount =
    threads.count === undefined
      ? Math.min(cpu.cores, 64)
      : checkInteger("threads.count", threads.count, 1, Math.min(cpu.cores, 64));
  const affinity = checkAffinity(threads.affinity);
  if (affinity && affinity.length !== threadCount) {
    throw new OptionError(
      "threads.affinity",
      `names ${affinity.length} CPUs for ${threadCount} threads; name one for each`,
    );
  }
  return {
    threadCount,
    affinity,
    simdLevel: simd.level === undefined ? undefined : checkInteger("simd.level", simd.level, 0, 3),
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
    screening: checkBoolean("screening", screening),
  };
}

function checkTuning(option: unknown): TuningChoice | undefined {
  if (option === undefined || option === "measured" || option === "fixed") return option;
  throw new OptionError("tuning", `is ${describe(option)}; "measured" or "fixed" is expected`);
}

/** Bytes that may be kept; 0: nothing is. */
function checkPrefixCache(option: LoadOptions["prefixCache"] = true): number {
  if (typeof option === "boolean") return option ? keptBytesDefault : 0;
  if (typeof option !== "object" || option === null) {
    throw new OptionError("prefixCache", `is ${describe(option)}; true, false or an object with maxBytes is expected`);
  }
  checkKeys("prefixCache", option, ["maxBytes"]);
  return checkInteger("prefixCache.maxBytes", option.maxBytes ?? keptBytesDefault, 1, 2 ** 44);
}

function checkKvCache(option: unknown = "f16"): KvDType {
  if (option === "f16") return "F16";
  if (option === "q8_0") return "Q8_0";
  throw new OptionError("kvCache", `is ${describe(option)}; "f16" or "q8_0" is expected`);
}

function checkAffinity(affinity: unknown): readonly number[] | undefined {
  if (affinity === undefined) return undefined;
  if (!Array.isArray(affinity)) {
    throw new OptionError("threads.affinity", `is ${describe(affinity)}; a list of CPU numbers is expected`);
  }
  const usable = usableCpus();
  return affinity.map((core: unknown, index) => {
    const option = `threads.affinity[${index}]`;
    const checked = checkInteger(option, core, 0, 1023);
    if (usable && !usable.includes(checked)) {
      throw new OptionError(option, `is ${checked}; this process may use the CPUs ${usable.join(", ")}`);
    }
    return checked;
  });
}
