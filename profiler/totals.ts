// What a profile is made from: sums and histograms of a program's ops, steps and threads. It turns them into a profile, and a
// profile that carries its histograms back into them, so that profiles of threads, runs and machines add up to one. It knows
// nothing of events; profile.ts fills it.

import { EventKind, type OpInfo } from "./events.ts";
import { DurationHistogram, Histogram, type HistogramData } from "./histogram.ts";
import type { CostRow, KindRow, LayerRow, OpRow, PhaseRow, Profile, ThreadRow, TimeRow } from "./profile.ts";

/** Threads that an event can name: its thread field has 8 bits. */
export const THREADS_MAX = 256;

/** Kinds of event that have times, numbered from 0. */
export const EVENT_KINDS = EventKind.engine + 1;

export type Phase = PhaseRow["phase"];
const PHASES: readonly Phase[] = ["prompt", "generation"];

/** The rows of time outside all ops that are kept by event kind. */
export const KIND_ROWS = {
  waiting: EventKind.barrier,
  sampling: EventKind.sampling,
  copying: EventKind.copy,
  engine: EventKind.engine,
  idle: EventKind.idle,
} as const;

/** A profile cannot be added to others. */
export class ProfileMergeError extends Error {
  override readonly name = "ProfileMergeError";
}

/** What is summed of an op: bytes and operations come from its static cost, or from a profile. */
export interface OpAmounts {
  readonly workNs: Float64Array;
  readonly waitNs: Float64Array;
  readonly rows: Float64Array;
  readonly bytes: Float64Array;
  readonly operations: Float64Array;
}

export class Totals {
  readonly ops: readonly OpInfo[];
  /** In program order. */
  readonly kinds: readonly string[];
  /** Ascending. */
  readonly layers: readonly number[];
  /** Positions in `kinds` and `layers`, by the op's position in `ops`. */
  readonly kindOfOp: Uint32Array;
  readonly layerOfOp: Uint32Array;

  readonly op: OpAmounts;
  /** Wall times. */
  readonly opWall: readonly DurationHistogram[];
  /** Of a kind's ops, each in one step. */
  readonly kindWall: readonly DurationHistogram[];
  readonly layerWall: readonly DurationHistogram[];
  /** Of the union of a kind's ops in each step. */
  readonly kindWallNs: Float64Array;
  readonly steps = new DurationHistogram();
  readonly phases = {
    prompt: { steps: new DurationHistogram(), rows: 0, sequences: 0 },
    generation: { steps: new DurationHistogram(), rows: 0, sequences: 0 },
  };
  /** By event kind; those of work, steps and shares stay empty. */
  readonly kindTime: readonly DurationHistogram[] = Array.from({ length: EVENT_KINDS }, () => new DurationHistogram());
  readonly unattributed = new DurationHistogram();
  readonly threadBusyNs = new Float64Array(THREADS_MAX);
  readonly threadWaitingNs = new Float64Array(THREADS_MAX);
  readonly threadIdleNs = new Float64Array(THREADS_MAX);
  lostEvents = 0;
  lateEvents = 0;
  malformedEvents = 0;
  incompleteSteps = 0;
  clippedNs = 0;
  #firstStartNs = Number.POSITIVE_INFINITY;
  #lastEndNs = Number.NEGATIVE_INFINITY;
  /** Spans of what was added from elsewhere, whose clocks need not agree. */
  #addedSpanNs = 0;

  /** @param ops in program order. */
  constructor(ops: readonly OpInfo[]) {
    this.ops = [...ops];
    this.kinds = [...new Set(ops.map((op) => op.kind))];
    this.layers = [...new Set(ops.map((op) => op.layer))].sort((a, b) => a - b);
    this.kindOfOp = Uint32Array.from(ops, (op) => this.kinds.indexOf(op.kind));
    this.layerOfOp = Uint32Array.from(ops, (op) => this.layers.indexOf(op.layer));
    const amounts = () => new Float64Array(ops.length);
    this.op = { workNs: amounts(), waitNs: amounts(), rows: amounts(), bytes: amounts(), operations: amounts() };
    this.opWall = ops.map(() => new DurationHistogram());
    this.kindWall = this.kinds.map(() => new DurationHistogram());
    this.layerWall = this.layers.map(() => new DurationHistogram());
    this.kindWallNs = new Float64Array(this.kinds.length);
  }

  /** Bytes that all buckets take. */
  get footprintBytes(): number {
    return this.#histograms().reduce((sum, { footprintBytes }) => sum + footprintBytes, 0);
  }

