// `bun run bench`: how fast a model reads prompts and generates, beside how fast this machine reads memory. All three are
// measured in turns in one run, so that a machine that is busy or throttled is so for all. A generated token reads every
// weight once: bytes a token × tokens a second ÷ the memory's bandwidth is how near to the limit generation is.
//
//   bun run bench [--model NAME|PATH] [--threads N] [--rounds N] [--json]

import { loadavg } from "node:os";
import { parseArgs } from "node:util";
import { type Summary, show, spread, summarise } from "../src/benchmark/statistics/summary.ts";
import { cpu, loadModel, type Model } from "../src/index.ts";
import { whole } from "./flags.ts";
import { openMeter } from "./meter.ts";
import { chooseModel } from "./model.ts";

const promptTokens = 512;
/** Long enough that a round's figure does not hang on single steps; short enough that depth stays near 0. */
const generatedTokens = 64;

const { values: flags } = parseArgs({
  options: {
    model: { type: "string" },
    threads: { type: "string" },
    rounds: { type: "string", default: "7" },
    json: { type: "boolean", default: false },
  },
});
const rounds = whole("rounds", flags.rounds, 1, 1000);
const threads = flags.threads === undefined ? cpu.cores : whole("threads", flags.threads, 1, cpu.cores);

/** Any tokens do: the time does not depend on which. The same ones every round. */
function promptOf(model: Model, length: number): Uint32Array {
  const { vocabularySize, bosToken } = model.tokenizer;
  const prompt = Uint32Array.from({ length }, (_, index) => (index * 7919 + 17) % vocabularySize);
  if (bosToken !== undefined) prompt[0] = bosToken;
  return prompt;
}

async function measure(model: Model) {
  const meter = await openMeter(threads);
  const prompt: number[] = [];
  const generation: number[] = [];
  const bandwidth: number[] = [];
  const long = promptOf(model, Math.min(promptTokens, model.contextLength - 1));
  const short = promptOf(model, 1);
  try {
    // The first round warms up and is not counted.
    for (let round = -1; round < rounds; round++) {
      const read = await model.generate(long, { maxLength: 1, temperature: 0 });
      const gigabytes = meter.measure();
      const written = await model.generate(short, { maxLength: generatedTokens + 1, temperature: 0, ignoreEos: true });
      if (round < 0) continue;
      bandwidth.push(gigabytes);
      prompt.push(read.timings.promptTokensPerSecond);
      generation.push(written.timings.generatedTokensPerSecond);
    }
  } finally {
    meter.close();
  }
  return {
    prompt: summarise(prompt),
    generation: summarise(generation),
    bandwidth: summarise(bandwidth),
    // Turn by turn, so that a slow moment of the machine is in both.
    reached: summarise(
      generation.map((rate, index) => (rate * bytesPerToken(model)) / 1e9 / (bandwidth[index] ?? NaN)),
    ),
    promptLength: long.length,
  };
}

/** Packed weights and vectors that one generated token reads, and its row of the embedding. */
function bytesPerToken(model: Model): number {
  return model.plan().ops.reduce((sum, op) => sum + op.bytesPerStep + (op.kind === "embed" ? op.bytesPerRow : 0), 0);
}

function warn(figures: Record<string, Summary>): string[] {
  const restless = Object.entries(figures).filter(([, summary]) => spread(summary) > 0.1);
  if (restless.length === 0) return [];
  const list = restless.map(([name, summary]) => `${name} ${Math.round(spread(summary) * 100)} %`).join(", ");
  return [`the machine was not quiet (load ${loadavg()[0]?.toFixed(1)} on ${cpu.cores} CPUs): spread of ${list}`];
}

const chosen = chooseModel(flags.model);
try {
  await using model = await loadModel(chosen.path, { threads: { count: threads }, prefixCache: false });
  const { prompt, generation, bandwidth, reached, promptLength } = await measure(model);
  const bytes = bytesPerToken(model);
  const warnings = warn({ prompt, generation, bandwidth });
  if (flags.json) {
    const result = {
      model: chosen.name,
      path: model.path,
      cpu: cpu.model,
      threads,
      level: model.simd.name,
      rounds,
      prompt_length: promptLength,
      prompt_tokens_per_s: prompt,
      generated_tokens_per_s: generation,
      bandwidth_gb_per_s: bandwidth,
      weights_bytes_per_token: bytes,
      achieved_gb_per_s: (generation.median * bytes) / 1e9,
      achieved_of_bandwidth: reached,
      warnings,
    };
    console.log(JSON.stringify(result, null, 2));
  } else {
    console.log(`${chosen.name}: ${threads} threads, ${model.simd.name}, ${cpu.model}`);
    console.log(`medians of ${rounds} rounds (least to most)\n`);
    console.log(`prompt of ${promptLength}        ${show(prompt, 1)} tokens/s`);
    console.log(`generation at depth 0  ${show(generation, 1)} tokens/s`);
    console.log(
      `  reads                ${((generation.median * bytes) / 1e9).toFixed(2)} GB/s of weights, ${(bytes / 1e6).toFixed(1)} MB a token`,
    );
    console.log(`memory reads           ${show(bandwidth, 2)} GB/s over 1 GiB`);
    console.log(
      `reached                ${(reached.median * 100).toFixed(1)} % (${(reached.minimum * 100).toFixed(1)} to ${(reached.maximum * 100).toFixed(1)})`,
    );
    for (const warning of warnings) console.log(`\n${warning}`);
  }
} finally {
  chosen.remove();
}
