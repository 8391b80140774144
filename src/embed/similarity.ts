// How alike two texts are, by their vectors.

import { OptionError } from "../errors.ts";
import { checkVector } from "./matrix.ts";

/**
 * The cosine of the angle between two vectors: from -1 to 1, the more alike the larger. 0 where one of them is all zeros.
 * @throws {OptionError} if they have different lengths, or a value that is not finite.
 * @example
 * const [a, b] = await model.embed(["a cat on a mat", "a kitten on a rug"]);
 * console.log(similarity(a, b));
 */
export function similarity(a: Float32Array, b: Float32Array): number {
  checkVector("a", a);
  checkVector("b", b);
  if (a.length !== b.length) {
    throw new OptionError("b", `has ${b.length} values and a has ${a.length}: they are of different models`);
  }
  let product = 0;
  let squaresA = 0;
  let squaresB = 0;
  for (let index = 0; index < a.length; index++) {
    const x = a[index] ?? 0;
    const y = b[index] ?? 0;
    product += x * y;
    squaresA += x * x;
    squaresB += y * y;
  }
  // One root for each: their product may be beyond what a number holds.
  const lengths = Math.sqrt(squaresA) * Math.sqrt(squaresB);
  return lengths === 0 ? 0 : Math.max(-1, Math.min(1, product / lengths));
}
