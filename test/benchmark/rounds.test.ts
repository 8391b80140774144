// Measuring in turns, of made-up things whose samples say in which turn they were taken.

import { expect, test } from "bun:test";
import { divide, shortOfSamples } from "../../src/benchmark/part.ts";
import { metrics, type Settings } from "../../src/benchmark/results.ts";
import { takeRounds } from "../../src/benchmark/rounds.ts";
import { statisticsOf } from "../../src/benchmark/statistics/describe.ts";
import { seededRandom } from "../../src/benchmark/statistics/random.ts";

/** Things that note who was measured when. */
function noted(count: number, order: number[], then: () => void = () => {}) {
  return Array.from({ length: count }, (_, place) => () => {
    order.push(place);
    then();
    return order.length;
  });
}

test("each round has one sample of each thing, in an order that the seed draws", async () => {
  const orders = [1, 1, 2].map(async (seed) => {
    const order: number[] = [];
    const takes = noted(4, order);
    const samples = await takeRounds(takes, { rounds: 6, timeMs: 60_000, random: seededRandom(seed) });
    expect(samples.map(({ length }) => length)).toEqual([6, 6, 6, 6]);
    for (let round = 0; round < 6; round++) {
      expect(order.slice(4 * round, 4 * round + 4).sort()).toEqual([0, 1, 2, 3]);
      // A sample is the number of samples by then.
      for (const [place, of] of samples.entries()) expect(order[(of[round] ?? 0) - 1]).toBe(place);
    }
    return order.join("");
  });
  const [first, again, other] = await Promise.all(orders);
  expect(again).toBe(first as string);
  expect(other).not.toBe(first as string);
});

test("an interruption keeps the rounds that were whole", async () => {
  // While a sample is taken it may end early: also the last one of a round is none then.
  for (const last of [7, 8, 9]) {
    const controller = new AbortController();
    const order: number[] = [];
    const takes = noted(3, order, () => order.length === last && controller.abort());
    const { signal } = controller;
    const samples = await takeRounds(takes, { rounds: 9, timeMs: 60_000, random: seededRandom(1), signal });
    expect(samples.map(({ length }) => length)).toEqual([2, 2, 2]);
    expect(order).toHaveLength(last);
  }
});

test("no round begins that would end after the time, but for the first", async () => {
  const slow = () => Bun.sleep(30).then(() => 1);
  const options = { rounds: 50, random: seededRandom(1) };
  expect(await takeRounds([slow], { ...options, timeMs: 1 })).toEqual([[1]]);
  const [samples = []] = await takeRounds([slow], { ...options, timeMs: 200 });
  expect(samples.length).toBeWithin(1, 7);
});

test("slices of all things and rounds fit into the time", async () => {
  const slices: number[] = [];
  const take = (sliceMs: number) => slices.push(sliceMs);
  await takeRounds([take, take], { rounds: 5, timeMs: 1000, random: seededRandom(1) });
  const sum = slices.reduce((total, slice) => total + slice, 0);
  expect(sum).toBeWithin(500, 1000);
});

test("a benchmark's parts share its time and its progress by their plan", () => {
  const settings: Settings = {
    iterations: null,
    time_s: 20,
    precision: 0.02,
    warmup: null,
    batch_sizes: [1],
    metrics,
    prompt_tokens: 1,
    generated_tokens: 1,
    threads: null,
    simd: null,
    seed: 7,
  };
  const told: [number, string][] = [];
  const context = {
    model: undefined,
    settings,
    onProgress: (share: number, doing: string) => told.push([share, doing]),
  };
  const plan = { one: { share: 0.75, doing: "one thing" }, two: { share: 0.25, doing: "another" } } as const;
  const { one, two } = divide(context, plan, 40);
  expect([one.timeMs, two.timeMs, one.rounds, two.seed]).toEqual([15_000, 5000, 10, 7]);
  one.onProgress?.(0.5);
  two.onProgress?.(1);
  expect(told).toEqual([
    [0.375, "one thing"],
    [1, "another"],
  ]);
  // Without a limit, many rounds have as much time each as a hundred have.
  const unlimited = divide({ ...context, settings: { ...settings, time_s: null, iterations: 1000 } }, plan, 40);
  expect(unlimited.one.timeMs).toBe(300_000);
});

test("fewer samples than were asked for are told", () => {
  const three = statisticsOf([1, 2, 3]);
  expect(shortOfSamples("disk", three, { iterations: 4 })).toEqual([
    "disk: 3 of 4 samples were taken: its part of the time was over (--time)",
  ]);
  expect(shortOfSamples("disk", three, { iterations: 3 })).toEqual([]);
  expect(shortOfSamples("disk", three, { iterations: null })).toEqual([]);
  // What was not measured at all is told elsewhere.
  expect(shortOfSamples("disk", undefined, { iterations: 4 })).toEqual([]);
});

test("what fails since the program is to end keeps the rounds that were whole; any other failure is one", async () => {
  const controller = new AbortController();
  let taken = 0;
  const take = () => {
    taken++;
    if (taken === 3) {
      controller.abort();
      throw new Error("it has gone");
    }
    return taken;
  };
  const options = { rounds: 5, timeMs: 60_000, random: seededRandom(1) };
  expect(await takeRounds([take], { ...options, signal: controller.signal })).toEqual([[1, 2]]);
  const failing = takeRounds([() => Promise.reject(new Error("it has gone"))], options);
  await expect(failing).rejects.toThrow("it has gone");
});
