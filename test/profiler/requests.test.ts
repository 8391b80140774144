// Whose steps they were: the shape that every finished step is told with, and the rows of requests, whose times add up.

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  type FinishedStep,
  Profiler,
  type RequestEnding,
  type RequestReport,
  type RequestSubmission,
} from "../../profiler/index.ts";
import { encode, opList, share, type TestEvent } from "./stream.ts";

const OPS = opList([{}]);

/** A step of the given shares from `start` to `end`, the op taking all of it. */
function stepOf(step: number, start: number | bigint, end: number | bigint, shares: readonly TestEvent[]): TestEvent[] {
  const rows = shares.reduce((sum, event) => sum + (event.rows ?? 0), 0);
  return [
    { kind: "work", op: 0, step, rows, start, end },
    ...shares,
    { kind: "step", step, rows, aux: shares.length, start, end },
  ];
}

const SUBMITTED: RequestSubmission = {
  calledNs: 1000,
  tokenizedNs: 1300,
  submittedNs: 1400,
  promptTokens: 8,
  generates: true,
};

const ENDED: RequestEnding = {
  firstTokenNs: 2600,
  lastRecordNs: 5050,
  endedNs: 5400,
  reusedTokens: 2,
  generatedTokens: 3,
};

function sumOf(row: RequestReport["requests"][number] | undefined): number {
  if (row === undefined) throw new Error("there is no row");
  const { tokenizingNs, queueNs, stepsNs, betweenNs, deliveryNs, javascriptNs, unattributedNs } = row;
  const pieces = [tokenizingNs, queueNs, stepsNs, betweenNs, deliveryNs, javascriptNs, unattributedNs];
  expect(pieces.every((ns) => Number.isInteger(ns) && ns >= 0)).toBe(true);
  return pieces.reduce((sum, ns) => sum + ns, 0);
}

/** Request 7's prompt of 8 tokens in one step, then two tokens, the second step shared with request 9. */
const STEPS = [
  ...stepOf(1, 2000, 2500, [share({ step: 1, request: 7, position: 2, rows: 6 })]),
  ...stepOf(2, 2600, 3600, [
    share({ step: 2, request: 7, position: 8, rows: 1 }),
    share({ step: 2, request: 9, sequence: 1, position: 0, rows: 64, logitsRows: 0 }),
  ]),
  ...stepOf(3, 4000, 5000, [share({ step: 3, request: 7, position: 9, rows: 1 })]),
];

describe("a finished step", () => {
  test("is told with its sequences in order of their rows", () => {
    const told: FinishedStep[] = [];
    const profiler = new Profiler(OPS, { onStep: (step) => told.push(step) });
    profiler.drain(encode(STEPS));
    const part = { sequence: 0, logitsRows: 1, accepted: 0 };
    expect(told).toEqual([
      {
        step: 1,
        startNs: 2000,
        endNs: 2500,
        phase: "prompt",
        shares: [{ ...part, request: 7, firstPosition: 2, rows: 6 }],
      },
      {
        step: 2,
        startNs: 2600,
        endNs: 3600,
        phase: "prompt",
        shares: [
          { ...part, request: 7, firstPosition: 8, rows: 1 },
          { request: 9, sequence: 1, firstPosition: 0, rows: 64, logitsRows: 0, accepted: 0 },
        ],
      },
      {
        step: 3,
        startNs: 4000,
        endNs: 5000,
        phase: "generation",
        shares: [{ ...part, request: 7, firstPosition: 9, rows: 1 }],
      },
    ]);
  });

  test("is told the same wherever the stream is cut into drains, and for as many sequences as an engine has", () => {
    const shares = Array.from({ length: 64 }, (_, index) =>
      share({ step: 4, request: 100 + index, sequence: index, position: index, rows: 5, logitsRows: 5, accepted: 4 }),
    );
    const events = [...STEPS, ...stepOf(4, 6000, 7000, shares)];
    const tellWith = (size: number): FinishedStep[] => {
      const told: FinishedStep[] = [];
      const profiler = new Profiler(OPS, { onStep: (step) => told.push(step) });
      for (let at = 0; at < events.length; at += size) profiler.drain(encode(events.slice(at, at + size)));
      return told;
    };
    const whole = tellWith(events.length);
    expect(whole[3]?.shares).toEqual(
      shares.map((_, index) => ({
        request: 100 + index,
        sequence: index,
        firstPosition: index,
        rows: 5,
        logitsRows: 5,
        accepted: 4,
      })),
    );
    for (let size = 1; size < 10; size++) expect(tellWith(size)).toEqual(whole);
  });

  test("is not told when a share or its own event is lost, and the next one is", () => {
    for (const lost of [1, 2, 4, 5, 6]) {
      const told: number[] = [];
      const profiler = new Profiler(OPS, { onStep: ({ step }) => told.push(step) });
      profiler.drain(encode(STEPS.filter((_, index) => index !== lost)));
      expect(told).toEqual(lost < 3 ? [2, 3] : [1, 3]);
    }
  });

  test("does not take the words of a share for times, though they come first", () => {
    const up = 2n ** 40n;
    const shifted = STEPS.map((event) =>
      event.kind === "share" ? event : { ...event, start: up + BigInt(event.start), end: up + BigInt(event.end) },
    );
    const told: FinishedStep[] = [];
    const profiler = new Profiler(OPS, { onStep: (step) => told.push(step) });
    profiler.drain(encode(shifted.slice(1)));
    expect(told.map(({ startNs, endNs }) => [startNs - 2 ** 40, endNs - 2 ** 40])).toEqual([
      [2600, 3600],
      [4000, 5000],
    ]);
    expect(profiler.result()).toMatchObject({ malformedEvents: 0, clippedNs: 0, spanNs: 2400 });
  });
});

