// How often comparisons are wrong: of a model with itself, which may show a difference as often as the level says, 5 in 100; and of a
// model with itself made slower by 5 % (it computes on for so long before it answers), which shall be found in 95 of 100. Both in two
// ways: in turns, as `tinyai benchmark compare --models` measures, and as two runs one after the other, as `compare --results` has them.
// Every comparison loads both models anew. Rates have exact binomial intervals of 95 %. The model is a small random one, so that a comparison
// takes seconds, or that which --model names.
//
//   bun bench/comparisons.ts [--pairs N] [--model NAME|PATH] [--ways turns,runs] [--slower PART] [--rounds N] [--prompt-tokens N]
//     [--generated-tokens N] [--threads N] [--seconds S] [--log FILE] [--json]
//
// With --log, each comparison is a line of that file, and the next call goes on from there; with --seconds, a call ends in time.

import { appendFileSync, existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { compareResults } from "../src/benchmark/compare.ts";
import { resolveSettings } from "../src/benchmark/config.ts";
import { measureInference } from "../src/benchmark/inference.ts";
import { openSubject, type Subject } from "../src/benchmark/subject.ts";
import { measureInTurns } from "../src/benchmark/turns.ts";
import { writeTinyModel } from "../test/support/tiny-model.ts";
import { whole } from "./flags.ts";
import { type BenchModel, chooseModel } from "./model.ts";

const { values: flags } = parseArgs({
  options: {
    pairs: { type: "string", default: "100" },
    model: { type: "string" },
    ways: { type: "string", default: "turns,runs" },
    slower: { type: "string", default: "0.05" },
    rounds: { type: "string" },
    "prompt-tokens": { type: "string", default: "16" },
    "generated-tokens": { type: "string", default: "16" },
    threads: { type: "string", default: "1" },
    seconds: { type: "string" },
    log: { type: "string" },
    json: { type: "boolean", default: false },
  },
});

const level = 0.95;
const wantedFound = 0.95;
const ways = ["turns", "runs"] as const;
type Way = (typeof ways)[number];

/** What a comparison said. */
interface Outcome {
  readonly way: Way;
  readonly slowed: boolean;
  /** Of the mean latency. */
  readonly verdict: "faster" | "slower" | "undecided";
  readonly change: number;
  readonly low: number;
  readonly high: number;
  /** Metrics of which a difference was called. */
  readonly called: readonly string[];
  readonly comparisons: number;
}

function count(name: "pairs" | "rounds" | "prompt-tokens" | "generated-tokens" | "threads"): number {
  return whole(name, flags[name] ?? "", 1, 100_000);
}

const pairs = count("pairs");
const slower = Number(flags.slower);
const endMs = performance.now() + 1000 * Number(flags.seconds ?? Number.POSITIVE_INFINITY);
const chosen = flags.model === undefined ? smallModel() : chooseModel(flags.model);
const asked = ways.filter((way) => flags.ways.split(",").includes(way));

function smallModel(): BenchModel {
  const folder = mkdtempSync(join(tmpdir(), "tinyai-bench-"));
  const path = join(folder, "small.gguf");
  writeTinyModel(path, { architecture: "gemma3", dtype: "Q8_0", layers: 6, width: 256, context: 512 });
  return { name: "a small random model", path, remove: () => rmSync(folder, { recursive: true, force: true }) };
}

/** The same model, which goes on computing before it answers. */
const openSlowed: typeof openSubject = async (...given) => {
  const subject = await openSubject(...given);
  const iterate: Subject["iterate"] = async (batchSize) => {
    const beganMs = performance.now();
    const sample = await subject.iterate(batchSize);
    while (performance.now() - beganMs < (1 + slower) * sample.latencyMs);
    return { ...sample, latencyMs: performance.now() - beganMs };
  };
  return { ...subject, iterate };
};

async function compareOnce(way: Way, slowed: boolean, seed: number): Promise<Outcome> {
  const settings = resolveSettings("inference", {
    // Without, as `compare` and `run` do by themselves: until the change, or the mean latency, is known to 2 %, or 60 s are over.
    ...(flags.rounds !== undefined && { iterations: count("rounds") }),
    prompt_tokens: count("prompt-tokens"),
    generated_tokens: count("generated-tokens"),
    metrics: ["latency", "throughput"],
    threads: count("threads"),
    seed,
  });
  const openOther = slowed ? openSlowed : openSubject;
  const report = await (async () => {
    if (way === "turns") {
      // Loaded in any order: the second is known by its name.
      const other = `${chosen.path}.other.gguf`;
      const open: typeof openSubject = (model, ...given) =>
        model === other ? openOther(chosen.path, ...given) : openSubject(model, ...given);
      const models = [chosen.path, other];
      const { compared, blocks } = await measureInTurns({ models, settings, open });
      return compareResults(compared, { blocks, level });
    }
    const runs = [];
    for (const [place, open] of [openSubject, openOther].entries()) {
      const { figures, details } = await measureInference({ model: chosen.path, settings }, open);
      const system_info = { cpu: "", memory: "", os: "" };
      const info = { model: chosen.name, type: "inference", timestamp: new Date().toISOString(), system_info } as const;
      const benchmark_info = { ...info, settings, ...(details && { model_details: details }) };
      runs.push({ name: `run ${place + 1}`, results: { benchmark_info, results: figures } });
    }
    return compareResults(runs, { level });
  })();
  const called = report.comparisons.flatMap(({ metric, comparison }) =>
    comparison && comparison.verdict !== "undecided" ? [metric] : [],
  );
  const { verdict, change, interval } = report.comparisons.find(({ metric }) => metric === "latency")?.comparison ?? {};
  if (verdict === undefined || change === undefined || interval === undefined) throw new Error("nothing was compared");
  const { low, high } = interval;
  return { way, slowed, verdict, change, low, high, called, comparisons: report.comparisons.length };
}

/** Clopper and Pearson 1934: what a rate may be of which `count` of `all` were seen, at 95 %. */
function binomialInterval(count: number, all: number): readonly [low: number, high: number] {
  /** Of at most `count` at that rate. */
  const upTo = (most: number, rate: number): number => {
    let [sum, term] = [0, (1 - rate) ** all];
    for (let seen = 0; seen <= most; seen++) {
      sum += term;
      term *= ((all - seen) / (seen + 1)) * (rate / (1 - rate));
    }
    return sum;
  };
  const solve = (isAbove: (rate: number) => boolean): number => {
    let [low, high] = [0, 1];
    for (let step = 0; step < 60; step++) {
      const middle = (low + high) / 2;
      if (isAbove(middle)) high = middle;
      else low = middle;
    }
    return (low + high) / 2;
  };
  return [
    count === 0 ? 0 : solve((rate) => 1 - upTo(count - 1, rate) > 0.025),
    count === all ? 1 : solve((rate) => upTo(count, rate) < 0.025),
  ];
}

function rate(count: number, all: number): string {
  const [low, high] = binomialInterval(count, all);
  const percent = (part: number) => (100 * part).toFixed(1);
  return `${count} of ${all} (${percent(count / all)} %, interval ${percent(low)} to ${percent(high)} %)`;
}

const outcomes: Outcome[] =
  flags.log !== undefined && existsSync(flags.log)
    ? readFileSync(flags.log, "utf8")
        .split("\n")
        .filter((line) => line !== "")
        .map((line) => JSON.parse(line) as Outcome)
    : [];
const of = (way: Way, slowed: boolean) => outcomes.filter((each) => each.way === way && each.slowed === slowed);

try {
  // The kinds take turns, so that what the machine does is in all of them.
  while (performance.now() < endMs) {
    const kinds = asked.flatMap((way) =>
      [false, true].map((slowed) => ({ way, slowed, done: of(way, slowed).length })),
    );
    const next = kinds.reduce((least, kind) => (kind.done < least.done ? kind : least));
    if (next.done >= pairs) break;
    const outcome = await compareOnce(next.way, next.slowed, next.done + 1);
    outcomes.push(outcome);
    if (flags.log !== undefined) appendFileSync(flags.log, `${JSON.stringify(outcome)}\n`);
  }
  const rates = asked.map((way) => {
    const [same, slowed] = [of(way, false), of(way, true)];
    const reports = same.filter(({ called }) => called.length > 0).length;
    const comparisons = same.reduce((sum, each) => sum + each.comparisons, 0);
    const calls = same.reduce((sum, { called }) => sum + called.length, 0);
    const found = slowed.filter(({ verdict }) => verdict === "slower").length;
    const covered = same.filter(({ low, high }) => low <= 0 && high >= 0).length;
    return { way, same, slowed, reports, comparisons, calls, found, covered };
  });
  if (flags.json) {
    console.log(JSON.stringify({ model: chosen.name, slower, level, rates }, null, 2));
  } else {
    console.log(
      `${chosen.name}: ${flags.rounds ?? "as many"} rounds of ${flags["prompt-tokens"]} + ${flags["generated-tokens"]} tokens`,
    );
    for (const { way, same, slowed, reports, comparisons, calls, found, covered } of rates) {
      console.log(`\n${way === "turns" ? "models in turns" : "two runs, one after the other"}`);
      console.log(`  the same model: reports that call a difference   ${rate(reports, same.length)}`);
      console.log(`    of all their comparisons                       ${rate(calls, comparisons)}`);
      console.log(`    intervals of the latency's change that hold 0  ${rate(covered, same.length)}`);
      console.log(`  slower by ${100 * slower} %: found                             ${rate(found, slowed.length)}`);
    }
  }
  // A rate is too high, or too low, where its whole interval is.
  const missed = rates.some(
    ({ same, slowed, reports, found }) =>
      binomialInterval(reports, same.length)[0] > 1 - level || found / slowed.length < wantedFound,
  );
  process.exitCode = missed ? 1 : 0;
} finally {
  chosen.remove();
}
