// What the conformance tests of models stand on: the Python packages of the reference, the model files, and a way to
// send rows of logits from TinyAI's command line to the reference through a named pipe. It asserts nothing itself and
// compiles nothing. All it makes lies under .cache/conformance, which git ignores.

import { createHash } from "node:crypto";
import {
  createReadStream,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { root } from "../../src/setup/checkout.ts";
import { findPython, pipEnvironment, pipProblem, runProgram } from "../../src/setup/python.ts";

const here = import.meta.dir;
const cache = join(root, ".cache", "conformance");
const fixtures = join(here, "fixtures");

/** How far a distribution over the vocabulary lies from the reference's, over the positions of a text. */
export interface Distance {
  readonly positions: number;
  /** Mean over positions of the Kullback-Leibler divergence from the reference, in nats. */
  readonly mean_kl: number;
  readonly max_kl: number;
  /** Share of positions, 0 to 1, where the most likely token is the reference's. */
  readonly top_agreement: number;
  readonly perplexity: number;
  readonly reference_perplexity: number;
  /** Positions where the most likely token is another although the reference's two best are more than 0.5 apart. */
  readonly clear_disagreements: number;
}

/** llama.cpp's distance on one model file, as make_llama_figures.py stored it. */
export interface Figure extends Distance {
  readonly sha256: string;
  readonly text: string;
  /** Which list of fixtures/tokens.json the figure was measured on. */
  readonly tokens: string;
}

interface Figures {
  readonly models: Readonly<Record<string, Figure>>;
  readonly perplexity: {
    readonly sha256: string;
    readonly text: string;
    readonly context: number;
    readonly chunks: number;
    readonly perplexity: number;
    readonly reference_perplexity: number;
  };
}

/** What `tinyai score --json` prints. */
export interface Score {
  readonly tokens: readonly number[];
  readonly logprobs: readonly number[];
  readonly top: readonly (readonly (readonly [number, number])[])[];
}

export const figures = readJson<Figures>(join(fixtures, "llama-cpp-figures.json"));
export const tokenLists = readJson<Readonly<Record<string, readonly number[]>>>(join(fixtures, "tokens.json"));

export function fixturePath(name: string): string {
  return join(fixtures, name);
}

/** llama.cpp's figure for the model; an error if make_llama_figures.py never measured it. */
export function figureOf(name: string): Figure {
  const figure = figures.models[name];
  if (figure === undefined) throw new Error(`fixtures/llama-cpp-figures.json has no model ${name}`);
  return figure;
}

/** The ids that a figure's text has, in order, with the beginning-of-text token. */
export function tokensOf(figure: Figure): readonly number[] {
  const tokens = tokenLists[figure.tokens]?.slice(0, figure.positions);
  if (tokens?.length !== figure.positions) throw new Error(`fixtures/tokens.json has no full list ${figure.tokens}`);
  return tokens;
}

/** A path under .cache/conformance, its folder made. */
export function cachePath(...parts: readonly string[]): string {
  const path = join(cache, ...parts);
  mkdirSync(join(path, ".."), { recursive: true });
  return path;
}

function readJson<T>(path: string): T {
  return JSON.parse(readFileSync(path, "utf8")) as T;
}

interface Finished {
  readonly stdout: string;
  readonly stderr: string;
  readonly exitCode: number;
}

/** A program that was started, its end, and a way to end it sooner. */
interface Started {
  readonly child: { kill(): void };
  readonly finished: Promise<Finished>;
}

function start(command: readonly string[], environment: Readonly<Record<string, string>> = {}): Started {
  const child = Bun.spawn([...command], {
    cwd: root,
    env: { ...process.env, ...environment },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const finished: Promise<Finished> = Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]).then(([stdout, stderr, exitCode]) => ({ stdout, stderr, exitCode }));
  return { child, finished };
}

function checked(command: readonly string[], { stdout, stderr, exitCode }: Finished): string {
  if (exitCode !== 0) throw new Error(`${command.join(" ")} ended with ${exitCode}:\n${stderr.slice(-4000)}`);
  return stdout;
}

async function run(command: readonly string[], environment: Readonly<Record<string, string>> = {}): Promise<string> {
  return checked(command, await start(command, environment).finished);
}

const requirements = join(here, "requirements.txt");

/** How scripts of this folder are started, with numpy, gguf and tokenizers at hand. */
interface Python {
  readonly command: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
}

let pythonReady: Promise<Python> | undefined;

/** The machine's Python, and its packages, which pip installs on first use into a folder of their own. */
function python(): Promise<Python> {
  pythonReady ??= (async () => {
    const command = await findPython();
    const version = await run([...command, "-c", "import sys, platform; print(sys.version, platform.machine())"]);
    const wanted = createHash("sha256").update(readFileSync(requirements)).update(version).digest("hex").slice(0, 16);
    const folder = cachePath(`python-${wanted}`);
    if (!existsSync(folder)) {
      const temporary = mkdtempSync(`${folder}.`);
      try {
        const packages = join(temporary, "packages");
        const install = ["-m", "pip", "install", "--quiet", "--only-binary", ":all:", "--target", packages];
        const pip = [...command, ...install, "-r", requirements];
        const finished = await runProgram(pip, { env: pipEnvironment(temporary) });
        if (finished.status !== 0)
          throw new Error(`numpy, gguf and tokenizers from PyPI, for the reference: ${pipProblem(finished)}`);
        renameSync(packages, folder);
      } finally {
        rmSync(temporary, { recursive: true, force: true });
      }
    }
    return { command, environment: { PYTHONPATH: folder, PYTHONDONTWRITEBYTECODE: "1" } };
  })();
  return pythonReady;
}

/** Runs a script of this folder and gives what it printed. */
export async function runScript(script: string, ...rest: readonly string[]): Promise<string> {
  const { command, environment } = await python();
  return run([...command, join(here, script), ...rest], environment);
}

/** The file's SHA-256 in hex. */
export async function sha256(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const piece of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(piece as Buffer);
  return hash.digest("hex");
}

/**
 * The random-weight model of that name (make_model.py lists them), made on first use.
 * @throws if its bytes are not those that llama.cpp's figure was measured on.
 */
export async function randomModel(name: string): Promise<string> {
  const figure = figureOf(name);
  const path = cachePath("models", `${name}-${figure.sha256.slice(0, 16)}.gguf`);
  if (!existsSync(path)) {
    const made = `${path}.${process.pid}.new`;
    await runScript("make_model.py", name, made);
    const found = await sha256(made);
    if (found !== figure.sha256) {
      rmSync(made);
      throw new Error(`make_model.py ${name} has the SHA-256 ${found}, llama.cpp's figure is of ${figure.sha256}`);
    }
    renameSync(made, path);
  }
  return path;
}

/** Gemma 3 270M: the file that TINYAI_TEST_GEMMA names, else what `tinyai pull` gets. Its hash is checked either way. */
export async function gemma(): Promise<string> {
  const { TINYAI_TEST_GEMMA: given } = process.env;
  const path = given ?? (JSON.parse(await tinyai("pull", "gemma3-270m", "--json")) as { readonly path: string }).path;
  const found = await sha256(path);
  const wanted = figureOf("gemma3-270m").sha256;
  if (found !== wanted) throw new Error(`${path} has the SHA-256 ${found}, llama.cpp's figure is of ${wanted}`);
  return path;
}

const tinyaiCommand = [process.execPath, join(root, "src", "cli", "main.ts")];

/** Runs TinyAI's command line and gives what it printed on stdout. */
export function tinyai(...rest: readonly string[]): Promise<string> {
  return run([...tinyaiCommand, ...rest]);
}

/** Runs `tinyai ... --json` and gives the document it printed. */
export async function tinyaiJson<T>(...rest: readonly string[]): Promise<T> {
  return JSON.parse(await tinyai(...rest, "--json")) as T;
}

function tokensFile(tokens: readonly number[]): string {
  const text = JSON.stringify(tokens);
  const path = cachePath("tokens", `${createHash("sha256").update(text).digest("hex").slice(0, 32)}.json`);
  if (!existsSync(path)) {
    writeFileSync(`${path}.${process.pid}`, text);
    renameSync(`${path}.${process.pid}`, path);
  }
  return path;
}

/** TinyAI's answer and its distance from the reference; `rows_sha256` is the hash of every logit of every position. */
export interface Measured {
  readonly score: Score;
  readonly distance: Distance & { readonly rows_sha256: string };
}

/** What `measure` gives for each way of feeding. */
export interface Both {
  readonly whole: Measured;
  readonly oneByOne: Measured;
}

let pipeCount = 0;

/**
 * Scores a figure's text with TinyAI, once fed whole and once a token a step, and compares the full distribution at every
 * position with the reference's. The rows go through named pipes: Gemma's are 2 GB a time, which neither disk nor memory
 * should have to hold. `level` names the instruction-set level to run at, where not the widest.
 */
export async function measure(path: string, figure: Figure, level?: string): Promise<Both> {
  const { command: pythonCommand, environment } = await python();
  const kept = cachePath("reference");
  const pipes = ["whole", "one"].map((fed) => cachePath("pipes", `${fed}-${process.pid}-${pipeCount++}`));
  for (const pipe of pipes) rmSync(pipe, { force: true });
  await run(["mkfifo", ...pipes]);
  const compare = [
    ...pythonCommand,
    join(here, "reference.py"),
    "compare",
    path,
    tokensFile(tokensOf(figure)),
    ...pipes,
  ];
  const reader = start([...compare, "--cache", kept], environment);
  const writers: Started[] = [];
  let cause: Error | undefined;
  // Whichever program dies leaves the other waiting at a pipe; it is ended too, and the first one's error is the test's.
  const watch = async (command: readonly string[], started: Started): Promise<string> => {
    const finished = await started.finished;
    try {
      return checked(command, finished);
    } catch (error) {
      cause ??= error as Error;
      for (const { child } of [reader, ...writers]) child.kill();
      throw cause;
    }
  };
  try {
    const compared = watch(compare, reader);
    compared.catch(() => {}); // Awaited below; it may fail while a writer is awaited.
    const scores: Score[] = [];
    for (const [index, pipe] of pipes.entries()) {
      const command = [...tinyaiCommand, "score", "--model", path, "--file", fixturePath(figure.text), "--json"];
      command.push("--max-tokens", String(figure.positions), "--top", "8", "--dump-logits", pipe);
      if (index === 1) command.push("--one-by-one");
      if (cause !== undefined) throw cause;
      const writer = start(command, level === undefined ? {} : { TINYAI_SIMD: level });
      writers.push(writer);
      scores.push(JSON.parse(await watch(command, writer)) as Score);
    }
    const distances = JSON.parse(await compared) as Measured["distance"][];
    const [whole, oneByOne] = scores.flatMap((score, index) => {
      const distance = distances[index];
      return distance === undefined ? [] : [{ score, distance }];
    });
    if (whole === undefined || oneByOne === undefined) throw new Error("reference.py compare gave too few results");
    return { whole, oneByOne };
  } finally {
    for (const { child } of [reader, ...writers]) child.kill();
    for (const pipe of pipes) rmSync(pipe, { force: true });
  }
}

/** One token of a text and what the reference would have put in its place, `margin` above its second choice. */
export interface Choice {
  readonly token: number;
  readonly reference: number;
  readonly margin: number;
}

/** A text as a model continued a prompt: all its ids, and how many of them are the prompt's. */
export interface Continuation {
  readonly tokens: readonly number[];
  readonly promptCount: number;
}

/** For each text, the reference's choice in the place of every token after the prompt. */
export async function referenceChoices(path: string, texts: readonly Continuation[]): Promise<readonly Choice[][]> {
  const files = texts.map(({ tokens }) => tokensFile(tokens));
  const counts = texts.map(({ promptCount }) => String(promptCount));
  const rest = [...files, "--cache", cachePath("reference"), "--prompt", ...counts];
  return JSON.parse(await runScript("reference.py", "greedy", path, ...rest)) as Choice[][];
}
