// Measures one model: the programs take turns at each figure, one right after the other, first forwards, then backwards. There
// are several rounds of all figures, so that a slow minute of the machine is not one figure's alone.

import { join } from "node:path";
import { summarise } from "../../src/benchmark/statistics/summary.ts";
import type { Meter } from "../meter.ts";
import type { PeerNode, PeerPython } from "./install.ts";
import type { Figure } from "./results.ts";
import { type Command, type Launch, launch, Worker } from "./worker.ts";

export interface Settings {
  readonly threads: number;
  readonly rounds: number;
  /** Turns that each figure is measured in a round. */
  readonly turns: number;
  /** How long the slowest program may generate in a turn, about. */
  readonly turn_s: number;
}

export interface Peers {
  readonly python: PeerPython;
  readonly node: PeerNode;
}

/** Whose figures stand beside each other in a turn. `other` is TinyAI too, as the figure's `against` says. */
export type Program = "tinyai" | "bandwidth" | "flashOn" | "flashOff" | "llama" | "node" | "other";

/** What each program gave in a turn of one figure. Not every one takes part in every turn. */
export type Turn = Readonly<Partial<Record<Program, number>>>;

/** Gives a program's figures of a turn. */
type Asker = () => Promise<Readonly<Record<string, number>>>;
type Askers = Readonly<Partial<Record<Program, Asker>>>;

const promptTokens = 512;
const depth = 4096;
const batches = [1, 4, 8, 16] as const;
const prefixTokens = 1000;
/** The first token is that of a prompt of so many tokens, in a context of so many positions; memory is that of the same run. */
const firstPromptTokens = 32;
const firstContext = 2048;
const firstGenerated = 16;
/** Tokens that are generated in a turn, by each sequence: few enough to warm up with, many enough to fill `turn_s`. */
const tokensLeast = 8;
const tokensMost = 48;
/** Guessing needs some text before it guesses well. */
const repeatedLeast = 32;
/** With flash attention or without: what is slower than this part of the other in the first rounds is not measured on. */
const losing = 0.9;

const rate = { better: "more", unit: "tokens/s", digits: 1 } as const;
const time = { better: "less", unit: "s", digits: 3 } as const;
const memory = { better: "less", unit: "MB", digits: 0 } as const;

/** What is measured, in the table's order. */
export const figures: Readonly<Record<string, Figure>> = {
  [`prompt_${promptTokens}`]: { label: `prompt of ${promptTokens}`, ...rate },
  depth_0: { label: "generation at depth 0", ...rate },
  [`depth_${depth}`]: { label: `generation at depth ${depth}`, ...rate },
  ...Object.fromEntries(
    batches.map((count) => [`batch_${count}`, { label: `${count} sequence${count > 1 ? "s together" : ""}`, ...rate }]),
  ),
  lookup: { label: "guessing by prompt lookup", ...rate, against: "without" },
  screening: { label: "screening the head", ...rate, against: "without" },
  prefix: { label: `first token behind ${prefixTokens}`, ...time, digits: 4, against: "no prefix" },
  first_token: { label: "start to first token", ...time },
  first_opening: { label: "start, the first time", ...time, against: "prepared" },
  peak_memory: { label: "peak resident memory", ...memory },
  screening_memory: { label: "memory, screening", ...memory, against: "without" },
  opening_memory: { label: "memory, the first time", ...memory, against: "prepared" },
};

/** Figures whose share of the memory's bandwidth is told, which is therefore read in each of their turns. */
export const readingFigures: readonly string[] = ["depth_0", `depth_${depth}`];

/** A figure in tokens/s, and how each program is asked for it. */
interface Question {
  readonly key: string;
  readonly sequences: number;
  /** @param tokens to generate, by each sequence. */
  readonly ask: (tokens: number) => Readonly<Record<string, unknown>>;
}

