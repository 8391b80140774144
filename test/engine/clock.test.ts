// That events are stamped by the monotonic clock, for as long as the engine runs: a record's time, which the engine reads from
// that clock itself, lies between the events around it, which are counted in ticks and turned into time when they are drained.

import { expect, test } from "bun:test";
import { drawsNothing } from "../../src/engine/engine.ts";
import { openEngine } from "../support/engine.ts";
import { temporaryFolder } from "../support/folder.ts";
import { tinyModel } from "../support/tiny-model.ts";

const folder = temporaryFolder();
const path = folder.file("clock.gguf");
tinyModel({ context: 4096 }).write(path);

const KIND = { barrier: 1, step: 5 };
const NO_OP = 0xffff;
const SECONDS = 3;

test("the time of events drifts under 50 µs a second from the monotonic clock, and stays beside it", async () => {
  const { engine } = await openEngine(path, { batchMax: 1 }, { threadCount: 2 });
  /** When the engine had run a step, and when it had finished it: the record was stamped between. */
  const ran = new Map<number, number>();
  const finished = new Map<number, number>();
  const events = (bytes: Uint8Array, thread: number) => {
    if (thread !== 0) return;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (let at = 0; at < bytes.length; at += 32) {
      const kind = view.getUint8(at + 26);
      if (kind !== KIND.step && (kind !== KIND.barrier || view.getUint16(at + 24, true) !== NO_OP)) continue;
      const end = Number(view.getBigUint64(at + 8, true));
      (kind === KIND.step ? finished : ran).set(view.getUint32(at + 16, true), end);
    }
  };
  engine.watch({ events });
  const stamped = new Map<number, number>();
  const run = (seed: bigint) => {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    engine.submit(
      {
        ...{
          ...drawsNothing,
          kind: "generate",
          seed,
          temperature: 1,
          tokens: Uint32Array.of(1, 2, 3),
          generateMax: 1000,
        },
        ...{ topCount: 0, chunkRows: 0, dumpLogits: false, sharesPrefix: false },
      },
      { onToken: ({ step, timeNs }) => stamped.set(step, timeNs), onFinish: () => resolve(), onError: reject },
    );
    return promise;
  };
  const beginNs = engine.nowNs;
  for (let seed = 0n; engine.nowNs < beginNs + SECONDS * 1e9; seed++) await run(seed);
  engine.drainEvents();
  await engine.close();

  // In each quarter of a second, what the events' clock can be off by at least and at most, by all of its steps.
  const quarter = 0.25e9;
  const bounds = Array.from({ length: (4 * SECONDS) | 0 }, () => ({
    least: Number.NEGATIVE_INFINITY,
    most: Number.POSITIVE_INFINITY,
  }));
  for (const [step, timeNs] of stamped) {
    const bound = bounds[Math.floor((timeNs - beginNs) / quarter)];
    const [from, to] = [ran.get(step), finished.get(step)];
    if (bound === undefined || from === undefined || to === undefined) continue;
    bound.least = Math.max(bound.least, from - timeNs);
    bound.most = Math.min(bound.most, to - timeNs);
  }
  // The bounds are closer than 100 ns: in some step nothing came between. Events that a held-up drain has lost say nothing.
  const known = [...bounds.entries()].filter(([, { least, most }]) => Number.isFinite(least + most));
  const off = known.map(([at, { least, most }]) => ({ seconds: at / 4, ns: (least + most) / 2 }));
  const [first] = off;
  expect(off.length).toBeGreaterThan(SECONDS);
  for (const { seconds, ns } of off) {
    expect(Math.abs(ns)).toBeLessThan(10_000);
    const passed = seconds - (first?.seconds ?? 0);
    if (passed > 0) expect(Math.abs(ns - (first?.ns ?? 0)) / passed).toBeLessThan(50_000);
  }
}, 20_000);
