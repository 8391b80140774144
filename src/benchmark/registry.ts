// The types of benchmarks. Each is one file, loaded when it is asked for; a new one is a file and a line here.

import { OptionError } from "../errors.ts";
import { type BenchmarkType, benchmarkTypes, type Figures, type ModelDetails, type Settings } from "./results.ts";

/** What a benchmark is given. */
export interface BenchmarkContext {
  /** A model's path or name; undefined only for types that need none. */
  readonly model: string | undefined;
  readonly settings: Settings;
  /** Ends it; what was measured until then is kept. */
  readonly signal?: AbortSignal | undefined;
  /** Called with what is done of it, 0 to 1, and what is being done. */
  readonly onProgress?: ((share: number, doing: string) => void) | undefined;
}

/** What it measured. */
export interface Measured {
  readonly figures: Figures;
  readonly details?: ModelDetails;
  /** The settings as they were, where the model does not have some of them. */
  readonly settings?: Settings;
  readonly methodology: readonly string[];
  readonly warnings: readonly string[];
  readonly interrupted: boolean;
  /** CPU time of processes that it started and that have ended, ms. */
  readonly childrenMs?: number;
}

export interface Benchmark {
  readonly needsModel: boolean;
  readonly run: (context: BenchmarkContext) => Promise<Measured>;
}

const benchmarks: Readonly<Partial<Record<BenchmarkType, () => Promise<Benchmark>>>> = {
  inference: async () => (await import("./inference.ts")).inference,
  memory: async () => (await import("./memory.ts")).memory,
  system: async () => (await import("./system.ts")).system,
};

/**
 * The benchmark of a type.
 * @throws {OptionError} if there is none of that name, or none yet.
 */
export async function findBenchmark(type: string): Promise<Benchmark> {
  const load = Object.hasOwn(benchmarks, type) ? benchmarks[type as BenchmarkType] : undefined;
  if (load) return await load();
  const there = Object.keys(benchmarks).join(", ");
  const known = (benchmarkTypes as readonly string[]).includes(type);
  throw new OptionError(
    "--type",
    known
      ? `${type} cannot be measured: TinyAI does not train models yet; there are ${there}`
      : `there is no type ${JSON.stringify(type)}; there are ${there}`,
  );
}