  /** A step's run of the op at a position: how long it took from the first thread's start to the last one's end. */
  recordOp(position: number, wallNs: number, rows: number): void {
    const { bytesPerStep, bytesPerRow, operationsPerRow } = this.ops[position] as OpInfo;
    const { op } = this;
    this.opWall[position]?.record(wallNs);
    this.kindWall[at(this.kindOfOp, position)]?.record(wallNs);
    op.rows[position] = at(op.rows, position) + rows;
    op.bytes[position] = at(op.bytes, position) + bytesPerStep + bytesPerRow * rows;
    op.operations[position] = at(op.operations, position) + operationsPerRow * rows;
  }

  recordStep(phase: Phase, startNs: number, endNs: number, rows: number, sequences: number): void {
    const ofPhase = this.phases[phase];
    this.steps.record(endNs - startNs);
    ofPhase.steps.record(endNs - startNs);
    ofPhase.rows += rows;
    ofPhase.sequences += sequences;
    this.#firstStartNs = Math.min(this.#firstStartNs, startNs);
    this.#lastEndNs = Math.max(this.#lastEndNs, endNs);
  }

  /** @param options.histograms also gives each row all its durations. */
  result(options: { readonly histograms?: boolean | undefined } = {}): Profile {
    const making = this.resultInTurns(options);
    for (;;) {
      const { done, value } = making.next();
      if (done) return value;
    }
  }

  /** The same in small pieces, between which something else may run that changes nothing here: percentiles take their time. */
  *resultInTurns({
    histograms = false,
  }: {
    readonly histograms?: boolean | undefined;
  } = {}): Generator<void, Profile, void> {
    const stepsNs = this.steps.total;
    const shareOf = (ns: number): number => (stepsNs === 0 ? 0 : ns / stepsNs);
    const row = (durations: Histogram, totalNs = durations.total): TimeRow =>
      timeRow(durations, totalNs, shareOf(totalNs), histograms);

    const byOp: OpRow[] = [];
    const kinds = this.kinds.map(() => new CostSum());
    const layers = this.layers.map(() => new CostSum());
    for (const [position, { index, name, kind, kernel, layer }] of this.ops.entries()) {
      const wall = this.opWall[position];
      if (wall === undefined || wall.count === 0) continue;
      const sum = new CostSum();
      sum.workNs = at(this.op.workNs, position);
      sum.waitNs = at(this.op.waitNs, position);
      sum.bytes = at(this.op.bytes, position);
      sum.operations = at(this.op.operations, position);
      const ofKind = at(this.kindOfOp, position);
      kinds[ofKind]?.add(sum);
      layers[at(this.layerOfOp, position)]?.add(sum);
      const rows = at(this.op.rows, position);
      byOp.push({ index, name, kind, kernel, layer, rows, ...row(wall, sum.workNs), ...sum.costs(wall.total) });
      yield;
    }
    const byKind: KindRow[] = [];
    for (const [index, sum] of kinds.entries()) {
      const [kind, wall] = [this.kinds[index], this.kindWall[index]];
      if (kind === undefined || wall === undefined || sum.ops === 0) continue;
      byKind.push({ kind, ops: sum.ops, ...row(wall, sum.workNs), ...sum.costs(at(this.kindWallNs, index)) });
      yield;
    }
    const byLayer: LayerRow[] = [];
    for (const [index, sum] of layers.entries()) {
      const [layer, wall] = [this.layers[index], this.layerWall[index]];
      if (layer === undefined || wall === undefined || sum.ops === 0) continue;
      byLayer.push({ layer, ...row(wall, sum.workNs), ...sum.costs(wall.total) });
      yield;
    }
    const phases = PHASES.filter((phase) => this.phases[phase].steps.count > 0).map((phase): PhaseRow => {
      const { steps, rows, sequences } = this.phases[phase];
      const rowsPerSecond = steps.total === 0 ? 0 : (rows / steps.total) * 1e9;
      return { phase, rows, sequences, rowsPerSecond, ...row(steps) };
    });
    const threads: ThreadRow[] = [];
    for (let thread = 0; thread < THREADS_MAX; thread++) {
      const busyNs = at(this.threadBusyNs, thread);
      const waitingNs = at(this.threadWaitingNs, thread);
      const recordedIdleNs = at(this.threadIdleNs, thread);
      if (busyNs + waitingNs + recordedIdleNs === 0) continue;
      const idleNs = Math.max(0, stepsNs - busyNs - waitingNs);
      threads.push({
        thread,
        busyNs,
        busyShare: shareOf(busyNs),
        waitingNs,
        waitingShare: shareOf(waitingNs),
        idleNs,
        idleShare: shareOf(idleNs),
        recordedIdleNs,
      });
    }
    const outside = (kind: keyof typeof KIND_ROWS): Histogram => this.kindTime[KIND_ROWS[kind]] as Histogram;
    return {
      totalTime: stepsNs / 1e6,
      spanNs: this.#addedSpanNs + Math.max(0, this.#lastEndNs - this.#firstStartNs),
      steps: row(this.steps),
      rows: this.phases.prompt.rows + this.phases.generation.rows,
      phases,
      byKind,
      byLayer,
      byOp,
      waiting: row(outside("waiting")),
      sampling: row(outside("sampling")),
      copying: row(outside("copying")),
      engine: row(outside("engine")),
      idle: row(outside("idle")),
      unattributed: row(this.unattributed),
      attributedShare: shareOf(stepsNs - outside("idle").total - this.unattributed.total),
      threads,
      lostEvents: this.lostEvents,
      lateEvents: this.lateEvents,
      malformedEvents: this.malformedEvents,
      incompleteSteps: this.incompleteSteps,
      clippedNs: this.clippedNs,
    };
  }