const questions: readonly Question[] = [
  { key: `prompt_${promptTokens}`, sequences: 1, ask: () => ({ do: "prompt", tokens: promptTokens }) },
  ...[0, depth].map((at) => ({
    key: `depth_${at}`,
    sequences: 1,
    ask: (tokens: number) => ({ do: "generate", tokens, depth: at }),
  })),
  ...batches.map((sequences) => ({
    key: `batch_${sequences}`,
    sequences,
    ask: (tokens: number) => ({ do: "batch", sequences, tokens }),
  })),
];

/** What was measured of a model. */
export interface Measured {
  readonly turns: Readonly<Record<string, readonly Turn[]>>;
  /** What TinyAI says of the model. */
  readonly level: string;
  readonly kvBytesPerToken: number;
  /** How long each program's language and libraries took of each start. */
  readonly runtimes_s: Readonly<Record<string, readonly number[]>>;
  /** Tokens that each program read the prompt of the first token as. */
  readonly promptTokens: readonly number[];
  /** How long measuring took, by figure, and what came before. */
  readonly took_s: Readonly<Record<string, number>>;
}

export const peersScripts = import.meta.dir;
export const nodeScript = "node_llama_worker.mjs";

/** The three programs with the arguments given; those of the Python one are named otherwise. */
function commands(
  peers: Peers,
  python: readonly string[],
  others: readonly string[],
): readonly [Command, Command, Command] {
  return [
    { name: "TinyAI", command: [process.execPath, join(peersScripts, "tinyai_worker.ts"), ...others] },
    {
      name: "llama.cpp",
      command: [...peers.python.command, join(peersScripts, "llama_worker.py"), ...python],
      environment: peers.python.environment,
    },
    { name: "node-llama-cpp", command: [process.execPath, nodeScript, ...others], folder: peers.node.folder },
  ];
}

/** @throws {Error} with what a program said, if one fails or gives what is no figure. */
export async function measure(path: string, peers: Peers, meter: Meter, settings: Settings): Promise<Measured> {
  const threads = String(settings.threads);
  const staying = commands(peers, [path, "--threads", threads, "--depth", String(depth)], [path, threads]);
  const own = [...staying[0].command, String(depth)];
  await using tinyai = new Worker({ ...staying[0], command: own });
  await using screening = new Worker({ ...staying[0], command: [...own, "screening"] });
  await using llama = new Worker(staying[1]);
  await using node = new Worker(staying[2]);
  return await new Measuring({ tinyai, screening, llama, node }, meter, settings).run((text) => {
    const [generated, context] = [String(firstGenerated), String(firstContext)];
    const python = [path, "--threads", threads, "--first", text, "--tokens", generated, "--context", context];
    return commands(peers, python, [path, threads, text, generated, context]);
  });
}

interface Workers {
  readonly tinyai: Worker;
  /** TinyAI that screens the head; where the model's cannot be screened, it says so and ends. */
  readonly screening: Worker;
  readonly llama: Worker;
  readonly node: Worker;
}

class Measuring {
  readonly #workers: Workers;
  readonly #meter: Meter;
  readonly #settings: Settings;
  readonly #turns: Record<string, Turn[]> = {};
  readonly #took_s: Record<string, number> = {};
  readonly #runtimes_s: Record<string, number[]> = {};
  readonly #promptTokens: number[] = [];
  /** Tokens that a sequence generates in a turn, by figure. */
  readonly #tokens: Record<string, number> = {};
  #backwards = false;

  constructor(workers: Workers, meter: Meter, settings: Settings) {
    this.#workers = workers;
    this.#meter = meter;
    this.#settings = settings;
  }

