// Where the time of steps goes by kind of op, as bare sums: cheap enough to be made of every step while the engine works. A profile has
// the histograms, the other threads, and what overlaps.

import { EVENT_WORDS, EventKind, EventWord, eventWords, type OpInfo } from "./events.ts";

/** What the engine thread spent steps on, ms. The parts add up to `totalMs`. */
export interface StepTimes {
  readonly steps: number;
  /** The steps' own time. */
  readonly totalMs: number;
  /** Its work on ops, by kind (`matmul`, `attention`, …); kinds that did not run are left out. */
  readonly byKind: Readonly<Record<string, number>>;
  /** Its waiting for the other threads. */
  readonly waitingMs: number;
  /** Its drawing of tokens. */
  readonly samplingMs: number;
  /** All the rest: forming steps and telling of them, and what no event covers. */
  readonly otherMs: number;
}

/** Sums up steps as they end. */
export class StepTally {
  readonly #kinds: readonly string[];
  readonly #kindOfOp: Uint16Array;
  /** Of the step under way and of those that ended: ns by kind, then waiting, then sampling. */
  readonly #open: Float64Array;
  readonly #sums: Float64Array;
  #step = -1;
  #steps = 0;
  #totalNs = 0;

  constructor(ops: readonly OpInfo[]) {
    this.#kinds = [...new Set(ops.map(({ kind }) => kind))];
    this.#kindOfOp = Uint16Array.from(ops, ({ kind }) => this.#kinds.indexOf(kind));
    this.#open = new Float64Array(this.#kinds.length + 2);
    this.#sums = new Float64Array(this.#kinds.length + 2);
  }

  /** Takes in events of the engine thread, in their order. */
  add(events: Uint8Array): void {
    const words = eventWords(events);
    // In locals: this is done for every event while the engine wants the CPU.
    const kindOfOp = this.#kindOfOp;
    const open = this.#open;
    const waiting = this.#kinds.length;
    for (let at = 0; at < words.length; at += EVENT_WORDS) {
      const place = words[at + EventWord.place] as number;
      const kind = (place >>> 16) & 0xff;
      let slot = -1;
      // Without rows an op was passed by.
      if (kind === EventKind.work) {
        if ((words[at + EventWord.rows] as number) > 0) slot = kindOfOp[place & 0xffff] ?? -1;
      } else if (kind === EventKind.barrier) slot = waiting;
      else if (kind === EventKind.sampling) slot = waiting + 1;
      if (slot < 0 && kind !== EventKind.step) continue;
      // Of a step whose own event was lost nothing counts.
      const step = words[at + EventWord.step] as number;
      if (step !== this.#step) {
        open.fill(0);
        this.#step = step;
      }
      const high = (words[at + EventWord.endHigh] as number) - (words[at + EventWord.startHigh] as number);
      const ns = high * 2 ** 32 + (words[at + EventWord.endLow] as number) - (words[at + EventWord.startLow] as number);
      if (slot < 0) this.#end(ns);
      else open[slot] = (open[slot] as number) + ns;
    }
  }

  /** The steps that ended since the last call. */
  take(): StepTimes {
    const ms = (slot: number): number => (this.#sums[slot] as number) / 1e6;
    const times = this.#kinds.flatMap((kind, slot) => (ms(slot) > 0 ? [[kind, ms(slot)] as const] : []));
    const waitingMs = ms(this.#kinds.length);
    const samplingMs = ms(this.#kinds.length + 1);
    const totalMs = this.#totalNs / 1e6;
    const known = this.#sums.reduce((sum, ns) => sum + ns, 0);
    const otherMs = (this.#totalNs - known) / 1e6;
    const taken = { steps: this.#steps, totalMs, byKind: Object.fromEntries(times), waitingMs, samplingMs, otherMs };
    this.#sums.fill(0);
    this.#steps = 0;
    this.#totalNs = 0;
    return taken;
  }

  #end(ns: number): void {
    for (const [slot, open] of this.#open.entries()) this.#sums[slot] = (this.#sums[slot] as number) + open;
    this.#open.fill(0);
    this.#step = -1;
    this.#steps++;
    this.#totalNs += ns;
  }
}
