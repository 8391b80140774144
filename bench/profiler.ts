// What profiling costs while it records, and whether its rows add up. The cost: the time of tokens with everything recorded (events,
// requests, JavaScript's share, allocations, the system's samples), beside the same tokens of the same generation without. Blocks
// of tokens take turns, so that a slow moment of the machine is in both; the first tokens of a block, beside which recording begins
// or ends, are left out. The bars: at most 0.5 %, and each thread's rows within 2 % of the wall time. With --monitor
// the cost is that of a monitor beside an engine that never rests: so many tokens are left out that it no longer puts off looking.
// With --interval somebody reads its samples, which come so many ms apart; with --requests it tells of requests alone, without events.
//
//   bun bench/profiler.ts [--model NAME|PATH] [--pairs N] [--monitor] [--interval MS] [--requests] [--json]

import { parseArgs } from "node:util";
import { compare } from "../src/benchmark/ratio.ts";
import { summarise } from "../src/benchmark/statistics/summary.ts";
import { Engine, type EngineRequest, type RequestListener } from "../src/engine/engine.ts";
import { loadModel, type Monitor } from "../src/index.ts";
import { chooseModel } from "./model.ts";

const costBar = 1.005;
const sumBar = 0.02;
/**
 * A token that took longer than this many medians counts as that long: it was held up by another program. What recording adds to a
 * token, half a millisecond where many events are handed over at once, stays.
 */
const longest = 1.5;

const { values: flags } = parseArgs({
  options: {
    model: { type: "string" },
    pairs: { type: "string", default: "100" },
    monitor: { type: "boolean", default: false },
    interval: { type: "string" },
    requests: { type: "boolean", default: false },
    json: { type: "boolean", default: false },
  },
});
const pairs = Number(flags.pairs);
if (!(Number.isInteger(pairs) && pairs >= 6 && pairs <= 10_000)) {
  console.error(`--pairs is ${flags.pairs}; a whole number from 6 to 10,000 is expected`);
  process.exit(2);
}

/**
 * When the engine had each token, ms of its clock. JavaScript hears of some tokens late, but no token
 * comes later for it than by the CPU time that JavaScript takes from the engine's threads, which is what is to be measured.
 */
let stampsMs: number[] = [];
const submit = Engine.prototype.submit;
Engine.prototype.submit = function (this: Engine, request: EngineRequest, listener: RequestListener) {
  const { onToken } = listener;
  listener.onToken = (token) => {
    stampsMs.push(token.timeNs / 1e6);
    onToken.call(listener, token);
  };
  return submit.call(this, request, listener);
};

/** Tokens of a block, how many of its first ones are left out, and blocks of a generation. */
const [blockTokens, skippedTokens, blocksPerGeneration] = flags.monitor ? [288, 240, 4] : [64, 16, 8];

await using model = await loadModel(chooseModel(flags.model).path);

/** Begins to record; what it gives ends it. */
function record(): () => void {
  if (flags.monitor) {
    const monitor = model.monitor({ executionTime: !flags.requests });
    if (flags.interval !== undefined) {
      monitor.intervalMs = Number(flags.interval);
      void read(monitor);
    }
    return () => monitor.close();
  }
  model.startProfiling({ cache: false, roofline: false });
  return () => model.cancelProfiling();
}

/** Reads samples until there are no more. */
async function read(monitor: Monitor): Promise<void> {
  for await (const _ of monitor);
}

/** Durations of the tokens of each block of one generation, ms, whose blocks record where `records` says so. */
async function generation(records: readonly boolean[]): Promise<number[][]> {
  stampsMs = [];
  let end: (() => void) | undefined;
  let tokens = 0;
  const maxLength = records.length * blockTokens + 1;
  for await (const piece of model.stream("Once upon a time", { maxLength, temperature: 0, ignoreEos: true })) {
    if (piece.token === undefined || tokens++ % blockTokens > 0) continue;
    end?.();
    end = records[Math.floor(tokens / blockTokens)] ? record() : undefined;
  }
  end?.();
  return records.map((_, block) => {
    const stamps = stampsMs.slice(block * blockTokens + skippedTokens, (block + 1) * blockTokens + 1);
    return stamps.slice(1).map((stamp, index) => stamp - (stamps[index] ?? stamp));
  });
}

