// What happens to the model file while it is being loaded, and the engine's own doors: events that nobody fetches, batches,
// programs that are not programs.

import { describe, expect, test } from "bun:test";
import { chmodSync, renameSync, rmSync, statSync, truncateSync } from "node:fs";
import { join } from "node:path";
import type { EngineToken } from "../../src/engine/engine.ts";
import { levelsOf } from "../../src/engine/settings.ts";
import { EngineError, ModelFileError, OptionError } from "../../src/errors.ts";
import { loadModel } from "../../src/index.ts";
import { Event, Header } from "../../src/plan/layout.ts";
import { openEngine, planFile, startEngine } from "../support/engine.ts";
import { temporaryFolder } from "../support/folder.ts";
import { tinyModel, writeTinyModel } from "../support/gguf-writer.ts";

const folder = temporaryFolder();

async function reason(promise: Promise<unknown>): Promise<Error> {
  return promise.then(
    () => new Error("nothing was thrown"),
    (error) => error,
  );
}

describe("a file that", () => {
  test("is cut short after its header was read ends the loading, wherever it is cut", async () => {
    for (const part of [0, 0.3, 0.9, 0.9999]) {
      const path = folder.file(`cut${part}.gguf`);
      writeTinyModel(path);
      const plan = planFile(path);
      truncateSync(path, Math.floor(statSync(path).size * part));
      const error = await reason(startEngine(path, plan));
      expect(error).toBeInstanceOf(EngineError);
      expect(error.message).toStartWith(path);
      expect(error.message).toContain("cut short");
    }
  });

  test("is deleted after its header was read ends the loading", async () => {
    const path = folder.file("deleted.gguf");
    writeTinyModel(path);
    const plan = planFile(path);
    rmSync(path);
    const error = await reason(startEngine(path, plan));
    expect(error).toBeInstanceOf(EngineError);
    expect(error.message).toStartWith(path);
    expect(error.message).toContain("cannot be opened");
  });

  test("is moved or deleted once it is loaded is not missed", async () => {
    const path = folder.file("moved.gguf");
    writeTinyModel(path);
    await using model = await loadModel(path);
    renameSync(path, `${path}.away`);
    truncateSync(`${path}.away`, 100);
    expect((await model.generate("hello", { maxLength: 4, ignoreEos: true })).tokens.length).toBe(4);
  });

  test("does not exist, is a folder, or is empty is refused by its path", async () => {
    for (const path of [join(folder.path, "none.gguf"), folder.path, folder.write("empty.gguf", "")]) {
      const error = await reason(loadModel(path));
      expect(error).toBeInstanceOf(ModelFileError);
      expect(error.message).toContain(path);
    }
  });

  test("cannot be read is refused by its path", async () => {
    if (process.getuid?.() === 0) return; // Root reads everything.
    const path = folder.file("secret.gguf");
    writeTinyModel(path);
    chmodSync(path, 0);
    expect(await reason(loadModel(path))).toBeInstanceOf(ModelFileError);
  });

  test("is read-only, or has a name of another script, is opened", async () => {
    const path = folder.file("модель 模型 é.gguf");
    writeTinyModel(path);
    chmodSync(path, 0o444);
    await using model = await loadModel(path);
    expect((await model.generate("hello", { maxLength: 2, ignoreEos: true })).tokens.length).toBe(2);
  });
});

test("progress is told up to the whole", async () => {
  const path = folder.file("progress.gguf");
  writeTinyModel(path);
  const seen: [number, number][] = [];
  await using model = await loadModel(path, { onProgress: (done, total) => seen.push([done, total]) });
  const last = seen.at(-1);
  expect(last?.[0]).toBe(last?.[1] ?? -1);
  expect(last?.[1]).toBe(model.plan().sourceBytes);
  for (const [done, total] of seen) expect(done).toBeLessThanOrEqual(total);
});

test("a name that no level has is refused with those that there are", async () => {
  const path = folder.file("named.gguf");
  writeTinyModel(path);
  process.env["TINYAI_SIMD"] = "avx1024";
  try {
    const error = await reason(loadModel(path));
    expect(error).toBeInstanceOf(OptionError);
    expect(error.message).toContain("avx1024");
    expect(error.message).toContain("scalar");
  } finally {
    delete process.env["TINYAI_SIMD"];
  }
});

