// Makes one executable of a program and its models. `bun build --compile` compiles the program, with the library inside, and takes
// in the models as they are prepared; the program maps them out of its own executable (src/model/bundled.ts). For that they must
// lie at aligned places there, and the program must know the places, both of which only a finished build tells. So it is built
// again, with padding before each model, until the models are where the program believes them to be: the second build is right.

import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { open } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { OptionError, TinyAIError } from "../errors.ts";
import { isSystemError, syncFolder } from "../files.ts";
import { prepareModel } from "../load.ts";
import type { BundledModel } from "../model/bundled.ts";
import { isPrepared, readHead } from "../model/prepared.ts";
import { resolveModel } from "../model/resolve.ts";
import { type InputFile, identity, modelFiles } from "../output.ts";
import { openModelFile, stampOf, worthPreparingBytes } from "../prepared.ts";
import { runProgram } from "../setup/python.ts";
import { findTarget, hostSystem, systems, type Target } from "./target.ts";

/** As prepared files align their weights: what systems gain from that in a file of its own, they gain inside the executable. */
const alignment = 2 << 20;
/** Bun notes places inside an executable in 32 bits; the program and the library take some of them. */
const modelBytesMax = 2 ** 32 - 64e6;
/** The second is right unless Bun, given the same, lays it out otherwise. */
const buildsMax = 4;
const offsetDigits = 12;
/** A prepared file's first bytes, by which it is found: its source's hash is among them. */
const signatureBytes = 128;
const pieceBytes = 16 << 20;

