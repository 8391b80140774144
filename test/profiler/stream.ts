// Writes event streams for tests, byte by byte as the engine's layout says, from offsets of its own: a mistake in the
// profiler's layout must not be repeated here.

import type { OpInfo } from "../../profiler/index.ts";

export type EventName = "work" | "barrier" | "idle" | "sampling" | "copy" | "step" | "share";

const KINDS: readonly EventName[] = ["work", "barrier", "idle", "sampling", "copy", "step", "share"];

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
