// Figures of a memory benchmark as zod checks them.

import { z } from "zod";
import { bytes, changeSchema, figure, integer, part, statisticsSchema, text } from "./figures.ts";

const listMax = 1000;
const megabytes = (what: string) => statisticsSchema.describe(`MB, 10^6 bytes: ${what}`).exactOptional();
const rate = (doing: string) => statisticsSchema.describe(`${doing}, GB/s.`).exactOptional();

const loadingSchema = z.object({
  time: statisticsSchema.describe("Milliseconds.").exactOptional(),
  peak: megabytes("the process's resident memory at its highest."),
  added: changeSchema.describe("MB of the peak beyond what was resident before.").exactOptional(),
});

const partSchema = z.object({
  name: text.describe("Such as weights or keysAndValues."),
  estimated_min: figure.describe("By calculation, before it was loaded, at least.").exactOptional(),
  estimated_max: figure.describe("By calculation, before it was loaded, at most.").exactOptional(),
  taken: figure.describe("What was set aside; much of it costs nothing until it is written.").exactOptional(),
  resident: figure.describe("What of it was in memory.").exactOptional(),
});

const amountSchema = z
  .object({
    count: bytes.describe("How many there were."),
    min: figure.describe("The least."),
    p50: figure.describe("Half are below."),
    p90: figure.describe("9 of 10 are below."),
    p99: figure.describe("99 of 100 are below."),
    max: figure.describe("The most."),
  })
  .meta({ id: "amounts" });

const nativeSchema = z
  .object({
    count: statisticsSchema.describe("Pieces taken.").exactOptional(),
    bytes: statisticsSchema.describe("Bytes of them.").exactOptional(),
    sizes: amountSchema.describe("Bytes of a piece, over all that were taken.").exactOptional(),
    lifetimes: amountSchema.describe("Milliseconds from taking a piece to giving it back.").exactOptional(),
  })
  .meta({ id: "nativeAllocations" });

const javascriptSchema = z.object({
  objects: changeSchema
    .describe("Objects that a request makes, whether anybody still holds them or not.")
    .exactOptional(),
  types: z
    .array(z.object({ name: text.describe("Of the type."), objects: figure.describe("A request.") }))
    .max(listMax)
    .describe("Objects a request by type, the most frequent first.")
    .exactOptional(),
  collections: z
    .object({
      count: integer(0).describe("Pauses."),
      total_ms: figure.describe("Milliseconds of all together."),
      max_ms: figure.describe("Milliseconds of the longest."),
    })
    .describe("The garbage collector's pauses in all requests.")
    .exactOptional(),
});

const allocationsSchema = z.object({
  loading: nativeSchema.describe("By the native library while the model was loaded.").exactOptional(),
  native: nativeSchema.describe("By the native library, a sample for each request.").exactOptional(),
  javascript: javascriptSchema.describe("By JavaScript, a sample for each request.").exactOptional(),
});

const cacheSchema = z.object({
  source: z.enum(["hardware counters", "simulator"]).describe("What counted.").exactOptional(),
  description: text.describe("What was counted, and how.").exactOptional(),
  levels: z
    .array(
      z.object({
        name: text.describe("L1D, L2 or L3."),
        bytes: bytes.describe("Its size."),
        shared_by: integer(1).describe("Threads that share one."),
        accesses: figure.describe("That came to this level, a cache line each."),
        hits: figure.describe("Of them those that it held."),
        hit_rate: part.describe("hits / accesses; 1 where there were none."),
      }),
    )
    .max(listMax)
    .describe("Nearest first.")
    .exactOptional(),
  memory_per_step: figure.describe("MB that came from memory for each step.").exactOptional(),
  steps: bytes.describe("Of the model, that it is of.").exactOptional(),
  followed_steps: bytes.describe("Of them those that were followed one access at a time.").exactOptional(),
});

const bandwidthSchema = z
  .object({
    name: text.describe("L1D, L2, L3 or memory."),
    threads: integer(1).describe("That read and wrote."),
    working_bytes: bytes.describe("That each thread goes over."),
    read: rate("Reading"),
    write: rate("Writing"),
    copy: rate("Copying"),
  })
  .describe("GB/s, 10^9 bytes a second, of all threads together. A copy counts what it reads and what it writes.");

export const memoryFiguresSchema = z.object({
  loading: loadingSchema.describe("Loading the model: a sample for each time.").exactOptional(),
  running: z
    .object({ peak: megabytes("the process's resident memory at its highest during a request.") })
    .describe("Answering requests: a sample for each.")
    .exactOptional(),
  parts: z
    .array(partSchema)
    .max(listMax)
    .describe("MB, 10^6 bytes, of the model by what they are for.")
    .exactOptional(),
  allocations: allocationsSchema.describe("What was allocated.").exactOptional(),
  cache: cacheSchema.describe("How well the caches were used while requests were answered.").exactOptional(),
  bandwidth: z.array(bandwidthSchema).max(listMax).describe("The machine's, nearest cache first.").exactOptional(),
});
