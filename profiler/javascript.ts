// JavaScript's share: what its thread did for the model, by kind. Each nanosecond belongs to one kind at most, that of the
// innermost piece of work that is under way; so the rows never add up to more than the time that passed. It hooks nothing: who
// works says so with `enter` and `leave`. Pauses of the collector are taken out of the work that they fell into.

import { Histogram } from "./histogram.ts";
import { type JavaScriptWork, javaScriptRows as names } from "./javascript-work.ts";
import type { JavaScriptRow, JavaScriptShare, JavaScriptSpan } from "./report.ts";

const CONSUMER = names.indexOf("consumer");
const COLLECTION = names.indexOf("garbageCollection");

/** Collections of JavaScript's heap on this thread. */
export interface Collections {
  /** Noticed since the process began; at most one between two calls of `lend`. */
  readonly count: number;
  /** When the last one ended, ns of the monotonic clock. */
  readonly endedNs: number;
  /** Gets ready to notice the next. */
  lend(): void;
}

/** Which hand-over it was; only for `takeBack`. */
export type Turn = number | readonly Turn[];

/** Who is told what JavaScript does. */
export interface JavaScriptListener {
  /** Work of a kind begins, perhaps inside other work. */
  enter(work: JavaScriptWork): void;
  /** What was entered last ends. */
  leave(): void;
  /** A caller has a piece of its stream. Its return value is for `takeBack`. */
  handOver(): Turn;
  /** The caller asks for the next piece. */
  takeBack(turn: Turn): void;
  /** The event loop has something new: callers that still hold a piece wait for something. */
  endTurn(): void;
}

/** Several who are told the same. Who tells of work that is under way goes on telling those whom it told of its beginning. */
class Listeners implements JavaScriptListener {
  readonly #all: readonly JavaScriptListener[];

  constructor(all: readonly JavaScriptListener[]) {
    this.#all = all;
  }

  get all(): readonly JavaScriptListener[] {
    return this.#all;
  }

