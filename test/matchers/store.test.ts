// The files that matchers keep, as several processes use them at once, and what is refused instead of read.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync, readFileSync, truncateSync, utimesSync } from "node:fs";
import { join, resolve } from "node:path";
import { runProgram } from "../../src/setup/python.ts";
import { changeEntry, readEntries } from "../../src/test/store.ts";
import { temporaryFolder } from "../support/folder.ts";

setDefaultTimeout(60_000);

const store = join(resolve(import.meta.dir, "..", ".."), "src", "test", "store.ts");

function isList(value: unknown): value is number[] {
  return Array.isArray(value);
}

describe("a file of entries", () => {
  test("loses nothing of processes that change the same entry, and others, at once", async () => {
    const folder = temporaryFolder();
    const path = join(folder.path, "kept", "entries.json");
    const [processes, changes] = [4, 25];
    folder.write(
      "change.ts",
      `import { changeEntry } from ${JSON.stringify(store)};
      const own = process.argv[2];
      for (let change = 0; change < ${changes}; change++) {
        for (const name of ["shared", own]) changeEntry(${JSON.stringify(path)}, name, Array.isArray, (before = []) => [...before, own + "." + change]);
      }`,
    );
    const runs = await Promise.all(
      Array.from({ length: processes }, (_, own) =>
        runProgram([process.execPath, folder.file("change.ts"), `process${own}`]),
      ),
    );
    for (const { status, stderr } of runs) expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    const entries: Record<string, string[]> = JSON.parse(readFileSync(path, "utf8"));
    const made = (own: number) => Array.from({ length: changes }, (_, change) => `process${own}.${change}`);
    const all = Array.from({ length: processes }, (_, own) => made(own));
    expect(entries["shared"]?.toSorted()).toEqual(all.flat().sort());
    for (const [own, changed] of all.entries()) expect(entries[`process${own}`]).toEqual(changed);
    expect(readdirSync(join(folder.path, "kept"))).toEqual(["entries.json"]);
  });

  test("is changed although a process that was killed had locked it", () => {
    const folder = temporaryFolder();
    const path = folder.file("entries.json");
    folder.write("entries.json.lock", JSON.stringify({ token: "old", pid: 1, host: "another" }));
    utimesSync(`${path}.lock`, new Date(0), new Date(0));
    expect(changeEntry(path, "one", isList, (before) => [...(before ?? [1]), 2])).toEqual([1, 2]);
    expect(readEntries(path, isList)).toEqual({ one: [1, 2] });
    expect(readdirSync(folder.path)).toEqual(["entries.json"]);
  });

  test("is as it was, and not locked, where a change throws", () => {
    const folder = temporaryFolder();
    const path = folder.file("entries.json");
    changeEntry(path, "one", isList, () => [1]);
    expect(() =>
      changeEntry(path, "one", isList, () => {
        throw new Error("no change");
      }),
    ).toThrow("no change");
    expect(readEntries(path, isList)).toEqual({ one: [1] });
    expect(readdirSync(folder.path)).toEqual(["entries.json"]);
  });

  test("is not read where it is a pipe, a folder, or far too large", async () => {
    const folder = temporaryFolder();
    await runProgram(["mkfifo", folder.file("pipe")]);
    folder.write("large", "{}");
    truncateSync(folder.file("large"), 2 ** 40);
    for (const [path, problem] of [
      [folder.file("pipe"), "cannot be read: it is no file"],
      [folder.path, "cannot be read: it is no file"],
      [folder.file("large"), "is damaged: it is far too large"],
    ] as const) {
      expect(() => readEntries(path, isList)).toThrow(`${path}: ${problem}`);
    }
  });
});
