// What locks leave in their folder, and what lies in the place of one and is none.

import { describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { acquireLock, acquireLockNow } from "../src/lock.ts";
import { temporaryFolder } from "./support/folder.ts";

const folder = temporaryFolder();
let count = 0;

/** A path in a folder of its own. */
function place(): string {
  const path = folder.file(`${count++}`);
  mkdirSync(path);
  return join(path, "model.lock");
}

/** As if it had been left a minute ago. */
function age(path: string): void {
  const then = new Date(Date.now() - 60_000);
  utimesSync(path, then, then);
}

test("whoever waits for a lock writes nothing beside it", async () => {
  const path = place();
  const lock = await acquireLock(path);
  const changed = (): number => statSync(join(path, "..")).mtimeMs;
  const before = changed();
  await Bun.sleep(10);
  expect(acquireLockNow(path, 30)).toBeUndefined();
  const giveUp = AbortSignal.timeout(600);
  const outcome = await acquireLock(path, { signal: giveUp }).catch((error: unknown) => error);
  expect(outcome).toBeInstanceOf(Error);
  expect(changed()).toBe(before);
  lock.release();
  expect(readdirSync(join(path, ".."))).toEqual([]);
});

describe("what is old and no lock", () => {
  test("stays as it is, and whoever wants the lock is told", async () => {
    const contents = ["notes of somebody else", "5", "null", "{}"];
    for (const content of contents) {
      const path = place();
      writeFileSync(path, content);
      age(path);
      expect(acquireLockNow(path, 20)).toBeUndefined();
      await expect(acquireLock(path)).rejects.toThrow("is no lock");
      expect(readFileSync(path, "utf8")).toBe(content);
    }
    const path = place();
    mkdirSync(path);
    age(path);
    expect(acquireLockNow(path, 20)).toBeUndefined();
    await expect(acquireLock(path)).rejects.toThrow("is no lock");
    expect(readdirSync(join(path, ".."))).toEqual(["model.lock"]);
  });

  test("is taken over where it is an empty file, or a lock that nobody touches any more", async () => {
    for (const content of ["", JSON.stringify({ token: "old", pid: process.pid, host: "another" })]) {
      const path = place();
      writeFileSync(path, content);
      age(path);
      const lock = await acquireLock(path);
      expect(lock.held()).toBe(true);
      lock.release();
      expect(existsSync(path)).toBe(false);
    }
  });
});
