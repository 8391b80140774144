// What the engine says of its steps while it runs real requests: every sequence of every step, with the rows that its text is
// made of, told before anybody hears of what the step gave.

import { describe, expect, test } from "bun:test";
import { type FinishedStep, type OpInfo, Profiler } from "../../profiler/index.ts";
import { drawsNothing, type EngineRequest, type EngineToken } from "../../src/engine/engine.ts";
import { type OpenedEngine, openEngine } from "../support/engine.ts";
import { temporaryFolder } from "../support/folder.ts";
import { Random } from "../support/random.ts";
import { tinyModel } from "../support/tiny-model.ts";

const folder = temporaryFolder();
const path = folder.file("steps.gguf");
tinyModel({ context: 1024 }).write(path);

const drawing: Omit<EngineRequest, "tokens" | "generateMax"> = {
  ...drawsNothing,
  kind: "generate",
  seed: 1n,
  temperature: 0.2,
  topCount: 0,
  chunkRows: 0,
  dumpLogits: false,
  sharesPrefix: false,
};

interface Outcome {
  readonly id: number;
  readonly request: EngineRequest;
  readonly tokens: readonly EngineToken[];
  readonly reused: number;
}

function run({ engine }: OpenedEngine, request: EngineRequest, onFinish?: (tokens: EngineToken[]) => void) {
  const { promise, resolve, reject } = Promise.withResolvers<Outcome>();
  const tokens: EngineToken[] = [];
  let reused = 0;
  const { id } = engine.submit(request, {
    onToken: (token) => tokens.push(token),
    onReused: (positions) => {
      reused = positions;
    },
    onFinish: () => {
      onFinish?.(tokens);
      resolve({ id, request, tokens, reused });
    },
    onError: reject,
  });
  return promise;
}

function opsOf({ plan }: OpenedEngine): OpInfo[] {
  return plan.ops.map(({ index, name, kind, layer, bytesPerStep, bytesPerRow, operationsPerRow }) => ({
    ...{ index, name, kind, layer, bytesPerStep, bytesPerRow, operationsPerRow },
    kernel: kind,
  }));
}

/** The parts of a request, in order of their steps. */
function sharesOf(steps: readonly FinishedStep[], id: number) {
  return steps.flatMap(({ step, shares }) =>
    shares.filter(({ request }) => request === id).map((share) => ({ step, ...share })),
  );
}

