// Samples and events of a monitor: what they say of real requests, at which intervals they come, who gets how many, and what ends them.

import { afterAll, describe, expect, test } from "bun:test";
import { complete, encodePrompt, streamTokens } from "../../src/generate/generate.ts";
import { checkGenerateOptions } from "../../src/generate/options.ts";
import {
  createPerformanceAnalysis,
  type GenerateOptions,
  loadModel,
  type MonitorSample,
  type Monitor as MonitorType,
  OptionError,
  type RequestMetrics,
} from "../../src/index.ts";
import { Monitor, type MonitoredModel } from "../../src/profiling/monitor.ts";
import { runScript } from "../engine/support.ts";
import { opList } from "../profiler/stream.ts";
import { neverResting } from "../support/busy-engine.ts";
import { openEngine } from "../support/engine.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyEncoder } from "../support/tiny-encoder.ts";
import { writeTinyModel } from "../support/tiny-model.ts";

const folder = temporaryFolder();
const path = folder.file("tiny.gguf");
writeTinyModel(path, { architecture: "gemma3", layers: 6, context: 512, dtype: "Q8_0" });
const encoderPath = folder.file("encoder.gguf");
writeTinyEncoder(encoderPath);
const load = () => loadModel(path, { threads: { count: 2 }, prepared: false });
const model = await load();
afterAll(() => model.close());

const options: GenerateOptions = { temperature: 0, maxLength: 50, ignoreEos: true, cachePrompt: false };

/** Reads `count` samples, once `begun` has been called when it reads. */
async function read(monitor: MonitorType, count: number): Promise<MonitorSample[]> {
  const samples: MonitorSample[] = [];
  for await (const sample of monitor) if (samples.push(sample) === count) break;
  return samples;
}

