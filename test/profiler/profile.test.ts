// The profile of synthetic event streams whose answer is known: that times add up, that nothing counts twice, and that it
// does not matter in which pieces or in which order of threads the events arrive.

import { heapStats } from "bun:jsc";
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { type CostRow, DurationHistogram, type OpInfo, type Profile, Profiler } from "../../profiler/index.ts";
import { encode, opList, type TestEvent } from "./stream.ts";

function profileOf(ops: readonly OpInfo[], events: readonly TestEvent[], lost = 0): Profile {
  const profiler = new Profiler(ops);
  profiler.drain(encode(events), lost);
  return profiler.result();
}

/** The time of all rows that cut the steps into pieces, ns. */
function sumOfRows(profile: Profile, ops: readonly { totalNs: number }[]): number {
  const { waiting, sampling, copying, engine, idle, unattributed } = profile;
  const others = [waiting, sampling, copying, engine, idle, unattributed];
  return [...ops, ...others].reduce((sum, row) => sum + row.totalNs, 0);
}

/** Two threads, a norm and two products of a layer without a barrier between them, then a head: all times in ns. */
const LAYER_OPS = opList([
  { name: "blk.0.norm", kind: "norm", layer: 0 },
  { name: "blk.0.q", kind: "matmul", layer: 0, bytesPerStep: 1000, bytesPerRow: 20, operationsPerRow: 500 },
  { name: "blk.0.k", kind: "matmul", layer: 0, bytesPerStep: 400, bytesPerRow: 10, operationsPerRow: 200 },
  { name: "head", kind: "matmul", layer: -1, bytesPerStep: 9000, bytesPerRow: 100, operationsPerRow: 4000 },
]);

function layerStep(step: number, at: number): TestEvent[] {
  const event = (kind: TestEvent["kind"], thread: number, start: number, end: number, op?: number): TestEvent => ({
    kind,
    thread,
    start: at + start,
    end: at + end,
    step,
    rows: 2,
    ...(op === undefined ? {} : { op }),
    aux: kind === "step" ? 2 : 4,
  });
  return [
    event("work", 0, 10, 30, 0),
    event("work", 1, 12, 35, 0),
    event("barrier", 1, 35, 36, 0),
    event("barrier", 0, 30, 36, 0),
    event("work", 0, 36, 100, 1), // q and k overlap across threads: 36..110 and 100..140
    event("work", 1, 37, 110, 1),
    event("work", 0, 100, 135, 2),
    event("work", 1, 110, 140, 2),
    event("barrier", 1, 140, 141, 2),
    event("barrier", 0, 135, 141, 2),
    event("work", 0, 141, 300, 3),
    event("work", 1, 142, 290, 3),
    event("barrier", 0, 300, 301, 3),
    event("barrier", 1, 290, 301, 3),
    event("sampling", 0, 301, 320),
    event("step", 0, 0, 330),
  ];
}

