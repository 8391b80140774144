// Files beside a test file that hold what was measured or counted before: read whole, written whole and under a lock, since several
// processes may run one test file; never in CI without being asked. What is in them and how it is compared is in baseline.ts and costs.ts.

import { mkdirSync, readFileSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { describe, isRecord } from "../check.ts";
import { BaselineFileError, OptionError } from "../errors.ts";
import { isSystemError, replaceFileNow } from "../files.ts";
import { acquireLockNow, type Lock } from "../lock.ts";

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

/** Files of which that was said: they are read again before they are written. */
const told = new Set<string>();

/**
 * Where the file is begun anew, what is damaged in it is left out, which is said.
 * @throws {BaselineFileError} if there is a file that cannot be read, or else is damaged.
 */
export function readEntries<T>(path: string, isEntry: (value: unknown) => value is T): Entries<T> {
  const begunAnew = updating() === "anew";
  const { whole, problem } = entriesOf(textOf(path), isEntry);
  if (problem === undefined) return whole;
  if (!begunAnew) throw new BaselineFileError(path, `${problem}; restore it, or begin anew with -u`);
  if (!told.has(path)) process.stderr.write(`${path}: ${problem}; that is begun anew\n`);
  told.add(path);
  return whole;
}

/** The text of a file, or what is wrong with it; neither: there is no such file. */
function textOf(path: string): { readonly text?: string; readonly problem?: string } {
  try {
    const found = statSync(path, { throwIfNoEntry: false });
    if (found === undefined) return {};
    // Reading of what is no file, such as a pipe, might never end.
    if (!found.isFile()) throw new Error("it is no file");
    if (found.size > bytesMax) return { problem: "is damaged: it is far too large" };
    return { text: readFileSync(path, "utf8") };
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return {};
    throw new BaselineFileError(path, `cannot be read: ${(cause as Error).message}`, { cause });
  }
}

/** The entries of a file's text that are whole, and what is wrong with the others. */
function entriesOf<T>(
  { text, ...unread }: ReturnType<typeof textOf>,
  isEntry: (value: unknown) => value is T,
): { readonly whole: Entries<T>; readonly problem?: string } {
  if (text === undefined) return { whole: {}, ...unread };
  let read: unknown;
  try {
    read = JSON.parse(text);
  } catch (cause) {
    return { whole: {}, problem: `is damaged: ${(cause as Error).message}` };
  }
  if (!isRecord(read)) {
    return { whole: {}, problem: "is damaged: it holds no entries" };
  }
  const all = Object.entries(read);
  const whole = Object.fromEntries(all.filter((entry): entry is [string, T] => isEntry(entry[1])));
  const wrong = all.find(([name]) => !Object.hasOwn(whole, name));
  if (wrong === undefined) return { whole };
  return { whole, problem: `is damaged, or of another version: the entry ${JSON.stringify(wrong[0])}` };
}

/**
 * Changes one entry and leaves the others as they are at that moment: what other processes write meanwhile is lost neither of this
 * entry nor of others.
 * @param change is given the entry as it is in the file now. It may be called while others wait: it should be quick.
 * @throws {BaselineFileError} as reading and writing, and if another process keeps the file locked.
 */
export function changeEntry<T>(
  path: string,
  name: string,
  isEntry: (value: unknown) => value is T,
  change: (before: T | undefined) => T,
): T {
  return locked(path, () => {
    const entries = readEntries(path, isEntry);
    const changed = change(Object.hasOwn(entries, name) ? entries[name] : undefined);
    writeEntries(path, { ...entries, [name]: changed });
    return changed;
  });
}

/**
 * Writes all entries, each on lines of its own so that changes read well, in the order of their names.
 * @throws {BaselineFileError} if the system refuses it.
 */
function writeEntries<T>(path: string, entries: Entries<T>): void {
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

/** A change takes milliseconds, and there may be many. */
const patienceMs = 60_000;

/** Runs `action` while no other process does so for the same path. Matchers cannot wait for promises, so that the thread sleeps. */
function locked<T>(path: string, action: () => T): T {
  let lock: Lock | undefined;
  try {
    mkdirSync(dirname(path), { recursive: true });
    lock = acquireLockNow(`${path}.lock`, patienceMs);
  } catch (cause) {
    if (!isSystemError(cause)) throw cause;
    throw new BaselineFileError(path, `cannot be written: ${cause.message}`, { cause });
  }
  if (lock === undefined) {
    throw new BaselineFileError(
      path,
      `cannot be written: another process holds ${path}.lock; delete that if there is none`,
    );
  }
  try {
    return action();
  } finally {
    lock.release();
  }
}
