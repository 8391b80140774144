// The first token of a request behind a long prefix that another request has brought, beside the first token of the same
// request without the prefix. Each turn asks another question, so that nothing but the prefix is there already.

import type { Model } from "../src/index.ts";

/** The first token behind the prefix should not take longer than this many first tokens without. */
export const prefixBar = 1.2;

/** Tokens that are generated to see that they are the same; the first token's time does not depend on it. */
const comparedTokens = 4;

/** What one turn took. */
export interface PrefixTurn {
  readonly behindMs: number;
  readonly withoutMs: number;
  /** The same request as behind the prefix, computed whole; undefined if that was not asked for. */
  readonly wholeMs: number | undefined;
}

export class PrefixReuse {
  readonly #model: Model;
  readonly #prefix: readonly number[];
  readonly #suffixTokens: number;
  #turns = 0;

  private constructor(model: Model, prefixTokens: number, suffixTokens: number) {
    this.#model = model;
    this.#prefix = tokensOf(model, prefixTokens, 1);
    this.#suffixTokens = suffixTokens;
  }

  /** Brings the prefix, in a request that ends before this settles. */
  static async bring(model: Model, prefixTokens: number, suffixTokens: number): Promise<PrefixReuse> {
    const reuse = new PrefixReuse(model, prefixTokens, suffixTokens);
    await model.generate(Uint32Array.from([...reuse.#prefix, 5]), { maxLength: 1 });
    return reuse;
  }

  /**
   * Measures with a question of this turn's own.
   * @param withWhole whether it is also computed whole, to see that the tokens are the same.
   * @throws {Error} if the prefix was not there, or reusing it changes the tokens.
   */
  async turn(withWhole: boolean): Promise<PrefixTurn> {
    const number = this.#turns++;
    const suffix = tokensOf(this.#model, this.#suffixTokens, number + 2);
    const whole = [...this.#prefix, ...suffix];
    const behind = () => this.#request(whole, this.#prefix.length);
    const without = () => this.#request(suffix, 0);
    const computed = () => this.#request(whole, 0);
    const requests = withWhole ? [behind, without, computed] : [behind, without];
    const taken: Awaited<ReturnType<typeof behind>>[] = [];
    // Each comes first, second and last equally often.
    for (let turn = 0; turn < requests.length; turn++) {
      const index = (turn + number) % requests.length;
      const request = requests[index];
      if (request) taken[index] = await request();
    }
    const [first, second, third] = taken;
    if (third && first?.tokens !== third.tokens) throw new Error("reusing a prefix changes the tokens");
    return { behindMs: first?.ms ?? Number.NaN, withoutMs: second?.ms ?? Number.NaN, wholeMs: third?.ms };
  }

  async #request(prompt: readonly number[], reused: number) {
    const options = { maxLength: comparedTokens, temperature: 0, ignoreEos: true, cachePrompt: reused > 0 } as const;
    const { reusedTokens, timings, tokens } = await this.#model.generate(Uint32Array.from(prompt), options);
    if (reusedTokens !== reused) throw new Error(`${reusedTokens} tokens were reused, not ${reused}`);
    return { ms: timings.firstTokenMs, tokens: tokens.join() };
  }
}

/** Any tokens do: the time does not depend on which. */
function tokensOf(model: Model, length: number, seed: number): number[] {
  return Array.from({ length }, (_, index) => ((index + 1) * 7919 + seed * 104_729) % model.tokenizer.vocabularySize);
}