describe("a profile", () => {
  test("cuts the engine thread's step into ops, waiting, sampling and what is not attributed", () => {
    const profile = profileOf(LAYER_OPS, layerStep(1, 5000));
    expect(profile.byOp.map((row) => [row.name, row.totalNs, row.waitNs])).toEqual([
      ["blk.0.norm", 20, 6],
      ["blk.0.q", 64, 0],
      ["blk.0.k", 35, 6],
      ["head", 159, 1],
    ]);
    expect(profile.waiting.totalNs).toBe(13);
    expect(profile.sampling.totalNs).toBe(19);
    expect(profile.copying.count).toBe(0);
    expect(profile.idle.totalNs).toBe(0);
    expect(profile.unattributed.totalNs).toBe(20); // 10 before the first op, 10 after sampling
    expect(profile.steps.totalNs).toBe(330);
    expect(profile.totalTime).toBe(330 / 1e6);
    expect(profile.attributedShare).toBeCloseTo(310 / 330, 12);
    expect(sumOfRows(profile, profile.byOp)).toBe(330);
  });

  test("takes throughput from the wall time over all threads, and counts overlapping ops of a row once", () => {
    const profile = profileOf(LAYER_OPS, [...layerStep(1, 5000), ...layerStep(2, 6000)]);
    expect(profile.byOp.map((row) => row.wallNs)).toEqual([50, 148, 80, 318]);
    const [, q] = profile.byOp;
    expect(q?.bytes).toBe(2 * (1000 + 2 * 20));
    expect(q?.operations).toBe(2 * 2 * 500);
    expect(q?.gigabytesPerSecond).toBeCloseTo(2080 / 148, 12);
    expect(q?.gigaflopsPerSecond).toBeCloseTo(2000 / 148, 12);
    const matmul = profile.byKind.find((row) => row.kind === "matmul");
    expect(matmul?.wallNs).toBe(2 * (140 - 36 + 300 - 141));
    expect(matmul?.ops).toBe(3);
    expect(matmul?.count).toBe(6);
    expect(matmul?.bytes).toBe(2 * (1040 + 420 + 9200));
    const layer = profile.byLayer.find((row) => row.layer === 0);
    expect(layer?.wallNs).toBe(2 * (35 - 10 + 140 - 36));
    expect(layer?.totalNs).toBe(2 * (20 + 64 + 35));
    expect(layer?.count).toBe(2);
    expect(layer?.maxNs).toBe(129); // norm 10..35, products 36..140
    expect(q?.maxNs).toBe(74); // of which the engine thread worked 64
    expect(profile.byKind.find((row) => row.kind === "norm")?.gigabytesPerSecond).toBeNull();
  });

  test("says what each thread did during the steps", () => {
    const between: TestEvent = { kind: "idle", thread: 0, step: 1, start: 5330, end: 5400 };
    const profile = profileOf(LAYER_OPS, [...layerStep(1, 5000), between]);
    expect(profile.threads).toHaveLength(2);
    expect(profile.threads[0]).toMatchObject({ thread: 0, busyNs: 297, waitingNs: 13, idleNs: 20, recordedIdleNs: 70 });
    expect(profile.threads[1]).toMatchObject({ thread: 1, busyNs: 274, waitingNs: 13, idleNs: 43, recordedIdleNs: 0 });
    expect(profile.threads[1]?.busyShare).toBeCloseTo(274 / 330, 12);
    expect(profile.idle.totalNs).toBe(0);
  });

  test("counts sampling and waiting in the steps that had them", () => {
    const second = layerStep(2, 6000).filter((event) => event.kind !== "sampling");
    const profile = profileOf(LAYER_OPS, [...layerStep(1, 5000), ...second]);
    expect(profile.sampling).toMatchObject({ count: 1, totalNs: 19, maxNs: 19 });
    expect(profile.waiting).toMatchObject({ count: 2, totalNs: 26, maxNs: 13 });
    expect(profile.unattributed).toMatchObject({ count: 2, totalNs: 59, maxNs: 39 });
  });

  test("does not let a thread that came too late for any unit stretch an op's wall time", () => {
    const ops = opList([{}]);
    const late: TestEvent = { kind: "work", thread: 1, op: 0, start: 190, end: 200, aux: 0 };
    const rest: TestEvent[] = [
      { kind: "work", op: 0, start: 110, end: 150, aux: 8 },
      { kind: "step", start: 100, end: 210 },
    ];
    expect(profileOf(ops, [late, ...rest]).byOp[0]?.wallNs).toBe(40);
    expect(profileOf(ops, [...rest, late]).byOp[0]?.wallNs).toBe(40);
  });

  test("counts the wall time of an op that lies inside another of its kind once", () => {
    const profile = profileOf(opList([{}, {}, {}]), [
      { kind: "work", op: 0, start: 100, end: 200 },
      { kind: "work", op: 1, start: 120, end: 150, thread: 1 },
      { kind: "work", op: 2, start: 190, end: 230, thread: 1 },
      { kind: "step", start: 100, end: 240 },
    ]);
    expect(profile.byKind[0]?.wallNs).toBe(130);
    expect(profile.byOp.map((row) => row.wallNs)).toEqual([100, 30, 40]);
  });

  test("gives an op without rows neither a run nor time nor bytes", () => {
    const ops = opList([{ bytesPerStep: 10 }, { name: "head", bytesPerStep: 1000 }]);
    const profile = profileOf(ops, [
      { kind: "work", op: 0, start: 100, end: 150 },
      { kind: "work", op: 1, start: 150, end: 153, rows: 0, aux: 0 },
      { kind: "step", start: 100, end: 160 },
    ]);
    expect(profile.byOp.map((row) => row.name)).toEqual(["op0"]);
    expect(profile.unattributed.totalNs).toBe(10);
    expect(profile.byKind[0]?.bytes).toBe(10);
  });

  test("tells prompt steps from generation by rows and sequences", () => {
    const step = (number: number, rows: number, sequences: number, ns: number): TestEvent[] => [
      { kind: "work", op: 0, step: number, rows, start: number * 1e6, end: number * 1e6 + ns },
      { kind: "step", step: number, rows, aux: sequences, start: number * 1e6, end: number * 1e6 + ns },
    ];
    const profile = profileOf(opList([{}]), [...step(1, 64, 1, 4000), ...step(2, 9, 3, 2000), ...step(3, 4, 4, 1000)]);
    expect(profile.phases.map((row) => [row.phase, row.count, row.rows, row.sequences, row.totalNs])).toEqual([
      ["prompt", 2, 73, 4, 6000],
      ["generation", 1, 4, 4, 1000],
    ]);
    expect(profile.phases[0]?.rowsPerSecond).toBeCloseTo(73 / 6e-6, 3);
    expect(profile.rows).toBe(77);
    expect(profile.steps).toMatchObject({ count: 3, totalNs: 7000, maxNs: 4000 });
    expect(profile.spanNs).toBe(2e6 + 1000);
  });

  test("adds up exactly for any timeline, as counting it nanosecond by nanosecond does", () => {
    const kinds = ["work", "barrier", "idle", "sampling", "copy", "engine"] as const;
    const piece = fc.record({
      gap: fc.integer({ min: -3, max: 9 }),
      length: fc.integer({ min: 0, max: 30 }),
      kind: fc.constantFrom(...kinds),
      op: fc.integer({ min: 0, max: 3 }),
    });
    const timeline = fc.record({
      before: fc.integer({ min: -5, max: 10 }),
      after: fc.integer({ min: -5, max: 10 }),
      pieces: fc.array(piece, { minLength: 1, maxLength: 25 }),
    });
    fc.assert(
      fc.property(fc.array(timeline, { minLength: 1, maxLength: 6 }), (timelines) => {
        const events: TestEvent[] = [];
        const expected = new Map<string, number>();
        let clipped = 0;
        let at = 1000;
        for (const [index, { before, after, pieces }] of timelines.entries()) {
          const step = index + 1;
          const ofStep: TestEvent[] = [];
          let cursor = at;
          for (const { gap, length, kind, op } of pieces) {
            // Starts never go back, but a piece may begin inside the one before.
            const start = Math.max(cursor + gap, Number(ofStep.at(-1)?.start ?? 0));
            ofStep.push({ kind, op, step, start, end: start + length });
            cursor = start + length;
          }
          // An idle event before all others belongs to the time before the step.
          while (ofStep[0]?.kind === "idle") ofStep.shift();
          if (ofStep.length === 0) continue;
          const stepStart = Number(ofStep[0]?.start) - before;
          const stepEnd = Math.max(cursor + after, stepStart);
          ofStep.push({ kind: "step", step, start: stepStart, end: stepEnd });
          events.push(...ofStep);
          const owner: string[] = Array.from({ length: stepEnd - stepStart }, () => "unattributed");
          for (const event of ofStep.slice(0, -1)) {
            const name = event.kind === "work" ? `op${event.op}` : String(event.kind);
            for (let ns = Number(event.start); ns < Number(event.end); ns++) {
              if (owner[ns - stepStart] === "unattributed") owner[ns - stepStart] = name;
              else clipped++;
            }
          }
          for (const name of owner) expected.set(name, (expected.get(name) ?? 0) + 1);
          at = Math.max(cursor, stepEnd) + 50;
        }
        const ops = opList([{ layer: 0 }, { layer: 1, kind: "norm" }, { layer: 1 }, {}]);
        const profile = profileOf(ops, events);
        const given = new Map<string, number>([
          ...profile.byOp.map((row): [string, number] => [row.name, row.totalNs]),
          ["barrier", profile.waiting.totalNs],
          ["idle", profile.idle.totalNs],
          ["sampling", profile.sampling.totalNs],
          ["copy", profile.copying.totalNs],
          ["engine", profile.engine.totalNs],
          ["unattributed", profile.unattributed.totalNs],
        ]);
        for (const name of new Set([...expected.keys(), ...given.keys()])) {
          expect([name, given.get(name) ?? 0]).toEqual([name, expected.get(name) ?? 0]);
        }
        expect(profile.clippedNs).toBe(clipped);
        for (const rows of [profile.byOp, profile.byKind, profile.byLayer]) {
          expect(sumOfRows(profile, rows)).toBe(profile.steps.totalNs);
        }
        expect(profile.attributedShare).toBeGreaterThanOrEqual(0);
        expect(profile.attributedShare).toBeLessThanOrEqual(1);
      }),
      { numRuns: 300 },
    );
  });

  test("gives percentiles of an op's durations over the steps", () => {
    const events: TestEvent[] = [];
    for (let step = 1; step <= 1000; step++) {
      // 1,000 different durations in a scrambled order.
      const ns = 1000 * (((step * 389) % 1000) + 1);
      events.push({ kind: "work", op: 0, step, start: step * 1e7, end: step * 1e7 + ns });
      events.push({ kind: "step", step, start: step * 1e7, end: step * 1e7 + ns });
    }
    const [row] = profileOf(opList([{}]), events).byOp;
    expect(row?.count).toBe(1000);
    for (const [given, exact] of [
      [row?.p50Ns, 500_000],
      [row?.p90Ns, 900_000],
      [row?.p99Ns, 990_000],
    ] as const) {
      expect(Math.abs((given ?? 0) - exact)).toBeLessThanOrEqual(exact / 1000);
    }
    expect(row?.maxNs).toBe(1_000_000);
  });

  test("is plain data: JSON gives it back equal", () => {
    const profile = profileOf(LAYER_OPS, layerStep(1, 5000));
    expect(JSON.parse(JSON.stringify(profile))).toEqual(profile);
  });

  test("carries every duration of every row when asked", () => {
    const profiler = new Profiler(LAYER_OPS);
    profiler.drain(encode([...layerStep(1, 5000), ...layerStep(2, 6000)]));
    expect(profiler.result().byOp[0]?.histogram).toBeUndefined();
    const profile = profiler.result({ histograms: true });
    for (const row of [...profile.byOp, ...profile.byKind, ...profile.byLayer, profile.steps, profile.waiting]) {
      if (row.histogram === undefined) throw new Error("a row has no histogram");
      const histogram = DurationHistogram.fromJSON(row.histogram);
      expect([histogram.count, histogram.percentile(90), histogram.max]).toEqual([row.count, row.p90Ns, row.maxNs]);
      const { wallNs } = row as Partial<CostRow>;
      if (wallNs === undefined) expect(histogram.total).toBe(row.totalNs);
      else if (!("ops" in row)) expect(histogram.total).toBe(wallNs);
    }
  });
});

