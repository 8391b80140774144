// How often `toMatchPerformanceBaseline` is wrong: the share of runs of unchanged code that fail, and the share of runs with one op
// made slower by about a tenth (slowed.ts) that fail and name that op. Each run is a `bun test` process of its own that loads the model,
// generates, and is held to one baseline, recorded by such processes before; unchanged and slowed runs take turns. From the times of
// the unchanged runs it also says for every op what a tenth more would have led to. The bars: 3 % at most, 95 % at least. Ops that take
// more than half of the time are not judged, and have none.
//
//   bun bench/matchers.ts [--model NAME|PATH] [--op NAME] [--rows PART] [--processes N] [--tolerance T] [--tokens N]
//     [--pause SECONDS] [--folder PATH] [--json]
//
// Between runs that are recorded it pauses, so that they know the machine's states of some minutes (10 with 10 s, the default).
//
// The op is made slower by working on `--rows` more of its matrix. How much longer it takes then is measured and told: less than as
// much, since starting an op and waiting for its end is part of its time.
// With --folder, what was run is kept there, and the next call goes on from it.

import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { appendFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { percent } from "../profiler/words.ts";
import { summarise } from "../src/benchmark/statistics/summary.ts";
import { runProgram } from "../src/setup/python.ts";
import { judgeTimes, runsMost, shareMost } from "../src/test/baseline.ts";
import { whole } from "./flags.ts";
import { chooseModel } from "./model.ts";

const slowerBy = 0.1;
/** Of unchanged runs as many may fail, and of slowed ones as many must name the op. */
const bars = { failedMost: 0.03, namedLeast: 0.95 } as const;
const testName = "matchers.test.ts";

const { values: flags } = parseArgs({
  options: {
    model: { type: "string" },
    op: { type: "string", default: "ffn_down" },
    rows: { type: "string", default: "0.2" },
    processes: { type: "string", default: "200" },
    tolerance: { type: "string", default: "0.01" },
    tokens: { type: "string", default: "48" },
    pause: { type: "string", default: "10" },
    folder: { type: "string" },
    json: { type: "boolean", default: false },
  },
});
const processes = whole("processes", flags.processes, 1, 10_000);

/** What a process found. */
interface Outcome {
  /** The op that was made slower; null: none. */
  readonly slowed: string | null;
  readonly failed: boolean;
  /** The op that the failure names. */
  readonly blamed: string | null;
  /** Ns a step of each op. */
  readonly times: Readonly<Record<string, number>>;
}

const model = chooseModel(flags.model);
const folder = flags.folder ?? mkdtempSync(join(tmpdir(), "tinyai-bench-"));
mkdirSync(folder, { recursive: true });
const resultsPath = join(folder, "results.jsonl");
const baselinePath = join(folder, "__performance__", `${testName}.baselines.json`);
const source = (path: string): string => JSON.stringify(resolve(import.meta.dir, "..", path));
writeFileSync(
  join(folder, testName),
  `import { expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { loadModel } from ${source("src/index.ts")};
import { measure } from ${source("src/test/baseline.ts")};
import ${source("src/test/index.ts")};
import { slowDown } from ${source("bench/slowed.ts")};
const { TINYAI_BENCH_SLOWED: slowed } = process.env;
if (slowed) slowDown(slowed, ${Number(flags.rows)});
test("speed", async () => {
  await using model = await loadModel(${JSON.stringify(model.path)});
  // One token, so that every step has one row.
  const prompt = Uint32Array.of(model.tokenizer.bosToken ?? 0);
  const generate = (maxLength) =>
    model.generate(prompt, { maxLength, temperature: 0, ignoreEos: true, cachePrompt: false });
  await generate(16);
  const run = await model.profile(() => generate(${Number(flags.tokens)}), { cache: false, roofline: false });
  writeFileSync("times.json", JSON.stringify(Object.fromEntries(measure([run]).map(({ op, ns }) => [op, ns]))));
  expect(run).toMatchPerformanceBaseline("generation", { tolerance: ${Number(flags.tolerance)} });
}, 60_000);
`,
);

async function runTest(slowed: string | null, environment: Record<string, string>): Promise<Outcome> {
  const { CI, TINYAI_UPDATE_BASELINES, ...inherited } = process.env;
  const { status, stdout, stderr } = await runProgram([process.execPath, "test", testName], {
    cwd: folder,
    env: { ...inherited, ...environment, NO_COLOR: "1", TINYAI_BENCH_SLOWED: slowed ?? "" },
  });
  const output = stdout + stderr;
  const blame = /the op to blame: (\S+) /.exec(output);
  if (status !== 0 && !blame) throw new Error(`the test failed otherwise:\n${output}`);
  const times: Outcome["times"] = JSON.parse(readFileSync(join(folder, "times.json"), "utf8"));
  return {
    slowed,
    failed: status !== 0,
    blamed: blame?.[1] ?? null,
    times,
  };
}

interface Baseline {
  readonly ops: readonly string[];
  readonly runs: readonly (readonly number[])[];
  readonly durations: Readonly<Record<string, unknown>>;
}

function readBaseline(): Baseline | undefined {
  if (!existsSync(baselinePath)) return undefined;
  const entries: Record<string, Record<string, Baseline>> = JSON.parse(readFileSync(baselinePath, "utf8"));
  return Object.values(entries["generation"] ?? {})[0];
}

/** The interval that has the true share with 95 % (Wilson 1927). */
function wilson(hits: number, of: number): readonly [low: number, high: number] {
  const z2 = 1.96 ** 2;
  const share = hits / of;
  const centre = share + z2 / (2 * of);
  const half = 1.96 * Math.sqrt((share * (1 - share)) / of + z2 / (4 * of ** 2));
  return [(centre - half) / (1 + z2 / of), (centre + half) / (1 + z2 / of)];
}

function told(hits: number, of: number): string {
  const [low, high] = wilson(hits, of).map((share) => (share * 100).toFixed(1));
  return `${hits} of ${of}, ${((hits / of) * 100).toFixed(1)} % (${low} to ${high})`;
}

/** Beside `told`: whether the share is at most, or at least, the bar; surely so if all of its interval is. */
function verdict(hits: number, of: number, side: "most" | "least", bar: number): string {
  const [low, high] = wilson(hits, of);
  const within = (share: number): boolean => (side === "most" ? share <= bar : share >= bar);
  const words = within(low) && within(high) ? "reached" : within(hits / of) ? "reached in this share only" : "missed";
  return `the bar of ${bar * 100} % at ${side}: ${words}`;
}

function countBy(names: readonly (string | null)[]): string {
  const counts = new Map<string, number>();
  for (const name of names) if (name !== null) counts.set(name, (counts.get(name) ?? 0) + 1);
  const sorted = [...counts].sort((a, b) => b[1] - a[1]);
  return sorted.map(([name, count]) => `${name} ${count}`).join(", ") || "none";
}

function progress(text: string): void {
  if (!flags.json && process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text}`);
}

for (let recorded = readBaseline()?.runs.length ?? 0; recorded < runsMost; recorded++) {
  progress(`recording ${recorded + 1} of ${runsMost}`);
  await runTest(null, { TINYAI_UPDATE_BASELINES: "add" });
  await Bun.sleep(1000 * Number(flags.pause));
}
const outcomes: Outcome[] = existsSync(resultsPath)
  ? readFileSync(resultsPath, "utf8")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line))
  : [];
const unchanged = (): Outcome[] => outcomes.filter(({ slowed }) => slowed === null);
const slowed = (): Outcome[] => outcomes.filter(({ slowed }) => slowed === flags.op);
for (;;) {
  const left = Math.max(processes - unchanged().length, processes - slowed().length);
  if (left <= 0) break;
  progress(`${left} turns left`);
  const next = unchanged().length <= slowed().length ? null : flags.op;
  const outcome = await runTest(next, { CI: "1" });
  outcomes.push(outcome);
  await appendFile(resultsPath, `${JSON.stringify(outcome)}\n`);
}
progress("");

// What each op's tenth would have led to, had it been put into the unchanged runs.
const baseline = readBaseline() as Baseline;
const ops = baseline.ops.filter((op) => baseline.durations[op] !== undefined);
const recorded = baseline.runs.map((run) => ops.map((op) => run[baseline.ops.indexOf(op)] ?? 1));
const tolerance = Number(flags.tolerance);
function timesOf({ times }: Outcome): number[] {
  return ops.map((op) => times[op] ?? 1);
}
/** The op that would be blamed; undefined: the run would pass. */
function blame(times: readonly number[]): string | undefined {
  const verdicts = judgeTimes(recorded, times, tolerance) ?? [];
  const worst = verdicts.reduce((most, { beyond }) => Math.max(most, beyond), 0);
  return worst > 1 ? ops[verdicts.findIndex(({ beyond }) => beyond === worst)] : undefined;
}
const unknown = outcomes.filter((outcome) => judgeTimes(recorded, timesOf(outcome), tolerance) === undefined).length;
const totalNs = recorded.reduce((sum, run) => sum + run.reduce((ns, op) => ns + op, 0), 0) / recorded.length;
const scaled = ops.map((op, index) => {
  const blamed = unchanged().map((outcome) =>
    blame(timesOf(outcome).map((ns, at) => ns * (at === index ? 1 + slowerBy : 1))),
  );
  const mean = recorded.reduce((sum, run) => sum + (run[index] ?? 0), 0) / recorded.length;
  return {
    op,
    us: mean / 1000,
    judged: mean <= shareMost * totalNs,
    caught: blamed.filter((name) => name !== undefined).length,
    named: blamed.filter((name) => name === op).length,
  };
});

const all = unchanged().length;
const wrong = unchanged().filter(({ failed }) => failed);
const caught = slowed().filter(({ failed }) => failed);
const named = caught.filter(({ blamed }) => blamed === flags.op);
/** How much longer than the others let expect the op took in half of the runs, whether they failed or not. */
function medianExcess(of: readonly Outcome[]): number {
  const excesses = of.flatMap(
    (one) => judgeTimes(recorded, timesOf(one), tolerance)?.[ops.indexOf(flags.op)]?.excess ?? [],
  );
  return summarise(excesses).median;
}
const failedVerdict = verdict(wrong.length, all, "most", bars.failedMost);
const namedVerdict = verdict(named.length, slowed().length, "least", bars.namedLeast);
const longer = Math.expm1(medianExcess(slowed()) - medianExcess(unchanged()));
if (flags.json) {
  const share = (hits: number, of: number) => ({ hits, of, interval: wilson(hits, of) });
  console.log(
    JSON.stringify({
      model: model.name,
      tolerance,
      unknown,
      op: flags.op,
      rows: Number(flags.rows),
      longer,
      unchanged_failed: share(wrong.length, all),
      unchanged_verdict: failedVerdict,
      unchanged_blamed: wrong.map(({ blamed }) => blamed),
      slowed_failed: share(caught.length, slowed().length),
      slowed_named: share(named.length, slowed().length),
      slowed_verdict: namedVerdict,
      scaled,
    }),
  );
} else {
  console.log(`${model.name}, ${flags.tokens} tokens a process, tolerance ${flags.tolerance}, ${runsMost} recorded`);
  console.log(`unchanged runs that failed: ${told(wrong.length, all)}; blamed: ${countBy(wrong.map((o) => o.blamed))}`);
  console.log(`  ${failedVerdict}`);
  console.log(`${flags.op} over ${percent(Number(flags.rows))} more rows took ${percent(longer)} longer (median)`);
  console.log(`  caught: ${told(caught.length, slowed().length)}`);
  console.log(`  and named: ${told(named.length, slowed().length)}; blamed: ${countBy(caught.map((o) => o.blamed))}`);
  console.log(`  ${namedVerdict}`);
  console.log(
    `runs in a state of the machine that no recorded one knew, which pass: ${told(unknown, outcomes.length)}`,
  );
  console.log("a tenth more put into the recorded times of the unchanged runs, µs a step, caught, named:");
  for (const { op, us, judged, caught, named } of scaled) {
    const bar = judged
      ? verdict(named, all, "least", bars.namedLeast)
      : `more than ${percent(shareMost)} of the time: not judged`;
    console.log(`  ${op.padEnd(16)} ${us.toFixed(1).padStart(9)}  ${told(caught, all)}  ${told(named, all)}  ${bar}`);
  }
}
if (flags.folder === undefined) rmSync(folder, { recursive: true, force: true });
model.remove();
