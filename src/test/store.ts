// Files beside a test file that hold what was measured or counted before: read whole, written whole, never in CI without being
// asked. What is in them and how it is compared is in baseline.ts and costs.ts.

import { mkdirSync, readFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { BaselineFileError } from "../errors.ts";
import { isSystemError, replaceFileNow } from "../files.ts";

/** As `bun test` has its snapshots in `__snapshots__`. */
const folderName = "__performance__";

/** A file that is larger is none of these. */
const bytesMax = 64 << 20;

/** The file of the running tests, in which `kind` tells several apart. */
export function storePath(kind: string): string {
  // `bun test` gives every test file its turn as the program's entry.
  return join(dirname(Bun.main), folderName, `${basename(Bun.main)}.${kind}.json`);
}

/** Whether what is there is to be replaced (`--update-snapshots`, as for snapshots, or `TINYAI_UPDATE_BASELINES`). */
export function isUpdating(): boolean {
  return isSet("TINYAI_UPDATE_BASELINES") || bunArguments().some((argument) => updateFlags.includes(argument));
}

/** Whether what was measured is to be added to what is there, in CI as well (`TINYAI_UPDATE_BASELINES=add`). */
export function isAdding(): boolean {
  return process.env["TINYAI_UPDATE_BASELINES"] === "add";
}

const updateFlags: readonly string[] = ["-u", "--update-snapshots"];

/** Where a machine that is asked to judge shall not write what it judges by, as with snapshots. */
export function isCi(): boolean {
  return isSet("CI");
}

function isSet(name: string): boolean {
  const value = process.env[name];
  return value !== undefined && !["", "0", "false"].includes(value);
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
 * @throws {BaselineFileError} if there is a file that cannot be read, or is damaged.
 */
export function readEntries<T>(path: string, isEntry: (value: unknown) => value is T): Entries<T> {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return {};
    throw new BaselineFileError(path, `cannot be read: ${(cause as Error).message}`, { cause });
  }
  const remedy = "restore it, or delete it and run the test again outside of CI";
  let read: unknown;
  try {
    if (text.length > bytesMax) throw new Error("it is far too large");
    read = JSON.parse(text);
  } catch (cause) {
    throw new BaselineFileError(path, `is damaged: ${(cause as Error).message}; ${remedy}`, { cause });
  }
  if (typeof read !== "object" || read === null || Array.isArray(read)) {
    throw new BaselineFileError(path, `is damaged: it holds no entries; ${remedy}`);
  }
  for (const [name, entry] of Object.entries(read)) {
    if (isEntry(entry)) continue;
    throw new BaselineFileError(
      path,
      `is damaged, or of another version: the entry ${JSON.stringify(name)}; ${remedy}`,
    );
  }
  return read as Entries<T>;
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