describe("events that arrive in pieces", () => {
  const steps = Array.from({ length: 12 }, (_, index) => layerStep(index + 1, 10_000 + index * 400)).flat();
  const whole = profileOf(LAYER_OPS, steps);

  test("give the same profile wherever the stream is cut into drains", () => {
    for (let size = 1; size <= 40; size++) {
      const profiler = new Profiler(LAYER_OPS);
      for (let at = 0; at < steps.length; at += size) profiler.drain(encode(steps.slice(at, at + size)));
      expect(profiler.result()).toEqual(whole);
    }
  });

  test("give the same profile when threads are drained at different times", () => {
    const ofThread = (thread: number) => encode(steps.filter((event) => event.thread === thread));
    for (const order of [
      [0, 1],
      [1, 0],
    ]) {
      const profiler = new Profiler(LAYER_OPS);
      for (const thread of order) profiler.drain(ofThread(thread));
      expect(profiler.result()).toEqual(whole);
    }
  });

  test("may lie at any place of a larger buffer", () => {
    const bytes = encode(steps);
    for (let shift = 1; shift <= 8; shift++) {
      const shifted = new Uint8Array(bytes.length + shift);
      shifted.set(bytes, shift);
      const profiler = new Profiler(LAYER_OPS);
      profiler.drain(shifted.subarray(shift));
      expect(profiler.result()).toEqual(whole);
    }
  });

  test("count a running step only once its own event has come", () => {
    const profiler = new Profiler(LAYER_OPS);
    profiler.drain(encode([...layerStep(1, 5000), ...layerStep(2, 6000).slice(0, -1)]));
    expect(profiler.result()).toEqual(profileOf(LAYER_OPS, layerStep(1, 5000)));
    profiler.drain(encode(layerStep(2, 6000).slice(-1)));
    expect(profiler.result()).toEqual(profileOf(LAYER_OPS, [...layerStep(1, 5000), ...layerStep(2, 6000)]));
  });

  test("are counted when they come after their step was closed, and change no row", () => {
    const profiler = new Profiler(LAYER_OPS);
    profiler.drain(encode(layerStep(1, 5000)));
    const before = profiler.result();
    const late: TestEvent = { kind: "work", thread: 1, op: 3, start: 5100, end: 5900 };
    profiler.drain(encode([late, { ...late, thread: 0 }]));
    expect(profiler.result()).toEqual({ ...before, lateEvents: 2 });
  });

  test("close a step when one `openSteps` later begins", () => {
    const profiler = new Profiler(LAYER_OPS, { openSteps: 4 });
    const late = steps.filter((event) => event.thread === 1 && (event.step === 8 || event.step === 9));
    profiler.drain(encode(steps.filter((event) => !late.includes(event))));
    profiler.drain(encode(late));
    const profile = profiler.result();
    expect(profile.lateEvents).toBe(late.filter((event) => event.step === 8).length);
    expect(profile.steps.count).toBe(12);
    expect(profile.incompleteSteps).toBe(0);
  });

  test("survive the wrap of the step number", () => {
    const wrapped = steps.map((event) => ({ ...event, step: ((event.step ?? 1) + 0xffff_fffa) % 2 ** 32 }));
    // Step 0 is one like the others.
    expect(profileOf(LAYER_OPS, wrapped)).toEqual(whole);
    const profiler = new Profiler(LAYER_OPS, { openSteps: 3 });
    for (const event of wrapped) profiler.drain(encode([event]));
    expect(profiler.result()).toEqual(whole);
  });

  test("are exact on a machine that has been up for years", () => {
    const up = 2n ** 57n + 12_345n;
    const later = steps.map((event) => ({ ...event, start: up + BigInt(event.start), end: up + BigInt(event.end) }));
    expect(profileOf(LAYER_OPS, later)).toEqual(whole);
  });
});

