// What the native library allocated, as results have it: sums of each sample, and sizes and lifetimes over all of them.

import type { AmountRow } from "../../../profiler/report.ts";
import { AllocationWatch } from "../../engine/allocations.ts";
import type { Library } from "../../engine/library.ts";
import type { AmountFigures, NativeAllocationFigures } from "../results.ts";
import { statisticsOf } from "../statistics/describe.ts";
import { seededRandom } from "../statistics/random.ts";

/** Watches from its making to `stop`. */
export class NativeSamples {
  readonly #library: Library;
  readonly #all: AllocationWatch;
  readonly #counts: number[] = [];
  readonly #bytes: number[] = [];

  constructor(library: Library) {
    this.#library = library;
    this.#all = new AllocationWatch(library);
  }

  /** Does some work, what it allocates being one sample. What fails is none. */
  async take<Result>(work: () => Promise<Result>): Promise<Result> {
    const watch = new AllocationWatch(this.#library);
    try {
      const result = await work();
      const { count, allocatedBytes } = watch.result();
      this.#counts.push(count);
      this.#bytes.push(allocatedBytes);
      return result;
    } finally {
      watch.stop();
    }
  }

  /** Leaves out the samples so far, which warmed up. */
  forget(): void {
    this.#counts.length = 0;
    this.#bytes.length = 0;
  }

  /** Ends watching. */
  stop(seed: number): NativeAllocationFigures {
    const { sizes, lifetimes } = this.#all.stop();
    return {
      ...(this.#counts.length > 0 && {
        count: statisticsOf(this.#counts, seededRandom(seed)),
        bytes: statisticsOf(this.#bytes, seededRandom(seed)),
      }),
      ...(sizes.count > 0 && { sizes: amountsOf(sizes, 1) }),
      ...(lifetimes.count > 0 && { lifetimes: amountsOf(lifetimes, 1e-6) }),
    };
  }
}

function amountsOf({ count, min, p50, p90, p99, max }: AmountRow, unit: number): AmountFigures {
  return { count, min: min * unit, p50: p50 * unit, p90: p90 * unit, p99: p99 * unit, max: max * unit };
}
