// Some of many values, evenly spread over them, however many there are: every one until there are too many, then every second of those
// and of the rest, and so on. It keeps between half of `most` and `most`.

export class Thinned {
  readonly #most: number;
  #kept: number[] = [];
  #every = 1;
  #count = 0;

  /** @param most kept at a time; an even number. */
  constructor(most: number) {
    this.#most = most;
  }

  add(value: number): void {
    if (this.#count++ % this.#every > 0) return;
    if (this.#kept.length === this.#most) {
      this.#kept = this.#kept.filter((_, index) => index % 2 === 0);
      this.#every *= 2;
    }
    this.#kept.push(value);
  }

  /** In the order in which they came. */
  get values(): readonly number[] {
    return this.#kept;
  }
}
