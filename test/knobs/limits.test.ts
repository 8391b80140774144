// Limits of CPU time and memory: what the system says that threads used under one, and what is refused by the other.

import { describe, expect, test } from "bun:test";
import { readFileSync, statSync } from "node:fs";
import { totalmem } from "node:os";
import { groupLimits } from "../../src/engine/cgroup.ts";
import { cpuCapacity } from "../../src/engine/cpu.ts";
import { drawsNothing, type Engine, type EngineRequest } from "../../src/engine/engine.ts";
import { EngineError, loadModel, MemoryLimitError, type Model, OptionError, prepareModel } from "../../src/index.ts";
import { partsOf } from "../../src/loaded-model.ts";
import { type Plan, pagesNeeded } from "../../src/plan/plan.ts";
import { openEngine } from "../support/engine.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyModel } from "../support/tiny-model.ts";

const folder = temporaryFolder();
const path = folder.file("tiny.gguf");
writeTinyModel(path, { layers: 4 });
const gemma = folder.file("gemma.gguf");
writeTinyModel(gemma, { architecture: "gemma3", layers: 6, slidingWindow: 40, context: 512 });
const linux = process.platform === "linux";
const usable = Math.min(totalmem(), groupLimits().memoryBytes);
const sameText = { maxLength: 120, ignoreEos: true, seed: 3 };

/** What threads did until a moment, in ms. */
interface Use {
  readonly atMs: number;
  /** On a CPU. */
  readonly cpuMs: number;
  /** Ready to compute, while something else had the CPU. */
  readonly delayMs: number;
}

/** As the scheduler has it. */
function useOf(threads: readonly number[]): Use {
  const fields = threads.map((thread) => readFileSync(`/proc/self/task/${thread}/schedstat`, "utf8").split(" "));
  const sum = (index: number): number => fields.reduce((total, each) => total + Number(each[index]), 0) / 1e6;
  // What waits for this thread, which hands requests over, may have to wait for as long as this thread did.
  const ownMs = Number(readFileSync("/proc/self/schedstat", "utf8").split(" ")[1]) / 1e6;
  return { atMs: performance.now(), cpuMs: sum(0), delayMs: sum(1) + ownMs };
}

const cpuMs = (threads: readonly number[]): number => useOf(threads).cpuMs;

/** What threads did in every stretch of a second or a little more, of two seconds in which there is always work. */
async function everySecond(engine: Engine): Promise<readonly Use[]> {
  let done = false;
  // Several that end at different times, so that the engine never waits for this thread.
  const lanes = [37, 41, 53].map(async (length) => {
    while (!done) await run(engine, request(200, length));
  });
  const seen: Use[] = [];
  const threads = engine.threadIds;
  for (const endMs = performance.now() + 2000; performance.now() < endMs; await Bun.sleep(50))
    seen.push(useOf(threads));
  done = true;
  await engine.configure({ cpuPercent: 0 });
  await Promise.all(lanes);
  return seen.flatMap((from) => {
    const to = seen.find(({ atMs }) => atMs - from.atMs >= 1000);
    if (!to) return [];
    return { atMs: to.atMs - from.atMs, cpuMs: to.cpuMs - from.cpuMs, delayMs: to.delayMs - from.delayMs };
  });
}

/**
 * Expects of each stretch that the threads used `percent` of one CPU's time, 5 points more or less. What something else had is no fault
 * of the limit: of time in which one of them was kept from computing nothing is expected.
 */
function expectShares(uses: readonly Use[], percent: number): void {
  expect(uses.length).toBeGreaterThan(3);
  for (const { atMs, cpuMs, delayMs } of uses) {
    const share = (100 * cpuMs) / atMs;
    const least = percent * Math.max(0, 1 - delayMs / atMs) - 5;
    expect(share).toBeWithin(least, percent + 5);
  }
}

/** A request that draws `generateMax` tokens after a prompt of `length`. */
function request(length: number, generateMax: number): EngineRequest {
  return {
    kind: "generate",
    tokens: Uint32Array.from({ length }, (_, index) => 300 + (index % 100)),
    ...drawsNothing,
    generateMax,
    topCount: 0,
    chunkRows: 0,
    dumpLogits: false,
    sharesPrefix: false,
  };
}

/** Percent of the memory that the process takes. */
const used = (): number => (process.memoryUsage.rss() / usable) * 100;

