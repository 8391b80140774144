// The pipe by which native threads wake the event loop: it is there while something may ring, and no longer.

import { expect, test } from "bun:test";
import { readdirSync, readlinkSync } from "node:fs";
import { createIndex, loadModel } from "../../src/index.ts";
import { temporaryFolder } from "../support/folder.ts";
import { Random } from "../support/random.ts";
import { writeTinyModel } from "../support/tiny-model.ts";

const folder = temporaryFolder();
const path = folder.file("tiny.gguf");
writeTinyModel(path);

/** Pipes that this process has open. */
function pipes(): number {
  const targets = readdirSync("/proc/self/fd").map((name) => {
    try {
      return readlinkSync(`/proc/self/fd/${name}`);
    } catch {
      // The one that the folder was read by.
      return "";
    }
  });
  return targets.filter((target) => target.startsWith("pipe:")).length;
}

/** What a read that was rung to its end closes, it closes a turn later. */
async function pipesSoon(count: number): Promise<number> {
  for (let turn = 0; turn < 100 && pipes() !== count; turn++) await Bun.sleep(5);
  return pipes();
}

test.skipIf(process.platform !== "linux")("is closed with the last model, and opened anew for the next", async () => {
  const before = pipes();
  for (let round = 0; round < 3; round++) {
    const first = await loadModel(path);
    const second = await loadModel(path);
    expect(pipes()).toBe(before + 2);
    await first.generate("once", { maxLength: 3 });
    await first.close();
    expect(pipes()).toBe(before + 2);
    const writing = second.generate("once", { maxLength: 100, ignoreEos: true });
    await second.close();
    await expect(writing).rejects.toThrow("closed");
    expect(await pipesSoon(before)).toBe(before);
  }
});

test.skipIf(process.platform !== "linux")("is closed after searches, of which several share it", async () => {
  const before = pipes();
  const random = new Random(3);
  const vectors = Array.from({ length: 4000 }, () => Float32Array.from({ length: 256 }, () => random.normal()));
  using index = await createIndex(vectors);
  for (let round = 0; round < 3; round++) {
    const found = await Promise.all([5, 70, 900].map((row) => index.search(vectors[row] ?? new Float32Array(256))));
    expect(found.map(([hit]) => hit?.index)).toEqual([5, 70, 900]);
  }
  expect(await pipesSoon(before)).toBe(before);
});
