// A sequence's pages of keys and values in the caller's hands: computed and held for reading, or held for writing and then
// kept as if they had been computed.

import { EngineError } from "../errors.ts";
import { pagePositions } from "../plan/layout.ts";
import type { KvGroupPlan } from "../plan/plan.ts";
import { drawsNothing, type Engine, type Finish, type RequestHandle } from "./engine.ts";

/** Pages that a sequence holds after `positions`: from the first that its next position looks at to the last. */
export function heldPages(group: KvGroupPlan, positions: number): { readonly first: number; readonly end: number } {
  const { window } = group;
  const first = window === 0 ? 0 : Math.max(0, Math.floor((positions + 1 - window) / pagePositions));
  return { first, end: Math.ceil(positions / pagePositions) };
}

export class HeldSequence {
  readonly #handle: RequestHandle;
  readonly #finished: Promise<Finish>;

  private constructor(handle: RequestHandle, finished: Promise<Finish>) {
    this.#handle = handle;
    this.#finished = finished;
  }

  /**
   * Waits for its turn like any request. `hold` computes what is not there of `tokens`.
   * @throws {EngineError} if the model is closed meanwhile.
   */
  static async open(engine: Engine, kind: "hold" | "restore", tokens: Uint32Array): Promise<HeldSequence> {
    const held = Promise.withResolvers<void>();
    const finished = Promise.withResolvers<Finish>();
    const handle = engine.submit(
      {
        kind,
        tokens,
        ...drawsNothing,
        topCount: 0,
        chunkRows: 0,
        dumpLogits: false,
        sharesPrefix: true,
      },
      {
        onToken() {},
        onHeld: held.resolve,
        onFinish: finished.resolve,
        onError(error) {
          held.reject(error);
          finished.reject(error);
        },
      },
    );
    // Whoever waits for the end hears of the failure; nobody may.
    finished.promise.catch(() => {});
    await held.promise;
    return new HeldSequence(handle, finished.promise);
  }

  /** Copies page `block` of a group: to `bytes` of a sequence held for reading, from there of one held for writing. */
  copyPage(group: number, block: number, bytes: Uint8Array): void {
    this.#handle.copyPage(group, block, bytes);
  }

  /** All pages are written; they are kept for prompts that begin with the sequence's tokens. */
  async commit(): Promise<void> {
    this.#handle.commit();
    if ((await this.#finished) !== "restored") throw new EngineError("the session was not taken in");
  }

  /** Lets the pages go. Nothing is done if they have gone. */
  async release(): Promise<void> {
    this.#handle.cancel();
    await this.#finished.catch(() => {});
  }
}
