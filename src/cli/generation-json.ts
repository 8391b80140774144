// A generation as JSON, as `tinyai generate --json` prints it and `tinyai pipe` answers.

import type { GenerateResult } from "../generate/generate.ts";

/** @param loadMs what loading the model took; left out if it was loaded before. */
export function generationJson(result: GenerateResult, loadMs?: number) {
  const { timings } = result;
  return {
    text: result.text,
    tokens: result.tokens,
    prompt_tokens: result.promptTokens,
    reused_tokens: result.reusedTokens,
    finish: result.finish,
    seed: result.seed.toString(),
    logprobs: result.logprobs,
    ...(result.top.length > 0
      ? { top: result.top.map((list) => list.map(({ token, logprob }) => [token, logprob])) }
      : {}),
    timings: {
      ...(loadMs === undefined ? {} : { load_ms: loadMs }),
      first_token_ms: timings.firstTokenMs,
      prompt_tokens_per_s: timings.promptTokensPerSecond,
      generated_tokens_per_s: timings.generatedTokensPerSecond,
      wall_ms: timings.wallMs,
    },
    ...(result.speculation ? { speculation: result.speculation } : {}),
  };
}