describe("a request", () => {
  test("has its time cut into pieces that add up", () => {
    const profiler = new Profiler(OPS);
    profiler.requestSubmitted(7, SUBMITTED);
    profiler.drain(encode(STEPS));
    profiler.requestEnded(7, ENDED);
    const { requests, requestCount, betweenTokens, firstTokens } = profiler.requests();
    expect(requests).toEqual([
      {
        id: 7,
        promptTokens: 8,
        reusedTokens: 2,
        generatedTokens: 3,
        wallNs: 4400,
        firstTokenNs: 1600,
        tokenizingNs: 300,
        queueNs: 600,
        stepsNs: 2500,
        steps: 3,
        betweenNs: 500,
        deliveryNs: 50,
        javascriptNs: 350,
        unattributedNs: 100,
      },
    ]);
    expect(sumOf(requests[0])).toBe(4400);
    expect(requestCount).toBe(1);
    expect(firstTokens).toMatchObject({ count: 1, totalNs: 1600, share: 0 });
    // 2500 to 3600 and 3600 to 5000.
    expect(betweenTokens).toMatchObject({ count: 2, totalNs: 2500, maxNs: 1400, share: 0 });
  });

  test("has the same row when its last steps are drained after it has ended", () => {
    const rowsWith = (early: number): RequestReport => {
      const profiler = new Profiler(OPS);
      profiler.requestSubmitted(7, SUBMITTED);
      profiler.drain(encode(STEPS.slice(0, early)));
      profiler.requestEnded(7, ENDED);
      profiler.drain(encode(STEPS.slice(early)));
      return profiler.requests();
    };
    for (let early = 0; early <= STEPS.length; early++) expect(rowsWith(early)).toEqual(rowsWith(STEPS.length));
  });

  test("adds up exactly for any stamps, also such as no clock would give", () => {
    const stamp = fc.integer({ min: 0, max: 60 });
    const steps = fc.array(fc.record({ gap: stamp, length: stamp }), { maxLength: 4 });
    const base = fc.constantFrom(0, 2 ** 41, 2 ** 54 + 2 ** 40);
    fc.assert(
      fc.property(fc.tuple(stamp, stamp, stamp, stamp, stamp, stamp), steps, base, (stamps, lengths, zero) => {
        // Even numbers are exact beyond 2^53 too.
        const [calledNs, tokenizedNs, submittedNs, firstTokenNs, lastRecordNs, endedNs] = stamps.map(
          (ns) => zero + 2 * ns,
        ) as [number, number, number, number, number, number];
        const profiler = new Profiler(OPS);
        profiler.requestSubmitted(7, { ...SUBMITTED, calledNs, tokenizedNs, submittedNs });
        let at = BigInt(zero) + 30n;
        for (const [index, { gap, length }] of lengths.entries()) {
          const [start, end] = [at + 2n * BigInt(gap), at + 2n * BigInt(gap + length)];
          profiler.drain(
            encode(stepOf(index + 1, start, end, [share({ step: index + 1, request: 7, position: index, rows: 1 })])),
          );
          at = end;
        }
        profiler.requestEnded(7, { ...ENDED, firstTokenNs, lastRecordNs, endedNs });
        const [row] = profiler.requests().requests;
        expect(sumOf(row)).toBe(row?.wallNs ?? -1);
        expect(row?.wallNs).toBe(Math.max(0, endedNs - calledNs));
        expect(row?.steps).toBe(lengths.length);
      }),
      { numRuns: 500 },
    );
  });

  test("that ended in the queue has waited there until that was known", () => {
    const profiler = new Profiler(OPS);
    profiler.requestSubmitted(7, SUBMITTED);
    profiler.requestEnded(7, { ...ENDED, firstTokenNs: null, generatedTokens: 0, reusedTokens: 0 });
    const { requests, firstTokens } = profiler.requests();
    expect(requests[0]).toMatchObject({ firstTokenNs: null, steps: 0, queueNs: 3650, stepsNs: 0, javascriptNs: 350 });
    expect(sumOf(requests[0])).toBe(4400);
    expect(firstTokens.count).toBe(0);
  });

  test("whose guesses came true has tokens with no time between them", () => {
    const profiler = new Profiler(OPS);
    profiler.requestSubmitted(7, SUBMITTED);
    profiler.drain(
      encode([
        ...stepOf(1, 2000, 2500, [share({ step: 1, request: 7, position: 0, rows: 8 })]),
        ...stepOf(2, 2600, 3600, [share({ step: 2, request: 7, position: 8, rows: 5, logitsRows: 5, accepted: 3 })]),
        ...stepOf(3, 4000, 5000, [share({ step: 3, request: 7, position: 12, rows: 1 })]),
      ]),
    );
    // Six tokens: at 2500, four at 3600, one at 5000.
    expect(profiler.requests().betweenTokens).toMatchObject({ count: 5, totalNs: 2500, p50Ns: 0, maxNs: 1400 });
  });

  test("that draws no tokens has none between which time could pass", () => {
    const profiler = new Profiler(OPS);
    profiler.requestSubmitted(7, { ...SUBMITTED, generates: false });
    profiler.drain(encode(STEPS));
    profiler.requestEnded(7, { ...ENDED, firstTokenNs: null, generatedTokens: 0 });
    expect(profiler.requests()).toMatchObject({ requestCount: 1, betweenTokens: { count: 0 } });
  });

  test("of which nobody told is in no row, nor one that has not ended", () => {
    const profiler = new Profiler(OPS);
    profiler.requestSubmitted(9, SUBMITTED);
    profiler.drain(encode(STEPS));
    profiler.requestEnded(7, ENDED);
    expect(profiler.requests()).toMatchObject({ requests: [], requestCount: 0 });
  });

  test("is one of the last 1,000 that ended, or only counted", () => {
    const profiler = new Profiler(OPS);
    for (let id = 1; id <= 2500; id++) {
      profiler.requestSubmitted(id, SUBMITTED);
      profiler.requestEnded(id, ENDED);
    }
    const { requests, requestCount, firstTokens } = profiler.requests();
    expect([requests.length, requests[0]?.id, requests.at(-1)?.id]).toEqual([1000, 1501, 2500]);
    expect([requestCount, firstTokens.count]).toEqual([2500, 2500]);
  });

  test("is forgotten on reset", () => {
    const profiler = new Profiler(OPS);
    profiler.requestSubmitted(7, SUBMITTED);
    profiler.drain(encode(STEPS));
    profiler.reset();
    profiler.requestEnded(7, ENDED);
    expect(profiler.requests()).toEqual(new Profiler(OPS).requests());
  });
});
