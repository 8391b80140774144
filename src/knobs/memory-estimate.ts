// How much memory an engine takes at least and at most, from its plan alone. Its own memory is what the library sets aside for it,
// as far as it is in memory: the weights, mapped or packed, and everything steps work with. Neither JavaScript's heap nor the
// tokenizer is in it, nor threads' stacks. `model.memoryInUse()` measures the same of a loaded model.

import { eventCapacity } from "../engine/engine.ts";
import { type MemoryByPart, type MemoryPart, memoryParts, programMemory, totalMemory } from "../engine/footprint.ts";
import type { Library } from "../engine/library.ts";
import { pagePositions } from "../plan/layout.ts";
import type { KvGroupPlan, Plan, PlannedBuffer } from "../plan/plan.ts";

/** What an engine takes, in bytes. */
export interface MemoryEstimate {
  /** Once it is loaded and has run one short request: 32 tokens, and 32 more if it generates. */
  readonly minMemory: number;
  /**
   * Once it has run all that it can at a time: a batch whose sequences fill the context, with steps of all rows and logits, and as
   * much kept of ended texts as may be. A profile takes up to 1 MiB a thread more while it is recorded.
   */
  readonly maxMemory: number;
  /** The same by what it is for. */
  readonly parts: readonly MemoryEstimatePart[];
}

/** A part of an estimate, in bytes. */
export interface MemoryEstimatePart {
  readonly name: MemoryPart;
  readonly minimum: number;
  readonly maximum: number;
}

/** Memory comes in pages of so many bytes. */
const systemPage = 4096;
/** Scratch that kernels write, of each thread: an unpacked group of rows, or a block of attention. */
const kernelScratchBytes = 96 << 10;
/** Bytes of the source file that a thread reads and packs at a time (zig/engine.zig). */
const packPieceBytes = 512 << 10;
/** Tokens of a short request that are computed in one step. */
const shortRows = 32;

export function estimatePlan(library: Library, plan: Plan, threadCount: number): MemoryEstimate {
  const taken = programMemory(library, plan.program, threadCount, eventCapacity);
  const minimum = atLeast(plan, taken, threadCount);
  const maximum = atMost(plan, taken, threadCount);
  return {
    minMemory: totalMemory(minimum),
    maxMemory: totalMemory(maximum),
    parts: memoryParts.map((name) => ({ name, minimum: minimum[name], maximum: maximum[name] })),
  };
}

function atLeast(plan: Plan, taken: MemoryByPart, threadCount: number): MemoryByPart {
  const { kvGroups, options } = plan;
  // A screen is made from a step of its own.
  const logitsRows = plan.screenBytes > 0 ? Math.min(shortRows, options.logitsRowsMax) : 1;
  const rows = { step: Math.min(shortRows, options.rowsMax), logits: logitsRows, fixed: 1 };
  return {
    ...taken,
    activations: touchedBytes(plan.buffers, (buffer) => Math.min(buffer.rows, rows[buffer.rowsOf])),
    tokens: systemPage,
    keysAndValues: kvGroups.reduce((sum, { pageBytes }) => sum + pageBytes, 0),
    pages: kvGroups.length * systemPage,
    scratch: scratchBytes(plan, taken, threadCount),
    candidates: 0,
    events: 0,
    records: systemPage,
  };
}

function atMost(plan: Plan, taken: MemoryByPart, threadCount: number): MemoryByPart {
  const { kvGroups, options } = plan;
  const pages = kvGroups.map((group) => pagesTouched(group, plan));
  const known = kvGroups.reduce((sum, { pageCount }) => sum + pageCount, 0);
  const touched = pages.reduce((sum, count) => sum + count, 0);
  return {
    ...taken,
    activations: touchedBytes(plan.buffers, ({ rows }) => rows),
    tokens: Math.min(taken.tokens, roundUp(options.batchMax * options.contextMax * 4)),
    keysAndValues: kvGroups.reduce((sum, { pageBytes }, index) => sum + pageBytes * (pages[index] ?? 0), 0),
    pages: known === 0 ? 0 : Math.ceil((taken.pages / known) * touched),
    scratch: scratchBytes(plan, taken, threadCount),
    events: 0,
  };
}

/** Pages of a group that are ever written: those that the longest batch holds at one time, and those that are kept beside them. */
function pagesTouched({ window, pageCount, keptMax }: KvGroupPlan, { options }: Plan): number {
  const { contextMax, batchMax, rowsMax } = options;
  // One sequence takes its prompt in whole steps while the others generate. A window may begin and end within a page.
  const all = Math.ceil(contextMax / pagePositions);
  const held = (rows: number) => (window > 0 ? Math.min(all, Math.ceil((window - 1 + rows) / pagePositions) + 1) : all);
  return Math.min(pageCount, held(rowsMax) + (batchMax - 1) * held(1) + keptMax);
}

/**
 * Kernels write little of it. Weights that are packed when they are loaded are read into it by pieces, a large matrix by all threads at
 * a time; those of another format stand there as values, and converted, too.
 */
function scratchBytes({ options, matrices }: Plan, { scratch }: MemoryByPart, threadCount: number): number {
  const read = options.packedWeights ? [] : matrices;
  const threads = Array.from({ length: threadCount }, (_, thread) =>
    read.map(({ sourceBytes, converted, rows, columns, bytes }) => {
      const piece = Math.max(0, Math.min(packPieceBytes, sourceBytes - thread * packPieceBytes));
      return converted ? piece * (1 + (4 * rows * columns + bytes) / sourceBytes) : piece;
    }),
  );
  const written = threads.map((pieces) => Math.max(kernelScratchBytes, ...pieces));
  return Math.min(
    scratch,
    written.reduce((sum, bytes) => sum + roundUp(bytes), 0),
  );
}

/** Bytes of the arena's pages that are written, if each buffer's first rows are. */
function touchedBytes(buffers: readonly PlannedBuffer[], rowsOf: (buffer: PlannedBuffer) => number): number {
  const stretches = buffers
    .map((buffer) => ({ begin: buffer.offset, end: buffer.offset + (buffer.bytes / buffer.rows) * rowsOf(buffer) }))
    .sort((a, b) => a.begin - b.begin);
  let bytes = 0;
  let until = 0;
  for (const { begin, end } of stretches) {
    const first = Math.max(until, begin - (begin % systemPage));
    const last = roundUp(end);
    if (last > first) bytes += last - first;
    until = Math.max(until, last);
  }
  return bytes;
}

function roundUp(bytes: number): number {
  return Math.ceil(bytes / systemPage) * systemPage;
}
