// Vectors in the library's memory and the search of them (zig/search.zig): rows of float32 go in or are mapped from a file,
// queries go in, rows and scores come out. It knows no ids, and not what a score means.

import { EngineError } from "../errors.ts";
import * as layout from "../plan/layout.ts";
import { Bell } from "./bell.ts";
import { type Library, type Pointer, viewMemory } from "./library.ts";

/** As zig/search.zig bounds them. */
export const columnsMax = 1 << 16;
export const rowsMax = 2 ** 31;
export const queriesMax = 1024;
export const keepMax = 1024;
/** Floats of a row are a multiple of it. */
const columnMultiple = 16;

/** A search of fewer products than this, which takes half a millisecond, is done where it is asked for: threads would cost as much. */
const shortProducts = 1 << 21;

/** Where vectors lie in a file. */
export interface VectorsPlace {
  readonly path: string;
  /** A multiple of 64. */
  readonly offset: number;
}

export interface SearchWay {
  /** Index of the instruction-set level in `library.levels`. */
  readonly level: number;
  /** 1 to 64. */
  readonly threadCount: number;
  readonly signal?: AbortSignal | undefined;
}

/** For each query as many rows as were asked for or there are, the best first. */
export interface Found {
  readonly count: number;
  readonly rows: Uint32Array;
  readonly scores: Float32Array;
}

/** Floats that a row of `columns` takes: the rest are zeros. */
export function rowStride(columns: number): number {
  return layout.alignUp(columns, columnMultiple);
}

export class Vectors {
  readonly rowCount: number;
  /** Floats of a row. */
  readonly stride: number;
  readonly #library: Library;
  readonly #handle: Pointer;
  readonly #address: Pointer;

  /**
   * Room for `rowCount` vectors of `columns` values, all zeros, or those of a file.
   * @throws {EngineError} if the system refuses the memory, or the file.
   */
  constructor(library: Library, rowCount: number, columns: number, place?: VectorsPlace) {
    this.rowCount = rowCount;
    this.stride = rowStride(columns);
    const { symbols } = library;
    const failure = new Uint32Array(1);
    const path = place ? Buffer.from(`${place.path}\0`) : null;
    const handle = symbols.tinyai_vectors_create(rowCount, this.stride, path, place?.offset ?? 0, failure);
    const address = handle && typeof handle !== "bigint" ? symbols.tinyai_vectors_rows(handle) : null;
    if (!handle || typeof handle === "bigint" || !address || typeof address === "bigint") {
      throw new EngineError(problem(failure[0], rowCount, this.stride, place?.path));
    }
    this.#library = library;
    this.#handle = handle;
    this.#address = address;
  }

  /** The floats of `count` rows, to be filled or read; those of a file must not be written to. Not to be touched after `destroy`. */
  view(first: number, count: number): Float32Array {
    const address = (this.#address + first * this.stride * 4) as Pointer;
    const { buffer } = viewMemory(address, count * this.stride * 4);
    return new Float32Array(buffer);
  }

  /**
   * The `keep` rows of each query with the largest products; of equal ones the first. `queries` hold a stride each, at most
   * `queriesMax` of them.
   * @throws {EngineError} if the system refuses memory or a thread.
   * @throws the signal's reason, once the search has ended.
   */
  async search(queries: Float32Array, keep: number, way: SearchWay): Promise<Found> {
    const { symbols } = this.#library;
    const { signal } = way;
    signal?.throwIfAborted();
    const queryCount = queries.length / this.stride;
    const isShort = queries.length * this.rowCount < shortProducts;
    const threadCount = isShort ? 0 : way.threadCount;
    const bell = isShort ? undefined : Bell.take(this.#library);
    const failure = new Uint32Array(1);
    const handle = symbols.tinyai_search_create(
      this.#handle,
      queries,
      queryCount,
      keep,
      way.level,
      threadCount,
      bell?.writeEnd ?? -1,
      failure,
    );
    if (!handle || typeof handle === "bigint") {
      bell?.release();
      throw new EngineError(problem(failure[0], this.rowCount, this.stride));
    }
    try {
      if (bell) await ended(this.#library, bell, handle, signal);
      signal?.throwIfAborted();
      const count = Math.min(keep, this.rowCount);
      const found = { count, rows: new Uint32Array(queryCount * count), scores: new Float32Array(queryCount * count) };
      symbols.tinyai_search_read(handle, found.rows, found.scores);
      return found;
    } finally {
      symbols.tinyai_search_destroy(handle);
      bell?.release();
    }
  }

  /** Gives the memory back. Only once no search is under way. */
  destroy(): void {
    this.#library.symbols.tinyai_vectors_destroy(this.#handle);
  }
}

/** Waits for a search's threads, which an abort ends early. */
async function ended(
  { symbols }: Library,
  bell: Bell,
  handle: Pointer,
  signal: AbortSignal | undefined,
): Promise<void> {
  const stop = () => symbols.tinyai_search_stop(handle);
  signal?.addEventListener("abort", stop, { once: true });
  await bell.until(() => symbols.tinyai_search_ended(handle) === 1);
  signal?.removeEventListener("abort", stop);
}

function problem(failure: number | undefined, rowCount: number, stride: number, path = ""): string {
  const megabytes = `${Math.ceil((rowCount * stride * 4) / 1e6)} MB`;
  switch (layout.failures[failure ?? 0]) {
    case "open":
      return `${path}: cannot be opened by the engine: it was moved, or its permissions changed while it was opened`;
    case "cut_short":
      return `${path}: was cut short while it was opened; make it anew`;
    case "threads":
      return "a thread could not be started: the system's limit is reached; use fewer threads";
    case "program":
      return "the engine refused a search: this is a bug in TinyAI; please report it";
    default:
      return `the system refused memory for ${rowCount} vectors (${megabytes}); free some, or raise the limit (ulimit -v)`;
  }
}
