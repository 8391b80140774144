// `tinyai pipe`: requests and answers as lines of JSON, for programs in other languages that keep TinyAI running beside them.

import type { Command } from "commander";
import manifest from "../../package.json" with { type: "json" };
import { describe, isRecord } from "../check.ts";
import { TinyAIError } from "../errors.ts";
import { interruption } from "./interrupt.ts";
import { linesOf } from "./pipe/lines.ts";
import { type Method, methods } from "./pipe/methods.ts";
import { Models } from "./pipe/models.ts";
import { Turns } from "./pipe/turns.ts";

/** Changes when what is written to it or read from it is no longer understood. */
const protocol = 1;
/** Of a line that is read, its end not counted: the largest file of results, and some room. */
const lineBytesMax = 256 << 20;
/** Requests that are being worked at or wait, and the letters that they have together. */
const requestsMax = 1024;
const lettersMax = 2 * lineBytesMax;

export function registerPipe(program: Command): void {
  program
    .command("pipe")
    .description("answer requests, a line of JSON each, until standard input ends")
    .addHelpText(
      "after",
      `
Methods: ${Object.keys(methods).join(", ")}.

The first line says { "protocol": ${protocol}, "tinyai": ${JSON.stringify(manifest.version)} }. A request is
{ "id": 1, "method": "generate", "params": { … } } with an id of its own, a whole number. Its answers are any number of
{ "id": 1, "event": { … } } and at last { "id": 1, "result": { … } } or { "id": 1, "error": { "code", "name", "message" } }.
{ "cancel": 1 } ends a request. A line that is no request is answered with an error whose id is null.

Examples:
  tinyai pipe
  (echo '{"id":1,"method":"generate","params":{"model":"gemma3-270m","prompt":"Hello"}}'; sleep 5) | tinyai pipe`,
    )
    .action(run);
}

async function run(): Promise<void> {
  const interrupted = interruption();
  const ended = new Promise<void>((resolve) => interrupted.addEventListener("abort", () => resolve(), { once: true }));
  // What still runs at the end of input, or when the program is asked to end, is cancelled.
  await using pipe = new Pipe(writeLine);
  const read = async () => {
    for await (const line of linesOf(Bun.stdin.stream(), lineBytesMax)) await pipe.take(line);
  };
  await Promise.race([read(), ended]);
}

let room: Promise<void> | undefined;

/** Writes a line to standard output, and waits while whoever reads it is behind; all who wait share the one promise. */
async function writeLine(line: string): Promise<void> {
  if (process.stdout.write(`${line}\n`)) return;
  room ??= new Promise<void>((resolve) => process.stdout.once("drain", resolve)).finally(() => {
    room = undefined;
  });
  await room;
}

/** A request that cannot be answered under its id. */
class RequestError extends TinyAIError {
  constructor(message: string) {
    super("request", message);
  }
}

class Pipe implements AsyncDisposable {
  readonly #models = new Models();
  readonly #turns = new Turns();
  readonly #running = new Map<number, { readonly controller: AbortController; readonly ended: Promise<void> }>();
  readonly #write: (line: string) => Promise<void>;
  /** Of the requests that run or wait. */
  #letters = 0;
  /** Settled once what was said last has room. */
  #said = Promise.resolve();

  constructor(write: (line: string) => Promise<void>) {
    this.#write = write;
    void this.#say({ protocol, tinyai: manifest.version });
  }

  /** Begins what a line asks for. Resolves when there is room for what will be said to the next one. */
  async take(line: { readonly text: string } | { readonly problem: string }): Promise<void> {
    try {
      if ("problem" in line) throw new RequestError(`the line ${line.problem}`);
      if (line.text.trim() !== "") this.#obey(parse(line.text), line.text.length);
    } catch (error) {
      void this.#say({ id: null, error: errorJson(error) });
    }
    await this.#said;
  }

  #obey(request: Readonly<Record<string, unknown>>, letters: number): void {
    if ("cancel" in request) {
      const unknown = Object.keys(request).find((key) => key !== "cancel");
      if (unknown !== undefined)
        throw new RequestError(`${unknown}: is nothing of a cancellation, which has cancel alone`);
      // One that has ended in the meantime has nothing to cancel.
      this.#running.get(idOf("cancel", request["cancel"]))?.controller.abort(cancelled());
      return;
    }
    const id = idOf("id", request["id"]);
    if (this.#running.has(id)) throw new RequestError(`id: ${id} is in use; give each request its own`);
    const controller = new AbortController();
    const ended = this.#answer(id, request, letters, controller.signal);
    this.#letters += letters;
    this.#running.set(id, { controller, ended });
    void ended.then(() => {
      this.#letters -= letters;
      this.#running.delete(id);
    });
  }

  async #answer(
    id: number,
    request: Readonly<Record<string, unknown>>,
    letters: number,
    signal: AbortSignal,
  ): Promise<void> {
    try {
      if (this.#running.size >= requestsMax || this.#letters + letters > lettersMax) {
        const there = `${this.#running.size} requests of ${this.#letters} letters`;
        throw new RequestError(`there are ${there} already; wait until one has its answer`);
      }
      const { alone = false, run } = methodOf(request);
      using _turn = await this.#turns.take(alone, signal);
      const result = await run({
        params: request["params"],
        signal,
        models: this.#models,
        tell: (event) => this.#say({ id, event }),
      });
      await this.#say({ id, result });
    } catch (error) {
      await this.#say({ id, error: errorJson(error) });
    }
  }

  #say(message: Readonly<Record<string, unknown>>): Promise<void> {
    this.#said = this.#write(JSON.stringify(message));
    return this.#said;
  }

  /** Cancels what runs. */
  async [Symbol.asyncDispose](): Promise<void> {
    const running = [...this.#running.values()];
    for (const { controller } of running) controller.abort(cancelled());
    await Promise.all(running.map(({ ended }) => ended));
    await this.#models[Symbol.asyncDispose]();
  }
}

function parse(text: string): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new RequestError(`the line is no JSON: ${(cause as Error).message}`);
  }
  if (!isRecord(value)) throw new RequestError(`the line is ${describe(value)}; a request is expected`);
  return value;
}

function idOf(field: string, value: unknown): number {
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return value;
  throw new RequestError(`${field}: is ${describe(value)}; a whole number from 0 on is expected`);
}

function methodOf(request: Readonly<Record<string, unknown>>): Method {
  const unknown = Object.keys(request).find((key) => !["id", "method", "params"].includes(key));
  if (unknown !== undefined) {
    throw new RequestError(`${unknown}: is nothing of a request; there are id, method and params, or cancel`);
  }
  const { method } = request;
  if (typeof method === "string" && Object.hasOwn(methods, method)) return methods[method] as Method;
  throw new RequestError(`method: is ${describe(method)}; there are ${Object.keys(methods).join(", ")}`);
}

function cancelled(): TinyAIError {
  return new TinyAIError("cancelled", "was cancelled");
}

/** An error as it crosses to another language. */
function errorJson(error: unknown) {
  if (!(error instanceof TinyAIError)) {
    const { name, message } = error instanceof Error ? error : new Error(String(error));
    return { code: "unexpected", name, message };
  }
  const { code, name, message } = error;
  const where = Object.entries(error).filter(([key, value]) => ["option", "path", "field"].includes(key) && value);
  return { code, name, message, ...Object.fromEntries(where) };
}
