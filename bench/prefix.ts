// `bun run bench:prefix`: the first token of a request behind a long prefix that another request has brought, beside the first
// token of the same request without the prefix, and of both computed whole. In turns, each round with another question, so
// that nothing but the prefix is there already.
//
//   bun run bench:prefix [--model NAME|PATH] [--threads N] [--prefix TOKENS] [--suffix TOKENS] [--rounds N] [--json]

import { parseArgs } from "node:util";
import { cpu, loadModel, type Model } from "../src/index.ts";
import { chooseModel } from "./model.ts";
import { show, summarise } from "./statistics.ts";

/** The first token behind the prefix should not take longer than this many first tokens without. */
const bar = 1.2;

const { values: flags } = parseArgs({
  options: {
    model: { type: "string" },
    threads: { type: "string" },
    prefix: { type: "string", default: "1000" },
    suffix: { type: "string", default: "32" },
    rounds: { type: "string", default: "15" },
    json: { type: "boolean", default: false },
  },
});
const rounds = whole("rounds", flags.rounds, 1, 1000);
const threads = flags.threads === undefined ? cpu.cores : whole("threads", flags.threads, 1, cpu.cores);
const prefixTokens = whole("prefix", flags.prefix, 1, 1 << 20);
const suffixTokens = whole("suffix", flags.suffix, 2, 1 << 20);

function whole(name: string, text: string, minimum: number, maximum: number): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= minimum && value <= maximum) return value;
  console.error(`--${name} is ${text}; a whole number from ${minimum} to ${maximum} is expected`);
  process.exit(1);
}

/** Any tokens do: the time does not depend on which. */
function tokensOf(model: Model, length: number, seed: number): number[] {
  return Array.from({ length }, (_, index) => ((index + 1) * 7919 + seed * 104_729) % model.tokenizer.vocabularySize);
}

async function firstTokenMs(model: Model, prompt: readonly number[], reused: number): Promise<number> {
  const cachePrompt = reused > 0;
  const options = { maxLength: 1, temperature: 0, cachePrompt } as const;
  const { reusedTokens, timings } = await model.generate(Uint32Array.from(prompt), options);
  if (reusedTokens !== reused) throw new Error(`${reusedTokens} tokens were reused, not ${reused}`);
  return timings.firstTokenMs;
}

async function measure(model: Model) {
  const prefix = tokensOf(model, prefixTokens, 1);
  await model.generate(Uint32Array.from([...prefix, 5]), { maxLength: 1 });
  const behind: number[] = [];
  const without: number[] = [];
  const computed: number[] = [];
  // The first round warms up and is not counted.
  for (let round = -1; round < rounds; round++) {
    const suffix = tokensOf(model, suffixTokens, round + 3);
    const turns = [
      async () => behind.push(await firstTokenMs(model, [...prefix, ...suffix], prefix.length)),
      async () => without.push(await firstTokenMs(model, suffix, 0)),
      async () => computed.push(await firstTokenMs(model, [...prefix, ...suffix], 0)),
    ];
    // Each comes first, second and last equally often.
    for (let turn = 0; turn < turns.length; turn++) await turns[(turn + round + 3) % turns.length]?.();
    if (round < 0) for (const list of [behind, without, computed]) list.length = 0;
  }
  const ratio = behind.map((time, index) => time / (without[index] ?? Number.NaN));
  return {
    behind: summarise(behind),
    without: summarise(without),
    computed: summarise(computed),
    ratio: summarise(ratio),
  };
}

const chosen = chooseModel(flags.model);
try {
  await using model = await loadModel(chosen.path, { threads: { count: threads } });
  const { behind, without, computed, ratio } = await measure(model);
  if (flags.json) {
    const result = {
      model: chosen.name,
      cpu: cpu.model,
      threads,
      level: model.simdLevel.name,
      rounds,
      prefix_tokens: prefixTokens,
      suffix_tokens: suffixTokens,
      first_token_behind_prefix_ms: behind,
      first_token_without_prefix_ms: without,
      first_token_computed_whole_ms: computed,
      ratio,
      bar,
      within: ratio.median <= bar,
    };
    console.log(JSON.stringify(result, null, 2));
  } else {
    console.log(`${chosen.name}: ${threads} threads, ${model.simdLevel.name}, ${cpu.model}`);
    console.log(`first token of ${suffixTokens} tokens, medians of ${rounds} rounds (least to most)\n`);
    console.log(`behind ${prefixTokens} that are there  ${show(behind, 1)} ms`);
    console.log(`without them            ${show(without, 1)} ms`);
    console.log(`all computed            ${show(computed, 1)} ms`);
    console.log(`behind ÷ without        ${show(ratio, 2)}; at most ${bar} is wanted`);
  }
} finally {
  chosen.remove();
}
