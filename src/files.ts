// What every writer of files here needs so that a file is whole or not there: written under another name, synced, renamed.

import { closeSync, fsyncSync, openSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";

let replacements = 0;

/**
 * Writes a file that is whole or not there, in the place of one that may be there: under a name that nobody else in this process
 * writes to, until it is on the disk. What `write` throws is thrown, and nothing is left of the file.
 * @param write is given what appends bytes.
 */
export async function replaceFile(
  path: string,
  write: (append: (bytes: Uint8Array) => Promise<void>) => Promise<void>,
  mode = 0o666,
): Promise<void> {
  const temporary = `${path}.${process.pid}.${++replacements}.tmp`;
  try {
    const handle = await open(temporary, "wx", mode);
    try {
      await write((bytes) => writeAll(handle, bytes));
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, path);
    syncFolder(dirname(path));
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => {});
    throw error;
  }
}

/** As `replaceFile`, for a small text and a caller who cannot wait. */
export function replaceFileNow(path: string, text: string): void {
  const temporary = `${path}.${process.pid}.${++replacements}.tmp`;
  try {
    writeFileSync(temporary, text, { flag: "wx", flush: true });
    renameSync(temporary, path);
    syncFolder(dirname(path));
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
}

/** Writes all of `bytes` where the file's position is; the system may take them in parts. */
export async function writeAll(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length; ) done += (await handle.write(bytes, done)).bytesWritten;
}

/** Makes a rename in a folder durable; some systems cannot open folders, and then it is as durable as they make it. */
export function syncFolder(folder: string): void {
  try {
    const descriptor = openSync(folder, "r");
    try {
      fsyncSync(descriptor);
    } finally {
      closeSync(descriptor);
    }
  } catch {}
}

/** Whether the system refused something, and not whoever was called back. */
export function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && "errno" in error;
}
