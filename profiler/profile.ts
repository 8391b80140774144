// Turns engine events into a profile: where the time of the engine's steps went, by op, op kind, layer, phase and thread.
// It holds histograms and sums, never events: its memory is set by the program's size, not by how long it watches. It does
// not talk to the engine (the caller drains the rings), knows no model, and prints nothing (table.ts does).
//
// What a row's time means. The engine thread (thread 0) is in exactly one event at a time, so its timeline cuts a step into
// pieces that add up without counting anything twice, even where neighbouring ops run without a barrier between them and
// overlap across threads:
//
//   step = Σ ops (thread 0's work events) + waiting at barriers + sampling + copying + engine + idle + unattributed
//
// The step's own time is an event of its own, taken from two time stamps of the engine; "unattributed" is the part of it
// that no other event of thread 0 covers, and belongs to no op. The equation holds in whole nanoseconds, for each step and
// for the sums: pieces outside their step or overlapping an earlier piece are cut off (and `clippedNs` says how much).
//
// So an op's total and share are thread 0's work on it, and waiting for other threads is a row of its own. But that is not
// how long the op took: another thread may have done most of it while thread 0 waited. An op's duration (percentiles, max)
// and throughput (GB/s, GFLOP/s) come from its wall time in a step, from the first thread's start to the last one's end.
// Wall times of overlapping ops overlap and are never added to a share; for a layer, and for a kind's throughput, the wall
// time is that of the union of its ops.

import { EVENT_WORDS, EventKind, EventWord, eventWords, NO_OP, type OpInfo } from "./events.ts";
import type { HistogramData } from "./histogram.ts";
import type { Gathered } from "./metrics.ts";
import {
  type RequestEnding,
  type RequestFigures,
  RequestLog,
  type RequestReport,
  type RequestSubmission,
} from "./requests.ts";
import { type StepListener, StepShares } from "./steps.ts";
import { EVENT_KINDS, type Phase, Totals } from "./totals.ts";

/** A row of time. All times are whole nanoseconds; percentiles to 3 significant digits, the rest exact. */
export interface TimeRow {
  /** Durations behind the percentiles; each row's doc says of what. */
  readonly count: number;
  /** The engine thread's time. Of rows without cost it is the sum of the durations. */
  readonly totalNs: number;
  /** `totalNs` over the steps' own time, 0 to 1. */
  readonly share: number;
  readonly p50Ns: number;
  readonly p90Ns: number;
  readonly p99Ns: number;
  readonly maxNs: number;
  /** All the durations, when `result({ histograms: true })` asked for them. */
  readonly histogram?: HistogramData;
}

/** A row of ops: the engine thread's work on them, how long they took on all threads, and what they moved and computed. */
export interface CostRow extends TimeRow {
  /** Time that the engine thread waited at the end of these ops; part of the profile's `waiting` row, not of `totalNs`. */
  readonly waitNs: number;
  /** From the first thread's start to the last thread's end, over all steps; ops that overlap inside the row count once. */
  readonly wallNs: number;
  /** Bytes that the ops had to move, from their static cost: weights once a step, the rest for each row. */
  readonly bytes: number;
  /** Arithmetic operations, from the ops' static cost. */
  readonly operations: number;
  /** `bytes` over `wallNs`, 10^9 bytes a second; null when either is 0. */
  readonly gigabytesPerSecond: number | null;
  /** `operations` over `wallNs`, 10^9 a second; null when either is 0. */
  readonly gigaflopsPerSecond: number | null;
}

/** One op. `count` is the steps that it ran in; a duration is its wall time in one step. */
export interface OpRow extends CostRow {
  readonly index: number;
  readonly name: string;
  readonly kind: string;
  readonly kernel: string;
  /** -1: none. */
  readonly layer: number;
  /** Rows (tokens) it worked on, over all steps. */
  readonly rows: number;
}

/** All ops of a kind. The durations are those of its ops, each in one step. */
export interface KindRow extends CostRow {
  readonly kind: string;
  /** Ops of this kind that ran. */
  readonly ops: number;
}

/** All ops of a layer. A duration is the wall time of the union of the layer's ops in one step. */
export interface LayerRow extends CostRow {
  /** -1: the ops that belong to no layer. */
  readonly layer: number;
}

