// What a reader has to know of the times of iterations before believing their figures: that there are few, that they were not steady,
// that they drift, that each is like the one before. A sentence each; none where nothing is amiss.

import { coefficientOfVariation } from "simple-statistics";
import type { IterationSettings, Iterations, Timed } from "./iterations.ts";
import { iterationsForPrecision } from "./iterations.ts";
import type { Settings } from "./results.ts";
import { precisionOf, samplesMin } from "./statistics/describe.ts";
import { loadingMeans } from "./statistics/loadings.ts";
import { drift, effectiveSize } from "./statistics/series.ts";

/** With fewer, the highest percentile is little more than the slowest iteration. */
const iterationsForPercentiles = 100;
/** Standard deviation beside the mean, from which times are called noisy. */
const noisy = 0.1;
/** A drift counts if it is as large as this, as a part of the times, and would seldom be seen where there is none. */
const driftBounds = { change: 0.02, pValue: 0.01 } as const;
/** Iterations that say as much as less than this part of them would, were they independent. */
const dependent = 0.5;

/** What was measured; of several loadings, in their order. */
export interface Taken extends Iterations<Timed> {
  /** How many samples of each loading follow each other. Default one loading. */
  readonly loadings?: readonly number[];
}

/** The same of one of several batch sizes, which is named. */
export function batchWarnings(
  taken: Taken,
  settings: IterationSettings & Pick<Settings, "batch_sizes">,
  batchSize: number,
): string[] {
  const of = settings.batch_sizes.length === 1 ? "" : `batch size ${batchSize}: `;
  return iterationWarnings(taken, settings).map((warning) => `${of}${warning}`);
}

export function iterationWarnings(
  { samples, warmup, ended, loadings = [samples.length] }: Taken,
  { iterations, time_s, precision }: IterationSettings,
): string[] {
  const warnings: string[] = [];
  const timesMs = samples.map(({ latencyMs }) => latencyMs);
  const count = timesMs.length;
  const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
  if (count < iterationsForPrecision) {
    warnings.push(`${count} iterations are too few for a mean; measure at least ${iterationsForPrecision}`);
  } else if (count < iterationsForPercentiles) {
    const remedy = `measure at least ${iterationsForPercentiles} for it (--iterations ${iterationsForPercentiles})`;
    warnings.push(`of ${count} iterations the 99th percentile is little more than the slowest; ${remedy}`);
  }
  if (ended !== "signal" && iterations !== null && time_s !== null && count < iterations) {
    warnings.push(`${count} of ${iterations} iterations were measured: the time was over (--time)`);
  }
  if (!warmup.steady) {
    const after = warmup.iterations === 1 ? "1 iteration" : `${warmup.iterations} iterations`;
    warnings.push(
      `the times had not become steady after ${after} of warming up; give more (--warmup), or a quieter machine`,
    );
  }
  if (count < iterationsForPrecision) return warnings;
  // Of too few loadings to tell by them, the iterations tell.
  const reached = precisionOf(loadings.length < samplesMin ? timesMs : loadingMeans(timesMs, loadings));
  if (ended !== "signal" && iterations === null && precision > 0 && reached > precision) {
    warnings.push(
      `the mean latency is known to ${percent(reached)} only, not to ${percent(precision)}: the time was over (--time)`,
    );
  }
  const variation = coefficientOfVariation(timesMs);
  if (variation > noisy) {
    warnings.push(
      `the times vary by ${percent(variation)} (standard deviation beside the mean): the machine was not quiet`,
    );
  }
  const { change, pValue } = drift(timesMs);
  if (Math.abs(change) >= driftBounds.change && pValue < driftBounds.pValue) {
    const [way, cause] = change > 0 ? ["rose", "heat or other work"] : ["fell", "a short warm-up"];
    warnings.push(
      `the times ${way} by ${percent(Math.abs(change))} from the first iteration to the last, as with ${cause}`,
    );
  }
  // Those of a loading are always like each other, beside those of the next.
  if (loadings.length > 1) return warnings;
  const effective = effectiveSize(timesMs);
  if (effective < dependent * count) {
    const asMuch = `${count} iterations say as much as ${Math.round(effective)} independent ones`;
    warnings.push(`each time is like the one before, so that ${asMuch}; the interval of the mean allows for it`);
  }
  return warnings;
}
