// A model that is watched for as long as it runs: what a monitor says of real requests, beside profiles of the same ones, and what
// it does over days, with an engine that the test plays.

import { heapStats } from "bun:jsc";
import { afterAll, describe, expect, test } from "bun:test";
import { copyFileSync, mkdirSync } from "node:fs";
import { dirname } from "node:path";
import type { Profile } from "../../profiler/index.ts";
import type { EngineWatcher } from "../../src/engine/watching.ts";
import { WorkMeter } from "../../src/engine/work.ts";
import { OptionError } from "../../src/errors.ts";
import { type GenerateOptions, loadModel, type WindowProfile } from "../../src/index.ts";
import { prometheusText } from "../../src/metrics/index.ts";
import { Monitor } from "../../src/profiling/monitor.ts";
import { runScript } from "../engine/support.ts";
import { encode, opList, randomStep } from "../profiler/stream.ts";
import { temporaryFolder } from "../support/folder.ts";
import { Random } from "../support/random.ts";
import { writeTinyModel } from "../support/tiny-model.ts";

const folder = temporaryFolder();
const path = folder.file("tiny.gguf");
writeTinyModel(path, { architecture: "gemma3", layers: 6, context: 512, dtype: "Q8_0" });
const load = (file = path) => loadModel(file, { threads: { count: 2 }, prepared: false });
const model = await load();
afterAll(() => model.close());

const options: GenerateOptions = { temperature: 0, maxLength: 20, ignoreEos: true, cachePrompt: false };
const prompts = ["once upon a time there was a model", "hello"];

/** Without what threads did between steps. */
function ofSteps({ threads, ...profile }: Profile) {
  return { ...profile, threads: threads.map(({ recordedIdleNs: _, ...thread }) => thread) };
}

