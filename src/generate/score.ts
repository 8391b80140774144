// Log-probabilities of a text's own tokens: what evaluation harnesses and perplexity need.

import { checkBoolean, checkInteger, checkKeys, describe } from "../check.ts";
import { type Candidate, drawsNothing, type EngineRequest, type RequestHandle } from "../engine/engine.ts";
import { OptionError } from "../errors.ts";
import { none, topMax } from "../plan/layout.ts";
import type { Generator } from "./generate.ts";

/** Options of `score`. */
export interface ScoreOptions {
  /** The most likely tokens reported at each place; 0 to 256, default 0. */
  readonly top?: number | undefined;
  /** Feeds a token a step instead of the whole. The result is the same; it exists to show that. */
  readonly oneByOne?: boolean | undefined;
  /** Called with rows of logits (vocabulary values each) in order, as they are computed. */
  readonly onLogits?: ((rows: Float32Array, rowCount: number) => void) | undefined;
  /** Called with the positions computed so far. */
  readonly onProgress?: ((positions: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** How likely a text's own tokens are. Logarithms are natural ones. */
export interface ScoreResult {
  readonly tokens: readonly number[];
  /** `logprobs[i]` is of `tokens[i + 1]` after the tokens up to `i`: one fewer than tokens. */
  readonly logprobs: readonly number[];
  /** `top[i]`: the most likely tokens after the tokens up to `i`, best first; as many as tokens, if asked for. */
  readonly top: readonly (readonly Candidate[])[];
}

const known = ["top", "oneByOne", "onLogits", "onProgress", "signal"] as const;

/** Fills in defaults. @throws {OptionError} naming the option and its range. */
function checkScoreOptions(options: ScoreOptions) {
  checkKeys("options", options, known);
  const { top = 0, oneByOne = false, onLogits, onProgress, signal } = options;
  for (const [name, value] of Object.entries({ onLogits, onProgress })) {
    if (value !== undefined && typeof value !== "function") {
      throw new OptionError(name, `is ${describe(value)}; a function is expected`);
    }
  }
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw new OptionError("signal", `is ${describe(signal)}; an AbortSignal is expected`);
  }
  return {
    top: checkInteger("top", top, 0, topMax),
    oneByOne: checkBoolean("oneByOne", oneByOne),
    onLogits,
    onProgress,
    signal,
  };
}

/**
 * Scores tokens. An error that `onLogits` or `onProgress` throws ends the scoring with that error.
 * @throws {OptionError} if an option is out of bounds, or there are no tokens, more than the context has, or one outside the
 * vocabulary.
 */
export async function scoreTokens(
  generator: Generator,
  input: Uint32Array,
  options: ScoreOptions = {},
): Promise<ScoreResult> {
  const { engine, contextLength, tokenizer } = generator;
  // It may wait for its turn, and the caller may change what is theirs meanwhile.
  const tokens = new Uint32Array(input);
  const checked = checkScoreOptions(options);
  if (tokens.length === 0) throw new OptionError("text", "has no tokens; give at least one");
  if (tokens.length > contextLength) {
    throw new OptionError("text", `has ${tokens.length} tokens and the context ${contextLength} positions; shorten it`);
  }
  const outside = tokens.find((token) => token >= tokenizer.vocabularySize);
  if (outside !== undefined) {
    throw new OptionError("text", `has token ${outside}; the vocabulary has ${tokenizer.vocabularySize}`);
  }
  const { signal } = checked;
  signal?.throwIfAborted();
  const { promise, resolve, reject } = Promise.withResolvers<ScoreResult>();
  const logprobs: number[] = [];
  const top: (readonly Candidate[])[] = [];
  const call = (callback: () => void) => {
    try {
      callback();
    } catch (error) {
      reject(error);
      handle.cancel();
    }
  };
  const { requests } = engine;
  const submittedNs = requests ? engine.nowNs : 0;
  let lastRecordNs = submittedNs;
  const request: EngineRequest = {
    kind: "score",
    tokens,
    ...drawsNothing,
    topCount: checked.top,
    chunkRows: checked.oneByOne ? 1 : 0,
    dumpLogits: checked.onLogits !== undefined,
    sharesPrefix: generator.prefixCache,
  };
  const handle: RequestHandle = engine.submit(request, {
    onToken(token) {
      if (requests) lastRecordNs = engine.nowNs;
      if (token.token !== none && token.logprob !== undefined) logprobs.push(token.logprob);
      if (checked.top > 0) top.push(token.top);
    },
    onProgress: (positions) => call(() => checked.onProgress?.(positions)),
    onLogits: (rows, count) => call(() => checked.onLogits?.(rows, count)),
    onFinish(finish) {
      if (finish === "cancelled") reject(signal?.reason ?? new Error("cancelled"));
      else resolve({ tokens: Array.from(tokens), logprobs, top });
    },
    onError: reject,
  });
  const submission = { calledNs: submittedNs, tokenizedNs: submittedNs, submittedNs, promptTokens: tokens.length };
  requests?.submitted(handle.id, { ...submission, generates: false }, request);
  const abort = () => handle.cancel();
  signal?.addEventListener("abort", abort, { once: true });
  return promise.finally(() => {
    signal?.removeEventListener("abort", abort);
    const times = { firstTokenNs: null, lastRecordNs, endedNs: requests ? engine.nowNs : 0 };
    requests?.ended(handle.id, { ...times, reusedTokens: 0, generatedTokens: 0 });
  });
}
