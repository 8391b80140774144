// A loaded model that is measured: one iteration is so many requests at once, each with a prompt of its own, through the calls that
// programs use. What an iteration takes is timed around the call; whether it is done often enough is decided elsewhere.

import { OptionError } from "../errors.ts";
import { loadUnwatched } from "../load.ts";
import { type Model, partsOf } from "../loaded-model.ts";
import { modelDetails } from "./model-details.ts";
import type { ModelDetails, Settings } from "./results.ts";
import { simdLevel } from "./simd-level.ts";
import { promptOf } from "./work.ts";

/** What one iteration gave. */
export interface IterationSample {
  /** From asking until every request has its whole answer, ms. */
  readonly latencyMs: number;
  /** From asking until its first token, ms, of each request; empty for a model that only embeds. */
  readonly firstTokensMs: readonly number[];
  /** Tokens generated, or texts embedded, of all requests together. */
  readonly made: number;
  /** Of the process after the iteration, in memory. */
  readonly residentBytes: number;
}

/** A model that can be measured. */
export interface Subject {
  readonly model: Model;
  readonly details: ModelDetails;
  /** Whether it makes vectors and no texts. */
  readonly embeds: boolean;
  /**
   * Runs so many requests at once.
   * @throws the signal's reason once that is aborted.
   */
  readonly iterate: (batchSize: number) => Promise<IterationSample>;
  readonly close: () => Promise<void>;
}

/** What a subject needs to know of a benchmark's settings. */
export type SubjectSettings = Pick<Settings, "batch_sizes" | "prompt_tokens" | "generated_tokens" | "threads" | "simd">;

export interface SubjectOptions {
  readonly signal?: AbortSignal | undefined;
  /** What is known of the model from an earlier loading: its file may be too large to be read whole again. */
  readonly details?: ModelDetails | undefined;
  /** Called with what is done of loading, 0 to 1. */
  readonly onProgress?: ((share: number) => void) | undefined;
}

/** Requests that a model is loaded for at least, which is what it is loaded for by default. */
const batchSizeDefault = 16;

/** What of the settings a model is loaded with. */
type LoadSettings = Pick<SubjectSettings, "threads" | "simd" | "batch_sizes">;

/**
 * Loads a model once: as `loadModel` does by default, but for what the settings say.
 * @param prepared whether its prepared copy is used, and made if there is none.
 * @throws {OptionError} if there is no such model, or no such level.
 */
export async function loadOnce(
  model: string,
  { threads, simd, batch_sizes }: LoadSettings,
  { signal, onProgress }: SubjectOptions = {},
  prepared = true,
): Promise<Model> {
  const level = simd === null ? undefined : await simdLevel(simd);
  const batchSize = Math.max(...batch_sizes);
  return loadUnwatched(model, {
    ...(threads === null ? {} : { threads: { count: threads } }),
    ...(level === undefined ? {} : { simd: { level } }),
    // Models that only embed have more by default, which is kept.
    ...(batchSize > batchSizeDefault ? { batchSize } : {}),
    prepared,
    signal,
    onProgress: (done, total) => onProgress?.(total > 0 ? done / total : 1),
  });
}

/**
 * Loads a model to be measured. If it is opened for the first time, its prepared copy is made and the machine tuned before, as every
 * later opening finds it.
 * @throws {OptionError} if there is no such model, or no such level.
 */
export async function loadForBenchmark(
  model: string,
  settings: LoadSettings,
  options: SubjectOptions = {},
): Promise<Model> {
  const open = () => loadOnce(model, settings, options);
  const loaded = await open();
  if (loaded.preparation.state !== "making") return loaded;
  await loaded.close();
  const again = await open();
  // Where the copy cannot be kept, it is made again, and nothing shall be measured meanwhile.
  await partsOf(again).settle();
  return again;
}

/**
 * Opens a model as a subject, which closes it.
 * @throws {OptionError} if there is no such model, or it has no room for the settings' prompts.
 */
export async function openSubject(
  model: string,
  settings: SubjectSettings,
  options: SubjectOptions = {},
): Promise<Subject> {
  const loaded = await loadForBenchmark(model, settings, options);
  try {
    return subjectOf(loaded, options.details ?? (await modelDetails(loaded)), settings, options.signal);
  } catch (error) {
    await loaded.close();
    throw error;
  }
}

function subjectOf(
  model: Model,
  details: ModelDetails,
  settings: SubjectSettings,
  signal: AbortSignal | undefined,
): Subject {
  const embeds = partsOf(model).plan.wholePrompts;
  const generated = embeds ? 0 : settings.generated_tokens;
  checkRoom(model, settings.prompt_tokens, generated, embeds);
  // Different prompts, none of which begins as another does; the same ones in every iteration, which is the same work then.
  const prompts = Array.from({ length: Math.max(...settings.batch_sizes) }, (_, index) =>
    promptOf(model, settings.prompt_tokens, 7919 + 2 * index),
  );
  const batches = new Map(settings.batch_sizes.map((size) => [size, prompts.slice(0, size)]));
  const generate = {
    maxLength: generated,
    temperature: 0,
    ignoreEos: true,
    cachePrompt: false,
    signal,
  } as const;
  return {
    model,
    details,
    embeds,
    async iterate(batchSize) {
      const batch = batches.get(batchSize) ?? prompts.slice(0, batchSize);
      const beganMs = performance.now();
      if (embeds) {
        await model.embed(batch, { signal });
        const latencyMs = wholeNs(performance.now() - beganMs);
        return { latencyMs, firstTokensMs: [], made: batchSize, residentBytes: process.memoryUsage.rss() };
      }
      const answers = await model.generate(batch, generate);
      const latencyMs = wholeNs(performance.now() - beganMs);
      return {
        latencyMs,
        firstTokensMs: answers.map(({ timings }) => wholeNs(timings.firstTokenMs)),
        made: answers.reduce((sum, { tokens }) => sum + tokens.length, 0),
        residentBytes: process.memoryUsage.rss(),
      };
    },
    close: () => model.close(),
  };
}

/** What a request of an iteration is, in words. */
export function requestOf(
  embeds: boolean,
  { prompt_tokens, generated_tokens }: Pick<SubjectSettings, "prompt_tokens" | "generated_tokens">,
): string {
  return embeds
    ? `the vector of a text of ${prompt_tokens} tokens`
    : `a prompt of ${prompt_tokens} tokens and ${generated_tokens} tokens after it, each the most likely, past end tokens`;
}

/** The clock tells no more, and a difference of its times has digits that mean nothing. */
function wholeNs(ms: number): number {
  return Math.round(ms * 1e6) / 1e6;
}

/** @throws {OptionError} if a request does not fit. */
function checkRoom(model: Model, promptTokens: number, generatedTokens: number, embeds: boolean): void {
  const room = embeds ? (model.embeddingLength ?? model.contextLength) : model.contextLength;
  if (!embeds && generatedTokens < 1) {
    throw new OptionError("--generated-tokens", `is ${generatedTokens}; at least 1 is expected of a model of texts`);
  }
  if (promptTokens + generatedTokens <= room) return;
  const asked = embeds ? `${promptTokens} tokens` : `${promptTokens} tokens and ${generatedTokens} generated`;
  throw new OptionError("--prompt-tokens", `asks for ${asked}, but the model has room for ${room}`);
}
