// Figures of a system benchmark as zod checks them.

import { z } from "zod";
import type { SystemPart } from "../results.ts";
import {
  bytes,
  figure,
  integer,
  intervalSchema,
  latencySchema,
  part,
  statisticsSchema,
  text,
  utilizationSchema,
} from "./figures.ts";

const parts = ["disk", "network", "threads"] as const satisfies readonly SystemPart[];

const accessSchema = z
  .object({
    block_bytes: bytes.describe("Of each access."),
    queue_depth: integer(1).describe("Accesses under way at once."),
    bytes: bytes.describe("Moved in all samples together."),
    rate: statisticsSchema.describe("MB/s, 10^6 bytes a second; each sample is of a slice of time.").exactOptional(),
    operations: statisticsSchema.describe("Accesses a second.").exactOptional(),
    latency: latencySchema.describe("Milliseconds that one access takes.").exactOptional(),
  })
  .meta({ id: "diskAccess" });

const diskSchema = z.object({
  folder: text.describe("Where the file was."),
  file_system: text.nullable().describe("Such as ext4; null where the system does not tell."),
  direct: z.boolean().describe("Whether the page cache was bypassed (O_DIRECT)."),
  file_bytes: bytes.describe("Of the file that was written and read."),
  sequential_write: accessSchema.describe("Blocks one behind the other.").exactOptional(),
  sequential_read: accessSchema.describe("Blocks one behind the other.").exactOptional(),
  random_write: accessSchema.describe("Blocks at drawn places.").exactOptional(),
  random_read: accessSchema.describe("Blocks at drawn places.").exactOptional(),
});

const networkSchema = z.object({
  processes: integer(1).describe("1: both ends in one process; 2: one in each of two."),
  bandwidth: statisticsSchema
    .describe("MB/s, 10^6 bytes a second in one direction, as the receiving end counted them.")
    .exactOptional(),
  bytes: bytes.describe("Received in all samples together.").exactOptional(),
  latency: latencySchema.describe("Milliseconds that a message takes there and back.").exactOptional(),
  message_bytes: bytes.describe("Of each message that went there and back.").exactOptional(),
});

const pointSchema = z.object({
  threads: integer(1).describe("That did the work."),
  rate: statisticsSchema.describe("10^9 operations a second, all threads together."),
  speedup: figure.describe("Times the rate of one thread."),
  speedup_interval: intervalSchema.describe("Of the speed-up.").exactOptional(),
  efficiency: figure.describe("speedup / threads"),
});

const amdahlSchema = z
  .object({
    serial: part.describe("The part that more threads do not make faster."),
    interval: intervalSchema.describe("Of the serial part.").exactOptional(),
    speedup_max: figure.nullable().describe("1 / serial; null where nothing is serial."),
    residual: figure.describe("Root mean square of what the law misses of the measured speed-ups."),
  })
  .describe("Amdahl's law, fitted to the curve by least squares.");

const threadsSchema = z.object({
  kernel: text.describe("What is computed, in words."),
  simd: text.describe("The instruction-set level's name."),
  curve: z.array(pointSchema).max(4096).describe("By ascending number of threads.").exactOptional(),
  amdahl: amdahlSchema.exactOptional(),
});

export const systemFiguresSchema = z.object({
  disk: diskSchema.describe("Reading and writing one file.").exactOptional(),
  network: networkSchema.describe("TCP over 127.0.0.1.").exactOptional(),
  threads: threadsSchema.describe("The same work on 1 to n threads.").exactOptional(),
  utilization: z
    .partialRecord(z.enum(parts), utilizationSchema)
    .describe("How busy the machine was during each part.")
    .exactOptional(),
});
