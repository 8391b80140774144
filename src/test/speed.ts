// Limits on what was measured: how long requests took, how fast tokens came, what the library allocated. A limit holds or it
// does not; for what a noisy machine can be held to, see baseline.ts and costs.ts.

import type { Bucket } from "../../profiler/buckets.ts";
import type { RequestRow } from "../../profiler/report.ts";
import { bytes, count, duration, grouped, percent } from "../../profiler/words.ts";
import { checkInteger } from "../check.ts";
import { OptionError } from "../errors.ts";
import { drawSpread } from "./draw.ts";
import {
  amountOf,
  checkLimits,
  checkRuns,
  heldLine,
  type Outcome,
  opName,
  partOf,
  percentile,
  type Run,
  spreadOf,
  timeByRole,
  together,
} from "./run.ts";

/**
 * Limits of `toRespondWithin`, in milliseconds; at least one. Percentiles are of all requests; of a run of more than 1,000 they are
 * known to three digits.
 */
export interface ResponseLimits {
  /** Half of the requests took at most so long, from the call to when the caller had the last token. */
  readonly p50Ms?: number;
  readonly p90Ms?: number;
  readonly p99Ms?: number;
  /** All did. */
  readonly maxMs?: number;
  /** Every request's first token came within this time of the call. */
  readonly firstTokenMs?: number;
}

const responseKeys = ["p50Ms", "p90Ms", "p99Ms", "maxMs", "firstTokenMs"] as const;

const wallPercents = { p50Ms: 50, p90Ms: 90, p99Ms: 99, maxMs: 100 } as const;

export function respondWithin(received: unknown, limits: unknown): Outcome {
  const runs = checkRuns(received);
  const checked = checkLimits(limits, responseKeys);
  const requests = partOf(runs, "requests", "profile requests with model.profile(…)").flat();
  if (requests.length === 0) {
    throw new OptionError("run.requests", "is empty: no request ended while it was profiled; await them inside");
  }
  const walls = together(runs.map((run) => timesOf(run, "requestTimes", ({ wallNs }) => wallNs)));
  const firsts = together(runs.map((run) => timesOf(run, "firstTokens", ({ firstTokenNs }) => firstTokenNs)));
  const judged = checked.map(([key, limitMs]) => {
    const first = key === "firstTokenMs";
    const values = first ? firsts : walls;
    if (values.length === 0) throw new OptionError("limits.firstTokenMs", "cannot be judged: no request had a token");
    const actualNs = percentile(values, first ? 100 : wallPercents[key]);
    return { what: responseName(key, amountOf(values)), limitNs: limitMs * 1e6, actualNs, values };
  });
  const missed = judged.filter(({ actualNs, limitNs }) => actualNs > limitNs);
  const message = (): string => {
    const held = missed.length === 0 ? [heldLine(judged.length)] : [];
    const shown = missed.length > 0 ? missed : judged;
    const parts = shown.flatMap(({ what, actualNs, limitNs, values }) => [
      `${what} took ${duration(actualNs)}; the limit is ${duration(limitNs)}`,
      "",
      ...drawSpread(values, duration, { value: limitNs, text: `limit ${duration(limitNs)}` }),
      "",
    ]);
    const slowest = requests.reduce((slow, request) => (request.wallNs > slow.wallNs ? request : slow));
    const all = amountOf(walls) === requests.length;
    const which = all ? "the slowest request" : `the slowest of the last ${count(requests.length, "request")}`;
    return [...held, ...parts, `${which}, ${partsOf(slowest)}`, blameSentence(runs)].join("\n");
  };
  return { pass: missed.length === 0, message };
}

/**
 * Of all requests of a run: its rows are only the last ones, its histograms have all.
 * @throws {OptionError} if it has only rows, and not of all.
 */
function timesOf(
  run: Run,
  part: "requestTimes" | "firstTokens",
  timeOf: (request: RequestRow) => number | null,
): readonly Bucket[] {
  const { requests = [], requestCount = requests.length } = run;
  if (requestCount > requests.length) {
    const spread = spreadOf(run[part] ?? {}, `run.${part}`);
    if (spread) return spread;
    const kept = `run.requests has the last ${requests.length} of ${count(requestCount, "request")} alone`;
    throw new OptionError(`run.${part}`, `has no histogram, and ${kept}; profile with model.profile(…)`);
  }
  return requests
    .map(timeOf)
    .filter((value) => value !== null)
    .map((value) => ({ value, count: 1 }));
}

