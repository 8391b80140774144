// What a model keeps for reuse: pages, arenas and places come back from every request, however it ends; no request allocates; sessions
// are counted and pooled; and whatever order things are closed in, nothing is left.

import { beforeAll, describe, expect, test } from "bun:test";
import { nativeMemory } from "../../src/engine/allocations.ts";
import { HeldSequence } from "../../src/engine/held.ts";
import { openLibrary } from "../../src/engine/library.ts";
import { complete } from "../../src/generate/generate.ts";
import { EngineError, loadModel, type Model, OptionError, type Session } from "../../src/index.ts";
import { runScript } from "../engine/support.ts";
import { openEngine } from "../support/engine.ts";
import { temporaryFolder } from "../support/folder.ts";
import { Random } from "../support/random.ts";
import { writeTinyEncoder } from "../support/tiny-encoder.ts";
import { writeTinyModel } from "../support/tiny-model.ts";

const folder = temporaryFolder();
const path = folder.file("gemma.gguf");
writeTinyModel(path, { architecture: "gemma3", layers: 7, slidingWindow: 100, context: 1024 });
const encoderPath = folder.file("encoder.gguf");
writeTinyEncoder(encoderPath);
const library = await openLibrary();
const random = new Random(9);
const tokens = (length: number) => Uint32Array.from({ length }, () => 3 + random.below(500));
const work = { ignoreEos: true, maxLength: 10, seed: 1 } as const;

async function idle(model: Model): Promise<void> {
  while (model.resourcePool.requests > 0) await Bun.sleep(1);
}

describe("pages of keys and values", () => {
  test("are held by a sequence under way, group by group, and empty or kept once it has ended", async () => {
    const { engine, plan } = await openEngine(path);
    expect(engine.pages.map(({ inUse, touched }) => [inUse, touched])).toEqual(plan.kvGroups.map(() => [0, 0]));
    const held = await HeldSequence.open(engine, "hold", tokens(300));
    // 300 positions are in 5 pages, of which a window of 100 looks at the last 2.
    expect(engine.pages.map(({ inUse }) => inUse)).toEqual(plan.kvGroups.map(({ window }) => (window === 0 ? 5 : 2)));
    await held.release();
    for (const { total, inUse, kept, empty, touched } of engine.pages) {
      expect([inUse, kept + empty]).toEqual([0, total]);
      expect(kept).toBeGreaterThanOrEqual(2);
      expect(touched).toBeGreaterThanOrEqual(5);
    }
    await engine.close();
  });

  test("are summed up for a model, in pages and in bytes", async () => {
    await using model = await loadModel(path);
    const { kvGroups, arenaBytes } = model.plan();
    const total = kvGroups.reduce((sum, { pageCount }) => sum + pageCount, 0);
    const pages = { total, inUse: 0, kept: 0, empty: total, touched: 0 };
    expect(model.resourcePool).toMatchObject({ pages, pageBytes: 0, arenaBytes, requests: 0, sessions: 0 });
    await model.generate(tokens(100), work);
    await idle(model);
    const after = model.resourcePool;
    // 110 positions are in 2 pages of each group.
    expect(after.pages).toEqual({
      total,
      inUse: 0,
      kept: 2 * kvGroups.length,
      empty: total - 2 * kvGroups.length,
      touched: 2 * kvGroups.length,
    });
    expect(after.pageBytes).toBe(kvGroups.reduce((sum, { pageBytes }) => sum + 2 * pageBytes, 0));
    expect(after.pageGroups.map(({ window, layers }) => ({ window, layers }))).toEqual(
      kvGroups.map(({ window, layers }) => ({ window, layers })),
    );
  });

  test("come back from requests of every kind, and from those that were aborted, left or refused", async () => {
    await using model = await loadModel(path, { prefixCache: false });
    const file = folder.file("turns.session");
    const saved = await model.session();
    await saved.generate(tokens(70), work);
    await saved.save(file);
    const ways: Record<string, () => Promise<unknown>> = {
      generate: () => model.generate(tokens(100), work),
      batch: () => model.generate([tokens(10), tokens(200), tokens(65)], work),
      score: () => model.score(tokens(200)),
      session: async () => (await model.session()).generate(tokens(80), work),
      "loaded session": () => model.loadSession(file),
      abort: async () => {
        const controller = new AbortController();
        const running = model.generate(tokens(200), { ...work, maxLength: 500, signal: controller.signal });
        await Bun.sleep(2);
        controller.abort();
        await running.catch(() => {});
      },
      left: async () => {
        for await (const _ of model.stream(tokens(100), { ...work, maxLength: 500 })) break;
      },
      refused: () => model.generate(tokens(100), { ...work, maxLength: 5000 }).catch(() => {}),
    };
    for (const [way, run] of Object.entries(ways)) {
      await run();
      await idle(model);
      expect({ way, ...model.resourcePool.pages }).toMatchObject({ way, inUse: 0 });
    }
    // Those of sessions are kept even so, to go on from.
    const { kept, empty, total } = model.resourcePool.pages;
    expect(kept + empty).toBe(total);
  });

  test("cost no more memory the thousandth time than the first", async () => {
    await using model = await loadModel(path, { prefixCache: false });
    const prompt = tokens(80);
    const short = { ...work, maxLength: 2 };
    await model.generate(prompt, short);
    const { pageBytes, pages } = model.resourcePool;
    expect(pages.touched).toBeGreaterThan(0);
    for (let time = 2; time <= 1000; time++) await model.generate(prompt, short);
    expect(model.resourcePool).toMatchObject({ pageBytes, pages: { kept: 0 } });
  });
});

