// What `model.profile` gives of a real, tiny model: every part, sums that agree between parts, the same counts in another process,
// files in every format, and what happens around it: errors, options, a model that is closed.

import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, readdirSync, readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { EngineError, OptionError, type TinyAIError } from "../../src/errors.ts";
import {
  type CacheStatistics,
  formatProfile,
  type GenerateOptions,
  loadModel,
  mergeProfiles,
  type ProfiledRun,
  ProfileMergeError,
  type Report,
} from "../../src/index.ts";
import { profiledRun } from "../../src/profiling/index.ts";
import { runScript } from "../engine/support.ts";
import { temporaryFolder } from "../support/folder.ts";
import { madeUpReport } from "../support/report.ts";
import { writeTinyModel } from "../support/tiny-model.ts";

const folder = temporaryFolder();
const path = folder.file("tiny.gguf");
writeTinyModel(path, { architecture: "gemma3", layers: 6, context: 512, dtype: "Q8_0" });
const model = await loadModel(path, { threads: { count: 2 }, prepared: false });
afterAll(() => model.close());

const options: GenerateOptions = { temperature: 0, maxLength: 50, ignoreEos: true, cachePrompt: false };
const prompts = ["once upon a time there was a model", "hello", "a b c d e f g"];
const run: ProfiledRun = await model.profile(() => model.generate(prompts, options), { roofline: false });

describe("a profiled run", () => {
  test("has its requests, whose times add up, and all of their tokens", () => {
    expect(run.requestCount).toBe(3);
    expect(run.requests.map(({ generatedTokens }) => generatedTokens)).toEqual([50, 50, 50]);
    expect(run.firstTokens.count).toBe(3);
    expect(run.betweenTokens.count).toBe(3 * 49);
    for (const row of run.requests) {
      const { tokenizingNs, queueNs, stepsNs, betweenNs, deliveryNs, javascriptNs, unattributedNs } = row;
      const parts = [tokenizingNs, queueNs, stepsNs, betweenNs, deliveryNs, javascriptNs, unattributedNs];
      for (const part of parts) expect(part).toBeGreaterThanOrEqual(0);
      expect(parts.reduce((sum, part) => sum + part, 0)).toBe(row.wallNs);
      expect(row.firstTokenNs).toBeGreaterThan(0);
      expect(row.wallNs / 1e6).toBeLessThanOrEqual(run.run.wallMs);
    }
  });

  test("counts loads and stores of every step, and finds the weights in them", () => {
    const { memory, memoryOps } = run;
    if (!memory) throw new Error("nothing was counted");
    expect(memoryOps).toBe(memory.loads + memory.stores);
    expect(memory.uncountedSteps).toBe(0);
    expect(memory.perStep.loads.count).toBe(run.steps.count);
    for (const op of run.byOp)
      expect(memory.byOp.some(({ index }) => index === op.index)).toBe(op.kind !== "gather" || op.rows > 0);
    // Every step reads all matrices but the embedding once at least.
    const weights = memory.byRegion.find(({ region }) => region === "weights")?.bytesRead ?? 0;
    const head = model
      .plan()
      .ops.filter(({ kind }) => kind === "matmul")
      .reduce((sum, op) => sum + op.bytesPerStep, 0);
    expect(weights).toBeGreaterThanOrEqual(head * run.steps.count);
    expect(memory.operations).toBe(run.byOp.reduce((sum, op) => sum + op.operations, 0));
  });

  test("has cache statistics that say where they come from", () => {
    const { cache } = run;
    if (!cache) throw new Error("nothing was simulated");
    expect(["simulator", "hardware counters"]).toContain(cache.source);
    expect(cache.description.length).toBeGreaterThan(20);
    expect(cache.hitRate).toBeGreaterThan(0.2);
    expect(cache.hitRate).toBeLessThanOrEqual(1);
    expect(cache.steps).toBe(run.steps.count);
  });

  test("has JavaScript's share, the system's and where it ran", () => {
    expect(run.javascript?.rows.find(({ name }) => name === "tokenizing")?.count).toBe(3);
    expect(run.javascript?.rows.find(({ name }) => name === "detokenizing")?.count).toBe(150);
    expect(run.javascript?.wallNs).toBe(Math.round(run.run.wallMs * 1e6));
    expect(run.system?.samples.length).toBeGreaterThan(0);
    expect(run.system?.allocations.count).toBe(0);
    expect(run.machine.cores).toBeGreaterThan(0);
    expect(run.machine.fingerprint).toMatch(/^[0-9a-f]{16}$/);
    expect(run.run).toMatchObject({ model: "tiny.gguf", architecture: "gemma3", threads: 2, contextLength: 512 });
    expect(run.run.options).toMatchObject({ screening: false, kvCache: "f16", prefixCache: true, prepared: false });
  });

  test("writes itself in every format, whole, and refuses others", async () => {
    const out = temporaryFolder();
    const names = ["r.folded", "r.html", "r.json", "r.prom", "r.speedscope.json", "r.trace.json", "r.txt"];
    for (const name of names) await run.write(out.file(name));
    expect(readdirSync(out.path).sort()).toEqual(names);
    expect(JSON.parse(readFileSync(out.file("r.json"), "utf8"))).toEqual(JSON.parse(JSON.stringify(run)));
    expect(readFileSync(out.file("r.txt"), "utf8")).toContain("tiny.gguf");
    expect(readFileSync(out.file("r.html"), "utf8")).toContain("<title>tiny.gguf");
    const trace = JSON.parse(readFileSync(out.file("r.trace.json"), "utf8"));
    expect(trace.traceEvents.length).toBeGreaterThan(run.steps.count * 10);
    expect(readFileSync(out.file("r.folded"), "utf8")).toContain(";");
    expect(readFileSync(out.file("r.prom"), "utf8")).toContain(`tinyai_steps_total{model="tiny.gguf",phase="prompt"} `);
    const capitals = out.file("R.HTML");
    await run.write(capitals);
    expect(readFileSync(capitals, "utf8")).toContain("<title>tiny.gguf");
    mkdirSync(out.file("folder.txt"));
    for (const [wrong, problem] of [
      [out.file("r.docx"), "r.docx has no ending that names a format; there are .trace.json"],
      [out.file("none/r.txt"), `path: there is no folder ${out.file("none")} for`],
      [out.file("folder.txt"), "folder.txt is a folder; name a file"],
      ["", 'path: is ""; the path of a file is expected'],
      ["r\0.txt", "the path of a file is expected"],
      [undefined, "path: is undefined; the path of a file is expected"],
      [pathToFileURL(out.file("r.txt")), "path: is a URL; give a path"],
    ] as const) {
      const refused = await run.write(wrong as string).then(String, (error: unknown) => error);
      expect(refused).toBeInstanceOf(OptionError);
      expect((refused as Error).message).toContain(problem);
    }
    const long = out.file(`${"r".repeat(300)}.txt`);
    const refused = await run.write(long).then(String, (error: unknown) => error);
    expect((refused as TinyAIError).code).toBe("file");
    expect((refused as TinyAIError).message).toBe(
      `${long}: cannot be written: ENAMETOOLONG: name too long; name another file`,
    );
    expect(readdirSync(out.path)).toHaveLength(names.length + 2);
  });
});

