// Counts of what a step's ops load and store, and what a simulator of caches makes of it: the TypeScript side of zig/tracer.zig.
// It runs steps' ops beside the engine, on this thread; what is worth running, and what the sums mean, others decide.

import type { Pointer } from "bun:ffi";
import { type CacheGeometry, regions } from "../../profiler/report.ts";
import type { StepTracer, TracedDraw, TracedOp, TracedShare, TraceMode } from "../../profiler/tracing.ts";
import { EngineError } from "../errors.ts";
import * as layout from "../plan/layout.ts";
import type { Library } from "./library.ts";
import type { EngineSettings } from "./settings.ts";
import { encodeTuning, type Tuning } from "./tuning.ts";

export interface TracerOptions {
  /** Threads that are played, 1 to 64. */
  readonly threadCount: number;
  /** Caches to simulate, nearest first; none: accesses are counted only. */
  readonly caches: readonly CacheGeometry[];
  readonly prefetcher: boolean;
  /** Whose accesses are told of. */
  readonly levels: EngineSettings["levels"];
  /** How kernels work, as far as what they read depends on it. */
  readonly tuning: Tuning;
}

/** In zig/tracer.zig's order. */
const traceModes: readonly TraceMode[] = ["count", "simulate", "sample"];

/** In 64-bit words. */
const tracedWords = layout.Traced.size / 8;
const wordOf = (field: Parameters<typeof layout.Traced.offset>[0]): number => layout.Traced.offset(field) / 8;

export class Tracer implements StepTracer {
  readonly #library: Library;
  readonly #handle: Pointer;
  readonly #opCount: number;
  readonly #words: BigUint64Array;
  #closed = false;

  private constructor(library: Library, handle: Pointer, opCount: number) {
    this.#library = library;
    this.#handle = handle;
    this.#opCount = opCount;
    this.#words = new BigUint64Array((opCount + 1) * tracedWords);
  }

  /**
   * A tracer of the engine at `engine`, which must outlive it.
   * @throws {EngineError} if memory is refused, or a cache is none that can be simulated.
   */
  static create(library: Library, engine: Pointer, opCount: number, options: TracerOptions): Tracer {
    const config = new Uint8Array(layout.TracerConfig.size);
    const { caches } = options;
    layout.TracerConfig.write(new DataView(config.buffer), 0, {
      thread_count: options.threadCount,
      cache_count: caches.length,
      prefetcher: options.prefetcher ? 1 : 0,
      cache_bytes: caches.map(({ bytes }) => bytes),
      cache_ways: caches.map(({ ways }) => ways),
      cache_line_bytes: caches.map(({ lineBytes }) => lineBytes),
      cache_shared_by: caches.map(({ sharedBy }) => sharedBy),
      levels: layout.families.map((family) => options.levels[family]),
      tuning: [...encodeTuning(options.tuning)],
    });
    const failure = new Uint32Array(1);
    const handle = library.symbols.tinyai_tracer_create(engine, config, failure);
    if (!handle || typeof handle === "bigint") {
      const refused = layout.failures[failure[0] ?? 0] === "out_of_memory";
      const caches = options.caches.map(({ name, bytes, ways }) => `${name} of ${bytes} bytes in ${ways} ways`);
      throw new EngineError(
        refused
          ? "memory operations cannot be counted: the system refused memory for a second set of activations; free some"
          : `caches cannot be simulated like this: ${caches.join(", ")}, ${options.threadCount} threads`,
      );
    }
    return new Tracer(library, handle, opCount);
  }

  begin(shares: readonly TracedShare[], draw: TracedDraw): boolean {
    if (this.#closed || shares.length === 0) return false;
    const bytes = new Uint8Array(shares.length * layout.TracedShare.size);
    const view = new DataView(bytes.buffer);
    for (const [index, share] of shares.entries()) {
      layout.TracedShare.write(view, index * layout.TracedShare.size, {
        sequence: share.sequence,
        position: share.firstPosition,
        rows: share.rows,
        logits_rows: share.logitsRows,
        embeds: share.embeds ?? 0,
      });
    }
    const how = new Uint8Array(layout.TracedDraw.size);
    layout.TracedDraw.write(new DataView(how.buffer), 0, {
      temperature: draw.temperature,
      top_p: draw.topP,
      min_p: draw.minP,
      repeat_penalty: draw.repeatPenalty,
      top_k: draw.topK,
      top_count: draw.topCount,
      scores: draw.scores ? 1 : 0,
    });
    return this.#library.symbols.tinyai_tracer_begin(this.#handle, bytes, shares.length, how) === 1;
  }

  run(first: number, end: number, mode: TraceMode): TracedOp[] {
    const { symbols } = this.#library;
    if (this.#closed || end > this.#opCount + 1 || first > end)
      throw new RangeError(`there are no ops ${first} to ${end}`);
    symbols.tinyai_tracer_run(this.#handle, first, end, traceModes.indexOf(mode), this.#words);
    return Array.from({ length: end - first }, (_, index) => this.#read(index * tracedWords));
  }

  forget(): void {
    if (!this.#closed) this.#library.symbols.tinyai_tracer_forget(this.#handle);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#library.symbols.tinyai_tracer_destroy(this.#handle);
  }

  #read(base: number): TracedOp {
    const list = (field: "loads" | "stores" | "bytes_read" | "bytes_written" | "accesses" | "misses"): Float64Array => {
      const from = base + wordOf(field);
      const length = field === "accesses" || field === "misses" ? 3 : regions.length;
      return Float64Array.from(this.#words.subarray(from, from + length), Number);
    };
    return {
      loads: list("loads"),
      stores: list("stores"),
      bytesRead: list("bytes_read"),
      bytesWritten: list("bytes_written"),
      accesses: list("accesses"),
      misses: list("misses"),
      memoryLines: Number(this.#words[base + wordOf("memory_lines")]),
    };
  }
}
