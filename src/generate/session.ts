// A session: a text that grows turn by turn, whose keys and values stay from one turn to the next and can be kept in a file.

import type { Engine } from "../engine/engine.ts";
import { HeldSequence } from "../engine/held.ts";
import { EngineError, OptionError } from "../errors.ts";
import {
  complete,
  encodePrompt,
  type GenerateResult,
  type Generator,
  type Piece,
  type Prompt,
  promptTokens,
  streamTokens,
} from "./generate.ts";
import { type CheckedOptions, checkGenerateOptions, type GenerateOptions } from "./options.ts";
import { readSession, type SessionBinding, writeSession } from "./session-file.ts";

/** What a session needs of a model. */
export interface SessionModel extends Generator {
  readonly batchSize: number;
  /** What the model's keys and values are bound to. */
  binding(): Promise<SessionBinding>;
  /** How many of its sessions are in use. */
  readonly sessions: { count: number };
}

/** Sessions that nobody holds any more are not in use, closed or not. */
const forgotten = new FinalizationRegistry<SessionModel["sessions"]>((sessions) => sessions.count--);

/**
 * A text that grows turn by turn. It is made by `model.session()` or `model.loadSession(path)`. Between its turns it holds its tokens
 * and nothing else: its keys and values are kept with those of all other texts (`prefixCache`), and computed again once they had to
 * give way.
 */
export class Session implements Disposable {
  readonly #model: SessionModel;
  #tokens: Uint32Array;
  #busy = false;
  #closed = false;

  constructor(model: SessionModel, tokens: Uint32Array = new Uint32Array(0)) {
    // A session starts from its own keys and values also where other prompts start from nobody's.
    this.#model = { ...model, prefixCache: true };
    this.#tokens = tokens;
    model.sessions.count++;
    forgotten.register(this, model.sessions, this);
  }

  /** @throws {SessionFileError} as `Model.loadSession` says. */
  static async load(model: SessionModel, path: string): Promise<Session> {
    checkPath(path);
    const { engine, contextLength, tokenizer } = model;
    const limits = { vocabulary: tokenizer.vocabularySize, contextLength };
    const { levels } = engine.settings;
    const tokens = await readSession(path, await model.binding(), limits, (list) => {
      checkLevels(engine, levels, "loaded");
      return HeldSequence.open(engine, "restore", list);
    });
    return new Session(model, tokens);
  }

  /** Everything so far: what was given and what was generated. */
  get tokens(): Uint32Array {
    return this.#tokens.slice();
  }

  /**
   * Goes on from everything so far. A text or tokens are put behind it; messages are the whole conversation so far.
   * @throws {OptionError} as `Model.generate`. @throws {EngineError} if the session is in use or closed.
   */
  generate(prompt: Prompt, options?: GenerateOptions): Promise<GenerateResult> {
    return complete(this.stream(prompt, options));
  }

  /** The same piece by piece. Left early or aborted, the session holds what was generated until then. */
  async *stream(prompt: Prompt, options: GenerateOptions = {}): AsyncGenerator<Piece, GenerateResult, undefined> {
    const checked = checkGenerateOptions(options, this.#model.batchSize);
    this.#begin();
    try {
      const encoded = await encodePrompt(this.#model, await this.#append(prompt, checked), checked);
      const drawn: number[] = [];
      try {
        return yield* streamTokens(this.#model, encoded, checked, drawn);
      } finally {
        if (!this.#closed) this.#tokens = Uint32Array.from([...encoded.tokens, ...drawn]);
      }
    } finally {
      this.#busy = false;
    }
  }

  /**
   * Writes the session to a file, with the keys and values that its next turn starts from: `Model.loadSession` goes on from
   * there, in this process or another. What is not in memory any more is computed again. The file holds the session's text, as
   * tokens; only its owner may read it.
   * @throws {SessionFileError} if it cannot be written; a file that was there stays as it was.
   * @throws {EngineError} if the session is empty, in use or closed, or the model's instruction-set level changes meanwhile.
   */
  async save(path: string): Promise<void> {
    checkPath(path);
    this.#begin();
    try {
      if (this.#tokens.length === 0)
        throw new EngineError("the session is empty; generate something before it is saved");
      const { engine } = this.#model;
      const { levels } = engine.settings;
      const binding = await this.#model.binding();
      const held = await HeldSequence.open(engine, "hold", this.#tokens);
      try {
        checkLevels(engine, levels, "saved");
        await writeSession(path, binding, this.#tokens, (group, block, bytes) => held.copyPage(group, block, bytes));
      } finally {
        await held.release();
      }
    } finally {
      this.#busy = false;
    }
  }

  /** Forgets its text; no turn can begin any more. One that runs goes on to its end. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#tokens = new Uint32Array(0);
    this.#model.sessions.count--;
    forgotten.unregister(this);
  }

  /** As `close`. */
  [Symbol.dispose](): void {
    this.close();
  }

  #begin(): void {
    if (this.#closed) throw new EngineError("the session is closed; begin another");
    if (this.#busy) throw new EngineError("the session is in use; wait until its last turn or saving has ended");
    this.#busy = true;
  }

  async #append(prompt: Prompt, options: CheckedOptions): Promise<Uint32Array> {
    const before = this.#tokens;
    const own = await promptTokens(this.#model, prompt, options, "prompt", before.length === 0);
    const conversation = typeof prompt !== "string" && !(prompt instanceof Uint32Array);
    return conversation ? own : Uint32Array.from([...before, ...own]);
  }
}

/** What is computed at some levels is not what others compute, to the last bit. */
function checkLevels({ settings }: Engine, levels: Engine["settings"]["levels"], what: "loaded" | "saved"): void {
  if (settings.levels === levels) return;
  throw new EngineError(`the instruction-set level changed while the session was being ${what}; try again`);
}

function checkPath(path: unknown): void {
  if (typeof path === "string" && path.length > 0 && !path.includes("\0")) return;
  throw new OptionError("path", `is ${JSON.stringify(path) ?? "undefined"}; the path of a session's file is expected`);
}