test("a program that is damaged anywhere in its header is refused and runs nothing", async () => {
  const path = folder.file("program.gguf");
  writeTinyModel(path);
  const { openLibrary } = await import("../../src/engine/library.ts");
  const { Engine } = await import("../../src/engine/engine.ts");
  const library = await openLibrary();
  const options = { threadCount: 1, levels: levelsOf(0), affinity: undefined, events: false, sourcePaths: [path] };
  let refused = 0;
  for (const [name, field] of Header.fields) {
    // Sizes that are merely too large are the system's to refuse.
    if (
      name.endsWith("_bytes") ||
      ["context_max", "columns_max", "head_width_max", "heads_per_kv_head_max"].includes(name)
    )
      continue;
    const plan = planFile(path);
    const program = plan.program.slice();
    program.fill(0xff, field.offset, field.offset + 4);
    const error = await reason(Engine.create(library, { ...plan, program }, options).then((engine) => engine.close()));
    if (error instanceof EngineError) refused += 1;
    else expect(`${name}: ${error.message}`).toBe(`${name}: nothing was thrown`);
  }
  expect(refused).toBeGreaterThan(12);
});

describe("the engine", () => {
  const path = folder.file("engine.gguf");
  tinyModel({ context: 1024 }).write(path);
  const request = {
    kind: "generate",
    generateMax: 1000,
    seed: 1n,
    temperature: 1,
    topP: 1,
    minP: 0,
    topK: 0,
    repeatPenalty: 1,
    repeatLast: 0,
    stopTokens: [],
    topCount: 0,
    chunkRows: 0,
    dumpLogits: false,
    sharesPrefix: true,
  } as const;

  test("runs no more sequences in a step than it was planned for, and as many where there are enough", async () => {
    const { engine } = await openEngine(path, { batchMax: 5 }, { events: true });
    const counts: number[] = [];
    const count = (events: Uint8Array, thread: number) => {
      const view = new DataView(events.buffer, events.byteOffset, events.byteLength);
      for (let at = 0; at < events.length; at += Event.size) {
        if (view.getUint8(at + Event.offset("kind")) !== 5) continue;
        expect(thread).toBe(0);
        counts.push(view.getUint32(at + Event.offset("aux"), true));
      }
    };
    engine.watch({ events: count });
    const seen: number[] = [];
    await Promise.all(
      Array.from({ length: 20 }, (_, index) => {
        const { promise, resolve, reject } = Promise.withResolvers<void>();
        engine.submit(
          { ...request, tokens: Uint32Array.of(1, 300 + index), generateMax: 30 },
          { onToken: ({ sequences }) => seen.push(sequences), onFinish: () => resolve(), onError: reject },
        );
        return promise;
      }),
    );
    engine.drainEvents();
    await engine.close();
    expect(Math.max(...counts)).toBe(5);
    expect(Math.max(...seen)).toBe(5);
    // Every token of every step was told with the number of sequences that its step's event has.
    expect(counts.reduce((sum, count) => sum + count, 0)).toBe(seen.length);
  });

  test("counts the events that nobody fetched in time, and loses no token", async () => {
    const deep = folder.file("deep.gguf");
    writeTinyModel(deep, { layers: 8, context: 1024 });
    const { engine } = await openEngine(deep, { batchMax: 1 }, { events: true });
    engine.watch({ events: () => {} });
    const requests = 16;
    const tokens: EngineToken[] = [];
    const done = Array.from({ length: requests }, () => {
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      const listener = {
        onToken: (token: EngineToken) => tokens.push(token),
        onFinish: () => resolve(),
        onError: reject,
      };
      engine.submit({ ...request, tokens: Uint32Array.of(1) }, listener);
      return promise;
    });
    // 16,000 steps of more than a hundred events do not fit the ring, and their records do.
    const deadline = performance.now() + 20_000;
    while (engine.eventsLost === 0 && performance.now() < deadline);
    expect(engine.eventsLost).toBeGreaterThan(0);
    await Promise.all(done);
    expect(tokens.length).toBe(1000 * requests);
    const steps = new Set(tokens.map(({ step }) => step));
    expect(steps.size).toBe(1000 * requests);
    const lost = engine.eventsLost;
    await engine.close();
    expect(engine.eventsLost).toBeGreaterThanOrEqual(lost);
  });

  test("refuses what does not fit its program", async () => {
    const { engine } = await openEngine(path);
    const refused = (changes: object) => {
      const { promise, resolve, reject } = Promise.withResolvers<string>();
      engine.submit(
        { ...request, tokens: Uint32Array.of(1), ...changes },
        { onToken: () => {}, onFinish: (finish) => resolve(finish), onError: reject },
      );
      return reason(promise);
    };
    for (const changes of [
      { tokens: new Uint32Array(0) },
      { tokens: Uint32Array.of(512) },
      { tokens: new Uint32Array(1025) },
      { tokens: new Uint32Array(25) },
      { topCount: 257 },
    ]) {
      expect(await refused(changes)).toBeInstanceOf(EngineError);
    }
    expect(engine.pending).toBe(0);
    await engine.close();
  });
});
