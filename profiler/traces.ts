// A profile for other tools: Chrome's trace format, which Perfetto opens; folded stacks, of which flame graphs are drawn; and
// speedscope's own format. Each is text; the larger two come in pieces, since a trace may have a million slices.

import { type DecodedTrace, decodeTrace, type Slice } from "./decode.ts";
import { phaseParts } from "./parts.ts";
import type { OpRow } from "./profile.ts";
import type { Report, TraceData } from "./report.ts";
import { javascriptName } from "./sections.ts";
import { count } from "./words.ts";

/** Pieces are gathered to about this many characters. */
const PIECE_LENGTH = 2 ** 16;
/** The traced process and the tracks beside the threads', whose numbers have 8 bits. */
const PROCESS = 1;
const STEPS_TRACK = 1_000;
const JAVASCRIPT_TRACK = 1_001;

const sliceNames = {
  work: "unknown op",
  barrier: "waiting",
  idle: "idle",
  sampling: "sampling",
  copy: "copying",
  engine: "forming steps",
} as const;

function opsOf(report: Report): Map<number, OpRow> {
  return new Map(report.byOp.map((op) => [op.index, op]));
}

function sliceName(slice: Slice, ops: ReadonlyMap<number, OpRow>): string {
  const op = slice.kind === "work" ? ops.get(slice.op)?.name : undefined;
  return op ?? (slice.kind === "work" ? `op ${slice.op}` : sliceNames[slice.kind]);
}

function threadName(thread: number): string {
  return thread === 0 ? "thread 0 (engine)" : `thread ${thread}`;
}

/**
 * Chrome's trace format as JSON: each thread is a track with its ops as slices, steps and JavaScript have tracks of their own,
 * memory and tokens a second are counters, and an instant event stands where the trace is cut off. Times are microseconds with three
 * decimals. The pieces joined are one document.
 */
export function* chromeTrace(report: Report, trace: TraceData): Generator<string> {
  const decoded = decodeTrace(trace);
  const { run, machine } = report;
  const other = {
    model: run.model,
    level: run.level,
    threads: run.threads,
    cpu: machine.cpu,
    dropped: decoded.dropped,
    spansDropped: decoded.spansDropped,
  };
  const head = `{"displayTimeUnit":"ns","otherData":${JSON.stringify(other)},"traceEvents":[\n`;
  yield* gathered(head, chromeEvents(report, decoded), ",\n", "\n]}\n");
}