/** What is to be bundled. */
export interface BundleOptions {
  /** Paths or names of models, as `loadModel` takes them. */
  readonly models: readonly string[];
  /** The executable's path. For Windows it gets the ending `.exe`. */
  readonly output: string;
  /** As Bun names it: `bun-linux-x64`. Default this system. */
  readonly target?: string | undefined;
  /** Further arguments for `bun build`; paths in them are absolute. */
  readonly buildArguments?: readonly string[] | undefined;
  /** Called before each part that takes time, with what it is. */
  readonly onPart?: ((label: string) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** An executable that was made. */
export interface Bundle {
  readonly path: string;
  readonly bytes: number;
  /** What each model may be called in it, and its bytes. */
  readonly models: readonly { readonly names: readonly string[]; readonly bytes: number }[];
}

/** A model that was asked for, its file or folder, and what the program may call it. */
interface Source {
  readonly model: string;
  readonly source: string;
  readonly names: readonly string[];
}

/** A model on its way into an executable: an asset, with another before it that is nothing but padding. */
interface Part {
  readonly names: readonly string[];
  /** Its prepared file. */
  readonly path: string;
  readonly bytes: number;
  readonly padding: { readonly path: string; bytes: number };
  /** Where the program is told that it is. */
  offset: number;
}

/**
 * Makes an executable of the program `entry`, the library and models. The output is whole or not there.
 * @throws {OptionError} if an option is out of its bounds, there is no model of a name, or the program does not import TinyAI.
 * @throws {ModelFileError} if a model is damaged or of a kind that is not supported.
 * @throws {TinyAIError} with the code `bundle` if Bun refuses the program or there is no library for the target, `file` if the
 * output cannot be written.
 */
export async function bundleProgram(entry: string, options: BundleOptions): Promise<Bundle> {
  const { onPart, signal } = options;
  const target = findTarget(options.target);
  const sources = [...new Set(options.models)].map((model) => sourceOf(model));
  checkNames(sources);
  const output = checkFiles(entry, sources, target, options.output);
  let folder = "";
  const remove = () => rmSync(folder, { recursive: true, force: true });
  try {
    mkdirSync(dirname(output), { recursive: true });
    folder = mkdtempSync(join(dirname(output), ".tinyai-bundle-"));
    process.once("exit", remove);
    const parts: Part[] = [];
    for (const [index, { model, source, names }] of sources.entries()) {
      onPart?.(`preparing ${model}`);
      const path = await prepare(source, join(folder, `model-${index}.tinyai`), signal);
      const padding = { path: join(folder, `padding-${index}`), bytes: 1 };
      parts.push({ names, path, bytes: openModelFile(path).byteLength, padding, offset: 0 });
    }
    if (parts.reduce((sum, { bytes }) => sum + bytes, 0) > modelBytesMax) {
      throw new OptionError("--model", "asks for more than the 4 GB that Bun can put into an executable");
    }
    onPart?.(`compiling ${basename(entry)}`);
    const program = await compile(resolve(entry), folder, parts, target, options);
    const handle = await open(program, "r+");
    await handle.sync().finally(() => handle.close());
    signal?.throwIfAborted();
    renameSync(program, output);
    syncFolder(dirname(output));
    return { path: output, bytes: statSync(output).size, models: parts.map(({ names, bytes }) => ({ names, bytes })) };
  } catch (cause) {
    if (!isSystemError(cause)) throw cause;
    throw new TinyAIError("file", `${output}: cannot be written: ${cause.message}`, { cause });
  } finally {
    process.removeListener("exit", remove);
    if (folder !== "") remove();
  }
}

function sourceOf(model: string): Source {
  const source = resolveModel(model, "--model");
  const file = basename(source);
  return { model, source, names: [...new Set([model, file, file.replace(/\.(gguf|tinyai)$/i, "")])] };
}

/** The program would find the first of two models of one name. */
function checkNames(sources: readonly Source[]): void {
  const known = new Map<string, Source>();
  for (const source of sources) {
    for (const name of source.names) {
      const other = known.get(name);
      if (other && identity(other.source) !== identity(source.source)) {
        const problem = `has ${other.model} and ${source.model}, both of which would be called ${name} in the program`;
        throw new OptionError("--model", `${problem}; rename one of them`);
      }
      known.set(name, source);
    }
  }
}

/** The output's path, which is not that of anything that goes into it. */
function checkFiles(entry: string, sources: readonly Source[], { system }: Target, output: string): string {
  if (!existsSync(entry)) throw new OptionError("program", `there is no file ${JSON.stringify(entry)}`);
  const path = resolve(system.startsWith("win32") && !/\.exe$/i.test(output) ? `${output}.exe` : output);
  if (existsSync(path) && !statSync(path).isFile()) {
    throw new OptionError("--outfile", `${path} is there and is no file; name another`);
  }
  const inputs: readonly InputFile[] = [
    [entry, "the program itself"],
    ...sources.flatMap(({ model }) => modelFiles(model)),
  ];
  const own = identity(path);
  const taken = inputs.find(([input]) => identity(input) === own);
  if (taken) throw new OptionError("--outfile", `${path} is ${taken[1]}; name another file`);
  return path;
}

/** A model's prepared file: the one in the cache, or, of a model too small to be kept there, one at `place`. */
async function prepare(source: string, place: string, signal: AbortSignal | undefined): Promise<string> {
  if (isPrepared(source)) return link(source, place);
  const isKept = (stampOf(source)?.bytes ?? 0) >= worthPreparingBytes;
  const { path } = await prepareModel(source, { output: isKept ? undefined : place, signal });
  return isKept ? link(path, place) : path;
}

/** A name of our own for a file, since assets are called as their files are. */
function link(file: string, place: string): string {
  try {
    symlinkSync(resolve(file), place);
  } catch {
    // Windows lets few users make links.
    copyFileSync(file, place);
  }
  return place;
}

/** Builds the executable in `folder` until every model is where the program is told that it is, and gives its path. */
async function compile(
  entry: string,
  folder: string,
  parts: readonly Part[],
  target: Target,
  options: BundleOptions,
): Promise<string> {
  const output = join(folder, target.system.startsWith("win32") ? "program.exe" : "program");
  for (let builds = 0; builds < buildsMax; builds++) {
    await runBundler(entry, output, folder, parts, target, options);
    const found = await findParts(output, parts, options.signal);
    if (found.every((offset, index) => offset === parts[index]?.offset)) return output;
    placeParts(parts, found);
  }
  throw new TinyAIError(
    "bundle",
    "Bun lays out the same program otherwise each time, so that its models cannot be placed",
  );
}

/** Moves each part on to the next aligned place, and tells the program so. Parts lie in their order, each behind its padding. */
export function placeParts(parts: readonly Pick<Part, "padding" | "offset">[], found: readonly number[]): void {
  let moved = 0;
  for (const [index, part] of parts.entries()) {
    const from = (found[index] ?? 0) + moved;
    const least = from - part.padding.bytes + 1;
    part.offset = Math.ceil(least / alignment) * alignment;
    part.padding.bytes += part.offset - from;
    moved += part.offset - from;
  }
}

async function runBundler(
  entry: string,
  output: string,
  folder: string,
  parts: readonly Part[],
  { system, bun }: Target,
  { buildArguments = [], signal }: BundleOptions,
): Promise<void> {
  for (const { padding } of parts) writeFileSync(padding.path, new Uint8Array(padding.bytes));
  const models: readonly BundledModel[] = parts.map(({ names, offset, bytes }) => ({
    names,
    offset: String(offset).padStart(offsetDigits, "0"),
    bytes,
  }));
  const metafile = join(folder, "inputs.json");
  const command = [process.execPath, "build", "--compile", entry, "--outfile", output, `--metafile=${metafile}`];
  command.push("--define", `TINYAI_BUNDLED=${JSON.stringify(models)}`);
  if (bun !== undefined) command.push(`--target=${bun}`);
  // In a checkout, another system's library has a place of its own.
  if (system !== hostSystem) command.push("--conditions=tinyai-cross");
  for (const { padding, path } of parts) command.push("--asset", padding.path, "--asset", path);
  command.push(...buildArguments);
  // Bun leaves its own temporary file in the folder that it is started in when it is ended. With the variable, an executable
  // that Bun has made, as this command may be, is Bun.
  const env = { ...process.env, BUN_BE_BUN: "1" };
  const { status, stderr } = await runProgram(command, { cwd: folder, env, ...(signal && { signal }) });
  signal?.throwIfAborted();
  if (status !== 0) throw new TinyAIError("bundle", `${entry}: cannot be compiled:\n${stderr.trim()}`);
  checkInputs(entry, Object.keys(JSON.parse(readFileSync(metafile, "utf8")).inputs), system);
}

/** Whether the library went in; an import of it that leads nowhere is no error to Bun. */
function checkInputs(entry: string, inputs: readonly string[], system: string): void {
  if (inputs.some((path) => path.endsWith(`/${systems[system]}`))) return;
  if (!inputs.some((path) => path.endsWith("src/engine/library.ts"))) {
    throw new OptionError("program", `${entry} does not import tinyai, so that it needs no bundling`);
  }
  const remedy =
    system === hostSystem
      ? `install @tinyai/${system}, or, in a checkout, \`bun run build\``
      : `install it with \`bun install --os=* --cpu=*\`, or, in a checkout, \`bun run build -Dall\``;
  throw new TinyAIError("bundle", `there is no native library for ${system} here: ${remedy}`);
}

/** Where the prepared files begin in an executable. */
async function findParts(path: string, parts: readonly Part[], signal: AbortSignal | undefined): Promise<number[]> {
  const signatures = parts.map((part) => readHead(part.path, signatureBytes, 0));
  const found = parts.map(() => -1);
  const piece = Buffer.alloc(pieceBytes);
  const handle = await open(path, "r");
  try {
    // Pieces overlap, so that what lies across their border is in one of them.
    for (let offset = 0; ; offset += pieceBytes - signatureBytes) {
      signal?.throwIfAborted();
      const { bytesRead } = await handle.read(piece, 0, pieceBytes, offset);
      for (const [index, signature] of signatures.entries()) {
        const at = found[index] === -1 ? piece.subarray(0, bytesRead).indexOf(signature) : -1;
        if (at >= 0) found[index] = offset + at;
      }
      if (bytesRead < pieceBytes) break;
    }
  } finally {
    await handle.close();
  }
  if (found.includes(-1)) throw new TinyAIError("bundle", "a model is not in the executable that Bun made");
  return found;
}
