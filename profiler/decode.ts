// A trace's raw events as slices of tracks: what each thread did, one after the other, and the steps. Exports and the report's
// timeline are made from it. profile.ts sums events up and shares only their layout (events.ts) with this.

import { EVENT_WORDS, EventKind, EventWord, eventWords, NO_OP } from "./events.ts";
import type { JavaScriptSpan, SystemSample, TraceData } from "./report.ts";

/** What a thread did from one moment to another, ns since the trace's origin. */
export interface Slice {
  readonly kind: "work" | "barrier" | "idle" | "sampling" | "copy" | "engine";
  /** -1: none. */
  readonly op: number;
  readonly step: number;
  readonly rows: number;
  /** Work units that this thread did. */
  readonly units: number;
  readonly startNs: number;
  readonly endNs: number;
}

/** A step, ns since the trace's origin. */
export interface StepSlice {
  readonly step: number;
  readonly rows: number;
  readonly sequences: number;
  readonly phase: "prompt" | "generation";
  readonly startNs: number;
  readonly endNs: number;
}

/** All times are nanoseconds since the origin, the first moment that anything in the trace names; none is negative. */
export interface DecodedTrace {
  /** By thread number, ascending; a thread's slices are sorted and do not overlap. */
  readonly threads: readonly { readonly thread: number; readonly slices: readonly Slice[] }[];
  /** Sorted; they do not overlap. */
  readonly steps: readonly StepSlice[];
  /** Sorted by start, then the longer first; each lies inside an earlier one or after it. */
  readonly spans: readonly JavaScriptSpan[];
  readonly samples: readonly (SystemSample & { readonly atNs: number })[];
  readonly dropped: number;
  readonly spansDropped: number;
}

const kindNames = new Map<number, Slice["kind"]>([
  [EventKind.work, "work"],
  [EventKind.barrier, "barrier"],
  [EventKind.idle, "idle"],
  [EventKind.sampling, "sampling"],
  [EventKind.copy, "copy"],
  [EventKind.engine, "engine"],
]);

/**
 * Takes a trace apart. Events that no engine should write are left out, as the profile counts them; where two of one thread
 * overlap, the later one begins when the earlier one ends.
 * @throws {RangeError} when a part of the events is not a whole number of events.
 */
export function decodeTrace(trace: TraceData): DecodedTrace {
  // Times are kept relative to a word of the first one, so that they are exact in a double however long the machine is up.
  const baseHigh = Math.floor(trace.startNs / 2 ** 32);
  const baseNs = baseHigh * 2 ** 32;
  const threads = new Map<number, Slice[]>();
  const steps: StepSlice[] = [];
  let origin = trace.startNs - baseNs;
  for (const span of trace.spans) origin = Math.min(origin, span.startNs - baseNs);
  for (const events of trace.events) {
    const words = eventWords(events);
    const word = (at: number): number => words[at] as number;
    for (let at = 0; at < words.length; at += EVENT_WORDS) {
      const place = word(at + EventWord.place);
      const code = (place >>> 16) & 0xff;
      // Other kinds carry words where these carry times.
      if (code !== EventKind.step && !kindNames.has(code)) continue;
      const startNs = (word(at + EventWord.startHigh) - baseHigh) * 2 ** 32 + word(at + EventWord.startLow);
      const endNs = (word(at + EventWord.endHigh) - baseHigh) * 2 ** 32 + word(at + EventWord.endLow);
      if (endNs < startNs) continue;
      origin = Math.min(origin, startNs);
      const [step, rows, aux] = [word(at + EventWord.step), word(at + EventWord.rows), word(at + EventWord.aux)];
      if (code === EventKind.step) {
        const sequences = aux & 0xffff;
        // As the profile tells phases apart: more rows than sequences and guessed tokens is a prompt.
        const phase = rows - (aux >>> 16) > sequences ? "prompt" : "generation";
        steps.push({ step, rows, sequences, phase, startNs, endNs });
        continue;
      }
      const kind = kindNames.get(code);
      if (kind === undefined || (kind === "work" && rows === 0)) continue;
      const op = (place & 0xffff) === NO_OP ? -1 : place & 0xffff;
      const slice: Slice = { kind, op, step, rows, units: aux, startNs, endNs };
      const thread = place >>> 24;
      const slices = threads.get(thread);
      if (slices) slices.push(slice);
      else threads.set(thread, [slice]);
    }
  }
  const moved = <Piece extends { readonly startNs: number; readonly endNs: number }>(piece: Piece): Piece => ({
    ...piece,
    startNs: piece.startNs - origin,
    endNs: piece.endNs - origin,
  });
  const spans = trace.spans
    .filter((span) => span.endNs >= span.startNs)
    .map((span) => ({ ...span, startNs: span.startNs - baseNs - origin, endNs: span.endNs - baseNs - origin }));
  return {
    threads: [...threads]
      .sort(([a], [b]) => a - b)
      .map(([thread, slices]) => ({ thread, slices: apart(slices.map(moved)) })),
    steps: apart(steps.map(moved)),
    spans: nested(spans),
    samples: trace.samples
      .map((sample) => ({ ...sample, atNs: Math.max(0, trace.startNs - baseNs - origin + sample.atMs * 1e6) }))
      .sort((a, b) => a.atNs - b.atNs),
    dropped: trace.dropped,
    spansDropped: trace.spansDropped,
  };
}

interface Piece {
  readonly startNs: number;
  readonly endNs: number;
}

/** Sorts by start and cuts off what overlaps an earlier piece; what lies inside one is gone. */
function apart<P extends Piece>(pieces: readonly P[]): P[] {
  const kept: P[] = [];
  let end = Number.NEGATIVE_INFINITY;
  for (const piece of [...pieces].sort((a, b) => a.startNs - b.startNs || a.endNs - b.endNs)) {
    if (piece.endNs < end || (piece.endNs === end && piece.endNs > piece.startNs && piece.startNs < end)) continue;
    kept.push(piece.startNs < end ? { ...piece, startNs: end } : piece);
    end = piece.endNs;
  }
  return kept;
}

/** Sorts so that what lies inside another follows it, and cuts off what overlaps another's end. */
function nested<P extends Piece>(pieces: readonly P[]): P[] {
  const open: number[] = [];
  const kept: P[] = [];
  for (const piece of [...pieces].sort((a, b) => a.startNs - b.startNs || b.endNs - a.endNs)) {
    while (open.length > 0 && (open.at(-1) ?? 0) <= piece.startNs) open.pop();
    const endNs = Math.min(piece.endNs, open.at(-1) ?? piece.endNs);
    kept.push({ ...piece, endNs });
    open.push(endNs);
  }
  return kept;
}
