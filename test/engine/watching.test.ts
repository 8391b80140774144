// Several who watch one engine: each has every step from when it began to watch, whole, and hears of every request.

import { describe, expect, test } from "bun:test";
import type { EngineRequest } from "../../src/engine/engine.ts";
import { complete, encodePrompt, streamTokens } from "../../src/generate/generate.ts";
import { checkGenerateOptions } from "../../src/generate/options.ts";
import { openEngine } from "../support/engine.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyModel } from "../support/tiny-model.ts";

const folder = temporaryFolder();
const path = folder.file("tiny.gguf");
writeTinyModel(path, { architecture: "llama", layers: 4 });

const IDLE = 2;
const SHARE = 6;
const STEP = 5;

/** An event's fields, read by offsets of the test's own. */
interface Seen {
  readonly thread: number;
  readonly kind: number;
  readonly step: number;
  readonly start: bigint;
  readonly end: bigint;
}

/** Collects what it is told. */
function watcher() {
  const events: Seen[] = [];
  const submitted: number[] = [];
  const ended: number[] = [];
  return {
    ...{ seen: events, submitted, ended },
    events(bytes: Uint8Array, thread: number): void {
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      for (let at = 0; at < bytes.length; at += 32) {
        expect(view.getUint8(at + 27)).toBe(view.getUint8(at + 26) === SHARE ? 0 : thread);
        const [start, end] = [view.getBigUint64(at, true), view.getBigUint64(at + 8, true)];
        events.push({ thread, kind: view.getUint8(at + 26), step: view.getUint32(at + 16, true), start, end });
      }
    },
    requests: {
      submitted: (id: number, _: unknown, { kind }: EngineRequest) => {
        expect(kind).toBe("generate");
        submitted.push(id);
      },
      ended: (id: number) => ended.push(id),
    },
  };
}

describe("who begins to watch beside others", () => {
  test("sees the steps that begin then whole, the same as they do, and nothing of the one that is under way", async () => {
    const opened = await openEngine(path, {}, { threadCount: 2 });
    const { engine } = opened;
    const first = watcher();
    const endFirst = engine.watch(first);
    let joined = 0;
    for (let round = 0; joined < 20 && round < 400; round++) {
      const second = watcher();
      let endSecond = () => {};
      const options = checkGenerateOptions({ maxLength: 200, ignoreEos: true, seed: BigInt(round) }, 16);
      let tokens = 0;
      for await (const _ of streamTokens(opened, await encodePrompt(opened, "hello", options), options)) {
        if (++tokens === 20) endSecond = engine.watch(second);
      }
      endSecond();
      const steps = second.seen.filter(({ kind }) => kind === STEP);
      const [begin, last] = [steps[0], steps.at(-1)];
      if (!begin || !last) continue;
      joined++;
      const between = ({ kind, step }: Seen) => kind !== IDLE && step >= begin.step && step <= last.step;
      expect(second.seen.filter(({ kind }) => kind !== IDLE).every(between)).toBe(true);
      expect(second.seen.filter(between)).toEqual(first.seen.filter(between));
      // The engine thread's first event in it begins where the step does.
      expect(second.seen.find(({ thread, kind }) => thread === 0 && kind !== IDLE)?.start).toBe(begin.start);
    }
    expect(joined).toBe(20);
    endFirst();
    await engine.close();
  });

  test("hears of every request beside them, and of none any more when it has ended", async () => {
    const opened = await openEngine(path, {}, { threadCount: 2 });
    const { engine } = opened;
    const options = checkGenerateOptions({ maxLength: 3, ignoreEos: true, seed: 1n }, 16);
    const generate = async () => complete(streamTokens(opened, await encodePrompt(opened, "hello", options), options));
    expect(engine.requests).toBeUndefined();
    const [first, second] = [watcher(), watcher()];
    const endFirst = engine.watch(first);
    await generate();
    const endSecond = engine.watch(second);
    await generate();
    endFirst();
    const seen = first.seen.length;
    await generate();
    endSecond();
    endSecond();
    await generate();
    expect(engine.requests).toBeUndefined();
    expect([first.submitted.length, first.ended.length]).toEqual([2, 2]);
    expect([second.submitted.length, second.ended.length]).toEqual([2, 2]);
    expect(second.submitted[0]).toBe(first.submitted[1] as number);
    expect(first.seen.length).toBe(seen);
    expect(first.seen.filter(({ kind }) => kind === STEP).length).toBe(6);
    expect(second.seen.filter(({ kind }) => kind === STEP).length).toBe(6);
    await engine.close();
    expect(() => engine.watch(first)).toThrow("closed");
  });
});

describe("who alone watches, and wants one step in four of a thread", () => {
  test("is told of the others' steps and shares, and of all once somebody else watches", async () => {
    const opened = await openEngine(path, {}, { threadCount: 2 });
    const { engine } = opened;
    const frugal = { ...watcher(), detail: (thread: number) => (thread === 0 ? 1 : 4) };
    const endFrugal = engine.watch(frugal);
    const options = checkGenerateOptions({ maxLength: 60, ignoreEos: true, seed: 1n }, 16);
    const generate = async () => {
      await complete(streamTokens(opened, await encodePrompt(opened, "hello", options), options));
      engine.drainEvents();
    };
    const stepsOf = (thread: number) =>
      new Set(frugal.seen.flatMap((event) => (event.thread === thread && event.kind !== IDLE ? [event.step] : [])));
    // A thread that the system lets wait has no part in small steps.
    for (let round = 0; stepsOf(1).size < 5 && round < 200; round++) await generate();
    const [all, some] = [stepsOf(0), [...stepsOf(1)]];
    expect(some.length).toBeGreaterThanOrEqual(5);
    expect(some.filter((step) => step % 4 !== 0)).toEqual([]);
    expect(new Set(frugal.seen.flatMap(({ kind, step }) => (kind === STEP ? [step] : [])))).toEqual(all);
    const whole = watcher();
    const endWhole = engine.watch(whole);
    frugal.seen.length = 0;
    const between = () => [...stepsOf(1)].filter((step) => step % 4 !== 0);
    for (let round = 0; between().length < 5 && round < 200; round++) await generate();
    expect(between().length).toBeGreaterThanOrEqual(5);
    expect(frugal.seen.filter(({ kind }) => kind !== IDLE)).toEqual(whole.seen.filter(({ kind }) => kind !== IDLE));
    endWhole();
    endFrugal();
    await engine.close();
  });
});
