// How late 1 ms timers fire in a process whose model generates, beside how late they fire when it does nothing. What a server
// or a user interface in the same process feels. The bar: at most 5 ms at the 99th percentile.
//
//   bun bench/event-loop.ts [--model NAME|PATH] [--seconds N] [--json]

import { parseArgs } from "node:util";
import { quantile } from "../src/benchmark/statistics/summary.ts";
import { cpu, loadModel } from "../src/index.ts";
import { chooseModel } from "./model.ts";

const barMs = 5;

const { values: flags } = parseArgs({
  options: {
    model: { type: "string" },
    seconds: { type: "string", default: "5" },
    json: { type: "boolean", default: false },
  },
});
const seconds = Number(flags.seconds);
if (!(seconds > 0 && seconds <= 600)) {
  console.error(`--seconds is ${flags.seconds}; a number above 0 up to 600 is expected`);
  process.exit(1);
}

interface Lateness {
  readonly p50_ms: number;
  readonly p99_ms: number;
  readonly max_ms: number;
  readonly timers: number;
}

/** Sets a timer of 1 ms again and again while `work` runs; each is late by what passes beyond that. */
async function lateness(work: Promise<unknown>): Promise<Lateness> {
  const late: number[] = [];
  let running = true;
  const ended = work.finally(() => {
    running = false;
  });
  while (running) {
    const due = performance.now() + 1;
    await new Promise((resolve) => setTimeout(resolve, 1));
    late.push(Math.max(0, performance.now() - due));
  }
  await ended;
  late.sort((a, b) => a - b);
  return { p50_ms: quantile(late, 0.5), p99_ms: quantile(late, 0.99), max_ms: late.at(-1) ?? 0, timers: late.length };
}

const chosen = chooseModel(flags.model);
try {
  await using model = await loadModel(chosen.path);
  const { vocabularySize } = model.tokenizer;
  const prompt = Uint32Array.from({ length: 256 }, (_, index) => (index * 7919 + 17) % vocabularySize);
  const generate = async () => {
    const end = performance.now() + seconds * 1000;
    while (performance.now() < end) {
      for await (const _ of model.stream(prompt, { maxLength: 200, temperature: 0, ignoreEos: true })) {
        if (performance.now() >= end) break;
      }
    }
  };
  await model.generate(prompt, { maxLength: 4 });
  const idle = await lateness(Bun.sleep(seconds * 1000));
  const generating = await lateness(generate());
  const within = generating.p99_ms <= barMs;
  if (flags.json) {
    console.log(
      JSON.stringify(
        { model: chosen.name, threads: model.threadCount, cpus: cpu.cores, idle, generating, bar_ms: barMs, within },
        null,
        2,
      ),
    );
  } else {
    const line = (name: string, { p50_ms, p99_ms, max_ms, timers }: Lateness) =>
      console.log(
        `${name} p50 ${p50_ms.toFixed(2)} ms, p99 ${p99_ms.toFixed(2)} ms, most ${max_ms.toFixed(2)} ms (${timers} timers)`,
      );
    console.log(`${chosen.name}: ${model.threadCount} threads on ${cpu.cores} CPUs; how late timers of 1 ms fire`);
    line("nothing runs ", idle);
    line("it generates ", generating);
    console.log(within ? `within the bar of ${barMs} ms at p99` : `ABOVE the bar of ${barMs} ms at p99`);
  }
} finally {
  chosen.remove();
}
