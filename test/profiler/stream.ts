// Writes event streams for tests, byte by byte as the engine's layout says, from offsets of its own: a mistake in the
// profiler's layout must not be repeated here.

import type { OpInfo } from "../../profiler/index.ts";
import type { Random } from "../support/random.ts";

export type EventName = "work" | "barrier" | "idle" | "sampling" | "copy" | "step" | "share" | "engine";

const KINDS: readonly EventName[] = ["work", "barrier", "idle", "sampling", "copy", "step", "share", "engine"];

export interface TestEvent {
  kind: EventName | number;
  start: number | bigint;
  end: number | bigint;
  step?: number;
  rows?: number;
  op?: number;
  thread?: number;
  aux?: number;
}

/** The bytes of the events, in their order. Step 1, one row, thread 0, no op and one unit unless said otherwise. */
export function encode(events: readonly TestEvent[]): Uint8Array {
  const bytes = new Uint8Array(events.length * 32);
  const view = new DataView(bytes.buffer);
  for (const [index, event] of events.entries()) {
    const at = index * 32;
    view.setBigUint64(at, BigInt(event.start), true);
    view.setBigUint64(at + 8, BigInt(event.end), true);
    view.setUint32(at + 16, event.step ?? 1, true);
    view.setUint32(at + 20, event.rows ?? 1, true);
    view.setUint16(at + 24, event.op ?? 0xffff, true);
    view.setUint8(at + 26, typeof event.kind === "number" ? event.kind : KINDS.indexOf(event.kind));
    view.setUint8(at + 27, event.thread ?? 0);
    view.setUint32(at + 28, event.aux ?? 1, true);
  }
  return bytes;
}

/** What a sequence had of a step: one row of logits and no guesses unless said otherwise. */
export function share(fields: {
  step: number;
  request: number;
  sequence?: number;
  position: number;
  rows: number;
  logitsRows?: number;
  accepted?: number;
}): TestEvent {
  const { step, request, sequence = 0, position, rows, logitsRows = 1, accepted = 0 } = fields;
  const pair = (low: number, high: number): bigint => BigInt(low) | (BigInt(high) << 32n);
  return { kind: "share", step, rows, aux: request, start: pair(position, sequence), end: pair(logitsRows, accepted) };
}

/**
 * A step as the engine writes it, of two threads, with times that vary from 100 ns to 100 µs an op, and its end. One sequence of
 * request 1 generates; every ninth step is a prompt's of request 2.
 */
export function randomStep(
  random: Random,
  ops: number,
  step: number,
  start: number,
): { events: TestEvent[]; end: number } {
  const events: TestEvent[] = [];
  const prompt = step % 9 === 0;
  const [rows, request, position] = prompt ? [64, 2, 0] : [1, 1, step];
  const duration = (): number => Math.floor(100 * 1000 ** random.uniform());
  let at = start + 50;
  const piece = (kind: EventName, ns: number, op?: number): void => {
    const fields = { kind, step, rows, ...(op === undefined ? {} : { op }) };
    events.push({ ...fields, start: at, end: at + ns });
    if (kind === "work") events.push({ ...fields, thread: 1, start: at + 20, end: at + ns + 30 });
    if (kind === "barrier") events.push({ ...fields, thread: 1, start: at + 30, end: at + ns });
    at += ns;
  };
  if (prompt) piece("copy", duration());
  for (let op = 0; op < ops; op++) {
    piece("work", duration(), op);
    piece("barrier", 40, op);
  }
  piece("sampling", duration());
  piece("engine", duration());
  events.push(share({ step, request, position, rows }));
  events.push({ kind: "step", step, rows, aux: 1, start, end: at + 70 });
  return { events, end: at + 70 };
}

/** An op list from a few words an op: `{ kind, layer, … }`; index and names are filled in. */
export function opList(ops: readonly Partial<OpInfo>[]): OpInfo[] {
  return ops.map((op, index) => ({
    name: `op${index}`,
    kind: "matmul",
    kernel: "matmul.test",
    layer: -1,
    bytesPerStep: 0,
    bytesPerRow: 0,
    operationsPerRow: 0,
    ...op,
    index,
  }));
}
