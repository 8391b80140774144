// How well the caches serve a model that works, for who watches it: from the CPU's counters as they go, or where the system gives none,
// from a simulated step like the last one that ran, which is made while the engine rests.

import { simulateCaches } from "../../profiler/cache.ts";
import { type CountedStep, NO_DRAW } from "../../profiler/memory.ts";
import type { CacheGeometry, CacheStatistics } from "../../profiler/report.ts";
import type { FinishedStep } from "../../profiler/steps.ts";
import type { TracedDraw } from "../../profiler/tracing.ts";
import { findCaches } from "../engine/caches.ts";
import {
  type HardwareCounters,
  type HardwareCounts,
  hardwareCacheStatistics,
  openHardwareCounters,
} from "../engine/counters.ts";
import type { EngineRequest } from "../engine/engine.ts";
import type { Tracer } from "../engine/tracer.ts";
import { OptionError } from "../errors.ts";
import { findRoofs } from "../roofs.ts";
import { drawOf, type RecordedModel } from "./recording.ts";

/** What came of the reads that cache levels were asked for. */
export type CacheUsage = Pick<CacheStatistics, "source" | "description" | "hitRate" | "levels">;

/** What a monitor tells of its model, and asks. */
export interface LiveCaches {
  submitted(id: number, request: EngineRequest): void;
  step(step: FinishedStep): void;
  /** Of the time since the last call, or of the step that was simulated last; null: of none yet. */
  take(): CacheUsage | null;
  close(): void;
}

/**
 * A step is simulated again after so long, if others have run, and after so many times as long as the last took: 1 to 2 s of this thread for
 * a gigabyte of weights.
 */
const againMs = 60_000;
const againTimes = 100;
/** While the engine works, it is looked again after so long whether it rests. */
const restMs = 50;
/** Requests whose ways of drawing are remembered until their steps are looked at. */
const drawsMax = 1 << 12;

/**
 * Counters, else the simulator.
 * @param seesSteps whether it will be told of steps, which the simulator needs.
 * @throws {OptionError} if there are neither.
 */
export function openLiveCaches(model: RecordedModel, seesSteps: boolean): LiveCaches {
  const counters = openHardwareCounters(model.library, model.engine.threadIds);
  if (!("reason" in counters)) return new CountedCaches(model, counters);
  if (seesSteps) return new SimulatedCaches(model, counters.reason);
  const problem = `is true, but ${counters.reason}, and steps that are not recorded cannot be simulated`;
  throw new OptionError("cacheUsage", `${problem}; let executionTime be true`);
}

class CountedCaches implements LiveCaches {
  readonly #model: RecordedModel;
  #counters: HardwareCounters | undefined;
  #threadIds: readonly number[];
  #before: HardwareCounts;
  readonly #geometry: readonly CacheGeometry[];

  constructor(model: RecordedModel, counters: HardwareCounters) {
    this.#model = model;
    this.#counters = counters;
    this.#threadIds = model.engine.threadIds;
    this.#before = counters.read();
    this.#geometry = findCaches({ threads: model.engine.threadCount }).levels;
  }

  submitted(): void {}

  step(): void {}

