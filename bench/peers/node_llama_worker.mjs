// Measures node-llama-cpp on one model, under Bun, as a Bun user would have it: a question a line on stdin, an answer a line on
// stdout, as llama_worker.py beside it. It is copied beside the installed package, whose name it then finds.
//
//   bun node_llama_worker.mjs MODEL.gguf THREADS
//     {"do": "generate", "tokens": 64, "depth": 0} is answered by {"rate": tokens/s after the first}, {"do": "about"} by {}
//   bun node_llama_worker.mjs MODEL.gguf THREADS TEXT TOKENS CONTEXT
//     writes the first token's text as soon as it is there, generates the rest, then leaves one JSON line on stderr

import { readFileSync, writeSync } from "node:fs";
import { createInterface } from "node:readline";
import { getLlama } from "node-llama-cpp";

const importedAt = Date.now();
const [path, threads, text, tokens, contextSize = "2048"] = process.argv.slice(2);
const llama = await getLlama({ gpu: false, build: "never", progressLogs: false, logLevel: "error" });
const model = await llama.loadModel({ modelPath: path });
const context = await model.createContext({
  contextSize: Number(contextSize),
  batchSize: 512,
  threads: Number(threads),
});
const sequence = context.getSequence();

/** Calls `each` for every token until there are `count`. The end-of-text token is one like the others. */
async function generate(prompt, count, each) {
  await sequence.clearHistory();
  let made = 0;
  for await (const token of sequence.evaluate(prompt, { temperature: 0, yieldEogToken: true })) {
    each(token);
    made++;
    if (made === count) return;
  }
  throw new Error(`node-llama-cpp stopped after ${made} of ${count} tokens`);
}

if (text === undefined) {
  for await (const line of createInterface({ input: process.stdin })) {
    const asked = JSON.parse(line);
    if (asked.do === "about") {
      process.stdout.write("{}\n");
      continue;
    }
    let first;
    let last;
    await generate([1], asked.tokens + 1, () => {
      last = performance.now();
      first ??= last;
    });
    process.stdout.write(`${JSON.stringify({ rate: (asked.tokens * 1000) / (last - first) })}\n`);
  }
} else {
  const prompt = model.tokenize(text, false);
  const begin = model.tokens.bos;
  if (model.tokens.shouldPrependBosToken && begin !== null) prompt.unshift(begin);
  await generate(prompt, Number(tokens), (token) => writeSync(1, `${model.detokenize([token])}\n`));
  const peak = /^VmHWM:\s+(\d+) kB/m.exec(readFileSync("/proc/self/status", "utf8"));
  const left = { prompt_tokens: prompt.length, peak_bytes: Number(peak[1]) * 1024, runtime_ready_ms: importedAt };
  writeSync(2, `${JSON.stringify(left)}\n`);
}
process.exit(0);
