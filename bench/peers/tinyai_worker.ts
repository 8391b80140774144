// Measures TinyAI on one model, through its public entry, in a process of its own like the peers': a question a line on stdin,
// an answer a line on stdout, as llama_worker.py beside it. Unlike there, sampling and the way of every token to JavaScript are
// in the tokens/s, for that is all a user gets.
//
//   bun tinyai_worker.ts MODEL.gguf THREADS DEPTH [screening]
//     the questions of llama_worker.py are answered by {"rate": tokens/s}; {"do": "about"} by what is said of the model once;
//     there are two more, "repeat" and "prefix", below. With `screening` the head is screened; where it cannot be, the first
//     answer is {"unsupported": true}, and the last
//   bun tinyai_worker.ts MODEL.gguf THREADS TEXT TOKENS CONTEXT [unprepared | screening]
//     writes the first token's text as soon as it is there, generates the rest, then leaves one JSON line on stderr; from the
//     model's prepared copy, unless it is told to open the file as if for the first time

import { readFileSync, writeSync } from "node:fs";
import { createInterface } from "node:readline";
import { loadModel, type Model, OptionError } from "../../src/index.ts";
import type { PrefixReuse } from "../prefix-reuse.ts";

const importedAt = Date.now();

/** The questions. */
type Asked =
  | { readonly do: "about"; readonly promptTokens: number }
  | { readonly do: "prompt"; readonly tokens: number }
  | { readonly do: "generate"; readonly tokens: number; readonly depth: number }
  | { readonly do: "repeat"; readonly tokens: number; readonly lookup: boolean }
  | { readonly do: "prefix"; readonly prefix: number; readonly suffix: number; readonly whole: boolean }
  | { readonly do: "batch"; readonly sequences: number; readonly tokens: number };

/** Every request computes all of its prompt unless it says otherwise. */
const greedy = { temperature: 0, ignoreEos: true, cachePrompt: false } as const;
/** Enough that what is to be reused is still there, whatever came in between. */
const prefixCache = { maxBytes: 2 ** 30 };

/** Any tokens do: the time does not depend on which. */
function promptOf(model: Model, length: number, step = 7919): Uint32Array {
  const { vocabularySize } = model.tokenizer;
  return Uint32Array.from({ length }, (_, index) => (index * step + 17) % vocabularySize);
}

/** A text of words that the model reads as at most `count` tokens, begin token included, and as near to it as words allow. */
function textOf(model: Model, count: number): string {
  const words = "the river runs past the old mill and down to the sea where small boats wait for morning".split(" ");
  let text = words[0] ?? "";
  for (let next = 1; ; next++) {
    const longer = `${text} ${words[next % words.length]}`;
    if (model.tokenizer.encode(longer, { addSpecial: true }).length > count) return text;
    text = longer;
  }
}

/** Greedy generation after a prompt that repeats itself, which is what guessing by prompt lookup is for. */
async function repeat(model: Model, asked: Extract<Asked, { do: "repeat" }>) {
  const phrase = Array.from(promptOf(model, 32));
  const prompt = Uint32Array.from([...phrase, ...phrase, ...phrase, ...phrase]);
  const speculation = asked.lookup ? ({ speculation: "lookup" } as const) : {};
  const options = { ...greedy, maxLength: asked.tokens + 1, ...speculation };
  const { timings, tokens } = await model.generate(prompt, options);
  return { rate: timings.generatedTokensPerSecond, tokens };
}

let reuse: PrefixReuse | undefined;

/** The first token behind a prefix that is there, and that of the prompt without the prefix. */
async function prefix(model: Model, asked: Extract<Asked, { do: "prefix" }>) {
  if (reuse === undefined) {
    const { PrefixReuse } = await import("../prefix-reuse.ts");
    reuse = await PrefixReuse.bring(model, asked.prefix, asked.suffix);
  }
  const { behindMs, withoutMs } = await reuse.turn(asked.whole);
  return { behind_s: behindMs / 1000, without_s: withoutMs / 1000 };
}