describe("a monitor", () => {
  test("sees every request, step and token of a model, and goes on in the next window", async () => {
    using monitor = model.monitor({ windowMs: 100, windows: 50 });
    await model.generate(prompts, options);
    const first = monitor.everything();
    expect([first.requestCount, first.firstTokens.count, first.requestTimes.count]).toEqual([2, 2, 2]);
    expect(first.betweenTokens.count).toBe(2 * 19);
    expect(first.profile.phases.find(({ phase }) => phase === "generation")?.rows).toBeGreaterThan(19);
    expect(first.profile.lostEvents + first.profile.incompleteSteps + first.profile.lateEvents).toBe(0);
    expect(first.endNs).toBeGreaterThan(first.startNs);
    while (monitor.last(50).profile.steps.count === 0) await Bun.sleep(20);
    expect(monitor.last(50).profile.steps).toEqual(first.profile.steps);
    await model.score("once upon a time");
    const second = monitor.everything();
    expect(second.requestCount).toBe(3);
    expect(second.profile.steps.count).toBeGreaterThan(first.profile.steps.count);
    while (monitor.last(50).requestCount < 3) await Bun.sleep(20);
    expect(monitor.last(50).profile.rows).toBe(second.profile.rows);
  });

  test("and a profile that is taken meanwhile see the same", async () => {
    using monitor = model.monitor();
    const run = await model.profile(() => model.generate(prompts, options), { cache: false, roofline: false });
    const { profile, ...requests } = monitor.everything();
    const told: Partial<typeof run> = { ...run };
    const alike = Object.fromEntries(Object.keys(profile).map((key) => [key, told[key as keyof Profile]]));
    expect(ofSteps(profile)).toEqual(ofSteps(alike as unknown as Profile));
    for (const name of ["requestCount", "requestTimes", "betweenTokens", "firstTokens"] as const) {
      expect(requests[name]).toEqual(run[name] as never);
    }
    // A profile that begins in the middle is of whole steps, and leaves the monitor as it was.
    const before = monitor.everything();
    let middle: Profile | undefined;
    let tokens = 0;
    for await (const _ of model.stream("hello", { ...options, maxLength: 300 })) {
      tokens++;
      if (tokens === 10) model.startProfiling({ cache: false, roofline: false });
      if (tokens === 200) middle = model.stopProfiling();
    }
    if (middle) expect(middle.incompleteSteps + middle.lateEvents + middle.clippedNs).toBe(0);
    const after = monitor.everything();
    expect(after.requestCount - before.requestCount).toBe(1);
    expect(after.profile.rows - before.profile.rows).toBeGreaterThan(300);
    expect(after.profile.incompleteSteps + after.profile.lateEvents).toBe(0);
  });

  test("does beside another what it does alone, and ends alone", async () => {
    const [one, two] = [model.monitor(), model.monitor()];
    await model.generate("hello", options);
    one.close();
    one.close();
    const ended = one.everything();
    expect(one.closed).toBe(true);
    await model.generate("hello", options);
    expect(one.everything()).toEqual(ended);
    expect(two.everything().requestCount).toBe(2);
    expect(ended.requestCount).toBe(1);
    two.close();
    expect(two.metrics().requests.count).toBe(2);
  });

  test("tells exporters the same sums and durations", async () => {
    using monitor = model.monitor({ windowMs: 100 });
    await model.generate(prompts, options);
    await Bun.sleep(150);
    await model.generate("hello", options);
    const { profile, requestTimes, firstTokens, betweenTokens } = monitor.everything();
    const metrics = monitor.metrics();
    expect(metrics.phases).toEqual(
      profile.phases.map(({ phase, rows, histogram }) => ({ phase, tokens: rows, steps: histogram as never })),
    );
    expect(metrics.kinds).toEqual(
      profile.byKind.map(({ kind, totalNs, bytes, operations, histogram }) => {
        return { kind, workNs: totalNs, bytes, operations, durations: histogram as never };
      }),
    );
    const work = metrics.kinds.reduce((sum, { workNs }) => sum + workNs, 0);
    const outside = Object.values(metrics.outsideNs).reduce((sum, ns) => sum + ns, 0);
    expect(work + outside).toBe(profile.steps.totalNs);
    expect(metrics.requests).toEqual(requestTimes.histogram as never);
    expect(metrics.firstTokens).toEqual(firstTokens.histogram as never);
    expect(metrics.betweenTokens).toEqual(betweenTokens.histogram as never);
    expect(metrics.model).toMatchObject({ model: "tiny.gguf", architecture: "gemma3", threads: 2 });
    expect(metrics.residentBytes).toBeGreaterThan(1e6);
    expect(metrics.nativeBytes).toBeGreaterThan(1e5);
  });

  test("calls its model by its file's name, or as it is told to", async () => {
    const samePath = folder.file("again/tiny.gguf");
    mkdirSync(dirname(samePath));
    copyFileSync(path, samePath);
    const other = await load(samePath);
    using monitor = model.monitor();
    using same = other.monitor();
    using named = other.monitor({ name: "tiny, again" });
    expect(() => prometheusText([monitor, same])).toThrow(OptionError);
    const text = prometheusText([monitor, named]);
    for (const name of ["tiny.gguf", "tiny, again"]) expect(text).toContain(`tinyai_requests_total{model="${name}"} 0`);
    const series = text.split("\n").flatMap((line) => (line.startsWith("#") ? [] : [line.replace(/ \S+$/, "")]));
    expect(new Set(series.slice(0, -1)).size).toBe(series.length - 1);
    await other.close();
  });

  test("ends with its model, and then says what it saw until then", async () => {
    const other = await load();
    const monitor = other.monitor();
    await other.generate("hello", options);
    await other.close();
    expect(monitor.closed).toBe(true);
    expect(monitor.everything().requestCount).toBe(1);
    expect(() => other.monitor()).toThrow("closed");
  });

  test("refuses options and counts out of bounds", () => {
    const wrong = [
      { window: 1 },
      { windowMs: 99 },
      { windowMs: 1e9 },
      { windows: 0 },
      { windows: 1.5 },
      { name: "" },
      7,
    ];
    for (const options of wrong) expect(() => model.monitor(options as never)).toThrow(OptionError);
    using monitor = model.monitor({ windows: 4 });
    for (const count of [0, 5, 1.5]) expect(() => monitor.last(count)).toThrow(OptionError);
    expect(monitor.last(4)).toMatchObject({ requestCount: 0, profile: { totalTime: 0 } });
  });

  test("keeps no process alive", async () => {
    const source = `
      const model = await loadModel(path, { threads: { count: 1 }, prepared: false });
      const monitor = model.monitor({ windowMs: 100 });
      await model.generate("hello", { maxLength: 3 });
      console.log(monitor.everything().requestCount);`;
    const { output, code, signal } = await runScript(folder, path, source);
    expect([output, code, signal]).toEqual(["1\n", 0, null]);
  }, 30_000);
});

