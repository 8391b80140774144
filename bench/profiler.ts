// What profiling costs while it records, and whether its rows add up. The cost: the time of tokens with everything recorded (events,
// requests, JavaScript's share, allocations, the system's samples), beside that of the same tokens without. The machine's speed changes
// within seconds by more than what is to be seen. So a model is loaded twice; one records and the other does not, while they take turns
// every few tokens. Then they change roles, and what sets one loading apart from the other cancels. Samples of the system are taken at
// the recording model's tokens, as often in its own time as the timer would: the timer's would fall to both. What is not in it: to begin
// and to end a recording, and, of one of more than some 500 tokens of Gemma, to hand events over meanwhile. The bars: at most 0.5 %, and
// each thread's rows within 2 % of the wall time. With --off, recordings end before what is measured begins, and nothing shall be seen.
//
//   bun bench/profiler.ts [--model NAME|PATH] [--turns N] [--off] [--json]

import { parseArgs } from "node:util";
import { sampleIntervalsMs } from "../profiler/system.ts";
import { compare, geometricMean } from "../src/benchmark/ratio.ts";
import { summarise } from "../src/benchmark/statistics/summary.ts";
import { startProgress } from "../src/cli/progress.ts";
import { loadModel, type Model } from "../src/index.ts";
import { type WatchedModel, watchModels } from "../src/watched.ts";
import { whole } from "./flags.ts";
import { chooseModel } from "./model.ts";
import { costLine, durations, meanMs, percent, stampTokens } from "./token-times.ts";

const costBar = 1.005;
const sumBar = 0.02;

const { values: flags } = parseArgs({
  options: {
    model: { type: "string" },
    turns: { type: "string", default: "200" },
    off: { type: "boolean", default: false },
    json: { type: "boolean", default: false },
  },
});
const turns = whole("turns", flags.turns, 6, 100_000);

const { path } = chooseModel(flags.model);
/** Tokens of a request, how many of its first ones are left out, and turns of a recording: so few that its events fit their rings. */
const [requestTokens, skippedTokens, turnsPerRecording] = [13, 4, 34];
const prompt = "Once upon a time";

let stampsMs: number[] = [];
/** Takes a sample for the model that records and has a token now; undefined while the other has its turn. */
let sample: (() => void) | undefined;
/** The recording model's own time since the last one. */
let sinceSampleMs = 0;
stampTokens((atMs) => {
  const beforeMs = stampsMs.at(-1);
  stampsMs.push(atMs);
  if (!sample || beforeMs === undefined) return;
  sinceSampleMs += atMs - beforeMs;
  if (sinceSampleMs < sampleIntervalsMs.default) return;
  sinceSampleMs = 0;
  sample();
});

/** A model, and what records it as `startProfiling` does. */
interface Side {
  readonly model: Model;
  readonly watched: WatchedModel;
}

const opened: WatchedModel[] = [];
watchModels({ opened: (watched) => opened.push(watched), closing: async () => {} });

async function load(): Promise<Side> {
  const model = await loadModel(path);
  const watched = opened.at(-1);
  if (!watched) throw new Error("a model was loaded, and nobody heard of it");
  return { model, watched };
}

/** How long each token of a request took, ms. */
async function tokensOf({ model }: Side): Promise<number[]> {
  stampsMs = [];
  for await (const _ of model.stream(prompt, { maxLength: requestTokens, temperature: 0, ignoreEos: true }));
  return durations(stampsMs.slice(skippedTokens));
}

/** The same while it records, with its samples. */
async function recordedTokensOf(side: Side): Promise<number[]> {
  sample = flags.off ? undefined : () => side.watched.sample(false);
  try {
    return await tokensOf(side);
  } finally {
    sample = undefined;
  }
}

/** Tokens of each, the recorded ones taken either first or last. */
interface Turn {
  readonly plain: readonly number[];
  readonly recorded: readonly number[];
}

/** The turns of one recording. */
async function takeTurns(recorder: Side, other: Side): Promise<Turn[]> {
  recorder.watched.start({ cache: false, roofline: false, sampleIntervalMs: 0 });
  if (flags.off) recorder.watched.cancel();
  const taken: Turn[] = [];
  for (let turn = 0; turn < turnsPerRecording; turn++) {
    if (turn % 2 === 0) {
      const recorded = await recordedTokensOf(recorder);
      taken.push({ recorded, plain: await tokensOf(other) });
    } else {
      const plain = await tokensOf(other);
      taken.push({ recorded: await recordedTokensOf(recorder), plain });
    }
  }
  if (!flags.off) recorder.watched.cancel();
  return taken;
}

/** How far each thread's rows are from the wall time of a generation by JavaScript's clock, as a part of it. */
async function apart({ model }: Side): Promise<number[]> {
  let wallMs = 0;
  const work = async () => {
    const startMs = performance.now();
    await model.generate("Once upon a time", { maxLength: 256, temperature: 0, ignoreEos: true, cachePrompt: false });
    wallMs = performance.now() - startMs;
  };
  const { threads } = await model.profile(work, { cache: false, roofline: false });
  return threads.map((row) => (row.busyNs + row.waitingNs + row.recordedIdleNs) / 1e6 / wallMs - 1);
}

const one = await load();
const other = await load();
await using _one = one.model;
await using _other = other.model;
await takeTurns(one, other);
const sums = await apart(one);
const plain: number[] = [];
const recorded: number[] = [];
const progress = startProgress({ label: "turns", unit: "seconds", total: turns });
while (plain.length < turns) {
  const there = await takeTurns(one, other);
  const back = await takeTurns(other, one);
  for (const [place, turn] of there.entries()) {
    const both = [turn, back[place] ?? turn];
    const { median } = summarise(both.flatMap((each) => [...each.plain, ...each.recorded]));
    const mean = (kind: keyof Turn) => geometricMean(both.map((each) => meanMs(each[kind], median)));
    plain.push(mean("plain"));
    recorded.push(mean("recorded"));
  }
  progress.update(plain.length);
}
progress.done();

const { ratio, interval } = compare(recorded, plain, "less");
const result = {
  model: path,
  level: one.model.simd.name,
  threads: one.model.threadCount,
  turns: plain.length,
  plain_ms: summarise(plain).median,
  recorded_ms: summarise(recorded).median,
  ratio,
  interval,
  sums,
};
if (flags.json) console.log(JSON.stringify(result));
else {
  const added = sums.map((part, thread) => `thread ${thread} ${percent(part)}`).join(", ");
  const held = sums.every((part) => Math.abs(part) <= sumBar) ? "reached" : "missed";
  console.log(
    `${result.turns} turns of twice ${requestTokens - skippedTokens - 1} tokens, ${result.level}, ${result.threads} threads`,
  );
  console.log(`a token: ${result.plain_ms.toFixed(3)} ms without, ${result.recorded_ms.toFixed(3)} ms recorded`);
  console.log(costLine(flags.off ? "a recording that is over" : "recording", ratio, interval, costBar));
  console.log(`rows beside the wall time: ${added}; the bar of ${percent(sumBar)}: ${held}`);
}
