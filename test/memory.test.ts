// What a model is said to need of memory before it is loaded, beside what its engine then sets aside.

import { expect, test } from "bun:test";
import { openLibrary } from "../src/engine/library.ts";
import { loadModel, MemoryLimitError } from "../src/index.ts";
import { checkLoadOptions } from "../src/load-options.ts";
import { planModel } from "../src/memory.ts";
import { buildGraph } from "../src/model/architectures/index.ts";
import { openModelFile } from "../src/prepared.ts";
import { temporaryFolder } from "./support/folder.ts";
import { writeTinyModel } from "./support/tiny-model.ts";

const folder = temporaryFolder();
const path = folder.file("tiny.gguf");
writeTinyModel(path, { context: 512 });

test("a limit that a model is loaded under leaves room for all that its engine sets aside, and for one sequence", async () => {
  const options = { contextLength: 512, threads: { count: 1 } };
  const file = openModelFile(path);
  const graph = buildGraph(file);
  const checked = checkLoadOptions(path, options);
  const planWithin = (limit: number) =>
    planModel(file, graph, checked, { library: openLibrary(), threadCount: checked.threadCount, limit });

  await using model = await loadModel(path, options);
  const { taken } = model.memoryInUse();
  const sum = Object.values(taken).reduce((total, bytes) => total + bytes, 0);
  const needed = sum - taken.keysAndValues - taken.events + model.plan().kvBytesPerSequence;

  const attempt = (limit: number): unknown => {
    try {
      return planWithin(limit).options.contextMax;
    } catch (error) {
      return error;
    }
  };
  // What is known of pages takes less where there are fewer.
  expect(attempt(needed + 4096)).toBe(512);
  expect(attempt(needed - taken.pages - taken.pageLists - 4096)).toBeInstanceOf(MemoryLimitError);
});
