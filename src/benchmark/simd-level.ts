// The instruction-set level that a benchmark's settings name, as models are loaded with it: by number.

import { chooseLevel } from "../engine/cpu.ts";
import { type Library, openLibrary } from "../engine/library.ts";
import { OptionError } from "../errors.ts";

/** Numbers of levels: 0 scalar, 1 128-bit, 2 256-bit, 3 the widest. */
const numbers = [0, 1, 2, 3] as const;

/**
 * The number of a level.
 * @param level its name, such as "avx2", or the number itself.
 * @throws {OptionError} if it is none that this CPU runs, or `TINYAI_SIMD` forces another.
 */
export async function simdLevel(level: string): Promise<number> {
  const library = await openLibrary();
  const levels = numbers.map((number) => ({ number, name: levelName(library, number) }));
  const found = levels.find(({ number, name }) => name !== undefined && (name === level || String(number) === level));
  const { forced, name: widest } = chooseLevel(library, undefined);
  if (forced) {
    if (widest === level) return 3;
    throw new OptionError("--simd", `is ${level}, but TINYAI_SIMD forces all kernels to ${widest}; unset it`);
  }
  if (found) return found.number;
  const there = levels.flatMap(({ number, name }) => (name === undefined ? [] : `${name} (${number})`));
  throw new OptionError("--simd", `there is no level ${JSON.stringify(level)} here; there are ${there.join(", ")}`);
}

/** Undefined where this CPU runs no such level. */
function levelName(library: Library, number: number): string | undefined {
  try {
    return chooseLevel(library, number).name;
  } catch {
    return undefined;
  }
}
