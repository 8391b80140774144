// The disk's benchmark on small files: what it says that it moved beside what the system counted, and that nothing of it stays.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync, readFileSync, readSync } from "node:fs";
import { join } from "node:path";
import { type DiskOptions, measureDisk, prepareFile } from "../../../src/benchmark/system/disk.ts";
import { temporaryFolder } from "../../support/folder.ts";

setDefaultTimeout(30_000);

const folder = temporaryFolder();
const linux = process.platform === "linux";
const MiB = 1 << 20;
const small: DiskOptions = { folder: folder.path, fileBytes: 8 * MiB, rounds: 2, timeMs: 200, seed: 1 };
const kinds = ["sequential_write", "sequential_read", "random_write", "random_read"] as const;

/** Bytes that this process has asked to be read and written, as the system counts them. */
function counted(): { readonly read: number; readonly written: number } {
  const text = readFileSync("/proc/self/io", "utf8");
  const of = (name: string) => Number(new RegExp(`^${name}: (\\d+)$`, "m").exec(text)?.[1]);
  return { read: of("rchar"), written: of("wchar") };
}

for (const direct of [true, false]) {
  test.skipIf(!linux)(`moves the bytes that it says, ${direct ? "past" : "through"} the page cache`, async () => {
    const before = counted();
    const { figures } = await measureDisk({ ...small, direct });
    const after = counted();
    const moved = (kind: (typeof kinds)[number]) => figures?.[kind]?.bytes ?? 0;
    // The file is written once before; little else is written meanwhile.
    const written = moved("sequential_write") + moved("random_write") + 8 * MiB;
    expect(after.written - before.written).toBeWithin(written, written + 100_000);
    const read = moved("sequential_read") + moved("random_read");
    expect(after.read - before.read).toBeWithin(read, read + 100_000);
    for (const kind of kinds) expect(moved(kind)).toBeGreaterThan(0);
  });
}

test("its figures are of each other: rates are accesses times their size", async () => {
  const { figures } = await measureDisk(small);
  expect(figures?.folder).toBe(folder.path);
  for (const kind of kinds) {
    const access = figures?.[kind];
    const block = kind.startsWith("random") ? 4096 : MiB / 2;
    expect(access).toMatchObject({ block_bytes: block, queue_depth: 1 });
    expect(access?.rate?.samples?.length).toBeWithin(1, 3);
    const operations = access?.operations?.samples ?? [];
    expect(access?.rate?.samples?.map((rate) => (rate * 1e6) / block)).toEqual(
      operations.map((each) => expect.closeTo(each, 6)) as number[],
    );
    expect(access?.latency?.samples?.length).toBeWithin(1, 101);
  }
});

test("says what stands between its figures and the disk", async () => {
  const through = await measureDisk({ ...small, direct: false });
  expect(through.figures?.direct).toBe(false);
  const isMemory = through.figures?.file_system === "tmpfs";
  if (!isMemory) expect(through.warnings.join()).toContain("latency is without the flush to the disk");
  expect(through.warnings.join()).toContain(isMemory ? "is in memory (tmpfs)" : "page cache could not be bypassed");
  expect(through.methodology.join()).toContain("through the page cache");
});

test("a file that takes too long to write is a smaller one, which is said", async () => {
  const { figures, warnings } = await measureDisk({ ...small, fileBytes: 64 * MiB, rounds: 1, timeMs: 1 });
  expect(figures?.file_bytes).toBe(8 * MiB);
  expect(warnings.join()).toContain("had 8 MiB instead of 64");
});

describe("nothing stays in the folder", () => {
  test("after it was measured, while it is, and after an interruption", async () => {
    const controller = new AbortController();
    const seen: string[] = [];
    const { figures } = await measureDisk({
      ...small,
      rounds: 1000,
      timeMs: 60_000,
      signal: controller.signal,
      onProgress(share) {
        seen.push(...readdirSync(folder.path));
        if (share > 0) controller.abort();
      },
    });
    if (process.platform !== "win32") expect(seen).toEqual([]);
    expect(readdirSync(folder.path)).toEqual([]);
    // Of a round that was not whole nothing is told.
    expect(figures).toBeUndefined();
  });

  test.skipIf(process.platform === "win32")("when the process is killed", async () => {
    const module = JSON.stringify(join(import.meta.dir, "../../../src/benchmark/system/disk.ts"));
    const options = JSON.stringify({ ...small, rounds: 1000, timeMs: 60_000 });
    const script = `const { measureDisk } = await import(${module});
      await measureDisk({ ...${options}, onProgress: () => process.kill(process.pid, "SIGKILL") });`;
    const child = Bun.spawn([process.execPath, "-e", script], { stdout: "ignore" });
    await child.exited;
    expect(child.signalCode).toBe("SIGKILL");
    expect(readdirSync(folder.path)).toEqual([]);
  });
});

test("a folder that is not there, or is none, is refused", async () => {
  const file = folder.write("file", "no folder");
  for (const path of [folder.file("missing"), file]) {
    const refused = measureDisk({ ...small, folder: path });
    await expect(refused).rejects.toThrow(`--disk-folder: ${path}: cannot be measured: `);
  }
});

test("nothing is written twice, which some disks would store once", async () => {
  const file = prepareFile(folder.path, { fileBytes: 8 * MiB, direct: false });
  await file.fill(60_000, undefined);
  await file.access("random_read", 5, Math.random, undefined);
  await file.access("random_write", 5, Math.random, undefined);
  await file.access("sequential_write", 5, Math.random, undefined);
  const pieces = new Set<number | bigint>();
  const piece = new Uint8Array(4096);
  for (let at = 0; at < 8 * MiB; at += piece.length) {
    readSync(file.descriptor, piece, 0, piece.length, at);
    pieces.add(Bun.hash(piece));
  }
  file.close();
  expect(pieces.size).toBe((8 * MiB) / 4096);
});
