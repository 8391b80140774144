// What the system gives the process while it is watched: memory, CPU, page faults, switches of threads. Samples on a timer that
// keeps no process alive; when there are too many, every second one goes and the interval doubles, so that days take as much
// memory as minutes. What it samples of the native library it is told.

import { heapSize } from "bun:jsc";
import { closeSync, openSync, readFileSync, readSync } from "node:fs";
import type { Allocations, SystemSample, SystemUse } from "./report.ts";

/** Sums since the process began, and sizes now. */
export interface SystemReading {
  /** Ms of a monotonic clock. */
  readonly atMs: number;
  readonly residentBytes: number;
  readonly heapBytes: number;
  readonly cpuNs: number;
  readonly minorFaults: number;
  readonly majorFaults: number;
  readonly voluntarySwitches: number;
  readonly involuntarySwitches: number;
}

export interface SystemWatchOptions {
  /** Default 250: a sample takes 60 to 130 µs where a model's weights have swept the caches. 10 to 60,000. */
  readonly sampleIntervalMs?: number | undefined;
  /** Samples kept at most, an even number. Default 4,096: 17 minutes at 250 ms, then twice as far apart. */
  readonly samplesMax?: number | undefined;
  /** Memory that the native library holds. Called with every sample: the place to drain what it tells, too. */
  readonly nativeBytes: () => number;
  /** Default this process's. */
  readonly read?: (() => SystemReading) | undefined;
  /** The most that was resident since the process began; undefined where the system does not say. */
  readonly readPeak?: (() => number | undefined) | undefined;
  /** Calls `sample` every so many ms until what it returns is called. Default a timer. */
  readonly every?: ((intervalMs: number, sample: () => void) => () => void) | undefined;
}

type Kept = SystemReading & { readonly nativeBytes: number };

export const sampleIntervalsMs = { default: 250, min: 10, max: 60_000 } as const;
const samplesMaxDefault = 4096;

/** Watches from its making to `stop`. */
export class SystemWatch {
  readonly #nativeBytes: () => number;
  readonly #process: ProcessReader | undefined;
  readonly #read: (anew: boolean) => SystemReading;
  readonly #readPeak: () => number | undefined;
  readonly #every: (intervalMs: number, sample: () => void) => () => void;
  readonly #samplesMax: number;
  readonly #peakBefore: number | undefined;
  readonly #first: Kept;
  #kept: Kept[];
  #intervalMs: number;
  #cancel: () => void;
  #peakResidentBytes: number;

  /** @throws {RangeError} for an interval out of bounds. */
  constructor(options: SystemWatchOptions) {
    const { sampleIntervalMs = sampleIntervalsMs.default, samplesMax = samplesMaxDefault } = options;
    const { min, max } = sampleIntervalsMs;
    if (!(sampleIntervalMs >= min && sampleIntervalMs <= max)) {
      throw new RangeError(`sampleIntervalMs is ${sampleIntervalMs}; ${min} to ${max} is expected`);
    }
    this.#nativeBytes = options.nativeBytes;
    if (options.read) this.#read = options.read;
    else {
      const reader = new ProcessReader();
      this.#process = reader;
      this.#read = (anew) => reader.read(anew);
    }
    this.#readPeak = options.readPeak ?? readPeakResident;
    this.#every = options.every ?? everyUnattended;
    this.#samplesMax = samplesMax;
    this.#peakBefore = this.#readPeak();
    this.#first = this.#take(true);
    this.#kept = [this.#first];
    this.#peakResidentBytes = this.#first.residentBytes;
    this.#intervalMs = sampleIntervalMs;
    this.#cancel = this.#every(sampleIntervalMs, () => this.sample(false));
  }

  /** Ms between samples, as it is by now. */
  get intervalMs(): number {
    return this.#intervalMs;
  }

