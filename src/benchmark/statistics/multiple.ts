// Several questions asked of the same runs: each answer by chance would be wrong as often as one alone may be. Holm 1979, "A Simple
// Sequentially Rejective Multiple Test Procedure": no assumption on how the questions hang together.

/** The p-values as they count when all are asked together, in the same order, at most 1. */
export function holm(pValues: readonly number[]): number[] {
  const order = pValues.map((_, index) => index).sort((a, b) => (pValues[a] ?? 0) - (pValues[b] ?? 0));
  const corrected = new Array<number>(pValues.length);
  let most = 0;
  for (const [rank, index] of order.entries()) {
    most = Math.max(most, Math.min(1, (pValues[index] ?? 1) * (pValues.length - rank)));
    corrected[index] = most;
  }
  return corrected;
}
