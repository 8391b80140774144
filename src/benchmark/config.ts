// Configurations of benchmarks: what `--config` files and programs may say, each field with its bounds, and the complete settings that
// come of a configuration, of flags, which win over it, and of defaults. config.schema.json is made from it.

import { z } from "zod";
import { BenchmarkFileError, OptionError } from "../errors.ts";
import { quantizationTypes } from "../quantize/types.ts";
import { type FileKind, fieldOf, problemOf, readJsonFile } from "./json-file.ts";
import { type BenchmarkType, metrics, metricsOf, type Settings } from "./results.ts";
import { publishedSchema } from "./schema/json-schema.ts";

const daySeconds = 86_400;
/** Sequences that a step takes at most. */
const batchMax = 64;

const integer = (minimum: number, maximum: number) => z.int().min(minimum).max(maximum);
const isEachOnce = (sizes: readonly number[]) => new Set(sizes).size === sizes.length;

/** What is measured and how, of `prepare`, `run` and `compare` alike. */
const measuring = {
  iterations: integer(1, 1e6)
    .nullable()
    .describe(
      "Iterations of each batch size; of the types memory and system, samples of each figure, if there is time for them. null: until the mean latency is known to `precision`, or `time_s` is over; of system, and of what memory measures beside requests, 10. Default null.",
    ),
  time_s: z
    .number()
    .gt(0)
    .max(daySeconds)
    .nullable()
    .describe(
      "Seconds for each batch size at most, warm-up not counted; of the types memory and system, for everything. null: no limit where `iterations` are given; of memory 60 and of system 40, of more than 100 iterations in proportion more. Without `iterations` and `precision`, all of it is measured. Default 60, of system 40.",
    ),
  precision: z
    .number()
    .min(0)
    .max(0.5)
    .describe(
      "Without `iterations`: measuring ends when half the 95 % interval of the mean latency is this part of it. 0: never. Default 0.02.",
    ),
  warmup: integer(0, 1e6)
    .nullable()
    .describe(
      "Iterations before the first that counts. null: until their times are steady; of type memory 3. Default null.",
    ),
  loadings: integer(1, 1000)
    .nullable()
    .describe(
      "Of type inference: times that a model is loaded at least, or as often as there are `iterations`, which are spread over them; 1 and no `iterations`: once, until it is enough. null: 10, to compare models in turns 20. Default null.",
    ),
  batch_sizes: z
    .array(integer(1, batchMax))
    .min(1)
    .max(batchMax)
    .refine(isEachOnce, "each batch size once is expected")
    .describe("Requests at once; several sizes are measured one after another. Default [1]."),
  metrics: z
    .array(z.enum([...metrics, "memory"]))
    .min(1)
    .max(metrics.length + 1)
    .describe("What is measured; memory is another name of memory_usage. Default all three."),
  prompt_tokens: integer(1, 1e6).describe("Tokens of each prompt, or of each text that is embedded. Default 32."),
  generated_tokens: integer(0, 1e6).describe(
    "Tokens generated for each prompt, at least 1; a model that only embeds generates none. Default 16.",
  ),
  threads: integer(1, 64)
    .nullable()
    .describe("Threads that compute. null: as many as the model is loaded with otherwise. Default null."),
  simd: z
    .string()
    .min(1)
    .max(64)
    .nullable()
    .describe("The instruction-set level, by name or number. null: the widest that the CPU runs. Default null."),
  seed: integer(0, 2 ** 32 - 1).describe("Draws orders and resamples; the same seed draws the same. Default 1."),
  disk_folder: z
    .string()
    .min(1)
    .max(4096)
    .describe("Where the type system writes and reads a file of its own. Default a folder of TinyAI's own."),
};

/** What is for one verb alone, and passed over by the others. */
const single = {
  quantize: z
    .enum(quantizationTypes)
    .nullable()
    .describe(
      "prepare: the type to which the model is quantized before, such as Q4_0. null: left as it is. Default null.",
    ),
  tune_s: z
    .number()
    .min(0)
    .max(daySeconds)
    .describe("prepare: seconds for trying threads, prefetching and batch sizes on the model. 0: none. Default 0."),
  measure_roofs: z
    .boolean()
    .describe("prepare: whether the machine's bandwidth and arithmetic are measured, for profiles. Default false."),
  confidence_level: z
    .number()
    .min(0.5)
    .max(0.999)
    .describe("compare: how sure a difference has to be to be called one. Default 0.95."),
};

const measuringSchema = z.strictObject(eachOptional(measuring));
const configSchema = z.strictObject(eachOptional({ ...measuring, ...single }));

/** Fields that may be missing, but not undefined, which a file cannot say. */
function eachOptional<Shape extends Record<string, z.ZodType>>(shape: Shape) {
  const optional = Object.entries(shape).map(([name, field]) => [name, field.exactOptional()]);
  return Object.fromEntries(optional) as { [Name in keyof Shape]: z.ZodExactOptional<Shape[Name]> };
}

/** What a configuration says; what it leaves out is as by default. Each field is described in config.schema.json. */
export type BenchmarkConfig = z.infer<typeof configSchema>;

/** The JSON Schema that is published. */
export function configJsonSchema(): object {
  return publishedSchema(configSchema, {
    $id: "urn:tinyai:schema:benchmark-config:1",
    title: "Configuration of tinyai benchmark",
    description:
      "What --config files of tinyai benchmark prepare, run and compare may say: JSON with comments. Flags win over it.",
  });
}

