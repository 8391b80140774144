// Calls into the native library that requests need: exactly so many, whether JavaScript looks often or late.

import { expect, test } from "bun:test";
import { callsSince, noCalls } from "../../src/engine/calls.ts";
import { drawsNothing, type Engine, type EngineRequest, type Finish } from "../../src/engine/engine.ts";
import { HeldSequence } from "../../src/engine/held.ts";
import { embed, openEngine } from "../support/engine.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyEncoder } from "../support/tiny-encoder.ts";
import { writeTinyModel } from "../support/tiny-model.ts";

const folder = temporaryFolder();
const path = folder.file("tiny.gguf");
writeTinyModel(path);

/** Ten tokens, in steps of four rows: three steps. */
const request: EngineRequest = {
  ...{ kind: "generate", tokens: Uint32Array.from({ length: 10 }, (_, index) => index + 3), ...drawsNothing },
  ...{ topCount: 0, chunkRows: 4, dumpLogits: false, sharesPrefix: false },
};

function run(engine: Engine, changes: Partial<EngineRequest>): Promise<Finish> {
  const { promise, resolve, reject } = Promise.withResolvers<Finish>();
  engine.submit({ ...request, ...changes }, { onToken() {}, onLogits() {}, onFinish: resolve, onError: reject });
  return promise;
}

async function callsOf(engine: Engine, work: () => Promise<unknown>) {
  const before = engine.calls;
  await work();
  return callsSince(before, engine.calls);
}

test("a request needs one, and each of its steps another, however many are taken over at once", async () => {
  const { engine } = await openEngine(path);
  // The last step of the prompt gives the first token.
  const six = { ...noCalls(), requests: 1, steps: 3 + 5, total: 9 };
  for (const lateMs of [0, 200, 0, 50]) {
    const calls = await callsOf(engine, () => {
      const finished = run(engine, { generateMax: 6 });
      Bun.sleepSync(lateMs);
      return finished;
    });
    expect(calls).toEqual(six);
  }
  expect(await callsOf(engine, () => run(engine, { generateMax: 7, topCount: 5 }))).toMatchObject({ total: 10 });
  expect(await callsOf(engine, () => Bun.sleep(20))).toEqual({ ...noCalls(), total: 0 });
  await engine.close();
});

test("logits, vectors and pages of sessions need their own", async () => {
  const { engine, plan } = await openEngine(path);
  const scored = await callsOf(engine, () => run(engine, { kind: "score", dumpLogits: true }));
  expect(scored).toEqual({ ...noCalls(), requests: 1, steps: 6, logits: 3, total: 10 });
  const held = await callsOf(engine, async () => {
    const sequence = await HeldSequence.open(engine, "hold", request.tokens);
    sequence.copyPage(0, 0, new Uint8Array(plan.kvGroups[0]?.pageBytes ?? 0));
    await sequence.release();
  });
  expect(held).toEqual({ ...noCalls(), requests: 1, steps: 1, sessions: 1, cancelled: 1, total: 4 });
  await engine.close();

  const encoder = folder.file("encoder.gguf");
  writeTinyEncoder(encoder);
  const { engine: embeds } = await openEngine(encoder);
  const embedded = await callsOf(embeds, () => embed(embeds, Uint32Array.of(5, 6, 7)));
  expect(embedded).toEqual({ ...noCalls(), requests: 1, steps: 1, vectors: 1, total: 3 });
  await embeds.close();
});
