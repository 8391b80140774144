// What is said of a set of measurements: the median, and how far they spread, so that nobody reads more into them.

export interface Summary {
  readonly median: number;
  readonly minimum: number;
  readonly maximum: number;
  readonly count: number;
}

/** `values` need not be sorted; there is at least one. */
export function summarise(values: readonly number[]): Summary {
  const sorted = [...values].sort((a, b) => a - b);
  return {
    median: quantile(sorted, 0.5),
    minimum: sorted[0] ?? Number.NaN,
    maximum: sorted.at(-1) ?? Number.NaN,
    count: sorted.length,
  };
}

/** The value below which `part` of the ascending values lie, between neighbours by their distance. */
export function quantile(sorted: ArrayLike<number>, part: number): number {
  const at = part * (sorted.length - 1);
  const below = sorted[Math.floor(at)] ?? Number.NaN;
  const above = sorted[Math.ceil(at)] ?? Number.NaN;
  return below + (above - below) * (at - Math.floor(at));
}

/** `values` need not be sorted; there is at least one. */
export function median(values: readonly number[]): number {
  return quantile(Float64Array.from(values).sort(), 0.5);
}

/** From the least to the most, as a part of the median: above 0.1 the machine was not quiet. */
export function spread({ median, minimum, maximum }: Summary): number {
  return (maximum - minimum) / median;
}

/** "123.4 (120.1 to 125.9)", with `digits` after the point. */
export function show(summary: Summary, digits: number): string {
  const [median, minimum, maximum] = [summary.median, summary.minimum, summary.maximum].map((value) =>
    value.toFixed(digits),
  );
  return `${median} (${minimum} to ${maximum})`;
}
