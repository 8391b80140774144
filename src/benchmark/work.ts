// The work that models are measured with: a prompt of any tokens, whose time does not depend on which, and greedy text, whose tokens
// are the same whatever is switched. Speeds are a request's own.

import type { GenerateResult } from "../generate/generate.ts";
import type { GenerateOptions } from "../generate/options.ts";
import type { Model } from "../loaded-model.ts";

/** Every prompt is computed whole, and text goes on where the model would end it. */
const greedy = { temperature: 0, ignoreEos: true, cachePrompt: false } as const;
/** Tokens of the phrase that text goes on from. It stands twice, as in text that quotes itself. */
const phraseTokens = 8;
export const firstPromptTokens = 2 * phraseTokens;

/** Any tokens; the same for the same length, and others for another `step`. */
export function promptOf(model: Model, length: number, step = 7919): Uint32Array {
  const { vocabularySize, bosToken } = model.tokenizer;
  const prompt = Uint32Array.from({ length }, (_, index) => (index * step + 17) % vocabularySize);
  if (bosToken !== undefined) prompt[0] = bosToken;
  return prompt;
}

/** Reads a prompt, in tokens/s: to its first token, or to its vector if the model only embeds. */
export async function promptRate(model: Model, tokens: number, signal?: AbortSignal): Promise<number> {
  const prompt = promptOf(model, tokens);
  if (model.plan().wholePrompts) {
    const begin = performance.now();
    await model.embed(prompt, { signal });
    return (tokens * 1000) / (performance.now() - begin);
  }
  const { timings } = await model.generate(prompt, { ...greedy, maxLength: 1, signal });
  return timings.promptTokensPerSecond;
}

/** Generates greedy text, and so many tokens of it after the first. */
export function writeText(model: Model, tokens: number, options: GenerateOptions = {}): Promise<GenerateResult> {
  const phrase = promptOf(model, phraseTokens);
  const prompt = Uint32Array.from([...phrase, ...phrase]);
  return model.generate(prompt, { ...greedy, ...options, maxLength: tokens + 1 });
}

/**
 * Tokens/s of so many sequences together, each of which generates `tokens` after its first one; of a model that only embeds, those of so
 * many texts of `tokens`.
 */
export async function batchRate(
  model: Model,
  sequences: number,
  tokens: number,
  signal?: AbortSignal,
): Promise<number> {
  // Different sequences: each begins with another token.
  const prompts = Array.from({ length: sequences }, (_, index) => promptOf(model, tokens, 31 + 2 * index));
  if (model.plan().wholePrompts) {
    const begin = performance.now();
    await model.embed(prompts, { signal });
    return (sequences * tokens * 1000) / (performance.now() - begin);
  }
  const options = { ...greedy, maxLength: tokens + 1, batchSize: sequences, signal };
  const results = await model.generate(prompts, options);
  const first = Math.min(...results.map(({ timings }) => timings.firstTokenMs));
  const last = Math.max(...results.map(({ timings }) => timings.wallMs));
  return (sequences * tokens * 1000) / (last - first);
}

/** Tokens/s after the first one, as the caller had them. */
export function textRate({ tokens, timings }: GenerateResult): number {
  return ((tokens.length - 1) * 1000) / (timings.wallMs - timings.firstTokenMs);
}
