// The shape of a file of results as zod checks it. It says the same as the types of results.ts, and the JSON Schema results.schema.json
// is made from it. What is not named here may be in a file all the same.

import { z } from "zod";
import { benchmarkTypes, metrics, resultsVersion } from "../results.ts";
import { bytes, inferenceFigures, integer, text, texts } from "./figures.ts";
import { publishedSchema } from "./json-schema.ts";
import { memoryFiguresSchema } from "./memory.ts";
import { systemFiguresSchema } from "./system.ts";

const figuresSchema = z.object({
  ...inferenceFigures,
  by_batch_size: z
    .record(z.string().regex(/^[1-9]\d{0,8}$/), z.object(inferenceFigures))
    .describe("The same by batch size; beside this stand the first one's.")
    .exactOptional(),
  memory: memoryFiguresSchema.describe("What type memory measures beside the rest.").exactOptional(),
  system: systemFiguresSchema.describe("What type system measures.").exactOptional(),
});

const secondsMax = 1e9;

const settingsSchema = z.object({
  iterations: integer(1)
    .nullable()
    .describe("Of each batch size; null: until the interval is narrow or the time over."),
  time_s: z.number().gt(0).max(secondsMax).nullable().describe("Seconds for each batch size at most; null: no limit."),
  precision: z
    .number()
    .min(0)
    .max(1)
    .describe("Half the interval of the mean latency, as a part of it, that ends it; 0: none does."),
  warmup: integer(0).nullable().describe("Iterations before the first that counts; null: until the times are steady."),
  loadings: integer(1)
    .nullable()
    .describe("Times that a model is loaded at least; null: 10, in turns 20. Missing in older files: once.")
    .exactOptional(),
  batch_sizes: z.array(integer(1)).min(1).max(1000).describe("Requests at once; each size is measured by itself."),
  metrics: z.array(z.enum(metrics)).max(metrics.length).describe("What was measured of an inference benchmark."),
  prompt_tokens: integer(0).describe("Tokens of each prompt or text."),
  generated_tokens: integer(0).describe("Tokens generated for each prompt; of models that only embed, 0."),
  threads: integer(1).nullable().describe("null: as many as the process may use."),
  simd: text.nullable().describe("The instruction-set level's name; null: the widest that there is."),
  seed: integer(0, Number.MAX_SAFE_INTEGER).describe("Draws orders and resamples."),
  disk_folder: text.describe("Where the type system wrote and read its file.").exactOptional(),
});

const fingerprintSchema = z.object({
  id: text.describe("The same for the same CPU, cores, caches and instruction sets."),
  cpu: text.describe("The processor's name."),
  cores: integer(1).describe("CPUs that the process may use."),
  memory_bytes: bytes.describe("Bytes of memory."),
  kernel: text.describe("Of the operating system, its version."),
  bun: text.describe("Bun's version."),
  governor: text.nullable().describe("The frequency governor; null where the system tells none."),
  turbo: z
    .boolean()
    .nullable()
    .describe("Whether the CPU may clock above its base; null where the system does not tell."),
  virtualization: text.nullable().describe("Such as docker or kvm; null on bare metal or where it cannot be told."),
});

const modelDetailsSchema = z.object({
  path: text.describe("The model's file."),
  bytes: bytes.describe("Of the model's file; of a prepared one that of the file it was made from."),
  sha256: z
    .string()
    .regex(/^[0-9a-f]{64}$/)
    .nullable()
    .describe("Of the same file; null: it was not computed."),
  architecture: text.describe("Such as gemma3."),
  parameters: bytes.describe("Values of all tensors."),
  formats: z.record(z.string().max(64), bytes).describe("Bytes of weights by format."),
  layers: integer(0).describe("Of the network."),
  context: integer(0).describe("Positions that a sequence may have, as it was loaded."),
  simd: text.describe("The instruction-set level in use."),
  threads: integer(1).describe("Threads that computed."),
});

const infoSchema = z.object({
  model: text.describe("The model's file name, or the name it was pulled by; of type system, none."),
  type: z.enum(benchmarkTypes).describe("What was measured."),
  timestamp: z.iso.datetime({ offset: true }).describe("When measuring began: ISO 8601 with its offset from UTC."),
  system_info: z
    .object({
      cpu: text.describe("The processor's name, as the system gives it."),
      memory: text.describe("Such as 32GB."),
      os: text.describe("Such as Linux 5.4.0."),
    })
    .describe("The machine, for people."),
  version: integer(1, resultsVersion)
    .describe("Of this format; missing in files of the guide's fields alone.")
    .exactOptional(),
  tinyai: text.describe("TinyAI's version.").exactOptional(),
  fingerprint: fingerprintSchema.describe("What tells the machine, as it was, from others.").exactOptional(),
  settings: settingsSchema.describe("What was asked for; null: found while measuring.").exactOptional(),
  model_details: modelDetailsSchema.describe("The model, as it was loaded.").exactOptional(),
  methodology: texts.describe("How it was measured and what was assumed, a sentence each.").exactOptional(),
  warnings: texts.describe("What a reader has to know; empty: nothing was amiss.").exactOptional(),
  interrupted: z.boolean().describe("Whether Ctrl-C ended it before its time.").exactOptional(),
  in_turns: z.boolean().describe("Whether it took turns with other models; missing: it did not.").exactOptional(),
});

export const resultsSchema = z.object({
  benchmark_info: infoSchema.describe("What was measured, where and how."),
  results: figuresSchema.describe("The figures, those of the first batch size, and those of the type."),
});

/** The JSON Schema that is published. */
export function resultsJsonSchema(): object {
  return publishedSchema(resultsSchema, {
    $id: "urn:tinyai:schema:benchmark-results:1",
    title: "Results of tinyai benchmark",
    description:
      "What was measured, on what, and how. Latencies are in milliseconds, throughput in tokens (or texts) a second, memory in MB of 10^6 bytes. Fields that are not named here may be there.",
  });
}
