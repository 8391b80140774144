// From prompts to texts: turns a prompt into tokens, submits it, and turns the tokens that come back into text, with stop
// texts, aborts and timings. Many sequences run at once; each is a generator of its own.

import { JavaScriptWork } from "../../profiler/javascript-work.ts";
import type { Candidate, Engine, EngineRequest, EngineToken, Finish } from "../engine/engine.ts";
import { OptionError } from "../errors.ts";
import { stopTokensMax } from "../plan/layout.ts";
import type { ChatMessage } from "../tokenizer/chat.ts";
import type { Tokenizer } from "../tokenizer/index.ts";

import type { CheckedOptions } from "./options.ts";
import { StopFinder } from "./stop.ts";

/** A text, a conversation (rendered with the model's chat template), or tokens as they are. */
export type Prompt = string | readonly ChatMessage[] | Uint32Array;

/** A token as it is generated. */
export interface GeneratedToken {
  readonly token: number;
  /** Natural logarithm of its probability before temperature and the like; undefined where screening made it unknown. */
  readonly logprob: number | undefined;
  /** The most likely tokens, best first, where `topLogprobs` asked for them. */
  readonly top: readonly Candidate[];
}

/** A piece of a stream. Some tokens complete no character: their text is empty and comes with a later piece. */
export interface Piece extends Partial<GeneratedToken> {
  readonly text: string;
}

/** How long a generation took. */
export interface Timings {
  /** From the call to the first token. */
  readonly firstTokenMs: number;
  /** Tokens of the prompt that were computed, over the time to the first token. */
  readonly promptTokensPerSecond: number;
  /** Tokens after the first over the time after the first; 0 with fewer than two. */
  readonly generatedTokensPerSecond: number;
  /** From the call to the end. */
  readonly wallMs: number;
}

/** What guessing came to. The tokens and their log-probabilities do not depend on it. */
export interface Speculation {
  /** Tokens that were guessed. */
  readonly drafted: number;
  /** Guesses that were drawn as well, and so cost no step of their own. */
  readonly accepted: number;
}

/** What a generation came to. */
export interface GenerateResult {
  readonly text: string;
  /** Ids of the generated tokens, an end token included. */
  readonly tokens: readonly number[];
  /** One for each token; empty where screening made them unknown. */
  readonly logprobs: readonly number[];
  /** The most likely tokens at each place, where `topLogprobs` asked for them. */
  readonly top: readonly (readonly Candidate[])[];
  readonly promptTokens: number;
  /** The prompt's first tokens whose keys and values were there from another sequence, and were not computed again. */
  readonly reusedTokens: number;
  /** `eos`: the model ended. `stop`: a stop text was reached. `length`: maxLength was. */
  readonly finish: "eos" | "stop" | "length";
  readonly seed: bigint;
  /** What guessing came to, if `speculation` was asked for. */
  readonly speculation?: Speculation;
  readonly timings: Timings;
}

/** What a generation needs of a model. */
export interface Generator {
  readonly engine: Engine;
  readonly tokenizer: Tokenizer;
  readonly contextLength: number;
  /** Whether sequences may begin with each other's keys and values. */
  readonly prefixCache: boolean;
}

const defaultMaxLength = 128;

/** A prompt that fits. When it was called for and had its tokens is known while somebody profiles. */
export interface EncodedPrompt {
  readonly tokens: Uint32Array;
  readonly maxLength: number;
  readonly calledNs?: number;
  readonly tokenizedNs?: number;
}

/**
 * The tokens of a prompt.
 * @throws {OptionError} if it is empty, too long for the context together with `maxLength`, or has a token outside the vocabulary.
 */
export async function encodePrompt(
  generator: Generator,
  prompt: Prompt,
  options: CheckedOptions,
  option = "prompt",
): Promise<EncodedPrompt> {
  const { contextLength, engine } = generator;
  const calledNs = engine.requests ? engine.nowNs : undefined;
  const tokens = await promptTokens(generator, prompt, options, option);
  if (tokens.length === 0) throw new OptionError(option, "has no tokens; give at least one");
  const rest = contextLength - tokens.length;
  if (rest < 1) {
    throw new OptionError(
      option,
      `has ${tokens.length} tokens and the context ${contextLength} positions, of which one must be left; shorten it`,
    );
  }
  const maxLength = options.maxLength ?? Math.min(defaultMaxLength, rest);
  if (maxLength > rest) {
    throw new OptionError(
      "maxLength",
      `is ${maxLength}, but a prompt of ${tokens.length} tokens leaves ${rest} of the context's ${contextLength} positions`,
    );
  }
  return calledNs === undefined ? { tokens, maxLength } : { tokens, maxLength, calledNs, tokenizedNs: engine.nowNs };
}

