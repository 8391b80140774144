// Models that stay loaded from one request to the next: a bounded number, of which the one that was used longest ago makes room.

import { describe } from "../../check.ts";
import { MemoryLimitError, OptionError } from "../../errors.ts";
import { loadModel } from "../../load.ts";
import type { LoadOptions } from "../../load-options.ts";
import type { Model } from "../../loaded-model.ts";
import { resolveModel } from "../../model/resolve.ts";
import { stampOf } from "../../prepared.ts";

/** Models in memory; more only while as many are in use, or are being loaded. */
export const modelsMax = 4;

interface Kept {
  readonly name: string;
  readonly model: Promise<Model>;
  users: number;
  isLoaded: boolean;
}

export class Models {
  /** By what tells one loaded model from another; the one that was used last is the last. */
  readonly #kept = new Map<string, Kept>();
  readonly #closing = new AbortController();
  readonly #open: typeof loadModel;

  constructor(open = loadModel) {
    this.#open = open;
  }

  /** Names of the models in memory, as they were asked for, and whether they are in use. */
  list(): { readonly model: string; readonly in_use: boolean }[] {
    return Array.from(this.#kept.values(), ({ name, users }) => ({ model: name, in_use: users > 0 }));
  }

  /**
   * Works with a model, which is loaded if it is not yet, or was with other options, or was changed since. Others make room for it first;
   * where the limit of memory leaves too little for it nevertheless, all that nobody uses do.
   * @throws what loading throws; the signal's reason if that comes while it loads, which goes on for who asks next.
   */
  async use<T>(
    name: unknown,
    options: LoadOptions,
    signal: AbortSignal,
    work: (model: Model) => Promise<T>,
  ): Promise<T> {
    if (typeof name !== "string" || name.length === 0 || name.includes("\0")) {
      throw new OptionError("model", `is ${describe(name)}; a path or the name of a model is expected`);
    }
    const kept = this.#find(name, options);
    kept.users++;
    try {
      return await work(await unlessAborted(kept.model, signal));
    } finally {
      kept.users--;
      await this.#makeRoom(modelsMax);
    }
  }

  #find(name: string, options: LoadOptions): Kept {
    const source = resolveModel(name);
    const { bytes, modifiedNs, changedNs } = stampOf(source) ?? {};
    const key = JSON.stringify([source, bytes, String(modifiedNs), String(changedNs), options]);
    const there = this.#kept.get(key);
    this.#kept.delete(key);
    const kept = there ?? { name, model: this.#load(source, options), users: 0, isLoaded: false };
    this.#kept.set(key, kept);
    if (there) return kept;
    kept.model.then(
      () => {
        kept.isLoaded = true;
      },
      // Who asks next may have more luck.
      () => this.#kept.get(key) === kept && this.#kept.delete(key),
    );
    return kept;
  }

  async #load(source: string, options: LoadOptions): Promise<Model> {
    const load = () => this.#open(source, { ...options, signal: this.#closing.signal });
    await this.#makeRoom(modelsMax - 1);
    try {
      return await load();
    } catch (error) {
      if (!(error instanceof MemoryLimitError) || (await this.#makeRoom(0)) === 0) throw error;
      return await load();
    }
  }

  /** Closes idle ones, the one that was used longest ago first, until no more than so many are left. Says how many it closed. */
  async #makeRoom(left: number): Promise<number> {
    // One that is being loaded may be waiting for room itself.
    const idle = [...this.#kept].filter(([, { users, isLoaded }]) => users === 0 && isLoaded);
    const closed = idle.slice(0, Math.max(0, this.#kept.size - left));
    for (const [key] of closed) this.#kept.delete(key);
    for (const [, { model }] of closed) await close(model);
    return closed.length;
  }

  /** Closes those that nobody uses, all or those of a name, and says how many they were. */
  async closeIdle(name?: string): Promise<number> {
    const idle = [...this.#kept].filter(([, kept]) => kept.users === 0 && (name === undefined || kept.name === name));
    for (const [key] of idle) this.#kept.delete(key);
    for (const [, { model }] of idle) await close(model);
    return idle.length;
  }

  /** Closes all, also those that are being loaded. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    const all = [...this.#kept.values()];
    this.#kept.clear();
    for (const { model } of all) await close(model);
  }
}

/** One that could not be loaded has nothing to close; who asked for it was told. */
async function close(model: Promise<Model>): Promise<void> {
  const loaded = await model.catch(() => undefined);
  await loaded?.close();
}

/** @throws the signal's reason if that comes before the promise is settled. */
async function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const abort = () => reject(signal.reason);
  signal.addEventListener("abort", abort, { once: true });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}
