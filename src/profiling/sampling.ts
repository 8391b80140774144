// What a monitor tells at intervals: how much was done since the sample before, and what the process holds now. It is made of sums that
// are there anyway, so that a sample takes a fraction of a millisecond, whatever the model does meanwhile.

import { ProcessReader, type SystemReading } from "../../profiler/system.ts";
import type { StepTally, StepTimes } from "../../profiler/tally.ts";
import type { Work, WorkMeter } from "../engine/work.ts";
import { loadOf } from "../knobs/performance-metrics.ts";
import type { CacheUsage, LiveCaches } from "./live-caches.ts";

/** How a model does, over the time since the sample before. */
export interface MonitorSample {
  /** When it was taken, ms since 1970 as `Date.now()` has them. */
  readonly timeMs: number;
  /** The time that it is over, ms: since the sample before, or since somebody began to read samples. */
  readonly spanMs: number;
  /** Tokens generated in that time, over it. */
  readonly tokensPerSecond: number;
  /** Texts embedded or scored in that time, over it. */
  readonly textsPerSecond: number;
  /** Requests that ended. */
  readonly requests: number;
  /** Of those, from when each was handed to the engine until it ended, ms: the mean. Null: none ended. */
  readonly inferenceTime: number | null;
  /** From when a request was handed to the engine until its first token was there, ms: the mean of those whose came. Null: none came. */
  readonly firstTokenTime: number | null;
  /** Requests under way now. */
  readonly underWay: number;
  /** Those of them that are more than fit into a step (`batchSize`); one that waits for memory does not count. */
  readonly queueDepth: number;
  /** CPU time of all threads of the process over the time; 100: one CPU. */
  readonly cpuPercent: number;
  /** Memory of the process that is resident, bytes. */
  readonly residentBytes: number;
  /** JavaScript's heap, bytes, as it was at most a second before. */
  readonly heapBytes: number;
  /** Memory that the native library holds, of all models, bytes: without address space that is only reserved. */
  readonly nativeBytes: number;
  /** What the engine thread spent the steps that ended on; null without `executionTime`. */
  readonly executionTime: StepTimes | null;
  /** How well caches served the steps, and how that is known; null without `cacheUsage`, and until it is known. */
  readonly cacheUsage: CacheUsage | null;
  /** Events that were not kept, since nobody took them over in time. */
  readonly eventsLost: number;
  /** Samples before this one that its reader was too slow for, and has not got. */
  readonly missed: number;
}

/** What samples are taken of. */
export interface Sampled {
  readonly work: WorkMeter;
  readonly batchSize: number;
  readonly nativeBytes: () => number;
  readonly tally: StepTally | undefined;
  readonly caches: LiveCaches | undefined;
  readonly eventsLost: () => number;
}

/** What samples are differences of. */
interface Sums {
  readonly work: Work & { readonly spanNs: number };
  readonly system: SystemReading;
  readonly eventsLost: number;
}

/** Takes samples, each over the time since the one before; the first since its making. */
export class Sampler {
  readonly #sampled: Sampled;
  readonly #process = new ProcessReader();
  #before: Sums;

  constructor(sampled: Sampled) {
    this.#sampled = sampled;
    sampled.tally?.take();
    sampled.caches?.take();
    this.#before = this.#read();
  }

  #read(): Sums {
    const { work, eventsLost } = this.#sampled;
    return { work: work.total(), system: this.#process.read(), eventsLost: eventsLost() };
  }

  close(): void {
    this.#process.close();
  }

  take(): MonitorSample {
    const { work, batchSize, nativeBytes, tally, caches } = this.#sampled;
    const before = this.#before;
    const now = this.#read();
    this.#before = now;
    const done = (field: keyof Work | "spanNs"): number => now.work[field] - before.work[field];
    const perSecond = (amount: number): number => (done("spanNs") > 0 ? (amount * 1e9) / done("spanNs") : 0);
    const meanMs = (sum: number, count: number): number | null => (count > 0 ? sum / count / 1e6 : null);
    const passedMs = now.system.atMs - before.system.atMs;
    return {
      timeMs: Date.now(),
      spanMs: done("spanNs") / 1e6,
      tokensPerSecond: perSecond(done("tokens")),
      textsPerSecond: perSecond(done("texts")),
      requests: done("requests"),
      inferenceTime: meanMs(done("requestNs"), done("requests")),
      firstTokenTime: meanMs(done("firstTokenNs"), done("firstTokens")),
      ...loadOf(work, batchSize),
      cpuPercent: passedMs > 0 ? (now.system.cpuNs - before.system.cpuNs) / (passedMs * 1e4) : 0,
      residentBytes: now.system.residentBytes,
      heapBytes: now.system.heapBytes,
      nativeBytes: nativeBytes(),
      executionTime: tally?.take() ?? null,
      cacheUsage: caches?.take() ?? null,
      eventsLost: now.eventsLost - before.eventsLost,
      missed: 0,
    };
  }
}

/** Samples that wait for a reader at most; the oldest make room. */
const waitingMax = 64;

interface Reader {
  readonly waiting: MonitorSample[];
  missed: number;
  wake: () => void;
}

/** Hands samples to all who read them, each at its own pace. */
export class SampleReaders {
  readonly #readers = new Set<Reader>();
  readonly #onChange: () => void;
  #ended = false;

  /** @param onChange called when somebody begins to read, or ends. */
  constructor(onChange: () => void) {
    this.#onChange = onChange;
  }

  get count(): number {
    return this.#readers.size;
  }

  push(sample: MonitorSample): void {
    for (const reader of this.#readers) {
      reader.waiting.push(sample);
      if (reader.waiting.length > waitingMax) {
        reader.waiting.shift();
        reader.missed++;
      }
      reader.wake();
    }
  }

  /** There will be no more. What waits is still read. */
  end(): void {
    this.#ended = true;
    for (const reader of this.#readers) reader.wake();
  }

  /** The samples that are taken from the first call of `next` on. */
  async *read(): AsyncGenerator<MonitorSample, void, undefined> {
    if (this.#ended) return;
    const reader: Reader = { waiting: [], missed: 0, wake: () => {} };
    this.#readers.add(reader);
    this.#onChange();
    try {
      for (;;) {
        const sample = reader.waiting.shift();
        if (sample) {
          const { missed } = reader;
          reader.missed = 0;
          yield { ...sample, missed };
        } else if (this.#ended) return;
        else {
          await new Promise<void>((resolve) => {
            reader.wake = resolve;
          });
        }
      }
    } finally {
      this.#readers.delete(reader);
      this.#onChange();
    }
  }
}
