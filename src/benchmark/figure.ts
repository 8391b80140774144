// One figure of results by its name: the path of its field, such as `latency.percentiles.99`, or a shorter one, such as `latency.p99`.

import { isRecord } from "../check.ts";
import { OptionError } from "../errors.ts";
import type { BenchmarkResults, Figures, Interval } from "./results.ts";
import { meanInterval, quantileInterval } from "./statistics/bootstrap.ts";
import { samplesMin } from "./statistics/describe.ts";
import { quantile } from "./statistics/summary.ts";

/** What a name means. */
export interface FigureKind {
  /** The field's path, and behind it what of it. */
  readonly name: string;
  /** For people: "mean latency", "p99 latency". */
  readonly title: string;
  /** "" where it only counts, or is a part of something. */
  readonly unit: string;
  /** Null: neither is. */
  readonly better: "less" | "more" | null;
}

export interface Figure {
  readonly value: number;
  /** Null: the file has none, and too few samples for one. */
  readonly interval: Interval | null;
  /** How many samples it is of; null where the file does not have them. */
  readonly samples: number | null;
}

/** What has a `mean`, and what it was computed from. */
type Field = number | Readonly<Record<string, unknown>>;

/** Fields that may be followed, by their paths, with their units. What is not here has no single figure that is worth following. */
const units: readonly (readonly [path: RegExp, unit: string, better: FigureKind["better"]])[] = [
  [/(^|\.)(latency|first_token)$|^memory\.loading\.time$/, "ms", "less"],
  [/^throughput$/, "tokens/s", "more"],
  [/^memory_usage$|^memory\.(loading|running)\.(peak|added)$|^memory\.cache\.memory_per_step$/, "MB", "less"],
  [/^memory\.parts\.\w+\.(estimated\w*|taken|resident)$/, "MB", "less"],
  [/^memory\.allocations\.\w+\.bytes$/, "bytes", "less"],
  [/^memory\.allocations\.\w+\.(count|objects)$/, "", "less"],
  [/^memory\.cache\.levels\.\w+\.hit_rate$/, "", "more"],
  [/^memory\.bandwidth\.[\w.]+\.(read|write|copy)$/, "GB/s", "more"],
  [/^system\.disk\.\w+\.rate$|^system\.network\.bandwidth$/, "MB/s", "more"],
  [/^system\.disk\.\w+\.operations$/, "accesses/s", "more"],
  [/^system\.threads\.curve\.\d+\.rate$/, "Gop/s", "more"],
  [/^system\.threads\.curve\.\d+\.(speedup|efficiency)$/, "", "more"],
  [/^system\.threads\.amdahl\.serial$/, "", "less"],
  [/^(system\.)?utilization\.[\w.]+$/, "%", null],
];

/** What may stand behind a field's path. */
const partPattern = /^(.+)\.(?:(mean|std|min|max|peak)|(?:p|percentiles\.)(\d+(?:\.\d+)?))$/;

/**
 * What a name means in some results.
 * @param name `memory` is `memory_usage`; `memory.` and `system.` at the begin may be left out.
 * @throws {OptionError} if none of them has such a figure, with the names that there are.
 */
export function figureKind(name: string, all: readonly BenchmarkResults[], option = "--metric"): FigureKind {
  const fields = new Map(all.flatMap(({ results }) => [...fieldsOf(results)]));
  const wanted = name === "memory" ? "memory_usage" : name;
  const [, front, word, percent] = partPattern.exec(wanted) ?? [];
  const isPercentile = percent !== undefined && Number(percent) > 0 && Number(percent) < 100;
  // A field may itself be called "peak".
  for (const [path, part] of [
    [wanted, undefined],
    [front, isPercentile ? `p${percent}` : word],
  ]) {
    const found = [path, `memory.${path}`, `system.${path}`].find((each) => each && fields.has(each) && unitOf(each));
    const field = fields.get(found ?? "");
    if (found === undefined || field === undefined || (path === front && part === undefined)) continue;
    if (typeof field === "number" && part !== undefined) continue;
    const chosen = part ?? defaultPart(field);
    const [, unit = "", better = null] = unitOf(found) ?? [];
    const texts = all[0]?.benchmark_info.settings?.generated_tokens === 0;
    return {
      name: chosen === "" ? found : `${found}.${chosen}`,
      title: titleOf(found, chosen),
      unit: found === "throughput" && texts ? "texts/s" : unit,
      better: chosen === "std" && better !== null ? "less" : better,
    };
  }
  throw new OptionError(option, `there is no ${JSON.stringify(name)} in these results; there are ${list(fields)}`);
}

