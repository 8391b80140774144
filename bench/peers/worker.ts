// Programs that are measured: one that stays and answers questions, one JSON line each, and one that is started to see how long
// its first output takes. Both are ended when they take too long or the comparison ends.

import type { Subprocess } from "bun";

/** How to start a program. */
export interface Command {
  readonly name: string;
  readonly command: readonly string[];
  readonly environment?: NodeJS.ProcessEnv;
  readonly folder?: string;
}

type Answer = Readonly<Record<string, unknown>>;

/** What a program that was started once showed. */
export interface Launch {
  /** From just before the program was started until its first byte on stdout came. */
  readonly firstByte_s: number;
  /** From just before the program was started until its language and libraries were loaded, before any of the model. */
  readonly runtime_s: number;
  readonly peakBytes: number;
  readonly promptTokens: number;
}

function start({ command, environment = process.env, folder }: Command): Subprocess<"pipe", "pipe", "pipe"> {
  return Bun.spawn([...command], {
    env: environment,
    ...(folder === undefined ? {} : { cwd: folder }),
    stdio: ["pipe", "pipe", "pipe"],
  });
}

function failure(name: string, problem: string, stderr: string): Error {
  const said = stderr.trim().split("\n").slice(-3).join(" / ").slice(-500);
  return new Error(`${name}: ${problem}${said === "" ? "" : `; it says: ${said}`}`);
}

/** A program that stays. */
export class Worker implements AsyncDisposable {
  readonly #name: string;
  readonly #child: Subprocess<"pipe", "pipe", "pipe">;
  readonly #lines: AsyncGenerator<string>;
  readonly #stderr: Promise<string>;

  constructor(command: Command) {
    this.#name = command.name;
    this.#child = start(command);
    this.#lines = linesOf(this.#child.stdout);
    this.#stderr = new Response(this.#child.stderr).text();
  }

  /**
   * @throws {Error} with what the program said, if it ends, answers no JSON, or takes longer than `limit_s`.
   */
  async ask(question: Answer, limit_s = 300): Promise<Answer> {
    this.#child.stdin.write(`${JSON.stringify(question)}\n`);
    await this.#child.stdin.flush();
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      this.#child.kill("SIGKILL");
    }, limit_s * 1000);
    try {
      const { value } = await this.#lines.next();
      if (typeof value === "string") return JSON.parse(value) as Answer;
    } finally {
      clearTimeout(timer);
    }
    const status = await this.#child.exited;
    const problem = late ? `took longer than ${limit_s} s` : `ended with status ${status}`;
    throw failure(this.#name, `${problem} at ${JSON.stringify(question)}`, await this.#stderr);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#child.exited;
  }
}

async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of stream) {
    const lines = (text + decoder.decode(chunk, { stream: true })).split("\n");
    text = lines.pop() ?? "";
    yield* lines;
  }
}

/**
 * Runs a program to its end and times its first output.
 * @throws {Error} with what the program said, if it fails, prints nothing, or takes longer than `limit_s`.
 */
export async function launch(command: Command, limit_s = 120): Promise<Launch> {
  const startedMs = performance.now();
  const startedAtMs = Date.now();
  const child = start(command);
  const timer = setTimeout(() => child.kill("SIGKILL"), limit_s * 1000);
  const stderr = new Response(child.stderr).text();
  let firstMs: number | undefined;
  for await (const _ of child.stdout) firstMs ??= performance.now();
  const status = await child.exited;
  clearTimeout(timer);
  const said = await stderr;
  const left = said.trim().split("\n").at(-1) ?? "";
  if (status !== 0 || firstMs === undefined || !left.startsWith("{")) {
    throw failure(command.name, `ended with status ${status}`, said);
  }
  const { prompt_tokens, peak_bytes, runtime_ready_ms } = JSON.parse(left) as Readonly<Record<string, number>>;
  return {
    firstByte_s: (firstMs - startedMs) / 1000,
    runtime_s: ((runtime_ready_ms ?? Number.NaN) - startedAtMs) / 1000,
    peakBytes: peak_bytes ?? Number.NaN,
    promptTokens: prompt_tokens ?? Number.NaN,
  };
}