const OPS = opList([
  { name: "blk.0.norm", kind: "norm", layer: 0 },
  { name: "blk.0.q", kind: "matmul", layer: 0, bytesPerStep: 1000, bytesPerRow: 20, operationsPerRow: 500 },
  { name: "head", kind: "matmul", layer: -1, bytesPerStep: 9000, bytesPerRow: 100, operationsPerRow: 4000 },
]);

/** An engine that does what the test says, on a clock of its own. */
class PlayedEngine {
  nowNs = 1e15;
  pending = 0;
  eventsLost = 0;
  readonly closed = false;
  tick = () => {};
  readonly work = new WorkMeter(() => this.nowNs);
  #watcher: EngineWatcher | undefined;
  #undrained: Uint8Array[] = [];
  readonly #template = encode(randomStep(new Random(1), OPS.length, 1, 0).events);
  #steps = 0;

  watch(watcher: EngineWatcher): () => void {
    this.#watcher = watcher;
    return () => {
      this.#watcher = undefined;
    };
  }

  get watched(): boolean {
    return this.#watcher !== undefined;
  }

  drainEvents(): void {
    const events = this.#undrained;
    this.#undrained = [];
    for (const bytes of events) this.#watcher?.events?.(bytes, 0);
  }

  /** A step of request 1 at this time; without its own event if the ring was full. */
  step(full = false): void {
    const bytes = this.#template.slice();
    const view = new DataView(bytes.buffer);
    const start = BigInt(this.nowNs);
    this.#steps++;
    for (let at = 0; at < bytes.length; at += 32) {
      view.setUint32(at + 16, this.#steps, true);
      if (view.getUint8(at + 26) === 6) continue; // A share's words are no times.
      for (const word of [0, 8]) view.setBigUint64(at + word, start + view.getBigUint64(at + word, true), true);
    }
    if (full) this.eventsLost++;
    this.#undrained.push(full ? bytes.subarray(0, bytes.length - 32) : bytes);
  }

  request(): void {
    const { nowNs } = this;
    const times = { calledNs: nowNs, tokenizedNs: nowNs, submittedNs: nowNs };
    this.#watcher?.requests?.submitted(1, { ...times, promptTokens: 1, generates: true }, undefined as never);
  }

  ended(): void {
    const { nowNs } = this;
    const times = { firstTokenNs: nowNs, lastRecordNs: nowNs, endedNs: nowNs };
    this.#watcher?.requests?.ended(1, { ...times, reusedTokens: 0, generatedTokens: 9 });
  }
}

function monitorOf(engine: PlayedEngine, options = {}): Monitor {
  return new Monitor(
    {
      engine,
      ops: OPS,
      batchSize: 1,
      model: { model: "m", architecture: "a", level: "l", version: "v", threads: 2 },
      nativeBytes: () => 2,
      every: (_, tick) => {
        engine.tick = tick;
        return () => {
          engine.tick = () => {};
        };
      },
    },
    options,
  );
}

const immediate = () => new Promise<void>((resolve) => setImmediate(resolve));

describe("what is watched", () => {
  test("waits while the engine works, up to a bound beyond which ops are those of some steps, and is all there when it is asked for", async () => {
    const engine = new PlayedEngine();
    const monitor = monitorOf(engine);
    engine.pending = 1;
    let most = 0;
    const STEPS = 40_000;
    const buckets = monitor.footprintBytes;
    for (let step = 1; step <= STEPS; step++) {
      engine.nowNs += 1e6;
      if (step % 20 === 1) engine.request();
      engine.step();
      if (step % 4 === 0) engine.drainEvents();
      if (step % 20 === 0) engine.ended();
      if (step % 1000 === 0) {
        engine.tick();
        await immediate();
        most = Math.max(most, monitor.footprintBytes);
      }
    }
    expect(most - buckets).toBeLessThan(9 << 20);
    expect(most - buckets).toBeGreaterThan(4e6);
    const { profile, requestCount, betweenTokens } = monitor.everything();
    expect(profile.steps.count).toBe(STEPS);
    for (const { count, totalNs } of profile.byOp) {
      expect(count).toBeGreaterThan(STEPS / 16);
      expect(count).toBeLessThan(STEPS / 2);
      expect(totalNs % count).toBe(0);
    }
    // What was looked at closely adds up as ever, and so does the rest.
    const { waiting, sampling, copying, engine: forming, idle, unattributed, byOp } = profile;
    const parts = [...byOp, waiting, sampling, copying, forming, idle, unattributed];
    expect(parts.reduce((sum, { totalNs }) => sum + totalNs, 0)).toBe(profile.steps.totalNs);
    expect(profile.attributedShare).toBeLessThan(0.5);
    expect(profile.incompleteSteps + profile.lateEvents + profile.malformedEvents + profile.lostEvents).toBe(0);
    expect(requestCount).toBe(STEPS / 20);
    expect(betweenTokens.count).toBe((STEPS / 20) * 19);
    expect(betweenTokens.p99Ns).toBeLessThan(1.001e6);
    expect(monitor.footprintBytes).toBeLessThan(buckets + (1 << 20));
    monitor.close();
    expect(engine.watched).toBe(false);
  });

  test("is looked at between requests without being asked for", async () => {
    const engine = new PlayedEngine();
    const monitor = monitorOf(engine);
    const buckets = monitor.footprintBytes;
    engine.pending = 1;
    for (let step = 0; step < 2000; step++) {
      engine.nowNs += 1e6;
      engine.step();
    }
    engine.tick();
    await immediate();
    const waiting = monitor.footprintBytes - buckets;
    expect(waiting).toBeGreaterThan(1e6);
    engine.pending = 0;
    engine.tick();
    for (let turn = 0; turn < 1000 && monitor.footprintBytes - buckets > waiting / 2; turn++) await immediate();
    expect(monitor.footprintBytes - buckets).toBeLessThan(waiting / 2);
    monitor.close();
  });

  test("over two days takes as much memory as over an hour, and says what was lost", async () => {
    const engine = new PlayedEngine();
    const monitor = monitorOf(engine, { windowMs: 60_000, windows: 60 });
    const HOURS = 48;
    const PER_HOUR = 2400;
    const seen: { bytes: number; objects: number; footprint: number }[] = [];
    let [lost, steps] = [0, 0];
    let hour: WindowProfile | undefined;
    for (let index = 1; index <= HOURS * PER_HOUR; index++) {
      engine.nowNs += 3600e9 / PER_HOUR;
      // Busy for ten hours, then idle between requests for ten.
      engine.pending = Math.floor(index / (10 * PER_HOUR)) % 2 === 0 ? 1 : 0;
      if (index % 100 === 1) engine.request();
      const full = index % 1000 === 500;
      lost += Number(full);
      engine.step(full);
      steps++;
      if (index % 100 === 0) engine.ended();
      if (index % 5 === 0) engine.tick();
      // Ten windows: their work is done in turns.
      for (let turn = 0; index % 400 === 0 && turn < 50; turn++) await immediate();
      if (index % (6 * PER_HOUR) !== 3 * PER_HOUR) continue;
      hour = monitor.last(60);
      Bun.gc(true);
      const { heapSize, extraMemorySize, objectCount } = heapStats();
      const footprint = monitor.footprintBytes;
      seen.push({ bytes: heapSize + extraMemorySize, objects: objectCount, footprint });
    }
    const { profile, requestCount } = monitor.everything();
    expect([profile.steps.count, profile.incompleteSteps, profile.lostEvents]).toEqual([steps - lost, lost, lost]);
    expect([profile.lateEvents, profile.malformedEvents]).toEqual([0, 0]);
    expect(requestCount).toBe(steps / 100);
    // At least the last hour: windows are longer where the work of ending them was put off.
    const hours = ((hour?.endNs ?? 0) - (hour?.startNs ?? 0)) / 3600e9;
    expect(hours).toBeGreaterThan(0.95);
    expect((hour?.profile.steps.count ?? 0) / hours / PER_HOUR).toBeCloseTo(1, 1);
    expect(seen.length).toBe(8);
    for (const later of seen.slice(1)) {
      expect(later.footprint - (seen[0]?.footprint ?? 0)).toBeLessThan(1_000_000);
      expect(later.objects - (seen[0]?.objects ?? 0)).toBeLessThan(5000);
      expect(later.bytes - (seen[0]?.bytes ?? 0)).toBeLessThan(4_000_000);
    }
    monitor.close();
  }, 60_000);
});
