// How fast a folder's disk is read and written: one file, in large pieces one behind the other and in small ones at drawn places, one
// access at a time. The page cache is bypassed where the system lets it be (O_DIRECT); where not, the figures say so. The file has no
// name any more once it is open, where the system allows that: whatever ends the process, nothing of it stays.

import {
  closeSync,
  constants,
  fdatasyncSync,
  mkdirSync,
  openSync,
  readSync,
  rmSync,
  statfsSync,
  statSync,
  writeSync,
} from "node:fs";
import { join, resolve } from "node:path";
import { alignedBytes } from "../../engine/library.ts";
import { OptionError } from "../../errors.ts";
import { isSystemError } from "../../files.ts";
import { homeFolder } from "../../model/folders.ts";
import { mountOf } from "../machine/mounts.ts";
import type { Part, PartOptions } from "../part.ts";
import type { DiskAccessFigures, DiskFigures } from "../results.ts";
import { eventLoopTurn, takeRounds } from "../rounds.ts";
import { latencyOf, statisticsOf } from "../statistics/describe.ts";
import { seededRandom } from "../statistics/random.ts";
import { Thinned } from "./thinned.ts";

export interface DiskOptions extends PartOptions {
  /** Where the file is made; undefined: in TinyAI's folder. */
  readonly folder?: string | undefined;
  /** Of the file at most: a multiple of 512 KiB. */
  readonly fileBytes?: number;
  /** Whether the page cache is to be bypassed where that can be. Default true. */
  readonly direct?: boolean;
}

/** Far more than a disk's own cache takes at once, and little beside what disks have. */
const fileBytesDefault = 256 << 20;
/** What any disk takes as one request: of 1 MiB, memory that lies apart made two of some, which ones differed from process to process. */
const sequentialBlock = 1 << 19;
const randomBlock = 4096;
/** What direct I/O wants of addresses, lengths and places, on every disk that is in use. */
const alignment = 4096;
/** Of the free space, what the file takes at most. */
const freePart = 0.1;
const fileBytesMin = 8 << 20;
/** Of the time, what writing the file for the first time takes at most; it is shorter then. */
const fillPart = 0.25;
/** Accesses of each slice whose times are kept, spread over it, at most. */
const timesPerSlice = 50;
/** The event loop has a turn after so long. */
const turnMs = 20;

/** Kinds of accesses. */
export const kinds = ["sequential_write", "sequential_read", "random_write", "random_read"] as const;
export type Kind = (typeof kinds)[number];

/** What a slice of time gave. */
interface Slice {
  readonly bytes: number;
  readonly count: number;
  readonly elapsedMs: number;
  readonly timesMs: readonly number[];
}

/** @throws {OptionError} if the folder cannot be used. */
export async function measureDisk(options: DiskOptions): Promise<Part<DiskFigures>> {
  const { signal, seed, timeMs, fileBytes = fileBytesDefault } = options;
  const folder = resolve(options.folder ?? homeFolder());
  const file = prepareFile(folder, options);
  try {
    await file.fill(timeMs * fillPart, signal);
    const random = seededRandom(seed);
    const takes = kinds.map((kind) => (sliceMs: number) => file.access(kind, sliceMs, random, signal));
    const slices = await takeRounds(takes, { ...options, random, timeMs: timeMs * (1 - fillPart) });
    if (slices[0]?.length === 0) return { methodology: [], warnings: [] };
    const about = {
      folder,
      file_system: mountOf(folder)?.fileSystem ?? null,
      direct: file.direct,
      file_bytes: file.bytes,
    };
    const measured = kinds.map((kind, place) => [kind, figuresOf(kind, slices[place] ?? [], seed)] as const);
    const figures = { ...about, ...Object.fromEntries(measured) };
    return { figures, methodology: methodOf(file), warnings: warningsOf(figures, fileBytes) };
  } catch (error) {
    if (!isSystemError(error)) throw error;
    throw unusable(folder, error.message);
  } finally {
    file.close();
  }
}

/**
 * Makes the file that is measured, as large as there is room for.
 * @throws {OptionError} if there is no such folder, it cannot be written, or it has too little space.
 */
