// A lock between processes: for folders that several may download into, and files that several change. A holder for long touches its
// file every two seconds; a file left alone for much longer, or by a process that is gone, belongs to a holder that was killed, and is
// taken over. What is no lock stays where it is, whatever its age. Where two should ever hold it at once (a holder that was stopped and
// woke up), `held` tells the old one. What keeps files whole is that they are renamed into their place.

import { randomUUID } from "node:crypto";
import { linkSync, lstatSync, readFileSync, renameSync, unlinkSync, utimesSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { isRecord } from "./check.ts";
import { isAlive } from "./setup/checkout.ts";

const heartbeatPeriod_ms = 2_000;
const staleAfter_ms = 15_000;
const pollPeriod_ms = 250;
/** Between two looks of a caller who cannot wait otherwise than asleep, for what takes milliseconds. */
const nap_ms = 5;

/** A lock that this process holds. */
export interface Lock {
  /** False once another process has taken the lock over. */
  held(): boolean;
  release(): void;
}

/** How to wait for a lock. */
export interface LockOptions {
  readonly signal?: AbortSignal;
  /** Called once, when the lock is found held by the process `pid`. */
  readonly waiting?: (pid: number) => void;
}

interface Owner {
  readonly token: string;
  readonly pid: number;
  readonly host: string;
}

/**
 * Takes the lock whose file is `path`, waiting while another process holds it. The file's folder must exist.
 * @throws an error with a code, as the file system's, if something lies there that is no lock.
 */
export async function acquireLock(path: string, options: LockOptions = {}): Promise<Lock> {
  const owner: Owner = { token: randomUUID(), pid: process.pid, host: hostname() };
  let told = false;
  while (!create(path, owner)) {
    options.signal?.throwIfAborted();
    const other = readOwner(path);
    const state = stateOf(path, other);
    if (state === "foreign") throw noLock(path);
    if (state === "stale") {
      takeAway(path, other);
      continue;
    }
    if (other && !told) {
      options.waiting?.(other.pid);
      told = true;
    }
    await sleep(pollPeriod_ms, undefined, options.signal === undefined ? {} : { signal: options.signal });
  }

  const { held, release } = lockOf(path, owner);
  const heartbeat = setInterval(() => {
    const now = new Date();
    try {
      if (held()) utimesSync(path, now, now);
    } catch {}
  }, heartbeatPeriod_ms);
  heartbeat.unref();
  return {
    held,
    release() {
      clearInterval(heartbeat);
      release();
    },
  };
}

/**
 * The same for what takes milliseconds, and a caller who cannot wait for a promise: the thread sleeps meanwhile.
 * @returns undefined if another process held it for `patience_ms`.
 */
export function acquireLockNow(path: string, patience_ms: number): Lock | undefined {
  const owner: Owner = { token: randomUUID(), pid: process.pid, host: hostname() };
  for (const begin_ms = performance.now(); !create(path, owner); Bun.sleepSync(nap_ms)) {
    const other = readOwner(path);
    if (stateOf(path, other) === "stale") takeAway(path, other);
    if (performance.now() - begin_ms >= patience_ms) return undefined;
  }
  return lockOf(path, owner);
}

function lockOf(path: string, owner: Owner): Lock {
  const held = (): boolean => readOwner(path)?.token === owner.token;
  return {
    held,
    release() {
      if (held()) unlinkSync(path);
    },
  };
}

// The content appears with the name, in one step: a reader never sees a lock file that is still empty.
function create(path: string, owner: Owner): boolean {
  // Whoever waits writes nothing, and leaves no draft behind when it is killed.
  if (lstatSync(path, { throwIfNoEntry: false })) return false;
  const draft = `${path}.${owner.token}`;
  writeFileSync(draft, JSON.stringify(owner));
  try {
    linkSync(draft, path);
    return true;
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === "EEXIST") return false;
    // A file system without hard links.
    if (code !== "EPERM" && code !== "ENOTSUP" && code !== "EOPNOTSUPP" && code !== "ENOSYS") throw error;
    return createExclusively(path, owner);
  } finally {
    unlinkSync(draft);
  }
}

function createExclusively(path: string, owner: Owner): boolean {
  try {
    writeFileSync(path, JSON.stringify(owner), { flag: "wx" });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  }
}

function readOwner(path: string): Owner | undefined {
  try {
    const content: unknown = JSON.parse(readFileSync(path, "utf8"));
    return isOwner(content) ? content : undefined;
  } catch {
    return undefined;
  }
}

function isOwner(content: unknown): content is Owner {
  if (!isRecord(content)) return false;
  const { token, pid, host } = content;
  return typeof token === "string" && typeof pid === "number" && typeof host === "string";
}

// One without an owner has just been released or is being written; if it is old it is no lock, and is then left alone. But an empty file is
// what a machine that lost its power leaves of a lock, and nobody loses anything with it.
function stateOf(path: string, owner: Owner | undefined): "held" | "stale" | "foreign" {
  if (owner?.host === hostname() && !isAlive(owner.pid)) return "stale";
  const entry = lstatSync(path, { throwIfNoEntry: false });
  if (entry === undefined || Date.now() - entry.mtimeMs <= staleAfter_ms) return "held";
  return owner !== undefined || (entry.isFile() && entry.size === 0) ? "stale" : "foreign";
}

function noLock(path: string): Error {
  return Object.assign(new Error(`${path} is no lock that can be read: move it away`), { code: "EINVAL" });
}

// Two may see the same stale lock: the rename lets one of them have it, and whoever finds that it moved a fresh one instead
// puts it back.
function takeAway(path: string, stale: Owner | undefined): void {
  const aside = `${path}.${randomUUID()}`;
  try {
    renameSync(path, aside);
  } catch {
    return;
  }
  try {
    if (readOwner(aside)?.token !== stale?.token) linkSync(aside, path);
  } catch {
  } finally {
    unlinkSync(aside);
  }
}
