// From texts to vectors: turns texts into tokens, keeps the engine supplied with them, and hands on their vectors in the texts'
// order. The engine packs whole texts into steps without padding, so they need no sorting by length.

import { JavaScriptWork } from "../../profiler/javascript-work.ts";
import { describe } from "../check.ts";
import { drawsNothing, type Engine, type EngineRequest } from "../engine/engine.ts";
import { OptionError } from "../errors.ts";
import { slotsMax } from "../plan/layout.ts";
import type { Tokenizer } from "../tokenizer/index.ts";
import { type Matrix, makeUnit } from "./matrix.ts";
import {
  type CheckedEmbedOptions,
  checkEmbedOptions,
  checkStreamOptions,
  type EmbeddingShape,
  type EmbedOptions,
  type EmbedStreamOptions,
} from "./options.ts";

/** A text, or tokens as they are. */
export type EmbedInput = string | Uint32Array;

/** What embedding needs of a model. */
export interface Embedder {
  readonly engine: Engine;
  readonly tokenizer: Tokenizer;
  readonly embedding: EmbeddingShape;
}

/** Texts that are under way at most: all that the engine takes, and as many that follow at once when these are done. */
const runningMax = 2 * slotsMax;
/** After so long at making tokens, others have their turn. */
const turnMs = 8;

/** A text under way, or what went wrong in its place. */
interface Running {
  readonly vector: Promise<Float32Array>;
  readonly cancel: () => void;
}

/** What `Model.embed` does with one text. */
export async function embedOne(embedder: Embedder, input: EmbedInput, options: EmbedOptions): Promise<Float32Array> {
  const checked = checkEmbedOptions(options, embedder.embedding);
  const { signal, as, onProgress } = checked;
  if (as !== "vectors") throw new OptionError("as", `is ${describe(as)}, which a list of texts gives; give a list`);
  checkInput("text", input, embedder.tokenizer);
  signal?.throwIfAborted();
  const { vector, cancel } = submit(embedder, input, checked, "text");
  signal?.addEventListener("abort", cancel, { once: true });
  const values = await vector.finally(() => signal?.removeEventListener("abort", cancel));
  onProgress?.(1, 1);
  return values;
}

/** What `Model.embed` does with a list of texts. */
export async function embedList(
  embedder: Embedder,
  inputs: readonly EmbedInput[],
  options: EmbedOptions,
): Promise<Float32Array[] | Matrix> {
  const checked = checkEmbedOptions(options, embedder.embedding);
  const { as, onProgress, dimensions: columns } = checked;
  // Before any work.
  for (const [index, input] of inputs.entries()) checkInput(`texts[${index}]`, input, embedder.tokenizer);
  const vectors: Float32Array[] = [];
  const matrix = {
    rows: inputs.length,
    columns,
    data: new Float32Array(as === "matrix" ? inputs.length * columns : 0),
  };
  let done = 0;
  for await (const vector of embedTexts(embedder, inputs, checked)) {
    if (as === "matrix") matrix.data.set(vector, done * columns);
    else vectors.push(vector);
    done += 1;
    onProgress?.(done, inputs.length);
  }
  return as === "matrix" ? matrix : vectors;
}

/** What `Model.embedStream` does. */
export function embedStream(
  embedder: Embedder,
  texts: Iterable<EmbedInput> | AsyncIterable<EmbedInput>,
  options: EmbedStreamOptions,
): AsyncGenerator<Float32Array, void, undefined> {
  const checked = checkStreamOptions(options, embedder.embedding);
  if (typeof texts === "string" || !isIterable(texts)) {
    throw new OptionError("texts", `is ${describe(texts)}; an iterable of texts is expected`);
  }
  return embedTexts(embedder, texts, checked);
}

function isIterable(value: unknown): boolean {
  return typeof value === "object" && value !== null && (Symbol.iterator in value || Symbol.asyncIterator in value);
}

/** @throws {OptionError} if it is neither a whole text nor tokens of the vocabulary. */
function checkInput(option: string, input: unknown, { vocabularySize }: Tokenizer): asserts input is EmbedInput {
  if (typeof input === "string") {
    if (input.isWellFormed()) return;
    throw new OptionError(option, "has half a character (a lone surrogate); mend it, or use toWellFormed()");
  }
  if (!(input instanceof Uint32Array)) {
    throw new OptionError(option, `is ${describe(input)}; a text or a Uint32Array of tokens is expected`);
  }
  const outside = input.find((token) => token >= vocabularySize);
  if (outside === undefined) return;
  throw new OptionError(option, `has token ${outside}; the vocabulary has ${vocabularySize}`);
}

/**
 * The vectors of texts in their order. A bounded number is under way, whatever the number of texts; leaving the loop cancels them.
 * @throws {OptionError} in the place of a text that is none, has no tokens, or too many and is not to be cut.
 */
