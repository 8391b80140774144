// Sessions by key: each is begun when it is first asked for and kept for its next turn. Turns of one session wait for each other.

import { checkInteger, checkKeys, describe } from "../check.ts";
import { OptionError } from "../errors.ts";
import { Session, type SessionModel } from "./session.ts";

/** Options of `model.sessionPool`. */
export interface SessionPoolOptions {
  /** Sessions kept at most, 1 to 1,000,000; the longest unused gives way. Default 1,000. */
  readonly max?: number | undefined;
}

interface Place {
  readonly session: Session;
  /** Those who use it or wait for it. */
  users: number;
  /** Settles when the last of them is done, never with an error. */
  done: Promise<unknown>;
}

/** Sessions by key, such as a user's name. It is made by `model.sessionPool()`. */
export class SessionPool implements Disposable {
  readonly #model: SessionModel;
  readonly #max: number;
  /** The longest unused first. */
  readonly #places = new Map<string, Place>();

  /** @internal `model.sessionPool` makes pools. */
  constructor(model: SessionModel, options: SessionPoolOptions = {}) {
    checkKeys("options", options, ["max"]);
    const { max = 1000 } = options;
    this.#max = checkInteger("max", max, 1, 1_000_000);
    this.#model = model;
  }

  /** Sessions that are kept. */
  get size(): number {
    return this.#places.size;
  }

  /**
   * Lets `work` have the session of that key to itself: a new one if there is none. Calls for the same key follow each other, those for
   * others run beside it.
   * @throws {OptionError} if the key is no text. @throws whatever `work` throws; the session is kept all the same.
   * @example
   * using sessions = model.sessionPool();
   * const { text } = await sessions.use("ada", (session) => session.generate(question));
   */
  use<T>(key: string, work: (session: Session) => Promise<T> | T): Promise<T> {
    if (typeof key !== "string") throw new OptionError("key", `is ${describe(key)}; a text is expected`);
    const place = this.#places.get(key) ?? { session: new Session(this.#model), users: 0, done: Promise.resolve() };
    // It is the last used from now on.
    this.#places.delete(key);
    this.#places.set(key, place);
    place.users++;
    const used = place.done.then(() => work(place.session));
    place.done = used.then(
      () => this.#left(place),
      () => this.#left(place),
    );
    this.#giveWay();
    return used;
  }

  /** Closes the session of that key once it is not used any more. False: there is none. */
  delete(key: string): boolean {
    const place = this.#places.get(key);
    if (!place) return false;
    this.#places.delete(key);
    place.done = place.done.then(() => place.session.close());
    return true;
  }

  /** Closes all of them, as `delete` does. */
  clear(): void {
    for (const key of [...this.#places.keys()]) this.delete(key);
  }

  /** As `clear`. */
  [Symbol.dispose](): void {
    this.clear();
  }

  #left(place: Place): void {
    place.users--;
    this.#giveWay();
  }

  /** Sessions that somebody uses stay, also beyond the bound. */
  #giveWay(): void {
    for (const [key, { users }] of this.#places) {
      if (this.#places.size <= this.#max) return;
      if (users === 0) this.delete(key);
    }
  }
}
