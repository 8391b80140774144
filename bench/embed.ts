// `bun run bench:embed`: sentences per second beside sentence-transformers, which runs PyTorch in float32, on the same threads, one
// sentence a call and 32 a call. The programs take turns, one right after the other; both tokenize what they are given.
//
//   bun run bench:embed [--model NAME|FOLDER] [--threads N] [--turns N] [--seconds S] [--tokens N] [--json]
//
// Where the CPU has neither AMX nor AVX-512 BF16, or TinyAI is held to a lower level, PyTorch is held to that level too.

import { join } from "node:path";
import { parseArgs } from "node:util";
import { compare, showRatio } from "../src/benchmark/ratio.ts";
import { show, summarise } from "../src/benchmark/statistics/summary.ts";
import { cpuFeatures } from "../src/engine/cpu.ts";
import { openLibrary } from "../src/engine/library.ts";
import { cpu, loadModel, type Model, similarity } from "../src/index.ts";
import { resolveModel } from "../src/model/resolve.ts";
import { whole } from "./flags.ts";
import { ensureSentenceTransformers } from "./peers/install.ts";
import { Worker } from "./peers/worker.ts";

const { values: flags } = parseArgs({
  options: {
    model: { type: "string", default: "all-minilm-l6-v2" },
    threads: { type: "string" },
    turns: { type: "string", default: "12" },
    seconds: { type: "string", default: "1.5" },
    tokens: { type: "string", default: "20" },
    json: { type: "boolean", default: false },
  },
});
const threads = whole("threads", flags.threads ?? String(cpu.cores), 1, cpu.cores);
const turns = whole("turns", flags.turns, 1, 1000);
const tokens = whole("tokens", flags.tokens, 3, 512);
const seconds = Number(flags.seconds);
const batches = [1, 32] as const;
/** A multiple of every batch. */
const sentenceCount = 256;
/** Texts of which both programs' vectors are compared: they must do the same work. */
const comparedCount = 32;
const leastSimilarity = 0.9999;

/** Sentences of `tokens` tokens each, of whole words of the model's vocabulary, the same on every run. */
function makeSentences({ tokenizer }: Model): string[] {
  const special = tokenizer.encode("").length;
  const words: string[] = [];
  for (let token = 0; token < tokenizer.vocabularySize; token++) {
    const word = tokenizer.tokenText(token).trim();
    if (/^[a-z]{2,}$/.test(word) && tokenizer.encode(word).length === special + 1) words.push(word);
  }
  let state = 1;
  const next = () => {
    state = (state * 48_271) % 2_147_483_647;
    return words[state % words.length] ?? "";
  };
  return Array.from({ length: sentenceCount }, () => Array.from({ length: tokens - special }, next).join(" "));
}

async function rate(model: Model, sentences: readonly string[], batch: number): Promise<number> {
  const began = performance.now();
  for (let done = 0; ; ) {
    const elapsed = (performance.now() - began) / 1000;
    if (elapsed >= seconds) return done / elapsed;
    const at = done % sentences.length;
    if (batch === 1) await model.embed(sentences[at] ?? "");
    else await model.embed(sentences.slice(at, at + batch));
    done += batch;
  }
}

/** What holds PyTorch to TinyAI's level; nothing where this CPU's widest is asked for and has BF16. */
async function heldTo(level: string): Promise<{ wide: boolean; environment: Record<string, string> }> {
  const features = cpuFeatures(await openLibrary());
  const wide = (features.amxTile || features.avx512bf16) && (level === "amx" || level === "avx512_vnni");
  if (wide) return { wide, environment: {} };
  const [aten, onednn, mkl] = level.startsWith("avx512")
    ? ["avx512", level === "avx512" ? "AVX512_CORE" : "AVX512_CORE_VNNI", "AVX512"]
    : level === "avx2"
      ? ["avx2", "AVX2", "AVX2"]
      : ["default", "SSE41", "SSE4_2"];
  const environment = { ATEN_CPU_CAPABILITY: aten, ONEDNN_MAX_CPU_ISA: onednn, MKL_ENABLE_INSTRUCTIONS: mkl };
  return { wide, environment };
}

const python = await ensureSentenceTransformers();
const path = resolveModel(flags.model);
await using model = await loadModel(path, { threads: { count: threads } });
const { wide, environment } = await heldTo(model.simd.name);
const script = join(import.meta.dir, "peers", "sentence_worker.py");
await using peer = new Worker({
  name: "sentence-transformers",
  command: [...python.command, script, path, "--threads", String(threads)],
  environment: { ...python.environment, ...environment, OMP_NUM_THREADS: String(threads) },
});
const sentences = makeSentences(model);
await peer.ask({ do: "texts", texts: sentences });

const theirs = (await peer.ask({ do: "vectors", count: comparedCount }))["vectors"] as number[][];
const ours = await model.embed(sentences.slice(0, comparedCount));
const least = Math.min(...ours.map((vector, index) => similarity(vector, Float32Array.from(theirs[index] ?? []))));
if (least < leastSimilarity) throw new Error(`the programs' vectors differ: their least similarity is ${least}`);

const bars = wide ? { 1: 5, 32: 3 } : { 1: 2, 32: 1.5 };
const results = [];
for (const batch of batches) {
  const tinyai: number[] = [];
  const torch: number[] = [];
  for (let turn = 0; turn <= turns; turn++) {
    const askPeer = async () => Number((await peer.ask({ do: "embed", batch, s: seconds }))["rate"]);
    // First forwards, then backwards.
    const first = turn % 2 === 0 ? await rate(model, sentences, batch) : await askPeer();
    const second = turn % 2 === 0 ? await askPeer() : await rate(model, sentences, batch);
    if (turn === 0) continue; // It warms up and is not counted.
    tinyai.push(turn % 2 === 0 ? first : second);
    torch.push(turn % 2 === 0 ? second : first);
  }
  const ratio = compare(tinyai, torch, "more");
  results.push({ batch, tinyai: summarise(tinyai), torch: summarise(torch), ratio, bar: bars[batch] });
}

if (flags.json) {
  const about = { model: flags.model, cpu: cpu.model, threads, level: model.simd.name, peer: python.versions };
  console.log(
    JSON.stringify({ ...about, held: environment, tokens, turns, least_similarity: least, results }, null, 2),
  );
} else {
  console.log(`${flags.model}: ${threads} threads, ${model.simd.name}, ${cpu.model}, ${python.versions}`);
  if (!wide)
    console.log(
      `PyTorch held by ${Object.entries(environment)
        .map((pair) => pair.join("="))
        .join(" ")}`,
    );
  console.log(
    `sentences of ${tokens} tokens per second, medians of ${turns} turns (least to most); least similarity ${least}\n`,
  );
  for (const { batch, tinyai, torch, ratio, bar } of results) {
    console.log(`${batch} a call: TinyAI ${show(tinyai, 0)}, sentence-transformers ${show(torch, 0)}`);
    console.log(`  ${showRatio(ratio)}; at least ${bar} is wanted`);
  }
}
