// Threads that come, go and move while a model runs, as the system sees them: tasks of this process and the CPUs they may use.

import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { usableCpus } from "../../src/engine/cpu.ts";
import { complete, encodePrompt, streamTokens } from "../../src/generate/generate.ts";
import { checkGenerateOptions } from "../../src/generate/options.ts";
import { cpu, EngineError, loadModel, OptionError } from "../../src/index.ts";
import { defaultThreads } from "../../src/knobs/threads.ts";
import { partsOf } from "../../src/loaded-model.ts";
import { type OpenedEngine, openEngine } from "../support/engine.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyModel } from "../support/tiny-model.ts";

const folder = temporaryFolder();
const path = folder.file("tiny.gguf");
writeTinyModel(path, { layers: 4 });
const linux = process.platform === "linux";
const [first = 0] = usableCpus() ?? [];
const all = (usableCpus() ?? []).join(",");

/** Whether each task is one of this process's. */
function alive(tasks: readonly number[]): boolean[] {
  const now = readdirSync("/proc/self/task");
  return tasks.map((task) => now.includes(String(task)));
}

/** The CPUs that each task may use, one by one. */
function cpusOf(tasks: readonly number[]): string[] {
  return tasks.map((task) => {
    const list = /^Cpus_allowed_list:\s*(.+)$/m.exec(readFileSync(`/proc/self/task/${task}/status`, "utf8"))?.[1] ?? "";
    const numbers = list.split(",").flatMap((range) => {
      const [low = 0, high = low] = range.split("-").map(Number);
      return Array.from({ length: high - low + 1 }, (_, index) => low + index);
    });
    return numbers.join(",");
  });
}

async function start(opened: OpenedEngine, prompt: string, maxLength: number) {
  const options = checkGenerateOptions({ maxLength, ignoreEos: true, seed: 5n }, 16);
  return streamTokens(opened, await encodePrompt(opened, prompt, options), options);
}

const generate = async (opened: OpenedEngine, maxLength = 40) =>
  (await complete(await start(opened, "hello world", maxLength))).tokens;

describe("the number of threads", () => {
  test("changes on an idle engine, whose threads are there and gone when the change is told", async () => {
    if (!linux) return;
    const opened = await openEngine(path);
    const { engine } = opened;
    const expected = await generate(opened);
    let before = engine.threadIds;
    for (const threadCount of [4, 2, 1, 3]) {
      await engine.configure({ threadCount });
      const { threadIds } = engine;
      expect(threadIds.length).toBe(threadCount);
      expect(new Set(threadIds).size).toBe(threadCount);
      expect(alive(threadIds)).toEqual(threadIds.map(() => true));
      // Those that stay are the same; the others have ended.
      const kept = Math.min(before.length, threadCount);
      expect(threadIds.slice(0, kept)).toEqual(before.slice(0, kept));
      expect(alive(before.slice(kept))).toEqual(before.slice(kept).map(() => false));
      expect(await generate(opened)).toEqual(expected);
      before = threadIds;
    }
    await engine.close();
    expect(alive(before)).toEqual([false, false, false]);
  });

  test("changes under a running generation, whose tokens stay the same", async () => {
    const opened = await openEngine(path);
    const expected = await generate(opened, 300);
    const tokens: number[] = [];
    const changes: Promise<void>[] = [];
    const counts = [3, 1, 4, 4, 2, 1, 2];
    for await (const { token } of await start(opened, "hello world", 300)) {
      if (token !== undefined) tokens.push(token);
      const threadCount = counts[changes.length];
      if (threadCount !== undefined && tokens.length % 20 === 0) changes.push(opened.engine.configure({ threadCount }));
    }
    await Promise.all(changes);
    expect(changes.length).toBe(counts.length);
    expect(tokens).toEqual([...expected]);
    expect(opened.engine.threadIds.length).toBe(2);
    await opened.engine.close();
  });

  test("may change again before the first change holds", async () => {
    const { engine } = await openEngine(path);
    await Promise.all([2, 4, 3].map((threadCount) => engine.configure({ threadCount })));
    expect(engine.threadIds.filter((id) => id > 0 || !linux).length).toBe(3);
    await engine.close();
  });

  test("changes while somebody watches, who is told of the work of all threads, whole steps of it", async () => {
    const opened = await openEngine(path);
    const { engine } = opened;
    const WORK = 0;
    const IDLE = 2;
    const seen = new Map<number, { kind: number; start: bigint; end: bigint }[]>();
    const end = engine.watch({
      events(bytes, thread) {
        const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
        const list = seen.get(thread) ?? [];
        seen.set(thread, list);
        for (let at = 0; at < bytes.length; at += 32) {
          const [start, end] = [view.getBigUint64(at, true), view.getBigUint64(at + 8, true)];
          list.push({ kind: view.getUint8(at + 26), start, end });
        }
      },
    });
    await engine.configure({ threadCount: 3 });
    // Much of it at once, so that no thread comes too late for all.
    for (let round = 0; round < 30; round++) await complete(await start(opened, "hello world ".repeat(30), 4));
    const downNs = BigInt(Math.floor(engine.nowNs));
    await engine.configure({ threadCount: 1 });
    await generate(opened);
    await engine.configure({ threadCount: 2 });
    const upNs = BigInt(Math.floor(engine.nowNs));
    for (let round = 0; round < 30; round++) await complete(await start(opened, "hello world ".repeat(30), 4));
    end();
    const works = (thread: number) => (seen.get(thread) ?? []).filter(({ kind }) => kind === WORK);
    expect(works(2).length).toBeGreaterThan(0);
    // No thread of number 2 worked after it had ended, and the later one of number 1 was not idle before it began.
    expect(works(2).every(({ end }) => end < upNs)).toBe(true);
    const idle = (seen.get(1) ?? []).filter(({ kind }) => kind === IDLE);
    expect(idle.filter(({ start, end }) => start < downNs && end > upNs)).toEqual([]);
    expect(engine.eventsLost).toBe(0);
    await engine.close();
  });
});