describe("no request allocates", () => {
  async function expectsNone(run: () => Promise<unknown>): Promise<void> {
    await run();
    const before = nativeMemory(library);
    for (let round = 0; round < 5; round++) await run();
    expect(nativeMemory(library)).toEqual(before);
  }

  test("of a language model", async () => {
    await using model = await loadModel(path);
    await expectsNone(() => model.generate(tokens(100), work));
    await expectsNone(() => model.generate([tokens(10), tokens(200), tokens(65)], { ...work, topLogprobs: 3 }));
    await expectsNone(() => model.generate(tokens(50), { ...work, speculation: "lookup" }));
    await expectsNone(() => model.score(tokens(200)));
    await expectsNone(() => model.embed([tokens(30), tokens(3)]));
    const session = await model.session();
    await expectsNone(() => session.generate(tokens(9), work));
    await expectsNone(async () => {
      await session.save(folder.file("flat.session"));
      (await model.loadSession(folder.file("flat.session"))).close();
    });
    await expectsNone(async () => {
      for await (const _ of model.stream(tokens(30), { ...work, maxLength: 100 })) break;
      await idle(model);
    });
  });

  test("of an encoder", async () => {
    await using model = await loadModel(encoderPath);
    await expectsNone(() => model.embed(["once upon a time", "time"]));
    await expectsNone(async () => {
      for await (const _ of model.embedStream(["once", "upon", "a", "time"]));
    });
  });
});

describe("a session", () => {
  test("that is closed takes no turn and no longer counts, and its pages are others'", async () => {
    await using model = await loadModel(path);
    const session = await model.session();
    expect(model.resourcePool.sessions).toBe(1);
    {
      using other = await model.session();
      await other.generate(tokens(5), work);
      expect(model.resourcePool.sessions).toBe(2);
    }
    expect(model.resourcePool.sessions).toBe(1);
    await session.generate(tokens(100), work);
    session.close();
    session.close();
    expect(model.resourcePool).toMatchObject({ sessions: 0, pages: { inUse: 0 } });
    expect(session.tokens.length).toBe(0);
    await expect(session.generate(tokens(3), work)).rejects.toThrow(EngineError);
    await expect(session.save(folder.file("closed.session"))).rejects.toThrow("closed");
  });

  test("that is closed in the middle of a turn lets it end", async () => {
    await using model = await loadModel(path);
    const session = await model.session();
    const turn = session.generate(tokens(100), { ...work, maxLength: 50 });
    session.close();
    expect((await turn).tokens.length).toBe(50);
    expect(session.tokens.length).toBe(0);
  });

  test("that nobody holds any more does not count", async () => {
    await using model = await loadModel(path);
    await (async () => {
      for (let index = 0; index < 20; index++) await model.session();
    })();
    for (let tries = 0; tries < 50 && model.resourcePool.sessions > 5; tries++) {
      Bun.gc(true);
      await Bun.sleep(1);
    }
    // A collector that looks at the stack may still see one.
    expect(model.resourcePool.sessions).toBeLessThan(5);
  });
});

