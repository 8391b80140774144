// Reads from what test runners print or write how many tests passed and failed. It runs nothing.

/** Tests that passed and failed; skipped ones are in neither. */
export interface Counts {
  readonly passed: number;
  readonly failed: number;
}

/** One runner: what it counted, and whether it ended well. */
export interface RunnerResult {
  readonly name: string;
  /** Undefined: the runner left no count, as when it crashed. */
  readonly counts: Counts | undefined;
  /** The exit status; null when a signal ended it. */
  readonly status: number | null;
}

/**
 * Adds the lines `zig tests NAME: N passed, N failed, N skipped` that zig/test_runner.zig prints, one a binary.
 * Undefined if there is none.
 */
export function countZig(output: string): Counts | undefined {
  let counts: Counts | undefined;
  for (const [, passed, failed] of output.matchAll(/^zig tests .+: (\d+) passed, (\d+) failed, \d+ skipped$/gm)) {
    counts = { passed: (counts?.passed ?? 0) + Number(passed), failed: (counts?.failed ?? 0) + Number(failed) };
  }
  return counts;
}

/**
 * Reads the totals of a JUnit report: `bun test --reporter=junit` has them in the root, pytest in the one suite below it. Undefined if
 * it holds none.
 */
export function countJunit(report: string): Counts | undefined {
  const totals = /<testsuites? [^>]*\btests="[^>]*>/.exec(report)?.[0];
  if (totals === undefined) return undefined;
  const tests = attribute(totals, "tests");
  if (tests === undefined) return undefined;
  const failed = (attribute(totals, "failures") ?? 0) + (attribute(totals, "errors") ?? 0);
  return { passed: tests - failed - (attribute(totals, "skipped") ?? 0), failed };
}

function attribute(tag: string, name: string): number | undefined {
  const value = new RegExp(`\\s${name}="(\\d+)"`).exec(tag)?.[1];
  return value === undefined ? undefined : Number(value);
}

/**
 * The sum over runners. A runner that executed no test, or ended badly without a failed test to show for it, counts as
 * one failure: a suite that did not run must not look like one that passed.
 */
export function sumRunners(runners: readonly RunnerResult[]): Counts & { readonly problems: readonly string[] } {
  let passed = 0;
  let failed = 0;
  const problems: string[] = [];
  for (const { name, counts, status } of runners) {
    passed += counts?.passed ?? 0;
    failed += counts?.failed ?? 0;
    if (counts === undefined) problems.push(`${name}: ended with status ${status} and without a count`);
    else if (counts.passed + counts.failed === 0) problems.push(`${name}: executed no test`);
    else if (status !== 0 && counts.failed === 0) problems.push(`${name}: ended with status ${status}, no test failed`);
  }
  return { passed, failed: failed + problems.length, problems };
}
