// When engines had their tokens. JavaScript hears of some tokens late, but no token comes later for it than by the CPU time that
// JavaScript takes from the engine's threads.

import { Engine, type EngineRequest, type RequestListener } from "../src/engine/engine.ts";

/**
 * Has every request of the process stamped from now on.
 * @param onToken is called with the time at which a step's result was there, ms of the engines' clock.
 */
export function stampTokens(onToken: (atMs: number) => void): void {
  const submit = Engine.prototype.submit;
  Engine.prototype.submit = function (this: Engine, request: EngineRequest, listener: RequestListener) {
    const { onToken: told } = listener;
    listener.onToken = (token) => {
      onToken(token.timeNs / 1e6);
      told.call(listener, token);
    };
    return submit.call(this, request, listener);
  };
}

/** From each moment to the next. */
export function durations(stampsMs: readonly number[]): number[] {
  return stampsMs.slice(1).map((stamp, index) => stamp - (stampsMs[index] ?? stamp));
}

/** A token that took longer than this many medians counts as that long: it was held up by another program. */
const longest = 1.5;

/** Of tokens that were measured beside others whose median is `medianMs`. */
export function meanMs(tokensMs: readonly number[], medianMs: number): number {
  return tokensMs.reduce((sum, ms) => sum + Math.min(ms, longest * medianMs), 0) / tokensMs.length;
}

/** "0.43 %" */
export function percent(part: number): string {
  return `${(part * 100).toFixed(2)} %`;
}

/** "recording costs 0.20 %, 95 % of such medians from 0.10 to 0.30 %; the bar of 0.50 %: reached" */
export function costLine(
  what: string,
  ratio: number,
  interval: readonly [low: number, high: number] | null,
  bar: number,
): string {
  const range = interval
    ? `, 95 % of such medians from ${percent(interval[0] - 1)} to ${percent(interval[1] - 1)}`
    : "";
  const verdict = (interval?.[1] ?? ratio) <= bar ? "reached" : ratio <= bar ? "reached in the median only" : "missed";
  return `${what} costs ${percent(ratio - 1)}${range}; the bar of ${percent(bar - 1)}: ${verdict}`;
}
