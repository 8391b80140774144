// The shape of bench/results/peers.json, and how a run goes on from what an earlier one has left there. It measures nothing.

import { geometricMean, type Ratio } from "../../src/benchmark/ratio.ts";
import type { Summary } from "../../src/benchmark/statistics/summary.ts";

/** A figure that is measured in every round. */
export interface Figure {
  readonly label: string;
  readonly better: "more" | "less";
  readonly unit: string;
  readonly digits: number;
  /** What TinyAI's figure is held against where that is TinyAI itself, in another way. */
  readonly against?: string;
}

/** A summary and the values of the turns that it was made of, in their order. */
export type Described = Summary & { readonly turns: readonly number[] };

/** One line of a model's table. */
export interface Row extends Figure {
  readonly key: string;
  readonly tinyai: Described;
  readonly peer: Described;
  readonly peerName: string;
  /** How the peer was set where it was tried both ways: the way whose median is better. */
  readonly setting?: string;
  readonly ratio: Ratio;
}

/** What was measured of one model, when, and of which commit. */
export interface Result {
  readonly model: string;
  /** ISO 8601. */
  readonly measured_at: string;
  readonly commit: string;
  /** How long measuring it took, without making the model. */
  readonly took_s: number;
  /** What of it each figure took. */
  readonly took_s_by_figure: Readonly<Record<string, number>>;
  readonly load_average_before: number;
  readonly file_bytes: number;
  readonly level: string;
  readonly first_prompt_tokens: number;
  readonly weight_bytes_per_token: number;
  readonly kv_bytes_per_token: number;
  readonly rows: readonly Row[];
  readonly bandwidth_gb_per_s: Described;
  /** Parts of the bandwidth, 0 to about 1, by the key of the figure. */
  readonly reached_of_bandwidth: Readonly<Record<string, Described>>;
  /** How long each program's language and libraries took of the time to the first token. */
  readonly runtime_s: Readonly<Record<string, Described>>;
  readonly warnings: readonly string[];
}

/** What must be the same in all of one file: models measured otherwise do not belong in one table. */
export interface Conditions {
  readonly cpu: string;
  readonly cpus: number;
  readonly versions: Readonly<Record<string, string>>;
  readonly settings: Readonly<Record<string, number | boolean>>;
}

/** The whole file. */
export interface Results extends Conditions {
  readonly schema: typeof schema;
  readonly models: readonly Result[];
  /** The geometric mean over the models of TinyAI's figure over llama.cpp's, by figure. */
  readonly overall_ratio_to_llama_cpp: Readonly<Record<string, number>>;
  readonly failures: readonly Failure[];
}

export interface Failure {
  readonly model: string;
  readonly problem: string;
}

const schema = 2;

/** A file without a model. */
export function noResults({ cpu, cpus, versions, settings }: Conditions): Results {
  return { schema, cpu, cpus, versions, settings, models: [], overall_ratio_to_llama_cpp: {}, failures: [] };
}

/** `results` with what was now learned of one model, in the place of what was known of it; in the order of `names`. */
export function withModel(results: Results, learned: Result | Failure, names: readonly string[]): Results {
  const others = results.models.filter(({ model }) => model !== learned.model);
  const failures = results.failures.filter(({ model }) => model !== learned.model);
  const failed = "problem" in learned;
  // A model that now fails keeps no older figures: they would pass for today's.
  const models = failed ? others : [...others, learned];
  const sorted = models.sort((a, b) => names.indexOf(a.model) - names.indexOf(b.model));
  return {
    ...results,
    models: sorted,
    overall_ratio_to_llama_cpp: overall(sorted),
    failures: failed ? [...failures, learned] : failures,
  };
}

/** The names that have no result of `commit` yet. A commit with changes is never the same as another. */
export function stillToMeasure(results: Results, names: readonly string[], commit: string): string[] {
  const done = new Set(results.models.filter((result) => result.commit === commit).map(({ model }) => model));
  return commit.includes(" ") || commit === "unknown" ? [...names] : names.filter((name) => !done.has(name));
}

/**
 * The text of an earlier run's file, to go on from.
 * @throws {Error} saying in what the file is not one of this program, or was measured otherwise than `conditions`.
 */
export function continueFrom(text: string, conditions: Conditions): Results {
  const results = parseResults(text);
  for (const key of ["cpu", "cpus", "versions", "settings"] as const) {
    const [was, is] = [JSON.stringify(results[key]), JSON.stringify(conditions[key])];
    if (was !== is) throw new Error(`its ${key} were ${was} and are now ${is}`);
  }
  return results;
}

/** @throws {Error} if `text` is not what this program writes. */
export function parseResults(text: string): Results {
  const results = JSON.parse(text) as Partial<Results> | null;
  if (results?.schema !== schema || !Array.isArray(results.models) || !Array.isArray(results.failures)) {
    throw new Error(`it is not a file of schema ${schema}`);
  }
  return results as Results;
}

function overall(results: readonly Result[]): Record<string, number> {
  const ratios = new Map<string, number[]>();
  for (const { key, peerName, ratio } of results.flatMap(({ rows }) => rows)) {
    if (peerName === "llama.cpp") ratios.set(key, [...(ratios.get(key) ?? []), ratio.ratio]);
  }
  return Object.fromEntries([...ratios].map(([key, values]) => [key, geometricMean(values)]));
}