  /**
   * Takes a sample now.
   * @param anew whether JavaScript's heap is added up for it; the timer's samples do with what was known at most a second before.
   */
  sample(anew = true): SystemSample {
    const taken = this.#take(anew);
    const before = this.#kept.at(-1) ?? this.#first;
    this.#kept.push(taken);
    this.#peakResidentBytes = Math.max(this.#peakResidentBytes, taken.residentBytes);
    if (this.#kept.length > this.#samplesMax) this.#thin();
    return this.#sampleOf(taken, before);
  }

  /** Samples so far. What passed between two of them does not depend on how many between them were dropped. */
  get samples(): readonly SystemSample[] {
    return this.#kept.map((kept, index) => this.#sampleOf(kept, this.#kept[index - 1] ?? kept));
  }

  /** Ends watching with a last sample. */
  stop(allocations: Allocations): SystemUse {
    this.sample();
    this.#cancel();
    this.#process?.close();
    const first = this.#first;
    const last = this.#kept.at(-1) ?? first;
    // The system's own peak is of the whole life of the process: it is ours only if it grew while we watched.
    const peak = this.#readPeak() ?? 0;
    const grown = this.#peakBefore !== undefined && peak > this.#peakBefore ? peak : 0;
    return {
      samples: this.samples,
      peakResidentBytes: Math.max(this.#peakResidentBytes, grown),
      minorFaults: last.minorFaults - first.minorFaults,
      majorFaults: last.majorFaults - first.majorFaults,
      voluntarySwitches: last.voluntarySwitches - first.voluntarySwitches,
      involuntarySwitches: last.involuntarySwitches - first.involuntarySwitches,
      cpuNs: last.cpuNs - first.cpuNs,
      allocations,
    };
  }

  #take(anew: boolean): Kept {
    return { ...this.#read(anew), nativeBytes: this.#nativeBytes() };
  }

  /** Drops every second sample, never the first, and not the last. */
  #thin(): void {
    const last = this.#kept.length - 1;
    this.#kept = this.#kept.filter((_, index) => index % 2 === 0 || index === last);
    this.#cancel();
    this.#intervalMs *= 2;
    this.#cancel = this.#every(this.#intervalMs, () => this.sample(false));
  }

  #sampleOf(kept: Kept, before: Kept): SystemSample {
    const passedMs = kept.atMs - before.atMs;
    return {
      atMs: kept.atMs - this.#first.atMs,
      residentBytes: kept.residentBytes,
      heapBytes: kept.heapBytes,
      nativeBytes: kept.nativeBytes,
      cpuPercent: passedMs > 0 ? (kept.cpuNs - before.cpuNs) / (passedMs * 1e4) : 0,
      minorFaults: kept.minorFaults - before.minorFaults,
      majorFaults: kept.majorFaults - before.majorFaults,
    };
  }
}

/** Where a system does not count something (switches, faults on some), that is 0. */
export function readProcess(): SystemReading {
  return readingOf(process.memoryUsage.rss(), heapSize());
}

function readingOf(residentBytes: number, heapBytes: number): SystemReading {
  const usage = process.resourceUsage();
  return {
    atMs: performance.now(),
    residentBytes,
    heapBytes,
    cpuNs: (usage.userCPUTime + usage.systemCPUTime) * 1000,
    minorFaults: usage.minorPageFault,
    majorFaults: usage.majorPageFault,
    voluntarySwitches: usage.voluntaryContextSwitches,
    involuntarySwitches: usage.involuntaryContextSwitches,
  };
}

/** Of x86-64 under Linux; other architectures have several. */
const pageBytes = 4096;
/** JavaScript's heap is only known anew after a collection, which Bun has about once a second. */
const heapKnownMs = 1000;

/**
 * Reads the process again and again, in a third of the time: what takes most of it is to open the file that tells of memory, and to add
 * up JavaScript's heap, which is known for a second.
 */
export class ProcessReader {
  readonly #text = new Uint8Array(128);
  #file = openStatm();
  #heapBytes = 0;
  #heapMs = Number.NEGATIVE_INFINITY;

  /** @param anew whether the heap is added up now. */
  read(anew = false): SystemReading {
    const nowMs = performance.now();
    if (anew || nowMs - this.#heapMs >= heapKnownMs) {
      this.#heapBytes = heapSize();
      this.#heapMs = nowMs;
    }
    return readingOf(this.#residentBytes(), this.#heapBytes);
  }

  close(): void {
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
  }

  #residentBytes(): number {
    if (this.#file === undefined) return process.memoryUsage.rss();
    const text = this.#text;
    const length = readSync(this.#file, text, 0, text.length, 0);
    // The second number.
    let pages = 0;
    for (let at = text.indexOf(space) + 1; at < length && text[at] !== space; at++)
      pages = 10 * pages + (text[at] as number) - zero;
    return pages * pageBytes;
  }
}

const [space, zero] = [0x20, 0x30];

function openStatm(): number | undefined {
  if (process.platform !== "linux" || process.arch !== "x64") return undefined;
  try {
    return openSync("/proc/self/statm", "r");
  } catch {
    return undefined;
  }
}

/** Linux says it. The figure that getrusage has is no use: a process may inherit it from the one that started it. */
function readPeakResident(): number | undefined {
  try {
    const line = /^VmHWM:\s+(\d+) kB/m.exec(readFileSync("/proc/self/status", "utf8"));
    return line ? Number(line[1]) * 1024 : undefined;
  } catch {
    return undefined;
  }
}

function everyUnattended(intervalMs: number, sample: () => void): () => void {
  const timer = setInterval(sample, intervalMs);
  timer.unref();
  return () => clearInterval(timer);
}
