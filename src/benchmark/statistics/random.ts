// Random numbers that a seed gives again, so that whoever has the samples of a results file can compute its intervals anew.
// Blackman and Vigna 2021, "Scrambled Linear Pseudorandom Number Generators": xoshiro128**, its state filled from the seed by the
// 32-bit SplitMix. Not for secrets.

/** At least 0, below 1. */
export type Random = () => number;

/** What is drawn where nobody gave a seed. */
export const defaultSeed = 1;

/** @param seed a whole number from 0 to 2^32 - 1. */
export function seededRandom(seed: number = defaultSeed): Random {
  let filled = seed >>> 0;
  const fill = () => {
    filled = (filled + 0x9e3779b9) >>> 0;
    let mixed = filled;
    mixed = Math.imul(mixed ^ (mixed >>> 16), 0x85ebca6b);
    mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
    return mixed ^ (mixed >>> 16);
  };
  let [a, b, c, d] = [fill(), fill(), fill(), fill()];
  return () => {
    const scrambled = Math.imul(b, 5);
    const drawn = Math.imul((scrambled << 7) | (scrambled >>> 25), 9) >>> 0;
    const shifted = b << 9;
    c ^= a;
    d ^= b;
    b ^= c;
    a ^= d;
    c ^= shifted;
    d = (d << 11) | (d >>> 21);
    return drawn / 2 ** 32;
  };
}