export function prepareFile(folder: string, options: Pick<DiskOptions, "folder" | "fileBytes" | "direct">): OpenFile {
  const { fileBytes = fileBytesDefault, direct = true } = options;
  try {
    if (options.folder === undefined) mkdirSync(folder, { recursive: true });
    if (!statSync(folder).isDirectory()) throw unusable(folder, "it is no folder");
    const { bavail, bsize } = statfsSync(folder);
    const free = bavail * bsize;
    const bytes = Math.min(fileBytes, Math.floor((free * freePart) / sequentialBlock) * sequentialBlock);
    if (bytes < Math.min(fileBytes, fileBytesMin)) throw unusable(folder, `only ${Math.floor(free / 1e6)} MB are free`);
    return openFile(folder, bytes, direct);
  } catch (error) {
    if (!isSystemError(error)) throw error;
    throw unusable(folder, error.message);
  }
}

function unusable(folder: string, why: string): OptionError {
  return new OptionError("--disk-folder", `${folder}: cannot be measured: ${why}; name another folder`);
}

function figuresOf(kind: Kind, slices: readonly Slice[], seed: number): DiskAccessFigures {
  const perSecond = (of: (slice: Slice) => number) =>
    statisticsOf(
      slices.map((slice) => (of(slice) * 1000) / slice.elapsedMs),
      seededRandom(seed),
    );
  return {
    block_bytes: blockOf(kind),
    queue_depth: 1,
    bytes: slices.reduce((sum, { bytes }) => sum + bytes, 0),
    rate: perSecond(({ bytes }) => bytes / 1e6),
    operations: perSecond(({ count }) => count),
    latency: latencyOf(
      slices.flatMap(({ timesMs }) => timesMs),
      seededRandom(seed),
    ),
  };
}

function blockOf(kind: Kind): number {
  return kind.startsWith("sequential") ? sequentialBlock : randomBlock;
}

/** The file that is measured. */
export class OpenFile {
  readonly direct: boolean;
  /** Open as long as it is. */
  readonly descriptor: number;
  readonly #path: string;
  readonly #block = alignedBytes(sequentialBlock, alignment);
  readonly #counts = new Float64Array(this.#block.buffer, this.#block.byteOffset, sequentialBlock / 8);
  #written = 0;
  readonly #places = { sequential_write: 0, sequential_read: 0 };
  #bytes: number;