describe("a thread's CPU", () => {
  test("is its own from the moment it is told, until it is taken back", async () => {
    if (!linux) return;
    const opened = await openEngine(path, {}, { threadCount: 3 });
    const { engine } = opened;
    expect(cpusOf(engine.threadIds)).toEqual([all, all, all]);
    await engine.configure({ affinity: [undefined, first] });
    expect(cpusOf(engine.threadIds)).toEqual([all, String(first), all]);
    const expected = await generate(opened);
    await engine.configure({ affinity: [first] });
    expect(cpusOf(engine.threadIds)).toEqual([String(first), all, all]);
    expect(await generate(opened)).toEqual(expected);
    // A worker that begins while the engine's own thread is pinned is not.
    await engine.configure({ threadCount: 4 });
    expect(cpusOf(engine.threadIds)).toEqual([String(first), all, all, all]);
    await engine.configure({ affinity: [] });
    expect(cpusOf(engine.threadIds)).toEqual([all, all, all, all]);
    await engine.close();
  });

  test("may be given to some threads when a model is loaded", async () => {
    if (!linux) return;
    const { engine } = await openEngine(path, {}, { threadCount: 3, affinity: [first, undefined] });
    expect(cpusOf(engine.threadIds)).toEqual([String(first), all, all]);
    await engine.close();
  });

  test("that the system refuses changes nothing, and says so", async () => {
    if (!linux) return;
    const { engine } = await openEngine(path, {}, { threadCount: 2, affinity: [undefined, first] });
    const refused = engine.configure({ threadCount: 3, affinity: [1000] });
    expect(await refused.catch((error: unknown) => error)).toBeInstanceOf(EngineError);
    expect(engine.threadCount).toBe(2);
    expect(engine.settings.affinity).toEqual([undefined, first]);
    expect(cpusOf(engine.threadIds)).toEqual([all, String(first)]);
    await engine.configure({ threadCount: 1 });
    expect(engine.threadIds.length).toBe(1);
    await engine.close();
  });

  test("that the system refuses takes nothing with it that was asked for before or after", async () => {
    if (!linux) return;
    const opened = await openEngine(path, {}, { threadCount: 1 });
    const { engine } = opened;
    const { levels, tuning } = engine.settings;
    const scalar = { ...levels, attention: 0 };
    const narrow = { ...tuning, ahead: false };
    const running = generate(opened, 200);
    const asked = [
      engine.configure({ levels: scalar }),
      engine.configure({ threadCount: 2, affinity: [1000], tuning: narrow }),
      engine.configure({ cpuPercent: 150 }),
      engine.configure({ threadCount: 2 }),
    ];
    expect(engine.settings).toMatchObject({ levels: scalar, affinity: [1000], cpuPercent: 150, threadCount: 2 });
    const outcomes = await Promise.allSettled(asked);
    expect(outcomes.map(({ status }) => status)).toEqual(["fulfilled", "rejected", "fulfilled", "fulfilled"]);
    expect(engine.settings).toEqual({ levels: scalar, affinity: [], cpuPercent: 150, threadCount: 2, tuning });
    expect(cpusOf(engine.threadIds)).toEqual([all, all]);
    expect(await running).toBeArrayOfSize(200);
    await engine.close();
  });
});

