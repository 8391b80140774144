// What the engine's steps consisted of: the sequences of each one with their rows, for whoever counts by a step's shape, as memory
// operations are, or by request. It gathers the shares of one step; what the step's time went into is profile.ts's affair.

import { EventWord, ShareWord } from "./events.ts";

/** What one sequence had of a step. */
export interface StepShare {
  /** The request's id. */
  readonly request: number;
  /** The sequence's slot in the KV cache. */
  readonly sequence: number;
  /** Of its first row; the others follow. */
  readonly firstPosition: number;
  /** Guessed tokens that did not come true included. */
  readonly rows: number;
  /** Rows of logits that were asked for: the last ones of `rows`. */
  readonly logitsRows: number;
  /** Guessed tokens that came true. */
  readonly accepted: number;
  /** How its rows become the text's vector, as the engine packs it; left out where none is wanted. */
  readonly embeds?: number;
}

/** A step that the engine has finished. */
export interface FinishedStep {
  readonly step: number;
  /** On the clock that events are stamped with. */
  readonly startNs: number;
  readonly endNs: number;
  /** As in the profile's `phases`. */
  readonly phase: "prompt" | "generation";
  /** All sequences of the step, in order of their rows. */
  readonly shares: readonly StepShare[];
}

/** Hears of every finished step whose sequences are all known; of those that lost an event it does not. */
export type StepListener = (step: FinishedStep) => void;

/** Words that are kept of a share: the request, its rows, and the four of `ShareWord`. */
const WORDS = 6;
const REQUEST = 4;
const ROWS = 5;
/** A share's last word: guesses that came true, and above them how its rows become a vector. */
const ACCEPTED_BITS = 16;
/** Sequences that a step's own event can count. */
const SHARES_MAX = 2 ** 16;

/** The shares of the step that the engine thread is in. Its ring is in order, so there is only ever one such step. */
export class StepShares {
  #words = new Uint32Array(16 * WORDS);
  #step = 0;
  #count = 0;

  /** Takes in the share event at `at`. False: no engine writes so many of one step. */
  add(words: Uint32Array, at: number): boolean {
    const step = words[at + EventWord.step] as number;
    if (step !== this.#step) {
      this.#step = step;
      this.#count = 0;
    }
    if (this.#count === SHARES_MAX) return false;
    const cell = this.#count * WORDS;
    if (cell === this.#words.length) {
      const longer = new Uint32Array(cell * 2);
      longer.set(this.#words);
      this.#words = longer;
    }
    this.#words.set(words.subarray(at + ShareWord.position, at + ShareWord.accepted + 1), cell);
    this.#words[cell + REQUEST] = words[at + EventWord.aux] as number;
    this.#words[cell + ROWS] = words[at + EventWord.rows] as number;
    this.#count++;
    return true;
  }

  /** How many of the step's shares have come. */
  countOf(step: number): number {
    return step === this.#step ? this.#count : 0;
  }

  request(index: number): number {
    return this.#words[index * WORDS + REQUEST] as number;
  }

  /** Tokens that were drawn for share `index`, if its request draws: one behind its last row, and every guess that came true. */
  drawn(index: number): number {
    const cell = index * WORDS;
    const logitsRows = this.#words[cell + ShareWord.logitsRows] as number;
    return logitsRows === 0 ? 0 : 1 + accepted(this.#words[cell + ShareWord.accepted] as number);
  }

  /** All of them as objects. */
  list(): StepShare[] {
    return Array.from({ length: this.#count }, (_, index) => {
      const cell = index * WORDS;
      const word = (offset: number): number => this.#words[cell + offset] as number;
      const embeds = word(ShareWord.accepted) >>> ACCEPTED_BITS;
      return {
        request: word(REQUEST),
        sequence: word(ShareWord.sequence),
        firstPosition: word(ShareWord.position),
        rows: word(ROWS),
        logitsRows: word(ShareWord.logitsRows),
        accepted: accepted(word(ShareWord.accepted)),
        ...(embeds > 0 ? { embeds } : {}),
      };
    });
  }

  reset(): void {
    this.#count = 0;
  }
}

function accepted(word: number): number {
  return word & ((1 << ACCEPTED_BITS) - 1);
}
