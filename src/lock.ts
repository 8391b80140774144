// A lock between processes, for folders that several may download into. The holder touches its file every two seconds;
// a file left alone for longer belongs to a holder that was killed, and is taken over. Where two should ever hold it at once
// (a holder that was stopped and woke up), `held` tells the old one. The lock saves work: what keeps a model whole is the
// checksum and the rename.

import { randomUUID } from "node:crypto";
import { linkSync, readFileSync, renameSync, statSync, unlinkSync, utimesSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { isAlive } from "../setup/checkout.ts";

const heartbeatPeriod_ms = 2_000;
const staleAfter_ms = 15_000;
const pollPeriod_ms = 250;

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

/** Takes the lock whose file is `path`, waiting while another process holds it. The file's folder must exist. */
export async function acquireLock(path: string, options: LockOptions = {}): Promise<Lock> {
  const owner: Owner = { token: randomUUID(), pid: process.pid, host: hostname() };
  let told = false;
  while (!create(path, owner)) {
    options.signal?.throwIfAborted();
    const other = readOwner(path);
    if (other === undefined || isStale(path, other)) {
      takeAway(path, other);
      continue;
    }
    if (!told) options.waiting?.(other.pid);
    told = true;
    await sleep(pollPeriod_ms, undefined, options.signal === undefined ? {} : { signal: options.signal });
  }

  const held = (): boolean => readOwner(path)?.token === owner.token;
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
      if (held()) unlinkSync(path);
    },
  };
}

// The content appears with the name, in one step: a reader never sees a lock file that is still empty.
function create(path: string, owner: Owner): boolean {
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
    return JSON.parse(readFileSync(path, "utf8")) as Owner;
  } catch {
    return undefined;
  }
}

function isStale(path: string, owner: Owner): boolean {
  if (owner.host === hostname() && !isAlive(owner.pid)) return true;
  const entry = statSync(path, { throwIfNoEntry: false });
  return entry !== undefined && Date.now() - entry.mtimeMs > staleAfter_ms;
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