  /** Adds everything of `other`, which is of the same ops. */
  merge(other: Totals): void {
    for (const _ of this.mergeInTurns(other));
  }

  /** The same in small pieces, between which both must stay as they are. */
  *mergeInTurns(other: Totals): Generator<void, void, void> {
    const mine = this.#histograms();
    for (const [index, histogram] of other.#histograms().entries()) {
      mine[index]?.merge(histogram);
      yield;
    }
    const sums = this.#sums();
    for (const [index, added] of other.#sums().entries()) addAll(sums[index] as Float64Array, added);
    for (const phase of PHASES) {
      this.phases[phase].rows += other.phases[phase].rows;
      this.phases[phase].sequences += other.phases[phase].sequences;
    }
    this.#addCounts(other);
    this.#addedSpanNs += other.#addedSpanNs + Math.max(0, other.#lastEndNs - other.#firstStartNs);
  }

  /**
   * Adds a profile of the same ops.
   * @param path what the profile is called in error messages.
   * @throws {ProfileMergeError} when a row has no histogram or a damaged one.
   */
  add(profile: Profile, path: string): void {
    const merge = (histogram: Histogram | undefined, row: TimeRow, where: string): void => {
      histogram?.merge(decodeRow(row, `${path}.${where}`));
    };
    const positions = new Map(this.ops.map((op, position) => [op.index, position]));
    const { op } = this;
    for (const [index, row] of profile.byOp.entries()) {
      const position = positions.get(row.index) as number;
      merge(this.opWall[position], row, `byOp[${index}]`);
      op.workNs[position] = at(op.workNs, position) + row.totalNs;
      op.waitNs[position] = at(op.waitNs, position) + row.waitNs;
      op.rows[position] = at(op.rows, position) + row.rows;
      op.bytes[position] = at(op.bytes, position) + row.bytes;
      op.operations[position] = at(op.operations, position) + row.operations;
    }
    for (const [position, row] of profile.byKind.entries()) {
      const index = this.kinds.indexOf(row.kind);
      merge(this.kindWall[index], row, `byKind[${position}]`);
      this.kindWallNs[index] = at(this.kindWallNs, index) + row.wallNs;
    }
    for (const [index, row] of profile.byLayer.entries()) {
      merge(this.layerWall[this.layers.indexOf(row.layer)], row, `byLayer[${index}]`);
    }
    merge(this.steps, profile.steps, "steps");
    for (const [index, row] of profile.phases.entries()) {
      const ofPhase = this.phases[row.phase];
      merge(ofPhase.steps, row, `phases[${index}]`);
      ofPhase.rows += row.rows;
      ofPhase.sequences += row.sequences;
    }
    for (const name of Object.keys(KIND_ROWS) as (keyof typeof KIND_ROWS)[]) {
      merge(this.kindTime[KIND_ROWS[name]], profile[name], name);
    }
    merge(this.unattributed, profile.unattributed, "unattributed");
    for (const { thread, busyNs, waitingNs, recordedIdleNs } of profile.threads) {
      this.threadBusyNs[thread] = at(this.threadBusyNs, thread) + busyNs;
      this.threadWaitingNs[thread] = at(this.threadWaitingNs, thread) + waitingNs;
      this.threadIdleNs[thread] = at(this.threadIdleNs, thread) + recordedIdleNs;
    }
    this.#addCounts(profile);
    this.#addedSpanNs += profile.spanNs;
  }

  /** Forgets everything. */
  reset(): void {
    for (const histogram of this.#histograms()) histogram.reset();
    for (const sums of this.#sums()) sums.fill(0);
    for (const phase of PHASES) this.phases[phase].rows = this.phases[phase].sequences = 0;
    this.lostEvents = this.lateEvents = this.malformedEvents = this.incompleteSteps = this.clippedNs = 0;
    this.#firstStartNs = Number.POSITIVE_INFINITY;
    this.#lastEndNs = Number.NEGATIVE_INFINITY;
    this.#addedSpanNs = 0;
  }

  #addCounts(
    counts: Pick<Profile, "lostEvents" | "lateEvents" | "malformedEvents" | "incompleteSteps" | "clippedNs">,
  ): void {
    this.lostEvents += counts.lostEvents;
    this.lateEvents += counts.lateEvents;
    this.malformedEvents += counts.malformedEvents;
    this.incompleteSteps += counts.incompleteSteps;
    this.clippedNs += counts.clippedNs;
  }

  /** All of them, in an order that two totals of the same ops share. */
  #histograms(): Histogram[] {
    const { prompt, generation } = this.phases;
    return [
      ...[...this.opWall, ...this.kindWall, ...this.layerWall, ...this.kindTime],
      ...[this.steps, prompt.steps, generation.steps, this.unattributed],
    ];
  }

  #sums(): Float64Array[] {
    const { workNs, waitNs, rows, bytes, operations } = this.op;
    const ofThreads = [this.threadBusyNs, this.threadWaitingNs, this.threadIdleNs];
    return [workNs, waitNs, rows, bytes, operations, this.kindWallNs, ...ofThreads];
  }
}