describe("a ring that lost events", () => {
  test("is reported, and the time of what was lost is in no op", () => {
    const events = layerStep(1, 5000).filter((event) => !(event.op === 3 && event.kind === "work"));
    const profile = profileOf(LAYER_OPS, events, 2);
    expect(profile.lostEvents).toBe(2);
    expect(profile.byOp.map((row) => row.name)).not.toContain("head");
    expect(profile.unattributed.totalNs).toBe(20 + 159);
    expect(sumOfRows(profile, profile.byOp)).toBe(330);
  });

  test("adds up what it lost over the drains", () => {
    const profiler = new Profiler(LAYER_OPS);
    profiler.drain(encode(layerStep(1, 5000)), 3);
    profiler.drain(new Uint8Array(0), 4);
    expect(profiler.result().lostEvents).toBe(7);
  });

  test("leaves out a step whose own event is missing, and counts it", () => {
    const profile = profileOf(LAYER_OPS, [...layerStep(1, 5000).slice(0, -1), ...layerStep(2, 6000)]);
    expect(profile.incompleteSteps).toBe(1);
    expect(profile).toEqual({ ...profileOf(LAYER_OPS, layerStep(2, 6000)), incompleteSteps: 1 });
  });

  test("leaves out a step of which only its own event is left, and counts it", () => {
    const profile = profileOf(LAYER_OPS, [...layerStep(1, 5000), ...layerStep(2, 6000).slice(-1)]);
    expect(profile).toEqual({ ...profileOf(LAYER_OPS, layerStep(1, 5000)), incompleteSteps: 1 });
  });

  test("counts a left-out step also when its place is needed, and what still comes of it", () => {
    const own = layerStep(1, 5000).slice(-1);
    const late: TestEvent = { kind: "work", thread: 1, op: 0, start: 5000, end: 5100 };
    const profiler = new Profiler(LAYER_OPS, { openSteps: 1 });
    profiler.drain(encode([...own, late, ...layerStep(2, 6000).slice(0, 3), ...layerStep(3, 7000)]));
    const profile = profiler.result();
    expect(profile).toEqual({ ...profileOf(LAYER_OPS, layerStep(3, 7000)), incompleteSteps: 2, lateEvents: 1 });
  });
});

