// JavaScript's share over a clock that the tests move: times of one kind never overlap another's, whatever is nested or
// interleaved, and pauses of the collector are taken out of what they fell into.

import { expect, test } from "bun:test";
import fc from "fast-check";
import { type Collections, JavaScriptRecorder } from "../../profiler/javascript.ts";
import { JavaScriptWork } from "../../profiler/javascript-work.ts";
import type { JavaScriptRow, JavaScriptShare } from "../../profiler/report.ts";

interface Stage {
  nowNs: number;
  readonly recorder: JavaScriptRecorder;
  readonly collections: Collections & { count: number; endedNs: number; lent: number };
  /** What runs when the thread goes back to the event loop. */
  readonly turnEnds: (() => void)[];
}

function stage(spansMax?: number): Stage {
  const collections = {
    count: 0,
    endedNs: 0,
    lent: 0,
    lend() {
      this.lent++;
    },
  };
  const turnEnds: (() => void)[] = [];
  const made: { nowNs: number } & Partial<Stage> = { nowNs: 1000, collections, turnEnds };
  const recorder = new JavaScriptRecorder({
    nowNs: () => made.nowNs,
    collections,
    spansMax,
    afterTurn: (callback) => turnEnds.push(callback),
  });
  return Object.assign(made, { recorder }) as Stage;
}

function row(share: Pick<JavaScriptShare, "rows">, name: JavaScriptRow["name"]): JavaScriptRow {
  const found = share.rows.find((candidate) => candidate.name === name);
  if (!found) throw new Error(`there is no row ${name}`);
  return found;
}

function work(at: Stage, name: keyof typeof JavaScriptWork, ns: number): void {
  at.recorder.enter(JavaScriptWork[name]);
  at.nowNs += ns;
  at.recorder.leave();
}

test("what runs inside other work is not in that work's time", () => {
  const at = stage();
  at.recorder.enter(JavaScriptWork.records);
  at.nowNs += 10;
  work(at, "profiling", 100);
  at.nowNs += 5;
  work(at, "submitting", 30);
  at.recorder.leave();
  at.nowNs += 1000;
  const share = at.recorder.result();
  expect(row(share, "records")).toEqual({ name: "records", count: 1, totalNs: 15, p50Ns: 15, p99Ns: 15, maxNs: 15 });
  expect(row(share, "profiling").totalNs).toBe(100);
  expect(row(share, "submitting").totalNs).toBe(30);
  expect(share.wallNs).toBe(1145);
  expect(share.cpuNs).toBeNull();
});

test("a consumer's time is from the handing over to the asking, without what other sequences do meanwhile", () => {
  const at = stage();
  const first = at.recorder.handOver();
  at.nowNs += 7;
  work(at, "detokenizing", 50);
  const second = at.recorder.handOver();
  at.nowNs += 3;
  at.recorder.takeBack(first);
  at.nowNs += 2;
  at.recorder.takeBack(second);
  at.nowNs += 400;
  expect(row(at.recorder.result(), "consumer")).toMatchObject({ count: 1, totalNs: 12 });
  expect(at.turnEnds).toHaveLength(1);
});

test("a consumer that waits is counted until the thread goes back to the event loop", () => {
  const at = stage();
  const turn = at.recorder.handOver();
  at.nowNs += 20;
  for (const ended of at.turnEnds.splice(0)) ended();
  at.nowNs += 5000;
  at.recorder.takeBack(turn);
  at.nowNs += 5;
  const share = at.recorder.result();
  expect(row(share, "consumer")).toMatchObject({ count: 1, totalNs: 20 });
  // The next piece is held in another turn, which the late asking of the first must not end.
  at.recorder.handOver();
  at.recorder.takeBack(turn);
  at.nowNs += 9;
  at.recorder.endTurn();
  expect(row(at.recorder.result(), "consumer")).toMatchObject({ count: 2, totalNs: 29 });
});

test("callers that never wait cost no callback, and the first wait of one is not counted", () => {
  const at = stage();
  const ask = (ns: number) => {
    const turn = at.recorder.handOver();
    at.nowNs += ns;
    at.recorder.takeBack(turn);
    for (const ended of at.turnEnds.splice(0)) ended();
    at.recorder.endTurn();
  };
  for (let piece = 0; piece < 16; piece++) ask(5);
  at.recorder.handOver();
  expect(at.turnEnds).toHaveLength(0);
  at.nowNs += 1000;
  at.recorder.endTurn();
  expect(row(at.recorder.result(), "consumer")).toMatchObject({ count: 16, totalNs: 80 });
  at.recorder.handOver();
  expect(at.turnEnds).toHaveLength(1);
  at.nowNs += 30;
  for (const ended of at.turnEnds.splice(0)) ended();
  at.nowNs += 1000;
  expect(row(at.recorder.result(), "consumer")).toMatchObject({ count: 17, totalNs: 110 });
});

test("more pieces than wait to be looked at are all in the rows and spans", () => {
  const pieces = 40_000;
  const at = stage(pieces + 1000);
  for (let piece = 1; piece <= pieces; piece++) work(at, "records", piece);
  const { count, totalNs, maxNs } = row(at.recorder.result(), "records");
  expect([count, totalNs, maxNs]).toEqual([pieces, (pieces * (pieces + 1)) / 2, pieces]);
  expect(at.recorder.spans.map(({ startNs, endNs }) => endNs - startNs)).toEqual(
    Array.from({ length: pieces }, (_, piece) => piece + 1),
  );
});

