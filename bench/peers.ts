// `bun run bench:peers`: TinyAI beside llama.cpp built for this CPU, and beside node-llama-cpp under Bun, on the same files. All run
// in turns in one run, and the memory's bandwidth is read between them, so that a busy or throttled machine is so for all.
// What is faster is said only where the turns carry it. Figures of two machines, or of two runs, are not to be compared.
//
// The results file is written after every model; --resume goes on with it, so that a long list can be measured in pieces.
//
//   bun run bench:peers [--quick] [--resume] [--json] [--models NAME,NAME] [--rounds N] [--threads N]
//   bun run bench:peers --table

import { copyFileSync, existsSync, mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import { loadavg } from "node:os";
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { compare, showRatio } from "../src/benchmark/ratio.ts";
import { show, spread, summarise } from "../src/benchmark/statistics/summary.ts";
import { startProgress } from "../src/cli/progress.ts";
import { cpu } from "../src/engine/cpu.ts";
import { openGguf } from "../src/model/gguf.ts";
import { ensureLibrary } from "../src/setup/build.ts";
import { root, runSetup, SetupError } from "../src/setup/checkout.ts";
import { runProgram } from "../src/setup/python.ts";
import { zigVersion } from "../src/setup/toolchain.ts";
import { openMeter } from "./meter.ts";
import { barsOf, barsOfAll, showBar } from "./peers/bars.ts";
import { ensureLlama, ensureNodeLlama } from "./peers/install.ts";
import {
  figures,
  type Measured,
  measure,
  nodeScript,
  type Program,
  peersScripts,
  readingFigures,
  type Settings,
  type Turn,
  valuesOf,
} from "./peers/measure.ts";
import { ensureModel, modelNames, quickModelNames } from "./peers/models.ts";
import {
  type Conditions,
  continueFrom,
  type Described,
  type Failure,
  noResults,
  parseResults,
  type Result,
  type Results,
  type Row,
  stillToMeasure,
  withModel,
} from "./peers/results.ts";
import { tableOf } from "./peers/table.ts";

const usage = `usage: bun run bench:peers [--quick] [--resume] [--json] [--models NAME,NAME] [--rounds N] [--threads N]
       bun run bench:peers --table
  --resume  keep what bench/results/peers.json holds; measure the models that it lacks, or has of another commit
  --table   print that file as Markdown, and measure nothing
models: ${modelNames.join(", ")}`;

function describe(values: readonly number[]): Described {
  return { ...summarise(values), turns: values };
}

function rowsOf({ turns }: Measured): Row[] {
  const rows: Row[] = [];
  for (const [key, figure] of Object.entries(figures)) {
    const taken = turns[key] ?? [];
    const hold = (program: Program, peerName: string, setting?: string) => {
      // Not every program takes part in every turn.
      const both = taken.filter((turn) => turn.tinyai !== undefined && turn[program] !== undefined);
      if (both.length === 0) return;
      const [tinyai, peer] = [valuesOf(both, "tinyai"), valuesOf(both, program)];
      const ratio = compare(tinyai, peer, figure.better);
      const named = { peerName, ...(setting === undefined ? {} : { setting }) };
      rows.push({ key, ...figure, tinyai: describe(tinyai), peer: describe(peer), ...named, ratio });
    };
    if (figure.against !== undefined) hold("other", figure.against);
    const flash = betterFlash(taken);
    if (flash !== undefined) hold(flash, "llama.cpp", `flash attention ${flash === "flashOn" ? "on" : "off"}`);
    hold("llama", "llama.cpp");
    hold("node", "node-llama-cpp");
  }
  return rows;
}

/** llama.cpp with flash attention or without: the better of those that came to the end. */
function betterFlash(turns: readonly Turn[]): Program | undefined {
  const ways = (["flashOn", "flashOff"] as const).filter((way) => turns.at(-1)?.[way] !== undefined);
  const median = (way: Program) => summarise(valuesOf(turns, way)).median;
  return ways.sort((a, b) => median(b) - median(a))[0];
}

/** Bytes of the file that one generated token reads: all, but of an embedding that is not the head as well only a row. */
function weightBytesPerToken(path: string): number {
  const { tensors } = openGguf(path);
  const separate = tensors.has("output.weight");
  return [...tensors.values()].reduce((sum, { name, byteLength, shape }) => {
    return sum + (separate && name === "token_embd.weight" ? byteLength / (shape[1] ?? 1) : byteLength);
  }, 0);
}

/** How much of the memory's bandwidth generation reaches, turn by turn. */
function reached({ turns, kvBytesPerToken }: Measured, weights: number): Readonly<Record<string, Described>> {
  return Object.fromEntries(
    readingFigures.map((key) => {
      const bytes = weights + (key === "depth_0" ? 0 : kvBytesPerToken);
      const shares = (turns[key] ?? []).map(
        ({ tinyai = 0, bandwidth = Number.NaN }) => (tinyai * bytes) / 1e9 / bandwidth,
      );
      return [key, describe(shares)];
    }),
  );
}

/** What is known of a model's measuring beside its figures. */
type Circumstances = Pick<Result, "measured_at" | "commit" | "took_s" | "load_average_before">;

function resultOf(name: string, path: string, measured: Measured, circumstances: Circumstances): Result {
  const rows = rowsOf(measured);
  const restless = rows.filter(({ tinyai, peer }) => spread(tinyai) > 0.1 || spread(peer) > 0.1);
  const warnings: string[] = [];
  if (circumstances.load_average_before > 0.5 * cpu.cores) {
    // The first model's load is that of others; a later one's may be that of the model before.
    warnings.push(
      `the load was ${circumstances.load_average_before.toFixed(1)} on ${cpu.cores} CPUs before the first round`,
    );
  }
  if (restless.length > 0) {
    const list = restless.map(({ label, peerName }) => `${label} (${peerName})`).join(", ");
    warnings.push(`the machine was not quiet: spreads above 10 % in ${list}`);
  }
  const read = measured.promptTokens;
  if (new Set(read).size > 1)
    warnings.push(`the prompt of the first token had ${[...new Set(read)].join(" or ")} tokens`);
  const weights = weightBytesPerToken(path);
  return {
    model: name,
    ...circumstances,
    file_bytes: statSync(path).size,
    took_s_by_figure: measured.took_s,
    level: measured.level,
    first_prompt_tokens: read[0] ?? 0,
    weight_bytes_per_token: weights,
    kv_bytes_per_token: measured.kvBytesPerToken,
    rows,
    bandwidth_gb_per_s: describe(readingFigures.flatMap((key) => valuesOf(measured.turns[key] ?? [], "bandwidth"))),
    reached_of_bandwidth: reached(measured, weights),
    /** How long each program's language and libraries took of the time to the first token. */
    runtime_s: Object.fromEntries(
      Object.entries(measured.runtimes_s).map(([program, values]) => [program, describe(values)]),
    ),
    warnings,
  };
}

function print(result: Result): void {
  const { model, file_bytes, level, rows, warnings, ...rest } = result;
  console.log(`\n${model} (${(file_bytes / 1e6).toFixed(0)} MB), TinyAI at ${level}`);
  const cells = rows.map((row) => [
    row.label,
    row.unit,
    show(row.tinyai, row.digits),
    show(row.peer, row.digits),
    [row.peerName, row.setting?.replace("flash attention", "flash")].filter(Boolean).join(", "),
    showRatio(row.ratio),
  ]);
  const lines = [["", "", "TinyAI", "peer", "", "TinyAI ÷ peer"], ...cells];
  const widths = lines[0]?.map((_, column) => Math.max(...lines.map((line) => line[column]?.length ?? 0))) ?? [];
  for (const line of lines)
    console.log(
      line
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join("  ")
        .trimEnd(),
    );
  console.log(`memory reads ${show(rest.bandwidth_gb_per_s, 1)} GB/s over 1 GiB`);
  for (const [key, { median, minimum, maximum }] of Object.entries(rest.reached_of_bandwidth)) {
    const [middle, least, most] = [median, minimum, maximum].map((share) => (share * 100).toFixed(0));
    console.log(`TinyAI reaches ${middle} % of it (${least} to ${most}) in ${figures[key]?.label ?? key}`);
  }
  const runtimes = Object.entries(rest.runtime_s).map(([program, { median }]) => `${program} ${median.toFixed(3)} s`);
  console.log(`of the start, before the model is opened: ${runtimes.join(", ")}`);
  const parts = Object.entries(rest.took_s_by_figure).map(([what, seconds]) => `${what} ${seconds.toFixed(0)}`);
  console.log(`measured in ${rest.took_s} s: ${parts.join(", ")}`);
  for (const bar of barsOf(result)) console.log(`${bar.what}: ${showBar(bar)}`);
  for (const warning of warnings) console.log(warning);
}

/** The commit that was measured, and whether the checkout was exactly that. */
async function commit(): Promise<string> {
  const head = await runProgram(["git", "rev-parse", "--short=12", "HEAD"], { cwd: root });
  if (head.status !== 0) return "unknown";
  // The results themselves change with every model that is measured.
  const measured = [".", ":(exclude)bench/results"];
  const changes = await runProgram(["git", "status", "--porcelain", "--untracked-files=no", "--", ...measured], {
    cwd: root,
  });
  return head.stdout.trim() + (changes.stdout === "" ? "" : " with changes");
}

/** Writes a file that is whole or not there. */
function writeWhole(path: string, text: string): void {
  mkdirSync(dirname(path), { recursive: true });
  const temporary = `${path}.${process.pid}.tmp`;
  writeFileSync(temporary, text);
  renameSync(temporary, path);
}

const resultsPath = join(root, "bench", "results", "peers.json");

/** @throws {SetupError} if the results file is not there, or `parse` does not take it. */
function readResults(parse: (text: string) => Results): Results {
  try {
    return parse(readFileSync(resultsPath, "utf8"));
  } catch (error) {
    const what = (error as Error).message;
    throw new SetupError(`${resultsPath}: ${what}; run bench:peers without --resume and --table to begin a new one`);
  }
}

function whole(name: string, text: string, maximum: number): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= 1 && value <= maximum) return value;
  throw new SetupError(`--${name} is ${text}; a whole number from 1 to ${maximum} is expected`);
}

