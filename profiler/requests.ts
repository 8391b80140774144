// Follows requests from the call to the last token: what JavaScript knows of one (when it was called, handed over, delivered)
// and what the engine's steps say of it, put together so that a request's time adds up. It keeps the requests under way and the
// last ones that ended, and histograms of the rest: its memory does not grow with what it has seen.

import { DurationHistogram } from "./histogram.ts";
import type { Report, RequestRow } from "./report.ts";
import { decodeRow, timeRow } from "./totals.ts";

/** What a report says of requests. The `share` of its times is 0: they are no parts of the steps' time. */
export type RequestReport = Pick<
  Report,
  "requests" | "requestCount" | "requestTimes" | "betweenTokens" | "firstTokens"
>;

/** What is known of a request when it is handed to the engine. Times are ns of the clock that events are stamped with. */
export interface RequestSubmission {
  /** When the caller asked for it. */
  readonly calledNs: number;
  /** When its tokens were there. */
  readonly tokenizedNs: number;
  /** When it was handed to the engine; taken before that, since its first step may begin at once. */
  readonly submittedNs: number;
  readonly promptTokens: number;
  /** Whether it draws tokens: others have rows of logits too, but no tokens between which time could pass. */
  readonly generates: boolean;
}

/** What is known of a request when it is over for its caller, however it ended. Times as in `RequestSubmission`. */
export interface RequestEnding {
  /** When its caller had the first token; null: none came. */
  readonly firstTokenNs: number | null;
  /** When JavaScript had the last one of its records. */
  readonly lastRecordNs: number;
  /** When its caller had the last token. */
  readonly endedNs: number;
  readonly reusedTokens: number;
  readonly generatedTokens: number;
}

/** Requests that ended, kept with their steps. */
export const REQUESTS_KEPT = 1000;
/** Requests under way. More are a caller's mistake, who forgot to tell that they had ended: the oldest are forgotten. */
const REQUESTS_OPEN_MAX = 2 ** 16;

interface Followed {
  readonly id: number;
  readonly submission: RequestSubmission;
  ending: RequestEnding | undefined;
  stepsNs: number;
  steps: number;
  /** Times of the engine's events, relative to the profiler's base. */
  firstStartNs: number;
  lastEndNs: number;
  lastTokenNs: number;
}

/** What is summed over requests. */
export class RequestFigures {
  readonly requestTimes = new DurationHistogram();
  readonly betweenTokens = new DurationHistogram();
  readonly firstTokens = new DurationHistogram();
  /** Requests that ended. */
  ended = 0;

  report(histograms = false): Omit<RequestReport, "requests"> {
    const row = (durations: DurationHistogram) => timeRow(durations, durations.total, 0, histograms);
    return {
      requestCount: this.ended,
      requestTimes: row(this.requestTimes),
      betweenTokens: row(this.betweenTokens),
      firstTokens: row(this.firstTokens),
    };
  }

  merge(other: RequestFigures): void {
    this.requestTimes.merge(other.requestTimes);
    this.betweenTokens.merge(other.betweenTokens);
    this.firstTokens.merge(other.firstTokens);
    this.ended += other.ended;
  }

  /** Adds a report whose rows have histograms. */
  add(report: Omit<RequestReport, "requests">, path: string): void {
    this.requestTimes.merge(decodeRow(report.requestTimes, `${path}.requestTimes`));
    this.betweenTokens.merge(decodeRow(report.betweenTokens, `${path}.betweenTokens`));
    this.firstTokens.merge(decodeRow(report.firstTokens, `${path}.firstTokens`));
    this.ended += report.requestCount;
  }

  reset(): void {
    this.requestTimes.reset();
    this.betweenTokens.reset();
    this.firstTokens.reset();
    this.ended = 0;
  }
}

export class RequestLog {
  readonly figures = new RequestFigures();
  /** Requests that were forgotten because nobody told of their end. */
  forgotten = 0;
  // In order of submission and of ending. The engine may tell of a request's last steps after JavaScript has told of its end.
  readonly #open = new Map<number, Followed>();
  readonly #over = new Map<number, Followed>();

