// A recording of what a model does from start to stop: everything that is watched hangs on the engine only as long as one runs.
// What was watched becomes a report afterwards (report parts in profiler/); what takes long then, the steps that are run once more
// to count their loads and stores, may be driven in turns with the event loop.

import { simulateCaches } from "../../profiler/cache.ts";
import { EVENT_BYTES, type OpInfo } from "../../profiler/events.ts";
import { findingsOf } from "../../profiler/findings.ts";
import { JavaScriptRecorder, withListener, withoutListener } from "../../profiler/javascript.ts";
import { type CountedOp, MemoryCounter } from "../../profiler/memory.ts";
import { type Profile, Profiler } from "../../profiler/profile.ts";
import type {
  CacheGeometry,
  CacheStatistics,
  MachineInfo,
  MachineRoofs,
  MemoryOperations,
  Report,
  RunInfo,
  SystemSample,
  TraceData,
} from "../../profiler/report.ts";
import type { RequestReport } from "../../profiler/requests.ts";
import { placeOnRoofline } from "../../profiler/roofline.ts";
import { SystemWatch } from "../../profiler/system.ts";
import type { TracedDraw } from "../../profiler/tracing.ts";
import { AllocationWatch, nativeMemory } from "../engine/allocations.ts";
import { findCaches } from "../engine/caches.ts";
import { type CallCounts, callsSince } from "../engine/calls.ts";
import { watchCollections } from "../engine/collections.ts";
import { type HardwareCounters, hardwareCacheStatistics, openHardwareCounters } from "../engine/counters.ts";
import type { Engine, EngineRequest } from "../engine/engine.ts";
import type { Library } from "../engine/library.ts";
import type { EngineSettings } from "../engine/settings.ts";
import { fixedTuning } from "../engine/tuning.ts";
import { EngineError, MemoryLimitError } from "../errors.ts";
import { machineInfo } from "./machine.ts";

/** Options of `model.profile` and `model.startProfiling`: what is recorded beside the system, which always is. */
export interface ProfileOptions {
  /**
   * Whether steps, requests and JavaScript's share are recorded, and with them all that is made of them. Default true; false: only
   * the system is watched (memory, CPU, page faults).
   */
  readonly time?: boolean | undefined;
  /** Whether cache statistics are made: from hardware counters, else by simulating some of the steps afterwards. Default true. */
  readonly cache?: boolean | undefined;
  /**
   * Whether the simulator models a hardware prefetcher. Default true; false: caches are simulated without one, even where there are
   * hardware counters, which count with the CPU's own at work.
   */
  readonly prefetcher?: boolean | undefined;
  /**
   * Whether ops are placed on the machine's roofline. Default true. `model.profile` measures it for 1 to 3 s if that was not done
   * before; after `startProfiling` it is only used where it was.
   */
  readonly roofline?: boolean | undefined;
  /**
   * Whether counts are to be the same on every run and machine: those of one thread, on caches of a machine that does not exist
   * (`referenceCaches`), without a prefetcher whatever `prefetcher` says. Forced to one level of instructions, they then depend on
   * the work alone. Default false.
   */
  readonly deterministic?: boolean | undefined;
  /** Time between two samples of the system, ms; 10 to 60,000, default 250. 0: none but a first and a last one. */
  readonly sampleIntervalMs?: number | undefined;
}

/** The caches of deterministic counts: sizes that many machines have. */
export const referenceCaches: readonly CacheGeometry[] = [
  { name: "L1D", bytes: 32 << 10, ways: 8, lineBytes: 64, sharedBy: 1 },
  { name: "L2", bytes: 1 << 20, ways: 16, lineBytes: 64, sharedBy: 1 },
  { name: "L3", bytes: 32 << 20, ways: 16, lineBytes: 64, sharedBy: 1 },
];

/**
 * Raw events are kept for traces up to this many bytes, and spans of JavaScript up to this many. Until then they are not looked
 * at while the model works: an event takes 45 ns then, two dozen of them as long as its op, on a CPU that the engine's threads want.
 */
const EVENT_BYTES_MAX = 32 << 20;
/** They are kept in pieces of memory of this size: one a drain would be so many that JavaScript's collector ran for them. */
const EVENT_PIECE_BYTES = 1 << 20;
const SPANS_MAX = 1 << 16;
/** Requests whose ways of drawing are remembered until their steps are looked at. */
const DRAWS_MAX = 1 << 16;
/** While many steps are counted, the event loop has a turn after so long. */
const TURN_MS = 20;

