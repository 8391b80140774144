// What an engine has done, in sums that are always kept: they come from records that JavaScript gets anyway, need no events, and take
// the same memory for ever. Of any stretch of the last minute it can say what happened in it, and of the last requests how each went.

import type { EngineRequest } from "./engine.ts";

/** What was done in some time. Requests are those that ended in it. Times are ns. */
export interface Work {
  readonly requests: number;
  /** Of those requests, each from when it was handed to the engine until it ended. */
  readonly requestNs: number;
  /** Tokens generated. */
  readonly tokens: number;
  /** Texts embedded or scored. */
  readonly texts: number;
  /** Requests whose first token came. */
  readonly firstTokens: number;
  /** From when they were handed to the engine until it came. */
  readonly firstTokenNs: number;
  /** Time in which a request was under way. */
  readonly busyNs: number;
}

/** A request that ended. */
export interface RequestMetrics {
  readonly kind: "generate" | "score" | "embed";
  /** From when it was handed to the engine until it ended, ms. */
  readonly inferenceTime: number;
  /** Until its first token came, ms; null: none was generated. */
  readonly firstTokenTime: number | null;
  readonly promptTokens: number;
  /** What the engine drew, also behind a stop text. */
  readonly generatedTokens: number;
  /** Tokens generated over `inferenceTime`, tokens/s. */
  readonly throughput: number;
  /**
   * How it ended: with an end token, at its length, scored or embedded; "cancelled" by the caller, who left, aborted or found a stop
   * text; "no_memory": memory's limit does not leave what it needs; or "failed".
   */
  readonly finish: "stop_token" | "length" | "scored" | "embedded" | "cancelled" | "no_memory" | "failed";
}

/** A request under way, as far as it is counted. */
export interface CountedRequest {
  readonly kind: RequestMetrics["kind"];
  readonly promptTokens: number;
  readonly submittedNs: number;
  firstTokenNs: number;
  tokens: number;
}

const fields = ["requests", "requestNs", "tokens", "texts", "firstTokens", "firstTokenNs", "busyNs"] as const;
const place = Object.fromEntries(fields.map((field, index) => [field, index])) as Record<keyof Work, number>;

/** What the sums were is kept for each of these moments: 600 of them, and the one before. */
const momentNs = 1e8;
const momentsKept = 601;
/** The times that can be asked for, ms. They are cut to moments. */
export const windowsMs = { min: momentNs / 1e6, max: (momentNs * (momentsKept - 1)) / 1e6 } as const;
/** Requests that ended are remembered, so many. */
const requestsKept = 32;

export class WorkMeter {
  readonly #nowNs: () => number;
  readonly #startNs: number;
  readonly #sums = new Float64Array(fields.length);
  /** What the sums were at the end of each of the last moments, in a ring. */
  readonly #past = new Float64Array(momentsKept * fields.length);
  /** The moment under way, by its number since the clock's beginning. */
  #moment: number;
  /** Until here the sums hold. */
  #untilNs: number;
  #underWay = 0;
  readonly #recent: RequestMetrics[] = [];
  readonly #listeners = new Set<(request: RequestMetrics) => void>();

  /** @param nowNs the clock that tokens are stamped with. */
  constructor(nowNs: () => number) {
    this.#nowNs = nowNs;
    this.#startNs = this.#untilNs = nowNs();
    this.#moment = Math.floor(this.#startNs / momentNs);
  }

  /** Requests that were handed over and have not ended. */
  get underWay(): number {
    return this.#underWay;
  }

