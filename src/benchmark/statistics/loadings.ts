// Samples of several loadings, which follow each other: those of one lie nearer to each other than to those of the next.

/** The samples of each loading. @param lengths how many each has; together as many as there are. */
export function byLoading<Sample>(samples: readonly Sample[], lengths: readonly number[]): Sample[][] {
  let from = 0;
  return lengths.map((length) => {
    from += length;
    return samples.slice(from - length, from);
  });
}

/** The mean of each loading's samples. */
export function loadingMeans(samples: readonly number[], lengths: readonly number[]): number[] {
  return byLoading(samples, lengths).map((values) => values.reduce((sum, value) => sum + value, 0) / values.length);
}
