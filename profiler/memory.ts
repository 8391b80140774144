// Memory operations of the steps that were profiled: what their kernels loaded and stored. Ops of one kind with the same operands
// do the same, in every layer, and again in every step of the same shape: each is run once with kernels that report every access
// (tracing.ts), kept, and multiplied out. Attention depends on where its rows stand, and is run for every place.

import type { OpInfo } from "./events.ts";
import { Histogram } from "./histogram.ts";
import { type AmountRow, type MemoryCounts, type MemoryOperations, type OpMemoryRow, regions } from "./report.ts";
import type { FinishedStep, StepShare } from "./steps.ts";
import type { StepTracer, TracedDraw, TracedOp } from "./tracing.ts";

/** Steps whose shapes are kept until they are counted; 50 minutes of generation at 20 a second, in 10 MB. */
export const STEPS_MAX = 2 ** 16;
/** Counts of attention that are kept, one for each place of a step's rows. */
const PLACES_MAX = 2 ** 12;

/** An op, as far as what it loads and stores depends on it. */
export interface CountedOp extends OpInfo {
  /** Equal for ops that load and store the same amounts in a step: kernel, formats, sizes, parameters. */
  readonly signature: string;
  /** Whether that depends on where the step's rows stand in which texts, not on their number alone. */
  readonly byPosition: boolean;
}

/** A step by its shape, and how often it came. */
export interface CountedStep {
  readonly shares: readonly StepShare[];
  readonly draw: TracedDraw;
  readonly count: number;
}

/** Of steps that draw nothing. */
export const NO_DRAW: TracedDraw = {
  temperature: 0,
  topP: 1,
  minP: 0,
  topK: 0,
  repeatPenalty: 1,
  topCount: 0,
  scores: false,
};

const FIELDS = ["loads", "stores", "bytesRead", "bytesWritten"] as const;

/** Gathers steps, and counts them when asked. */
export class MemoryCounter {
  readonly #ops: readonly CountedOp[];
  readonly #drawOf: (request: number) => TracedDraw | undefined;
  readonly #steps = new Map<string, CountedStep & { count: number }>();
  #uncounted = 0;

  /** @param drawOf how a request's tokens are drawn; undefined: it draws none. */
  constructor(ops: readonly CountedOp[], drawOf: (request: number) => TracedDraw | undefined) {
    this.#ops = ops;
    this.#drawOf = drawOf;
  }

