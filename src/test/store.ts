// Files beside a test file that hold what was measured or counted before: read whole, written whole, never in CI without being
// asked. What is in them and how it is compared is in baseline.ts and costs.ts.

import { mkdirSync, readFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { describe } from "../check.ts";
import { BaselineFileError, OptionError } from "../errors.ts";
import { isSystemError, replaceFileNow } from "../files.ts";

/** As `bun test` has its snapshots in `__snapshots__`. */
export const folderName = "__performance__";

/** A file that is larger is none of these. */
const bytesMax = 64 << 20;

/** The file of the running tests, in which `kind` tells several apart. */
export function storePath(kind: string): string {
  // `bun test` gives every test file its turn as the program's entry.
  return join(dirname(Bun.main), folderName, `${basename(Bun.main)}.${kind}.json`);
}

/**
 * What is asked for: that what is there is replaced (`--update-snapshots`, as for snapshots, or `TINYAI_UPDATE_BASELINES=1`), or added
 * to (`TINYAI_UPDATE_BASELINES=add`). Either is done in CI as well.
 * @throws {OptionError} if the variable is something else.
 */
export function updating(): "anew" | "add" | undefined {
  const value = process.env[variable] ?? "";
  if (value === "add") return "add";
  if (!["1", "true", "0", "false", ""].includes(value)) {
    const choices = "1 or true (begin anew), add (record without a judgement), and 0, false or nothing";
    throw new OptionError(variable, `is ${describe(value)}; there are ${choices}`);
  }
  const flagged = bunArguments().some((argument) => updateFlags.includes(argument));
  return flagged || value === "1" || value === "true" ? "anew" : undefined;
}

const variable = "TINYAI_UPDATE_BASELINES";
const updateFlags: readonly string[] = ["-u", "--update-snapshots"];

/** Whether files may be written without being asked: a machine in CI judges, and shall not write what it judges by, as with snapshots. */
export function writesUnasked(): boolean {
  return ["", "0", "false"].includes(process.env["CI"] ?? "");
}

/** What follows `bun`; empty where the system does not tell. `process.argv` has only what follows the test files. */
function bunArguments(): readonly string[] {
  try {
    return readFileSync("/proc/self/cmdline", "utf8").split("\0").slice(1);
  } catch {
    return [];
  }
}

/** The entries of a file by name; none if there is no file. */
export type Entries<T> = Record<string, T>;

/**
 * Where the file is begun anew, what is damaged in it is left out, which is said.
 * @throws {BaselineFileError} if there is a file that cannot be read, or else is damaged.
 */
export function readEntries<T>(path: string, isEntry: (value: unknown) => value is T): Entries<T> {
  const begunAnew = updating() === "anew";
  const { whole, problem } = entriesOf(textOf(path), isEntry);
  if (problem === undefined) return whole;
  if (!begunAnew) throw new BaselineFileError(path, `${problem}; restore it, or begin anew with -u`);
  process.stderr.write(`${path}: ${problem}; that is begun anew\n`);
  return whole;
}

/** Undefined: there is no such file. */
function textOf(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw new BaselineFileError(path, `cannot be read: ${(cause as Error).message}`, { cause });
  }
}

/** The entries of a file's text that are whole, and what is wrong with the others. */
function entriesOf<T>(
  text: string | undefined,
  isEntry: (value: unknown) => value is T,
): { readonly whole: Entries<T>; readonly problem?: string } {
  if (text === undefined) return { whole: {} };
  if (text.length > bytesMax) return { whole: {}, problem: "is damaged: it is far too large" };
  let read: unknown;
  try {
    read = JSON.parse(text);
  } catch (cause) {
    return { whole: {}, problem: `is damaged: ${(cause as Error).message}` };
  }
  if (typeof read !== "object" || read === null || Array.isArray(read)) {
    return { whole: {}, problem: "is damaged: it holds no entries" };
  }
  const all = Object.entries(read);
  const whole = Object.fromEntries(all.filter((entry): entry is [string, T] => isEntry(entry[1])));
  const wrong = all.find(([name]) => !Object.hasOwn(whole, name));
  if (wrong === undefined) return { whole };
  return { whole, problem: `is damaged, or of another version: the entry ${JSON.stringify(wrong[0])}` };
}

/**
 * Writes all entries, each on lines of its own so that changes read well, in the order of their names.
 * @throws {BaselineFileError} if the system refuses it.
 */
export function writeEntries<T>(path: string, entries: Entries<T>): void {
  const names = Object.keys(entries).sort();
  const lines = names.map((name) => `${JSON.stringify(name)}: ${JSON.stringify(entries[name])}`);
  try {
    mkdirSync(dirname(path), { recursive: true });
    replaceFileNow(path, `{\n${lines.join(",\n")}\n}\n`);
  } catch (cause) {
    if (!isSystemError(cause)) throw cause;
    throw new BaselineFileError(path, `cannot be written: ${cause.message}`, { cause });
  }
}
