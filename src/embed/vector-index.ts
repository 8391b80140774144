// Search by meaning: the vectors of an index that are nearest to a query's, all of them looked at. An index is built once, in
// memory, or opened from a file, which is mapped. The library looks through it on threads of its own; this ties its rows to ids.

import { statSync } from "node:fs";
import { checkBoolean, checkInteger, checkKeys, describe } from "../check.ts";
import { chooseLevel, cpu } from "../engine/cpu.ts";
import { type Library, openLibrary } from "../engine/library.ts";
import { columnsMax, type Found, keepMax, queriesMax, rowsMax, Vectors } from "../engine/search.ts";
import { EngineError, OptionError } from "../errors.ts";
import { IdTable } from "./ids.ts";
import {
  damaged,
  headBytes,
  type IndexDescription,
  type Metric,
  modelNameBytesMax,
  nextTurn,
  pieces,
  readIndexHead,
  sumVectors,
  writeIndex,
} from "./index-file.ts";
import { type Matrix, makeUnit, type Rows, rowsOf } from "./matrix.ts";

/** Options of `createIndex`. */
export interface CreateIndexOptions {
  /** What the vectors are called, one text for each; hits tell it. */
  readonly ids?: readonly string[] | undefined;
  /**
   * What a score is: the cosine of two vectors' angle, -1 to 1, or their product as they are. Default "cosine", for which the index
   * keeps vectors of length 1.
   */
  readonly metric?: Metric | undefined;
  /** What the vectors were made with, such as the model's name: kept with them, for whoever opens the file. */
  readonly model?: string | undefined;
  /** Threads that search, at most the CPUs this process may use, which is the default. */
  readonly threads?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Options of `openIndex`. */
export interface OpenIndexOptions {
  /**
   * Whether the whole file is read and held to its checksum, which takes a fifth of a second a gigabyte once it is in memory. Without,
   * they are read in the background, or when they are first searched, and damage to them goes unseen. Default true.
   */
  readonly verify?: boolean | undefined;
  /** As `createIndex` has it. */
  readonly threads?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Options of `search`. */
export interface SearchOptions {
  /** Hits at most, for each query. 1 to 1,024, default 10. */
  readonly count?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** A vector that was found. */
export interface SearchHit {
  /** Which of the index's vectors it is, from 0. */
  readonly index: number;
  /** As the index's metric has it: the larger, the nearer. */
  readonly score: number;
  /** What it is called, where the index has ids. */
  readonly id?: string;
}

/** What the public `createIndex` does. */
export async function createIndex(
  vectors: readonly Float32Array[] | Matrix,
  options: CreateIndexOptions = {},
): Promise<VectorIndex> {
  checkKeys("options", options, ["ids", "metric", "model", "threads", "signal"]);
  const { metric = "cosine", model = "", signal } = options;
  if (metric !== "cosine" && metric !== "dot") {
    throw new OptionError("metric", `is ${describe(metric)}; "cosine" or "dot" is expected`);
  }
  if (typeof model !== "string" || Buffer.byteLength(model) > modelNameBytesMax) {
    throw new OptionError("model", `is ${describe(model)}; a text of at most ${modelNameBytesMax} bytes is expected`);
  }
  const threads = checkThreads(options.threads);
  checkSignal(signal);
  const rows = rowsOf("vectors", vectors);
  checkInteger("vectors", rows.count, 1, rowsMax);
  if (rows.columns > columnsMax) {
    throw new OptionError("vectors", `have ${rows.columns} values; at most ${columnsMax} are allowed`);
  }
  const ids = options.ids === undefined ? undefined : IdTable.of(options.ids, rows.count);
  const library = await openLibrary();
  const stored = new Vectors(library, rows.count, rows.columns);
  try {
    await copyRows(rows, stored, metric, signal);
  } catch (error) {
    stored.destroy();
    throw error;
  }
  return new VectorIndex(library, stored, { metric, count: rows.count, dimensions: rows.columns, model, ids }, threads);
}

async function copyRows(rows: Rows, stored: Vectors, metric: Metric, signal: AbortSignal | undefined): Promise<void> {
  for (const piece of pieces(rows.count, rows.columns)) {
    signal?.throwIfAborted();
    const target = stored.view(piece.first, piece.count);
    for (let row = 0; row < piece.count; row++) {
      const place = target.subarray(row * stored.stride, row * stored.stride + rows.columns);
      place.set(rows.row(piece.first + row));
      if (metric === "cosine") makeUnit(place);
    }
    await nextTurn();
  }
}

/** What the public `openIndex` does. */
export async function openIndex(path: string, options: OpenIndexOptions = {}): Promise<VectorIndex> {
  checkPath(path);
  checkKeys("options", options, ["verify", "threads", "signal"]);
  const { verify = true, signal } = options;
  checkBoolean("verify", verify);
  const threads = checkThreads(options.threads);
  checkSignal(signal);
  signal?.throwIfAborted();
  const library = await openLibrary();
  const { checksum, description, vectors } = await openConsistently(library, path, signal);
  const { dimensions } = description;
  try {
    if (verify && (await sumVectors(vectors, dimensions, signal)) !== checksum) {
      throw damaged(path, "its vectors' checksum does not fit");
    }
  } catch (error) {
    vectors.destroy();
    throw error;
  }
  return new VectorIndex(library, vectors, description, threads);
}

interface OpenedFile {
  readonly checksum: bigint;
  readonly description: IndexDescription;
  readonly vectors: Vectors;
}

/** The head and the vectors of one file: of one that another took the place of in between, they would be of different indexes. */
async function openConsistently(library: Library, path: string, signal: AbortSignal | undefined): Promise<OpenedFile> {
  for (;;) {
    signal?.throwIfAborted();
    const before = identityOf(path);
    const { checksum, ...description } = await readIndexHead(path);
    const { count, dimensions } = description;
    try {
      const vectors = new Vectors(library, count, dimensions, { path, offset: headBytes });
      if (identityOf(path) === before) return { checksum, description, vectors };
      vectors.destroy();
    } catch (error) {
      if (identityOf(path) === before) throw error;
    }
  }
}

/** Another for every file that takes a place; none where there is none that could be opened, which opening it tells. */
function identityOf(path: string): string | undefined {
  try {
    const { dev, ino, size, mtimeNs } = statSync(path, { bigint: true });
    return [dev, ino, size, mtimeNs].join(" ");
  } catch {
    return undefined;
  }
}

/** Vectors to search. Close it when done, best with `using`. */
export class VectorIndex implements Disposable {
  readonly #vectors: Vectors;
  readonly #description: IndexDescription;
  readonly #level: number;
  readonly #threads: number;
  /** What looks at the vectors and has not ended. */
  #users = 0;
  #closed = false;
  /** The search before; they take turns. */
  #turn: Promise<unknown> = Promise.resolve();