describe("a pool of sessions", () => {
  test("goes on from what a key said before, and begins anew for others", async () => {
    await using model = await loadModel(path);
    using sessions = model.sessionPool();
    const one = await sessions.use("one", (session) => session.generate(tokens(100), work));
    const two = await sessions.use("two", (session) => session.generate(tokens(100), work));
    const more = await sessions.use("one", (session) => session.generate(tokens(5), work));
    expect([one.reusedTokens, two.reusedTokens]).toEqual([0, 0]);
    expect(more.promptTokens).toBe(100 + 10 + 5);
    expect(more.reusedTokens).toBeGreaterThan(90);
    expect(sessions.size).toBe(2);
  });

  test("lets turns of one key follow each other, and those of others run beside them", async () => {
    await using model = await loadModel(path);
    using sessions = model.sessionPool();
    const order: string[] = [];
    const gates = { a: Promise.withResolvers<void>(), b: Promise.withResolvers<void>() };
    const enter = (key: "a" | "b", name: string) =>
      sessions.use(key, async () => {
        order.push(`${name} begins`);
        await gates[key].promise;
        order.push(`${name} ends`);
      });
    const all = [enter("a", "a1"), enter("a", "a2"), enter("b", "b1")];
    await Bun.sleep(1);
    gates.b.resolve();
    await all[2];
    gates.a.resolve();
    await Promise.all(all);
    expect(order).toEqual(["a1 begins", "b1 begins", "b1 ends", "a1 ends", "a2 begins", "a2 ends"]);
  });

  test("keeps a session whose work failed, and lets the next go on", async () => {
    await using model = await loadModel(path);
    using sessions = model.sessionPool();
    await sessions.use("a", (session) => session.generate(tokens(10), work));
    await expect(sessions.use("a", () => Promise.reject(new RangeError("mine")))).rejects.toThrow("mine");
    expect(await sessions.use("a", (session) => session.tokens.length)).toBe(20);
  });

  test("lets the longest unused go beyond its bound, but none that is in use", async () => {
    await using model = await loadModel(path);
    using sessions = model.sessionPool({ max: 2 });
    const seen = new Map<string, Session>();
    const use = (key: string) => sessions.use(key, (session) => void seen.set(key, session));
    const gate = Promise.withResolvers<void>();
    const long = sessions.use("long", () => gate.promise);
    for (const key of ["a", "b", "c"]) await use(key);
    expect(sessions.size).toBe(2);
    expect(model.resourcePool.sessions).toBe(2);
    expect(sessions.delete("b")).toBe(false);
    gate.resolve();
    await long;
    const before = seen.get("c");
    await use("c");
    expect(seen.get("c")).toBe(before as Session);
    await expect((seen.get("a") as Session).generate(tokens(3), work)).rejects.toThrow("closed");
    sessions.clear();
    await Bun.sleep(0);
    expect([sessions.size, model.resourcePool.sessions]).toEqual([0, 0]);
  });

  test("refuses what is no key and no bound", async () => {
    await using model = await loadModel(path);
    expect(() => model.sessionPool({ max: 0 })).toThrow(OptionError);
    expect(() => model.sessionPool().use(7 as never, () => {})).toThrow(OptionError);
  });
});

