// Finds stop texts in a stream of pieces. Text that could be the beginning of a stop text is held back until it is known.

export class StopFinder {
  readonly #stops: readonly string[];
  #held = "";

  constructor(stops: readonly string[]) {
    this.#stops = stops;
  }

  /** What may be shown of the text so far that was not shown before, and whether a stop text was reached. */
  push(piece: string): { text: string; stopped: boolean } {
    if (this.#stops.length === 0) return { text: piece, stopped: false };
    const text = this.#held + piece;
    // The stop text that is complete first wins, the longest of those that end together: so it does not matter how the text
    // is cut into pieces.
    let start = 0;
    let end = Number.POSITIVE_INFINITY;
    for (const stop of this.#stops) {
      const at = text.indexOf(stop);
      if (at < 0 || at + stop.length > end || (at + stop.length === end && at >= start)) continue;
      start = at;
      end = at + stop.length;
    }
    if (end <= text.length) {
      this.#held = "";
      return { text: text.slice(0, start), stopped: true };
    }
    const held = this.#heldLength(text);
    this.#held = text.slice(text.length - held);
    return { text: text.slice(0, text.length - held), stopped: false };
  }

  /** What was held back, once nothing more comes. */
  finish(): string {
    const held = this.#held;
    this.#held = "";
    return held;
  }

  /** Length of the longest end of `text` that begins a stop text. */
  #heldLength(text: string): number {
    let held = 0;
    for (const stop of this.#stops) {
      for (let length = Math.min(stop.length - 1, text.length); length > held; length--) {
        if (text.endsWith(stop.slice(0, length))) {
          held = length;
          break;
        }
      }
    }
    return held;
  }
}