function readArguments() {
  try {
    return parseArgs({
      options: {
        quick: { type: "boolean", default: false },
        json: { type: "boolean", default: false },
        resume: { type: "boolean", default: false },
        table: { type: "boolean", default: false },
        models: { type: "string" },
        rounds: { type: "string" },
        threads: { type: "string" },
        help: { type: "boolean", short: "h", default: false },
      },
    }).values;
  } catch (error) {
    throw new SetupError(`${(error as Error).message}\n${usage}`);
  }
}

await runSetup(async () => {
  const flags = readArguments();
  if (flags.help) {
    console.log(usage);
    return 0;
  }
  if (flags.table) {
    console.log(tableOf(readResults(parseResults)));
    return 0;
  }
  const settings: Settings = {
    threads: flags.threads === undefined ? cpu.cores : whole("threads", flags.threads, cpu.cores),
    rounds: whole("rounds", flags.rounds ?? (flags.quick ? "2" : "3"), 100),
    turns: 3,
    turn_s: 0.4,
  };
  const names = flags.models?.split(",") ?? (flags.quick ? quickModelNames : modelNames);
  const unknown = names.filter((name) => !modelNames.includes(name));
  if (unknown.length > 0) throw new SetupError(`there is no model ${unknown.join(", ")}\n${usage}`);
  if (process.platform !== "linux")
    throw new SetupError("bench:peers reads peak memory from /proc and runs on Linux only");

  await ensureLibrary();
  const peers = { python: await ensureLlama(), node: await ensureNodeLlama() };
  copyFileSync(join(peersScripts, nodeScript), join(peers.node.folder, nodeScript));
  const measuredCommit = await commit();
  const conditions: Conditions = {
    cpu: cpu.model,
    cpus: cpu.cores,
    versions: {
      bun: Bun.version,
      zig: zigVersion,
      python: peers.python.pythonVersion,
      "llama-cpp-python": peers.python.llamaVersion,
      "node-llama-cpp": peers.node.version,
    },
    settings: { quick: flags.quick, ...settings },
  };
  const earlier = flags.resume && existsSync(resultsPath);
  let results = earlier ? readResults((text) => continueFrom(text, conditions)) : noResults(conditions);
  const wanted = stillToMeasure(results, names, measuredCommit);
  if (!flags.json) {
    console.log(`${cpu.model}, ${settings.threads} threads; commit ${measuredCommit}`);
    const versions = Object.entries(conditions.versions).map((pair) => pair.join(" "));
    console.log(versions.join(", "));
    console.log(
      `medians of ${settings.rounds * settings.turns} turns (least to most); ratios with the 95 % interval of their median`,
    );
    if (wanted.length < names.length) console.log(`${names.length - wanted.length} models are measured already`);
  }
  const meter = await openMeter(settings.threads);
  try {
    for (const name of wanted) {
      const path = await ensureModel(name, peers.python);
      const load = loadavg()[0] ?? 0;
      const progress = startProgress({ label: `measuring ${name}`, unit: "seconds" });
      const begin = performance.now();
      const circumstances = {
        measured_at: new Date().toISOString(),
        commit: measuredCommit,
        load_average_before: load,
      };
      let learned: Result | Failure;
      try {
        const measured = await measure(path, peers, meter, settings);
        const took_s = Math.round((performance.now() - begin) / 1000);
        learned = resultOf(name, path, measured, { ...circumstances, took_s });
        progress.done();
        if (!flags.json) print(learned);
      } catch (error) {
        progress.failed();
        learned = { model: name, problem: (error as Error).message };
        process.stderr.write(`${name}: ${learned.problem}\n`);
      }
      results = withModel(results, learned, modelNames);
      writeWhole(resultsPath, `${JSON.stringify(results, null, 2)}\n`);
    }
  } finally {
    meter.close();
  }

  if (flags.json) process.stdout.write(`${JSON.stringify(results, null, 2)}\n`);
  else {
    if (results.models.length > 1) {
      const means = Object.entries(results.overall_ratio_to_llama_cpp);
      console.log("\nTinyAI ÷ llama.cpp, geometric mean over the models");
      for (const [key, ratio] of means) console.log(`${(figures[key]?.label ?? key).padEnd(28)}${ratio.toFixed(2)}`);
      for (const bar of barsOfAll(results.models)) console.log(`${bar.what}: ${showBar(bar)}`);
    }
    console.log(`\n${resultsPath}`);
  }
  return results.failures.some(({ model }) => names.includes(model)) ? 1 : 0;
});
