// The normal distribution and Student's: how likely a deviation is, and how far one must go out for a given likelihood.

/** The part of a standard normal distribution that lies below `z`. Absolute error below 1e-15. */
export function normalBelow(z: number): number {
  return erfc(-z / Math.SQRT2) / 2;
}

/** The part that lies further out than `z` on both sides. Relative error below 1e-12, far out as well. */
export function normalBeyond(z: number): number {
  return Math.min(1, erfc(Math.abs(z) / Math.SQRT2));
}

/** The complement of the error function: its series near 0, the continued fraction of Laplace further out. */
function erfc(x: number): number {
  if (x < 0) return 2 - erfc(-x);
  if (x < 2) {
    let term = x;
    let sum = x;
    for (let n = 1; Math.abs(term) > 1e-17 * sum; n++) {
      term *= (2 * x * x) / (2 * n + 1);
      sum += term;
    }
    return 1 - (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
  }
  // From the inside out; 60 steps are enough from 2 on.
  let fraction = x;
  for (let step = 60; step > 0; step--) fraction = x + step / 2 / fraction;
  return Math.exp(-x * x) / Math.sqrt(Math.PI) / fraction;
}

/** The value below which `part`, above 0 and below 1, of a standard normal distribution lies. */
export function normalQuantile(part: number): number {
  return solve((z) => normalBelow(z), part);
}

/** The value below which `part`, from 0.5 and below 1, of Student's distribution with `freedom` degrees of freedom lies. */
export function studentQuantile(part: number, freedom: number): number {
  return solve((t) => studentBelow(t, freedom), part);
}

/** Bisection, which is exact to a double's last bits and needs no derivative. */
function solve(below: (value: number) => number, part: number): number {
  let [low, high] = [-1, 1];
  while (below(low) > part) low *= 2;
  while (below(high) < part) high *= 2;
  for (let step = 0; step < 100; step++) {
    const middle = (low + high) / 2;
    if (middle <= low || middle >= high) break;
    if (below(middle) < part) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

/** The part of Student's distribution that lies below `t`: 1 - I(freedom / (freedom + t²)) / 2 for t above 0. */
export function studentBelow(t: number, freedom: number): number {
  const tail = incompleteBeta(freedom / (freedom + t * t), freedom / 2, 0.5) / 2;
  return t > 0 ? 1 - tail : tail;
}

/** The part of a beta distribution that lies below `x`. Its continued fraction, by the method of Lentz. */
export function incompleteBeta(x: number, a: number, b: number): number {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  // The fraction converges fast on this side only.
  if (x > (a + 1) / (a + b + 2)) return 1 - incompleteBeta(1 - x, b, a);
  const front = Math.exp(a * Math.log(x) + b * Math.log1p(-x) + logGamma(a + b) - logGamma(a) - logGamma(b)) / a;
  const nearly0 = 1e-300;
  let c = 1;
  let d = 1 / (1 - ((a + b) * x) / (a + 1) || nearly0);
  let fraction = d;
  for (let m = 1; m <= 10_000; m++) {
    const even = (m * (b - m) * x) / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1 / (1 + even * d || nearly0);
    c = 1 + even / c || nearly0;
    fraction *= d * c;
    const odd = (-(a + m) * (a + b + m) * x) / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 / (1 + odd * d || nearly0);
    c = 1 + odd / c || nearly0;
    fraction *= d * c;
    if (Math.abs(d * c - 1) < 1e-15) break;
  }
  return front * fraction;
}

/** The logarithm of the gamma function of `x` above 0: Stirling's series, after the recurrence has made `x` large. */
function logGamma(x: number): number {
  let product = 1;
  let large = x;
  for (; large < 12; large++) product *= large;
  const series = 1 / (12 * large) - 1 / (360 * large ** 3) + 1 / (1260 * large ** 5) - 1 / (1680 * large ** 7);
  return (large - 0.5) * Math.log(large) - large + Math.log(2 * Math.PI) / 2 + series - Math.log(product);
}
