// What `model.performanceMetrics` says: how fast a model answers, from what its engine counts anyway. Nothing has to watch for it.

import { checkInteger, checkKeys } from "../check.ts";
import { nativeMemory } from "../engine/allocations.ts";
import { type RequestMetrics, type Work, type WorkMeter, windowsMs } from "../engine/work.ts";
import type { ModelParts } from "../loaded-model.ts";

/** Options of `model.performanceMetrics`. */
export interface PerformanceMetricsOptions {
  /** Of how much time the metrics are, ms, 100 to 60,000, cut to tenths of a second. Default 60,000. */
  readonly windowMs?: number | undefined;
}

/** Sums over some time. */
export interface WorkTotals {
  /** Requests that ended, however they did: generations, texts embedded or scored. */
  readonly requests: number;
  /** Tokens generated. */
  readonly tokens: number;
  /** Texts embedded or scored. */
  readonly texts: number;
  /** Time in which a request was under way, ms. */
  readonly busyTime: number;
  /** The time that these are of, ms. */
  readonly spanMs: number;
}

/** How fast a model answers: over the window of time that was asked for, or as long as it has been loaded if that is less. */
export interface PerformanceMetrics extends WorkTotals {
  /** From when a request was handed to the engine until it ended, ms: the mean of those that ended. 0: none did. */
  readonly inferenceTime: number;
  /** Tokens generated over the time in which a request was under way, tokens/s. 0: none was generated. */
  readonly throughput: number;
  /** Texts embedded or scored over the same time, texts/s. */
  readonly textsPerSecond: number;
  /** From when a request was handed to the engine until its first token was there, ms: the mean of those that had it. Null: none had. */
  readonly firstTokenTime: number | null;
  /** Requests under way now. */
  readonly underWay: number;
  /**
   * Those of them that are more than fit into a step (`batchSize`), and so certainly wait. One that fits and waits for memory, since others
   * have the pages of keys and values that it needs (`resourcePool`), is not told apart from those that run, and does not count.
   */
  readonly queueDepth: number;
  /** Memory of the process that is resident now, bytes. */
  readonly residentBytes: number;
  /** Memory that the native library holds now, of all models, bytes: without address space that is only reserved. */
  readonly nativeBytes: number;
  /** The last 32 requests that ended, the latest last. */
  readonly recent: readonly RequestMetrics[];
  /** Since the model was loaded. */
  readonly total: WorkTotals;
}

/** @throws {OptionError} if an option is out of its bounds. */
export function performanceMetrics(
  { engine, library, batchSize }: Pick<ModelParts, "engine" | "library" | "batchSize">,
  options: PerformanceMetricsOptions,
): PerformanceMetrics {
  checkKeys("options", options, ["windowMs"]);
  const windowMs = checkInteger("windowMs", options.windowMs ?? windowsMs.max, windowsMs.min, windowsMs.max);
  const work = engine.work.last(windowMs);
  return {
    ...ratesOf(work),
    ...totalsOf(work),
    ...loadOf(engine.work, batchSize),
    residentBytes: process.memoryUsage.rss(),
    nativeBytes: nativeMemory(library).liveBytes,
    recent: engine.work.recent,
    total: totalsOf(engine.work.total()),
  };
}

/** Requests under way, and those that wait for a place in a step; that one waits for memory the engine does not say. */
export function loadOf({ underWay }: WorkMeter, batchSize: number): { underWay: number; queueDepth: number } {
  return { underWay, queueDepth: Math.max(0, underWay - batchSize) };
}

/** Means of requests, and rates over the time in which one was under way. */
function ratesOf(work: Work) {
  const { requests, requestNs, tokens, texts, firstTokens, firstTokenNs, busyNs } = work;
  const perSecond = (amount: number) => (busyNs > 0 ? (amount * 1e9) / busyNs : 0);
  return {
    inferenceTime: requests > 0 ? requestNs / requests / 1e6 : 0,
    throughput: perSecond(tokens),
    textsPerSecond: perSecond(texts),
    firstTokenTime: firstTokens > 0 ? firstTokenNs / firstTokens / 1e6 : null,
  };
}

function totalsOf({ requests, tokens, texts, busyNs, spanNs }: Work & { readonly spanNs: number }): WorkTotals {
  return { requests, tokens, texts, busyTime: busyNs / 1e6, spanMs: spanNs / 1e6 };
}
