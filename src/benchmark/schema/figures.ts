// Figures as zod checks them: of a set of samples, and of an inference benchmark. Every number is finite and within bounds, every list
// bounded.

import { z } from "zod";

/** Beyond any figure: 30,000 years of milliseconds. */
const figureMax = 1e15;
/** Ten million iterations of a millisecond take three hours. */
const samplesMax = 10_000_000;
/** What a configuration asks for lies well inside; these bounds only tell damage. */
const countMax = 1e9;

export const figure = z.number().min(0).max(figureMax);
const change = z.number().min(-figureMax).max(figureMax);
export const bytes = z.int().min(0);
/** Of a whole. */
export const part = z.number().min(0).max(1);
export const text = z.string().max(4096);
export const texts = z.array(text).max(1000);
export const integer = (minimum: number, maximum = countMax) => z.int().min(minimum).max(maximum);

export const intervalSchema = z
  .object({
    level: z.number().gt(0).lt(1).describe("Such as 0.95."),
    low: change.describe("In the figure's unit."),
    high: change.describe("In the figure's unit."),
  })
  .meta({ id: "interval", description: "By bootstrap." });

const least = "The least of the samples.";
const most = "The most of the samples.";
const sampled = "In the order in which they were measured.";

const samples = z.array(figure).min(1).max(samplesMax).describe(sampled);

const statistics = {
  mean: figure.describe("Of the samples."),
  std: figure.describe("The samples' standard deviation, which divides by n - 1; 0 of one sample."),
  min: figure.describe(least),
  max: figure.describe(most),
  interval: intervalSchema.describe("Of the mean; missing with fewer than six samples.").exactOptional(),
  samples: samples.exactOptional(),
};

export const statisticsSchema = z.object(statistics).meta({ id: "statistics" });

/** Of samples that may be below zero. */
export const changeSchema = z
  .object({
    ...statistics,
    mean: change.describe("Of the samples."),
    min: change.describe(least),
    max: change.describe(most),
    samples: z.array(change).min(1).max(samplesMax).describe(sampled).exactOptional(),
  })
  .meta({ id: "change" });

export const latencySchema = z
  .object({
    ...statistics,
    percentiles: z
      .object({
        "50": figure.describe("Half of the samples are below."),
        "90": figure.describe("9 of 10 samples are below."),
        "95": figure.describe("95 of 100 samples are below."),
        "99": figure.describe("99 of 100 samples are below."),
      })
      .describe("Linear between neighbouring samples."),
    percentile_intervals: z
      .record(z.string().regex(/^\d{1,2}(\.\d+)?$/), intervalSchema)
      .describe("Of the percentiles, where there are samples enough.")
      .exactOptional(),
  })
  .meta({ id: "latency" });

const memoryUsageSchema = z
  .object({
    peak: figure.describe(
      "The most that was seen while iterations counted, MB: at any time where the system keeps it.",
    ),
    mean: figure.describe("Of the samples, MB."),
    std: figure.describe("The samples' standard deviation, MB."),
    min: figure.describe(least).exactOptional(),
    max: figure.describe(most).exactOptional(),
    interval: intervalSchema.describe("Of the mean.").exactOptional(),
    samples: samples.exactOptional(),
  })
  .meta({ id: "memoryUsage" });

export const utilizationSchema = z
  .object({
    cpu: statisticsSchema.describe("Of this process.").exactOptional(),
    machine: statisticsSchema.describe("Of everything on the machine.").exactOptional(),
    gpu: statisticsSchema.describe("Of all GPUs, the mean.").exactOptional(),
  })
  .meta({ id: "utilization" });

export const inferenceFigures = {
  latency: latencySchema
    .describe("Milliseconds from asking until every request of the batch has its whole answer.")
    .exactOptional(),
  first_token: latencySchema
    .describe("Milliseconds from asking until a request's first token; not of models that only embed.")
    .exactOptional(),
  throughput: statisticsSchema
    .describe("Tokens a second that all requests of the batch got together; of models that only embed, texts a second.")
    .exactOptional(),
  memory_usage: memoryUsageSchema.describe("MB, 10^6 bytes, of the process.").exactOptional(),
  utilization: utilizationSchema.describe("Percent of all CPUs that may be used, and of each GPU.").exactOptional(),
  warmup: z
    .object({
      iterations: integer(0).describe("How many."),
      steady: z.boolean().describe("Whether the times had become steady."),
    })
    .describe("What was run before the first iteration that counts.")
    .exactOptional(),
  loadings: z
    .array(integer(1))
    .min(1)
    .max(1_000_000)
    .describe(
      "Iterations of each loading of the model, which follow each other; missing in older files: there was one.",
    )
    .exactOptional(),
};