/** What keys and values of so many positions take at most. */
function bytesFor({ kvGroups, options }: Plan, positions: number): number {
  const bytes = kvGroups.map(({ window, pageBytes }) => pagesNeeded(window, positions, options.rowsMax) * pageBytes);
  return bytes.reduce((sum, each) => sum + each, 0);
}

/** How a request ends: its tokens, or its error. */
function run(engine: Engine, asked: EngineRequest, onFirst = () => {}): Promise<number[] | Error> {
  const tokens: number[] = [];
  return new Promise((resolve) =>
    engine.submit(asked, {
      onToken: ({ token }) => {
        if (tokens.push(token) === 1) onFirst();
      },
      onFinish: () => resolve(tokens),
      onError: resolve,
    }),
  );
}

describe("a limit of CPU time", () => {
  // Percent of one CPU's time.
  for (const { threadCount, cpuPercent } of [
    { threadCount: 1, cpuPercent: 20 },
    { threadCount: 2, cpuPercent: 60 },
  ]) {
    test(`is kept to by the threads together, and used up, in any second, of threads: ${threadCount}`, async () => {
      if (!linux) return;
      const { engine } = await openEngine(path, {}, { threadCount });
      await engine.configure({ cpuPercent });
      expectShares(await everySecond(engine), cpuPercent);
      await engine.close();
    }, 20_000);
  }

  test("of a model is a part of the time of all CPUs that the process may use", async () => {
    if (!linux) return;
    await using model = await loadModel(path, { threads: { count: 1 } });
    await model.setCpuLimit(50 / cpuCapacity());
    expectShares(await everySecond(partsOf(model).engine), 50);
  }, 20_000);

  test("changes no token, and is lifted under a running request", async () => {
    await using model = await loadModel(path);
    const { text } = await model.generate("hello", sameText);
    await model.setCpuLimit(1);
    expect(model.limits.cpuPercent).toBe(1);
    let streamed = "";
    for await (const piece of model.stream("hello", sameText)) {
      if (streamed === "") await model.setCpuLimit(100);
      streamed += piece.text;
    }
    expect(streamed).toBe(text);
  });

  test("shows in a profile as time in which the engine's thread slept", async () => {
    // Two hundredths of one CPU.
    await using model = await loadModel(path, { limits: { cpuPercent: 2 / cpuCapacity() }, threads: { count: 1 } });
    const options = { cache: false, roofline: false };
    const work = () => model.generate("hello ".repeat(40), { ...sameText, maxLength: 20 });
    const limited = await model.profile(work, options);
    expect(limited.idle.totalNs).toBeGreaterThan(0);
    await model.setCpuLimit(100);
    const free = await model.profile(work, options);
    expect(free.idle.totalNs).toBe(0);
  });

  test("does not keep a model from being closed", async () => {
    const model = await loadModel(path, { limits: { cpuPercent: 1 } });
    const running = model.generate("hello ".repeat(60), { ...sameText, maxLength: 300 });
    const outcome = running.catch((error: unknown) => error);
    await Bun.sleep(20);
    await model.close();
    expect(await outcome).toBeInstanceOf(EngineError);
  });
});