test("any nesting and interleaving adds up to the time in which something was under way", () => {
  const steps = fc.array(
    fc.record({
      what: fc.constantFrom("enter", "leave", "hand", "take", "turn"),
      ns: fc.integer({ min: 0, max: 1e6 }),
    }),
    { maxLength: 200 },
  );
  fc.assert(
    fc.property(steps, (list) => {
      const at = stage();
      const turns: number[] = [];
      let depth = 0;
      let holders = 0;
      let turn = 0;
      let busyNs = 0;
      let heldNs = 0;
      let prompt = 0;
      let asked = false;
      for (const { what, ns } of list) {
        if (what === "enter") {
          at.recorder.enter(depth % 2 === 0 ? JavaScriptWork.records : JavaScriptWork.submitting);
          depth++;
        } else if (what === "leave" && depth > 0) {
          at.recorder.leave();
          depth--;
        } else if (what === "hand") {
          turns.push(at.recorder.handOver());
          holders++;
          asked ||= prompt < 16;
        } else if (what === "take" && turns.length > 0) {
          const taken = turns.shift() ?? 0;
          at.recorder.takeBack(taken);
          if (taken === turn && holders > 0 && --holders === 0) {
            busyNs += heldNs;
            heldNs = 0;
            prompt++;
          }
        } else if (what === "turn") {
          at.recorder.endTurn();
          turn++;
          if (holders > 0) prompt = 0;
          if (asked) busyNs += heldNs;
          heldNs = 0;
          holders = 0;
          asked = false;
        }
        at.nowNs += ns;
        if (depth > 0) busyNs += ns;
        else if (holders > 0) heldNs += ns;
      }
      while (depth-- > 0) at.recorder.leave();
      at.recorder.endTurn();
      if (asked) busyNs += heldNs;
      const share = at.recorder.result();
      expect(share.rows.reduce((sum, { totalNs }) => sum + totalNs, 0)).toBe(busyNs);
      expect(busyNs).toBeLessThanOrEqual(share.wallNs);
    }),
  );
});

test("a pause is what a piece of work took beyond its kind's median, and not in that kind's time", () => {
  const at = stage(100);
  for (let index = 0; index < 20; index++) work(at, "detokenizing", 100);
  at.recorder.enter(JavaScriptWork.detokenizing);
  at.nowNs += 2100;
  Object.assign(at.collections, { count: 1, endedNs: at.nowNs - 50 });
  at.recorder.leave();
  const share = at.recorder.result();
  expect(row(share, "garbageCollection")).toMatchObject({ count: 1, totalNs: 2000, maxNs: 2000 });
  expect(row(share, "detokenizing")).toMatchObject({ count: 21, totalNs: 2100, maxNs: 100 });
  expect(share.garbageCollection).toStartWith("1 collection was noticed");
  expect(at.recorder.spans.filter(({ name }) => name === "garbageCollection")).toEqual([
    { name: "garbageCollection", startNs: at.nowNs - 2050, endNs: at.nowNs - 50 },
  ]);
  // Once to begin with, once after what was noticed.
  expect(at.collections.lent).toBe(2);
});

test("a collection in idle time, or in work that is not known well, is noticed and not timed", () => {
  const at = stage();
  for (let index = 0; index < 3; index++) work(at, "tokenizing", 100);
  at.recorder.enter(JavaScriptWork.tokenizing);
  at.nowNs += 9000;
  Object.assign(at.collections, { count: 1, endedNs: at.nowNs - 10 });
  at.recorder.leave();
  at.nowNs += 1e6;
  Object.assign(at.collections, { count: 2, endedNs: at.nowNs - 10 });
  const share = at.recorder.result();
  expect(row(share, "garbageCollection").count).toBe(0);
  expect(row(share, "tokenizing").totalNs).toBe(9300);
  expect(share.garbageCollection).toContain("2 collections were noticed");
  expect(share.garbageCollection).toContain("2 fell elsewhere");
});

test("a collection belongs to the work that it fell into, also where it is noticed after that", () => {
  const at = stage();
  for (let index = 0; index < 20; index++) work(at, "tokenizing", 100);
  at.recorder.enter(JavaScriptWork.records);
  at.nowNs += 40;
  at.recorder.enter(JavaScriptWork.tokenizing);
  at.nowNs += 600;
  Object.assign(at.collections, { count: 1, endedNs: at.nowNs - 10 });
  at.recorder.leave();
  at.nowNs += 60;
  at.recorder.leave();
  const share = at.recorder.result();
  expect(row(share, "garbageCollection")).toMatchObject({ count: 1, totalNs: 500 });
  expect(row(share, "tokenizing")).toMatchObject({ count: 21, totalNs: 2100 });
  expect(row(share, "records")).toMatchObject({ count: 1, totalNs: 100 });
});

test("spans are kept up to a bound, and those beyond it are counted", () => {
  const at = stage(2);
  for (let index = 0; index < 5; index++) work(at, "records", 10);
  expect(at.recorder.spans).toEqual([
    { name: "records", startNs: 1000, endNs: 1010 },
    { name: "records", startNs: 1010, endNs: 1020 },
  ]);
  expect(at.recorder.spansDropped).toBe(3);
});

test("leaving what was not entered is an error", () => {
  expect(() => stage().recorder.leave()).toThrow("nothing was entered");
});

test("without a watch of collections there is no row for pauses, and the share says why", () => {
  const share = new JavaScriptRecorder({ nowNs: () => 0 }).result();
  expect(share.rows.map(({ name }) => name)).not.toContain("garbageCollection");
  expect(share.garbageCollection).toContain("not watched");
});
