// Type `inference`: how long requests take, when their first token comes, how much a batch gets done in a time, and what memory and
// processors that takes, for one batch size after another.

import { type GpuMeter, openGpus } from "../engine/nvml.ts";
import { type Iterations, takeIterations } from "./iterations.ts";
import { openPeak, type ResidentPeak } from "./memory/peak.ts";
import type { Benchmark, BenchmarkContext, Measured } from "./registry.ts";
import type { InferenceFigures, Metric, Settings, Utilization } from "./results.ts";
import { batchWarnings } from "./sample-warnings.ts";
import { latencyOf, memoryUsageOf, statisticsOf } from "./statistics/describe.ts";
import { seededRandom } from "./statistics/random.ts";
import { type IterationSample, openSubject, requestOf, type Subject } from "./subject.ts";
import { type UtilizationWatch, utilizationPeriodMs, watchUtilization } from "./utilization.ts";

/** Of the whole, what loading is shown as. */
const loadingShare = 0.02;

export const inference: Benchmark = { needsModel: true, run: (context) => measureInference(context) };

/**
 * Measures a model's batch sizes one after another.
 * @param open another way to the model than `openSubject`.
 * @throws the signal's reason if it came before an iteration was measured.
 */
export async function measureInference(context: BenchmarkContext, open = openSubject): Promise<Measured> {
  const { model = "", settings, signal, onProgress } = context;
  const subject = await open(model, settings, {
    signal,
    onProgress: (share) => onProgress?.(share * loadingShare, "loading the model"),
  });
  const gpus = openGpus();
  const peak = openPeak();
  // Where the system does not keep it, looking for it would disturb what is measured.
  if (!peak.exact) peak.close();
  try {
    return await measureSizes(subject, gpus, peak, context);
  } finally {
    peak.close();
    gpus?.close();
    await subject.close();
  }
}

async function measureSizes(
  subject: Subject,
  gpus: GpuMeter | undefined,
  peak: ResidentPeak,
  { settings, signal, onProgress }: BenchmarkContext,
): Promise<Measured> {
  const { batch_sizes, metrics, seed } = settings;
  const bySize: Record<string, InferenceFigures> = {};
  const warnings: string[] = [];
  let first: InferenceFigures | undefined;
  let interrupted = false;
  for (const [index, batchSize] of batch_sizes.entries()) {
    const requests = requestsAtOnce(batchSize);
    const progress = (share: number, doing: string) =>
      onProgress?.(loadingShare + ((1 - loadingShare) * (index + share)) / batch_sizes.length, doing);
    progress(0, `warming up with ${requests}`);
    let watch: UtilizationWatch | undefined;
    let utilization: Utilization | undefined;
    let taken: Iterations<IterationSample>;
    try {
      taken = await takeIterations(() => subject.iterate(batchSize), settings, {
        signal,
        onWarm() {
          peak.reset();
          watch = watchUtilization({ gpus, seed });
        },
        onProgress: (share) => progress(share, requests),
      });
    } finally {
      utilization = watch?.stop();
    }
    interrupted = taken.ended === "signal";
    if (taken.samples.length > 0) {
      const figures = inferenceFigures(taken.samples, metrics, seed, peak.read());
      bySize[batchSize] = { ...figures, ...(utilization && { utilization }), warmup: taken.warmup };
      first ??= bySize[batchSize];
      warnings.push(...batchWarnings(taken, settings, batchSize));
    }
    if (interrupted) break;
  }
  if (!first) throw signal?.reason;
  return {
    figures: { ...first, by_batch_size: bySize },
    details: subject.details,
    ...(subject.embeds && { settings: { ...settings, generated_tokens: 0 } }),
    methodology: methodologyOf(subject.embeds, settings, peak.exact),
    warnings,
    interrupted,
  };
}

function requestsAtOnce(batchSize: number): string {
  return batchSize === 1 ? "a single request" : `${batchSize} requests at once`;
}

/**
 * The figures of iterations of one batch size, of the chosen metrics.
 * @param samples in the order in which they were measured; at least one.
 * @param seed draws the resamples of the intervals, for each figure anew, so that it can be computed again by itself.
 * @param peakBytes resident memory at its highest while they were measured, where that is known: samples may miss it.
 */
export function inferenceFigures(
  samples: readonly IterationSample[],
  metrics: readonly Metric[],
  seed: number,
  peakBytes = 0,
): InferenceFigures {
  const random = () => seededRandom(seed);
  const latenciesMs = samples.map(({ latencyMs }) => latencyMs);
  const firstTokensMs = samples.flatMap((sample) => sample.firstTokensMs);
  const rates = samples.map(({ made, latencyMs }) => (1000 * made) / latencyMs);
  const megabytes = samples.map(({ residentBytes }) => residentBytes / 1e6);
  const latency = metrics.includes("latency");
  const memory = { peak: peakBytes / 1e6, random: random() };
  return {
    ...(latency && { latency: latencyOf(latenciesMs, random()) }),
    ...(latency && firstTokensMs.length > 0 && { first_token: latencyOf(firstTokensMs, random()) }),
    ...(metrics.includes("throughput") && { throughput: statisticsOf(rates, random()) }),
    ...(metrics.includes("memory_usage") && { memory_usage: memoryUsageOf(megabytes, memory) }),
  };
}

/** How it was measured, and what was assumed. */
function methodologyOf(embeds: boolean, settings: Settings, peakIsKept: boolean): string[] {
  const { batch_sizes, iterations, time_s, precision, warmup, seed } = settings;
  const several = batch_sizes.length > 1;
  const ends = [
    ...(iterations === null ? [] : [`after ${iterations} iterations`]),
    ...(iterations === null && precision > 0
      ? [`when half the 95 % interval of the mean latency is at most ${100 * precision} % of the mean`]
      : []),
    ...(time_s === null ? [] : [`after ${time_s} s`]),
  ];
  return [
    several
      ? `An iteration is a batch of requests at once; batches of ${batch_sizes.join(", ")} are measured one size after another.`
      : `An iteration is ${requestsAtOnce(batch_sizes[0] ?? 1)}.`,
    `A request is ${requestOf(embeds, settings)}; prompts differ, are the same in each iteration, and use nothing that was kept of others.`,
    warmup === null
      ? "Iterations warm up until their times are steady, each batch size anew."
      : `${warmup} iterations warm up, each batch size anew.`,
    `Measuring a batch size ends ${ends.join(", or ")}.`,
    "Latency is from the call of the public interface until every request has its whole answer, by the monotonic clock.",
    ...(embeds
      ? []
      : ["A first token's latency is from the call until the program has the token; its samples are requests."]),
    `Throughput is the ${embeds ? "texts" : "generated tokens"} of an iteration through its latency.`,
    `Memory is what is resident of the whole process after an iteration, Bun included; the peak is ${peakIsKept ? "the most at any time while iterations counted, as the system keeps it" : "the largest of these: a short one may be missed"}.`,
    `Utilization is of periods of ${utilizationPeriodMs} ms while iterations count; one that ended late counts as so many as it lasted.`,
    `Intervals are of 95 %, by bootstrap with seed ${seed}.`,
    "Assumed: which tokens a prompt has makes no difference to its time, so any are taken.",
  ];
}