describe("a limit of memory", () => {
  test("bounds the pages of keys and values: requests wait for each other, and one that never fits is refused", async () => {
    const { engine, plan } = await openEngine(gemma, { keptBytesMax: 1e6 });
    const limit = bytesFor(plan, 256);
    const expected = await Promise.all([run(engine, request(100, 20)), run(engine, request(250, 6))]);
    expect(expected[0]).toBeArrayOfSize(20);
    await engine.close();

    const limited = (await openEngine(gemma, { keptBytesMax: 1e6 })).engine;
    limited.limitKv(limit);
    const outcomes = await Promise.all([
      run(limited, request(100, 20)),
      run(limited, request(400, 5)),
      run(limited, request(250, 6)),
      run(limited, request(100, 20)),
    ]);
    expect(outcomes[1]).toBeInstanceOf(MemoryLimitError);
    expect((outcomes[1] as MemoryLimitError).neededBytes).toBe(bytesFor(plan, 405));
    expect((outcomes[1] as MemoryLimitError).availableBytes).toBe(limit);
    expect([outcomes[0], outcomes[2], outcomes[3]]).toEqual([expected[0], expected[1], expected[0]]);
    // Many more, one after another and with others beside them: nothing past the limit was ever used.
    await Promise.all(Array.from({ length: 30 }, (_, index) => run(limited, request(1 + index * 8, 5))));
    const { kvBytes } = limited.usage;
    expect(kvBytes).toBeWithin(1, limit + plan.kvGroups.length * 4096 + 1);
    // Raised again, it takes what it was refused.
    limited.limitKv(Number.POSITIVE_INFINITY);
    expect(await run(limited, request(400, 5))).toBeArrayOfSize(5);
    expect(limited.usage.kvBytes).toBeGreaterThan(kvBytes);
    await limited.close();
  });

  test("is one for all groups of layers: what is kept of one makes room for another's", async () => {
    const small = { keptBytesMax: 1e6, rowsMax: 64, chunkPositions: 64 };
    const { engine, plan } = await openEngine(gemma, small);
    const long = request(480, 25);
    const expected = await run(engine, long);
    const limit = bytesFor(plan, 505);
    const most = limit + plan.kvGroups.length * 4096 + 1;
    const limited = (await openEngine(gemma, small)).engine;
    limited.limitKv(limit - 1);
    expect(await run(limited, long)).toBeInstanceOf(MemoryLimitError);
    limited.limitKv(limit);
    // Short texts that are kept: of the windows' layers as many pages as of the others'.
    for (const each of [engine, limited]) {
      for (let text = 0; text < 20; text++) {
        const tokens = Uint32Array.from({ length: 70 }, (_, index) => 300 + ((text * 7 + index) % 190));
        expect(await run(each, { ...request(70, 2), tokens, sharesPrefix: true })).toBeArrayOfSize(2);
      }
    }
    const windowed = plan.kvGroups.findIndex(({ window }) => window > 0);
    const windowPages = pagesNeeded(plan.kvGroups[windowed]?.window ?? 0, 505, plan.options.rowsMax);
    expect(limited.pages[windowed]?.touched).toBeGreaterThan(windowPages);
    if (linux) expect(limited.usage.kvBytes).toBeWithin(1, most);
    // All that the limit leaves goes to one request, whose groups need unlike numbers of pages.
    expect(await run(limited, long)).toEqual(expected);
    expect(limited.pages[windowed]?.touched).toBe(windowPages);
    if (linux) expect(limited.usage.kvBytes).toBeWithin(1, most);
    // Lowered below what is kept, it has that given back.
    const { kvBytes } = engine.usage;
    engine.limitKv(bytesFor(plan, 100));
    expect(await run(engine, request(10, 5))).toBeArrayOfSize(5);
    if (linux) expect(engine.usage.kvBytes).toBeLessThan(kvBytes);
    await limited.close();
    await engine.close();
  });

  test("covers what a simulation of caches takes: it is refused, and a profile goes without", async () => {
    await using model = await loadModel(path, { threads: { count: 1 } });
    const work = () => model.generate("hello", { maxLength: 3 });
    await model.setMemoryLimit(100);
    model.startProfiling({ roofline: false });
    await work();
    await model.setMemoryLimit(used() * 0.8);
    const report = model.stopProfiling();
    expect(report.memory).toBeNull();
    expect(report.steps.count).toBeGreaterThan(0);
    const refused = await model.cacheStats().catch((error: unknown) => error);
    if (report.cache === null) {
      expect(refused).toBeInstanceOf(MemoryLimitError);
      expect((refused as MemoryLimitError).neededBytes).toBeGreaterThan(0);
    }
    await model.setMemoryLimit(100);
    expect((await model.cacheStats()).hits).toBeGreaterThan(0);
  });

  test("ends a request that waits when it is lowered, and lets the one go on that runs", async () => {
    const { engine } = await openEngine(path, { batchMax: 1 });
    const running = run(engine, request(10, 400), () => engine.limitKv(0));
    const waiting = run(engine, request(10, 10));
    expect(await waiting).toBeInstanceOf(MemoryLimitError);
    expect(await running).toBeArrayOfSize(400);
    // What it had to be left is given back with its end.
    expect(engine.pages.map(({ touched }) => touched)).toEqual(engine.pages.map(() => 0));
    await engine.close();
  });

  const generates = (model: Model) =>
    model.generate("hello", { maxLength: 3 }).then(
      () => true,
      (error: unknown) => error,
    );

  test("below what the process takes refuses requests and threads until it is raised", async () => {
    await using model = await loadModel(path, { threads: { count: 1 } });
    await model.setMemoryLimit(used() * 0.8);
    expect(model.limits.memoryPercent).toBeLessThan(used());
    const error = await generates(model);
    expect(error).toBeInstanceOf(MemoryLimitError);
    expect((error as MemoryLimitError).availableBytes).toBe(0);
    expect((error as MemoryLimitError).neededBytes).toBeGreaterThan(0);
    if (cpuCapacity() > 1) {
      const refused = model.setThreadCount(2);
      expect(await refused.catch((cause: unknown) => cause)).toBeInstanceOf(MemoryLimitError);
      expect(model.threadCount).toBe(1);
    }
    await model.setMemoryLimit(Math.min(100, used() + 50));
    expect(await generates(model)).toBe(true);
    await model.setMemoryLimit(100);
    expect(await generates(model)).toBe(true);
  });

  test("below what the process takes refuses to load a model, prepared or not, and others go on", async () => {
    await using model = await loadModel(path);
    const prepared = folder.file("gemma.tinyai");
    await prepareModel(gemma, { output: prepared });
    const limits = { memoryPercent: used() * 0.8 };
    for (const file of [gemma, prepared]) {
      const refused = loadModel(file, { limits });
      expect(await refused.catch((error: unknown) => error)).toBeInstanceOf(MemoryLimitError);
    }
    expect(await generates(model)).toBe(true);
    await using roomy = await loadModel(gemma, { limits: { memoryPercent: Math.min(100, used() + 50) } });
    expect(await generates(roomy)).toBe(true);
  });

  test("and one of CPU time are refused out of their bounds", async () => {
    await using model = await loadModel(path);
    const option = async (work: Promise<unknown>) =>
      work.catch((error: unknown) => (error instanceof OptionError ? error.option : error));
    expect(await option(model.setCpuLimit(0))).toBe("percent");
    expect(await option(model.setCpuLimit(101))).toBe("percent");
    expect(await option(model.setMemoryLimit(0))).toBe("percent");
    expect(await option(model.setMemoryLimit(Number.NaN))).toBe("percent");
    expect(await option(loadModel(path, { limits: { cpuPercent: 200 } }))).toBe("limits.cpuPercent");
    expect(await option(loadModel(path, { limits: { memoryPercent: -1 } }))).toBe("limits.memoryPercent");
    expect(await option(loadModel(path, { limits: { cpu: 5 } as never }))).toBe("limits.cpu");
    expect(model.limits).toEqual({ cpuPercent: 100, memoryPercent: 100 });
  });
});