/** Steps of one phase. A duration is a step's own time. */
export interface PhaseRow extends TimeRow {
  /** `prompt`: steps where at least one sequence fed several rows of its prompt; `generation`: all others. */
  readonly phase: "prompt" | "generation";
  /** Rows that went through these steps, one a token: of prompts, of tokens fed back to continue, and of guesses that came true. */
  readonly rows: number;
  /** Sequences summed over the steps; divided by `count`, the mean batch size. */
  readonly sequences: number;
  /** Rows per second of the steps' own time; 0 when there were none. */
  readonly rowsPerSecond: number;
}

/** What one thread did during the steps. Shares are of the steps' own time. */
export interface ThreadRow {
  /** 0 is the engine thread. */
  readonly thread: number;
  /** Work, sampling, copying, and forming steps. */
  readonly busyNs: number;
  readonly busyShare: number;
  /** Waiting at barriers. */
  readonly waitingNs: number;
  readonly waitingShare: number;
  /** The rest of the steps' time: asleep, waking up, or not recorded. */
  readonly idleNs: number;
  readonly idleShare: number;
  /** Idle events of this thread, between steps too, where the engine thread waits for requests. */
  readonly recordedIdleNs: number;
}

/**
 * Where the time went. Plain data, JSON as it is. Rows of ops that did not run are left out; ops, kinds and layers stand in
 * program order. In nanoseconds, exactly:
 * Σ byOp = Σ byKind = Σ byLayer, and that + waiting + sampling + copying + engine + idle + unattributed = steps.
 */
export interface Profile {
  /** The steps' own time, in milliseconds: `steps.totalNs` / 10^6. */
  readonly totalTime: number;
  /** From the start of the first step to the end of the last one, whatever happened between steps. */
  readonly spanNs: number;
  /** All steps; a duration is a step's own time, from one event that is taken apart from the ops'. */
  readonly steps: TimeRow;
  /** Tokens that went through the steps. */
  readonly rows: number;
  readonly phases: readonly PhaseRow[];
  readonly byKind: readonly KindRow[];
  readonly byLayer: readonly LayerRow[];
  readonly byOp: readonly OpRow[];
  /** The engine thread's waits for the other threads; a duration is the sum of one step's waits. */
  readonly waiting: TimeRow;
  /** The engine thread's drawing of tokens; a duration is one step's. */
  readonly sampling: TimeRow;
  /** Copies outside any op; a duration is one step's. */
  readonly copying: TimeRow;
  /** The engine thread's forming of steps and taking in of what they gave, telling JavaScript included; a duration is one step's. */
  readonly engine: TimeRow;
  /** The engine thread without work inside a step; a duration is one step's. */
  readonly idle: TimeRow;
  /** What no event of the engine thread covers; a duration is that part of one step. */
  readonly unattributed: TimeRow;
  /** Share of the steps' own time that is accounted for: 1 - idle - unattributed. */
  readonly attributedShare: number;
  readonly threads: readonly ThreadRow[];
  /** Events that did not fit the engine's rings. Their time is in `unattributed` where the step itself was recorded. */
  readonly lostEvents: number;
  /** Events that came after their step was closed; they are in no row. */
  readonly lateEvents: number;
  /** Events that no engine should write: an unknown kind or op, an end before the start. They are in no row. */
  readonly malformedEvents: number;
  /** Steps left out of every row: their own event or all the others of the engine thread are missing. */
  readonly incompleteSteps: number;
  /** Time of engine-thread events outside their step or inside an earlier event, cut off; 0 unless clock or engine are wrong. */
  readonly clippedNs: number;
}

export interface ProfilerOptions {
  /**
   * Steps that stay open for events of other threads, which are drained at other times; 1 to 65,536. By default as many as
   * `OPEN_ENTRIES` allows for the program's size (512 for 250 ops).
   */
  readonly openSteps?: number;
  /** Hears of every finished step as its events are drained. */
  readonly onStep?: StepListener;
  /**
   * Whether steps may come with nothing but their own event, because whoever drains leaves the others out: their time is then
   * `unattributed`. Default false: such a step counts as incomplete.
   */
  readonly outlines?: boolean;
}

