// What a monitor costs beside an engine that never rests: the time of tokens with it, beside the same tokens of the same generation
// without. Blocks of tokens take turns, so that a slow moment of the machine is in both; so many first tokens of a block are left out
// that the monitor no longer puts off looking. The bar: at most 1 %. With --interval somebody reads its samples, which
// come so many ms apart; with --requests it tells of requests alone, without events.
//
//   bun bench/monitor.ts [--model NAME|PATH] [--pairs N] [--interval MS] [--requests] [--json]

import { parseArgs } from "node:util";
import { compare } from "../src/benchmark/ratio.ts";
import { summarise } from "../src/benchmark/statistics/summary.ts";
import { startProgress } from "../src/cli/progress.ts";
import { loadModel, type Monitor } from "../src/index.ts";
import { whole } from "./flags.ts";
import { chooseModel } from "./model.ts";
import { costLine, durations, meanMs, stampTokens } from "./token-times.ts";

const costBar = 1.01;

const { values: flags } = parseArgs({
  options: {
    model: { type: "string" },
    pairs: { type: "string", default: "100" },
    interval: { type: "string" },
    requests: { type: "boolean", default: false },
    json: { type: "boolean", default: false },
  },
});
const pairs = whole("pairs", flags.pairs, 6, 10_000);

let stampsMs: number[] = [];
stampTokens((atMs) => stampsMs.push(atMs));

/** Tokens of a block, how many of its first ones are left out, and blocks of a generation. */
const [blockTokens, skippedTokens, blocksPerGeneration] = [288, 240, 4];

await using model = await loadModel(chooseModel(flags.model).path);

/** Begins to watch; what it gives ends it. */
function watch(): () => void {
  const monitor = model.monitor({ executionTime: !flags.requests });
  if (flags.interval !== undefined) {
    monitor.intervalMs = Number(flags.interval);
    void read(monitor);
  }
  return () => monitor.close();
}

/** Reads samples until there are no more. */
async function read(monitor: Monitor): Promise<void> {
  for await (const _ of monitor);
}

/** Durations of the tokens of each block of one generation, ms, whose blocks are watched where `watched` says so. */
async function generation(watched: readonly boolean[]): Promise<number[][]> {
  stampsMs = [];
  let end: (() => void) | undefined;
  let tokens = 0;
  const maxLength = watched.length * blockTokens + 1;
  for await (const piece of model.stream("Once upon a time", { maxLength, temperature: 0, ignoreEos: true })) {
    if (piece.token === undefined || tokens++ % blockTokens > 0) continue;
    end?.();
    end = watched[Math.floor(tokens / blockTokens)] ? watch() : undefined;
  }
  end?.();
  return watched.map((_, block) => {
    const stamps = stampsMs.slice(block * blockTokens + skippedTokens, (block + 1) * blockTokens + 1);
    return durations(stamps);
  });
}

const plain: number[] = [];
const monitored: number[] = [];
await generation([false, true, false, true]);
const progress = startProgress({ label: "pairs of blocks", unit: "seconds", total: pairs });
while (plain.length < pairs) {
  // A text's tokens take longer as it grows, and not evenly: each pair of blocks is measured in two generations, once in either
  // order, and what its place does to it cancels.
  const order = Array.from({ length: blocksPerGeneration }, (_, block) => block % 4 === 1 || block % 4 === 2);
  const [ahead, behind] = [await generation(order), await generation(order.map((isWatched) => !isWatched))];
  for (let first = 0; first + 1 < order.length; first += 2) {
    const [early, late] = order[first] ? [behind, ahead] : [ahead, behind];
    const without = [early[first] ?? [], late[first + 1] ?? []];
    const within = [late[first] ?? [], early[first + 1] ?? []];
    const { median } = summarise([...without, ...within].flat());
    plain.push(Math.sqrt(without.reduce((product, block) => product * meanMs(block, median), 1)));
    monitored.push(Math.sqrt(within.reduce((product, block) => product * meanMs(block, median), 1)));
  }
  progress.update(plain.length);
}
progress.done();

const { ratio, interval } = compare(monitored, plain, "less");
const result = {
  model: model.path,
  level: model.simd.name,
  threads: model.threadCount,
  pairs: plain.length,
  plain_ms: summarise(plain).median,
  monitored_ms: summarise(monitored).median,
  ratio,
  interval,
};
if (flags.json) console.log(JSON.stringify(result));
else {
  console.log(
    `${result.pairs} pairs of ${blockTokens - skippedTokens} tokens, ${result.level}, ${result.threads} threads`,
  );
  console.log(`a token: ${result.plain_ms.toFixed(3)} ms without, ${result.monitored_ms.toFixed(3)} ms watched`);
  console.log(costLine("a monitor", ratio, interval, costBar));
}