function responseName(key: (typeof responseKeys)[number], values: number): string {
  const requests = count(values, "request");
  if (key === "firstTokenMs") return `the last first token of ${requests}`;
  return key === "maxMs" ? `the slowest of ${requests}` : `p${wallPercents[key]} of ${requests}`;
}

/** What a request waited for, the longest first. */
function partsOf(request: RequestRow): string {
  const parts: [string, number][] = [
    ["steps", request.stepsNs],
    ["waiting for its first step", request.queueNs],
    ["between its steps", request.betweenNs],
    ["tokenizing", request.tokenizingNs],
    ["JavaScript", request.javascriptNs + request.deliveryNs],
  ];
  const shown = parts.filter(([, ns]) => ns >= request.wallNs / 100).sort((a, b) => b[1] - a[1]);
  const list = shown.map(([what, ns]) => `${percent(ns / request.wallNs)} ${what}`).join(", ");
  return `${request.promptTokens} + ${request.generatedTokens} tokens: ${list || "nothing recorded"}`;
}

/** The op, or its likes in all layers, that took most. */
function blameSentence(runs: readonly Run[]): string {
  const [largest] = timeByRole(runs);
  if (!largest) return "no op was recorded";
  const single = runs[0]?.byOp.find(({ name }) => name === largest.role);
  const name = single ? opName(single) : `${largest.role} in ${count(largest.ops, "layer")}`;
  return `the op to blame: ${name}, ${percent(largest.share)} of the steps' time`;
}

export function generateAtLeast(received: unknown, limits: unknown): Outcome {
  const runs = checkRuns(received);
  const [[, least] = ["", 0]] = checkLimits(limits, ["tokensPerSecond"] as const);
  const phases = runs.flatMap(({ phases }) => phases.filter(({ phase }) => phase === "generation"));
  const totalNs = phases.reduce((sum, phase) => sum + phase.totalNs, 0);
  if (totalNs === 0) throw new OptionError("run", "has no step that generated; generate more than one token");
  // A row is a token that came: guesses that did not come true are no rows of a phase.
  const tokens = phases.reduce((sum, phase) => sum + phase.rows, 0);
  const steps = phases.reduce((sum, phase) => sum + phase.count, 0);
  const rate = (tokens / totalNs) * 1e9;
  const drawn = (): string[] => {
    const spread = together(phases.map((phase) => spreadOf(phase, "run.phases.generation") ?? []));
    if (spread.length === 0) return [];
    const stepNs = Math.round((tokens / steps / least) * 1e9);
    const limit = { value: stepNs, text: `as many tokens at the limit: ${duration(stepNs)} a step` };
    return ["", ...drawSpread(spread, duration, least > 0 ? limit : undefined), ""];
  };
  const message = (): string =>
    [
      ...(rate >= least ? [heldLine(1)] : []),
      `${count(tokens, "token")} came at ${grouped(rate, 1)} a second; the limit is at least ${grouped(least, 1)}`,
      ...phases.map(
        ({ p50Ns, p99Ns, maxNs }) =>
          `a step took ${duration(p50Ns)} (p50), ${duration(p99Ns)} (p99), ${duration(maxNs)} (max)`,
      ),
      ...drawn(),
      blameSentence(runs),
    ].join("\n");
  return { pass: rate >= least, message };
}

export function allocateAtMost(received: unknown, limit: unknown): Outcome {
  const runs = checkRuns(received);
  const most = checkInteger("bytes", limit, 0, Number.MAX_SAFE_INTEGER);
  const systems = partOf(runs, "system", "profile with what the system gave, which is the default of model.profile(…)");
  const { allocations } = systems.reduce((worst, system) =>
    system.allocations.allocatedBytes > worst.allocations.allocatedBytes ? system : worst,
  );
  const message = (): string => {
    const { sizes, allocatedBytes, freedBytes } = allocations;
    const taken = `the library allocated ${bytes(allocatedBytes)} in ${count(allocations.count, "piece")}, and freed ${bytes(freedBytes)}`;
    const largest = allocations.count > 0 ? [`the largest piece has ${bytes(sizes.max)}`] : [];
    const held = allocatedBytes <= most ? [heldLine(1)] : [];
    const spread = spreadOf(sizes, "run.system.allocations.sizes") ?? [];
    const drawn = spread.length > 0 ? ["", ...drawSpread(spread, bytes)] : [];
    return [...held, `${taken}; the limit is ${bytes(most)}`, ...largest, ...drawn].join("\n");
  };
  return { pass: allocations.allocatedBytes <= most, message };
}