/**
 * One profile of several that were taken of the same program with `histograms: true`, by threads, runs or machines: the same as
 * if one had seen it all. Only the spans are added, since clocks differ. Rows have histograms again, so that the result can be
 * merged with others.
 * @throws {ProfileMergeError} saying what differs, if the profiles are not of the same program, and which row has no histogram.
 */
export function mergeProfiles(profiles: readonly Profile[]): Profile {
  const ops = new Map<number, OpInfo>();
  for (const [position, profile] of profiles.entries()) {
    for (const { index, name, kind, kernel, layer } of profile.byOp) {
      const op: OpInfo = { index, name, kind, kernel, layer, bytesPerStep: 0, bytesPerRow: 0, operationsPerRow: 0 };
      const known = ops.get(index) ?? op;
      for (const field of ["name", "kind", "kernel", "layer"] as const) {
        if (known[field] === op[field]) continue;
        throw new ProfileMergeError(
          `profiles[${position}]: op ${index} (${name}) has the ${field} ${op[field]}, in the profiles before it ${known[field]}: ` +
            "profiles of different programs cannot be merged; take them of one model at one instruction-set level",
        );
      }
      ops.set(index, known);
    }
  }
  const totals = new Totals([...ops.values()].sort((a, b) => a.index - b.index));
  for (const [position, profile] of profiles.entries()) totals.add(profile, `profiles[${position}]`);
  return totals.result({ histograms: true });
}

export function timeRow(durations: Histogram, totalNs: number, share: number, histograms = false): TimeRow {
  return {
    count: durations.count,
    totalNs,
    share,
    p50Ns: durations.percentile(50),
    p90Ns: durations.percentile(90),
    p99Ns: durations.percentile(99),
    maxNs: durations.max,
    ...(histograms ? { histogram: durations.toJSON() } : {}),
  };
}

/** All durations of a row. @throws {ProfileMergeError} when it has no histogram or a damaged one. */
export function decodeRow(row: TimeRow, path: string): Histogram {
  const { histogram } = row;
  if (histogram === undefined) {
    if (row.count === 0) return new DurationHistogram();
    throw new ProfileMergeError(
      `${path}: has no histogram; take profiles that are to be merged with { histograms: true }`,
    );
  }
  try {
    const decoded = Histogram.fromJSON(histogram as HistogramData);
    if (decoded.count === row.count && decoded.unit === "ns") return decoded;
  } catch (cause) {
    throw new ProfileMergeError(`${path}: ${(cause as Error).message}`, { cause });
  }
  throw new ProfileMergeError(
    `${path}: its histogram has ${histogram.count} times in ${histogram.unit}, but the row ${row.count} in ns; the profile was changed or damaged`,
  );
}

/** Sums of an op, or of a kind's or a layer's ops. */
class CostSum {
  ops = 0;
  workNs = 0;
  waitNs = 0;
  bytes = 0;
  operations = 0;

  add(op: CostSum): void {
    this.ops++;
    this.workNs += op.workNs;
    this.waitNs += op.waitNs;
    this.bytes += op.bytes;
    this.operations += op.operations;
  }

  costs(wallNs: number): Omit<CostRow, keyof TimeRow> {
    const { waitNs, bytes, operations } = this;
    // Amounts per nanosecond are 10^9 a second.
    const rate = (amount: number): number | null => (amount > 0 && wallNs > 0 ? amount / wallNs : null);
    const rates = { gigabytesPerSecond: rate(bytes), gigaflopsPerSecond: rate(operations) };
    return { waitNs, wallNs, bytes, operations, ...rates };
  }
}

function addAll(sums: Float64Array, added: Float64Array): void {
  for (const [index, value] of added.entries()) sums[index] = at(sums, index) + value;
}

/** A cell of a typed array that the caller knows to be inside it. */
function at(values: Float64Array | Uint32Array, index: number): number {
  return values[index] as number;
}
