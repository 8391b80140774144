// Names of parameters as the pipe has them, those of the command line's flags with underscores, and what they are called where they
// are used and checked.

import { describe, isRecord } from "../../check.ts";
import { OptionError } from "../../errors.ts";

/** Paths of options by the names of parameters: `{ threads: "threads.count" }`. */
export type Names = Readonly<Record<string, string>>;

export type Parameters = Readonly<Record<string, unknown>>;

export const loadingNames: Names = {
  threads: "threads.count",
  cpu_limit: "limits.cpuPercent",
  memory_limit: "limits.memoryPercent",
  simd_level: "simd.level",
  context: "contextLength",
  batch_size: "batchSize",
  kv_cache: "kvCache",
  prepared: "prepared",
  screening: "screening",
};

export const generationNames: Names = {
  max_length: "maxLength",
  temperature: "temperature",
  top_k: "topK",
  top_p: "topP",
  min_p: "minP",
  repeat_penalty: "repeatPenalty",
  repeat_last: "repeatLast",
  seed: "seed",
  stop: "stop",
  ignore_eos: "ignoreEos",
  top_logprobs: "topLogprobs",
  speculation: "speculation",
};

export const embeddingNames: Names = {
  pooling: "pooling",
  normalise: "normalise",
  truncate: "truncate",
  dimensions: "dimensions",
};

/**
 * A method's parameters.
 * @throws {OptionError} if there are others than these.
 */
export function checkParameters(params: unknown = {}, known: readonly string[]): Parameters {
  if (!isRecord(params)) throw new OptionError("params", `is ${describe(params)}; an object is expected`);
  const unknown = Object.keys(params).find((name) => !known.includes(name));
  if (unknown !== undefined) throw new OptionError(unknown, `is not a parameter; there are ${known.join(", ")}`);
  return params;
}

/** Those parameters that were given, as the options that they are. Values are checked where they are used. */
export function optionsOf<Options extends object>(params: Parameters, names: Names): Options {
  const options: Record<string, unknown> = {};
  for (const [name, path] of Object.entries(names)) {
    if (params[name] === undefined) continue;
    const [key = "", inner] = path.split(".");
    const outer = options[key];
    options[key] = inner === undefined ? params[name] : { ...(isRecord(outer) ? outer : {}), [inner]: params[name] };
  }
  return options as Options;
}

/** Calls what it throws about an option by the parameter's name. */
export async function namingParameters<T>(names: Names, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof OptionError)) throw error;
    const name = Object.keys(names).find((each) => names[each] === error.option);
    if (name === undefined || name === error.option) throw error;
    throw new OptionError(name, error.message.slice(`${error.option}: `.length), { cause: error });
  }
}
