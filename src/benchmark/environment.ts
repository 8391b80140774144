// Whether this machine is in a state to measure on: the guide's pitfalls as checks, each with a verdict and a remedy. What is looked
// at, and from where on it is amiss, is in machine/checks.ts.

import { type Activity, between, readActivity } from "./machine/activity.ts";
import { checkActivity, checkClock, checkDisks, checkNoise, checkState } from "./machine/checks.ts";
import { measureNoise } from "./machine/noise.ts";
import { findFrequencies } from "./machine/state.ts";

/** One thing that was looked at. */
export interface EnvironmentFinding {
  /** Such as "background load". */
  readonly name: string;
  /** `unknown`: the system does not tell. */
  readonly verdict: "ok" | "warning" | "unknown";
  readonly found: string;
  /** What to do about it; missing where it is ok. */
  readonly remedy?: string;
}

export interface EnvironmentReport {
  readonly findings: readonly EnvironmentFinding[];
  /** Coefficient of variation of a fixed kernel's times; null if it was not measured. */
  readonly noise: number | null;
  /** The same without the weight of single outliers: 1.4826 times the median distance to the median, as a part of it. */
  readonly robustNoise: number | null;
}

export interface EnvironmentOptions {
  /** Whether the noise floor is measured, which takes another second. Default true. */
  readonly noise?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
  /** For how long the machine is looked at, in ms. Default 1000. */
  readonly sampleMs?: number | undefined;
  /** Where the system's files begin; another than "/" is for tests. */
  readonly root?: string | undefined;
}

/**
 * Looks at the machine for a second, in which this process does nothing, and measures its noise floor for another.
 * @throws {EngineError} if memory or threads are refused for that. @throws the signal's reason if it is aborted.
 */
export async function checkEnvironment(options: EnvironmentOptions = {}): Promise<EnvironmentReport> {
  const { noise = true, signal, sampleMs = 1000, root = "/" } = options;
  const before = readActivity({ root });
  await pause(sampleMs, signal);
  const findings = [...checkActivity(between(before, readActivity({ root })), root), ...checkState(root)];
  findings.push(checkClock(root), checkDisks());
  const measured = noise ? await measureNoise(signal) : null;
  if (measured) findings.push(checkNoise(measured));
  return { findings, noise: measured?.variation ?? null, robustNoise: measured?.robust ?? null };
}

function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

/** How often the frequency is looked at meanwhile, and of how many sets of CPUs that clock together. */
const frequencyPeriodMs = 2000;
const policiesMax = 4;
/** As a part of the highest: where the clock fell by more, times of before and after are no longer of one machine. */
const frequencyFallMax = 0.1;

export interface EnvironmentWatch {
  /**
   * Ends it. What was amiss meanwhile; empty: nothing that the system tells of.
   * @param childrenMs CPU time of processes that this one started and that have ended, ms: what they did is no other's.
   */
  readonly stop: (childrenMs?: number) => readonly EnvironmentFinding[];
}

/**
 * Watches the machine while something is measured: what others did, what was taken away and what slowed it down. It reads some files
 * before and after, and frequencies every two seconds.
 */
export function watchEnvironment({ root = "/" }: { readonly root?: string } = {}): EnvironmentWatch {
  const before: Activity = readActivity({ root });
  const frequencies: number[] = [];
  const look = (): void => {
    const current = findFrequencies(root, policiesMax).flatMap((policy) => policy.current ?? []);
    // CPUs that are idle clock low.
    if (current.length > 0) frequencies.push(Math.max(...current));
  };
  const timer = setInterval(look, frequencyPeriodMs);
  timer.unref();
  return {
    stop: (childrenMs = 0) => {
      clearInterval(timer);
      look();
      const now = readActivity({ root });
      const findings = checkActivity(between(before, { ...now, ownMs: now.ownMs + childrenMs }), root);
      return [...findings.filter(({ verdict }) => verdict === "warning"), ...frequencyChange(frequencies)];
    },
  };
}

/** @param frequencies in Hz, of the fastest CPU at each look. */
export function frequencyChange(frequencies: readonly number[]): EnvironmentFinding[] {
  const [lowest, highest] = [Math.min(...frequencies), Math.max(...frequencies)];
  if (frequencies.length < 2 || lowest >= (1 - frequencyFallMax) * highest) return [];
  const hertz = (value: number): string => `${(value / 1e9).toFixed(2)} GHz`;
  return [
    {
      name: "frequency change",
      verdict: "warning",
      found: `the CPU's clock went from ${hertz(lowest)} to ${hertz(highest)}`,
      remedy: "set the governor to performance, switch turbo off, and see to the machine's cooling",
    },
  ];
}