async function rateOf(model: Model, asked: Exclude<Asked, { do: "about" | "repeat" | "prefix" }>): Promise<number> {
  switch (asked.do) {
    case "prompt": {
      const { timings } = await model.generate(promptOf(model, asked.tokens), { ...greedy, maxLength: 1 });
      return timings.promptTokensPerSecond;
    }
    case "generate": {
      const prompt = promptOf(model, Math.max(asked.depth, 1));
      // The positions before are computed once, as the peer's are.
      const cachePrompt = asked.depth > 0;
      const { timings } = await model.generate(prompt, { ...greedy, cachePrompt, maxLength: asked.tokens + 1 });
      return timings.generatedTokensPerSecond;
    }
    case "batch": {
      // Different sequences: each begins with another token.
      const prompts = Array.from({ length: asked.sequences }, (_, index) => promptOf(model, index + 1, 31).slice(-1));
      const options = { ...greedy, maxLength: asked.tokens + 1, batchSize: asked.sequences };
      const results = await model.generate(prompts, options);
      const first = Math.min(...results.map(({ timings }) => timings.firstTokenMs));
      const last = Math.max(...results.map(({ timings }) => timings.wallMs));
      return (asked.sequences * asked.tokens * 1000) / (last - first);
    }
  }
}

/** Bytes of keys and values that one token reads and writes after `depth` positions. */
function kvBytesPerToken(model: Model, depth: number): number {
  const plan = model.plan();
  const windowOf = new Map(plan.kvGroups.flatMap(({ layers, window }) => layers.map((layer) => [layer, window])));
  return plan.ops.reduce((sum, { layer, bytesPerPosition }) => {
    const window = windowOf.get(layer) || depth;
    return sum + Math.min(depth, window) * bytesPerPosition;
  }, 0);
}

async function answerTo(model: Model, asked: Asked, depth: number): Promise<object> {
  switch (asked.do) {
    case "about":
      return {
        level: model.simd.name,
        text: textOf(model, asked.promptTokens),
        kv_bytes_per_token: kvBytesPerToken(model, depth),
      };
    case "repeat":
      return repeat(model, asked);
    case "prefix":
      return prefix(model, asked);
    default:
      return { rate: await rateOf(model, asked) };
  }
}

async function serve(model: Model, depth: number): Promise<void> {
  for await (const line of createInterface({ input: process.stdin })) {
    const answer = await answerTo(model, JSON.parse(line) as Asked, depth);
    process.stdout.write(`${JSON.stringify(answer)}\n`);
  }
}

/** The error of a model whose head cannot be screened; all others go on. */
function ofScreening(error: unknown): undefined {
  if (error instanceof OptionError && error.option.endsWith("screening")) return undefined;
  throw error;
}

const [path = "", threads = "1", ...rest] = process.argv.slice(2);
if (rest.length <= 2) {
  const depth = Number(rest[0]);
  await using model = await loadModel(path, {
    threads: { count: Number(threads) },
    prefixCache,
    contextLength: Math.min(depth + 1024, 8192),
    ...(rest[1] === "screening" ? { screening: true } : {}),
  }).catch(ofScreening);
  if (model === undefined) process.stdout.write(`${JSON.stringify({ unsupported: true })}\n`);
  else await serve(model, depth);
} else {
  const [text = "", tokens = "1", context = "2048", opening] = rest;
  await using model = await loadModel(path, {
    threads: { count: Number(threads) },
    prefixCache: false,
    contextLength: Number(context),
    batchSize: 1,
    prepared: opening !== "unprepared",
    ...(opening === "screening" ? { screening: true } : {}),
  });
  const stream = model.stream(text, { temperature: 0, ignoreEos: true, maxLength: Number(tokens) });
  for await (const piece of stream) writeSync(1, `${piece.text}\n`);
  const peak = /^VmHWM:\s+(\d+) kB/m.exec(readFileSync("/proc/self/status", "utf8"));
  const promptTokens = model.tokenizer.encode(text, { addSpecial: true }).length;
  const left = { prompt_tokens: promptTokens, peak_bytes: Number(peak?.[1]) * 1024, runtime_ready_ms: importedAt };
  writeSync(2, `${JSON.stringify(left)}\n`);
}
