// How engine threads wake Bun's event loop: one pipe for all engines of this JavaScript thread, and one read of it that is
// pending only while an engine has something under way. A stream of the descriptor would keep the process alive when nobody
// waits; a read for each engine would take the few threads of Bun's pool from every other file of the program. The pipe is there as long
// as somebody may ring: a program that starts a worker for each job would run out of descriptors.

import { closeSync, read } from "node:fs";
import { EngineError } from "../errors.ts";
import type { Library } from "./library.ts";

/** Called when an engine has rung, perhaps another one. */
export type BellListener = () => void;

export class Bell {
  /** The descriptor that engines write to. */
  readonly writeEnd: number;
  readonly #readEnd: number;
  readonly #bytes = new Uint8Array(256);
  readonly #listeners = new Set<BellListener>();
  #reading = false;
  /** Whoever has native threads that ring. */
  #users = 0;

  readonly #library: Library;

  private constructor(library: Library, readEnd: number, writeEnd: number) {
    this.#library = library;
    this.#readEnd = readEnd;
    this.writeEnd = writeEnd;
  }

  static #shared: Bell | undefined;

  /** This thread's bell, to be released once nothing rings it any more. @throws {EngineError} if no pipe can be opened. */
  static take(library: Library): Bell {
    if (!Bell.#shared) {
      const ends = new Int32Array(2);
      if (library.symbols.tinyai_pipe_open(ends) !== 1) {
        throw new EngineError("no pipe could be opened: the process has too many open files (ulimit -n)");
      }
      Bell.#shared = new Bell(library, ends[0] ?? -1, ends[1] ?? -1);
    }
    Bell.#shared.#users++;
    return Bell.#shared;
  }

  /** Once for each `take`. */
  release(): void {
    this.#users--;
    if (this.#users > 0) return;
    Bell.#shared = undefined;
    // The read that is pending has been rung to its end, and closes what it reads.
    if (!this.#reading) this.#close();
  }

  #close(): void {
    closeSync(this.writeEnd);
    closeSync(this.#readEnd);
  }

  /** Calls `listener` at every ring until it is removed, and once soon: what was rung before may have gone unheard. */
  add(listener: BellListener): void {
    if (this.#listeners.has(listener)) return;
    this.#listeners.add(listener);
    // Only then is it known whether there is anything to wait for.
    queueMicrotask(() => {
      if (this.#listeners.has(listener)) this.#call(listener);
      this.#listen();
    });
  }

  /** Waits until a ring, or a look right away, finds that `done` is true. */
  until(done: () => boolean): Promise<void> {
    return new Promise((resolve) => {
      const rung = () => {
        if (!done()) return;
        this.remove(rung);
        resolve();
      };
      this.add(rung);
    });
  }

  remove(listener: BellListener): void {
    this.#listeners.delete(listener);
    // A read that nobody waits for any more would keep the process alive.
    if (this.#listeners.size === 0 && this.#reading) this.#library.symbols.tinyai_pipe_ring(this.writeEnd);
  }

  #listen(): void {
    if (this.#reading || this.#listeners.size === 0) return;
    this.#reading = true;
    read(this.#readEnd, this.#bytes, 0, this.#bytes.length, null, () => {
      this.#reading = false;
      if (this.#users === 0) return this.#close();
      for (const listener of [...this.#listeners]) this.#call(listener);
      this.#listen();
    });
  }

  /** One listener's failure is told as its own, and keeps nothing from the others. */
  #call(listener: BellListener): void {
    try {
      listener();
    } catch (error) {
      queueMicrotask(() => {
        throw error;
      });
    }
  }
}
