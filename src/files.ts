// What every writer of files here needs so that a file is whole or not there: written under another name, synced, renamed.

import { closeSync, fsyncSync, openSync } from "node:fs";
import type { FileHandle } from "node:fs/promises";

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
