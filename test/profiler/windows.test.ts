// Profiles of a process that runs for days: the last windows of time and everything, and memory that does not grow with either.

import { heapStats } from "bun:jsc";
import { describe, expect, test } from "bun:test";
import {
  Histogram,
  type Profile,
  Profiler,
  ProfilerWindows,
  type RequestEnding,
  WindowedHistogram,
} from "../../profiler/index.ts";
import { Random } from "../support/random.ts";
import { encode, opList, randomStep, type TestEvent } from "./stream.ts";

const OPS = opList([
  { name: "blk.0.norm", kind: "norm", layer: 0 },
  { name: "blk.0.q", kind: "matmul", layer: 0, bytesPerStep: 1000, bytesPerRow: 20, operationsPerRow: 500 },
  { name: "head", kind: "matmul", layer: -1, bytesPerStep: 9000, bytesPerRow: 100, operationsPerRow: 4000 },
]);

const SECOND = 1e9;

const ENDING: RequestEnding = {
  firstTokenNs: 4 * SECOND,
  lastRecordNs: 5 * SECOND,
  endedNs: 6 * SECOND,
  reusedTokens: 0,
  generatedTokens: 9,
};

/** Steps `first` to `last`, one every 100 ms. */
function steps(first: number, last: number): TestEvent[] {
  const random = new Random(first);
  return Array.from({ length: last - first + 1 }, (_, index) => {
    const step = first + index;
    return randomStep(random, OPS.length, step, step * 1e8).events;
  }).flat();
}

function profileOf(...parts: TestEvent[][]): Profile {
  const profiler = new Profiler(OPS);
  for (const part of parts) profiler.drain(encode(part));
  return profiler.result({ histograms: true });
}

function withoutSpan(profile: Profile): Omit<Profile, "spanNs"> {
  const { spanNs: _, ...rest } = profile;
  return rest;
}