  submitted(id: number, submission: RequestSubmission): void {
    this.#over.delete(id);
    this.#open.delete(id);
    this.#open.set(id, {
      id,
      submission,
      ending: undefined,
      stepsNs: 0,
      steps: 0,
      firstStartNs: Number.POSITIVE_INFINITY,
      lastEndNs: Number.NEGATIVE_INFINITY,
      lastTokenNs: Number.NEGATIVE_INFINITY,
    });
    this.forgotten += dropOldest(this.#open, REQUESTS_OPEN_MAX);
  }

  /** A request that was submitted before it was watched is left out. */
  finished(id: number, ending: RequestEnding): void {
    const request = this.#open.get(id);
    if (request === undefined) return;
    request.ending = ending;
    this.figures.ended++;
    this.figures.requestTimes.record(Math.max(0, ending.endedNs - request.submission.calledNs));
    if (ending.firstTokenNs !== null) {
      this.figures.firstTokens.record(Math.max(0, ending.firstTokenNs - request.submission.calledNs));
    }
    this.#open.delete(id);
    this.#over.set(id, request);
    dropOldest(this.#over, REQUESTS_KEPT);
  }

  /** A step that the request was part of, and how many tokens were drawn for it there. */
  step(id: number, startNs: number, endNs: number, drawn: number): void {
    const request = this.#open.get(id) ?? this.#over.get(id);
    if (request === undefined) return;
    request.steps++;
    request.stepsNs += endNs - startNs;
    if (startNs < request.firstStartNs) request.firstStartNs = startNs;
    if (endNs > request.lastEndNs) request.lastEndNs = endNs;
    if (!request.submission.generates || drawn === 0) return;
    // Guesses that came true were there at the same time as the token before them.
    const { betweenTokens } = this.figures;
    if (request.lastTokenNs > Number.NEGATIVE_INFINITY) betweenTokens.record(endNs - request.lastTokenNs);
    if (drawn > 1) betweenTokens.record(0, drawn - 1);
    request.lastTokenNs = endNs;
  }

  /** The last requests that ended. `baseNs` is where the times of steps begin. */
  rows(baseNs: number): RequestRow[] {
    return [...this.#over.values()].map((request) => rowOf(request, baseNs));
  }

  reset(): void {
    this.figures.reset();
    this.forgotten = 0;
    this.#open.clear();
    this.#over.clear();
  }
}

/**
 * Cuts the time from the call to the end where one thing followed the other. A stamp that lies before the one that it follows
 * counts as that one, so no piece is negative and their sum is the whole.
 */
function rowOf(request: Followed, baseNs: number): RequestRow {
  const { id, submission, ending } = request;
  if (ending === undefined) throw new Error("a request that has not ended has no row");
  const ran = request.steps > 0;
  const end = Math.max(ending.endedNs, submission.calledNs);
  let cursor = submission.calledNs;
  /** From the stamp before to this one. */
  const until = (ns: number): number => {
    const before = cursor;
    cursor = Math.min(Math.max(ns, before), end);
    return cursor - before;
  };
  const tokenizingNs = until(submission.tokenizedNs);
  const unattributedNs = until(submission.submittedNs);
  // A request that never ran has waited until that was known.
  const queueNs = until(ran ? request.firstStartNs + baseNs : ending.lastRecordNs);
  const engineNs = ran ? until(request.lastEndNs + baseNs) : 0;
  const stepsNs = Math.min(request.stepsNs, engineNs);
  const deliveryNs = until(ending.lastRecordNs);
  const javascriptNs = until(end);
  return {
    id,
    promptTokens: submission.promptTokens,
    reusedTokens: ending.reusedTokens,
    generatedTokens: ending.generatedTokens,
    wallNs: end - submission.calledNs,
    firstTokenNs: ending.firstTokenNs === null ? null : Math.max(0, ending.firstTokenNs - submission.calledNs),
    tokenizingNs,
    queueNs,
    stepsNs,
    steps: request.steps,
    betweenNs: engineNs - stepsNs,
    deliveryNs,
    javascriptNs,
    unattributedNs,
  };
}

/** How many were dropped. */
function dropOldest(requests: Map<number, Followed>, kept: number): number {
  let dropped = 0;
  for (const id of requests.keys()) {
    if (requests.size <= kept) break;
    requests.delete(id);
    dropped++;
  }
  return dropped;
}
