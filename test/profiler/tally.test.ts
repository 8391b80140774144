// Sums of steps' time by kind, beside the profile of the same events.

import { expect, test } from "bun:test";
import { Profiler } from "../../profiler/index.ts";
import { StepTally } from "../../profiler/tally.ts";
import { Random } from "../support/random.ts";
import { encode, opList, randomStep, type TestEvent } from "./stream.ts";

const OPS = opList([{ kind: "norm" }, { kind: "matmul" }, { kind: "attention" }, { kind: "matmul" }, { kind: "rope" }]);
/** Beyond the 32 bits of a time's low word. */
const BEGIN = 2 ** 32 * 77 - 40_000;

/** The engine thread's events of `count` steps, one after the other. */
function steps(count: number): TestEvent[] {
  const random = new Random(3);
  const events: TestEvent[] = [];
  let at = BEGIN;
  for (let step = 1; step <= count; step++) {
    const made = randomStep(random, OPS.length, step, at);
    events.push(...made.events.filter(({ thread = 0 }) => thread === 0));
    at = made.end + 10;
  }
  return events;
}

test("a tally of steps has the sums that a profile of them has, however the events are cut into pieces", () => {
  const events = steps(40);
  const profiler = new Profiler(OPS);
  profiler.drain(encode(events));
  const { byKind, waiting, sampling, copying, engine, unattributed, steps: all } = profiler.result();
  const tally = new StepTally(OPS);
  const random = new Random(4);
  for (let from = 0; from < events.length; ) {
    const to = from + 1 + random.below(30);
    tally.add(encode(events.slice(from, to)));
    from = to;
  }
  const taken = tally.take();
  expect(taken.steps).toBe(40);
  expect(taken.totalMs).toBeCloseTo(all.totalNs / 1e6, 9);
  expect(Object.keys(taken.byKind).sort()).toEqual(["attention", "matmul", "norm", "rope"]);
  for (const { kind, totalNs } of byKind) expect(taken.byKind[kind]).toBeCloseTo(totalNs / 1e6, 9);
  expect(taken.waitingMs).toBeCloseTo(waiting.totalNs / 1e6, 9);
  expect(taken.samplingMs).toBeCloseTo(sampling.totalNs / 1e6, 9);
  expect(taken.otherMs).toBeCloseTo((copying.totalNs + engine.totalNs + unattributed.totalNs) / 1e6, 9);
  expect(tally.take()).toEqual({ steps: 0, totalMs: 0, byKind: {}, waitingMs: 0, samplingMs: 0, otherMs: 0 });
});

test("a step counts when its own event comes, and one whose event was lost does not count", () => {
  const tally = new StepTally(OPS);
  const [first, second, third] = [1, 2, 3].map((step) => steps(3).filter((event) => event.step === step));
  tally.add(encode(first?.slice(0, -1) ?? []));
  expect(tally.take().steps).toBe(0);
  // The end of the first is lost, and the beginning of the third comes with the second.
  tally.add(encode([...(second ?? []), ...(third?.slice(0, 3) ?? [])]));
  const alone = new StepTally(OPS);
  alone.add(encode(second ?? []));
  expect(tally.take()).toEqual(alone.take());
});