/** A prompt's own tokens. `addSpecial`: whether a text is the beginning of its sequence. */
export async function promptTokens(
  generator: Generator,
  prompt: Prompt,
  options: CheckedOptions,
  option: string,
  addSpecial = true,
): Promise<Uint32Array> {
  const { tokenizer } = generator;
  if (prompt instanceof Uint32Array) {
    const copy = new Uint32Array(prompt);
    for (const token of copy) {
      if (token >= tokenizer.vocabularySize) {
        throw new OptionError(option, `has token ${token}; the vocabulary has ${tokenizer.vocabularySize}`);
      }
    }
    return copy;
  }
  if (typeof prompt === "string") {
    if (prompt.length === 0) throw new OptionError(option, "is empty; give a text of at least one character");
    if (!prompt.isWellFormed()) {
      throw new OptionError(option, "has half a character (a lone surrogate); mend it, or use toWellFormed()");
    }
    return encodeText(generator, prompt, { addSpecial, parseSpecial: options.parseSpecial });
  }
  if (!Array.isArray(prompt))
    throw new OptionError(option, "is neither a text, nor messages, nor a Uint32Array of tokens");
  const { encodeChat } = await import("./chat.ts");
  return encodeChat(generator, prompt);
}

/** A text's tokens, in time that is told to who profiles. */
export function encodeText(
  { tokenizer, engine }: Generator,
  text: string,
  options: Parameters<Tokenizer["encode"]>[1],
): Uint32Array {
  const { javascript } = engine;
  javascript?.enter(JavaScriptWork.tokenizing);
  try {
    return tokenizer.encode(text, options);
  } finally {
    javascript?.leave();
  }
}

/**
 * Runs one sequence; yields a piece for every token. Leaving the loop cancels it. Its return value sums it up.
 * @param tokens an empty list that gets each token as it is drawn.
 */