  enter(work: JavaScriptWork): void {
    for (const listener of this.#all) listener.enter(work);
  }

  leave(): void {
    for (const listener of this.#all) listener.leave();
  }

  handOver(): Turn {
    return this.#all.map((listener) => listener.handOver());
  }

  takeBack(turn: Turn): void {
    if (typeof turn === "number") return;
    for (const [index, listener] of this.#all.entries()) listener.takeBack(turn[index] ?? 0);
  }

  endTurn(): void {
    for (const listener of this.#all) listener.endTurn();
  }
}

/** Those who were told, and one more. */
export function withListener(told: JavaScriptListener | undefined, more: JavaScriptListener): JavaScriptListener {
  return told === undefined ? more : new Listeners([...listenersOf(told), more]);
}

/** Those who were told, without one of them. */
export function withoutListener(
  told: JavaScriptListener | undefined,
  less: JavaScriptListener,
): JavaScriptListener | undefined {
  const [first, ...others] = listenersOf(told).filter((listener) => listener !== less);
  return first === undefined || others.length === 0 ? first : new Listeners([first, ...others]);
}

function listenersOf(told: JavaScriptListener | undefined): readonly JavaScriptListener[] {
  if (told === undefined) return [];
  return told instanceof Listeners ? told.all : [told];
}

export interface JavaScriptRecorderOptions {
  /** The clock that events are stamped with, whole ns. */
  readonly nowNs: () => number;
  /** CPU time of JavaScript's thread, ns; 0 where it is not known. */
  readonly cpuNs?: (() => number) | undefined;
  readonly collections?: Collections | undefined;
  /** Spans kept for a trace; those that come later are counted as dropped. Default none. */
  readonly spansMax?: number | undefined;
  /** Calls back when what runs now has gone back to the event loop. Default `setImmediate`. */
  readonly afterTurn?: ((callback: () => void) => void) | undefined;
}

/** A pause is what work took beyond its kind's median, which this many pieces of work make known. */
const usualMin = 16;

/** What else there is to note down of a moment than that a kind of work begins, which its number stands for. */
const Mark = {
  leave: names.length,
  consumerBegins: names.length + 1,
  consumerEnds: names.length + 2,
  /** When it ended is not known: it does not count. */
  consumerLost: names.length + 3,
  /** Instead of a moment, when the collection ended. */
  collected: names.length + 4,
} as const;

/**
 * Moments wait until there are so many, and become rows and spans then. While a model works, its weights sweep all else from the
 * caches, and whatever more is touched at a moment than this list, code too, has to come from memory again: it was 20 µs a token.
 */
const marksMax = 1 << 15;
const marksFirst = 1 << 10;
/** So many of them are looked at at a time, the oldest, so that whoever told of the last one waits for a millisecond or two. */
const marksTaken = 1 << 12;

/**
 * To be called back at a turn's end costs another turn of the event loop. Callers who so often in a row have asked for the next
 * piece before the turn ended are taken not to wait for anything; the first time that one does is then not counted.
 */
const promptMin = 16;

interface Piece {
  /** Its kind's place in `names`. */
  readonly code: number;
  readonly startNs: number;
  /** Without what ran inside it. */
  ownNs: number;
  collections: number;
  /** When the last one ended. */
  collectedNs: number;
}

function pieceOf(code: number, startNs: number): Piece {
  return { code, startNs, ownNs: 0, collections: 0, collectedNs: 0 };
}

/**
 * Records from its making on.
 *
 * The time of a consumer, the caller that loops over a stream, begins when a piece is handed over. It ends when the caller asks
 * for the next one, or before that when the thread goes back to the event loop: what a caller waits for is no time of
 * JavaScript's. Callbacks that the event loop runs before it comes round to saying so count as the consumer's as well.
 */
export class JavaScriptRecorder implements JavaScriptListener {
  readonly #nowNs: () => number;
  readonly #cpuNs: (() => number) | undefined;
  readonly #collections: Collections | undefined;
  readonly #afterTurn: (callback: () => void) => void;
  readonly #spansMax: number;
  /** Names and times of the spans that are kept: objects would be marked by each collection. */
  #spanNames = new Uint8Array(0);
  #spanTimes = new Float64Array(0);
  #spanCount = 0;
  readonly #histograms = Object.fromEntries(names.map((name) => [name, new Histogram("ns")])) as Record<
    JavaScriptRow["name"],
    Histogram
  >;
  /** Moments that wait: what, and when, ns. */
  #marks = new Float64Array(2 * marksFirst);
  #marked = 0;
  /** Work that is under way. */
  #depth = 0;
  /** Whether callers hold a piece, which is then one piece of work for all of them. */
  #consuming = false;
  readonly #startNs: number;
  readonly #startCpuNs: number;
  #holders = 0;
  #turn = 0;
  #turnEndAsked = false;
  /** Times in a row that all callers asked for the next piece before the turn ended. */
  #promptTurns = 0;
  #seenCollections: number;

  // Of the moments that were looked at:
  /** Up to here all time is accounted for. */
  #doneNs: number;
  readonly #stack: Piece[] = [];
  #consumer: Piece | undefined;
  #noticed = 0;
  #timed = 0;
  #dropped = 0;

  constructor(options: JavaScriptRecorderOptions) {
    this.#nowNs = options.nowNs;
    this.#cpuNs = options.cpuNs;
    this.#collections = options.collections;
    this.#afterTurn = options.afterTurn ?? setImmediate;
    this.#spansMax = options.spansMax ?? 0;
    this.#seenCollections = options.collections?.count ?? 0;
    // One that was noticed before must not hide the next.
    options.collections?.lend();
    this.#startCpuNs = options.cpuNs?.() ?? 0;
    this.#startNs = this.#doneNs = options.nowNs();
  }

  enter(work: JavaScriptWork): void {
    this.#depth++;
    this.#note(work, this.#nowNs());
  }

  leave(): void {
    if (this.#depth === 0) throw new RangeError("nothing was entered that could be left");
    this.#depth--;
    this.#note(Mark.leave, this.#nowNs());
    if (this.#depth === 0) this.#notice();
  }

  handOver(): number {
    if (!this.#consuming) {
      this.#consuming = true;
      this.#note(Mark.consumerBegins, this.#nowNs());
    }
    this.#holders++;
    if (!this.#turnEndAsked && this.#promptTurns < promptMin) {
      this.#turnEndAsked = true;
      this.#afterTurn(() => {
        this.endTurn();
      });
    }
    return this.#turn;
  }

  takeBack(turn: Turn): void {
    if (turn !== this.#turn || this.#holders === 0) return;
    this.#holders--;
    if (this.#holders > 0) return;
    this.#promptTurns++;
    this.#endConsumer(Mark.consumerEnds);
  }

  endTurn(): void {
    this.#turn++;
    if (this.#holders > 0) {
      this.#promptTurns = 0;
      // Where it was not asked for, the turn ended nobody knows when, and what the caller did in it is not counted.
      this.#endConsumer(this.#turnEndAsked ? Mark.consumerEnds : Mark.consumerLost);
      this.#holders = 0;
    }
    this.#turnEndAsked = false;
  }

  /** Spans so far, in the order in which they ended. */
  get spans(): readonly JavaScriptSpan[] {
    this.#takeIn();
    return Array.from({ length: this.#spanCount }, (_, index) => ({
      name: names[this.#spanNames[index] ?? 0] ?? "consumer",
      startNs: this.#spanTimes[2 * index] ?? 0,
      endNs: this.#spanTimes[2 * index + 1] ?? 0,
    }));
  }

  /** Spans beyond the bound. */
  get spansDropped(): number {
    this.#takeIn();
    return this.#dropped;
  }

  /** What was recorded so far; work that is under way is not in it. */
  result(): Omit<JavaScriptShare, "nativeCalls"> {
    const nowNs = this.#nowNs();
    const cpuNs = this.#cpuNs?.() ?? 0;
    this.#notice();
    this.#takeIn();
    const known = this.#collections ? names : names.filter((name) => name !== "garbageCollection");
    return {
      wallNs: nowNs - this.#startNs,
      rows: known.map((name) => {
        const { count, total, max } = this.#histograms[name];
        const [p50Ns, p99Ns] = [50, 99].map((percent) => this.#histograms[name].percentile(percent));
        return { name, count, totalNs: total, p50Ns: p50Ns ?? 0, p99Ns: p99Ns ?? 0, maxNs: max };
      }),
      cpuNs: cpuNs === 0 ? null : cpuNs - this.#startCpuNs,
      garbageCollection: this.#describeCollections(),
    };
  }

  #endConsumer(how: typeof Mark.consumerEnds | typeof Mark.consumerLost): void {
    this.#consuming = false;
    this.#note(how, this.#nowNs());
  }

  /** Notes down collections that have ended since the last call, before the moments that came after the last of them. */
  #notice(): void {
    const collections = this.#collections;
    if (collections === undefined || collections.count === this.#seenCollections) return;
    const fresh = collections.count - this.#seenCollections;
    this.#seenCollections = collections.count;
    const { endedNs } = collections;
    for (let each = 0; each < fresh; each++) {
      this.#note(Mark.collected, endedNs);
      const marks = this.#marks;
      let at = this.#marked - 2;
      for (; at > 0 && (marks[at - 1] ?? 0) > endedNs; at -= 2) marks.copyWithin(at, at - 2, at);
      marks[at] = Mark.collected;
      marks[at + 1] = endedNs;
    }
    collections.lend();
  }

  #note(what: number, whenNs: number): void {
    if (this.#marked === 2 * marksMax) this.#takeIn(2 * marksTaken);
    else if (this.#marked === this.#marks.length) this.#makeMarkRoom();
    this.#marks[this.#marked] = what;
    this.#marks[this.#marked + 1] = whenNs;
    this.#marked += 2;
  }

  /** For twice as many. */
  #makeMarkRoom(): void {
    const marks = new Float64Array(2 * this.#marked);
    marks.set(this.#marks);
    this.#marks = marks;
  }

  /** Makes rows and spans of what was noted down first. */
  #takeIn(length = this.#marked): void {
    const marks = this.#marks;
    for (let at = 0; at < length; at += 2) this.#takeMark(marks[at] ?? 0, marks[at + 1] ?? 0);
    marks.copyWithin(0, length, this.#marked);
    this.#marked -= length;
  }

  #takeMark(what: number, whenNs: number): void {
    const owner = this.#stack.at(-1) ?? this.#consumer;
    if (what === Mark.collected) {
      this.#noticed++;
      // Of one that came before what is under way, others have been looked at already.
      if (!owner || whenNs < owner.startNs) return;
      owner.collections++;
      owner.collectedNs = whenNs;
      return;
    }
    // The time since the last moment is of who had it.
    if (owner) owner.ownNs += whenNs - this.#doneNs;
    this.#doneNs = whenNs;
    if (what === Mark.leave) this.#finish(this.#stack.pop(), whenNs);
    else if (what === Mark.consumerBegins) this.#consumer = pieceOf(CONSUMER, whenNs);
    else if (what === Mark.consumerEnds || what === Mark.consumerLost) {
      if (what === Mark.consumerEnds) this.#finish(this.#consumer, whenNs);
      this.#consumer = undefined;
    } else this.#stack.push(pieceOf(what, whenNs));
  }

  #finish(piece: Piece | undefined, endNs: number): void {
    if (!piece) return;
    const { code, startNs, ownNs, collections, collectedNs } = piece;
    const name = names[code] ?? "consumer";
    const pauseNs = collections === 0 ? 0 : this.#pause(name, startNs, ownNs, collections, collectedNs);
    this.#histograms[name].record(ownNs - pauseNs);
    this.#keep(code, startNs, endNs);
  }

  /** What a piece of work with collections in it took beyond what is usual; 0 if that is not known. */
  #pause(name: JavaScriptRow["name"], startNs: number, ownNs: number, collections: number, endedNs: number): number {
    const histogram = this.#histograms[name];
    if (histogram.count < usualMin) return 0;
    const pauseNs = Math.max(0, ownNs - histogram.percentile(50));
    this.#timed += collections;
    this.#histograms.garbageCollection.record(pauseNs);
    this.#keep(COLLECTION, Math.max(startNs, endedNs - pauseNs), endedNs);
    return pauseNs;
  }

  #keep(code: number, startNs: number, endNs: number): void {
    if (this.#spansMax === 0) return;
    if (this.#spanCount === this.#spansMax) {
      this.#dropped++;
      return;
    }
    if (this.#spanCount === this.#spanNames.length) this.#makeSpanRoom();
    this.#spanNames[this.#spanCount] = code;
    this.#spanTimes[2 * this.#spanCount] = startNs;
    this.#spanTimes[2 * this.#spanCount + 1] = endNs;
    this.#spanCount++;
  }

  /** For twice as many. */
  #makeSpanRoom(): void {
    const spans = Math.min(this.#spansMax, Math.max(1024, 2 * this.#spanCount));
    const names = new Uint8Array(spans);
    names.set(this.#spanNames);
    this.#spanNames = names;
    const times = new Float64Array(2 * spans);
    times.set(this.#spanTimes);
    this.#spanTimes = times;
  }

  #describeCollections(): string {
    if (!this.#collections) return "Collections were not watched: too many threads of the process ask for them.";
    const elsewhere = this.#noticed - this.#timed;
    return (
      `${this.#noticed} ${this.#noticed === 1 ? "collection was" : "collections were"} noticed, by memory that JavaScript gives ` +
      `back at the end of one. ${this.#timed} fell into work that is ` +
      `known from ${usualMin} pieces or more; a pause is what such a piece took beyond its kind's median, an estimate. ` +
      `${elsewhere} fell elsewhere (idle, the program's own code, work seen too rarely) and are not timed.`
    );
  }
}