test("what traces lack is known of a report, but not in its JSON", () => {
  const { report, trace } = madeUpReport();
  expect(profiledRun(report, trace).untraced).toBe(0);
  const cut = profiledRun(report, { ...trace, dropped: 7, spansDropped: 2 });
  expect(cut.untraced).toBe(9);
  expect(JSON.stringify(cut)).toBe(JSON.stringify(report));
  expect(run.untraced).toBe(0);
});

describe("profiling", () => {
  test("deterministically counts the same in every process, on any number of threads", async () => {
    const source = (threads: number) => `
      const model = await loadModel(path, { threads: { count: ${threads} }, prepared: false });
      const work = () => model.generate("once upon a time there was a model", ${JSON.stringify(options)});
      const { memory, cache, memoryOps } = await model.profile(work, { deterministic: true });
      const { description, ...rest } = cache;
      console.log(JSON.stringify({ memory, memoryOps, rest }));
      await model.close();`;
    const outputs: string[] = [];
    for (const threads of [1, 2, 1]) {
      const { output, errors, code } = await runScript(folder, path, source(threads), { TINYAI_SIMD: "x86_64_v2" });
      expect([code, errors]).toEqual([0, ""]);
      outputs.push(output);
    }
    expect(outputs[1]).toBe(outputs[0] as string);
    expect(outputs[2]).toBe(outputs[0] as string);
  }, 60_000);

  test("without a prefetcher simulates the caches, and more of them miss", async () => {
    // More than a second level holds, so that a step streams it through.
    const large = folder.file("large.gguf");
    writeTinyModel(large, { dtype: "F32", width: 256, ffn: 768, vocabulary: 1024, layers: 4 });
    await using streamed = await loadModel(large, { threads: { count: 1 }, prepared: false });
    const work = () => streamed.generate("hello", { ...options, maxLength: 4 });
    const cacheOf = async (prefetcher?: boolean) =>
      (await streamed.profile(work, { prefetcher, roofline: false })).cache as CacheStatistics;
    const [modelled, without] = [await cacheOf(), await cacheOf(false)];
    expect(without).toMatchObject({ source: "simulator", prefetcher: false });
    expect(without.description).toEndWith(" No prefetcher was modelled.");
    expect(modelled.prefetcher).toBe(true);
    expect(modelled.description).not.toContain("No prefetcher was modelled");
    // Where the CPU's counters tell, they are another measure.
    if (modelled.source !== "simulator") return;
    const misses = ({ levels }: CacheStatistics) => levels[1]?.misses ?? 0;
    expect(misses(without)).toBeGreaterThan(2 * misses(modelled));
  }, 30_000);

  test("of several runs are merged, also from files", async () => {
    const once = () => model.profile(() => model.generate("hello", options), { cache: false, roofline: false });
    const runs = [await once(), await once()];
    const files = runs.map((_, index) => folder.file(`run-${index}.json`));
    for (const [index, each] of runs.entries()) await each.write(files[index] as string);
    const read = files.map((file): Report => JSON.parse(readFileSync(file, "utf8")));
    const merged = mergeProfiles(read);
    expect(merged).toEqual(mergeProfiles(runs));
    expect(merged.steps.count).toBe(runs.reduce((sum, { steps }) => sum + steps.count, 0));
    expect(merged.steps.histogram?.count).toBe(merged.steps.count);
    expect(merged.byOp.map(({ name }) => name)).toEqual(runs[0]?.byOp.map(({ name }) => name) as string[]);
    expect(formatProfile(merged, { width: 100, color: false })).toContain("matmul");
    const bare = { ...(read[0] as Report), steps: { ...(read[0] as Report).steps, histogram: undefined as never } };
    expect(() => mergeProfiles([bare])).toThrow(ProfileMergeError);
  });

  test("from start to stop gives the same parts at once", async () => {
    model.startProfiling({ cache: false });
    await model.generate("hello", options);
    const stopped = model.stopProfiling();
    expect(stopped.totalTime).toBeGreaterThan(0);
    expect(stopped.memoryOps).toBeGreaterThan(0);
    expect(stopped.cache).toBeNull();
    expect(stopped.requestCount).toBe(1);
  });

  test("of nothing, of scores, and of what fails is told apart", async () => {
    const nothing = await model.profile(() => {}, { roofline: false });
    expect([nothing.steps.count, nothing.memoryOps, nothing.requestCount]).toEqual([0, null, 0]);
    const scored = await model.profile(() => model.score("once upon a time"), { roofline: false });
    expect(scored.requestCount).toBe(1);
    expect(scored.betweenTokens.count).toBe(0);
    expect(scored.memory?.sampling.loads).toBeGreaterThan(0);
    const failing = model.profile(() => Promise.reject(new Error("mine")));
    await expect(failing).rejects.toThrow("mine");
    const stopping = model.profile(() => {
      model.stopProfiling();
      throw new Error("mine too");
    });
    await expect(stopping).rejects.toThrow("mine too");
    const restarting = model.profile(() => {
      model.stopProfiling();
      model.startProfiling();
    });
    await expect(restarting).rejects.toThrow("the work ended the recording");
    model.cancelProfiling();
    // And it is over: the next one begins.
    model.startProfiling();
    expect(() => model.startProfiling()).toThrow(EngineError);
    model.stopProfiling();
    expect(() => model.stopProfiling()).toThrow(EngineError);
  });

  test("refuses work that is none", async () => {
    for (const [work, problem] of [
      [Promise.resolve(), "work: is a promise, whose work has begun; give a function that does the work"],
      [undefined, "work: is undefined; give a function that does the work"],
      ["hello", 'work: is "hello"; give a function'],
    ] as const) {
      const refused = await model.profile(work as never, { roofline: false }).then(String, (error: unknown) => error);
      expect(refused).toBeInstanceOf(OptionError);
      expect((refused as Error).message).toStartWith(problem);
    }
    await model.profile(() => {}, { roofline: false });
  });

  test("refuses options that are none", () => {
    const wrong = [
      { caches: true },
      { cache: 1 },
      { sampleIntervalMs: 5 },
      { deterministic: "yes" },
      { prefetcher: 1 },
    ];
    for (const options of wrong) expect(() => model.startProfiling(options as never)).toThrow(OptionError);
    model.startProfiling();
    model.stopProfiling();
  });

  test("leaves no trace of itself on what is generated", async () => {
    const plain = await model.generate("once upon a time", options);
    let profiled: typeof plain | undefined;
    await model.profile(async () => {
      profiled = await model.generate("once upon a time", options);
    });
    expect(profiled?.tokens).toEqual(plain.tokens);
    expect(profiled?.logprobs).toEqual(plain.logprobs);
  }, 30_000);
});