describe("a change that builds on the one before", () => {
  test("does without what that one was refused", async () => {
    if (!linux) return;
    const { engine } = await openEngine(path, {}, { threadCount: 2 });
    const asked = [
      engine.configureBy(({ affinity }) => ({ affinity: [1000, affinity[1]] })),
      engine.configureBy(({ affinity }) => ({ affinity: [affinity[0], first] })),
    ];
    expect(engine.settings.affinity).toEqual([1000, first]);
    const outcomes = await Promise.allSettled(asked);
    expect(outcomes.map(({ status }) => status)).toEqual(["rejected", "fulfilled"]);
    expect(engine.settings.affinity).toEqual([undefined, first]);
    expect(cpusOf(engine.threadIds)).toEqual([all, String(first)]);
    await engine.close();
  });
});

describe("a loaded model", () => {
  test("changes its threads and their CPUs, and says what they are", async () => {
    await using model = await loadModel(path, { threads: { count: 1 } });
    const expected = await model.generate("hello", { maxLength: 20, ignoreEos: true, seed: 1 });
    const count = Math.min(cpu.cores, 64);
    await model.setThreadCount(count);
    expect(model.threadCount).toBe(count);
    if (process.platform !== "darwin") {
      await model.setThreadAffinity(0, first);
      expect(model.threadAffinity[0]).toBe(first);
      await model.setThreadAffinity(0, null);
    }
    expect(model.threadAffinity).toEqual(Array.from({ length: count }, () => null));
    expect((await model.generate("hello", { maxLength: 20, ignoreEos: true, seed: 1 })).tokens).toEqual(
      expected.tokens,
    );
  });

  test("has the threads that it says, on the CPUs that it says, as the system sees them", async () => {
    if (!linux) return;
    await using model = await loadModel(path, { threads: { count: 1 } });
    const { engine } = partsOf(model);
    const count = Math.min(cpu.cores, 64);
    await model.setThreadCount(count);
    const { threadIds } = engine;
    expect(new Set(threadIds).size).toBe(count);
    expect(alive(threadIds)).toEqual(threadIds.map(() => true));
    const everywhere = threadIds.map(() => all);
    expect(cpusOf(threadIds)).toEqual(everywhere);
    await model.setThreadAffinity(0, first);
    expect(cpusOf(threadIds)).toEqual(everywhere.with(0, String(first)));
    if (count > 1) {
      await model.setThreadAffinity(1, first);
      expect(cpusOf(threadIds)).toEqual(everywhere.with(0, String(first)).with(1, String(first)));
      await model.setThreadAffinity(0, null);
      expect(cpusOf(threadIds)).toEqual(everywhere.with(1, String(first)));
    }
    await model.setThreadCount(1);
    expect(alive(threadIds)).toEqual(threadIds.map((_, thread) => thread === 0));
  });

  test("refuses threads and CPUs that there are not", async () => {
    await using model = await loadModel(path, { threads: { count: 1 } });
    const option = async (work: Promise<void>) =>
      work.then(
        () => "nothing",
        (error: unknown) => (error instanceof OptionError ? error.option : error),
      );
    expect(await option(model.setThreadCount(0))).toBe("count");
    expect(await option(model.setThreadCount(cpu.cores + 1))).toBe("count");
    expect(await option(model.setThreadCount(1.5))).toBe("count");
    expect(await option(model.setThreadAffinity(1, first))).toBe("thread");
    expect(await option(model.setThreadAffinity(0, 1023))).toBe("core");
    expect(await option(model.setThreadAffinity(0, "0" as never))).toBe("core");
    expect(model.threadCount).toBe(1);
  });

  test("does not change its threads while it is profiled, and names those of the moment in a profile", async () => {
    await using model = await loadModel(path, { threads: { count: 1 } });
    const options = { cache: false, roofline: false };
    model.startProfiling(options);
    expect(await model.setThreadCount(cpu.cores).catch((error: unknown) => error)).toBeInstanceOf(EngineError);
    model.cancelProfiling();
    await model.setThreadCount(cpu.cores);
    const { run } = await model.profile(() => model.generate("hello", { maxLength: 4 }), options);
    expect(run.threads).toBe(cpu.cores);
  });

  test("computes with all CPUs but one unless told otherwise, or with all of one or two", async () => {
    const threads = [1, 2, 3, 8, 65, 128].map((cores) => defaultThreads(cores));
    expect(threads).toEqual([1, 2, 2, 7, 64, 64]);
    await using model = await loadModel(path);
    expect(model.threadCount).toBe(defaultThreads(cpu.cores));
  });
});