describe("samples of a monitor", () => {
  test("have all tokens, texts and requests between them, each in one, and say where steps spent their time", async () => {
    using monitor = model.monitor({ intervalMs: 20 });
    const samples: MonitorSample[] = [];
    const end = monitor.on("sample", (sample) => samples.push(sample));
    const results = await model.generate(["hello", "once upon a time"], options);
    await model.score("once upon a time");
    const enough = () => samples.reduce((sum, { requests }) => sum + requests, 0) === 3;
    while (!enough()) await Bun.sleep(5);
    end();
    const taken = samples.length;
    const sum = (of: (sample: MonitorSample) => number) => samples.reduce((all, sample) => all + of(sample), 0);
    expect(sum(({ tokensPerSecond, spanMs }) => (tokensPerSecond * spanMs) / 1000)).toBeCloseTo(100, 6);
    expect(sum(({ textsPerSecond, spanMs }) => (textsPerSecond * spanMs) / 1000)).toBeCloseTo(1, 6);
    const { profile } = monitor.everything();
    const times = samples.map(({ executionTime }) => executionTime);
    const total = (of: (time: NonNullable<(typeof times)[number]>) => number) =>
      times.reduce((all, time) => all + (time ? of(time) : 0), 0);
    expect(total(({ steps }) => steps)).toBe(profile.steps.count);
    expect(total(({ totalMs }) => totalMs)).toBeCloseTo(profile.totalTime, 6);
    for (const { kind, totalNs } of profile.byKind) {
      expect(total(({ byKind }) => byKind[kind] ?? 0)).toBeCloseTo(totalNs / 1e6, 6);
    }
    expect(total(({ waitingMs }) => waitingMs)).toBeCloseTo(profile.waiting.totalNs / 1e6, 6);
    const first = samples.filter(({ firstTokenTime }) => firstTokenTime !== null);
    expect(first.length).toBeGreaterThan(0);
    for (const { firstTokenTime } of first) {
      expect(firstTokenTime ?? 0).toBeLessThan(Math.max(...results.map(({ timings }) => timings.wallMs)) * 1.001);
    }
    for (const { residentBytes, heapBytes, nativeBytes, cacheUsage, missed, eventsLost } of samples) {
      expect(Math.min(residentBytes, heapBytes, nativeBytes)).toBeGreaterThan(1e5);
      expect([cacheUsage, missed, eventsLost]).toEqual([null, 0, 0]);
    }
    // Nobody hears of samples any more, so none are taken.
    await Bun.sleep(60);
    expect(samples.length).toBe(taken);
  });

  test("of an encoder tell texts a second", async () => {
    await using encoder = await loadModel(encoderPath, { threads: { count: 1 } });
    using monitor = encoder.monitor({ intervalMs: 10 });
    const reading = read(monitor, 3);
    await encoder.embed(["one", "two", "three", "four"]);
    const samples = await reading;
    const texts = samples.reduce((sum, { textsPerSecond, spanMs }) => sum + (textsPerSecond * spanMs) / 1000, 0);
    expect(texts).toBeCloseTo(4, 6);
    expect(samples.every(({ tokensPerSecond }) => tokensPerSecond === 0)).toBe(true);
  });

  test("come at the interval that is set last, whatever that of an analysis is", async () => {
    await using other = await load();
    const beganMs = performance.now();
    await using analysis = createPerformanceAnalysis({ sampleIntervalMs: 40 });
    using first = other.monitor({ intervalMs: 3_600_000 });
    const samples = { first: 0, second: 0 };
    first.on("sample", () => samples.first++);
    other.setMonitoringInterval(10);
    using second = other.monitor();
    second.on("sample", () => samples.second++);
    using own = other.monitor({ intervalMs: 500 });
    expect([first.intervalMs, second.intervalMs, own.intervalMs]).toEqual([10, 10, 500]);
    while (Math.min(samples.first, samples.second) < 12) await Bun.sleep(10);
    other.setMonitoringInterval(3_600_000);
    const ended = { ...samples };
    const report = folder.file("analysis.json");
    await Bun.sleep(100);
    await analysis.generateReport(report);
    const { system } = await Bun.file(report).json();
    // Beside those of its beginning and end, one each 40 ms at most.
    const { length } = system.samples;
    expect(length).toBeGreaterThan(3);
    expect(length).toBeLessThanOrEqual((performance.now() - beganMs) / 40 + 3);
    expect(samples).toEqual(ended);
  });

  test("go to every reader; who is slow misses the oldest, and is told how many", async () => {
    const { monitor, tick } = playedMonitor(await openEngine(path));
    const quick = read(monitor, 100);
    const iterator = monitor[Symbol.asyncIterator]();
    const first = iterator.next();
    for (let sample = 0; sample < 100; sample++) {
      tick();
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect((await quick).every(({ missed }) => missed === 0)).toBe(true);
    expect((await first).value?.missed).toBe(0);
    monitor.close();
    const missed: number[] = [];
    for await (const sample of iterator) missed.push(sample.missed);
    // 99 came meanwhile, of which 64 wait at most.
    expect(missed).toEqual([99 - 64, ...new Array<number>(63).fill(0)]);
  });

  test("end with the monitor, its signal, and its model", async () => {
    const other = await load();
    const abort = new AbortController();
    const closed = other.monitor({ intervalMs: 10 });
    const aborted = other.monitor({ intervalMs: 10, signal: abort.signal });
    const left = other.monitor({ intervalMs: 10 });
    const told: string[] = [];
    for (const [name, monitor] of Object.entries({ closed, aborted, left })) monitor.on("close", () => told.push(name));
    const reading = [closed, aborted, left].map(async (monitor) => {
      for await (const _ of monitor);
    });
    await Bun.sleep(15);
    closed.close();
    await reading[0];
    abort.abort();
    await reading[1];
    expect([closed.closed, aborted.closed, left.closed]).toEqual([true, true, false]);
    await other.close();
    await reading[2];
    expect(told).toEqual(["closed", "aborted", "left"]);
    for await (const _ of left) throw new Error("a monitor that has ended has no samples");
    expect(() => model.monitor({ signal: AbortSignal.abort() })).toThrow("abort");
  });

  test("keep no process alive", async () => {
    const source = `
      const model = await loadModel(path, { threads: { count: 1 }, prepared: false });
      const monitor = model.monitor({ intervalMs: 100 });
      (async () => { for await (const _ of monitor); })();
      await model.generate("hello", { maxLength: 3 });
      console.log("done");`;
    const { output, code, signal } = await runScript(folder, path, source);
    expect([output, code, signal]).toEqual(["done\n", 0, null]);
  }, 30_000);
});

/** A monitor whose samples the test takes. */
function playedMonitor(
  opened: Pick<Awaited<ReturnType<typeof openEngine>>, "plan"> & Pick<MonitoredModel, "engine">,
  changes: object = {},
) {
  const ticks: (() => void)[] = [];
  const monitor = new Monitor(
    {
      engine: opened.engine,
      ops: opList(opened.plan.ops.map(({ kind }) => ({ kind }))),
      batchSize: 4,
      model: { model: "m", architecture: "a", level: "l", version: "v", threads: 2 },
      nativeBytes: () => 2,
      every: (_, tick) => {
        ticks.push(tick);
        return () => {};
      },
    },
    changes,
  );
  return { monitor, tick: () => ticks.at(-1)?.() };
}

describe("a monitor without execution time", () => {
  test("lets the engine write no events, and tells of requests and samples all the same", async () => {
    const opened = await openEngine(path);
    const { engine } = opened;
    const checked = checkGenerateOptions({ maxLength: 20, ignoreEos: true, seed: 1n }, 16);
    const generate = async () => complete(streamTokens(opened, await encodePrompt(opened, "hello", checked), checked));
    const { monitor, tick } = playedMonitor(opened, { executionTime: false });
    const reading = read(monitor, 1);
    await Promise.resolve();
    await generate();
    expect(engine.eventsWaiting).toBe(0);
    tick();
    const [sample] = await reading;
    expect(sample?.requests).toBe(1);
    expect(sample?.executionTime).toBeNull();
    const { requestCount, profile } = monitor.everything();
    expect([requestCount, profile.steps.count]).toEqual([1, 0]);
    // Beside it another has them written, until it ends.
    const other = playedMonitor(opened);
    await generate();
    expect(engine.eventsWaiting).toBeGreaterThan(0);
    expect(other.monitor.everything().profile.steps.count).toBe(20);
    expect(monitor.everything().profile.steps.count).toBe(0);
    other.monitor.close();
    await generate();
    // That the engine thread rested until then, which is one event.
    expect(engine.eventsWaiting).toBeLessThanOrEqual(3);
    monitor.close();
    await engine.close();
  });
});

test("a monitor of an engine that never rests counts every step and its time, and ops of one step in 16", async () => {
  const opened = await openEngine(path, {}, { threadCount: 2 });
  const { engine } = opened;
  const { monitor, tick } = playedMonitor({ plan: opened.plan, engine: neverResting(engine) });
  const checked = checkGenerateOptions({ maxLength: 200, ignoreEos: true, seed: 1n }, 16);
  // Many times what it lets wait.
  for (let request = 0; request < 40; request++) {
    await complete(streamTokens(opened, await encodePrompt(opened, "hello", checked), checked));
    tick();
  }
  const { profile } = monitor.everything();
  expect([profile.steps.count, profile.lostEvents]).toEqual([8000, 0]);
  const counts = profile.byOp.map(({ count }) => count).filter((count) => count > 0);
  expect(Math.max(...counts)).toBeLessThan(4000);
  expect(Math.min(...counts)).toBeGreaterThan(200);
  monitor.close();
  await engine.close();
});

describe("events of a monitor", () => {
  test("tell of every request that ends, and what a listener throws holds nothing up", async () => {
    using monitor = model.monitor();
    const requests: RequestMetrics[] = [];
    const end = monitor.on("request", (request) => requests.push(request));
    await model.generate("hello", options);
    expect(requests).toEqual([...model.performanceMetrics().recent.slice(-1)]);
    end();
    await model.generate("hello", options);
    expect(requests).toHaveLength(1);
    const source = `
      process.on("uncaughtException", (error) => console.log(error.message));
      const model = await loadModel(path, { threads: { count: 1 }, prepared: false });
      model.monitor().on("request", () => { throw new Error("mine"); });
      console.log((await model.generate("hello", { maxLength: 3, ignoreEos: true })).tokens.length);
      await model.close();`;
    const { output, code } = await runScript(folder, path, source);
    expect([output.split("\n").sort(), code]).toEqual([["", "3", "mine"], 0]);
  }, 30_000);
});

describe("cache usage", () => {
  test("is null until it is known, then says how well caches served a step and how that is known", async () => {
    using monitor = model.monitor({ intervalMs: 10, cacheUsage: true });
    await model.generate("hello", options);
    let usage: MonitorSample["cacheUsage"] = null;
    for await (const { cacheUsage } of monitor) {
      usage = cacheUsage;
      // The counters tell at once; a step is simulated once the engine rests.
      if ((usage?.levels[0]?.accesses ?? 0) > 0) break;
      if (usage?.source === "hardware counters") await model.generate("hello", options);
    }
    const [nearest] = usage?.levels ?? [];
    expect(["hardware counters", "simulator"]).toContain(usage?.source as string);
    expect(nearest?.accesses).toBe((nearest?.hits ?? 0) + (nearest?.misses ?? 0));
    expect(usage?.hitRate).toBe((nearest?.hits ?? 0) / (nearest?.accesses ?? 1));
    expect(usage?.hitRate).toBeGreaterThan(0.5);
    expect(usage?.hitRate).toBeLessThan(1);
    // As a profile of a step like it says, where it is simulated too.
    const { cache } = await model.profile(() => model.generate("hello", options), { roofline: false });
    if (usage?.source === "simulator") expect(usage.hitRate).toBeCloseTo(cache?.hitRate ?? 0, 1);
  });
});

test("options and intervals out of bounds are refused", () => {
  const wrong = [
    { intervalMs: 9 },
    { intervalMs: 3_600_001 },
    { intervalMs: 10.5 },
    { executionTime: 1 },
    { cacheUsage: "yes" },
    { signal: {} },
  ];
  for (const options of wrong) expect(() => model.monitor(options as never)).toThrow(OptionError);
  for (const interval of [9, 3_600_001, "1000", undefined]) {
    expect(() => model.setMonitoringInterval(interval as never)).toThrow(OptionError);
  }
  using monitor = model.monitor();
  expect(() => {
    monitor.intervalMs = 1;
  }).toThrow(OptionError);
});
