// Where the events of a recording are while it runs: they wait in the engine's rings until it ends, or until those are half full. Nothing
// is lost on the way, and their memory is given back.

import { expect, test } from "bun:test";
import { loadModel } from "../../src/index.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyModel } from "../support/tiny-model.ts";

const folder = temporaryFolder();
const path = folder.file("tiny.gguf");
writeTinyModel(path, { layers: 4, context: 2048 });

const generate = { temperature: 0, ignoreEos: true, cachePrompt: false } as const;

test("events of a recording wait until it ends, and their memory is given back then", async () => {
  await using model = await loadModel(path, { threads: { count: 2 }, prepared: false });
  model.startProfiling({ cache: false, roofline: false });
  const waited = async (tokens: number) => {
    await model.generate("once", { ...generate, maxLength: tokens });
    return model.memoryInUse().resident.events;
  };
  const [few, many] = [await waited(50), await waited(150)];
  expect(few).toBeGreaterThan(0);
  expect(many).toBeGreaterThan(2 * few);
  const { steps, lostEvents } = model.stopProfiling();
  expect([steps.count, lostEvents]).toEqual([200, 0]);
  if (process.platform === "linux") expect(model.memoryInUse().resident.events).toBe(0);
});

test("a recording of more events than the rings hold loses none", async () => {
  await using model = await loadModel(path, { threads: { count: 1 }, prepared: false });
  const tokens = 1900;
  model.startProfiling({ cache: false, roofline: false });
  for (let request = 0; request < 2; request++) await model.generate("once", { ...generate, maxLength: tokens });
  const report = model.stopProfiling();
  const events = report.byOp.reduce((sum, { count }) => sum + count, 0);
  // As many as fit the ring of a thread, or more.
  expect(events).toBeGreaterThan(1 << 17);
  expect([report.steps.count, report.lostEvents]).toEqual([2 * tokens, 0]);
});