/** What is recorded of. */
export interface RecordedModel {
  readonly library: Library;
  readonly engine: Engine;
  /** What its kernels have while it is recorded. */
  readonly levels: EngineSettings["levels"];
  readonly ops: readonly CountedOp[];
  readonly run: Omit<RunInfo, "startedAt" | "wallMs">;
}

/** Watches from its making to `stop`. */
export class Recording {
  readonly #model: RecordedModel;
  readonly #options: ProfileOptions;
  readonly #profiler: Profiler;
  readonly #memory: MemoryCounter;
  readonly #javascript: JavaScriptRecorder;
  readonly #allocations: AllocationWatch;
  readonly #system: SystemWatch;
  readonly #counters: HardwareCounters | { readonly reason: string };
  readonly #draws = new Map<number, TracedDraw>();
  readonly #events: Uint8Array[] = [];
  /** How many of them the profiler has taken in. */
  #taken = 0;
  /** Where the next ones go, and how much of it is filled; what is filled is not among `#events` yet. */
  #piece = new Uint8Array(0);
  #filled = 0;
  #eventBytes = 0;
  #dropped = 0;
  #shapedSteps = 0;
  readonly #lostBefore: number;
  readonly #callsBefore: CallCounts;
  #endWatching = (): void => {};
  readonly #startedAt = new Date().toISOString();
  readonly #startNs: number;

