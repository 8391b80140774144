// How often something is measured, by iterations whose times are known: they need not take them.

import { describe, expect, test } from "bun:test";
import { type IterationSettings, type Iterations, type Timed, takeIterations } from "../../src/benchmark/iterations.ts";
import { iterationWarnings } from "../../src/benchmark/sample-warnings.ts";
import { precisionOf } from "../../src/benchmark/statistics/describe.ts";
import { seededRandom } from "../../src/benchmark/statistics/random.ts";

const untilPrecise: IterationSettings = { iterations: null, time_s: null, precision: 0.02, warmup: 0 };

/** Iterations that say they took so long; the last time repeats, around which there is some noise. */
function iterationsOf(timesMs: readonly number[], noise = 0.001) {
  const random = seededRandom(7);
  let done = 0;
  return async (): Promise<Timed> => {
    const latencyMs = (timesMs[Math.min(done, timesMs.length - 1)] ?? 0) * (1 + noise * (random() - 0.5));
    done++;
    return { latencyMs };
  };
}

describe("iterations", () => {
  test("are as many as asked for, behind those that warm up", async () => {
    const settings = { ...untilPrecise, iterations: 25, warmup: 4 };
    const { samples, warmup, ended } = await takeIterations(iterationsOf([100, 90, 80, 70, 10], 0), settings);
    expect(samples.map(({ latencyMs }) => latencyMs)).toEqual(Array.from({ length: 25 }, () => 10));
    expect(warmup.iterations).toBe(4);
    expect(ended).toBe("count");
  });

  test("go on until the mean is known well enough, and no longer than that takes", async () => {
    const { samples, ended } = await takeIterations(iterationsOf([10], 0.5), untilPrecise);
    const timesMs = samples.map(({ latencyMs }) => latencyMs);
    expect(ended).toBe("precision");
    expect(precisionOf(timesMs)).toBeLessThanOrEqual(0.02);
    // Even noise within ± 25 % has a standard deviation of 14.4 %, which takes (1.96 · 14.4 / 2)² ≈ 200 iterations.
    expect(timesMs.length).toBeGreaterThan(100);
    expect(timesMs.length).toBeLessThan(350);
    const steady = await takeIterations(iterationsOf([10]), untilPrecise);
    expect(steady.samples.length).toBe(10);
  });

  test("end when the time is over", async () => {
    const iterate = async () => {
      await Bun.sleep(5);
      return { latencyMs: 5 };
    };
    const settings = { ...untilPrecise, precision: 0, time_s: 0.1 };
    const { samples, ended } = await takeIterations(iterate, settings);
    expect(ended).toBe("time");
    expect(samples.length).toBeWithin(1, 21);
  });

  test("warm up until their times are steady", async () => {
    const falling = Array.from({ length: 12 }, (_, index) => 100 / (index + 1));
    const { samples, warmup } = await takeIterations(iterationsOf([...falling, 5]), { ...untilPrecise, warmup: null });
    expect(warmup.steady).toBe(true);
    expect(warmup.iterations).toBeGreaterThanOrEqual(12);
    expect(Math.max(...samples.map(({ latencyMs }) => latencyMs))).toBeLessThan(5.01);
  });

  test("are said not to be steady where the warm-up that was asked for was too short", async () => {
    const falling = Array.from({ length: 100 }, (_, index) => 1000 * 0.95 ** index);
    const settings = { ...untilPrecise, iterations: 50, warmup: 2 };
    expect((await takeIterations(iterationsOf(falling), settings)).warmup.steady).toBe(false);
    expect((await takeIterations(iterationsOf([10]), settings)).warmup.steady).toBe(true);
  });

  test("that an abort ends keep what was measured", async () => {
    const controller = new AbortController();
    const { signal } = controller;
    let done = 0;
    const iterate = async () => {
      if (++done === 8) controller.abort(new Error("enough"));
      signal.throwIfAborted();
      return { latencyMs: done };
    };
    const settings = { ...untilPrecise, iterations: 100, warmup: 3 };
    const { samples, ended } = await takeIterations(iterate, settings, { signal });
    expect(samples.map(({ latencyMs }) => latencyMs)).toEqual([4, 5, 6, 7]);
    expect(ended).toBe("signal");
  });

  test("fail with what an iteration fails with", async () => {
    const iterate = () => Promise.reject(new Error("no memory"));
    await expect(takeIterations(iterate, untilPrecise)).rejects.toThrow("no memory");
  });

  test("say how far they are, and that it is warm", async () => {
    const shares: number[] = [];
    let warm = 0;
    await takeIterations(
      iterationsOf([10]),
      { ...untilPrecise, iterations: 5, warmup: 3 },
      {
        onWarm: () => warm++,
        onProgress: (share) => shares.push(share),
      },
    );
    expect(shares).toEqual([0.2, 0.4, 0.6, 0.8]);
    expect(warm).toBe(1);
  });
});

describe("warnings", () => {
  const taken = (timesMs: readonly number[], changes: Partial<Iterations<Timed>> = {}): Iterations<Timed> => ({
    samples: timesMs.map((latencyMs) => ({ latencyMs })),
    warmup: { iterations: 10, steady: true },
    ended: "count",
    ...changes,
  });
  const noisy = (count: number, noise: number, at: (index: number) => number = () => 10) => {
    const random = seededRandom(3);
    return Array.from({ length: count }, (_, index) => at(index) * (1 + noise * (random() - 0.5)));
  };
  const settings = { ...untilPrecise, iterations: 200 };
  const warningsOf = (iterations: Iterations<Timed>, changes: Partial<IterationSettings> = {}) =>
    iterationWarnings(iterations, { ...settings, ...changes });

  test("there are none of times that are many, steady and independent", () => {
    expect(warningsOf(taken(noisy(200, 0.05)))).toEqual([]);
  });

  const amiss: Readonly<Record<string, readonly [said: string, Iterations<Timed>, Partial<IterationSettings>?]>> = {
    "too few for a mean": ["4 iterations are too few for a mean", taken(noisy(4, 0.01))],
    "too few for the highest percentile": ["of 40 iterations the 99th percentile", taken(noisy(40, 0.01))],
    "a short warm-up": [
      "had not become steady after 1 iteration of warming up",
      taken(noisy(200, 0.01), { warmup: { iterations: 1, steady: false } }),
    ],
    noise: ["the times vary by", taken(noisy(200, 1))],
    "a drift": ["the times rose by 1", taken(noisy(200, 0.05, (index) => 10 + index / 100))],
    "times that are like the ones before": [
      "each time is like the one before, so that 200 iterations say as much as",
      taken(noisy(200, 0.01, (index) => 10 + Math.sin(index / 5))),
    ],
    "a time that was too short for as many as were asked for": [
      "150 of 200 iterations were measured: the time was over",
      taken(noisy(150, 0.05), { ended: "time" }),
      { time_s: 1 },
    ],
    "a mean that the time was too short for": [
      "not to 0.5 %: the time was over",
      taken(noisy(120, 0.3), { ended: "time" }),
      { iterations: null, precision: 0.005 },
    ],
  };
  test.each(Object.keys(amiss))("name %s", (name) => {
    const [said = "", iterations = taken([]), changes] = amiss[name] ?? [];
    expect(warningsOf(iterations, changes).join("\n")).toContain(said);
  });
});
