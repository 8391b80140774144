// Log-probabilities of a text's own tokens: what evaluation harnesses and perplexity need.

import type { Candidate } from "../engine/engine.ts";
import { OptionError } from "../errors.ts";
import { none } from "../plan/layout.ts";
import type { Generator } from "./generate.ts";

export interface ScoreOptions {
  /** The most likely tokens reported at each place; 0 to 256, default 0. */
  readonly top?: number | undefined;
  /** Feeds a token a step instead of the whole. The result is the same; it exists to show that. */
  readonly oneByOne?: boolean | undefined;
  /** Called with rows of logits (vocabulary values each) in order, as they are computed. */
  readonly onLogits?: ((rows: Float32Array, rowCount: number) => void) | undefined;
  readonly onProgress?: ((positions: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface ScoreResult {
  readonly tokens: readonly number[];
  /** `logprobs[i]` is of `tokens[i + 1]` after the tokens up to `i`: one fewer than tokens. */
  readonly logprobs: readonly number[];
  /** `top[i]`: the most likely tokens after the tokens up to `i`, best first; as many as tokens, if asked for. */
  readonly top: readonly (readonly Candidate[])[];
}

/** Scores tokens. @throws {OptionError} if there are none or more than the context has. */
export function scoreTokens(
  generator: Generator,
  tokens: Uint32Array,
  options: ScoreOptions = {},
): Promise<ScoreResult> {
  const { engine, contextLength } = generator;
  if (tokens.length === 0) throw new OptionError("text", "has no tokens; give at least one");
  if (tokens.length > contextLength) {
    throw new OptionError(
      "text",
      `has ${tokens.length} tokens and the context ${contextLength} positions; shorten it or load with a larger context`,
    );
  }
  options.signal?.throwIfAborted();
  const { promise, resolve, reject } = Promise.withResolvers<ScoreResult>();
  const logprobs: number[] = [];
  const top: (readonly Candidate[])[] = [];
  const handle = engine.submit(
    {
      kind: "score",
      tokens,
      generateMax: 0,
      seed: 0n,
      temperature: 0,
      topP: 1,
      minP: 0,
      topK: 0,
      repeatPenalty: 1,
      repeatLast: 0,
      stopTokens: [],
      topCount: options.top ?? 0,
      chunkRows: options.oneByOne ? 1 : 0,
      dumpLogits: options.onLogits !== undefined,
    },
    {
      onToken(token) {
        if (token.token !== none) logprobs.push(token.logprob);
        if ((options.top ?? 0) > 0) top.push(token.top);
      },
      onProgress: (positions) => options.onProgress?.(positions),
      onLogits: (rows, count) => options.onLogits?.(rows, count),
      onFinish(finish) {
        if (finish === "cancelled") reject(options.signal?.reason ?? new Error("cancelled"));
        else resolve({ tokens: Array.from(tokens), logprobs, top });
      },
      onError: reject,
    },
  );
  const abort = () => handle.cancel();
  options.signal?.addEventListener("abort", abort, { once: true });
  return promise.finally(() => options.signal?.removeEventListener("abort", abort));
}
