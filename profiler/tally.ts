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
    const word = (at: number): number => words[at] as number;
    const [waiting, sampling] = [this.#kinds.length, this.#kinds.length + 1];
    for (let at = 0; at < words.length; at += EVENT_WORDS) {
      const place = word(at + EventWord.place);
      const kind = (place >>> 16) & 0xff;
      let slot: number | undefined;
      // Without rows an op was passed by.
      if (kind === EventKind.work && word(at + EventWord.rows) > 0) slot = this.#kindOfOp[place & 0xffff];
      else if (kind === EventKind.barrier) slot = waiting;
      else if (kind === EventKind.sampling) slot = sampling;
      if (slot === undefined && kind !== EventKind.step) continue;
      // Of a step whose own event was lost nothing counts.
      const step = word(at + EventWord.step);
      if (step !== this.#step) this.#open.fill(0);
      this.#step = step;
      const high = word(at + EventWord.endHigh) - word(at + EventWord.startHigh);
      const ns = high * 2 ** 32 + word(at + EventWord.endLow) - word(at + EventWord.startLow);
      if (slot === undefined) this.#end(ns);
      else this.#open[slot] = (this.#open[slot] as number) + ns;
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