describe("what is used", () => {
  test("agrees with what the system says of the process, over the same window", async () => {
    if (!linux) return;
    await using model = await loadModel(path);
    const processMs = () => {
      const fields = readFileSync("/proc/self/stat", "utf8").split(") ")[1]?.split(" ") ?? [];
      return (Number(fields[11]) + Number(fields[12])) * 10;
    };
    const beginMs = performance.now();
    const before = processMs();
    model.resourceUsage();
    while (performance.now() - beginMs < 600) await model.generate("hello ".repeat(40), sameText);
    const usage = model.resourceUsage();
    const wallMs = performance.now() - beginMs;
    const expected = ((processMs() - before) / (wallMs * cpuCapacity())) * 100;
    expect(Math.abs(usage.process.cpuUsage - expected)).toBeLessThan(2);
    expect(Math.abs(usage.windowMs - wallMs)).toBeLessThan(50);
    expect(usage.cpuUsage).toBeWithin(1, usage.process.cpuUsage + 1);
    const kilobytes = /^Rss:\s+(\d+) kB$/m.exec(readFileSync("/proc/self/smaps_rollup", "utf8"))?.[1];
    expect(Math.abs(usage.process.memoryUsage - ((Number(kilobytes) * 1024) / usable) * 100)).toBeLessThan(0.5);
    expect(usage.memoryUsage).toBeWithin((statSync(path).size / 2 / usable) * 100, usage.process.memoryUsage);
    // Over the next window nothing runs.
    await Bun.sleep(100);
    expect(model.resourceUsage().cpuUsage).toBeLessThan(10);
  });

  test("by the engine is what its threads used, also those that have ended", async () => {
    if (!linux) return;
    const { engine } = await openEngine(path, {}, { threadCount: 3 });
    await run(engine, request(200, 100));
    const threads = engine.threadIds;
    const [low, told, high] = [cpuMs(threads), engine.usage.cpuNs / 1e6, cpuMs(threads)];
    expect(told).toBeWithin(low - 0.01, high + 0.01);
    await engine.configure({ threadCount: 1 });
    expect(engine.usage.cpuNs / 1e6).toBeGreaterThan(told);
    await engine.close();
    expect(() => engine.usage).toThrow("closed");
  });
});