  constructor(model: RecordedModel, options: ProfileOptions) {
    this.#model = model;
    this.#options = options;
    const { engine, library, ops } = model;
    if (engine.closed) throw new EngineError("the model is closed; load it again");
    this.#memory = new MemoryCounter(ops, (request) => this.#draws.get(request));
    this.#profiler = new Profiler(ops, {
      onStep: (step) => {
        this.#shapedSteps++;
        this.#memory.add(step);
      },
    });
    const { time = true, sampleIntervalMs } = options;
    const wantsCounters =
      time && options.cache !== false && options.deterministic !== true && options.prefetcher !== false;
    this.#counters = wantsCounters
      ? openHardwareCounters(library, engine.threadIds)
      : { reason: "Hardware counters were not asked for" };
    const collections = watchCollections(library);
    // What watching itself takes has been taken before.
    this.#allocations = new AllocationWatch(library);
    this.#system = new SystemWatch({
      ...(sampleIntervalMs === 0 ? { every: () => () => {} } : { sampleIntervalMs }),
      nativeBytes: () => {
        this.#allocations.drain();
        return nativeMemory(library).liveBytes;
      },
    });
    this.#lostBefore = engine.eventsLost;
    this.#callsBefore = engine.calls;
    this.#javascript = new JavaScriptRecorder({
      nowNs: library.symbols.tinyai_clock_now,
      cpuNs: library.symbols.tinyai_thread_cpu,
      collections,
      spansMax: SPANS_MAX,
    });
    this.#startNs = engine.nowNs;
    if (!time) return;
    engine.javascript = withListener(engine.javascript, this.#javascript);
    this.#endWatching = engine.watch({
      events: (events) => this.#drain(events),
      patient: true,
      requests: {
        submitted: (id, submission, request) => {
          this.#draws.set(id, drawOf(request));
          if (this.#draws.size > DRAWS_MAX) this.#draws.delete(this.#draws.keys().next().value as number);
          this.#profiler.requestSubmitted(id, submission);
        },
        ended: (id, ending) => this.#profiler.requestEnded(id, ending),
      },
    });
  }

  /** Takes a sample of the system now; with JavaScript's heap added up anew, unless that is false. */
  sample(anew?: boolean): SystemSample {
    return this.#system.sample(anew);
  }

  /** Ends watching. What was recorded waits to become a report. */
  stop(): Recorded {
    const { engine } = this.#model;
    this.#endWatching();
    const endNs = engine.nowNs;
    const javascript = {
      ...this.#javascript.result(),
      wallNs: endNs - this.#startNs,
      nativeCalls: callsSince(this.#callsBefore, engine.calls),
    };
    // Before the events are looked at, which takes memory, page faults and CPU time of its own.
    const system = this.#system.stop(this.#allocations.stop());
    engine.javascript = withoutListener(engine.javascript, this.#javascript);
    this.#takeIn();
    this.#profiler.drain(new Uint8Array(0), engine.eventsLost - this.#lostBefore);
    const counted = "reason" in this.#counters ? undefined : this.#counters.read();
    if (!("reason" in this.#counters)) this.#counters.close();
    const profile = this.#profiler.result({ histograms: true });
    const trace: TraceData = {
      events: this.#events,
      spans: this.#javascript.spans,
      samples: this.#system.samples,
      startNs: this.#startNs,
      dropped: this.#dropped,
      spansDropped: this.#javascript.spansDropped,
    };
    const hardware =
      counted === undefined
        ? undefined
        : hardwareCacheStatistics(
            counted,
            findCaches({ threads: this.#model.run.threads }).levels,
            profile.steps.count,
          );
    return new Recorded(this.#model, this.#options, {
      profile,
      memory: this.#memory,
      missingSteps: profile.steps.count - this.#shapedSteps,
      requests: this.#profiler.requests({ histograms: true }),
      javascript: this.#options.time === false ? null : javascript,
      system,
      hardware,
      refusal: "reason" in this.#counters ? this.#counters.reason : "",
      startedAt: this.#startedAt,
      wallMs: (endNs - this.#startNs) / 1e6,
      trace,
    });
  }

  #drain(events: Uint8Array): void {
    // Nothing behind the first that is left out: a trace ends, and has no holes.
    if (this.#dropped === 0 && this.#eventBytes + events.length <= EVENT_BYTES_MAX) {
      this.#eventBytes += events.length;
      this.#keep(events);
      return;
    }
    this.#takeIn();
    this.#profiler.drain(events, 0);
    this.#dropped += events.length / EVENT_BYTES;
  }

  #keep(events: Uint8Array): void {
    if (this.#filled + events.length > this.#piece.length) {
      this.#endPiece();
      this.#piece = new Uint8Array(Math.max(EVENT_PIECE_BYTES, events.length));
    }
    this.#piece.set(events, this.#filled);
    this.#filled += events.length;
  }

  #endPiece(): void {
    if (this.#filled > 0) this.#events.push(this.#piece.subarray(0, this.#filled));
    this.#piece = new Uint8Array(0);
    this.#filled = 0;
  }

  /** Gives the profiler what it has not seen. */
  #takeIn(): void {
    this.#endPiece();
    for (; this.#taken < this.#events.length; this.#taken++)
      this.#profiler.drain(this.#events[this.#taken] as Uint8Array, 0);
  }
}

interface RecordedParts {
  readonly profile: Profile;
  readonly memory: MemoryCounter;
  readonly missingSteps: number;
  readonly requests: RequestReport;
  readonly javascript: Report["javascript"];
  readonly system: Report["system"];
  readonly hardware: CacheStatistics | undefined;
  readonly refusal: string;
  readonly startedAt: string;
  readonly wallMs: number;
  readonly trace: TraceData;
}

/** What was recorded, and what of it takes time to make. */
export class Recorded {
  readonly #model: RecordedModel;
  readonly #options: ProfileOptions;
  readonly #parts: RecordedParts;

  constructor(model: RecordedModel, options: ProfileOptions, parts: RecordedParts) {
    this.#model = model;
    this.#options = options;
    this.#parts = parts;
  }

  get options(): ProfileOptions {
    return this.#options;
  }

  get levels(): EngineSettings["levels"] {
    return this.#model.levels;
  }

  get trace(): TraceData {
    return this.#parts.trace;
  }

  /**
   * The report, without letting anything else run. The model must not be closed yet.
   * @param roofs the machine's, if they are known.
   */
  report(roofs: MachineRoofs | undefined): Report {
    const making = this.#make(roofs);
    for (;;) {
      const { done, value } = making.next();
      if (done) return value;
    }
  }

  /** The same, in turns with the event loop. */
  async reportInTurns(roofs: MachineRoofs | undefined): Promise<Report> {
    const making = this.#make(roofs);
    let turnMs = performance.now();
    for (;;) {
      const { done, value } = making.next();
      if (done) return value;
      if (performance.now() - turnMs < TURN_MS) continue;
      await new Promise<void>((resolve) => setImmediate(resolve));
      turnMs = performance.now();
    }
  }

  *#make(roofs: MachineRoofs | undefined): Generator<void, Report, void> {
    const { profile, requests, javascript, system, startedAt, wallMs } = this.#parts;
    const { run, ops } = this.#model;
    const { memory, cache } = yield* this.#count(roofs);
    const roofline = roofs === undefined ? null : placeOnRoofline(profile, ops, roofs, cache, phaseOf(profile));
    const report: Report = {
      schema: 1,
      run: { ...run, startedAt, wallMs },
      machine: this.#machine(),
      ...profile,
      ...requests,
      memoryOps: memory === null ? null : memory.loads + memory.stores,
      memory,
      cache,
      roofline,
      javascript,
      system,
      findings: [],
    };
    return { ...report, findings: findingsOf(report) };
  }

  *#count(
    roofs: MachineRoofs | undefined,
  ): Generator<void, { memory: MemoryOperations | null; cache: CacheStatistics | null }, void> {
    const { memory: counter, missingSteps, profile, hardware, refusal } = this.#parts;
    const { engine, library, levels, ops, run } = this.#model;
    // Without the engine there are no weights to read.
    if (profile.steps.count === 0 || engine.closed) return { memory: null, cache: hardware ?? null };
    const { deterministic = false, cache: wantsCache = true } = this.#options;
    const prefetcher = !deterministic && this.#options.prefetcher !== false;
    const threads = deterministic ? 1 : run.threads;
    const simulates = wantsCache && hardware === undefined;
    const caches = deterministic
      ? {
          levels: referenceCaches,
          description: "Caches are those of a reference machine, for one thread",
        }
      : findCaches({ threads, lastLevelBytes: roofs?.lastLevelBytes });
    const tracer = unlessLimited(() =>
      engine.tracer({
        threadCount: threads,
        caches: simulates ? caches.levels : [],
        prefetcher,
        levels,
        ...(deterministic ? { tuning: fixedTuning(library.levels[levels.matmul]?.name ?? "") } : {}),
      }),
    );
    if (!tracer) return { memory: null, cache: hardware ?? null };
    try {
      const operations = profile.byOp.reduce((sum, op) => sum + op.operations, 0);
      const memory = yield* counter.count(tracer, missingSteps, operations);
      if (!simulates) return { memory, cache: hardware ?? null };
      const why = refusal === "" ? "" : ` ${sentence(refusal)}`;
      const cache = yield* simulateCaches(counter.steps, ops, tracer, {
        geometry: caches.levels,
        prefetcher,
        weightsBytes: run.weightsBytes,
        description: `${sentence(caches.description)}${why}`,
      });
      return { memory, cache: cache ?? null };
    } finally {
      engine.closeTracer(tracer);
    }
  }

  #machine(): MachineInfo {
    return machineInfo(this.#model.library);
  }
}

/** Nothing where memory's limit leaves too little: a recording that was made is worth a report without it. */
function unlessLimited<T>(take: () => T): T | undefined {
  try {
    return take();
  } catch (error) {
    if (error instanceof MemoryLimitError) return undefined;
    throw error;
  }
}

/** How the simulator's steps draw what a request asks for. */
export function drawOf(request: EngineRequest): TracedDraw {
  return {
    temperature: request.temperature,
    topP: request.topP,
    minP: request.minP,
    topK: request.topK,
    repeatPenalty: request.repeatPenalty,
    topCount: request.topCount,
    scores: request.kind === "score",
  };
}

/** Of a profile with steps of one phase alone, that one. */
function phaseOf({ phases }: Profile): "prompt" | "generation" | "all" {
  const [first] = phases;
  return phases.length === 1 && first ? first.phase : "all";
}

function sentence(text: string): string {
  const capital = text.charAt(0).toUpperCase() + text.slice(1);
  return capital.endsWith(".") ? capital : `${capital}.`;
}

/** Kinds of op that do more or less by where rows stand. */
const placed: readonly string[] = ["attention", "attention_merge", "encode", "pool"];

/** The profiler's view of ops, which are themselves given what counts depend on: how a kernel is called may change. */
export function countedOps(ops: readonly OpInfo[], signatures: readonly string[]): CountedOp[] {
  return ops.map((op) =>
    Object.assign(op, {
      signature: signatures[op.index] ?? String(op.index),
      byPosition: placed.includes(op.kind),
    }),
  );
}