export async function* streamTokens(
  generator: Generator,
  prompt: EncodedPrompt,
  options: CheckedOptions,
  tokens: number[] = [],
): AsyncGenerator<Piece, GenerateResult, undefined> {
  const { engine, tokenizer } = generator;
  options.signal?.throwIfAborted();
  const startedMs = performance.now();
  const { requests } = engine;
  const inbox = new Inbox(requests ? () => engine.nowNs : undefined);
  const eos = new Set(options.ignoreEos ? [] : tokenizer.eosTokens);
  const request: EngineRequest = {
    kind: "generate",
    tokens: prompt.tokens,
    generateMax: prompt.maxLength,
    seed: options.seed,
    temperature: options.temperature,
    topP: options.topP,
    minP: options.minP,
    topK: options.topK,
    repeatPenalty: options.repeatPenalty,
    repeatLast: options.repeatLast,
    stopTokens: [...eos].slice(0, stopTokensMax),
    topCount: options.topLogprobs,
    chunkRows: 0,
    dumpLogits: false,
    speculation: options.speculation,
    sharesPrefix: generator.prefixCache && options.cachePrompt,
  };
  const submittedNs = requests ? engine.nowNs : 0;
  const handle = engine.submit(request, inbox);
  requests?.submitted(
    handle.id,
    {
      calledNs: prompt.calledNs ?? submittedNs,
      tokenizedNs: prompt.tokenizedNs ?? submittedNs,
      submittedNs,
      promptTokens: prompt.tokens.length,
      generates: true,
    },
    request,
  );
  let firstTokenNs: number | null = null;
  const abort = () => handle.cancel();
  options.signal?.addEventListener("abort", abort, { once: true });
  const decoder = tokenizer.decoder({ keepLeadingSpace: true });
  const stops = new StopFinder(options.stop);
  /** The text that a token, or the end, completes, as far as no stop text may begin in it. */
  const detokenize = (token: number | undefined) => {
    const { javascript } = engine;
    javascript?.enter(JavaScriptWork.detokenizing);
    try {
      return stops.push(token === undefined ? decoder.finish() : decoder.push(token));
    } finally {
      javascript?.leave();
    }
  };
  const logprobs: number[] = [];
  const top: (readonly Candidate[])[] = [];
  let text = "";
  let finish: GenerateResult["finish"] | undefined;
  let firstMs = 0;
  let drafted = 0;
  let accepted = 0;
  let step: number | undefined;
  try {
    while (finish === undefined) {
      const next = await inbox.next();
      options.signal?.throwIfAborted();
      if (next === "end") break;
      if (tokens.length === 0) {
        firstMs = performance.now();
        if (requests) firstTokenNs = engine.nowNs;
      }
      tokens.push(next.token);
      if (next.logprob !== undefined) logprobs.push(next.logprob);
      if (options.topLogprobs > 0) top.push(next.top);
      drafted += next.drafted;
      if (next.step === step) accepted++;
      step = next.step;
      const ended = eos.has(next.token);
      const { text: piece, stopped } = detokenize(ended ? undefined : next.token);
      text += piece;
      if (ended) finish = "eos";
      if (stopped) finish = "stop";
      const { javascript } = engine;
      const turn = javascript?.handOver() ?? 0;
      yield { text: piece, token: next.token, logprob: next.logprob, top: next.top };
      javascript?.takeBack(turn);
    }
    if (finish !== "stop") {
      const held = stops.push(finish === "eos" ? "" : decoder.finish());
      const rest = held.stopped ? held.text : held.text + stops.finish();
      text += rest;
      if (rest.length > 0) yield { text: rest };
    }
  } finally {
    options.signal?.removeEventListener("abort", abort);
    if (!inbox.ended) handle.cancel();
    requests?.ended(handle.id, {
      firstTokenNs,
      lastRecordNs: inbox.lastRecordNs,
      endedNs: engine.nowNs,
      reusedTokens: inbox.reused,
      generatedTokens: tokens.length,
    });
  }
  const endMs = performance.now();
  return {
    text,
    tokens,
    logprobs,
    top,
    promptTokens: prompt.tokens.length,
    reusedTokens: inbox.reused,
    finish: finish ?? "length",
    seed: options.seed,
    ...(options.speculation ? { speculation: { drafted, accepted } } : {}),
    timings: {
      firstTokenMs: firstMs - startedMs,
      promptTokensPerSecond: ((prompt.tokens.length - inbox.reused) * 1000) / (firstMs - startedMs),
      generatedTokensPerSecond: tokens.length > 1 ? ((tokens.length - 1) * 1000) / (inbox.lastMs - firstMs) : 0,
      wallMs: endMs - startedMs,
    },
  };
}

/** Runs a sequence to its end. */
export async function complete(stream: AsyncGenerator<Piece, GenerateResult, undefined>): Promise<GenerateResult> {
  for (;;) {
    const next = await stream.next();
    if (next.done) return next.value;
  }
}

/** Tokens of one request, between the engine's callbacks and the generator that awaits them. */
class Inbox {
  readonly #tokens: EngineToken[] = [];
  #wake: (() => void) | undefined;
  #error: Error | undefined;
  ended = false;
  /** Positions of the prompt that were there. */
  reused = 0;
  /** When the last token came. */
  lastMs = 0;
  /** When the last record came, while somebody profiles. */
  lastRecordNs = 0;
  readonly #nowNs: (() => number) | undefined;

  constructor(nowNs: (() => number) | undefined) {
    this.#nowNs = nowNs;
  }

  onToken(token: EngineToken): void {
    this.lastMs = performance.now();
    if (this.#nowNs) this.lastRecordNs = this.#nowNs();
    this.#tokens.push(token);
    this.#wake?.();
  }

  onReused(positions: number): void {
    this.reused = positions;
  }

  onFinish(_finish: Finish): void {
    if (this.#nowNs) this.lastRecordNs = this.#nowNs();
    this.ended = true;
    this.#wake?.();
  }

  onError(error: Error): void {
    this.#error = error;
    this.ended = true;
    this.#wake?.();
  }

  /** The next token, or the end. */
  async next(): Promise<EngineToken | "end"> {
    for (;;) {
      const token = this.#tokens.shift();
      if (token) return token;
      if (this.#error) throw this.#error;
      if (this.ended) return "end";
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#wake = undefined;
    }
  }
}
