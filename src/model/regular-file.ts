// Opens files that are read by offset: only regular ones that hold something, with what the system refuses in words.

import { closeSync, constants, fstatSync, openSync, type Stats, statSync } from "node:fs";
import { ModelFileError } from "../errors.ts";
import { printable } from "./file.ts";

/**
 * Opens a file for reading. `expected` is what it should be, for messages.
 * @throws {ModelFileError} if it cannot be opened, is no regular file, or is empty.
 */
export function openRegularFile(path: string, expected: string): { file: number; byteLength: number } {
  // Asked before it is opened: opening a device can have effects.
  checkKind(
    path,
    attempt(path, () => statSync(path)),
    expected,
  );
  // O_NONBLOCK: should the path have become a FIFO since, opening it does not wait for a writer.
  const file = attempt(path, () => openSync(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0)));
  try {
    const stats = attempt(path, () => fstatSync(file));
    checkKind(path, stats, expected);
    return { file, byteLength: stats.size };
  } catch (error) {
    closeSync(file);
    throw error;
  }
}

function checkKind(path: string, stats: Stats, expected: string): void {
  if (stats.isDirectory())
    throw new ModelFileError(path, "file", `is a folder; give the path of a ${expected} file in it`);
  if (!stats.isFile()) throw new ModelFileError(path, "file", `is not a regular file; a ${expected} file is expected`);
  if (stats.size === 0) throw new ModelFileError(path, "file", "is empty: the download failed; run tinyai pull again");
}

function attempt<Result>(path: string, action: () => Result): Result {
  try {
    return action();
  } catch (cause) {
    throw new ModelFileError(path, "file", `cannot be opened: ${reason(cause)}`, { cause });
  }
}

/** What the system said, in words where its code is a common one. */
export function reason(cause: unknown): string {
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : "";
  const words: Readonly<Record<string, string>> = {
    ENOENT: "there is no such file; check the path",
    EACCES: "this user may not read it; check its permissions",
    EPERM: "this user may not read it; check its permissions",
    ENOTDIR: "a part of its path is not a folder; check the path",
    ENAMETOOLONG: "its name is too long; check the path",
    ELOOP: "its symbolic links go in a circle",
    EMFILE: "this process has too many files open",
    EIO: "the disk reports an error",
  };
  return words[code] ?? (cause instanceof Error ? printable(cause.message) : "unknown reason");
}
