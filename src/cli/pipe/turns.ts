// Who may work when: any number at once, or one alone, in the order in which they came.

interface Waiting {
  readonly alone: boolean;
  readonly begin: () => void;
}

export class Turns {
  readonly #waiting: Waiting[] = [];
  #running = 0;
  #alone = false;

  /**
   * Waits until it is this one's turn, which lasts until what it resolves to is disposed of. One that wants to be alone is not
   * overtaken.
   * @throws the signal's reason if that comes first.
   */
  async take(alone: boolean, signal: AbortSignal): Promise<Disposable> {
    signal.throwIfAborted();
    await new Promise<void>((resolve, reject) => {
      const waiting: Waiting = {
        alone,
        begin: () => {
          signal.removeEventListener("abort", giveUp);
          resolve();
        },
      };
      const giveUp = () => {
        this.#waiting.splice(this.#waiting.indexOf(waiting), 1);
        reject(signal.reason);
        this.#begin();
      };
      signal.addEventListener("abort", giveUp, { once: true });
      this.#waiting.push(waiting);
      this.#begin();
    });
    return {
      [Symbol.dispose]: () => {
        this.#running--;
        this.#alone = false;
        this.#begin();
      },
    };
  }

  #begin(): void {
    for (;;) {
      const [first] = this.#waiting;
      if (!first || this.#alone || (first.alone && this.#running > 0)) return;
      this.#waiting.shift();
      this.#running++;
      this.#alone = first.alone;
      first.begin();
    }
  }
}
