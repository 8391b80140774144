// Embedding in a process of its own: that memory stays flat, and that Workers each have their models.

import { expect, test } from "bun:test";
import { runScript } from "../engine/support.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyEncoder } from "../support/tiny-encoder.ts";

const folder = temporaryFolder();
const path = folder.file("encoder.gguf");
writeTinyEncoder(path);
const ended = { code: 0, signal: null, errors: "" };

test("ten thousand calls leave memory as it was after the first thousands", async () => {
  const result = await runScript(
    folder,
    path,
    `
    const model = await loadModel(path, { prepared: false });
    const call = async (count) => {
      for (let index = 0; index < count; index++) await model.embed("a text of number " + index);
      Bun.gc(true);
      return process.memoryUsage.rss();
    };
    const before = await call(4000);
    console.log(((await call(10_000)) - before) / 1e6);
  `,
  );
  expect(result).toMatchObject(ended);
  expect(Number(result.output)).toBeLessThan(8);
});

test("a hundred models that are loaded, used and closed leave memory as it was after the first twenty", async () => {
  const result = await runScript(
    folder,
    path,
    `
    const rounds = async (count) => {
      for (let index = 0; index < count; index++) {
        await using model = await loadModel(path, { prepared: false });
        await model.embed(["cat", "dog"]);
      }
      Bun.gc(true);
      return process.memoryUsage.rss();
    };
    const before = await rounds(20);
    console.log(((await rounds(100)) - before) / 1e6);
  `,
  );
  expect(result).toMatchObject(ended);
  expect(Number(result.output)).toBeLessThan(16);
});

test("several Workers at once give the vectors that the main thread gives", async () => {
  const worker = folder.write(
    "worker.ts",
    `
    import { loadModel } from ${JSON.stringify(`${import.meta.dir}/../../src/index.ts`)};
    declare const self: Worker;
    self.onmessage = async ({ data: { path, texts } }) => {
      await using model = await loadModel(path, { threads: { count: 1 } });
      postMessage(await model.embed(texts));
    };
  `,
  );
  const result = await runScript(
    folder,
    path,
    `
    const texts = Array.from({ length: 200 }, (_, index) => "cat ".repeat(index % 30) + index);
    const answers = Array.from({ length: 3 }, () => {
      const worker = new Worker(${JSON.stringify(worker)});
      worker.postMessage({ path, texts });
      return new Promise((resolve, reject) => {
        worker.onmessage = ({ data }) => {
          worker.terminate();
          resolve(data);
        };
        worker.onerror = reject;
      });
    });
    const model = await loadModel(path);
    const expected = JSON.stringify(await model.embed(texts));
    for (const answer of await Promise.all(answers)) console.log(JSON.stringify(answer) === expected);
    await model.close();
  `,
  );
  expect(result).toEqual({ ...ended, output: "true\ntrue\ntrue\n" });
});
