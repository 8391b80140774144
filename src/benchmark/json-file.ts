// Reads the JSON files of benchmarks, results and configurations, and says in a line what is wrong with one: which file, which field,
// what it holds, and what is expected.

import { statSync } from "node:fs";
import type { z } from "zod";
import { describe } from "../check.ts";
import { BenchmarkFileError } from "../errors.ts";
import { printable } from "../model/file.ts";
import { reason } from "../model/regular-file.ts";
import { placeOfError } from "./json-place.ts";

/** Characters of a list that is shown in a message. */
const listMax = 60;

/** What a file should be: for messages. */
export interface FileKind {
  /** "benchmark results" */
  readonly name: string;
  /** Who writes such files. */
  readonly source: string;
  readonly bytesMax: number;
  readonly parse: (text: string) => unknown;
  /** Whether that takes comments. */
  readonly withComments: boolean;
}

/** What a JSON file holds. @throws {BenchmarkFileError} if it cannot be read, or is no JSON. */
export async function readJsonFile(path: string, kind: FileKind): Promise<unknown> {
  if (path === "") throw new BenchmarkFileError('""', `is no path; name a file of ${kind.name}`);
  let text: string;
  try {
    // Asked before it is opened: opening a FIFO waits.
    const stats = statSync(path);
    if (stats.isDirectory()) throw new BenchmarkFileError(path, `is a folder; name a file of ${kind.name} in it`);
    if (!stats.isFile())
      throw new BenchmarkFileError(path, `is not a regular file; a file of ${kind.name} is expected`);
    if (stats.size > kind.bytesMax) {
      throw new BenchmarkFileError(
        path,
        `has ${Math.ceil(stats.size / 1e6)} MB; a file of ${kind.name} has at most ${kind.bytesMax / 1e6} MB`,
      );
    }
    text = await Bun.file(path).text();
  } catch (cause) {
    if (cause instanceof BenchmarkFileError) throw cause;
    throw new BenchmarkFileError(path, `cannot be read: ${reason(cause)}`, { cause });
  }
  if (text.trim() === "") throw new BenchmarkFileError(path, `is empty; ${kind.source}`);
  try {
    return kind.parse(text);
  } catch (cause) {
    const problem = cause instanceof Error ? printable(cause.message).replace(/^JSONC? Parse error: /, "") : "";
    if (cause instanceof RangeError) throw new BenchmarkFileError(path, "is nested too deeply", { cause });
    const isCut = /EOF|end of|Unterminated/i.test(problem);
    const place = placeOfError(text, kind.withComments);
    const where = place === undefined ? problem : `${problem} (${place})`;
    throw new BenchmarkFileError(path, `${isCut ? "is cut short or damaged" : "is no JSON"}: ${where}`, { cause });
  }
}

/** The field that an issue is about, as a path: `results.latency.samples[3]`; empty of the whole. */
export function fieldOf(path: readonly PropertyKey[]): string {
  return path
    .map((key) => (typeof key === "number" ? `[${key}]` : `.${printable(String(key))}`))
    .join("")
    .replace(/^\./, "");
}

/** What is wrong with a field, as words behind its name. `value` is the whole that was checked. */
export function problemOf(issue: z.core.$ZodIssue, value: unknown): string {
  const found = valueAt(value, issue.path);
  if (found === undefined) return "is missing";
  return `is ${shown(found)}; ${expectedBy(issue)}`;
}

function shown(value: unknown): string {
  const text = Array.isArray(value) ? JSON.stringify(value) : "";
  return text && text.length <= listMax ? text : describe(value);
}

function expectedBy(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case "invalid_type":
      return `${withArticle(issue.expected)} is expected`;
    case "too_small":
      return `${sizeOf(issue.origin)}${issue.inclusive ? "at least" : "more than"} ${issue.minimum} is expected`;
    case "too_big":
      return `${sizeOf(issue.origin)}${issue.inclusive ? "at most" : "less than"} ${issue.maximum} is expected`;
    case "invalid_value":
      return `there are ${issue.values.map(String).join(", ")}`;
    case "invalid_format":
      return issue.format === "datetime"
        ? "a time such as 2026-03-21T10:00:00Z is expected"
        : `text that fits ${issue.pattern ?? issue.format} is expected`;
    case "custom":
      return issue.message;
    default:
      return `what is expected is something else: ${issue.message}`;
  }
}

function sizeOf(origin: string): string {
  if (origin === "array") return "a number of items of ";
  return origin === "string" ? "a length of " : "";
}

function withArticle(type: string): string {
  if (type === "int") return "a whole number";
  return type === "record" || type === "object" ? "an object" : `${/^[aeiou]/.test(type) ? "an" : "a"} ${type}`;
}

/** What is at a path of a value; undefined where there is nothing. */
function valueAt(value: unknown, path: readonly PropertyKey[]): unknown {
  let found = value;
  for (const key of path) {
    if (typeof found !== "object" || found === null || !Object.hasOwn(found, key)) return undefined;
    found = (found as Readonly<Record<PropertyKey, unknown>>)[key];
  }
  return found;
}
