// Samples of known distributions, and a series that other programs can make as well.

import type { Random } from "../../../src/benchmark/statistics/random.ts";

/** Lehmer's generator with 48271 modulo 2^31 - 1, each of its parts of the modulus made into a sample. */
export function lehmer(seed: number, count: number, of: (part: number) => number): number[] {
  let state = seed;
  return Array.from({ length: count }, () => {
    state = (state * 48271) % 2147483647;
    return of(state / 2147483647);
  });
}

/** To three digits, as Python's `round` does of what is no tie. */
export const exponential = (part: number): number => Math.round(-Math.log(1 - part) * 10_000) / 1000;

export function normal(random: Random): number {
  return Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}

/** Values around 0 with deviation 1, each correlated with the one before. */
export function correlated(count: number, correlation: number, random: Random): number[] {
  let value = normal(random);
  return Array.from({ length: count }, () => {
    const now = value;
    value = correlation * value + Math.sqrt(1 - correlation ** 2) * normal(random);
    return now;
  });
}

/** Times around 10 ms that scatter by `deviation` as a part. */
export function times(count: number, deviation: number, random: Random): number[] {
  return Array.from({ length: count }, () => 10 * Math.exp(deviation * normal(random)));
}
