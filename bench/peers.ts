// `bun run bench:peers`: TinyAI beside llama.cpp built for this CPU, and beside node-llama-cpp under Bun, on the same files. All run
// in turns in one run, and the memory's bandwidth is read between them, so that a busy or throttled machine is so for all.
// What is faster is said only where the rounds carry it. Figures of two machines, or of two runs, are not to be compared.
//
// The results file is written after every model; --resume goes on with it, so that a long list can be measured in pieces.
//
//   bun run bench:peers [--quick] [--resume] [--json] [--models NAME,NAME] [--rounds N] [--threads N]
//   bun run bench:peers --table

import { copyFileSync, existsSync, mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import { loadavg } from "node:os";
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { startProgress } from "../src/cli/progress.ts";
import { cpu } from "../src/engine/cpu.ts";
import { openGguf } from "../src/model/gguf.ts";
import { ensureLibrary } from "../src/setup/build.ts";
import { root, runSetup, SetupError } from "../src/setup/checkout.ts";
import { runProgram } from "../src/setup/python.ts";
import { zigVersion } from "../src/setup/toolchain.ts";
import { type Meter, openMeter } from "./meter.ts";
import { barsOf, barsOfAll, showBar } from "./peers/bars.ts";
import { ensureLlama, ensureNodeLlama, type PeerNode, type PeerPython } from "./peers/install.ts";
import { ensureModel, modelNames, quickModelNames } from "./peers/models.ts";
import { compare, showRatio } from "./peers/ratio.ts";
import {
  type Conditions,
  continueFrom,
  type Described,
  type Failure,
  type Figure,
  noResults,
  parseResults,
  type Result,
  type Results,
  type Row,
  stillToMeasure,
  withModel,
} from "./peers/results.ts";
import { tableOf } from "./peers/table.ts";
import { type Command, launch, Worker } from "./peers/worker.ts";
import { show, spread, summarise } from "./statistics.ts";

const usage = `usage: bun run bench:peers [--quick] [--resume] [--json] [--models NAME,NAME] [--rounds N] [--threads N]
       bun run bench:peers --table
  --resume  keep what bench/results/peers.json holds; measure the models that it lacks, or has of another commit
  --table   print that file as Markdown, and measure nothing
models: ${modelNames.join(", ")}`;

const promptTokens = 512;
const depth = 4096;
const batches = [1, 4, 8, 16] as const;
/** The first token is that of a prompt of so many tokens, in a context of so many positions; memory is that of the same run. */
const firstPromptTokens = 32;
const firstContext = 2048;
const firstGenerated = 32;

const rate = { better: "more", unit: "tokens/s", digits: 1 } as const;
const figures: Readonly<Record<string, Figure>> = {
  [`prompt_${promptTokens}`]: { label: `prompt of ${promptTokens}`, ...rate },
  depth_0: { label: "generation at depth 0", ...rate },
  [`depth_${depth}`]: { label: `generation at depth ${depth}`, ...rate },
  ...Object.fromEntries(
    batches.map((count) => [`batch_${count}`, { label: `${count} sequence${count > 1 ? "s together" : ""}`, ...rate }]),
  ),
  lookup: { label: "guessing by prompt lookup", ...rate },
  first_token: { label: "start to first token", better: "less", unit: "s", digits: 3 },
  first_opening: { label: "start, the first time", better: "less", unit: "s", digits: 3 },
  peak_memory: { label: "peak resident memory", better: "less", unit: "MB", digits: 0 },
  opening_memory: { label: "memory, the first time", better: "less", unit: "MB", digits: 0 },
};

/** Values of the rounds that count, by figure. */
type Values = Record<string, number[]>;

function put(values: Values, key: string, value: number): void {
  values[key] ??= [];
  values[key].push(value);
}

interface Settings {
  readonly threads: number;
  readonly rounds: number;
  /** Tokens that are generated for one figure: alone, at the depth, and by each sequence of a batch. */
  readonly tokens: number;
  readonly deepTokens: number;
  readonly batchTokens: number;
}

interface Peers {
  readonly python: PeerPython;
  readonly node: PeerNode;
}

const here = join(import.meta.dir, "peers");
const nodeScript = "node_llama_worker.mjs";

/** The three programs with the arguments given; those of the Python one are named otherwise. */
function commands(
  peers: Peers,
  python: readonly string[],
  others: readonly string[],
): readonly [Command, Command, Command] {
  return [
    { name: "TinyAI", command: [process.execPath, join(here, "tinyai_worker.ts"), ...others] },
    {
      name: "llama.cpp",
      command: [...peers.python.command, join(here, "llama_worker.py"), ...python],
      environment: peers.python.environment,
    },
    { name: "node-llama-cpp", command: [process.execPath, nodeScript, ...others], folder: peers.node.folder },
  ];
}

async function measure(path: string, peers: Peers, meter: Meter, settings: Settings) {
  const threads = String(settings.threads);
  const staying = commands(peers, [path, "--threads", threads, "--depth", String(depth)], [path, threads]);
  await using tinyai = new Worker({ ...staying[0], command: [...staying[0].command, String(depth)] });
  await using llama = new Worker(staying[1]);
  await using node = new Worker(staying[2]);
  const about = await tinyai.ask({ do: "about", promptTokens: firstPromptTokens });
  const text = String(about["text"]);
  const starting = commands(
    peers,
    [
      path,
      "--threads",
      threads,
      "--first",
      text,
      "--tokens",
      String(firstGenerated),
      "--context",
      String(firstContext),
    ],
    [path, threads, text, String(firstGenerated), String(firstContext)],
  );
  const own: Values = {};
  const flashOn: Values = {};
  const flashOff: Values = {};
  const nodes: Values = {};
  /** TinyAI without what is an option. */
  const plain: Values = {};
  const runtimes: Values = {};
  const bandwidth: Values = {};
  const prompts: Values = {};
  let counted = false;
  let backwards = false;

  /** Takes each turn, in the round's order. */
  const inTurn = async (turns: readonly (() => Promise<void>)[]) => {
    for (const turn of backwards ? [...turns].reverse() : turns) await turn();
  };
  const keep = (values: Values, key: string, value: unknown) => {
    if (typeof value !== "number" || !(value > 0)) throw new Error(`${key}: ${JSON.stringify(value)} is no figure`);
    if (counted) put(values, key, value);
  };
  const ask = async (key: string, question: Readonly<Record<string, unknown>>, withNode = false) => {
    const turns = [
      async () => keep(own, key, (await tinyai.ask(question))["rate"]),
      async () => {
        const answer = await llama.ask(question);
        keep(flashOn, key, answer["flash_on"]);
        keep(flashOff, key, answer["flash_off"]);
      },
    ];
    if (withNode) turns.push(async () => keep(nodes, key, (await node.ask(question))["rate"]));
    await inTurn(turns);
    // One read takes a twentieth of a second, in which anything can come between.
    keep(bandwidth, key, summarise([meter.measure(), meter.measure(), meter.measure()]).median);
  };

  // The first round warms up and is not counted.
  for (let round = -1; round < settings.rounds; round++) {
    counted = round >= 0;
    backwards = round % 2 !== 0;
    await ask(`prompt_${promptTokens}`, { do: "prompt", tokens: promptTokens });
    await ask("depth_0", { do: "generate", tokens: settings.tokens, depth: 0 }, true);
    await ask(`depth_${depth}`, { do: "generate", tokens: settings.deepTokens, depth });
    for (const sequences of batches) {
      await ask(`batch_${sequences}`, { do: "batch", sequences, tokens: settings.batchTokens });
    }
    const texts: string[] = [];
    const repeat = (lookup: boolean, values: Values) => async () => {
      const { rate, tokens } = await tinyai.ask({ do: "repeat", tokens: settings.tokens, lookup });
      keep(values, "lookup", rate);
      texts.push(JSON.stringify(tokens));
    };
    await inTurn([repeat(true, own), repeat(false, plain)]);
    if (texts[0] !== texts[1]) throw new Error("guessing by prompt lookup changes the tokens");
    const values = [own, flashOn, nodes];
    const unprepared = { ...starting[0], command: [...starting[0].command, "unprepared"] };
    await inTurn([
      async () => {
        const { firstByte_s, peakBytes } = await launch(unprepared);
        keep(own, "first_opening", firstByte_s);
        keep(own, "opening_memory", peakBytes / 1e6);
      },
      ...starting.map((command, index) => async () => {
        const { firstByte_s, runtime_s, peakBytes, promptTokens: read } = await launch(command);
        const into = values[index] ?? {};
        keep(into, "first_token", firstByte_s);
        keep(into, "peak_memory", peakBytes / 1e6);
        keep(runtimes, command.name, runtime_s);
        keep(prompts, command.name, read);
      }),
    ]);
  }
  return { own, flashOn, flashOff, nodes, plain, runtimes, bandwidth, prompts, about };
}

type Measured = Awaited<ReturnType<typeof measure>>;

function describe(values: readonly number[]): Described {
  return { ...summarise(values), rounds: values };
}

/** Figures of the first opening, held against those of the prepared copy. */
const openings: Readonly<Record<string, string>> = { first_opening: "first_token", opening_memory: "peak_memory" };

function rowsOf({ own, flashOn, flashOff, nodes, plain }: Measured): Row[] {
  const rows: Row[] = [];
  for (const [key, figure] of Object.entries(figures)) {
    const tinyai = own[key] ?? [];
    const prepared = own[openings[key] ?? ""];
    if (prepared !== undefined) {
      const ratio = compare(tinyai, prepared, figure.better);
      rows.push({ key, ...figure, tinyai: describe(tinyai), peer: describe(prepared), peerName: "prepared", ratio });
      continue;
    }
    const without = plain[key];
    if (without !== undefined) {
      const ratio = compare(tinyai, without, figure.better);
      rows.push({ key, ...figure, tinyai: describe(tinyai), peer: describe(without), peerName: "without", ratio });
      continue;
    }
    const [on = [], off] = [flashOn[key], flashOff[key]];
    const offIsBetter = off !== undefined && summarise(off).median > summarise(on).median;
    const llama = offIsBetter ? off : on;
    rows.push({
      key,
      ...figure,
      tinyai: describe(tinyai),
      peer: describe(llama),
      peerName: "llama.cpp",
      ...(off === undefined ? {} : { setting: `flash attention ${offIsBetter ? "off" : "on"}` }),
      ratio: compare(tinyai, llama, figure.better),
    });
    const node = nodes[key];
    if (node === undefined) continue;
    const ratio = compare(tinyai, node, figure.better);
    rows.push({ key, ...figure, tinyai: describe(tinyai), peer: describe(node), peerName: "node-llama-cpp", ratio });
  }
  return rows;
}

/** Bytes of the file that one generated token reads: all, but of an embedding that is not the head as well only a row. */
function weightBytesPerToken(path: string): number {
  const { tensors } = openGguf(path);
  const separate = tensors.has("output.weight");
  return [...tensors.values()].reduce((sum, { name, byteLength, shape }) => {
    return sum + (separate && name === "token_embd.weight" ? byteLength / (shape[1] ?? 1) : byteLength);
  }, 0);
}

/** How much of the memory's bandwidth generation reaches, round by round. */
function reached({ own, bandwidth, about }: Measured, weights: number): Readonly<Record<string, Described>> {
  const at = (key: string, bytes: number) =>
    describe((own[key] ?? []).map((value, round) => (value * bytes) / 1e9 / (bandwidth[key]?.[round] ?? Number.NaN)));
  const kv = Number(about["kv_bytes_per_token"]);
  return { depth_0: at("depth_0", weights), [`depth_${depth}`]: at(`depth_${depth}`, weights + kv) };
}

/** What is known of a model's measuring beside its figures. */
type Circumstances = Pick<Result, "measured_at" | "commit" | "took_s" | "load_average_before">;

function resultOf(name: string, path: string, measured: Measured, circumstances: Circumstances): Result {
  const { bandwidth, runtimes, prompts, about } = measured;
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
  const read = Object.values(prompts).flat();
  if (new Set(read).size > 1)
    warnings.push(`the prompt of the first token had ${[...new Set(read)].join(" or ")} tokens`);
  const weights = weightBytesPerToken(path);
  return {
    model: name,
    ...circumstances,
    file_bytes: statSync(path).size,
    level: String(about["level"]),
    first_prompt_tokens: read[0] ?? 0,
    weight_bytes_per_token: weights,
    kv_bytes_per_token: Number(about["kv_bytes_per_token"]),
    rows,
    bandwidth_gb_per_s: describe(Object.values(bandwidth).flat()),
    reached_of_bandwidth: reached(measured, weights),
    /** How long each program's language and libraries took of the time to the first token. */
    runtime_s: Object.fromEntries(Object.entries(runtimes).map(([program, values]) => [program, describe(values)])),
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
    rounds: whole("rounds", flags.rounds ?? (flags.quick ? "3" : "5"), 100),
    ...(flags.quick
      ? { tokens: 48, deepTokens: 24, batchTokens: 16 }
      : { tokens: 64, deepTokens: 32, batchTokens: 32 }),
  };
  const names = flags.models?.split(",") ?? (flags.quick ? quickModelNames : modelNames);
  const unknown = names.filter((name) => !modelNames.includes(name));
  if (unknown.length > 0) throw new SetupError(`there is no model ${unknown.join(", ")}\n${usage}`);
  if (process.platform !== "linux")
    throw new SetupError("bench:peers reads peak memory from /proc and runs on Linux only");

  await ensureLibrary();
  const peers = { python: await ensureLlama(), node: await ensureNodeLlama() };
  copyFileSync(join(here, nodeScript), join(peers.node.folder, nodeScript));
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
      `medians of ${settings.rounds} rounds (least to most); ratios with the 95 % interval of their geometric mean`,
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