  /** Takes in a step. Requests that ended are asked for no more. */
  add({ shares }: FinishedStep): void {
    const draw = shares.map(({ request }) => this.#drawOf(request)).find((found) => found !== undefined) ?? NO_DRAW;
    const key = `${shapeOf(shares)};${JSON.stringify(draw)}`;
    const known = this.#steps.get(key);
    if (known) known.count++;
    else if (this.#steps.size < STEPS_MAX) this.#steps.set(key, { shares, draw, count: 1 });
    else this.#uncounted++;
  }

  /** Shapes that were seen, in the order in which they came first. */
  get steps(): readonly CountedStep[] {
    return [...this.#steps.values()];
  }

  /**
   * Counts all steps taken in. Yields now and then, so that whoever drives it can let others run.
   * @param missing steps that finished without being taken in.
   * @param operations arithmetic operations of all steps, from the ops' static cost.
   */
  *count(tracer: StepTracer, missing: number, operations: number): Generator<void, MemoryOperations, void> {
    const sums = new Sums(this.#ops.length);
    const memo = new Memo(tracer, this.#ops);
    let uncounted = this.#uncounted + missing;
    for (const step of this.#steps.values()) {
      const traced = memo.step(step.shares, step.draw);
      if (traced) sums.add(traced, step.count);
      else uncounted += step.count;
      yield;
    }
    return sums.result(this.#ops, uncounted, operations);
  }
}

/** What ops did, kept by signature and by what of a step it depends on. */
class Memo {
  readonly #tracer: StepTracer;
  readonly #ops: readonly CountedOp[];
  readonly #known = new Map<string, TracedOp>();
  readonly #places = new Map<string, TracedOp>();

  constructor(tracer: StepTracer, ops: readonly CountedOp[]) {
    this.#tracer = tracer;
    this.#ops = ops;
  }

  /** What each op of a step does, and after them its draws; undefined: the program has no such step. */
  step(shares: readonly StepShare[], draw: TracedDraw): TracedOp[] | undefined {
    const rows = shares.reduce((sum, share) => sum + share.rows, 0);
    const logitsRows = shares.reduce((sum, share) => sum + share.logitsRows, 0);
    const how = JSON.stringify(draw);
    const embeds = shares.some((share) => share.embeds !== undefined);
    const counts = `${rows},${logitsRows},${embeds},${how}`;
    const shape = `${shapeOf(shares)};${how}`;
    let begun = false;
    const traced: TracedOp[] = [];
    for (let index = 0; index <= this.#ops.length; index++) {
      const op = this.#ops[index];
      const memo = op?.byPosition === true ? this.#places : this.#known;
      const key = `${op?.signature ?? "draws"};${op?.byPosition === true ? shape : counts}`;
      let found = memo.get(key);
      if (!found) {
        if (!begun && !this.#tracer.begin(shares, draw)) return undefined;
        begun = true;
        found = this.#tracer.run(index, index + 1, "count")[0] as TracedOp;
        if (memo.size === PLACES_MAX) memo.clear();
        memo.set(key, found);
      }
      traced.push(found);
    }
    return traced;
  }
}

/** Sums over steps, by op and by region, and their spread over steps. */
class Sums {
  readonly #byOp: Float64Array;
  readonly #byRegion = new Float64Array(regions.length * FIELDS.length);
  readonly #drawn = new Float64Array(FIELDS.length);
  readonly #perStep = FIELDS.map((field) => new Histogram(field.startsWith("bytes") ? "bytes" : "operations"));

  constructor(opCount: number) {
    this.#byOp = new Float64Array(opCount * FIELDS.length);
  }

  add(traced: readonly TracedOp[], times: number): void {
    for (const [place, field] of FIELDS.entries()) {
      let step = 0;
      for (const [index, op] of traced.entries()) {
        let ofOp = 0;
        for (const [region, amount] of op[field].entries()) {
          ofOp += amount;
          add(this.#byRegion, region * FIELDS.length + place, amount * times);
        }
        if (index === traced.length - 1) add(this.#drawn, place, ofOp * times);
        else add(this.#byOp, index * FIELDS.length + place, ofOp * times);
        step += ofOp;
      }
      this.#perStep[place]?.record(step, times);
    }
  }

  result(ops: readonly CountedOp[], uncountedSteps: number, operations: number): MemoryOperations {
    const byOp = ops
      .map(
        ({ index, name, kind, layer }): OpMemoryRow => ({ index, name, kind, layer, ...countsAt(this.#byOp, index) }),
      )
      .filter(({ loads, stores }) => loads + stores > 0);
    const byRegion = regions.map((region, index) => ({ region, ...countsAt(this.#byRegion, index) }));
    const sampling = countsAt(this.#drawn, 0);
    const total = { loads: 0, stores: 0, bytesRead: 0, bytesWritten: 0 };
    for (const row of byRegion) for (const field of FIELDS) total[field] += row[field];
    const [loads, stores, bytesRead, bytesWritten] = this.#perStep.map((each) => each.row({ histogram: true })) as [
      AmountRow,
      AmountRow,
      AmountRow,
      AmountRow,
    ];
    return {
      ...total,
      byOp,
      byRegion,
      sampling,
      perStep: { loads, stores, bytesRead, bytesWritten },
      operations,
      uncountedSteps,
    };
  }
}

function countsAt(sums: Float64Array, index: number): MemoryCounts {
  const at = (place: number): number => sums[index * FIELDS.length + place] as number;
  return { loads: at(0), stores: at(1), bytesRead: at(2), bytesWritten: at(3) };
}

function add(sums: Float64Array, index: number, amount: number): void {
  sums[index] = (sums[index] as number) + amount;
}

/** A step's shape as a text: which sequences' rows stand where. Requests do not matter. */
function shapeOf(shares: readonly StepShare[]): string {
  return shares
    .map(({ sequence, firstPosition, rows, logitsRows, embeds = 0 }) =>
      [sequence, firstPosition, rows, logitsRows, embeds].join(":"),
    )
    .join(",");
}