/** Step-and-op pairs held open by default, 21 bytes each: 2.6 MiB. Twice a ring of 65,536 events, at one event a pair and more. */
const OPEN_ENTRIES = 2 ** 17;
const OPEN_STEPS_MAX = 2 ** 16;
/** Events of the engine thread in one step that are kept; later ones count as malformed. 65,534 ops with their barriers fit. */
const TIMELINE_MAX = 2 ** 18;
const TIMELINE_FIRST = 2 ** 10;

/** What is known of an open step. */
const Slot = { free: 0, open: 1, timed: 2, closed: 3 } as const;
/** What is known of an op in an open step. A thread that came too late to do any unit must not stretch the op's wall time. */
const Seen = { no: 0, withoutUnits: 1, withUnits: 2 } as const;

/**
 * Gathers events and gives a profile. One for a program; not shared between threads of JavaScript.
 *
 * What it costs: 60 to 70 ns of CPU time an event once the JIT compiler knows the code, twice that in the first hundred
 * steps, a third of it in hdr-histogram-js. Measured with Bun 1.4.5 on two shared Zen 4 cores, as the thread's CPU time in
 * drains of 60 steps of 255 ops on two threads, 61,000 events each. `result` took 45 ms there, mostly percentiles.
 */
export class Profiler {
  readonly #ops: readonly OpInfo[];
  readonly #totals: Totals;

  // Open steps: a step lives in slot `step % window` until a step `window` later wants the slot, or until result(). There is room for
  // them from the first event on: most recordings have theirs looked at when they end, and shall not take megabytes before.
  readonly #window: number;
  #slotState = new Uint8Array(0);
  #slotStep = new Uint32Array(0);
  #slotOpSeen = new Uint8Array(0);
  #slotOpStart = new Float64Array(0);
  #slotOpEnd = new Float64Array(0);
  #slotOpRows = new Uint32Array(0);
  #slotThreads = 4;
  #slotBusyNs = new Float64Array(0);
  #slotWaitingNs = new Float64Array(0);
  #lastTimedStep = 0;

  // The engine thread's events of the step that it is in: its ring is in order, so there is only ever one such step.
  #timelineStep = 0;
  #timelineLength = 0;
  #timelineStart = new Float64Array(TIMELINE_FIRST);
  #timelineEnd = new Float64Array(TIMELINE_FIRST);
  #timelinePlace = new Uint32Array(TIMELINE_FIRST);

  // Whose steps they were.
  readonly #shares = new StepShares();
  readonly #requests = new RequestLog();
  readonly #onStep: StepListener | undefined;
  readonly #outlines: boolean;

  // Scratch of one step.
  readonly #stepKindNs = new Float64Array(EVENT_KINDS);
  readonly #stepKindSeen = new Uint8Array(EVENT_KINDS);
  readonly #kindEnd: Float64Array;
  readonly #layerEnd: Float64Array;
  readonly #stepLayerWallNs: Float64Array;

  // High word of the first time stamp. Times are kept relative to it, so that they are exact in a double on a machine that
  // has been up for more than 104 days (2^53 ns).
  #baseHigh = -1;

  /**
   * @param ops the program's op list; `ops[i].index` is i.
   * @throws {RangeError} when the list is out of order or has more ops than an event can name, or `openSteps` is out of range.
   */
  constructor(ops: readonly OpInfo[], options: ProfilerOptions = {}) {
    const count = ops.length;
    if (count >= NO_OP) throw new RangeError(`profiler ops: ${count} ops, but an event can name at most ${NO_OP - 1}`);
    for (const [position, op] of ops.entries()) {
      if (op.index !== position) {
        throw new RangeError(
          `profiler ops[${position}].index: ${op.index} (${op.name}); pass the op list in program order`,
        );
      }
    }
    const fitting = 2 ** Math.floor(Math.log2(OPEN_ENTRIES / Math.max(count, 1)));
    const window = options.openSteps ?? Math.min(Math.max(fitting, 16), 8192);
    if (!Number.isInteger(window) || window < 1 || window > OPEN_STEPS_MAX) {
      throw new RangeError(
        `profiler options.openSteps: ${window} is not a whole number from 1 to ${OPEN_STEPS_MAX}; leave it out for the default`,
      );
    }
    this.#onStep = options.onStep;
    this.#outlines = options.outlines ?? false;
    this.#ops = [...ops];
    this.#totals = new Totals(this.#ops);

    this.#window = window;
    this.#kindEnd = new Float64Array(this.#totals.kinds.length);
    this.#layerEnd = new Float64Array(this.#totals.layers.length);
    this.#stepLayerWallNs = new Float64Array(this.#totals.layers.length);
    this.reset();
  }