function* chromeEvents(report: Report, decoded: DecodedTrace): Generator<object> {
  const named = (kind: string, tid: number, args: object) => ({ ph: "M", name: kind, pid: PROCESS, tid, ts: 0, args });
  yield named("process_name", 0, { name: `TinyAI: ${report.run.model}` });
  const tracks: (readonly [number, string])[] = [
    [STEPS_TRACK, "steps"],
    ...decoded.threads.map(({ thread }) => [thread + 1, threadName(thread)] as const),
    [JAVASCRIPT_TRACK, "JavaScript"],
  ];
  for (const [order, [tid, name]] of tracks.entries()) {
    yield named("thread_name", tid, { name });
    yield named("thread_sort_index", tid, { sort_index: order });
  }
  const slice = (name: string, category: string, tid: number, startNs: number, endNs: number, args: object) => {
    const times = { ts: startNs / 1e3, dur: (endNs - startNs) / 1e3 };
    return { ph: "X", name, cat: category, pid: PROCESS, tid, ...times, args };
  };
  for (const step of decoded.steps) {
    const { step: number, rows, sequences, phase, startNs, endNs } = step;
    yield slice(phase, "step", STEPS_TRACK, startNs, endNs, { step: number, rows, sequences });
  }
  const ops = opsOf(report);
  for (const { thread, slices } of decoded.threads) {
    for (const piece of slices) {
      const op = ops.get(piece.op);
      const about =
        piece.kind === "work" && op
          ? { kind: op.kind, kernel: op.kernel, layer: op.layer, rows: piece.rows, units: piece.units }
          : piece.kind === "barrier" && op
            ? { after: op.name }
            : {};
      const args = { step: piece.step, ...about };
      yield slice(sliceName(piece, ops), piece.kind, thread + 1, piece.startNs, piece.endNs, args);
    }
  }
  for (const { name, startNs, endNs } of decoded.spans) {
    yield slice(javascriptName(name), "javascript", JAVASCRIPT_TRACK, startNs, endNs, {});
  }
  const counter = (name: string, atNs: number, args: object) => ({
    ph: "C",
    name,
    pid: PROCESS,
    tid: 0,
    ts: atNs / 1e3,
    args,
  });
  for (const { rows, startNs, endNs } of decoded.steps) {
    if (endNs > startNs) yield counter("rows/s", startNs, { "rows/s": (rows * 1e9) / (endNs - startNs) });
  }
  for (const { text, atNs } of cutsOf(decoded)) {
    yield { ph: "i", name: text, cat: "cut", pid: PROCESS, tid: STEPS_TRACK, ts: atNs / 1e3, s: "g", args: {} };
  }
  const last = decoded.steps.at(-1);
  if (last) yield counter("rows/s", last.endNs, { "rows/s": 0 });
  for (const sample of decoded.samples) {
    yield counter("resident memory, bytes", sample.atNs, { bytes: sample.residentBytes });
    yield counter("JavaScript's heap, bytes", sample.atNs, { bytes: sample.heapBytes });
    yield counter("native memory, bytes", sample.atNs, { bytes: sample.nativeBytes });
    yield counter("CPU, %", sample.atNs, { percent: sample.cpuPercent });
    yield counter("page faults", sample.atNs, { minor: sample.minorFaults, major: sample.majorFaults });
  }
}

/** Where the trace ends before the run does, and in words what of it is missing from there on. */
function cutsOf({ threads, spans, dropped, spansDropped }: DecodedTrace): { text: string; atNs: number }[] {
  const cut = (missing: number, what: string, kept: Iterable<{ readonly endNs: number }>) => {
    let atNs = 0;
    for (const { endNs } of kept) atNs = Math.max(atNs, endNs);
    return missing === 0 ? [] : [{ text: `the trace is cut off: ${count(missing, what)} more`, atNs }];
  };
  const slices = threads.flatMap((thread) => thread.slices.slice(-1));
  return [...cut(dropped, "event", slices), ...cut(spansDropped, "span of JavaScript", spans)];
}

/**
 * Folded stacks, a line each: phase, layer, op, joined by semicolons, then the engine thread's nanoseconds. What belongs to no
 * op stands right under its phase. A phase whose ops were divided by guess, since a trace that is cut off does not tell, is called
 * so; where there is nothing to guess by, there is one frame for all steps.
 */
export function foldedStacks(report: Report, trace?: TraceData): string {
  const clean = (frame: string): string => frame.replace(/[;\s]+/g, " ").trim();
  const stacks: string[] = [];
  const push = (frames: readonly string[], ns: number): void => {
    const whole = Math.round(ns);
    if (whole > 0) stacks.push(`${frames.map(clean).join(";")} ${whole}\n`);
  };
  for (const { phase: name, ops, rest, estimated } of phaseParts(report, trace)) {
    const phase = estimated ? `${name} (estimated)` : name;
    for (const { op, ns } of ops) {
      push([phase, op.layer < 0 ? "outside the layers" : `layer ${op.layer}`, op.name], ns);
    }
    for (const part of rest) push([phase, part.name], part.ns);
  }
  return stacks.join("");
}