/** Of tokens that were measured beside others whose median is `medianMs`. */
function meanMs(tokens: readonly number[], medianMs: number): number {
  return tokens.reduce((sum, ms) => sum + Math.min(ms, longest * medianMs), 0) / tokens.length;
}

/** How far each thread's rows are from the wall time of a generation by JavaScript's clock, as a part of it. */
async function apart(): Promise<number[]> {
  let wallMs = 0;
  const work = async () => {
    const startMs = performance.now();
    await model.generate("Once upon a time", { maxLength: 256, temperature: 0, ignoreEos: true, cachePrompt: false });
    wallMs = performance.now() - startMs;
  };
  const { threads } = await model.profile(work, { cache: false, roofline: false });
  return threads.map((row) => (row.busyNs + row.waitingNs + row.recordedIdleNs) / 1e6 / wallMs - 1);
}

const plain: number[] = [];
const recorded: number[] = [];
await generation([false, true, false, true]);
const sums = await apart();
while (plain.length < pairs) {
  // A text's tokens take longer as it grows, and not evenly: each pair of blocks is measured in two generations, once in either
  // order, and what its place does to it cancels.
  const order = Array.from({ length: blocksPerGeneration }, (_, block) => block % 4 === 1 || block % 4 === 2);
  const [ahead, behind] = [await generation(order), await generation(order.map((records) => !records))];
  for (let first = 0; first + 1 < order.length; first += 2) {
    const [early, late] = order[first] ? [behind, ahead] : [ahead, behind];
    const without = [early[first] ?? [], late[first + 1] ?? []];
    const within = [late[first] ?? [], early[first + 1] ?? []];
    const { median } = summarise([...without, ...within].flat());
    plain.push(Math.sqrt(without.reduce((product, block) => product * meanMs(block, median), 1)));
    recorded.push(Math.sqrt(within.reduce((product, block) => product * meanMs(block, median), 1)));
  }
  if (!flags.json && process.stderr.isTTY) process.stderr.write(`\r${plain.length} of ${pairs} pairs`);
}
if (!flags.json && process.stderr.isTTY) process.stderr.write("\r\x1b[K");

const { ratio, interval } = compare(recorded, plain, "less");
const result = {
  model: model.path,
  level: model.simd.name,
  threads: model.threadCount,
  pairs: plain.length,
  plain_ms: summarise(plain).median,
  recorded_ms: summarise(recorded).median,
  ratio,
  interval,
  sums,
};
if (flags.json) console.log(JSON.stringify(result));
else {
  const percent = (value: number) => `${(value * 100).toFixed(2)} %`;
  const range = interval
    ? `, 95 % of such medians from ${percent(interval[0] - 1)} to ${percent(interval[1] - 1)}`
    : "";
  const verdict =
    (interval?.[1] ?? ratio) <= costBar ? "reached" : ratio <= costBar ? "reached in the median only" : "missed";
  const added = sums.map((part, thread) => `thread ${thread} ${percent(part)}`).join(", ");
  const held = sums.every((part) => Math.abs(part) <= sumBar) ? "reached" : "missed";
  console.log(
    `${result.pairs} pairs of ${blockTokens - skippedTokens} tokens, ${result.level}, ${result.threads} threads`,
  );
  console.log(`a token: ${result.plain_ms.toFixed(3)} ms without, ${result.recorded_ms.toFixed(3)} ms recorded`);
  console.log(`recording costs ${percent(ratio - 1)}${range}; the bar of ${percent(costBar - 1)}: ${verdict}`);
  console.log(`rows beside the wall time: ${added}; the bar of ${percent(sumBar)}: ${held}`);
}
