// What each op should have taken in the state that the machine was in, as the other ops of the same run tell it, and how far off
// that is. A shared machine's speed wanders by tens of per cent from one second to the next, but not for one op alone: its clock,
// its caches and its memory are slow for all that use them. Runs recorded before say how an op's time goes with the others' and
// how far it strays from them, in the states that they knew.
//
// The logarithm of an op's time, less its mean over the recorded runs, is foretold as a weighted sum of the others' (Bayesian
// linear regression: Bishop 2006, "Pattern Recognition and Machine Learning", 3.3). Before anything is recorded, each counts alike.

/** Weights stray so far from those that are supposed before anything is known. */
const weightSpread = 0.5;
/** Such a spread of an op about what is foretold, and as much as so many runs say. It keeps few runs from being taken for exact. */
const supposedSpread = 0.015;
const supposedRuns = 3;
/** Spread and weights depend on each other; after a few rounds neither changes. */
const rounds = 4;
/** One op in a thousand strays further by chance, in a normal distribution: one run in a hundred, with ten ops. */
const chanceDeviations = 3.09;

/** Where more than a quarter of the ops differ by more than this from each recorded run, none knew the state of the machine. */
const knownDistance = 0.15;
const knownPart = 0.75;

/**
 * Whether a recorded run knew the state that the machine was in: what ops do together in one says little of what they do in another,
 * such as a slow memory after a slow clock.
 */
export function knowsState(recorded: readonly (readonly number[])[], run: readonly number[]): boolean {
  return recorded.some((ops) => {
    const apart = run.map((ns, op) => Math.abs(Math.log(ns / (ops[op] ?? 1)))).sort((a, b) => a - b);
    return (apart[Math.floor(knownPart * (apart.length - 1))] ?? 0) <= knownDistance;
  });
}

/** An op of a run beside what was foretold. All are logarithms: 0.05 is 5 %. */
export interface Deviation {
  /** Less the recorded runs' mean. */
  readonly foretold: number;
  /** How much longer it took than foretold. */
  readonly excess: number;
  /** So much of it may be chance. */
  readonly chance: number;
}

/**
 * The ops of a run (ns, positive) beside what those of the recorded runs, at least two, let expect. An op that took longer or less
 * than expected by more than `tolerance` and chance tells nothing of the machine: the others are then judged without it, as long as
 * half of them agree.
 */
export function deviations(recorded: readonly (readonly number[])[], run: readonly number[], tolerance: number) {
  const means = run.map((_, op) => recorded.reduce((sum, ops) => sum + Math.log(ops[op] ?? 1), 0) / recorded.length);
  const centred = (ops: readonly number[]): number[] => ops.map((ns, op) => Math.log(ns) - (means[op] ?? 0));
  const before = recorded.map(centred);
  const now = centred(run);
  const witnesses = new Set(run.keys());
  for (;;) {
    const judged = now.map((_, op) => {
      const others = [...witnesses].filter((other) => other !== op);
      return deviation(before, now, op, others);
    });
    const beyond = (op: number): number => {
      const { excess, chance } = judged[op] as Deviation;
      return Math.abs(excess) - tolerance - chance;
    };
    const worst = [...witnesses].reduce((most, op) => (beyond(op) > beyond(most) ? op : most));
    if (beyond(worst) <= 0 || witnesses.size <= run.length / 2) return judged;
    witnesses.delete(worst);
  }
}

function deviation(
  before: readonly (readonly number[])[],
  now: readonly number[],
  op: number,
  others: readonly number[],
): Deviation {
  const inputs = before.map((ops) => others.map((other) => ops[other] ?? 0));
  const targets = before.map((ops) => ops[op] ?? 0);
  const input = others.map((other) => now[other] ?? 0);
  const supposed = 1 / Math.max(1, others.length);
  const precision = weightSpread ** -2;
  let variance = supposedSpread ** 2;
  let weights: number[] = [];
  let covariance: number[][] = [];
  let freedom = 0;
  for (let round = 0; round < rounds; round++) {
    const matrix = others.map((_, row) =>
      others.map((_, column) => dot(inputs, row, column) / variance + (row === column ? precision : 0)),
    );
    covariance = inverse(matrix);
    const right = others.map(
      (_, row) =>
        inputs.reduce((sum, ops, index) => sum + (ops[row] ?? 0) * (targets[index] ?? 0), 0) / variance +
        supposed * precision,
    );
    weights = covariance.map((row) => product(row, right));
    // What the fit took up of the runs' freedom, and one for the mean.
    const taken = 1 + inputs.reduce((sum, ops) => sum + quadratic(covariance, ops), 0) / variance;
    freedom = Math.max(1, before.length - taken) + supposedRuns;
    const squares = inputs.reduce((sum, ops, index) => sum + ((targets[index] ?? 0) - product(weights, ops)) ** 2, 0);
    variance = (squares + supposedRuns * supposedSpread ** 2) / freedom;
  }
  const foretold = product(weights, input);
  const spread = Math.sqrt(variance * (1 + 1 / before.length) + quadratic(covariance, input));
  return { foretold, excess: (now[op] ?? 0) - foretold, chance: studentDeviations(freedom) * spread };
}

/**
 * As `chanceDeviations`, where the spread is known from so many values only: the expansion in Abramowitz and Stegun 1964, 26.7.5.
 */
function studentDeviations(freedom: number): number {
  const z = chanceDeviations;
  return z + (z ** 3 + z) / (4 * freedom) + (5 * z ** 5 + 16 * z ** 3 + 3 * z) / (96 * freedom ** 2);
}

function product(a: readonly number[], b: readonly number[]): number {
  return a.reduce((sum, value, index) => sum + value * (b[index] ?? 0), 0);
}

function quadratic(matrix: readonly (readonly number[])[], vector: readonly number[]): number {
  return product(
    matrix.map((row) => product(row, vector)),
    vector,
  );
}

function dot(rows: readonly (readonly number[])[], a: number, b: number): number {
  return rows.reduce((sum, row) => sum + (row[a] ?? 0) * (row[b] ?? 0), 0);
}

/** Of a symmetric, positive definite matrix, by Gauss and Jordan. */
function inverse(matrix: readonly (readonly number[])[]): number[][] {
  const size = matrix.length;
  const rows = matrix.map((row, at) => [...row, ...row.map((_, column) => (column === at ? 1 : 0))]);
  for (const [at, pivot] of rows.entries()) {
    const scale = pivot[at] ?? 1;
    for (const [column, value] of pivot.entries()) pivot[column] = value / scale;
    for (const [other, row] of rows.entries()) {
      const factor = row[at] ?? 0;
      if (other === at) continue;
      for (const [column, value] of pivot.entries()) row[column] = (row[column] ?? 0) - factor * value;
    }
  }
  return rows.map((row) => row.slice(size));
}