const kind: FileKind = {
  name: "a benchmark's configuration",
  source: `a configuration may be {}, and knows ${Object.keys(configSchema.shape).join(", ")}`,
  bytesMax: 1e6,
  parse: parseJsonWithComments,
  withComments: true,
};

/**
 * The configuration in a file of JSON, in which comments may stand.
 * @throws {BenchmarkFileError} naming the file and the key, if it cannot be read, or a key is unknown or its value out of bounds.
 */
export async function readBenchmarkConfig(path: string): Promise<BenchmarkConfig> {
  return parseBenchmarkConfig(await readJsonFile(path, kind), path);
}

/**
 * Checks what may be a configuration.
 * @param where it comes from, for messages: a file's path.
 * @throws {BenchmarkFileError} naming the first key that is unknown, or whose value is out of bounds.
 */
export function parseBenchmarkConfig(value: unknown, where: string): BenchmarkConfig {
  const { data, error } = configSchema.safeParse(value);
  const issue = error?.issues[0];
  if (!issue) return data ?? {};
  if (issue.code === "unrecognized_keys") {
    const there = Object.keys(configSchema.shape).join(", ");
    throw new BenchmarkFileError(where, `there is no key ${JSON.stringify(issue.keys[0])}; there are ${there}`);
  }
  throw new BenchmarkFileError(where, [fieldOf(issue.path), problemOf(issue, value)].join(" ").trim());
}

const flagNames: Readonly<Record<string, string>> = {
  time_s: "--time",
  batch_sizes: "--batch-size",
};

/** The flag that sets a field. */
function flagOf(field: string): string {
  return flagNames[field] ?? `--${field.replaceAll("_", "-")}`;
}

/** What says nothing to a type that measures no model; a configuration may be of several types, a flag is of one. */
const ofModels = [
  "precision",
  "warmup",
  "loadings",
  "batch_sizes",
  "metrics",
  "prompt_tokens",
  "generated_tokens",
] as const;

const defaults: Settings = {
  iterations: null,
  time_s: 60,
  precision: 0.02,
  warmup: null,
  loadings: null,
  batch_sizes: [1],
  metrics,
  prompt_tokens: 32,
  generated_tokens: 16,
  threads: null,
  simd: null,
  seed: 1,
};

/**
 * Complete settings of a benchmark: what flags say, else what a configuration says, else the defaults.
 * @param isEncoder whether the model only embeds, so that nothing is generated, whatever a configuration says.
 * @throws {OptionError} naming the flag or the key that is out of bounds, or does nothing beside another.
 */
export function resolveSettings(
  type: BenchmarkType,
  config: BenchmarkConfig = {},
  flags: Partial<Settings> = {},
  isEncoder = false,
): Settings {
  const { quantize, tune_s, measure_roofs, confidence_level, ...configured } = config;
  const asked = {
    ...checkMeasuring(configured, (field) => field),
    ...checkMeasuring(flags, flagOf),
  };
  // A configuration may be for several models; a flag is for this one.
  if (isEncoder && flags.generated_tokens) {
    const problem = `is ${flags.generated_tokens}, but the model only embeds; leave it out`;
    throw new OptionError(flagOf("generated_tokens"), problem);
  }
  if (flags.loadings !== undefined && type === "memory") {
    throw new OptionError(
      flagOf("loadings"),
      "is of type inference alone; type memory loads anew by itself, leave it out",
    );
  }
  if (flags.disk_folder !== undefined && type !== "system") {
    throw new OptionError(flagOf("disk_folder"), `is of type system alone; type ${type} writes no file, leave it out`);
  }
  const idle = type === "system" ? ofModels.find((field) => flags[field] !== undefined) : undefined;
  if (idle) throw new OptionError(flagOf(idle), "does nothing of type system, which measures no model; leave it out");
  const { metrics: names, ...rest } = asked;
  const { iterations, time_s, precision } = rest;
  return {
    ...defaults,
    ...(type === "system" && { time_s: 40 }),
    // Neither the time nor the precision ends what has a number of iterations; nor a precision what has a time of its own.
    ...(iterations && { time_s: null }),
    ...(time_s && !iterations && precision === undefined && { precision: 0 }),
    ...rest,
    // Something has to.
    ...(time_s === null && !iterations && precision === 0 && { time_s: defaults.time_s }),
    ...(isEncoder && { generated_tokens: 0 }),
    ...(names && { metrics: metricsOf(names) }),
  };
}

/** Checks settings that come from one place; what is undefined there says nothing. @param nameOf how a field is called there. */
function checkMeasuring(given: object, nameOf: (field: string) => string): z.infer<typeof measuringSchema> {
  const value = Object.fromEntries(Object.entries(given).filter(([, field]) => field !== undefined));
  const { data = {}, error } = measuringSchema.safeParse(value);
  const issue = error?.issues[0];
  if (issue?.code === "unrecognized_keys") {
    const there = Object.keys(measuringSchema.shape).join(", ");
    throw new OptionError(String(issue.keys[0]), `there is no such setting; there are ${there}`);
  }
  if (issue) throw new OptionError(nameOf(String(issue.path[0])), problemOf(issue, value));
  if (data.iterations && data.precision) {
    throw new OptionError(
      nameOf("precision"),
      `does nothing beside ${nameOf("iterations")}, which says when it ends; leave one of them out`,
    );
  }
  return data;
}

/** Comments and commas at ends are taken; what follows the value, which the parser would pass over, is not. */
function parseJsonWithComments(text: string): unknown {
  const value: unknown = Bun.JSONC.parse(text);
  Bun.JSONC.parse(`[${text.replace(/^\uFEFF/, "")}\n]`);
  return value;
}