describe("a profiler with windows", () => {
  test("gives the last window, the last few as one, and everything, as profiles of those steps alone", () => {
    const windows = new ProfilerWindows(OPS, 0, { windowMs: 1000, windows: 3 });
    const parts = [steps(0, 9), steps(10, 19), steps(20, 29), steps(30, 39), steps(40, 44)];
    for (const [index, part] of parts.entries()) {
      windows.profiler.drain(encode(part));
      windows.advance((index + 1) * SECOND - (index === 4 ? SECOND / 2 : 0));
    }
    const [, second, third, fourth] = parts as [TestEvent[], TestEvent[], TestEvent[], TestEvent[], TestEvent[]];
    expect(windows.last()).toMatchObject({ startNs: 3 * SECOND, endNs: 4 * SECOND });
    expect(withoutSpan(windows.last().profile)).toEqual(withoutSpan(profileOf(fourth)));
    expect(windows.last(2)).toMatchObject({ startNs: 2 * SECOND, endNs: 4 * SECOND });
    expect(withoutSpan(windows.last(2).profile)).toEqual(withoutSpan(profileOf(third, fourth)));
    expect(withoutSpan(windows.last(3).profile)).toEqual(withoutSpan(profileOf(second, third, fourth)));
    const everything = windows.everything(4.5 * SECOND);
    expect(everything).toMatchObject({ startNs: 0, endNs: 4.5 * SECOND });
    expect(withoutSpan(everything.profile)).toEqual(withoutSpan(profileOf(...parts)));
    // To look at it changes nothing.
    expect(windows.everything(4.5 * SECOND)).toEqual(everything);
  });

  test("counts a step that was under way when a window ended in the next one, whole", () => {
    const windows = new ProfilerWindows(OPS, 0, { windowMs: 1000 });
    const events = steps(0, 10);
    const cut = events.findIndex(({ step, kind }) => step === 10 && kind === "sampling");
    windows.profiler.drain(encode(events.slice(0, cut)));
    windows.advance(SECOND);
    windows.profiler.drain(encode(events.slice(cut)));
    windows.advance(2 * SECOND);
    const ofStep = (wanted: (step: number) => boolean) => events.filter(({ step = 0 }) => wanted(step));
    expect(windows.last(2).profile.incompleteSteps + windows.last(2).profile.lateEvents).toBe(0);
    expect(withoutSpan(windows.last().profile)).toEqual(withoutSpan(profileOf(ofStep((step) => step === 10))));
    expect(withoutSpan(windows.last(2).profile)).toEqual(withoutSpan(profileOf(events)));
  });

  test("counts requests in the window in which they ended, and follows those under way through windows", () => {
    const windows = new ProfilerWindows(OPS, 0, { windowMs: 1000 });
    const submission = { calledNs: SECOND, tokenizedNs: SECOND, submittedNs: SECOND, promptTokens: 1, generates: true };
    windows.profiler.requestSubmitted(1, submission);
    windows.profiler.drain(encode(steps(10, 14)));
    windows.advance(1.5 * SECOND);
    windows.profiler.drain(encode(steps(15, 17)));
    windows.profiler.requestEnded(1, ENDING);
    windows.advance(2 * SECOND);
    expect(windows.last()).toMatchObject({ requestCount: 1, betweenTokens: { count: 3 }, firstTokens: { count: 1 } });
    expect(windows.last(2)).toMatchObject({ requestCount: 1, betweenTokens: { count: 7 }, firstTokens: { count: 1 } });
    expect(windows.everything(2 * SECOND)).toMatchObject({ requestCount: 1, betweenTokens: { count: 7 } });
    expect(windows.profiler.requests().requests).toMatchObject([{ id: 1, steps: 8, generatedTokens: 9 }]);
  });

  test("ends a window late where nobody looked, and begins the next ones at the same times as before", () => {
    const windows = new ProfilerWindows(OPS, 0, { windowMs: 1000 });
    const spans = [0.5, 1.2, 1.9, 2, 7.5, 7.9, 8.1].map((seconds) => {
      windows.advance(seconds * SECOND);
      const { startNs, endNs } = windows.last();
      return [startNs / SECOND, endNs / SECOND];
    });
    const expected = [
      [0, 0],
      [0, 1.2],
      [0, 1.2],
      [1.2, 2],
      [2, 7.5],
      [2, 7.5],
      [7.5, 8.1],
    ];
    expect(spans).toEqual(expected);
  });

  test("refuses options and counts out of bounds, and says which", () => {
    for (const windowMs of [0, -1, Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(() => new ProfilerWindows(OPS, 0, { windowMs })).toThrow(/options\.windowMs/);
    }
    for (const count of [0, 1.5, -1]) {
      expect(() => new ProfilerWindows(OPS, 0, { windows: count })).toThrow(/options\.windows/);
    }
    const windows = new ProfilerWindows(OPS, 0, { windows: 4 });
    expect(() => windows.last(5)).toThrow(/a whole number from 1 to 4 is expected/);
    expect(() => windows.last(0)).toThrow(RangeError);
  });
});

describe("a histogram with windows", () => {
  test("gives the last windows and everything, as histograms of those amounts alone", () => {
    const windowed = new WindowedHistogram("bytes", 0, { windowMs: 1000, windows: 3 });
    const random = new Random(9);
    const parts = Array.from({ length: 6 }, () =>
      Array.from({ length: 50 }, () => Math.floor(2 ** (50 * random.uniform()))),
    );
    for (const [index, part] of parts.entries()) {
      for (const amount of part) windowed.record(amount);
      if (index < 5) windowed.advance((index + 1) * SECOND);
    }
    const of = (wanted: readonly number[][]) => {
      const histogram = new Histogram("bytes");
      for (const amount of wanted.flat()) histogram.record(amount);
      return histogram.toJSON();
    };
    expect(windowed.last().toJSON()).toEqual(of(parts.slice(4, 5)));
    expect(windowed.last(3).toJSON()).toEqual(of(parts.slice(2, 5)));
    expect(windowed.everything().toJSON()).toEqual(of(parts));
  });
});

describe("a day of events", () => {
  const DAY = 86_400 * SECOND;
  const STEPS = 240_000;

  test("takes as much memory as an hour of it, and loses nothing that is not counted", () => {
    // The machine has been up for so long that time stamps pass 2^53 at noon; step numbers pass 2^32 then too.
    const begin = 2n ** 53n - BigInt(DAY / 2);
    const firstStep = 2 ** 32 - STEPS / 2;
    const between = DAY / STEPS;
    const template = encode(randomStep(new Random(1), OPS.length, 1, 0).events);
    const eventBytes = 32;
    /** The template as step number `index`, in place. */
    const move = (bytes: Uint8Array, index: number): void => {
      const view = new DataView(bytes.buffer);
      const source = new DataView(template.buffer);
      const start = begin + BigInt(Math.round(index * between));
      for (let at = 0; at < template.length; at += eventBytes) {
        view.setUint32(at + 16, (firstStep + index) % 2 ** 32, true);
        if (view.getUint8(at + 26) === 6) continue; // A share's words are no times.
        for (const word of [0, 8]) view.setBigUint64(at + word, start + source.getBigUint64(at + word, true), true);
      }
    };
    const windows = new ProfilerWindows(OPS, Number(begin), { windowMs: 60_000, windows: 60 });
    const { profiler } = windows;
    const bytes = template.slice();
    const retained = (): { bytes: number; objects: number; buckets: number } => {
      Bun.gc(true);
      const { heapSize, extraMemorySize, objectCount } = heapStats();
      return { bytes: heapSize + extraMemorySize, objects: objectCount, buckets: windows.footprintBytes };
    };
    const seen: ReturnType<typeof retained>[] = [];
    let [lost, requests] = [0, 0];
    for (let index = 0; index < STEPS; index++) {
      const nowNs = Number(begin) + Math.round(index * between);
      // Request 1 comes again and again, 100 steps long; now and then one is forgotten by its caller.
      if (index % 100 === 0) {
        if (index > 0) {
          profiler.requestEnded(1, { ...ENDING, firstTokenNs: nowNs, lastRecordNs: nowNs, endedNs: nowNs });
          requests++;
        }
        profiler.requestSubmitted(1, {
          ...{ calledNs: nowNs, tokenizedNs: nowNs, submittedNs: nowNs },
          ...{ promptTokens: 1, generates: true },
        });
      }
      move(bytes, index);
      // Every thousandth step the ring was full: it has lost the step's own event, and says so.
      const full = index % 1000 === 500;
      profiler.drain(full ? bytes.subarray(0, bytes.length - eventBytes) : bytes, full ? 1 : 0);
      lost += Number(full);
      windows.advance(nowNs);
      // After the windows that are kept are all there, and then every four hours.
      if (index % (STEPS / 6) === STEPS / 12) seen.push(retained());
    }
    const { profile, requestCount, betweenTokens } = windows.everything(Number(begin) + DAY);
    expect(profile.steps.count + profile.incompleteSteps).toBe(STEPS);
    expect([profile.incompleteSteps, profile.lostEvents]).toEqual([lost, lost]);
    expect([profile.lateEvents, profile.malformedEvents, profile.clippedNs]).toEqual([0, 0, 0]);
    expect(profile.byOp.map(({ count }) => count)).toEqual(OPS.map(() => STEPS - lost));
    expect(profile.totalTime).toBeCloseTo(((STEPS - lost) * Number(profile.steps.maxNs)) / 1e6, 3);
    expect(requestCount).toBe(requests);
    expect(betweenTokens.count).toBeGreaterThan(0.98 * (STEPS - lost - requests));
    expect(betweenTokens.p50Ns).toBe(between);
    expect(windows.last(60).profile.steps.count).toBe(Math.round((STEPS * 3600 * SECOND) / DAY) - 10);
    const [first] = seen;
    // What other tests have left may go meanwhile. A step that left anything behind would be 40,000 times that much from one look
    // to the next.
    for (const later of seen) {
      expect(later.buckets).toBe(first?.buckets ?? -1);
      expect(later.objects - (first?.objects ?? 0)).toBeLessThan(5000);
      expect(later.bytes - (first?.bytes ?? 0)).toBeLessThan(4_000_000);
    }
  }, 60_000);

  test("counts requests that nobody ended, once there are more than anybody has under way", () => {
    const profiler = new Profiler(OPS);
    for (let id = 1; id <= 70_000; id++) {
      profiler.requestSubmitted(id, { calledNs: 0, tokenizedNs: 0, submittedNs: 0, promptTokens: 1, generates: true });
    }
    expect(profiler.forgottenRequests).toBe(70_000 - 2 ** 16);
    profiler.requestEnded(1, ENDING);
    profiler.requestEnded(70_000, ENDING);
    expect(profiler.requests().requests.map(({ id }) => id)).toEqual([70_000]);
  });
});
