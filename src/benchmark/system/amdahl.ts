// Amdahl's law, speedup(n) = 1 / (serial + (1 - serial) / n), fitted to what was measured.
// Amdahl 1967, "Validity of the single processor approach to achieving large scale computing capabilities".

export interface AmdahlFit {
  /** 0 to 1. */
  readonly serial: number;
  /** Root mean square of what the law misses of the speed-ups. */
  readonly residual: number;
}

/**
 * Fits it by least squares of the times 1 / speedup, in which the law is linear: 1 / speedup - 1 / n = serial · (1 - 1 / n). What is
 * faster than n times has no serial part, and what is slower than one thread has nothing else.
 * @param threads at least one of them above 1.
 * @param speedups of each; above 0.
 */
export function fitAmdahl(threads: readonly number[], speedups: readonly number[]): AmdahlFit {
  let products = 0;
  let squares = 0;
  for (const [place, count] of threads.entries()) {
    const parallel = 1 - 1 / count;
    products += (1 / (speedups[place] ?? Number.NaN) - 1 / count) * parallel;
    squares += parallel ** 2;
  }
  const serial = Math.min(1, Math.max(0, products / squares));
  const missed = threads.map((count, place) => (speedups[place] ?? Number.NaN) - 1 / (serial + (1 - serial) / count));
  return { serial, residual: Math.sqrt(missed.reduce((sum, miss) => sum + miss ** 2, 0) / missed.length) };
}

/** Of each list of rates, its mean over some rounds, as a multiple of the first list's. */
export function speedupsOf(rates: readonly (readonly number[])[], rounds: readonly number[]): number[] {
  const sums = rates.map((of) => rounds.reduce((sum, round) => sum + (of[round] ?? Number.NaN), 0));
  return sums.map((sum) => sum / (sums[0] ?? Number.NaN));
}
