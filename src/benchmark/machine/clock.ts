// How finely the clocks count that measurements are taken with, and what a look at them takes: measured, not asked for.

export interface ClockFigures {
  /** The least time above none between one look and the next, in ns. */
  readonly step_ns: number;
  /** What a look takes, in ns: the least average of several series, since the others were interrupted. */
  readonly cost_ns: number;
}

/** They take about a millisecond. */
const series = 10;
const looks = 2000;

/** @param now tells the time in units of `unit_ns`. */
export function measureClock(now: () => number, unit_ns: number): ClockFigures {
  let [step, cost] = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
  for (let each = 0; each < series; each++) {
    const begin = now();
    let last = begin;
    for (let look = 0; look < looks; look++) {
      const time = now();
      if (time > last && time - last < step) step = time - last;
      last = time;
    }
    cost = Math.min(cost, (last - begin) / looks);
  }
  return { step_ns: step * unit_ns, cost_ns: cost * unit_ns };
}
