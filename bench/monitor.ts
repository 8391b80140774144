// What a monitor costs beside an engine that never rests: turns.ts says how it is measured. The engine's rests are hidden from the monitor,
// in which it would look at what waits; and so many first turns are left out that it no longer puts that off. The bar: at most 1 %. With
// --interval somebody reads its samples, which come so many ms apart; with --requests it tells of requests alone, without events.
//
//   bun bench/monitor.ts [--model NAME|PATH] [--rounds N] [--interval MS] [--requests] [--json]

import { parseArgs } from "node:util";
import { nativeMemory } from "../src/engine/allocations.ts";
import { loadModel, type Model } from "../src/index.ts";
import { describeOps, partsOf } from "../src/loaded-model.ts";
import { Monitor } from "../src/profiling/index.ts";
import { neverResting } from "../test/support/busy-engine.ts";
import { whole } from "./flags.ts";
import { chooseModel } from "./model.ts";
import { costLine } from "./token-times.ts";
import { measureTurns, OwnTimers, type Watch } from "./turns.ts";

const costBar = 1.01;

const { values: flags } = parseArgs({
  options: {
    model: { type: "string" },
    rounds: { type: "string", default: "10" },
    interval: { type: "string" },
    requests: { type: "boolean", default: false },
    json: { type: "boolean", default: false },
  },
});
const rounds = whole("rounds", flags.rounds, 6, 10_000);
const intervalMs = flags.interval === undefined ? undefined : whole("interval", flags.interval, 10, 3_600_000);
const { path } = chooseModel(flags.model);

/** Turns of a watch, and how many of them it takes until as many events wait as a monitor lets wait; of Gemma 3 270M on two threads. */
const [turns, turnsBefore] = [136, 28];

function watch({ model }: { readonly model: Model }): Watch {
  const parts = partsOf(model);
  const { engine, library, batchSize } = parts;
  const timers = new OwnTimers();
  const monitor = new Monitor(
    {
      engine: neverResting(engine),
      ops: describeOps(parts),
      batchSize,
      model: { model: path, architecture: "", version: "", level: "", threads: engine.threadCount },
      nativeBytes: () => nativeMemory(library).liveBytes,
      every: (everyMs, tick) => timers.every(everyMs, tick),
    },
    { executionTime: !flags.requests, intervalMs },
  );
  if (intervalMs !== undefined) void read(monitor);
  return { passed: (ms) => timers.passed(ms), end: () => monitor.close() };
}

/** Reads samples until there are no more. */
async function read(monitor: Monitor): Promise<void> {
  for await (const _ of monitor);
}

await using one = await loadModel(path);
await using other = await loadModel(path);
const cost = await measureTurns([{ model: one }, { model: other }], { watch, rounds, turns, turnsBefore });
const result = { model: path, level: one.simd.name, threads: one.threadCount, ...cost };
if (flags.json) console.log(JSON.stringify(result));
else {
  console.log(`${result.rounds} rounds of ${result.tokensPerRound} tokens, ${result.level}, ${result.threads} threads`);
  console.log(`a token: ${result.plainMs.toFixed(3)} ms without, ${result.watchedMs.toFixed(3)} ms watched`);
  console.log(costLine("a monitor", result.ratio, result.interval, costBar));
}
