// Files of results: reading checks every field and opens what has the guide's fields alone, or more than this version knows; writing is
// atomic, and what is written can be read again.

import { isRecord } from "../check.ts";
import { BenchmarkFileError } from "../errors.ts";
import { checkFilePath, writeFile } from "../profiling/file.ts";
import { type FileKind, fieldOf, problemOf, readJsonFile } from "./json-file.ts";
import { type BenchmarkResults, resultsVersion } from "./results.ts";
import { resultsSchema } from "./schema/results.ts";

const kind: FileKind = {
  name: "benchmark results",
  source: "tinyai benchmark run writes files of benchmark results",
  // A million iterations with four figures each, as text, and some room.
  bytesMax: 200e6,
  parse: JSON.parse,
  withComments: false,
};

/**
 * The results in a file.
 * @throws {BenchmarkFileError} naming the file and the field, if it cannot be read, is damaged, something else, or newer than this version.
 */
export async function readResults(path: string): Promise<BenchmarkResults> {
  return parseResults(await readJsonFile(path, kind), path);
}

/** Levels of fields in results; this version's own have eight, and what others add may have more. */
const depthMax = 100;

/**
 * Checks what may be results. Fields that this version does not know are kept.
 * @param where it comes from, for messages: a file's path.
 * @throws {BenchmarkFileError} naming the first field that is missing or out of bounds.
 */
export function parseResults(value: unknown, where: string): BenchmarkResults {
  const info = isRecord(value) ? value["benchmark_info"] : undefined;
  if (!isRecord(info)) {
    throw new BenchmarkFileError(where, `has no benchmark_info, so it holds no benchmark results; ${kind.source}`);
  }
  const { version } = info;
  if (typeof version === "number" && version > resultsVersion) {
    throw new BenchmarkFileError(
      where,
      `written by a newer TinyAI (version ${version}); this one reads up to ${resultsVersion}`,
    );
  }
  const { error } = resultsSchema.safeParse(value);
  const issue = error?.issues[0];
  if (issue) throw new BenchmarkFileError(where, `${fieldOf(issue.path)} ${problemOf(issue, value)}`);
  checkBatchSizes(value as unknown as BenchmarkResults, where);
  if (isDeeperThan(value, depthMax)) {
    throw new BenchmarkFileError(where, `is nested too deeply; results have at most ${depthMax} levels`);
  }
  return value as unknown as BenchmarkResults;
}

/** Whether objects and lists hold each other in more levels than `levels`: what is written, or looked through, is so by recursion. */
function isDeeperThan(value: unknown, levels: number): boolean {
  let level: unknown[] = [value];
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > levels) return true;
    const next: unknown[] = [];
    for (const each of level) {
      if (typeof each !== "object" || each === null) continue;
      for (const item of Object.values(each)) if (typeof item === "object" && item !== null) next.push(item);
    }
    level = next;
  }
  return false;
}

/** The schema's check passes over this one key, whatever keys a record has. */
function checkBatchSizes({ results }: BenchmarkResults, where: string): void {
  if (!Object.hasOwn(results.by_batch_size ?? {}, "__proto__")) return;
  throw new BenchmarkFileError(where, "results.by_batch_size.__proto__ is no batch size; whole numbers are expected");
}

/**
 * Writes results as a file that is whole or not there; people can read it, with a line for each list of samples.
 * @throws {BenchmarkFileError} if a figure is not finite or out of bounds, which no reader would take.
 * @throws {OptionError} if there can be no file of that path.
 * @throws {TinyAIError} with the code `file` if the system refuses to write it.
 */
export async function writeResults(path: string, results: BenchmarkResults): Promise<void> {
  checkFilePath("--output", path);
  parseResults(results, path);
  const bytes = new TextEncoder().encode(resultsText(results));
  if (bytes.length > kind.bytesMax) {
    throw new BenchmarkFileError(
      path,
      `would have ${Math.ceil(bytes.length / 1e6)} MB, of at most ${kind.bytesMax / 1e6}; measure fewer iterations`,
    );
  }
  await writeFile(path, [bytes]);
}

/** Results as a file holds them. */
export function resultsText(results: BenchmarkResults): string {
  const text = JSON.stringify(results, null, 2);
  // No text in JSON has an end of line inside, so that what is matched is a list of numbers.
  const lines = text.replace(/\[\n[-+.eE\d,\s]+\]/g, (list) => `[${list.slice(1, -1).trim().replace(/\n\s*/g, " ")}]`);
  return `${lines}\n`;
}
