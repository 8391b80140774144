// What can be asked of a generation, its defaults and its bounds.

import { checkBoolean, checkInteger, checkKeys, checkNumber, describe } from "../check.ts";
import type { Lookup } from "../engine/engine.ts";
import { OptionError } from "../errors.ts";
import { sequencesMax, topMax } from "../plan/layout.ts";

/** Options of `generate` and `stream`. Draws apply in this order: repeat penalty, temperature, topK, topP, minP. */
export interface GenerateOptions {
  /** Tokens generated at most; 1 to the context's rest. Default 128, or the context's rest if that is less. */
  readonly maxLength?: number | undefined;
  /** Divides the logits; 0 takes the most likely token always. 0 to 100, default 0.7. */
  readonly temperature?: number | undefined;
  /** Only the k most likely tokens; 0 for all. Default 50. */
  readonly topK?: number | undefined;
  /** Only the most likely tokens that together reach this probability (Holtzman et al. 2020). Above 0 to 1, default 0.9. */
  readonly topP?: number | undefined;
  /** Only tokens at least this likely relative to the most likely one. 0 to 1, default 0. */
  readonly minP?: number | undefined;
  /** Logits of recent tokens are divided (positive) or multiplied (negative) by this (Keskar et al. 2019). 0.01 to 100, default 1. */
  readonly repeatPenalty?: number | undefined;
  /** Recent tokens that the penalty looks at. 0 to 65,536, default 64. */
  readonly repeatLast?: number | undefined;
  /** The same seed gives the same text, whatever runs beside it. Default random. */
  readonly seed?: number | bigint | undefined;
  /** Texts that end the generation; they are not part of the result. At most 16. */
  readonly stop?: string | readonly string[] | undefined;
  /** Whether the model's own end tokens are passed over. Default false. */
  readonly ignoreEos?: boolean | undefined;
  /** Sequences of this call that run in a step at most. 1 to the model's `batchSize`, which is the default. */
  readonly batchSize?: number | undefined;
  /** Log-probabilities of this many most likely tokens come with each token. 0 to 256, default 0. */
  readonly topLogprobs?: number | undefined;
  /** Whether `<bos>` and the like in the prompt are tokens instead of characters. Default false; chat templates always are. */
  readonly parseSpecial?: boolean | undefined;
  /**
   * Guesses tokens and checks several of them in one step, which reads the weights once. The result is the same, bit for bit;
   * text that repeats some of its prompt or of itself comes sooner, other text hardly later. Default none.
   */
  readonly speculation?: "lookup" | LookupOptions | undefined;
  /**
   * Whether the prompt may begin with keys and values that another sequence computed for the same first tokens, and others
   * with its own. The result is the same, bit for bit; its first token comes sooner. Default: as the model was loaded (true).
   */
  readonly cachePrompt?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Guessing by prompt lookup: where the last tokens stood before, what followed them is taken to follow again. */
export interface LookupOptions {
  /** Tokens guessed in a step at most. 1 to 31, default 8. How many they are follows how many came true. */
  readonly maxDraft?: number | undefined;
  /** Last tokens that must have stood before. 1 to 16, default 2. */
  readonly minMatch?: number | undefined;
}

/** Options with their defaults and within their bounds. */
export interface CheckedOptions {
  readonly maxLength: number | undefined;
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
  readonly repeatPenalty: number;
  readonly repeatLast: number;
  readonly seed: bigint;
  readonly stop: readonly string[];
  readonly ignoreEos: boolean;
  readonly batchSize: number;
  readonly topLogprobs: number;
  readonly parseSpecial: boolean;
  readonly speculation: Lookup | undefined;
  readonly cachePrompt: boolean;
  readonly signal: AbortSignal | undefined;
}

const known = [
  "maxLength",
  "temperature",
  "topK",
  "topP",
  "minP",
  "repeatPenalty",
  "repeatLast",
  "seed",
  "stop",
  "ignoreEos",
  "batchSize",
  "topLogprobs",
  "parseSpecial",
  "speculation",
  "cachePrompt",
  "signal",
] as const;

const stopsMax = 16;
const stopLengthMax = 1024;

/**
 * Checks options and fills in defaults. `batchMax` is what the model was loaded for.
 * @throws {OptionError} naming the option and its range.
 */
export function checkGenerateOptions(options: GenerateOptions, batchMax: number): CheckedOptions {
  checkKeys("options", options, known);
  // Defaults by destructuring: null is a value, and a wrong one.
  const {
    maxLength,
    temperature = 0.7,
    topK = 50,
    topP = 0.9,
    minP = 0,
    repeatPenalty = 1,
    repeatLast = 64,
    ignoreEos = false,
    batchSize = batchMax,
    topLogprobs = 0,
    parseSpecial = false,
    cachePrompt = true,
    signal,
  } = options;
  if (topP === 0) throw new OptionError("topP", "is 0, which leaves no token; a number above 0 up to 1 is expected");
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw new OptionError("signal", `is ${describe(signal)}; an AbortSignal is expected`);
  }
  return {
    maxLength: maxLength === undefined ? undefined : checkInteger("maxLength", maxLength, 1, 1 << 24),
    temperature: checkNumber("temperature", temperature, 0, 100),
    topK: checkInteger("topK", topK, 0, 1 << 24),
    topP: checkNumber("topP", topP, 0, 1),
    minP: checkNumber("minP", minP, 0, 1),
    repeatPenalty: checkNumber("repeatPenalty", repeatPenalty, 0.01, 100),
    repeatLast: checkInteger("repeatLast", repeatLast, 0, 65_536),
    seed: checkSeed(options.seed),
    stop: checkStop(options.stop),
    ignoreEos: checkBoolean("ignoreEos", ignoreEos),
    batchSize: checkInteger("batchSize", batchSize, 1, Math.min(batchMax, sequencesMax)),
    topLogprobs: checkInteger("topLogprobs", topLogprobs, 0, topMax),
    parseSpecial: checkBoolean("parseSpecial", parseSpecial),
    speculation: checkSpeculation(options.speculation),
    cachePrompt: checkBoolean("cachePrompt", cachePrompt),
    signal,
  };
}

