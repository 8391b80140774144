// JavaScript's share: what its thread did for the model, by kind. Each nanosecond belongs to one kind at most, that of the
// innermost piece of work that is under way; so the rows never add up to more than the time that passed. It hooks nothing: who
// works says so with `enter` and `leave`. Pauses of the collector are taken out of the work that they fell into.

import { Histogram } from "./histogram.ts";
import type { JavaScriptRow, JavaScriptShare, JavaScriptSpan } from "./report.ts";

/** Work that says when it begins and ends. */
export type JavaScriptWork = Exclude<JavaScriptRow["name"], "consumer" | "garbageCollection">;

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
  enter(name: JavaScriptWork): void;
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

  enter(name: JavaScriptWork): void {
    for (const listener of this.#all) listener.enter(name);
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

const names = [
  "tokenizing",
  "submitting",
  "records",
  "detokenizing",
  "consumer",
  "profiling",
  "garbageCollection",
] as const satisfies readonly JavaScriptRow["name"][];
const consumerName = names.indexOf("consumer");

/** A pause is what work took beyond its kind's median, which this many pieces of work make known. */
const usualMin = 16;

/**
 * Pieces that have ended wait until there are so many, and become rows and spans then. One by one each would find the histograms'
 * memory and code gone from the caches, which a model's weights have swept meanwhile.
 */
const endedMax = 1024;

/**
 * To be called back at a turn's end costs another turn of the event loop. Callers who so often in a row have asked for the next
 * piece before the turn ended are taken not to wait for anything; the first time that one does is then not counted.
 */
const promptMin = 16;

interface Piece {
  readonly name: number;
  readonly startNs: number;
  /** Without what ran inside it. */
  ownNs: number;
  collections: number;
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
  readonly #spanNames: Uint8Array;
  readonly #spanTimes: Float64Array;
  #spanCount = 0;
  readonly #histograms = Object.fromEntries(names.map((name) => [name, new Histogram("ns")])) as Record<
    JavaScriptRow["name"],
    Histogram
  >;
  readonly #stack: Piece[] = [];
  /** Of pieces that have ended: where their name stands, and their start, end and own time. */
  readonly #endedNames = new Uint8Array(endedMax);
  readonly #endedTimes = new Float64Array(3 * endedMax);
  #ended = 0;
  /** Of those with collections, which are few: the place among them, how many, and when the last one was over. */
  #collected: { readonly place: number; readonly collections: number; readonly endedNs: number }[] = [];
  readonly #startNs: number;
  readonly #startCpuNs: number;
  /** Up to here all time is accounted for. */
  #doneNs: number;
  /** The callers that hold a piece, as one piece of work. */
  #consumer: Piece | undefined;
  #holders = 0;
  #turn = 0;
  #turnEndAsked = false;
  /** Times in a row that all callers asked for the next piece before the turn ended. */
  #promptTurns = 0;
  #seenCollections: number;
  #noticed = 0;
  #timed = 0;
  #dropped = 0;

  constructor(options: JavaScriptRecorderOptions) {
    this.#nowNs = options.nowNs;
    this.#cpuNs = options.cpuNs;
    this.#collections = options.collections;
    this.#afterTurn = options.afterTurn ?? setImmediate;
    this.#spansMax = options.spansMax ?? 0;
    this.#spanNames = new Uint8Array(this.#spansMax);
    this.#spanTimes = new Float64Array(2 * this.#spansMax);
    this.#seenCollections = options.collections?.count ?? 0;
    // One that was noticed before must not hide the next.
    options.collections?.lend();
    this.#startCpuNs = options.cpuNs?.() ?? 0;
    this.#startNs = this.#doneNs = options.nowNs();
  }

  enter(name: JavaScriptWork): void {
    const startNs = this.#account();
    this.#stack.push({ name: names.indexOf(name), startNs, ownNs: 0, collections: 0 });
  }

  leave(): void {
    if (this.#stack.length === 0) throw new RangeError("nothing was entered that could be left");
    const endNs = this.#account();
    const piece = this.#stack.pop();
    if (piece) this.#finish(piece, endNs);
  }

  handOver(): number {
    const nowNs = this.#account();
    this.#consumer ??= { name: consumerName, startNs: nowNs, ownNs: 0, collections: 0 };
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
    this.#endConsumer();
  }

  endTurn(): void {
    this.#turn++;
    if (this.#holders > 0) {
      // Where it was not asked for, the turn ended nobody knows when, and what the caller did in it is not counted.
      if (!this.#turnEndAsked) this.#consumer = undefined;
      this.#promptTurns = 0;
    }
    this.#turnEndAsked = false;
    this.#holders = 0;
    this.#endConsumer();
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
  result(): JavaScriptShare {
    const nowNs = this.#account();
    const cpuNs = this.#cpuNs?.() ?? 0;
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

  /** Gives the time since the last call to whom it belongs, and with it a collection that ended in it. */
  #account(): number {
    const nowNs = this.#nowNs();
    const owner = this.#stack.at(-1) ?? this.#consumer;
    if (owner) owner.ownNs += nowNs - this.#doneNs;
    this.#doneNs = nowNs;
    const collections = this.#collections;
    if (collections && collections.count !== this.#seenCollections) {
      const fresh = collections.count - this.#seenCollections;
      this.#seenCollections = collections.count;
      collections.lend();
      this.#noticed += fresh;
      if (owner) owner.collections += fresh;
    }
    return nowNs;
  }

  #endConsumer(): void {
    const piece = this.#consumer;
    if (!piece) return;
    const endNs = this.#account();
    this.#consumer = undefined;
    this.#finish(piece, endNs);
  }

  #finish({ name, startNs, ownNs, collections }: Piece, endNs: number): void {
    if (this.#ended === endedMax) this.#takeIn();
    const place = this.#ended++;
    this.#endedNames[place] = name;
    this.#endedTimes[3 * place] = startNs;
    this.#endedTimes[3 * place + 1] = endNs;
    this.#endedTimes[3 * place + 2] = ownNs;
    if (collections === 0) return;
    this.#collected.push({ place, collections, endedNs: this.#collections?.endedNs ?? 0 });
  }

  /** Makes rows and spans of the pieces that have ended, in their order. */
  #takeIn(): void {
    let nextCollected = 0;
    for (let place = 0; place < this.#ended; place++) {
      const name = names[this.#endedNames[place] ?? 0] ?? "consumer";
      const [startNs = 0, endNs = 0, ownNs = 0] = this.#endedTimes.subarray(3 * place, 3 * place + 3);
      const collected = this.#collected[nextCollected];
      let pauseNs = 0;
      if (collected?.place === place) {
        nextCollected++;
        pauseNs = this.#pause(name, startNs, ownNs, collected.collections, collected.endedNs);
      }
      this.#histograms[name].record(ownNs - pauseNs);
      this.#keep(name, startNs, endNs);
    }
    this.#ended = 0;
    this.#collected = [];
  }

  /** What a piece of work with collections in it took beyond what is usual; 0 if that is not known. */
  #pause(name: JavaScriptRow["name"], startNs: number, ownNs: number, collections: number, endedNs: number): number {
    const histogram = this.#histograms[name];
    if (histogram.count < usualMin) return 0;
    const pauseNs = Math.max(0, ownNs - histogram.percentile(50));
    this.#timed += collections;
    this.#histograms.garbageCollection.record(pauseNs);
    this.#keep("garbageCollection", Math.max(startNs, endedNs - pauseNs), endedNs);
    return pauseNs;
  }

  #keep(name: JavaScriptRow["name"], startNs: number, endNs: number): void {
    if (this.#spansMax === 0) return;
    if (this.#spanCount === this.#spansMax) {
      this.#dropped++;
      return;
    }
    this.#spanNames[this.#spanCount] = names.indexOf(name);
    this.#spanTimes[2 * this.#spanCount] = startNs;
    this.#spanTimes[2 * this.#spanCount + 1] = endNs;
    this.#spanCount++;
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
