// The layout of what the profiler reads: the 32-byte events that the engine hands over, and the program's op list.
// It fixes offsets and hands out words; it aggregates nothing and knows no model. `zig/program.zig` writes the same layout.

/**
 * One op of a program, as the profiler needs it: a name, where it belongs, and its static cost. An event carries no
 * counters; bytes and operations come from here.
 */
export interface OpInfo {
  /** Position in the program's op list; events name an op by it. */
  readonly index: number;
  /** Such as `blk.3.attn_q`. */
  readonly name: string;
  /** The op's family: `matmul`, `norm`, `attention`, … */
  readonly kind: string;
  /** The kernel that runs it, with format and instruction-set level: `matmul.q5_0.avx512_vnni`. */
  readonly kernel: string;
  /** The layer it belongs to, from 0; -1 when it belongs to none (embedding, output head). */
  readonly layer: number;
  /** Bytes read once in a step that runs the op, whatever the rows: its weights. All threads together. */
  readonly bytesPerStep: number;
  /** Bytes read and written for each row (token). */
  readonly bytesPerRow: number;
  /** Arithmetic operations for each row; a multiply-add counts as two. */
  readonly operationsPerRow: number;
}

/** Bytes of one event. */
export const EVENT_BYTES = 32;

/** 32-bit words of one event. */
export const EVENT_WORDS = EVENT_BYTES / 4;

/**
 * Word offsets inside an event. Times are unsigned 64-bit nanoseconds of the monotonic clock, low word first. The `place`
 * word packs the op's index (bits 0 to 15), the event's kind (16 to 23) and the thread (24 to 31).
 */
export const EventWord = {
  startLow: 0,
  startHigh: 1,
  endLow: 2,
  endHigh: 3,
  step: 4,
  rows: 5,
  place: 6,
  aux: 7,
} as const;

/** Word offsets inside a share's event, in the place of its times. */
export const ShareWord = {
  /** Position of the first row. */
  position: 0,
  /** The sequence's slot in the KV cache. */
  sequence: 1,
  /** Rows of logits that were asked for. */
  logitsRows: 2,
  /** Guessed tokens that came true, and in the upper half how its rows become a vector (`Embeds` in zig/program.zig). */
  accepted: 3,
} as const;

/** What a thread did between an event's start and end. */
export const EventKind = {
  /** Ran an op; `aux` is the number of work units that this thread did, `rows` the op's rows, 0 when there was nothing to do. */
  work: 0,
  /** Waited for the other threads at the op's end. */
  barrier: 1,
  /** Had nothing to run. */
  idle: 2,
  /** Drew tokens from logits. */
  sampling: 3,
  /** Moved data outside any op. */
  copy: 4,
  /**
   * A whole step as the engine thread saw it, taken apart from the other events. `aux` is the number of sequences in it and,
   * in the upper half, how many of its rows were guessed tokens that came true; `rows` leaves out those that did not.
   */
  step: 5,
  /**
   * What one sequence had of a step, before the step's own event. `aux` is the request's id, `rows` its rows in the step. The
   * words of start and end are no times: see `ShareWord`.
   */
  share: 6,
  /** The engine thread formed a step and woke the others, or took in what it gave and told of it. */
  engine: 7,
} as const;

/** The op index of an event that belongs to no op. */
export const NO_OP = 0xffff;

/**
 * The events as 32-bit words, without a copy where the bytes lie aligned. Every platform that TinyAI builds for is little
 * endian, as the events are.
 * @throws {RangeError} when the length is not a whole number of events.
 */
export function eventWords(events: Uint8Array): Uint32Array {
  if (events.byteLength % EVENT_BYTES !== 0) {
    throw new RangeError(
      `profiler events: ${events.byteLength} bytes are not a whole number of events of ${EVENT_BYTES} bytes; pass what one drain of a ring returned, uncut`,
    );
  }
  const words = events.byteLength / 4;
  if (events.byteOffset % 4 === 0) return new Uint32Array(events.buffer, events.byteOffset, words);
  return new Uint32Array(events.slice().buffer, 0, words);
}