function checkSpeculation(speculation: GenerateOptions["speculation"]): Lookup | undefined {
  if (speculation === undefined) return undefined;
  const lookup = speculation === "lookup" ? {} : speculation;
  if (typeof lookup !== "object" || lookup === null) {
    const problem = `is ${describe(lookup)}; "lookup" or an object with maxDraft and minMatch is expected`;
    throw new OptionError("speculation", problem);
  }
  checkKeys("speculation", lookup, ["maxDraft", "minMatch"]);
  const { maxDraft = 8, minMatch = 2 } = lookup;
  return {
    maxDraft: checkInteger("speculation.maxDraft", maxDraft, 1, 31),
    minMatch: checkInteger("speculation.minMatch", minMatch, 1, 16),
  };
}

function checkSeed(seed: unknown): bigint {
  if (seed === undefined) return crypto.getRandomValues(new BigUint64Array(1))[0] ?? 0n;
  if (typeof seed === "bigint") {
    if (seed < 0n || seed >= 1n << 64n)
      throw new OptionError("seed", `is ${seed}; a whole number from 0 to 2^64 − 1 is expected`);
    return seed;
  }
  return BigInt(checkInteger("seed", seed, 0, Number.MAX_SAFE_INTEGER));
}

function checkStop(stop: unknown): readonly string[] {
  if (stop === undefined) return [];
  const list: unknown[] = Array.isArray(stop) ? stop : [stop];
  if (list.length > stopsMax)
    throw new OptionError("stop", `has ${list.length} texts; at most ${stopsMax} are allowed`);
  return list.map((text, index) => {
    const option = Array.isArray(stop) ? `stop[${index}]` : "stop";
    if (typeof text !== "string") throw new OptionError(option, `is ${describe(text)}; a text is expected`);
    if (text.length === 0 || text.length > stopLengthMax) {
      throw new OptionError(option, `has ${text.length} characters; 1 to ${stopLengthMax} are allowed`);
    }
    return text;
  });
}