describe("closing", () => {
  let before = nativeMemory(library);
  beforeAll(async () => {
    // What others have closed is given back a moment later.
    for (let live = Number.NaN; live !== before.liveBytes; before = nativeMemory(library)) {
      live = before.liveBytes;
      await Bun.sleep(50);
    }
  });
  const left = () => {
    const { liveBytes, reservedBytes } = nativeMemory(library);
    return [liveBytes - before.liveBytes, reservedBytes - before.reservedBytes];
  };
  const long = { ...work, maxLength: 800 } as const;
  const outcome = (promise: Promise<unknown>) =>
    promise.then(
      () => "done",
      (error) => error.code,
    );

  test("ends requests of every kind, once or twice, and leaves nothing", async () => {
    const model = await loadModel(path);
    const session = await model.session();
    const running = [
      model.generate(tokens(100), long),
      model.generate([tokens(3), tokens(4)], long),
      session.generate(tokens(3), long),
      model.score(tokens(1000)),
      model.embed(Array.from({ length: 100 }, () => tokens(900))),
      ...Array.from({ length: 100 }, () => model.generate(tokens(100), long)),
    ].map(outcome);
    await Bun.sleep(3);
    await Promise.all([model.close(), model.close()]);
    await model.close();
    expect(new Set(await Promise.all(running)).difference(new Set(["engine", "done"])).size).toBe(0);
    expect(left()).toEqual([0, 0]);
    expect(() => model.resourcePool).toThrow(EngineError);
    await expect(model.generate("late")).rejects.toThrow("closed");
    await expect(session.generate("late")).rejects.toThrow("closed");
  });

  test("may come from within a stream, before its first piece, and after its last", async () => {
    const model = await loadModel(path);
    const stream = model.stream(tokens(3), long);
    await stream.next();
    await model.close();
    // What came before can still be read; whether that is all of it is the machine's affair.
    expect(["engine", "done"]).toContain(await outcome(complete(stream)));
    const other = await loadModel(path);
    const unread = other.stream(tokens(3), long);
    await other.close();
    await expect(unread.next()).rejects.toThrow(EngineError);
    expect(left()).toEqual([0, 0]);
  });

  test("may come while it is profiled and watched, and streams of vectors run", async () => {
    const model = await loadModel(path);
    const monitor = model.monitor();
    model.startProfiling();
    const vectors = model.embedStream([tokens(3), tokens(4)]);
    await vectors.next();
    await model.close();
    monitor.close();
    await vectors.next().catch(() => {});
    expect(left()).toEqual([0, 0]);
  });

  test("waits for nothing when loading is given up, and leaves nothing", async () => {
    for (const delayMs of [0, 0, 1, 2, 4]) {
      const controller = new AbortController();
      const loading = loadModel(path, { signal: controller.signal });
      setTimeout(() => controller.abort(), delayMs);
      await loading.then(
        (model) => model.close(),
        (error) => expect(error.name).toBe("AbortError"),
      );
    }
    expect(left()).toEqual([0, 0]);
  });
});

test.skipIf(process.platform !== "linux")(
  "rounds of loading, generating and closing leave the process as it was",
  async () => {
    const { output, errors } = await runScript(
      folder,
      path,
      `
    import { readdirSync, readFileSync } from "node:fs";
    import { heapStats } from "bun:jsc";
    const look = async () => {
      // Memory that was freed goes back to the system a moment later.
      for (let turn = 0; turn < 6; turn++) {
        Bun.gc(true);
        await Bun.sleep(40);
      }
      const status = readFileSync("/proc/self/status", "utf8");
      const figure = (name) => Number(new RegExp("^" + name + ":\\\\s+(\\\\d+)", "m").exec(status)?.[1]);
      const files = readdirSync("/proc/self/fd").length;
      return { resident: figure("VmRSS"), threads: figure("Threads"), files, objects: heapStats().objectCount };
    };
    let before;
    for (let round = 1; round <= 160; round++) {
      await using model = await loadModel(path);
      await model.generate("hello world", { maxLength: 4, ignoreEos: true });
      if (round === 60) before = await look();
    }
    console.log(JSON.stringify([before, await look()]));
  `,
      // What Bun compiles meanwhile is most of what grows: it optimises nothing here, and has compiled all after some rounds.
      { BUN_JSC_useDFGJIT: "0", TINYAI_TUNING: "off" },
    );
    expect(errors).toBe("");
    const [before, after] = JSON.parse(output);
    expect(after.resident).toBeLessThan(before.resident * 1.02);
    expect(after.objects).toBeLessThan(before.objects * 1.02);
    expect(after.threads).toBeLessThanOrEqual(before.threads + 2); // Bun's own pool may have grown.
    expect(after.files).toBeLessThanOrEqual(before.files);
  },
  30_000,
);
