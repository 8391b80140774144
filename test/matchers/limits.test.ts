// Matchers of limits in `bun test` processes of their own: what passes, what fails with which words, and what is refused.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { Histogram } from "../../profiler/index.ts";
import type { Report } from "../../profiler/report.ts";
import { duration } from "../../profiler/words.ts";
import { runProgram } from "../../src/setup/python.ts";
import { drawSpread } from "../../src/test/draw.ts";
import { temporaryFolder } from "../support/folder.ts";
import { bareReport, changed, madeUpReport } from "../support/report.ts";
import { writeTinyModel } from "../support/tiny-model.ts";
import { runTest } from "./support.ts";

setDefaultTimeout(120_000);

const folder = temporaryFolder();
const { report } = madeUpReport();
const root = resolve(import.meta.dir, "..", "..");

/** The report with requests that took these times. */
function answered(...wallsMs: readonly number[]): Report {
  const [request] = report.requests;
  if (!request) throw new Error("the made-up report has no request");
  const requests = wallsMs.map((ms, id) => ({ ...request, id, wallNs: ms * 1e6, firstTokenNs: (ms * 1e6) / 10 }));
  return { ...report, requests, requestCount: requests.length };
}

async function passes(run: Report | readonly Report[], body: string): Promise<void> {
  const { status, output } = await runTest(folder, run, body);
  expect({ status, output }).toEqual({ status: 0, output: expect.stringContaining(" 0 fail") });
}

async function fails(run: Report | readonly Report[], body: string): Promise<string> {
  const { status, output } = await runTest(folder, run, body);
  expect({ status, output }).toEqual({ status: 1, output: expect.stringContaining(" 1 fail") });
  return output;
}