describe("a profiler", () => {
  test("counts events that no engine should write, and puts them in no row", () => {
    const events: TestEvent[] = [
      { kind: 8, start: 5010, end: 5020 },
      { kind: "work", op: 4, start: 5010, end: 5020 },
      { kind: "work", start: 5010, end: 5020 }, // work of no op
      { kind: "work", op: 0, start: 5020, end: 5010 },
      { kind: "step", thread: 1, start: 5000, end: 5330 },
    ];
    const profile = profileOf(LAYER_OPS, [...events, ...layerStep(1, 5000)]);
    expect(profile).toEqual({ ...profileOf(LAYER_OPS, layerStep(1, 5000)), malformedEvents: events.length });
  });

  test("sums an op's events when a thread wrote several in one step", () => {
    const profile = profileOf(opList([{ bytesPerStep: 100 }]), [
      { kind: "work", op: 0, start: 100, end: 110 },
      { kind: "work", op: 0, start: 120, end: 150 },
      { kind: "step", start: 100, end: 160 },
    ]);
    expect(profile.byOp[0]).toMatchObject({ count: 1, totalNs: 40, maxNs: 50, wallNs: 50, bytes: 100 });
  });

  test("does not gather the engine thread's idle time between steps", () => {
    const idle: TestEvent[] = Array.from({ length: 300_000 }, (_, index) => ({
      kind: "idle",
      step: 1,
      start: 6000 + index,
      end: 6001 + index,
    }));
    const profile = profileOf(LAYER_OPS, [...layerStep(1, 5000), ...idle]);
    expect(profile.malformedEvents).toBe(0);
    expect(profile.threads[0]?.recordedIdleNs).toBe(300_000);
    expect(profile.idle.totalNs).toBe(0);
  });

  test("takes in the events of many threads", () => {
    const events: TestEvent[] = Array.from({ length: 200 }, (_, thread) => ({
      kind: "work" as const,
      op: 0,
      thread,
      start: 1000 - thread,
      end: 2000 + thread,
    }));
    const profile = profileOf(opList([{}]), [...events, { kind: "step", start: 900, end: 2100 }]);
    expect(profile.threads.map((row) => row.busyNs)).toEqual(
      Array.from({ length: 200 }, (_, thread) => 1000 + 2 * thread),
    );
    expect(profile.byOp[0]?.wallNs).toBe(1398);
  });

  test("says that nothing was profiled when nothing was", () => {
    const profile = new Profiler(LAYER_OPS).result();
    expect(profile).toMatchObject({ totalTime: 0, spanNs: 0, rows: 0, attributedShare: 0, byOp: [], threads: [] });
    expect(profile.steps.count).toBe(0);
    expect(JSON.parse(JSON.stringify(profile))).toEqual(profile);
  });

  test("forgets everything on reset", () => {
    const profiler = new Profiler(LAYER_OPS);
    profiler.drain(encode([...layerStep(1, 5000), ...layerStep(2, 6000).slice(0, 5)]), 9);
    profiler.reset();
    expect(profiler.result()).toEqual(new Profiler(LAYER_OPS).result());
    // A new engine's second step is not the one that was under way.
    profiler.drain(encode(layerStep(2, 6020)));
    expect(profiler.result()).toEqual(profileOf(LAYER_OPS, layerStep(1, 5000)));
  });

  test("refuses a cut event, an op list out of order, and a bad option, and says what to pass", () => {
    expect(() => new Profiler(LAYER_OPS).drain(new Uint8Array(33))).toThrow(
      /33 bytes are not a whole number of events/,
    );
    expect(() => new Profiler([...LAYER_OPS].reverse())).toThrow(/ops\[0\]\.index: 3 \(head\)/);
    for (const openSteps of [0, 1.5, -1, Number.NaN, 2 ** 20]) {
      expect(() => new Profiler(LAYER_OPS, { openSteps })).toThrow(/options\.openSteps/);
    }
  });

  test("does not grow with the number of events", () => {
    const profiler = new Profiler(LAYER_OPS);
    const stepEvents = layerStep(0, 0).length;
    const batch = 1000;
    const feed = (first: number): void => {
      const events: TestEvent[] = [];
      for (let step = first; step < first + batch; step++) events.push(...layerStep(step, step * 400));
      profiler.drain(encode(events));
    };
    const retained = (): { bytes: number; objects: number } => {
      Bun.gc(true);
      const { heapSize, extraMemorySize, objectCount } = heapStats();
      return { bytes: heapSize + extraMemorySize, objects: objectCount };
    };
    let step = 1;
    const feedEvents = (count: number): void => {
      const until = step + Math.ceil(count / stepEvents);
      for (; step < until; step += batch) feed(step);
    };
    feedEvents(100_000);
    const before = retained();
    feedEvents(1_000_000);
    const after = retained();
    expect(profiler.result().steps.count).toBe(step - 1);
    // A million events are 32 MB; one retained object an event would be a million objects.
    expect(after.objects - before.objects).toBeLessThan(20_000);
    expect(after.bytes - before.bytes).toBeLessThan(2_000_000);
  });
});