/** Speedscope's file format: an evented profile for each thread; the engine thread's slices lie inside their steps. */
export function* speedscope(report: Report, trace: TraceData): Generator<string> {
  const decoded = decodeTrace(trace);
  const ops = opsOf(report);
  const frames: { name: string }[] = [];
  const known = new Map<string, number>();
  const frameOf = (name: string): number => {
    const found = known.get(name);
    if (found !== undefined) return found;
    known.set(name, frames.length);
    frames.push({ name });
    return frames.length - 1;
  };
  // Frames stand before the profiles that name them.
  for (const { slices } of decoded.threads) for (const slice of slices) frameOf(sliceName(slice, ops));
  for (const { phase } of decoded.steps) frameOf(`step: ${phase}`);
  for (const { name } of decoded.spans) frameOf(javascriptName(name));
  const head = {
    $schema: "https://www.speedscope.app/file-format-schema.json",
    exporter: `TinyAI ${report.run.version}`,
    name: [report.run.model, ...cutsOf(decoded).map(({ text }) => text)].join("; "),
    activeProfileIndex: 0,
    shared: { frames },
  };
  yield `${JSON.stringify(head).slice(0, -1)},"profiles":[\n`;
  const tracks: { name: string; pieces: Nested[] }[] = decoded.threads.map(({ thread, slices }) => {
    const named = slices.map((slice) => ({ ...slice, frame: frameOf(sliceName(slice, ops)) }));
    if (thread !== 0) return { name: threadName(thread), pieces: named };
    const steps = decoded.steps.map((step) => ({ ...step, frame: frameOf(`step: ${step.phase}`) }));
    return { name: threadName(thread), pieces: insideSteps(named, steps) };
  });
  if (decoded.spans.length > 0) {
    const pieces = decoded.spans.map((span) => ({ ...span, frame: frameOf(javascriptName(span.name)) }));
    tracks.push({ name: "JavaScript", pieces });
  }
  for (const [index, { name, pieces }] of tracks.entries()) {
    const endValue = pieces.reduce((end, piece) => Math.max(end, piece.endNs), 0);
    const about = { type: "evented", name, unit: "nanoseconds", startValue: 0, endValue };
    const open = `${index === 0 ? "" : ",\n"}${JSON.stringify(about).slice(0, -1)},"events":[\n`;
    yield* gathered(open, openAndClose(pieces), ",\n", "\n]}");
  }
  yield "\n]}\n";
}

interface Nested {
  readonly frame: number;
  readonly startNs: number;
  readonly endNs: number;
}

/** The engine thread's slices with the steps around them; a slice that leaves its step is cut at the step's borders. */
function insideSteps(slices: readonly Nested[], steps: readonly Nested[]): Nested[] {
  const pieces: Nested[] = [...steps];
  let at = 0;
  for (const slice of slices) {
    let { startNs } = slice;
    while (startNs < slice.endNs || startNs === slice.startNs) {
      while (at < steps.length && (steps[at]?.endNs ?? 0) <= startNs) at++;
      const step = steps[at];
      const border = step === undefined ? slice.endNs : startNs < step.startNs ? step.startNs : step.endNs;
      const endNs = Math.min(slice.endNs, border);
      pieces.push({ ...slice, startNs, endNs });
      if (endNs === slice.endNs) break;
      startNs = endNs;
    }
  }
  // The step itself before what begins with it.
  return pieces.sort((a, b) => a.startNs - b.startNs || b.endNs - a.endNs);
}

/** Opening and closing of frames in order; `pieces` are sorted, and each lies inside an earlier one or after it. */
function* openAndClose(pieces: readonly Nested[]): Generator<object> {
  const open: Nested[] = [];
  for (const piece of pieces) {
    for (let top = open.at(-1); top && top.endNs <= piece.startNs; top = open.at(-1)) {
      yield { type: "C", frame: top.frame, at: top.endNs };
      open.pop();
    }
    yield { type: "O", frame: piece.frame, at: piece.startNs };
    open.push(piece);
  }
  for (let top = open.pop(); top; top = open.pop()) yield { type: "C", frame: top.frame, at: top.endNs };
}

/** Joins objects as JSON into pieces of some length. */
function* gathered(head: string, objects: Iterable<object>, separator: string, tail: string): Generator<string> {
  let piece = head;
  let first = true;
  for (const object of objects) {
    piece += (first ? "" : separator) + JSON.stringify(object);
    first = false;
    if (piece.length >= PIECE_LENGTH) {
      yield piece;
      piece = "";
    }
  }
  yield piece + tail;
}
