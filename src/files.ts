// What every writer of files here needs so that a file is whole or not there: written under another name, synced, renamed. What
// is no regular file is written as it is.

import {
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  fsync,
  fsyncSync,
  open,
  openSync,
  readlinkSync,
  renameSync,
  rmSync,
  type Stats,
  statSync,
  write,
  writeFileSync,
  writeSync,
} from "node:fs";
import type { FileHandle } from "node:fs/promises";
import { dirname, isAbsolute } from "node:path";
import { promisify } from "node:util";

const openLater = promisify(open);
const writeLater = promisify(write);
const syncLater = promisify(fsync);

/** Random names that are tried for a temporary file; that a second is needed is next to impossible. */
const namesMax = 8;

/** Links that the system follows on the way to a file, at most. */
const linksMax = 40;

/** How long a socket that takes no more for now is left alone. */
const fullMs = 1;

/**
 * Writes a file that is whole or not there, in the place of one that may be there: under a name of its own in the same folder,
 * until it is on the disk. What `fill` throws is thrown, and nothing is left of the file. Links are followed, and a file that was
 * there passes its mode on. What is there and is no regular file (a device, a FIFO) is written straight into, and so is what this
 * process prints to.
 * @param fill is given what appends bytes.
 * @param mode of a file that was not there, of which the process's mask is taken away.
 */
export async function replaceFile(
  path: string,
  fill: (append: (bytes: Uint8Array) => Promise<void>) => Promise<void>,
  mode = 0o666,
): Promise<void> {
  const appendTo = (descriptor: number) => async (bytes: Uint8Array) => {
    for (let done = 0; done < bytes.length; ) {
      try {
        done += (await writeLater(descriptor, bytes, done)).bytesWritten;
      } catch (error) {
        if (!isFull(error)) throw error;
        await Bun.sleep(fullMs);
      }
    }
  };
  const existing = statSync(path, { throwIfNoEntry: false });
  const output = existing && ownOutput(existing);
  if (output !== undefined) return await fill(appendTo(output));
  if (existing && !existing.isFile()) {
    // Not in this thread: it may wait for a FIFO's reader.
    const descriptor = await openLater(path, constants.O_WRONLY);
    try {
      return await fill(appendTo(descriptor));
    } finally {
      closeQuietly(descriptor);
    }
  }
  const replacement = new Replacement(path, mode, existing);
  try {
    await fill(appendTo(replacement.descriptor));
    await syncLater(replacement.descriptor);
    replacement.finish();
  } catch (error) {
    replacement.discard();
    throw error;
  }
}

/** As `replaceFile`, for a small text and a caller who cannot wait. */
export function replaceFileNow(path: string, text: string): void {
  const existing = statSync(path, { throwIfNoEntry: false });
  const output = existing && ownOutput(existing);
  if (output !== undefined) {
    const bytes = Buffer.from(text);
    for (let done = 0; done < bytes.length; ) {
      try {
        done += writeSync(output, bytes, done);
      } catch (error) {
        if (!isFull(error)) throw error;
        Bun.sleepSync(fullMs);
      }
    }
    return;
  }
  if (existing && !existing.isFile()) {
    const descriptor = openSync(path, constants.O_WRONLY);
    try {
      writeFileSync(descriptor, text);
    } finally {
      closeQuietly(descriptor);
    }
    return;
  }
  const replacement = new Replacement(path, 0o666, existing);
  try {
    writeFileSync(replacement.descriptor, text);
    fsyncSync(replacement.descriptor);
    replacement.finish();
  } catch (error) {
    replacement.discard();
    throw error;
  }
}

/** Files that are not whole yet. Who ends the process meanwhile, as a signal may, leaves none of them. */
const unfinished = new Set<string>();

function removeUnfinished(): void {
  for (const path of unfinished) {
    try {
      rmSync(path, { force: true });
    } catch {}
  }
}

/** A file under a temporary name, open for writing, that is to take the place of `path` or of the file to which it links. */
class Replacement {
  readonly descriptor: number;
  readonly #target: string;
  readonly #temporary: string;
  #isOpen = true;

  constructor(path: string, mode: number, existing: Stats | undefined) {
    this.#target = behindLinks(path);
    const bits = existing ? existing.mode & 0o777 : mode;
    [this.#temporary, this.descriptor] = openTemporary(dirname(this.#target), bits);
    if (unfinished.size === 0) process.on("exit", removeUnfinished);
    unfinished.add(this.#temporary);
    if (!existing) return;
    try {
      // The mask has taken bits away. Some file systems know no modes, and there nothing differs.
      if ((fstatSync(this.descriptor).mode & 0o777) !== bits) fchmodSync(this.descriptor, bits);
    } catch (error) {
      this.discard();
      throw error;
    }
  }

  /** Puts the file, which is on the disk, in its place. */
  finish(): void {
    this.#isOpen = false;
    closeSync(this.descriptor);
    renameSync(this.#temporary, this.#target);
    this.#forget();
    syncFolder(dirname(this.#target));
  }

  /** Removes the file. It never throws: there is an error already. */
  discard(): void {
    if (this.#isOpen) closeQuietly(this.descriptor);
    try {
      rmSync(this.#temporary, { force: true });
    } catch {}
    this.#forget();
  }

  #forget(): void {
    unfinished.delete(this.#temporary);
    if (unfinished.size === 0) process.off("exit", removeUnfinished);
  }
}

/** Whether the reader of a socket that does not wait for it, as Bun has it for what is printed, has to catch up first. */
function isFull(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === "EAGAIN";
}

/** Closes what was written or given up: what it could say is too late to help, and would hide what was thrown before. */
function closeQuietly(descriptor: number): void {
  try {
    closeSync(descriptor);
  } catch {}
}

/**
 * Makes a file under a name that nobody uses, not even a process of the same number in another container. The name is short, so
 * that there is room for it wherever there is for the file's own.
 */
function openTemporary(folder: string, mode: number): [path: string, descriptor: number] {
  for (let left = namesMax - 1; ; left--) {
    const temporary = `${folder}/tinyai-${crypto.randomUUID().slice(-12)}.tmp`;
    try {
      return [temporary, openSync(temporary, "wx", mode)];
    } catch (error) {
      if (left === 0 || (error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    }
  }
}

/** Where a path leads in the end. Nothing need be there. Its folders are left to the system, which follows their links itself. */
function behindLinks(path: string): string {
  let place = path;
  for (let links = 0; links < linksMax; links++) {
    let link: string;
    try {
      link = readlinkSync(place);
    } catch {
      return place; // No link, or nothing.
    }
    place = isAbsolute(link) ? link : `${dirname(place)}/${link}`;
  }
  return place;
}

/**
 * The descriptor through which this process prints to a regular file or a socket, if it is this one, as /dev/stdout may be. Another
 * file in its place would lose what is printed later, and sockets cannot be opened. Pipes and terminals are opened anew.
 */
function ownOutput(file: Stats): number | undefined {
  if (!file.isFile() && !file.isSocket()) return undefined;
  return [1, 2].find((descriptor) => {
    try {
      const { dev, ino } = fstatSync(descriptor);
      return dev === file.dev && ino === file.ino;
    } catch {
      return false; // It is closed.
    }
  });
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