  /** The last requests that ended, the latest last. */
  get recent(): readonly RequestMetrics[] {
    return [...this.#recent];
  }

  /** A request is handed to the engine. Undefined for what computes no answer: what holds or restores a session. */
  begin({ kind, tokens }: EngineRequest): CountedRequest | undefined {
    if (kind !== "generate" && kind !== "score" && kind !== "embed") return undefined;
    const submittedNs = this.#nowNs();
    this.#advance(submittedNs);
    this.#underWay++;
    return { kind, promptTokens: tokens.length, submittedNs, firstTokenNs: 0, tokens: 0 };
  }

  /** A token of it came, which was there at this time. A scored text's own tokens are none that were generated. */
  token(request: CountedRequest, timeNs: number): void {
    if (request.kind !== "generate") return;
    this.#advance(timeNs);
    request.tokens++;
    this.#add("tokens", 1);
    if (request.tokens > 1) return;
    request.firstTokenNs = Math.max(0, timeNs - request.submittedNs);
    this.#add("firstTokens", 1);
    this.#add("firstTokenNs", request.firstTokenNs);
  }

  /** It ended. */
  end(request: CountedRequest, finish: RequestMetrics["finish"]): void {
    const nowNs = this.#nowNs();
    this.#advance(nowNs);
    this.#underWay--;
    const { kind, promptTokens, tokens, firstTokenNs } = request;
    const tookNs = nowNs - request.submittedNs;
    this.#add("requests", 1);
    this.#add("requestNs", tookNs);
    if (finish === "scored" || finish === "embedded") this.#add("texts", 1);
    const ended: RequestMetrics = {
      kind,
      inferenceTime: tookNs / 1e6,
      firstTokenTime: tokens > 0 ? firstTokenNs / 1e6 : null,
      promptTokens,
      generatedTokens: tokens,
      throughput: tookNs > 0 ? (tokens * 1e9) / tookNs : 0,
      finish,
    };
    this.#recent.push(ended);
    if (this.#recent.length > requestsKept) this.#recent.shift();
    for (const listener of this.#listeners) listener(ended);
  }

  /** Tells of every request that ends, until what it returns is called. */
  onEnd(listener: (request: RequestMetrics) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Since the model was loaded, until now. */
  total(): Work & { readonly spanNs: number } {
    this.#advance(this.#nowNs());
    return { ...this.#since(undefined), spanNs: this.#untilNs - this.#startNs };
  }

  /** In the last so many ms, and back to the beginning of a moment; at most since the model was loaded. */
  last(windowMs: number): Work & { readonly spanNs: number } {
    this.#advance(this.#nowNs());
    // The sums at the end of the moment before those that are asked for.
    const before = Math.floor((this.#untilNs - windowMs * 1e6) / momentNs) - 1;
    const beginNs = (before + 1) * momentNs;
    if (beginNs <= this.#startNs) return this.total();
    return { ...this.#since(before), spanNs: this.#untilNs - beginNs };
  }

  /** What came after a moment. */
  #since(moment: number | undefined): Work {
    const from = moment === undefined ? undefined : (moment % momentsKept) * fields.length;
    const amount = (field: keyof Work): number => {
      const before = from === undefined ? 0 : (this.#past[from + place[field]] ?? 0);
      return (this.#sums[place[field]] ?? 0) - before;
    };
    return Object.fromEntries(fields.map((field) => [field, amount(field)])) as Record<keyof Work, number>;
  }

  #add(field: keyof Work, amount: number): void {
    this.#sums[place[field]] = (this.#sums[place[field]] ?? 0) + amount;
  }

  /** Brings the sums to this time. A token's may lie a little before what was known already. */
  #advance(nowNs: number): void {
    const moment = Math.floor(nowNs / momentNs);
    // After a long rest all moments that are kept are alike.
    if (moment - this.#moment > momentsKept) {
      this.#passTo((moment - momentsKept) * momentNs);
      this.#moment = moment - momentsKept;
    }
    for (; this.#moment < moment; this.#moment++) {
      this.#passTo((this.#moment + 1) * momentNs);
      this.#past.set(this.#sums, (this.#moment % momentsKept) * fields.length);
    }
    this.#passTo(nowNs);
  }

  #passTo(ns: number): void {
    if (ns <= this.#untilNs) return;
    if (this.#underWay > 0) this.#add("busyNs", ns - this.#untilNs);
    this.#untilNs = ns;
  }
}