  take(): CacheUsage | null {
    if (this.#counters === undefined) return null;
    const { engine, library } = this.#model;
    const now = this.#counters.read();
    const counts = since(this.#before, now);
    this.#before = now;
    // Threads may have ended and others begun, which are counted from now on.
    const { threadIds } = engine;
    if (threadIds.join() !== this.#threadIds.join()) {
      this.#counters.close();
      const opened = openHardwareCounters(library, threadIds);
      this.#counters = "reason" in opened ? undefined : opened;
      this.#threadIds = threadIds;
      if (this.#counters) this.#before = this.#counters.read();
    }
    return hardwareCacheStatistics(counts, this.#geometry, 0);
  }

  close(): void {
    this.#counters?.close();
    this.#counters = undefined;
  }
}

/** What was counted between two readings. */
function since(before: HardwareCounts, now: HardwareCounts): HardwareCounts {
  const names = [
    "cycles",
    "instructions",
    "l1Reads",
    "l1Misses",
    "lastLevelReads",
    "lastLevelMisses",
    "tlbMisses",
  ] as const;
  const differences = names.map((name) => {
    const [earlier, later] = [before[name], now[name]];
    return [name, earlier === null || later === null ? null : Math.max(0, later - earlier)] as const;
  });
  return { ...now, ...Object.fromEntries(differences) };
}

class SimulatedCaches implements LiveCaches {
  readonly #model: RecordedModel;
  readonly #reason: string;
  readonly #draws = new Map<number, TracedDraw>();
  /** The last step of generation, or of prompts where nothing was generated. */
  #last: (CountedStep & { readonly phase: FinishedStep["phase"] }) | undefined;
  /** Whether there was a step since the one that was simulated. */
  #fresh = false;
  #usage: CacheUsage | null = null;
  /** Not before this time. */
  #againMs = Number.NEGATIVE_INFINITY;
  #tracer: Tracer | undefined;

  constructor(model: RecordedModel, reason: string) {
    this.#model = model;
    this.#reason = reason;
  }

  submitted(id: number, request: EngineRequest): void {
    this.#draws.set(id, drawOf(request));
    if (this.#draws.size > drawsMax) this.#draws.delete(this.#draws.keys().next().value as number);
  }

  step({ shares, phase }: FinishedStep): void {
    if (phase === "prompt" && this.#last?.phase === "generation") return;
    const draw = shares.map(({ request }) => this.#draws.get(request)).find((found) => found !== undefined) ?? NO_DRAW;
    this.#last = { shares, draw, count: 1, phase };
    this.#fresh = true;
  }

  take(): CacheUsage | null {
    const due = this.#fresh && this.#tracer === undefined && performance.now() > this.#againMs;
    if (due && this.#model.engine.pending === 0) this.#begin();
    return this.#usage;
  }

  close(): void {
    if (this.#tracer) this.#model.engine.closeTracer(this.#tracer);
    this.#tracer = undefined;
  }

  /** Simulates the last step, in turns with the event loop. */
  #begin(): void {
    const { engine, library, ops, run } = this.#model;
    const step = this.#last;
    if (!step) return;
    this.#fresh = false;
    this.#againMs = performance.now() + againMs;
    const lastLevelBytes = findRoofs(library, engine.settings.levels.matmul, engine.threadCount)?.lastLevelBytes;
    const { levels: geometry, description } = findCaches({ threads: engine.threadCount, lastLevelBytes });
    let tracer: Tracer;
    try {
      tracer = engine.tracer({ threadCount: engine.threadCount, caches: geometry, prefetcher: true });
    } catch {
      // There was not the memory for it, and nobody waits for it who could be told: it is tried again in a minute.
      return;
    }
    this.#tracer = tracer;
    const making = simulateCaches([step], ops, tracer, {
      geometry,
      prefetcher: true,
      weightsBytes: run.weightsBytes,
      description: `${description}; ${this.#reason}`,
    });
    const beganMs = performance.now();
    let tookMs = 0;
    const turn = (): void => {
      if (this.#tracer !== tracer) return;
      const rests = engine.pending === 0;
      const turnMs = performance.now();
      const { done, value } = rests ? making.next() : { done: false, value: undefined };
      tookMs += performance.now() - turnMs;
      this.#againMs = beganMs + Math.max(againMs, againTimes * tookMs);
      if (!done) {
        later(turn, rests ? 0 : restMs);
        return;
      }
      this.close();
      if (value) this.#usage = value;
    };
    later(turn, 0);
  }
}

/** Keeps no process alive. */
function later(turn: () => void, ms: number): void {
  setTimeout(turn, ms).unref();
}