  /** @param starting gives how to start each program with a text. */
  async run(starting: (text: string) => ReturnType<typeof commands>): Promise<Measured> {
    const { tinyai, screening, llama, node } = this.#workers;
    const [about, screened] = await this.#timed("loading", () =>
      Promise.all([
        tinyai.ask({ do: "about", promptTokens: firstPromptTokens }),
        screening.ask({ do: "about", promptTokens: firstPromptTokens }),
        llama.ask({ do: "about" }),
        node.ask({ do: "about" }),
      ]),
    );
    const screens = screened["unsupported"] !== true;
    const starts = starting(String(about["text"]));
    await this.#timed("warming up", async () => {
      for (const question of questions) await this.#warmUp(question);
      await this.#repeatTurn();
      await this.#prefixTurn(false);
      if (screens) await this.#screeningTurn();
      await this.#startTurn(starts, true);
      for (const key of Object.keys(this.#turns)) delete this.#turns[key];
    });
    for (let round = 0; round < this.#settings.rounds; round++) {
      for (const question of questions) {
        // With flash attention or without, the one that the rounds before have shown to be slower does not come again.
        const askers = this.#askers(question, this.#tokens[question.key] ?? tokensLeast, this.#slower(question.key));
        await this.#inTurns(question.key, () => this.#takeTurn(askers));
      }
      await this.#inTurns("lookup", () => this.#repeatTurn());
      await this.#inTurns("prefix", (turn) => this.#prefixTurn(turn === 0));
      if (screens) await this.#inTurns("screening", () => this.#screeningTurn());
      await this.#inTurns("first_token", (turn) => this.#startTurn(starts, turn === 0, screens));
    }
    return {
      turns: this.#turns,
      level: String(about["level"]),
      kvBytesPerToken: Number(about["kv_bytes_per_token"]),
      runtimes_s: this.#runtimes_s,
      promptTokens: this.#promptTokens,
      took_s: this.#took_s,
    };
  }

  async #timed<Result>(what: string, work: () => Promise<Result>): Promise<Result> {
    const begin = performance.now();
    const result = await work();
    this.#took_s[what] = (this.#took_s[what] ?? 0) + (performance.now() - begin) / 1000;
    return result;
  }

  async #inTurns(what: string, take: (turn: number) => Promise<unknown>): Promise<void> {
    await this.#timed(what, async () => {
      for (let turn = 0; turn < this.#settings.turns; turn++) await take(turn);
    });
  }

  /** Lets each program take its turn, and keeps what they give, by figure. */
  async #takeTurn(askers: Askers): Promise<Readonly<Record<string, Turn>>> {
    const order = Object.entries(askers);
    if (this.#backwards) order.reverse();
    this.#backwards = !this.#backwards;
    const given: Record<string, Turn> = {};
    for (const [program, ask] of order) {
      for (const [key, value] of Object.entries(await ask())) given[key] = { ...given[key], [program]: value };
    }
    for (const [key, turn] of Object.entries(given)) this.#keep(key, turn);
    return given;
  }

  #keep(key: string, turn: Turn): void {
    for (const [program, value] of Object.entries(turn)) {
      if (!(value > 0)) throw new Error(`${key}: ${JSON.stringify(value)} of ${program} is no figure`);
    }
    this.#turns[key] ??= [];
    this.#turns[key].push(turn);
  }

  /** Who answers a question about tokens/s: all but `without`. */
  #askers({ key, ask }: Question, tokens: number, without?: Program): Askers {
    const { tinyai, llama, node } = this.#workers;
    const rateOf = async (worker: Worker, more?: Readonly<Record<string, unknown>>) => ({
      [key]: Number((await worker.ask({ ...ask(tokens), ...more }))["rate"]),
    });
    const reads = () => [this.#meter.measure(), this.#meter.measure(), this.#meter.measure()];
    const askers: Record<string, Asker> = { tinyai: () => rateOf(tinyai) };
    // One read takes a twentieth of a second, in which anything can come between.
    if (readingFigures.includes(key)) askers["bandwidth"] = async () => ({ [key]: summarise(reads()).median });
    askers["flashOn"] = () => rateOf(llama, { flash: "on" });
    askers["flashOff"] = () => rateOf(llama, { flash: "off" });
    if (key === "depth_0") askers["node"] = () => rateOf(node);
    if (without !== undefined) delete askers[without];
    return askers;
  }

  #slower(key: string): Program | undefined {
    const turns = this.#turns[key] ?? [];
    const [on, off] = (["flashOn", "flashOff"] as const).map((program) => {
      const rates = valuesOf(turns, program);
      return rates.length === 0 ? 0 : summarise(rates).median;
    });
    if (on === undefined || off === undefined) return undefined;
    if (off < losing * on) return "flashOff";
    return on < losing * off ? "flashOn" : undefined;
  }

  /** The first turn shows how many tokens fill one. */
  async #warmUp(question: Question): Promise<void> {
    const { key, sequences } = question;
    const given = await this.#takeTurn(this.#askers(question, tokensLeast));
    const { bandwidth: _, ...rates } = given[key] ?? {};
    const perSequence = Math.min(...Object.values(rates)) / sequences;
    const filling = Math.round(perSequence * this.#settings.turn_s);
    this.#tokens[key] = Math.min(tokensMost, Math.max(tokensLeast, filling));
  }

  #repeatTurn(): Promise<void> {
    const { tinyai } = this.#workers;
    return this.#optionTurn("lookup", { worker: tinyai, lookup: true }, { worker: tinyai, lookup: false });
  }

  #screeningTurn(): Promise<void> {
    const { tinyai, screening } = this.#workers;
    return this.#optionTurn("screening", { worker: screening, lookup: false }, { worker: tinyai, lookup: false });
  }

  /** TinyAI with an option that must not change the tokens, and without. */
  async #optionTurn(key: string, ...ways: readonly { readonly worker: Worker; readonly lookup: boolean }[]) {
    const texts: string[] = [];
    const [tinyai, other] = ways.map(({ worker, lookup }) => async () => {
      const tokens = Math.max(repeatedLeast, this.#tokens["depth_0"] ?? 0);
      const answer = await worker.ask({ do: "repeat", tokens, lookup });
      texts.push(JSON.stringify(answer["tokens"]));
      return { [key]: Number(answer["rate"]) };
    });
    await this.#takeTurn({ ...(tinyai && { tinyai }), ...(other && { other }) });
    if (texts[0] !== texts[1]) throw new Error(`${figures[key]?.label ?? key} changes the tokens`);
  }

  /** @param whole whether it is also computed whole, to see that the tokens are the same. */
  async #prefixTurn(whole: boolean): Promise<void> {
    const asked = { do: "prefix", prefix: prefixTokens, suffix: firstPromptTokens, whole };
    const answer = await this.#workers.tinyai.ask(asked);
    this.#keep("prefix", { tinyai: Number(answer["behind_s"]), other: Number(answer["without_s"]) });
  }

  /**
   * @param all whether node-llama-cpp is started too, and TinyAI as if for the first time: the file is read and packed.
   * @param screens whether it is then also started with its head screened.
   */
  async #startTurn(starts: ReturnType<typeof commands>, all: boolean, screens = false): Promise<void> {
    const starter = (command: Command) => async () => {
      const { firstByte_s, peakBytes } = await this.#start(command);
      return { first_token: firstByte_s, peak_memory: peakBytes / 1e6 };
    };
    const [tinyai, llama, node] = starts;
    const { first_token, peak_memory } = await this.#takeTurn({
      tinyai: starter(tinyai),
      llama: starter(llama),
      ...(all ? { node: starter(node) } : {}),
    });
    if (!all) return;
    const otherwise = (way: string) => this.#start({ ...tinyai, command: [...tinyai.command, way] });
    const beside = (turn: Turn | undefined) => (turn?.tinyai === undefined ? {} : { other: turn.tinyai });
    const { firstByte_s, peakBytes } = await otherwise("unprepared");
    this.#keep("first_opening", { tinyai: firstByte_s, ...beside(first_token) });
    this.#keep("opening_memory", { tinyai: peakBytes / 1e6, ...beside(peak_memory) });
    if (!screens) return;
    const screened = await otherwise("screening");
    this.#keep("screening_memory", { tinyai: screened.peakBytes / 1e6, ...beside(peak_memory) });
  }

  async #start(command: Command): Promise<Launch> {
    const launched = await launch(command);
    this.#runtimes_s[command.name] ??= [];
    this.#runtimes_s[command.name]?.push(launched.runtime_s);
    this.#promptTokens.push(launched.promptTokens);
    return launched;
  }
}

/** What a program gave in those of `turns` in which it took part. */
export function valuesOf(turns: readonly Turn[], program: Program): number[] {
  return turns.flatMap((turn) => turn[program] ?? []);
}