describe("the engine's steps", () => {
  test("are told with every sequence, whose rows follow each other from the first position to the last", async () => {
    const opened = await openEngine(path, { batchMax: 6 }, { threadCount: 2 });
    const { engine, plan } = opened;
    const told: FinishedStep[] = [];
    const profiler = new Profiler(opsOf(opened), { onStep: (step) => told.push(step) });
    engine.watch({ events: (events) => profiler.drain(events) });
    const random = new Random(5);
    const text = (length: number) => Uint32Array.from({ length }, () => 260 + random.below(40));
    const shared = text(200);
    const outcomes = await Promise.all(
      Array.from({ length: 24 }, async (_, index): Promise<Outcome> => {
        const length = 1 + random.below(index % 5 === 0 ? 600 : 30);
        if (index % 6 === 1)
          return run(opened, { ...drawing, kind: "score", generateMax: 0, tokens: text(length + 1) });
        const speculation = index % 3 === 0 ? { maxDraft: 8, minMatch: 1 } : undefined;
        const tokens = index % 4 === 2 ? Uint32Array.of(...shared, ...text(3)) : text(length);
        const sharesPrefix = index % 4 === 2;
        return run(opened, { ...drawing, tokens, generateMax: 40, speculation, sharesPrefix });
      }),
    );
    engine.drainEvents();
    const profile = profiler.result();
    expect(profile.lostEvents + profile.incompleteSteps + profile.malformedEvents).toBe(0);
    expect(told.length).toBe(profile.steps.count);
    let [accepted, reused] = [0, 0];
    for (const { id, request, tokens, reused: there } of outcomes) {
      reused += there;
      const shares = sharesOf(told, id);
      let position = there;
      for (const share of shares) {
        expect(share.firstPosition).toBe(position);
        const prompt = position < request.tokens.length;
        const guessed = prompt ? 0 : share.rows - 1;
        position += share.rows - guessed + share.accepted;
        accepted += share.accepted;
        expect(share.accepted).toBeLessThanOrEqual(guessed);
        const asked =
          request.kind === "score" ? share.rows : prompt ? Number(position >= request.tokens.length) : share.rows;
        expect(share.logitsRows).toBe(asked);
        const drawn = request.kind === "score" ? share.rows : share.logitsRows === 0 ? 0 : 1 + share.accepted;
        expect(tokens.filter(({ step }) => step === share.step).length).toBe(drawn);
      }
      // The last token that was drawn is not fed back, nor a guess that would come true behind it.
      expect(position).toBe(request.tokens.length + (request.kind === "score" ? 0 : tokens.length - 1));
    }
    expect(accepted).toBeGreaterThan(0);
    expect(reused).toBeGreaterThan(0);
    for (const { shares } of told) {
      expect(new Set(shares.map(({ sequence }) => sequence)).size).toBe(shares.length);
      expect(shares.reduce((sum, { rows }) => sum + rows, 0)).toBeLessThanOrEqual(plan.options.rowsMax);
    }
    await engine.close();
  });

  test("are in the rings, whole, before anybody hears of their tokens or of a request's end", async () => {
    const opened = await openEngine(path, { batchMax: 4 }, { threadCount: 2 });
    const { engine } = opened;
    let last: FinishedStep | undefined;
    const profiler = new Profiler(opsOf(opened), {
      onStep: (step) => {
        last = step;
      },
    });
    engine.watch({ events: (events) => profiler.drain(events) });
    let checked = 0;
    const request = { ...drawing, tokens: Uint32Array.of(1, 2, 3), generateMax: 3 };
    for (let round = 0; round < 300; round++) {
      await run(opened, { ...request, seed: BigInt(round) }, (tokens) => {
        engine.drainEvents();
        expect(last?.step).toBe(tokens.at(-1)?.step ?? -1);
        expect(last?.endNs).toBeLessThan(engine.nowNs + 50_000);
        checked++;
      });
    }
    expect(checked).toBe(300);
    await engine.close();
  });

  test("are stamped by the clock that a request's own stamps are taken from, so that its time adds up", async () => {
    const opened = await openEngine(path, {}, { threadCount: 2 });
    const { engine } = opened;
    const profiler = new Profiler(opsOf(opened));
    engine.watch({ events: (events) => profiler.drain(events) });
    const calledNs = engine.nowNs;
    const wallBegin = performance.now();
    let [firstTokenNs, lastRecordNs] = [0, 0];
    const done = Promise.withResolvers<void>();
    let count = 0;
    const submittedNs = engine.nowNs;
    const handle = engine.submit(
      { ...drawing, tokens: Uint32Array.of(1, 2, 3), generateMax: 400 },
      {
        onToken: ({ timeNs }) => {
          if (count++ === 0) firstTokenNs = engine.nowNs;
          expect(timeNs).toBeLessThanOrEqual(engine.nowNs);
          expect(timeNs).toBeGreaterThan(calledNs);
        },
        onFinish: () => {
          lastRecordNs = engine.nowNs;
          done.resolve();
        },
        onError: done.reject,
      },
    );
    profiler.requestSubmitted(handle.id, {
      calledNs,
      tokenizedNs: calledNs,
      submittedNs,
      promptTokens: 3,
      generates: true,
    });
    await done.promise;
    engine.drainEvents();
    const endedNs = engine.nowNs;
    const wallMs = performance.now() - wallBegin;
    profiler.requestEnded(handle.id, { firstTokenNs, lastRecordNs, endedNs, reusedTokens: 0, generatedTokens: 400 });
    const { requests, betweenTokens } = profiler.requests();
    const [row] = requests;
    expect(row).toMatchObject({ steps: 400, generatedTokens: 400 });
    expect(betweenTokens.count).toBe(399);
    expect(Math.abs((row?.wallNs ?? 0) / 1e6 - wallMs)).toBeLessThan(1);
    // What belongs to the request alone: the engine was busy with nothing else.
    expect(row?.stepsNs).toBe(profiler.result().steps.totalNs);
    expect(row?.queueNs).toBeGreaterThan(0);
    expect(row?.deliveryNs).toBeGreaterThan(0);
    expect((row?.stepsNs ?? 0) + (row?.betweenNs ?? 0)).toBeLessThan(row?.wallNs ?? 0);
    await engine.close();
  });
});