/** The figure that a name means (`FigureKind.name`); undefined where these figures do not have it. */
export function figureOf(figures: Figures, name: string): Figure | undefined {
  const fields = new Map(fieldsOf(figures));
  const whole = fields.get(name);
  if (typeof whole === "number") {
    const [level, low, high] = ["level", "low", "high"].map((end) => fields.get(`${name}_interval.${end}`));
    const has = typeof level === "number" && typeof low === "number" && typeof high === "number";
    return { value: whole, interval: has ? { level, low, high } : null, samples: null };
  }
  const [, front = "", word, percent] = partPattern.exec(name) ?? [];
  const field = fields.get(front);
  if (field === undefined || typeof field === "number") return undefined;
  const samples = Array.isArray(field["samples"]) ? (field["samples"] as readonly number[]) : null;
  const count = samples?.length ?? null;
  if (percent !== undefined) return percentile(field, percent, samples);
  const value = field[word ?? "mean"];
  if (typeof value !== "number") return undefined;
  const interval =
    word !== "mean"
      ? null
      : isRecord(field["interval"])
        ? (field["interval"] as unknown as Interval)
        : samples && samples.length >= samplesMin
          ? meanInterval(samples)
          : null;
  return { value, interval, samples: count };
}

function percentile(
  field: Readonly<Record<string, unknown>>,
  percent: string,
  samples: readonly number[] | null,
): Figure | undefined {
  const named = (key: string): unknown => {
    const all = field[key];
    return isRecord(all) ? all[percent] : undefined;
  };
  const [given, interval] = [named("percentiles"), named("percentile_intervals")];
  const sorted = [...(samples ?? [])].sort((a, b) => a - b);
  const value = typeof given === "number" ? given : sorted.length > 0 ? quantile(sorted, Number(percent) / 100) : null;
  if (value === null) return undefined;
  const computed = samples && quantileInterval(samples, Number(percent) / 100);
  return {
    value,
    interval: isRecord(interval) ? (interval as unknown as Interval) : (computed ?? null),
    samples: samples?.length ?? null,
  };
}

/** Of memory it is the peak that has to fit. */
function defaultPart(field: Field): string {
  if (typeof field === "number") return "";
  return "peak" in field ? "peak" : "mean";
}

function unitOf(path: string) {
  return units.find(([pattern]) => pattern.test(path));
}

/** Figures lie no deeper in results: `system.threads.curve[0].speedup_interval.low`. What other programs put there may. */
const depthMax = 6;

/** Every field with a figure, by its path. Rows of a list are called by their names, or their numbers of threads. */
function* fieldsOf(figures: object, before = "", depth = 1): Generator<readonly [path: string, field: Field]> {
  if (depth > depthMax) return;
  for (const [key, value] of Object.entries(figures)) {
    if (key === "by_batch_size" || key === "samples") continue;
    const path = `${before}${key}`;
    if (typeof value === "number") yield [path, value];
    else if (Array.isArray(value)) yield* fieldsOf(rowsOf(value), `${path}.`, depth + 1);
    else if (isRecord(value) && "mean" in value) yield [path, value];
    else if (isRecord(value)) yield* fieldsOf(value, `${path}.`, depth + 1);
  }
}

function rowsOf(list: readonly unknown[]): Readonly<Record<string, unknown>> {
  const rows = list.filter(isRecord);
  const names = rows.map((row) => `${row["name"] ?? row["threads"]}`);
  return Object.fromEntries(
    rows.map((row, place) => {
      const name = names[place] ?? "";
      const again = names.filter((each) => each === name).length > 1;
      return [again ? `${name}.${row["threads"]}` : name, row];
    }),
  );
}

const partTitles: Readonly<Record<string, string>> = {
  mean: "mean",
  std: "standard deviation of",
  min: "least",
  max: "most",
  peak: "peak",
};

function titleOf(path: string, part: string): string {
  const noun = path.replace(/^(memory|system)\./, "").replaceAll(/[._]/g, " ");
  if (part === "") return noun;
  return `${partTitles[part] ?? part} ${noun}`;
}

/** The names that there are, for a message. */
function list(fields: ReadonlyMap<string, Field>): string {
  const paths = [...fields.keys()].filter((path) => unitOf(path));
  if (paths.length === 0) return "none that can be followed";
  const parts = paths.some((path) => typeof fields.get(path) !== "number");
  return `${paths.join(", ")}${parts ? ", and of them .mean, .std, .min, .max, of latencies .p50 to .p99" : ""}`;
}