  /**
   * Takes in what one or several drains of the engine's rings returned: events of any threads, a thread's own in the order
   * in which it wrote them. The bytes are not kept. A step may be spread over any number of drains.
   * @param events whole events of 32 bytes, as events.ts describes them.
   * @param lost events that the engine's rings could not hold since the last drain.
   * @throws {RangeError} when `events` is not a whole number of events.
   */
  drain(events: Uint8Array, lost = 0): void {
    this.#totals.lostEvents += lost;
    const words = eventWords(events);
    if (words.length === 0) return;
    if (this.#slotState.length === 0) this.#makeRoom();
    if (this.#baseHigh < 0) this.#baseHigh = firstHigh(words);
    const baseHigh = this.#baseHigh;
    const opCount = this.#ops.length;
    const totals = this.#totals;
    // The slot of the event before, which is nearly always that of this one too.
    let slot = -1;
    let slotStep = -1;

    for (let at = 0; at < words.length; at += EVENT_WORDS) {
      const start = (word(words, at + EventWord.startHigh) - baseHigh) * 2 ** 32 + word(words, at + EventWord.startLow);
      const end = (word(words, at + EventWord.endHigh) - baseHigh) * 2 ** 32 + word(words, at + EventWord.endLow);
      const step = word(words, at + EventWord.step);
      const rows = word(words, at + EventWord.rows);
      const place = word(words, at + EventWord.place);
      const aux = word(words, at + EventWord.aux);
      const op = place & 0xffff;
      const kind = (place >>> 16) & 0xff;
      const thread = place >>> 24;

      if (kind === EventKind.share) {
        if (thread !== 0 || !this.#shares.add(words, at)) this.#totals.malformedEvents++;
        continue;
      }
      if (end < start || kind > EventKind.engine || (op >= opCount && (op !== NO_OP || kind === EventKind.work))) {
        this.#totals.malformedEvents++;
        continue;
      }
      if (kind === EventKind.idle) {
        totals.threadIdleNs[thread] = num(totals.threadIdleNs[thread]) + end - start;
        // Between steps the engine thread names the last step, which is over; inside one, it is a piece of the timeline.
        if (thread === 0 && step === this.#timelineStep && this.#timelineLength > 0) this.#append(start, end, place);
        continue;
      }
      if (step !== slotStep) {
        slot = this.#slotFor(step);
        slotStep = step;
      }
      if (slot < 0 || (thread === 0 && this.#slotState[slot] !== Slot.open)) {
        this.#totals.lateEvents++;
        continue;
      }
      if (kind === EventKind.step) {
        if (thread === 0) this.#time(slot, step, start, end, rows, aux);
        else this.#totals.malformedEvents++;
        slotStep = -1;
        continue;
      }
      if (thread === 0) {
        if (step !== this.#timelineStep) {
          this.#timelineStep = step;
          this.#timelineLength = 0;
        }
        // An op that had no rows in this step did not run: what passing it by took is given to no op.
        if (kind !== EventKind.work || rows > 0) this.#append(start, end, place);
      }
      if (thread >= this.#slotThreads) this.#growThreads(thread);
      const cell = slot * this.#slotThreads + thread;
      if (kind === EventKind.barrier) {
        this.#slotWaitingNs[cell] = num(this.#slotWaitingNs[cell]) + end - start;
        continue;
      }
      this.#slotBusyNs[cell] = num(this.#slotBusyNs[cell]) + end - start;
      if (kind === EventKind.work && rows > 0) this.#spanOp(slot * opCount + op, start, end, rows, aux);
    }
  }

  /**
   * The profile of every step that the engine has finished. Drain all rings before, since later events of these steps come
   * too late and are only counted; steps that are still running go on and are in the next result. Rows go on growing until
   * `reset`.
   * @param options.histograms also gives each row all its durations, about 1 KB a row.
   */
  result(options: { readonly histograms?: boolean } = {}): Profile {
    this.#settle();
    return this.#totals.result(options);
  }

  /** The same in small pieces, between which nothing may be drained. */
  resultInTurns(options: { readonly histograms?: boolean } = {}): Generator<void, Profile, void> {
    this.#settle();
    return this.#totals.resultInTurns(options);
  }

  /** A request was handed to the engine: its steps, and what `requestEnded` tells, become a row of `requests`. */
  requestSubmitted(id: number, submission: RequestSubmission): void {
    this.#requests.submitted(id, submission);
  }

  /** A request is over for its caller, however it ended. Its last steps may still be in the rings. */
  requestEnded(id: number, ending: RequestEnding): void {
    this.#requests.finished(id, ending);
  }

  /** What is known of the requests that were submitted and have ended since the profiler began. Drain all rings before. */
  requests(options: { readonly histograms?: boolean } = {}): RequestReport {
    const baseNs = Math.max(this.#baseHigh, 0) * 2 ** 32;
    return { requests: this.#requests.rows(baseNs), ...this.#requests.figures.report(options.histograms) };
  }

  /** All that was gathered, for reading. Drain all rings before. */
  gathered(): Gathered {
    this.#settle();
    return { totals: this.#totals, figures: this.#requests.figures };
  }

  /** Requests that are in no row because more than 65,536 were submitted whose end nobody told. */
  get forgottenRequests(): number {
    return this.#requests.forgotten;
  }

  /** Bytes that all buckets take. */
  get footprintBytes(): number {
    return this.#totals.footprintBytes;
  }

  /** Adds what `result` and `requests` would give to others; `totals` is of the same ops. */
  addTo(totals: Totals, figures: RequestFigures): void {
    this.#settle();
    totals.merge(this.#totals);
    figures.merge(this.#requests.figures);
  }

  /**
   * The same, and begins anew; steps and requests under way go on, and the last requests are still there. In small pieces, between
   * which nothing may be drained.
   */
  *moveInTurns(totals: Totals, figures: RequestFigures): Generator<void, void, void> {
    this.#settle();
    yield* totals.mergeInTurns(this.#totals);
    figures.merge(this.#requests.figures);
    this.#totals.reset();
    this.#requests.figures.reset();
  }

  /**
   * Forgets everything. Events of a step that the engine has begun before count as an incomplete step or as unattributed
   * time, so reset between requests.
   */
  reset(): void {
    this.#totals.reset();
    this.#slotState.fill(Slot.free);
    this.#timelineStep = 0;
    this.#timelineLength = 0;
    this.#shares.reset();
    this.#requests.reset();
    this.#baseHigh = -1;
  }

  #makeRoom(): void {
    const steps = this.#window;
    const cells = steps * this.#ops.length;
    this.#slotState = new Uint8Array(steps);
    this.#slotStep = new Uint32Array(steps);
    this.#slotOpSeen = new Uint8Array(cells);
    this.#slotOpStart = new Float64Array(cells);
    this.#slotOpEnd = new Float64Array(cells);
    this.#slotOpRows = new Uint32Array(cells);
    this.#slotBusyNs = new Float64Array(steps * this.#slotThreads);
    this.#slotWaitingNs = new Float64Array(steps * this.#slotThreads);
  }

  /** Closes every step that the engine has finished. */
  #settle(): void {
    for (let slot = 0; slot < this.#slotState.length; slot++) {
      const state = this.#slotState[slot];
      if (state === Slot.timed) this.#close(slot);
      else if (state === Slot.open && isAfter(this.#lastTimedStep, num(this.#slotStep[slot]))) {
        // The engine thread has finished a later step: the event of this one was lost.
        this.#slotState[slot] = Slot.closed;
        this.#totals.incompleteSteps++;
      }
    }
  }

  /** The slot of a step that is open or timed, made if need be; -1 when the step is closed already. */
  #slotFor(step: number): number {
    const slot = step % this.#window;
    const state = this.#slotState[slot];
    const held = num(this.#slotStep[slot]);
    if (state !== Slot.free) {
      if (held === step) return state === Slot.closed ? -1 : slot;
      if (isAfter(held, step)) return -1;
      if (state === Slot.timed) this.#close(slot);
      else if (state === Slot.open) this.#totals.incompleteSteps++;
    }
    this.#slotState[slot] = Slot.open;
    this.#slotStep[slot] = step;
    const ops = this.#ops.length;
    this.#slotOpSeen.fill(Seen.no, slot * ops, (slot + 1) * ops);
    this.#slotBusyNs.fill(0, slot * this.#slotThreads, (slot + 1) * this.#slotThreads);
    this.#slotWaitingNs.fill(0, slot * this.#slotThreads, (slot + 1) * this.#slotThreads);
    return slot;
  }

  /** Widens an op's wall time in an open step by one thread's work event. */
  #spanOp(cell: number, start: number, end: number, rows: number, units: number): void {
    const seen = units > 0 ? Seen.withUnits : Seen.withoutUnits;
    const before = num(this.#slotOpSeen[cell]);
    if (seen < before) return;
    if (seen > before) {
      this.#slotOpSeen[cell] = seen;
      this.#slotOpStart[cell] = start;
      this.#slotOpEnd[cell] = end;
      this.#slotOpRows[cell] = rows;
      return;
    }
    if (start < num(this.#slotOpStart[cell])) this.#slotOpStart[cell] = start;
    if (end > num(this.#slotOpEnd[cell])) this.#slotOpEnd[cell] = end;
    if (rows > num(this.#slotOpRows[cell])) this.#slotOpRows[cell] = rows;
  }

  #append(start: number, end: number, place: number): void {
    const at = this.#timelineLength;
    if (at === this.#timelineStart.length) {
      if (at === TIMELINE_MAX) {
        this.#totals.malformedEvents++;
        return;
      }
      this.#timelineStart = grown(this.#timelineStart, at * 2);
      this.#timelineEnd = grown(this.#timelineEnd, at * 2);
      const places = new Uint32Array(at * 2);
      places.set(this.#timelinePlace);
      this.#timelinePlace = places;
    }
    this.#timelineStart[at] = start;
    this.#timelineEnd[at] = end;
    this.#timelinePlace[at] = place;
    this.#timelineLength = at + 1;
  }

  /** A step's own event has come, so the engine thread's timeline of it is whole: cut the step's time into its pieces. */
  #time(slot: number, step: number, stepStart: number, stepEnd: number, rows: number, aux: number): void {
    const sequences = aux & 0xffff;
    const guessed = aux >>> 16;
    this.#lastTimedStep = step;
    const length = step === this.#timelineStep ? this.#timelineLength : 0;
    this.#timelineLength = 0;
    if (length === 0 && !this.#outlines) {
      // Events were switched on inside the step, or all of it was lost: nothing is known but its length.
      this.#slotState[slot] = Slot.closed;
      this.#totals.incompleteSteps++;
      return;
    }
    let covered = 0;
    let cursor = stepStart;
    for (let at = 0; at < length; at++) {
      const start = num(this.#timelineStart[at]);
      const end = num(this.#timelineEnd[at]);
      const place = num(this.#timelinePlace[at]);
      const from = Math.max(start, cursor);
      const to = Math.min(end, stepEnd);
      const ns = to > from ? to - from : 0;
      if (to > cursor) cursor = to;
      covered += ns;
      this.#totals.clippedNs += end - start - ns;
      this.#piece(place & 0xffff, (place >>> 16) & 0xff, ns);
    }
    this.#recordKinds();
    this.#totals.unattributed.record(stepEnd - stepStart - covered);
    const phase = rows - guessed > sequences ? "prompt" : "generation";
    this.#totals.recordStep(phase, stepStart, stepEnd, rows, sequences);
    this.#slotState[slot] = Slot.timed;
    this.#share(step, stepStart, stepEnd, phase, sequences);
  }

  /** Gives a timed step to the requests that it was run for, and to the listener. */
  #share(step: number, startNs: number, endNs: number, phase: Phase, sequences: number): void {
    const shares = this.#shares;
    const known = shares.countOf(step);
    for (let index = 0; index < known; index++) {
      this.#requests.step(shares.request(index), startNs, endNs, shares.drawn(index));
    }
    if (this.#onStep === undefined || known !== sequences) return;
    const baseNs = this.#baseHigh * 2 ** 32;
    this.#onStep({ step, startNs: baseNs + startNs, endNs: baseNs + endNs, phase, shares: shares.list() });
  }

  #piece(op: number, kind: number, ns: number): void {
    const { workNs, waitNs } = this.#totals.op;
    if (kind === EventKind.work) {
      workNs[op] = num(workNs[op]) + ns;
      return;
    }
    this.#stepKindNs[kind] = num(this.#stepKindNs[kind]) + ns;
    this.#stepKindSeen[kind] = 1;
    if (kind === EventKind.barrier && op !== NO_OP) waitNs[op] = num(waitNs[op]) + ns;
  }

  /** Moves the step's sums by event kind into their histograms. */
  #recordKinds(): void {
    for (const [kind, histogram] of this.#totals.kindTime.entries()) {
      if (this.#stepKindSeen[kind] === 1) histogram.record(num(this.#stepKindNs[kind]));
    }
    this.#stepKindNs.fill(0);
    this.#stepKindSeen.fill(0);
  }

  /** Adds what all threads did in a timed step to the totals. Ops start in program order, which the unions rely on. */
  #close(slot: number): void {
    this.#slotState[slot] = Slot.closed;
    const totals = this.#totals;
    const ops = this.#ops.length;
    this.#kindEnd.fill(Number.NEGATIVE_INFINITY);
    this.#layerEnd.fill(Number.NEGATIVE_INFINITY);
    this.#stepLayerWallNs.fill(0);
    for (let op = 0; op < ops; op++) {
      const cell = slot * ops + op;
      if (this.#slotOpSeen[cell] === Seen.no) continue;
      const start = num(this.#slotOpStart[cell]);
      const end = num(this.#slotOpEnd[cell]);
      totals.recordOp(op, end - start, num(this.#slotOpRows[cell]));
      widen(totals.kindWallNs, this.#kindEnd, num(totals.kindOfOp[op]), start, end);
      widen(this.#stepLayerWallNs, this.#layerEnd, num(totals.layerOfOp[op]), start, end);
    }
    for (const [layer, histogram] of totals.layerWall.entries()) {
      if (num(this.#layerEnd[layer]) > Number.NEGATIVE_INFINITY) histogram.record(num(this.#stepLayerWallNs[layer]));
    }
    const { threadBusyNs, threadWaitingNs } = totals;
    for (let thread = 0; thread < this.#slotThreads; thread++) {
      const cell = slot * this.#slotThreads + thread;
      threadBusyNs[thread] = num(threadBusyNs[thread]) + num(this.#slotBusyNs[cell]);
      threadWaitingNs[thread] = num(threadWaitingNs[thread]) + num(this.#slotWaitingNs[cell]);
    }
  }

  #growThreads(thread: number): void {
    const before = this.#slotThreads;
    let after = before;
    while (after <= thread) after *= 2;
    const widened = (old: Float64Array): Float64Array<ArrayBuffer> => {
      const cells = new Float64Array(this.#window * after);
      for (let slot = 0; slot < this.#window; slot++) {
        cells.set(old.subarray(slot * before, (slot + 1) * before), slot * after);
      }
      return cells;
    };
    this.#slotBusyNs = widened(this.#slotBusyNs);
    this.#slotWaitingNs = widened(this.#slotWaitingNs);
    this.#slotThreads = after;
  }
}

/** The high word of the first time stamp; -1 if there is none. */
function firstHigh(words: Uint32Array): number {
  for (let at = 0; at < words.length; at += EVENT_WORDS) {
    if (((word(words, at + EventWord.place) >>> 16) & 0xff) !== EventKind.share)
      return word(words, at + EventWord.startHigh);
  }
  return -1;
}

/** Adds to `sums[index]` what start to end has beyond `ends[index]`, where what came before ends. */
function widen(sums: Float64Array, ends: Float64Array, index: number, start: number, end: number): void {
  const from = Math.max(start, num(ends[index]));
  if (end < from) return;
  sums[index] = num(sums[index]) + end - from;
  ends[index] = end;
}

/** Whether step number `a` is later than `b`. Numbers are 32 bits and wrap, after 49 days at 1,000 steps a second. */
function isAfter(a: number, b: number): boolean {
  return ((a - b) | 0) > 0;
}

function grown(values: Float64Array, length: number): Float64Array<ArrayBuffer> {
  const longer = new Float64Array(length);
  longer.set(values);
  return longer;
}

/** A cell of a typed array that the caller knows to be inside it. */
function num(value: number | undefined): number {
  return value as number;
}

function word(words: Uint32Array, at: number): number {
  return num(words[at]);
}
