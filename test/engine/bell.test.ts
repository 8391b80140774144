// The pipe by which native threads wake the event loop: it is there while something may ring, and no longer.

import { expect, test } from "bun:test";
import { join } from "node:path";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyModel } from "../support/tiny-model.ts";
import { runScript } from "./support.ts";

const folder = temporaryFolder();
const path = folder.file("tiny.gguf");
writeTinyModel(path);

/** Pipes beyond those that the process began with, once it has come to `count` or long after. */
const counting = `
  import { readlinkSync, readdirSync } from "node:fs";
  function pipes() {
    const targets = readdirSync("/proc/self/fd").map((name) => {
      try { return readlinkSync("/proc/self/fd/" + name); } catch { return ""; }
    });
    return targets.filter((target) => target.startsWith("pipe:")).length;
  }
  const before = pipes();
  async function more(count) {
    for (let turn = 0; turn < 400 && pipes() - before !== count; turn++) await Bun.sleep(5);
    return pipes() - before;
  }
  const counts = [];
`;

test.skipIf(process.platform !== "linux")("is closed with the last model, and opened anew for the next", async () => {
  const { output, errors } = await runScript(
    folder,
    path,
    `${counting}
    for (let round = 0; round < 3; round++) {
      const first = await loadModel(path);
      const second = await loadModel(path);
      counts.push(await more(2));
      await first.generate("once", { maxLength: 3 });
      await first.close();
      counts.push(await more(2));
      const writing = second.generate("once", { maxLength: 100, ignoreEos: true }).catch(({ message }) => message);
      await second.close();
      counts.push(/closed/.test(await writing), await more(0));
    }
    console.log(JSON.stringify(counts));`,
  );
  expect(errors).toBe("");
  expect(JSON.parse(output)).toEqual([2, 2, true, 0, 2, 2, true, 0, 2, 2, true, 0]);
});

test.skipIf(process.platform !== "linux")("is closed after searches, of which several share it", async () => {
  const { output, errors } = await runScript(
    folder,
    path,
    `import { createIndex } from ${JSON.stringify(join(import.meta.dir, "../../src/index.ts"))};
    ${counting}
    // So many values are not looked through on JavaScript's own thread. A row has more of its own value than any other.
    const vectors = Array.from({ length: 4000 }, (_, row) => Float32Array.from({ length: 256 }, (_, at) => Math.sin(row * 256 + at)));
    const index = await createIndex(vectors);
    for (let round = 0; round < 3; round++) {
      const found = await Promise.all([5, 70, 900].map((row) => index.search(vectors[row])));
      counts.push(...found.map(([hit]) => hit.index), await more(0));
    }
    index.close();
    console.log(JSON.stringify(counts));`,
  );
  expect(errors).toBe("");
  expect(JSON.parse(output)).toEqual([5, 70, 900, 0, 5, 70, 900, 0, 5, 70, 900, 0]);
});
