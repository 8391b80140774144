// What profiling costs while it records: the time of tokens with everything recorded (events, requests, JavaScript's share,
// allocations, the system's samples), beside the same tokens of the same generation without. Blocks of tokens take turns, so that a
// slow moment of the machine is in both; the first tokens of a block, beside which recording begins or its report is made, are left out.
// The bar: at most 0.5 %. With --monitor it is a monitor in a process that is never idle: so many first tokens are left out that it
// no longer puts off looking at events.
//
//   bun bench/profiler.ts [--model NAME|PATH] [--pairs N] [--monitor] [--json]

import { parseArgs } from "node:util";
import { loadModel } from "../src/index.ts";
import { chooseModel } from "./model.ts";
import { compare } from "./peers/ratio.ts";
import { summarise } from "./statistics.ts";

const bar = 1.005;

const { values: flags } = parseArgs({
  options: {
    model: { type: "string" },
    pairs: { type: "string", default: "100" },
    monitor: { type: "boolean", default: false },
    json: { type: "boolean", default: false },
  },
});
const pairs = Number(flags.pairs);
if (!(Number.isInteger(pairs) && pairs >= 6 && pairs <= 10_000)) {
  console.error(`--pairs is ${flags.pairs}; a whole number from 6 to 10,000 is expected`);
  process.exit(2);
}

/** Tokens of a block, how many of its first ones are left out, and blocks of a generation. */
const [blockTokens, skippedTokens, blocksPerGeneration] = flags.monitor ? [288, 240, 4] : [48, 16, 8];

await using model = await loadModel(chooseModel(flags.model).path);

/** Begins to record; what it gives ends it. */
function record(): () => void {
  if (flags.monitor) {
    const monitor = model.monitor();
    return () => monitor.close();
  }
  model.startProfiling({ cache: false, roofline: false });
  return () => model.stopProfiling();
}

/** Ms a token of each block of one generation, whose blocks record where `records` says so. */
async function generation(records: readonly boolean[]): Promise<number[]> {
  const perToken: number[] = [];
  let end: (() => void) | undefined;
  let tokens = 0;
  let startMs = 0;
  const maxLength = records.length * blockTokens + 1;
  for await (const piece of model.stream("Once upon a time", { maxLength, temperature: 0, ignoreEos: true })) {
    if (piece.token === undefined) continue;
    const place = tokens % blockTokens;
    const wanted = records[Math.floor(tokens / blockTokens)] ?? false;
    if (place === 0) {
      if (tokens > 0) perToken.push((performance.now() - startMs) / (blockTokens - skippedTokens));
      end?.();
      end = wanted ? record() : undefined;
    }
    if (place === skippedTokens) startMs = performance.now();
    tokens++;
  }
  end?.();
  return perToken;
}

const plain: number[] = [];
const recorded: number[] = [];
await generation([false, true]);
while (plain.length < pairs) {
  // A text's tokens take longer as it grows, and not evenly: each pair of blocks is measured in two generations, once in either
  // order, and what its place does to it cancels.
  const order = Array.from({ length: blocksPerGeneration }, (_, block) => block % 4 === 1 || block % 4 === 2);
  const [ahead, behind] = [await generation(order), await generation(order.map((records) => !records))];
  for (let first = 0; first + 1 < order.length; first += 2) {
    const mean = (records: boolean): number =>
      Math.sqrt(
        (ahead[order[first] === records ? first : first + 1] ?? 0) *
          (behind[order[first] === records ? first + 1 : first] ?? 0),
      );
    plain.push(mean(false));
    recorded.push(mean(true));
  }
  if (!flags.json && process.stderr.isTTY) process.stderr.write(`\r${plain.length} of ${pairs} pairs`);
}
if (!flags.json && process.stderr.isTTY) process.stderr.write("\r\x1b[K");

const { ratio, interval } = compare(recorded, plain, "less");
const result = {
  model: model.path,
  level: model.simdLevel.name,
  threads: model.threadCount,
  pairs: plain.length,
  plain_ms: summarise(plain).median,
  recorded_ms: summarise(recorded).median,
  ratio,
  interval,
};
if (flags.json) console.log(JSON.stringify(result));
else {
  const percent = (value: number) => `${((value - 1) * 100).toFixed(2)} %`;
  const range = interval ? `, 95 % of such medians from ${percent(interval[0])} to ${percent(interval[1])}` : "";
  const verdict = (interval?.[1] ?? ratio) <= bar ? "reached" : ratio <= bar ? "reached in the median only" : "missed";
  console.log(
    `${result.pairs} pairs of ${blockTokens - skippedTokens} tokens, ${result.level}, ${result.threads} threads`,
  );
  console.log(`a token: ${result.plain_ms.toFixed(3)} ms without, ${result.recorded_ms.toFixed(3)} ms recorded`);
  console.log(`recording costs ${percent(ratio)}${range}; the bar of ${percent(bar)}: ${verdict}`);
}
