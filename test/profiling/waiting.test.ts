// Where the events of a recording are while it runs: they wait in the engine's rings until it ends, or until those are nearly full.
// Nothing is lost on the way, and their memory is given back.

import { expect, test } from "bun:test";
import { eventCapacity, eventSlotBytes } from "../../src/engine/engine.ts";
import { loadModel } from "../../src/index.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyModel } from "../support/tiny-model.ts";

const folder = temporaryFolder();
const path = folder.file("tiny.gguf");
writeTinyModel(path, { layers: 4, context: 2048 });

const ringBytes = eventCapacity * eventSlotBytes;
const generate = { temperature: 0, ignoreEos: true, cachePrompt: false } as const;

test("the memory for the events of a recording is there before they are written, and given back at its end", async () => {
  await using model = await loadModel(path, { threads: { count: 2 }, prepared: false });
  const taken = () => model.memoryInUse().resident.events;
  const before = taken();
  model.startProfiling({ cache: false, roofline: false });
  const begun = taken();
  for (const tokens of [50, 950]) await model.generate("once", { ...generate, maxLength: tokens });
  const ended = taken();
  const { steps, lostEvents, byOp } = model.stopProfiling();
  expect([steps.count, lostEvents]).toEqual([1000, 0]);
  if (process.platform === "linux") {
    expect(before).toBe(0);
    expect(begun).toBeGreaterThan(0);
    // More than all that was written, and not all that there is room for.
    const written = byOp.reduce((sum, { count }) => sum + count, 0) * eventSlotBytes;
    expect(ended).toBeWithin(Math.max(begun + 1, written), 2 * ringBytes);
  }
  if (process.platform === "linux") expect(taken()).toBe(0);
});

test("a recording of more events than the rings hold loses none", async () => {
  await using model = await loadModel(path, { threads: { count: 1 }, prepared: false });
  const [tokens, requests] = [1900, 32];
  model.startProfiling({ cache: false, roofline: false });
  for (let request = 0; request < requests; request++) await model.generate("once", { ...generate, maxLength: tokens });
  const report = model.stopProfiling();
  const events = report.byOp.reduce((sum, { count }) => sum + count, 0);
  // As many as fit the ring of a thread, or more.
  expect(events).toBeGreaterThan(eventCapacity);
  expect([report.steps.count, report.lostEvents]).toEqual([requests * tokens, 0]);
});
