// JavaScript's share of real generations: rows that add up to less than the wall time and agree with the thread's CPU time, and
// collections that JavaScriptCore's own log confirms.

import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { JavaScriptRecorder } from "../../profiler/javascript.ts";
import type { JavaScriptShare } from "../../profiler/report.ts";
import { watchCollections } from "../../src/engine/collections.ts";
import { openLibrary } from "../../src/engine/library.ts";
import { complete, encodePrompt, streamTokens } from "../../src/generate/generate.ts";
import { checkGenerateOptions } from "../../src/generate/options.ts";
import { type OpenedEngine, openEngine } from "../support/engine.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyModel } from "../support/gguf-writer.ts";
import { runScript } from "./support.ts";

const folder = temporaryFolder();
const path = folder.file("tiny.gguf");
writeTinyModel(path);
const root = join(import.meta.dir, "../..");

async function recorderFor(opened: OpenedEngine, spansMax = 0): Promise<JavaScriptRecorder> {
  const library = await openLibrary();
  return new JavaScriptRecorder({
    nowNs: () => opened.engine.nowNs,
    cpuNs: () => library.symbols.tinyai_thread_cpu(),
    collections: watchCollections(library),
    spansMax,
  });
}

function rows(
  share: Pick<JavaScriptShare, "rows">,
): Record<string, { readonly count: number; readonly totalNs: number }> {
  return Object.fromEntries(share.rows.map(({ name, ...rest }) => [name, rest]));
}

/** Holds the thread for a while. */
function compute(ms: number): void {
  const end = performance.now() + ms;
  while (performance.now() < end);
}

describe("while requests run", () => {
  test("rows of several sequences side by side add up to less than the wall time, and to about the CPU time", async () => {
    const opened = await openEngine(path);
    const recorder = await recorderFor(opened, 1e5);
    opened.engine.javascript = recorder;
    const endWatching = opened.engine.watch({ events: () => {} });
    const options = checkGenerateOptions({ maxLength: 60, ignoreEos: true, seed: 1n }, 16);
    const one = async (text: string) => {
      const stream = streamTokens(opened, await encodePrompt(opened, text, options), options);
      for await (const _ of stream) compute(0.1);
    };
    await Promise.all(["hello", "hello world", "a", "bc"].map(one));
    opened.engine.drainEvents();
    const share = recorder.result();
    opened.engine.javascript = undefined;
    endWatching();
    const by = rows(share);
    const sum = share.rows.reduce((total, { totalNs }) => total + totalNs, 0);
    expect(sum).toBeLessThanOrEqual(share.wallNs);
    expect(by["tokenizing"]?.count).toBe(4);
    expect(by["submitting"]?.count).toBe(4);
    expect(by["detokenizing"]?.count).toBe(240);
    expect(by["records"]?.count).toBeGreaterThan(0);
    expect(by["profiling"]?.count).toBeGreaterThan(0);
    // 240 times 0.1 ms, whatever else microtasks cost.
    expect(by["consumer"]?.totalNs).toBeGreaterThan(0.95 * 24e6);
    // The thread's CPU time has all of them in it, unless the system took the CPU away meanwhile.
    expect(share.cpuNs).toBeGreaterThan(0.3 * sum);
    expect(share.cpuNs).toBeLessThanOrEqual(share.wallNs * 1.02 + 1e6);
    for (const { startNs, endNs } of recorder.spans) expect(startNs).toBeLessThanOrEqual(endNs);
    await opened.engine.close();
  });

  test("what a consumer waits for is not its time", async () => {
    const opened = await openEngine(path);
    const recorder = await recorderFor(opened);
    opened.engine.javascript = recorder;
    const options = checkGenerateOptions({ maxLength: 8, ignoreEos: true, seed: 1n }, 16);
    const stream = streamTokens(opened, await encodePrompt(opened, "hello", options), options);
    for await (const _ of stream) await Bun.sleep(20);
    const share = recorder.result();
    expect(share.wallNs).toBeGreaterThan(160e6);
    expect(rows(share)["consumer"]?.totalNs).toBeLessThan(40e6);
    await opened.engine.close();
  });

  test("a recorder that comes and goes in the middle of requests leaves them as they are", async () => {
    const opened = await openEngine(path);
    const options = checkGenerateOptions({ maxLength: 40, ignoreEos: true, seed: 1n }, 16);
    const prompt = await encodePrompt(opened, "hello", options);
    const plain = await complete(streamTokens(opened, prompt, options));
    const tokens: number[] = [];
    let count = 0;
    for await (const { token } of streamTokens(opened, prompt, options)) {
      opened.engine.javascript = count++ % 3 === 0 ? await recorderFor(opened) : undefined;
      if (token !== undefined) tokens.push(token);
    }
    expect(tokens).toEqual([...plain.tokens]);
    await opened.engine.close();
  });
});

test("as many collections are noticed as JavaScriptCore logs, and pauses come near those that it logs", async () => {
  const result = await runScript(
    folder,
    path,
    `
    import { JavaScriptRecorder } from ${JSON.stringify(join(root, "profiler/javascript.ts"))};
    import { JavaScriptWork } from ${JSON.stringify(join(root, "profiler/javascript-work.ts"))};
    import { watchCollections } from ${JSON.stringify(join(root, "src/engine/collections.ts"))};
    import { openLibrary } from ${JSON.stringify(join(root, "src/engine/library.ts"))};
    const library = await openLibrary();
    const collections = watchCollections(library);
    Bun.gc(true);
    const recorder = new JavaScriptRecorder({ nowNs: library.symbols.tinyai_clock_now, collections });
    console.error("BEGIN");
    let kept = [];
    for (let piece = 0; piece < 600; piece++) {
      recorder.enter(JavaScriptWork.records);
      for (let object = 0; object < 5000; object++) {
        kept.push({ object });
        if (kept.length > 50000) kept = [];
      }
      recorder.leave();
      if (piece % 10 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    const share = recorder.result();
    console.error("END");
    console.log(JSON.stringify(share));
  `,
    { BUN_JSC_logGC: "1" },
  );
  expect(result.code).toBe(0);
  const log = result.errors.slice(result.errors.indexOf("BEGIN"), result.errors.lastIndexOf("END"));
  const logged = log.split("GC END!").length - 1;
  expect(logged).toBeGreaterThan(3);
  const share = JSON.parse(result.output) as JavaScriptShare;
  const noticed = Number(/^\d+/.exec(share.garbageCollection)?.[0]);
  expect(noticed).toBe(logged);
  const pausesMs = [...log.matchAll(/p=([0-9.]+)ms/g)].reduce((sum, [, ms]) => sum + Number(ms), 0);
  const timedMs = (rows(share)["garbageCollection"]?.totalNs ?? 0) / 1e6;
  // The log leaves out stopping and starting, and the last collection may have come outside of the work.
  expect(timedMs).toBeGreaterThan(0.5 * pausesMs);
  expect(timedMs).toBeLessThan(2 * pausesMs + 10);
});