  constructor(path: string, descriptor: number, bytes: number, direct: boolean) {
    this.#path = path;
    this.descriptor = descriptor;
    this.#bytes = bytes;
    this.direct = direct;
    // Drawn, for some disks store what can be said shorter in less.
    for (let at = 0; at < sequentialBlock; at += 65_536) crypto.getRandomValues(this.#block.subarray(at, at + 65_536));
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Writes it for the first time, as much of it as there is time for: what is measured finds its place on the disk chosen. */
  async fill(budgetMs: number, signal: AbortSignal | undefined): Promise<void> {
    const beganMs = performance.now();
    let at = 0;
    while (at < this.#bytes && !signal?.aborted) {
      if (at >= fileBytesMin && performance.now() - beganMs > budgetMs) break;
      this.#write(sequentialBlock, at);
      at += sequentialBlock;
      if (at % (8 * sequentialBlock) === 0) await eventLoopTurn();
    }
    fdatasyncSync(this.descriptor);
    this.#bytes = at;
  }

  /** Accesses of one kind, one behind the other, for so long. */
  async access(kind: Kind, sliceMs: number, random: () => number, signal: AbortSignal | undefined): Promise<Slice> {
    const block = blockOf(kind);
    const blocks = this.#bytes / block;
    const writes = kind.endsWith("write");
    const times = new Thinned(timesPerSlice);
    const beganMs = performance.now();
    let nowMs = beganMs;
    let nextTurnMs = beganMs + turnMs;
    let count = 0;
    do {
      const place = this.#nextPlace(kind, blocks, random) * block;
      const begin = performance.now();
      if (writes) this.#write(block, place);
      else this.#read(block, place);
      nowMs = performance.now();
      count++;
      times.add(nowMs - begin);
      if (nowMs > nextTurnMs) {
        await eventLoopTurn();
        nextTurnMs = nowMs + turnMs;
      }
    } while (nowMs - beganMs < sliceMs && !signal?.aborted);
    // Without it, it would be memory that was written.
    if (writes && !this.direct) fdatasyncSync(this.descriptor);
    return { bytes: count * block, count, elapsedMs: performance.now() - beganMs, timesMs: times.values };
  }

  #nextPlace(kind: Kind, blocks: number, random: () => number): number {
    if (kind === "random_read" || kind === "random_write") return Math.floor(random() * blocks);
    const place = this.#places[kind];
    this.#places[kind] = (place + 1) % blocks;
    return place;
  }

  /** Nothing is written twice, for some disks store what repeats itself once: each 4 KiB begin with a number of their own. */
  #write(bytes: number, at: number): void {
    for (let word = 0; word < bytes / 8; word += randomBlock / 8) this.#counts[word] = this.#written++;
    for (let done = 0; done < bytes; ) done += writeSync(this.descriptor, this.#block, done, bytes - done, at + done);
  }

  #read(bytes: number, at: number): void {
    for (let done = 0; done < bytes; ) {
      const got = readSync(this.descriptor, this.#block, done, bytes - done, at + done);
      if (got === 0) throw new Error(`${this.#path}: ends at byte ${at + done}`);
      done += got;
    }
  }

  /** Nothing of it stays. */
  close(): void {
    closeSync(this.descriptor);
    rmSync(this.#path, { force: true });
  }
}

/** Makes the file, without the page cache where that can be. */
function openFile(folder: string, bytes: number, direct: boolean): OpenFile {
  const path = join(folder, `tinyai-disk-${crypto.randomUUID().slice(-12)}.tmp`);
  const flags = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL;
  // Not every system has the flag, whatever its type says.
  const bypass: number | undefined = constants.O_DIRECT;
  if (direct && bypass !== undefined) {
    const descriptor = tryDirect(path, flags | bypass);
    if (descriptor !== undefined) return new OpenFile(path, descriptor, bytes, true);
  }
  return new OpenFile(path, openUnnamed(path, flags), bytes, false);
}

/** Undefined if the file system refuses direct I/O, which some do only when something is written. */
function tryDirect(path: string, flags: number): number | undefined {
  let descriptor: number | undefined;
  try {
    descriptor = openUnnamed(path, flags);
    writeSync(descriptor, alignedBytes(randomBlock, alignment), 0, randomBlock, 0);
    return descriptor;
  } catch (error) {
    if (descriptor !== undefined) closeSync(descriptor);
    rmSync(path, { force: true });
    if ((error as NodeJS.ErrnoException).code === "EINVAL") return undefined;
    throw error;
  }
}

function openUnnamed(path: string, flags: number): number {
  const descriptor = openSync(path, flags, 0o600);
  // Where an open file keeps its name (Windows), closing removes it.
  if (process.platform !== "win32") rmSync(path, { force: true });
  return descriptor;
}

function methodOf({ direct, bytes }: OpenFile): string[] {
  const cache = direct
    ? "with direct I/O (O_DIRECT), past the page cache but not past the disk's own"
    : "through the page cache, each slice of writing ended by a flush to the disk";
  return [
    `The disk was read and written through one file of ${bytes / 2 ** 20} MiB that had been written before, ${cache}; one access at a time (queue depth 1), of 512 KiB one behind the other or of 4 KiB at drawn places.`,
    `Reading and writing took turns in a drawn order; a sample is a slice of time, and times of single accesses are of at most ${timesPerSlice} of each slice, spread over it.`,
  ];
}

const memoryFileSystems: readonly (string | null)[] = ["tmpfs", "ramfs"];

function warningsOf(figures: DiskFigures, wanted: number): string[] {
  const { folder, file_system, direct, file_bytes } = figures;
  const warnings: string[] = [];
  if (memoryFileSystems.includes(file_system)) {
    warnings.push(
      `${folder} is in memory (${file_system}), and so the disk's figures are the memory's; name another folder (--disk-folder).`,
    );
  } else if (!direct) {
    warnings.push(
      "The page cache could not be bypassed: what was read came from memory, not from the disk, and writing's latency is without the flush to the disk that its rate includes.",
    );
  }
  if (file_bytes < wanted) {
    warnings.push(
      `The disk's file had ${Math.floor(file_bytes / 2 ** 20)} MiB instead of ${wanted / 2 ** 20}: space or time was short.`,
    );
  }
  return warnings;
}
