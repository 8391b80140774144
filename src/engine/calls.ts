// Counts the calls into the native library that requests need, by what for. They do not depend on time: what only looks whether
// something has come, reads a clock or watches is in none of them.

import type { NativeCalls } from "../../profiler/report.ts";

/** Each but the sum of all, as the engine counts them. */
export type CallCounts = { -readonly [Kind in Exclude<keyof NativeCalls, "total">]: NativeCalls[Kind] };

export function noCalls(): CallCounts {
  return { requests: 0, steps: 0, logits: 0, vectors: 0, sessions: 0, cancelled: 0 };
}

/** Of an engine's calls those that came after it had made `before`. */
export function callsSince(before: CallCounts, now: CallCounts): NativeCalls {
  const since: CallCounts = {
    requests: now.requests - before.requests,
    steps: now.steps - before.steps,
    logits: now.logits - before.logits,
    vectors: now.vectors - before.vectors,
    sessions: now.sessions - before.sessions,
    cancelled: now.cancelled - before.cancelled,
  };
  return { total: Object.values(since).reduce((sum, calls) => sum + calls, 0), ...since };
}