  /** @internal createIndex and openIndex make indexes. */
  constructor(library: Library, vectors: Vectors, description: IndexDescription, threads: number) {
    this.#vectors = vectors;
    this.#description = description;
    this.#level = chooseLevel(library, undefined).index;
    this.#threads = threads;
  }

  /** Vectors in it. */
  get count(): number {
    return this.#description.count;
  }

  /** Values of a vector. */
  get dimensions(): number {
    return this.#description.dimensions;
  }

  /** What a score is. */
  get metric(): Metric {
    return this.#description.metric;
  }

  /** What the vectors were made with, if that was said when it was created. */
  get model(): string | undefined {
    return this.#description.model || undefined;
  }

  /** What vector number `index` is called; undefined where the index has no ids. */
  id(index: number): string | undefined {
    checkInteger("index", index, 0, this.count - 1);
    return this.#description.ids?.get(index);
  }

  /** A copy of vector number `index`, as it is searched. */
  vector(index: number): Float32Array {
    this.#checkOpen();
    checkInteger("index", index, 0, this.count - 1);
    return this.#vectors.view(index, 1).slice(0, this.dimensions);
  }

  /**
   * The vectors nearest to a query, the best first; of equally near ones the first. Every vector is looked at. Several queries give a
   * list each, in less time than one after the other.
   * @throws {OptionError} if an option or a query is out of its bounds.
   * @throws {EngineError} if the index is closed, or the system refuses memory.
   */
  search(query: Float32Array, options?: SearchOptions): Promise<SearchHit[]>;
  search(queries: readonly Float32Array[] | Matrix, options?: SearchOptions): Promise<SearchHit[][]>;
  async search(
    input: Float32Array | readonly Float32Array[] | Matrix,
    options: SearchOptions = {},
  ): Promise<SearchHit[] | SearchHit[][]> {
    this.#checkOpen();
    checkKeys("options", options, ["count", "signal"]);
    const { count = 10, signal } = options;
    checkInteger("count", count, 1, keepMax);
    checkSignal(signal);
    if (input instanceof Float32Array) {
      const [hits] = await this.#searchAll(this.#checkQueries("query", [input]), count, signal);
      return hits ?? [];
    }
    if (Array.isArray(input) && input.length === 0) return [];
    return await this.#searchAll(this.#checkQueries("queries", input), count, signal);
  }

