// What profiling costs while it records, and whether its rows add up. The cost: the time of tokens with everything recorded (events,
// requests, JavaScript's share, allocations, the system's samples), beside that of the same tokens without; turns.ts says how it is
// measured. What is not in it: to begin and to end a recording, and, of one of more than some 2,400 tokens of Gemma, to hand events over
// meanwhile. The bars: at most 0.5 %, and each thread's rows within 2 % of the wall time. With --off, recordings end before what is
// measured begins, and nothing shall be seen.
//
//   bun bench/profiler.ts [--model NAME|PATH] [--rounds N] [--off] [--json]

import { parseArgs } from "node:util";
import { sampleIntervalsMs } from "../profiler/system.ts";
import { loadModel, type Model } from "../src/index.ts";
import { type WatchedModel, watchModels } from "../src/watched.ts";
import { whole } from "./flags.ts";
import { chooseModel } from "./model.ts";
import { costLine, percent } from "./token-times.ts";
import { measureTurns, OwnTimers, type Watch } from "./turns.ts";

const costBar = 1.005;
const sumBar = 0.02;

const { values: flags } = parseArgs({
  options: {
    model: { type: "string" },
    rounds: { type: "string", default: "10" },
    off: { type: "boolean", default: false },
    json: { type: "boolean", default: false },
  },
});
const rounds = whole("rounds", flags.rounds, 6, 10_000);

const { path } = chooseModel(flags.model);
/** So few turns a recording that its events fit their rings; of Gemma 3 270M. Its first turns still pay for its beginning. */
const [turns, turnsBefore] = [64, 4];

/** A model, and what records it as `startProfiling` does. */
interface Side {
  readonly model: Model;
  readonly recorded: WatchedModel;
}

const opened: WatchedModel[] = [];
watchModels({ opened: (watched) => opened.push(watched), closing: async () => {} });

async function load(): Promise<Side> {
  const model = await loadModel(path);
  const recorded = opened.at(-1);
  if (!recorded) throw new Error("a model was loaded, and nobody heard of it");
  return { model, recorded };
}

/** Records, with samples of the system as often as the timer would take them. */
function watch({ recorded }: Side): Watch {
  recorded.start({ cache: false, roofline: false, sampleIntervalMs: 0 });
  const timers = new OwnTimers();
  if (flags.off) {
    recorded.cancel();
    return { passed: (ms) => timers.passed(ms), end() {} };
  }
  timers.every(sampleIntervalsMs.default, () => recorded.sample(false));
  return { passed: (ms) => timers.passed(ms), end: () => recorded.cancel() };
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
const cost = await measureTurns([one, other], { watch, rounds, turns, turnsBefore });
const sums = await apart(one);
const result = { model: path, level: one.model.simd.name, threads: one.model.threadCount, ...cost, sums };
if (flags.json) console.log(JSON.stringify(result));
else {
  const added = sums.map((part, thread) => `thread ${thread} ${percent(part)}`).join(", ");
  const held = sums.every((part) => Math.abs(part) <= sumBar) ? "reached" : "missed";
  console.log(`${result.rounds} rounds of ${result.tokensPerRound} tokens, ${result.level}, ${result.threads} threads`);
  console.log(`a token: ${result.plainMs.toFixed(3)} ms without, ${result.watchedMs.toFixed(3)} ms recorded`);
  console.log(costLine(flags.off ? "a recording that is over" : "recording", result.ratio, result.interval, costBar));
  console.log(`rows beside the wall time: ${added}; the bar of ${percent(sumBar)}: ${held}`);
}