async function* embedTexts(
  embedder: Embedder,
  texts: Iterable<EmbedInput> | AsyncIterable<EmbedInput>,
  options: CheckedEmbedOptions,
): AsyncGenerator<Float32Array, void, undefined> {
  const { signal } = options;
  signal?.throwIfAborted();
  const running: Running[] = [];
  let ended = false;
  let left = false;
  // The texts' side waits while there are many, this one while there are none: never both.
  let wake = () => {};
  const change = () =>
    new Promise<void>((resolve) => {
      wake = resolve;
    });
  const push = (text: Running) => {
    running.push(text);
    wake();
  };
  const supply = async () => {
    try {
      let beganMs = performance.now();
      let index = 0;
      for await (const input of texts) {
        while (running.length >= runningMax && !left) await change();
        if (performance.now() - beganMs > turnMs) {
          await new Promise((resolve) => setImmediate(resolve));
          beganMs = performance.now();
        }
        if (left) return;
        const option = `texts[${index++}]`;
        checkInput(option, input, embedder.tokenizer);
        push(submit(embedder, input, options, option));
      }
    } catch (error) {
      push(failed(error));
    }
    ended = true;
    wake();
  };
  const leave = () => {
    left = true;
    for (const { cancel } of running) cancel();
    wake();
  };
  const abort = () => {
    leave();
    push(failed(signal?.reason));
  };
  signal?.addEventListener("abort", abort, { once: true });
  try {
    void supply();
    for (;;) {
      while (running.length === 0 && !ended) await change();
      const [first] = running;
      if (!first) return;
      const vector = await first.vector;
      running.shift();
      wake();
      yield vector;
      signal?.throwIfAborted();
    }
  } finally {
    signal?.removeEventListener("abort", abort);
    leave();
  }
}

function failed(error: unknown): Running {
  const vector = Promise.reject(error);
  vector.catch(() => {});
  return { vector, cancel: () => {} };
}

/** Hands a text to the engine. @throws {OptionError} if it has no tokens, or too many and is not to be cut. */
function submit(embedder: Embedder, input: EmbedInput, options: CheckedEmbedOptions, option: string): Running {
  const { engine } = embedder;
  const { requests } = engine;
  const calledNs = requests ? engine.nowNs : 0;
  const tokens = tokensOf(embedder, input, options, option);
  const submittedNs = requests ? engine.nowNs : 0;
  let lastRecordNs = submittedNs;
  const { promise, resolve, reject } = Promise.withResolvers<Float32Array>();
  const request: EngineRequest = {
    kind: "embed",
    tokens,
    ...drawsNothing,
    topCount: 0,
    chunkRows: 0,
    dumpLogits: false,
    sharesPrefix: false,
    pooling: options.pooling,
    normalise: options.normalise,
  };
  const handle = engine.submit(request, {
    onToken() {},
    onEmbedding(values) {
      if (requests) lastRecordNs = engine.nowNs;
      resolve(shorten(values, options));
    },
    // Without effect where there is a vector: then it was not cancelled.
    onFinish: () => reject(options.signal?.reason ?? new Error("cancelled")),
    onError: reject,
  });
  const submission = { calledNs, tokenizedNs: submittedNs, submittedNs, promptTokens: tokens.length };
  requests?.submitted(handle.id, { ...submission, generates: false }, request);
  const vector = promise.finally(() => {
    const times = { firstTokenNs: null, lastRecordNs, endedNs: requests ? engine.nowNs : 0 };
    requests?.ended(handle.id, { ...times, reusedTokens: 0, generatedTokens: 0 });
  });
  // Whoever would wait for it may have left with another text's error.
  vector.catch(() => {});
  return { vector, cancel: () => handle.cancel() };
}

function tokensOf(
  { engine, tokenizer, embedding }: Embedder,
  input: EmbedInput,
  { truncate }: CheckedEmbedOptions,
  option: string,
): Uint32Array {
  const { javascript } = engine;
  javascript?.enter(JavaScriptWork.tokenizing);
  try {
    const tokens = typeof input === "string" ? tokenizer.encode(input) : new Uint32Array(input);
    if (tokens.length === 0) throw new OptionError(option, "has no tokens; give at least one");
    if (tokens.length > embedding.lengthMax && !truncate) {
      const problem = `has ${tokens.length} tokens and the model takes ${embedding.lengthMax}`;
      throw new OptionError(option, `${problem}; shorten it, or leave out truncate: false`);
    }
    return tokenizer.truncate(tokens, embedding.lengthMax);
  } finally {
    javascript?.leave();
  }
}

/** A vector's first values, of length 1 again where whole vectors are. */
function shorten(vector: Float32Array, { dimensions, normalise }: CheckedEmbedOptions): Float32Array {
  if (dimensions === vector.length) return vector;
  const short = vector.slice(0, dimensions);
  if (normalise) makeUnit(short);
  return short;
}
