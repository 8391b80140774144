// `bun run bench:prefix`: the first token of a request behind a long prefix that another request has brought, beside the first
// token of the same request without the prefix, and of both computed whole. In turns, each round with another question, so
// that nothing but the prefix is there already.
//
//   bun run bench:prefix [--model NAME|PATH] [--threads N] [--prefix TOKENS] [--suffix TOKENS] [--rounds N] [--json]

import { parseArgs } from "node:util";
import { show, summarise } from "../src/benchmark/statistics/summary.ts";
import { cpu, loadModel, type Model } from "../src/index.ts";
import { whole } from "./flags.ts";
import { chooseModel } from "./model.ts";
import { PrefixReuse, type PrefixTurn, prefixBar } from "./prefix-reuse.ts";

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

async function measure(model: Model) {
  const reuse = await PrefixReuse.bring(model, prefixTokens, suffixTokens);
  await reuse.turn(true); // It warms up and is not counted.
  const turns: PrefixTurn[] = [];
  for (let round = 0; round < rounds; round++) turns.push(await reuse.turn(true));
  return {
    behind: summarise(turns.map(({ behindMs }) => behindMs)),
    without: summarise(turns.map(({ withoutMs }) => withoutMs)),
    computed: summarise(turns.map(({ wholeMs = Number.NaN }) => wholeMs)),
    ratio: summarise(turns.map(({ behindMs, withoutMs }) => behindMs / withoutMs)),
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
      level: model.simd.name,
      rounds,
      prefix_tokens: prefixTokens,
      suffix_tokens: suffixTokens,
      first_token_behind_prefix_ms: behind,
      first_token_without_prefix_ms: without,
      first_token_computed_whole_ms: computed,
      ratio,
      bar: prefixBar,
      within: ratio.median <= prefixBar,
    };
    console.log(JSON.stringify(result, null, 2));
  } else {
    console.log(`${chosen.name}: ${threads} threads, ${model.simd.name}, ${cpu.model}`);
    console.log(`first token of ${suffixTokens} tokens, medians of ${rounds} rounds (least to most)\n`);
    console.log(`behind ${prefixTokens} that are there  ${show(behind, 1)} ms`);
    console.log(`without them            ${show(without, 1)} ms`);
    console.log(`all computed            ${show(computed, 1)} ms`);
    console.log(`behind ÷ without        ${show(ratio, 2)}; at most ${prefixBar} is wanted`);
  }
} finally {
  chosen.remove();
}
