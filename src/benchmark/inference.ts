// Type `inference`: how long requests take, when their first token comes, how much a batch gets done in a time, and what memory and
// processors that takes, for one batch size after another and in several loadings of the model.

import { openGpus } from "../engine/nvml.ts";
import { type Batch, lengthsOf, samplesOf, takeBlocks, warmupOf } from "./blocks.ts";
import { openPeak } from "./memory/peak.ts";
import type { Benchmark, BenchmarkContext, Measured } from "./registry.ts";
import type { InferenceFigures, Metric, Settings } from "./results.ts";
import { batchWarnings, type Taken } from "./sample-warnings.ts";
import { latencyOf, memoryUsageOf, statisticsOf } from "./statistics/describe.ts";
import { seededRandom } from "./statistics/random.ts";
import { type IterationSample, openSubject, requestOf, type Subject } from "./subject.ts";
import { UtilizationMeter, utilizationPeriodMs } from "./utilization.ts";

/** Times that a model is loaded. Each takes a loading's time, and fewer could not be told from another run's, some being disturbed. */
const loadingsDefault = 10;

export const inference: Benchmark = { needsModel: true, run: (context) => measureInference(context) };

/**
 * Measures a model's batch sizes, one after another in each of several loadings.
 * @param open another way to the model than `openSubject`.
 * @throws the signal's reason if it came before an iteration was measured.
 */
export async function measureInference(context: BenchmarkContext, open = openSubject): Promise<Measured> {
  const { model = "", settings, signal, onProgress } = context;
  const { batch_sizes, metrics, seed } = settings;
  const gpus = openGpus();
  const peak = openPeak();
  // Where the system does not keep it, looking for it would disturb what is measured.
  if (!peak.exact) peak.close();
  const meters = new Map(batch_sizes.map((size) => [size, new UtilizationMeter({ gpus, seed })]));
  const peakBytes = new Map<number, number>();
  let isWarm = false;
  let subject: Subject | undefined;
  try {
    const { batches, ended } = await takeBlocks(settings, {
      blocksMin: settings.loadings ?? loadingsDefault,
      async open(onLoading) {
        subject = await open(model, settings, { signal, details: subject?.details, onProgress: onLoading });
        return subject;
      },
      onWarm(batchSize) {
        peak.reset();
        isWarm = true;
        meters.get(batchSize)?.start();
      },
      onOver(batchSize) {
        if (!isWarm) return;
        isWarm = false;
        meters.get(batchSize)?.stop();
        peakBytes.set(batchSize, Math.max(peakBytes.get(batchSize) ?? 0, peak.read()));
      },
      signal,
      onProgress,
    });
    if (!subject || batches.length === 0) throw signal?.reason;
    const bySize = batches.map((batch): readonly [string, InferenceFigures] => {
      const utilization = meters.get(batch.batchSize)?.figures();
      return [
        `${batch.batchSize}`,
        {
          ...inferenceFigures(samplesOf(batch), metrics, seed, peakBytes.get(batch.batchSize)),
          ...(utilization && { utilization }),
          warmup: warmupOf(batch),
          loadings: lengthsOf(batch),
        },
      ];
    });
    return {
      figures: { ...bySize[0]?.[1], by_batch_size: Object.fromEntries(bySize) },
      details: subject.details,
      ...(subject.embeds && { settings: { ...settings, generated_tokens: 0 } }),
      methodology: methodologyOf(subject.embeds, settings, peak.exact),
      warnings: batches.flatMap((batch) => batchWarnings(takenOf(batch, ended), settings, batch.batchSize)),
      interrupted: ended === "signal",
    };
  } finally {
    peak.close();
    gpus?.close();
  }
}

function takenOf(batch: Batch<IterationSample>, ended: Taken["ended"]): Taken {
  return { samples: samplesOf(batch), warmup: warmupOf(batch), ended, loadings: lengthsOf(batch) };
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
  const { batch_sizes, iterations, time_s, precision, warmup, loadings, seed } = settings;
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
    loadings === 1
      ? "The model is loaded once."
      : "Iterations are spread over loadings of the model, which stand beside the figures: how memory and threads lie differs from one to the next.",
    `A request is ${requestOf(embeds, settings)}; prompts differ, are the same in each iteration, and use nothing that was kept of others.`,
    warmup === null
      ? "Iterations warm up until their times are steady, each batch size anew; in later loadings, if there are any, three do."
      : `${warmup} iterations warm up, each batch size anew; in later loadings, if there are any, three at most.`,
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