describe("toRespondWithin", () => {
  const run = answered(...Array.from({ length: 99 }, (_, index) => 10 + index / 10), 80);

  test("takes percentiles of whole requests, and holds every first token to its limit", async () => {
    // By nearest rank: the 50th, 90th, 99th and 100th of 100.
    await passes(
      run,
      "expect(run).toRespondWithin({ p50Ms: 14.9, p90Ms: 18.9, p99Ms: 19.8, maxMs: 80, firstTokenMs: 8 });",
    );
    await passes(
      run,
      "for (const limit of [{ p50Ms: 14.89 }, { p99Ms: 19.79 }, { maxMs: 79 }, { firstTokenMs: 7.9 }]) expect(run).not.toRespondWithin(limit);",
    );
  });

  test("shows the distribution with the limit in it, the slowest request's parts and the op to blame", async () => {
    const output = await fails(run, "expect(run).toRespondWithin({ p50Ms: 100, maxMs: 50 });");
    expect(output).toContain("the slowest of 100 requests took 80.0 ms; the limit is 50.0 ms");
    expect(output).toContain("expect(received).toRespondWithin(");
    expect(output).not.toContain("p50 of");
    expect(output).toMatch(/ 10\.0 ms to .*█+.*\n(.*█.*\n)*.*─+ limit 50\.0 ms\n +80\.0 ms [▏▎▍▌▋▊▉█]+ 1\n/);
    expect(output).toContain("the slowest request, 300 + 40 tokens: ");
    expect(output).toMatch(/the op to blame: token_embd \(matmul\.q8_0\.avx512_vnni\), \d+\.\d % of the steps' time/);
  });

  test("draws the distribution of each limit that was missed", async () => {
    const output = await fails(run, "expect(run).toRespondWithin({ maxMs: 50, firstTokenMs: 6 });");
    for (const [most, limit] of [
      ["80.0", "50.0"],
      ["8.0", "6.0"],
    ]) {
      const drawn = new RegExp(
        `took ${most} ms; the limit is ${limit} ms\\n\\n( .*\\n)* .* limit ${limit} ms\\n +${most} ms .* 1\\n`,
      );
      expect(output).toMatch(drawn);
    }
  });

  test("judges several runs as one", async () => {
    const runs = [answered(10, 10, 10), answered(30)];
    await passes(runs, "expect(run).toRespondWithin({ p50Ms: 10 }); expect(run).not.toRespondWithin({ maxMs: 29 });");
  });
});

test("toRespondWithin judges all requests of a run that had more than its rows", async () => {
  const kept = answered(10, 10, 30);
  const times = (unit: number, values: readonly (readonly [ms: number, count: number])[]): Histogram => {
    const histogram = new Histogram("ns");
    for (const [ms, count] of values) histogram.record(ms * unit, count);
    return histogram;
  };
  /** As many requests more, which took longer: half of all do not show in the rows. */
  const before = [
    [10, 2],
    [30, 1],
    [70, 4],
    [500, 1],
  ] as const;
  const of = (histogram: Histogram) => ({ count: histogram.count, histogram: histogram.toJSON() });
  const run = changed(kept, {
    requestCount: 8,
    requestTimes: of(times(1e6, before)),
    firstTokens: of(times(1e5, before)),
  });
  await passes(run, "expect(run).toRespondWithin({ p50Ms: 70.1, p90Ms: 500, maxMs: 500, firstTokenMs: 50 });");
  const output = await fails(run, "expect(run).toRespondWithin({ p50Ms: 50, maxMs: 499, firstTokenMs: 49 });");
  expect(output).toMatch(/p50 of 8 requests took 70\.\d ms; the limit is 50\.0 ms/);
  expect(output).toContain("the slowest of 8 requests took 500.0 ms");
  expect(output).toMatch(/limit 50\.0 ms\n +70\.\d ms █+ 4\n +500\.0 ms .* 1\n/);
  expect(output).toContain("the slowest of the last 3 requests, 300 + 40 tokens: ");
  const { histogram, ...without } = run.requestTimes;
  await passes(
    { ...run, requestTimes: without },
    `expect(() => expect(run).toRespondWithin({ maxMs: 1 })).toThrow("run.requestTimes: has no histogram, and run.requests has the last 3 of 8");
    expect(() => expect({ ...run, requestTimes: { ...run.requestTimes, histogram: {} } }).toRespondWithin({ maxMs: 1 })).toThrow("run.requestTimes.histogram: is damaged");`,
  );
});

test("toGenerateAtLeast leaves the prompt out", async () => {
  const generation = report.phases.find(({ phase }) => phase === "generation");
  if (!generation) throw new Error("the made-up report generates nothing");
  const rate = (generation.rows / generation.totalNs) * 1e9;
  await passes(report, `expect(run).toGenerateAtLeast({ tokensPerSecond: ${rate * 0.999} });`);
  const output = await fails(report, `expect(run).toGenerateAtLeast({ tokensPerSecond: ${rate * 1.001} });`);
  expect(output).toContain(`tokens came at ${rate.toFixed(1)} a second`);
  expect(output).toContain("the op to blame: token_embd");
  // Its steps, with a line where their mean would have to be.
  const [, drawn = ""] = output.split(" (max)\n\n");
  expect(drawn).toMatch(/^( .* ms .*\d\n)* +─+ as many tokens at the limit: \d+\.\d ms a step\n/);
  const counts = [...(drawn.split("\n\n")[0] ?? "").matchAll(/ (\d+)$/gm)].map(([, steps]) => Number(steps));
  expect(counts.reduce((sum, steps) => sum + steps, 0)).toBe(generation.count);
});

test("toAllocateAtMost holds the library's bytes to the limit, of several runs the largest", async () => {
  const taken = (allocatedBytes: number) => changed(report, { system: { allocations: { allocatedBytes } } });
  await passes([taken(7), taken(1_000)], "expect(run).toAllocateAtMost(1000); expect(run).not.toAllocateAtMost(999);");
  expect(await fails(taken(1_000), "expect(run).toAllocateAtMost(999);")).toContain("the limit is 999 B");
});

/** The report with pieces of memory of these sizes. */
function allocated(...pieces: readonly (readonly [bytes: number, count: number])[]): Report {
  const sizes = new Histogram("bytes");
  for (const [bytes, count] of pieces) sizes.record(bytes, count);
  const { count, total } = sizes;
  const allocations = { count, allocatedBytes: total, sizes: sizes.row({ histogram: true }) };
  return changed(report, { system: { allocations } });
}

test("what allocated too much is told by the pieces' sizes", async () => {
  const run = allocated([64, 3], [5_000_000, 1]);
  const bytes = await fails(run, "expect(run).toAllocateAtMost(1e6);");
  expect(bytes).toMatch(/the largest piece has 5\.00 MB\n\n +64 B █+ 3\n +5\.00 MB █+\S* 1\n/);
  const kept = temporaryFolder();
  const body = `expect(run).toCostAtMost({ allocations: 4 }, "the story");`;
  expect((await runTest(kept, run, body)).status).toBe(0);
  const more = (await runTest(kept, allocated([64, 3], [4_096, 2], [5_000_000, 1]), body)).output;
  expect(more).toContain("the library allocated 6 pieces of memory; the limit is 4\n");
  expect(more).toContain("since the last run that passed:\n    pieces of 4.10 KB: 2, before 0 (new)\n");
  expect(more).not.toContain("pieces of 64 B");
  const first = await fails(run, "expect(run).toCostAtMost({ allocations: 3 });");
  expect(first).toContain("most of it:\n    pieces of 64 B: 3, 75.0 %\n    pieces of 5.00 MB: 1, 25.0 %\n");
});

describe("toCostAtMost", () => {
  const memory = report.memory;
  if (!memory) throw new Error("the made-up report counted nothing");

  test("holds every count to its limit, to the last byte", async () => {
    const misses = report.cache?.levels.at(-1)?.misses ?? 0;
    const operations = report.byOp.reduce((sum, op) => sum + op.operations, 0);
    const exact = {
      bytesRead: memory.bytesRead,
      bytesWritten: memory.bytesWritten,
      memoryOps: memory.loads + memory.stores,
      operations,
      cacheMisses: misses,
      allocations: report.system?.allocations.count ?? 0,
      nativeCalls: report.javascript?.nativeCalls.total ?? 0,
    };
    const body = `const exact = ${JSON.stringify(exact)};
      expect(run).toCostAtMost(exact);
      for (const [key, count] of Object.entries(exact)) expect(run).not.toCostAtMost({ [key]: count - 1 });`;
    await passes(report, body);
    const output = await fails(report, `expect(run).toCostAtMost({ bytesRead: ${memory.bytesRead - 1} });`);
    expect(output).toContain(`${memory.bytesRead.toLocaleString("en-US")} bytes`);
    expect(output).toMatch(/most of it:\n +token_embd \(matmul\.q8_0\.avx512_vnni\): /);
    expect(await fails(report, "expect(run).toCostAtMost({ bytesRead: 1 });")).toContain("the limit is 1 byte\n");
    expect(readdirSync(folder.path)).not.toContain("__performance__");
  });

  test("names the op and the layer that changed since a run that passed", async () => {
    const kept = temporaryFolder();
    const body = `expect(run).toCostAtMost({ bytesRead: ${memory.bytesRead}, allocations: 1e9 }, "the story");`;
    expect((await runTest(kept, report, body)).status).toBe(0);
    expect(readdirSync(kept.file("__performance__"))).toEqual(["model.test.ts.costs.json"]);
    const byOp = memory.byOp.map((row) =>
      row.name === "blk.7.ffn_up" ? { ...row, bytesRead: row.bytesRead + 1_000 } : row,
    );
    const dearer = changed(report, { memory: { byOp, bytesRead: memory.bytesRead + 1_000 } });
    const { status, output } = await runTest(kept, dearer, body);
    expect(status).toBe(1);
    const [, changes = ""] = output.split("since the last run that passed:\n");
    expect(changes.trim()).toMatch(/^blk\.7\.ffn_up \(matmul\.q5_0\.avx512_vnni, layer 7\): [^\n]* \(\+\d+\.\d %\)\n/);
    expect(changes).not.toContain("blk.6.");
    // Where every layer changed, and of a run that is compared with none, they are one row.
    const all = memory.byOp.map((row) =>
      row.name.endsWith(".ffn_up") ? { ...row, bytesRead: row.bytesRead + 1_000 } : row,
    );
    const everywhere = changed(report, { memory: { byOp: all, bytesRead: memory.bytesRead + 18_000 } });
    const ups = memory.byOp.filter(({ name }) => name.endsWith(".ffn_up"));
    const before = ups.reduce((sum, { bytesRead }) => sum + bytesRead, 0);
    const [, rows = ""] = (await runTest(kept, everywhere, body)).output.split("since the last run that passed:\n");
    const [row = "", next = ""] = rows.split("\n").map((line) => line.replaceAll(/[,]/g, "").trim());
    expect(row).toMatch(
      new RegExp(`^ffn_up \\(matmul\\.q5_0\\.avx512_vnni\\) in 18 layers: ${before + 18_000} .* before ${before} `),
    );
    expect(next).not.toContain("before");
    expect((await runTest(temporaryFolder(), everywhere, body)).output).not.toMatch(/blk\.|layer \d/);
    // What failed is not what later runs are compared with.
    expect((await runTest(kept, dearer, body)).output).toContain("since the last run that passed:\n");
  });

  test("names what native calls were for", async () => {
    const kept = temporaryFolder();
    const body = `expect(run).toCostAtMost({ nativeCalls: 68 }, "the story");`;
    expect((await runTest(kept, report, body)).status).toBe(0);
    const more = changed(report, { javascript: { nativeCalls: { total: 70, steps: 67 } } });
    const { output } = await runTest(kept, more, body);
    expect(output).toContain("the requests needed 70 calls into the native library; the limit is 68\n");
    expect(output).toContain("since the last run that passed:\n    results of steps: 67, before 65 (+3.1 %)\n");
    expect(output).not.toContain("requests handed over");
  });

  test("a kept file that is damaged is an error with its path, and CI writes none", async () => {
    const kept = temporaryFolder();
    const body = 'expect(run).toCostAtMost({ bytesRead: 1e15 }, "the story");';
    expect((await runTest(kept, report, body, { environment: { CI: "true" } })).status).toBe(0);
    expect(readdirSync(kept.path)).not.toContain("__performance__");
    await runTest(kept, report, body);
    const path = join("__performance__", "model.test.ts.costs.json");
    for (const text of ["{", "[]", '{"the story":{"bytesRead":7}}', '{"other":{"joules":{"total":1,"byOp":{}}}}']) {
      writeFileSync(kept.file(path), text);
      const { status, output } = await runTest(kept, report, body);
      expect({ text, status }).toEqual({ text, status: 1 });
      expect(output).toContain("BaselineFileError");
      expect(output).toContain(`${path}: is damaged`);
      expect(output).not.toContain("JSON.parse");
    }
  });
});

test("a .not that fails says that the limits hold and were expected not to", async () => {
  for (const [call, held] of [
    ["toRespondWithin({ p50Ms: 1e6 })", "the limit"],
    ["toGenerateAtLeast({ tokensPerSecond: 0.1 })", "the limit"],
    ["toAllocateAtMost(1e15)", "the limit"],
    ["toCostAtMost({ bytesRead: 1e15 })", "the limit"],
    ["toCostAtMost({ bytesRead: 1e15, memoryOps: 1e15 })", "all limits"],
  ] as const) {
    const words = `expected not to be within ${held}, but it is:`;
    expect(await fails(report, `expect(run).not.${call};`)).toContain(words);
    const exceeded = call.includes("Second") ? call.replace("0.1", "1e15") : call.replace(/1e\d+/g, "0");
    expect(await fails(report, `expect(run).${exceeded};`)).not.toContain("expected not");
  }
});

test("what cannot be judged is an error that says what to do, also under .not", async () => {
  for (const [run, call, problem] of [
    [report, "toRespondWithin({ p98Ms: 1 })", "limits.p98Ms: is not an option; there are p50Ms"],
    [report, "toRespondWithin({})", "limits: has no limit; there are p50Ms"],
    [report, "toRespondWithin(20)", "limits: is 20; an object is expected"],
    [report, "toRespondWithin({ p99Ms: -1 })", "limits.p99Ms: is -1"],
    [report, "toGenerateAtLeast({ tokensPerSecond: '9' })", 'limits.tokensPerSecond: is "9"'],
    [report, "toAllocateAtMost(1.5)", "bytes: is 1.5; a whole number"],
    [report, "toCostAtMost({ joules: 1 })", "limits.joules: is not an option"],
    [report, "toCostAtMost({ native: 1 })", "limits.native: is not an option; there are bytesRead"],
    [bareReport(), "toCostAtMost({ nativeCalls: 1 })", "run.javascript: is missing; profile with model.profile("],
    [report, "toCostAtMost({ bytesRead: 1 }, 7)", "name: is 7; a text is expected"],
    [bareReport(), "toRespondWithin({ p99Ms: 1 })", "run.requests: is empty"],
    [bareReport(), "toAllocateAtMost(1)", "run.system: is missing; profile with"],
    [bareReport(), "toCostAtMost({ bytesRead: 1 })", "run.memory: is missing; profile with model.profile("],
    [
      changed(bareReport(), { steps: { count: 0 } }),
      "toCostAtMost({ bytesRead: 1 })",
      "run.memory: is missing; no step ran while it was profiled: await",
    ],
    [
      changed(report, { cache: { source: "hardware counters" } }),
      "toCostAtMost({ cacheMisses: 1 })",
      "run.cache: comes from hardware counters",
    ],
    [
      changed(report, { memory: { uncountedSteps: 3 } }),
      "toCostAtMost({ memoryOps: 1 })",
      "run.memory: 3 steps whose records were lost",
    ],
  ] as const) {
    for (const not of ["", "not."]) {
      const { output, status } = await runTest(folder, run, `expect(run).${not}${call};`);
      expect({ call, status }).toEqual({ call, status: 1 });
      expect(output).toContain(`OptionError: ${problem}`);
    }
  }
  const wrong = await runTest(
    folder,
    report,
    `for (const value of [7, null, "run", {}, [], [run, 7], Promise.resolve(run)]) {
      expect(() => expect(value).toRespondWithin({ p99Ms: 1 })).toThrow(/^run.*(expected|empty list|await it first)/);
    }`,
  );
  expect(wrong.status).toBe(0);
});

test("a damaged run is an error that names the field, whatever is asked of it, and is not kept", async () => {
  const kept = temporaryFolder();
  /** Every field that a matcher reads, on a way through lists and objects. */
  const paths = [
    ...[
      "rows",
      "incompleteSteps",
      "steps.count",
      "steps.totalNs",
      "phases.1.phase",
      "phases.1.rows",
      "phases.1.totalNs",
    ],
    ...["requestTimes.count", "firstTokens.count"],
    ...["total", "requests", "steps", "logits", "vectors", "sessions", "cancelled"].map(
      (field) => `javascript.nativeCalls.${field}`,
    ),
    ...["phases.1.count", "phases.0.p50Ns", "phases.0.p99Ns", "phases.0.maxNs"],
    ...["index", "name", "kernel", "layer", "count", "totalNs", "operations"].map((field) => `byOp.3.${field}`),
    ...[
      "run.model",
      "run.level",
      "run.threads",
      "run.contextLength",
      "run.batchSize",
      "machine.cpu",
      "machine.fingerprint",
    ],
    ...["kvCache", "tuning", "screening", "prepared"].map((field) => `run.options.${field}`),
    ...["wallNs", "stepsNs", "queueNs", "betweenNs", "tokenizingNs", "javascriptNs", "deliveryNs"].map(
      (field) => `requests.1.${field}`,
    ),
    ...["requests.0.promptTokens", "requests.0.generatedTokens"],
    ...["loads", "stores", "bytesRead", "bytesWritten"].flatMap((field) =>
      ["memory", "memory.sampling", "memory.byOp.2"].map((part) => `${part}.${field}`),
    ),
    ...["memory.byOp.2.index", "memory.uncountedSteps", "memory.byOp", "memory.sampling"],
    ...["cache.source", "cache.levels", "cache.levels.0.misses", "cache.byOp.1.index", "cache.byOp.1.levels.0.misses"],
    ...["count", "allocatedBytes", "freedBytes", "sizes.max"].map((field) => `system.allocations.${field}`),
  ];
  const { status, output } = await runTest(
    kept,
    report,
    `const few = JSON.stringify({ ...run, byOp: run.byOp.slice(0, 4), byKind: [], byLayer: [], roofline: null, memory: { ...run.memory, byOp: run.memory.byOp.slice(0, 4) } });
    for (const path of ${JSON.stringify(paths)}) {
      const damaged = JSON.parse(few);
      const fields = path.split(".");
      const last = fields.pop();
      const part = fields.reduce((part, field) => part[field], damaged);
      const named = path.replace(/\\.(\\d+)/g, "[$1]");
      for (const value of [undefined, null, NaN]) {
        part[last] = value;
        const thrown = (given) => { try { expect(given).toCostAtMost({ operations: 1e15 }, "the story"); } catch (error) { return String(error); } };
        expect(thrown(damaged)).toStartWith("OptionError: run." + named + ": is " + value + "; ");
        expect(thrown([JSON.parse(few), damaged])).toStartWith("OptionError: run[1]." + named + ": is " + value + "; ");
      }
    }
    const refused = (change) => expect(() => expect({ ...run, ...change }).toRespondWithin({ maxMs: 1e6 })).toThrow(/^run/);
    refused({ cache: { ...run.cache, levels: [] } });
    refused({ memory: { ...run.memory, bytesRead: -1 } });
    for (const requestCount of ["two", -1, NaN]) refused({ requestCount });
    refused({ requests: [{ ...run.requests[0], firstTokenNs: undefined }] });
    expect({ ...run, requests: [{ ...run.requests[0], firstTokenNs: null }] }).toRespondWithin({ maxMs: 1e6 });`,
  );
  expect({ status, output }).toEqual({ status: 0, output: expect.stringContaining(" 0 fail") });
  expect(readdirSync(kept.path)).not.toContain("__performance__");
});

test("real runs are judged in the process that profiled them, and cost the same each time", async () => {
  const path = folder.file("tiny.gguf");
  writeTinyModel(path);
  const body = `
    const { loadModel } = await import(${JSON.stringify(join(root, "src", "index.ts"))});
    await using model = await loadModel(${JSON.stringify(path)}, { tuning: "fixed" });
    const work = () => model.generate("once upon a time", { maxLength: 20, ignoreEos: true, seed: 1, cachePrompt: false });
    const [first, second] = [await model.profile(work, { deterministic: true }), await model.profile(work, { deterministic: true })];
    expect(first).toGenerateAtLeast({ tokensPerSecond: 1 });
    expect(first).not.toGenerateAtLeast({ tokensPerSecond: 1e9 });
    expect(first).toRespondWithin({ maxMs: 60_000, firstTokenMs: 60_000 });
    const costs = {
      bytesRead: first.memory.bytesRead,
      bytesWritten: first.memory.bytesWritten,
      memoryOps: first.memoryOps,
      operations: first.byOp.reduce((sum, op) => sum + op.operations, 0),
      cacheMisses: first.cache.levels.at(-1).misses,
      // The request, and a step for each token: the prompt's gives the first.
      nativeCalls: 21,
    };
    for (const [key, count] of Object.entries(costs)) {
      expect(count).toBeGreaterThan(0);
      expect(second).toCostAtMost({ [key]: count });
      expect(second).not.toCostAtMost({ [key]: count - 1 });
    }
    expect([first, second]).toCostAtMost({ ...costs, allocations: 0 });
    const longer = () => model.generate("once upon a time", { maxLength: 29, ignoreEos: true, seed: 1, cachePrompt: false });
    const third = await model.profile(longer, { deterministic: true });
    expect(third).toCostAtMost({ nativeCalls: 30 });
    expect(third).not.toCostAtMost({ nativeCalls: 29 });`;
  await passes(report, body);
});

test("guesses that did not come true are no tokens that were generated", async () => {
  const path = folder.file("guesses.gguf");
  writeTinyModel(path);
  const body = `
    const { loadModel } = await import(${JSON.stringify(join(root, "src", "index.ts"))});
    await using model = await loadModel(${JSON.stringify(path)}, { tuning: "fixed" });
    const guesses = { speculation: { maxDraft: 8, minMatch: 1 }, temperature: 0.8, seed: 3 };
    const run = await model.profile(
      () => model.generate("once upon a time once upon a time", { ...guesses, maxLength: 60, ignoreEos: true, cachePrompt: false }),
      { cache: false, roofline: false },
    );
    const [, { totalNs }] = run.phases;
    // Rows that the head computed beyond those that gave a token: the guesses that were wrong.
    expect(run.byOp.at(-1).rows).toBeGreaterThan(60);
    const rate = (59 / totalNs) * 1e9;
    expect(run).toGenerateAtLeast({ tokensPerSecond: rate * 0.999 });
    expect(run).not.toGenerateAtLeast({ tokensPerSecond: rate * 1.001 });`;
  await passes(report, body);
});

test("the matchers have types, and wrong limits do not compile", async () => {
  const user = temporaryFolder();
  user.write(
    "user.test.ts",
    `import { expect } from "bun:test";
import { loadModel } from "tinyai";
import type { ResponseLimits } from "tinyai/test";
import "tinyai/test";
await using model = await loadModel("gemma3-270m");
const run = await model.profile(() => model.generate("Hello"));
const limits: ResponseLimits = { p99Ms: 20, firstTokenMs: 5 };
expect(run).toRespondWithin(limits);
expect([run, run]).not.toGenerateAtLeast({ tokensPerSecond: 100 });
expect(run).toAllocateAtMost(0);
expect(run).toCostAtMost({ bytesRead: 1, memoryOps: 2, allocations: 0, nativeCalls: 3 }, "story");
await expect(Promise.resolve(run)).resolves.toCostAtMost({ cacheMisses: 1 });
expect([run]).toMatchPerformanceBaseline("story", { tolerance: 0.05 });
// @ts-expect-error
expect(run).toRespondWithin({ p98Ms: 20 });
// @ts-expect-error
expect(run).toGenerateAtLeast(100);
// @ts-expect-error
expect(run).toCostAtMost();
// @ts-expect-error
expect(run).toMatchPerformanceBaseline({ tolerance: 0.05 });
`,
  );
  const settings = {
    extends: join(root, "tsconfig.json"),
    compilerOptions: {
      typeRoots: [join(root, "node_modules", "@types")],
      paths: { tinyai: [join(root, "src/index.ts")], "tinyai/test": [join(root, "src/test/index.ts")] },
    },
    include: ["*.ts"],
  };
  user.write("tsconfig.json", JSON.stringify(settings));
  const tsc = await runProgram([join(root, "node_modules/.bin/tsc"), "--noEmit", "-p", user.path]);
  expect(tsc.stdout).toBe("");
});

test("a drawing has every value once, and no bar on both sides of the limit", () => {
  const values = Array.from({ length: 500 }, (_, index) => Math.round(1e6 * 1.01 ** index));
  for (const limitNs of [1, 2e6, 3.3e6, 1e12]) {
    const drawn = drawSpread(
      values.map((value) => ({ value, count: 1 })),
      duration,
      { value: limitNs, text: "limit" },
    );
    const at = drawn.findIndex((line) => line.includes("limit"));
    expect(at).toBeGreaterThanOrEqual(0);
    const counts = (lines: readonly string[]) => lines.reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
    expect(counts(drawn.slice(0, at))).toBe(values.filter((value) => value <= limitNs).length);
    expect(counts(drawn.slice(at + 1))).toBe(values.filter((value) => value > limitNs).length);
    expect(drawn.length).toBeLessThanOrEqual(2 * 8 + 3);
  }
});