  #checkQueries(option: string, input: readonly Float32Array[] | Matrix): Rows {
    const rows = rowsOf(option, input);
    if (rows.columns === this.dimensions) return rows;
    const problem = `has ${rows.columns} values and the index's vectors ${this.dimensions}: they are of different models`;
    throw new OptionError(option, problem);
  }

  async #searchAll(queries: Rows, count: number, signal: AbortSignal | undefined): Promise<SearchHit[][]> {
    const { stride } = this.#vectors;
    const hits: SearchHit[][] = [];
    for (let first = 0; first < queries.count; first += queriesMax) {
      const group = Math.min(queriesMax, queries.count - first);
      const floats = new Float32Array(group * stride);
      for (let row = 0; row < group; row++) {
        const place = floats.subarray(row * stride, row * stride + this.dimensions);
        place.set(queries.row(first + row));
        if (this.metric === "cosine") makeUnit(place);
      }
      const found = await this.#inTurn(() =>
        this.#vectors.search(floats, count, { level: this.#level, threadCount: this.#threads, signal }),
      );
      for (let row = 0; row < group; row++) hits.push(this.#hits(found, row));
    }
    return hits;
  }

  #hits({ count, rows, scores }: Found, query: number): SearchHit[] {
    return Array.from({ length: count }, (_, place) => {
      const index = rows[query * count + place] ?? 0;
      const score = scores[query * count + place] ?? 0;
      const id = this.#description.ids?.get(index);
      return id === undefined ? { index, score } : { index, score, id };
    });
  }

  /**
   * Writes the index to a file: to a temporary one beside it, which takes its place once it is on the disk.
   * @throws {IndexFileError} if it cannot be written; a file that was there stays.
   */
  async save(path: string): Promise<void> {
    checkPath(path);
    await this.#use(() => writeIndex(path, this.#description, this.#vectors));
  }

  /** Gives the vectors' memory back, once what is under way has ended. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#users === 0) this.#vectors.destroy();
  }

  /** As `close`. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** Searches one after the other: each takes all threads. */
  #inTurn<Result>(work: () => Promise<Result>): Promise<Result> {
    const turn = this.#turn.then(() => this.#use(work));
    this.#turn = turn.catch(() => {});
    return turn;
  }

  async #use<Result>(work: () => Promise<Result>): Promise<Result> {
    this.#checkOpen();
    this.#users += 1;
    try {
      return await work();
    } finally {
      this.#users -= 1;
      if (this.#closed && this.#users === 0) this.#vectors.destroy();
    }
  }

  #checkOpen(): void {
    if (this.#closed) throw new EngineError("the index is closed; open it again");
  }
}

function checkThreads(threads: unknown): number {
  const most = Math.min(cpu.cores, 64);
  return threads === undefined ? most : checkInteger("threads", threads, 1, most);
}

function checkSignal(signal: unknown): void {
  if (signal === undefined || signal instanceof AbortSignal) return;
  throw new OptionError("signal", `is ${describe(signal)}; an AbortSignal is expected`);
}

function checkPath(path: unknown): asserts path is string {
  if (typeof path === "string" && path.length > 0 && !path.includes("\0")) return;
  throw new OptionError("path", `is ${describe(path)}; a path is expected`);
}
