// The prepared copy of a model file: where it is kept, and whether it still is its source's. Opening a model looks here first.
// How a copy is made is prepare.ts's, which is not loaded until one is.

import { readdirSync, realpathSync, statSync } from "node:fs";
import { open } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { ModelFileError } from "./errors.ts";
import { type BytePlace, dtypeBlocks, type ModelFile } from "./model/file.ts";
import { homeFolder } from "./model/folders.ts";
import { openGguf } from "./model/gguf.ts";
import {
  isPrepared,
  openPrepared,
  type PreparedFile,
  type PreparedSource,
  type ReadHead,
  readHead,
  restampPrepared,
} from "./model/prepared.ts";
import type * as foldersModule from "./model/sentence-transformers.ts";
import { packedBytes } from "./plan/formats.ts";
import type { PackedModel } from "./prepare.ts";

/** How a model's prepared copy stands. `reason` says why there is none. */
export type Preparation =
  | { readonly state: "used" | "made"; readonly path: string }
  | { readonly state: "making"; readonly path: string }
  | { readonly state: "none"; readonly reason: string };

/** Smaller models are packed in a moment; a copy of each would fill the cache for nothing. */
export const worthPreparingBytes = 16e6;
/** Bytes hashed at a time; others get a turn in between. */
const pieceBytes = 4 << 20;

/** What tells that a model file was changed, without reading it. */
export type Stamp = Omit<PreparedSource, "sha256">;

/** A model file's or folder's stamp; undefined if it has none, which opening it will explain. */
export function stampOf(path: string): Stamp | undefined {
  const stats = statSync(path, { bigint: true, throwIfNoEntry: false });
  if (stats?.isFile()) return { bytes: Number(stats.size), modifiedNs: stats.mtimeNs, changedNs: stats.ctimeNs };
  if (!stats?.isDirectory()) return undefined;
  const files = folderFiles(path);
  const hash = (texts: readonly string[]) => BigInt.asIntN(64, Bun.hash.wyhash(texts.join("\0")));
  return {
    bytes: files.reduce((sum, { size }) => sum + Number(size), 0),
    modifiedNs: hash(files.map(({ name, size, mtimeNs }) => `${name} ${size} ${mtimeNs}`)),
    changedNs: hash(files.map(({ name, ctimeNs }) => `${name} ${ctimeNs}`)),
  };
}

/**
 * The files that a model's folder may be read from, by their path in it: those of the kinds that models have, in it and in the
 * folders in it. Some are of no use to the model; none that is used is missing.
 */
function folderFiles(folder: string) {
  const inside = namesIn(folder).flatMap((name) => [
    name,
    ...namesIn(join(folder, name)).map((file) => join(name, file)),
  ]);
  return inside
    .filter((name) => /\.(?:json|txt|safetensors)$/.test(name))
    .flatMap((name) => {
      const stats = statSync(join(folder, name), { bigint: true, throwIfNoEntry: false });
      return stats?.isFile() ? [{ name, size: stats.size, mtimeNs: stats.mtimeNs, ctimeNs: stats.ctimeNs }] : [];
    })
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** What is in a folder and not hidden; nothing if it is none, or may not be read. */
function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder).filter((name) => !name.startsWith("."));
  } catch {
    return [];
  }
}

/** Where the prepared copy of the model file or folder `source` is kept, whether it is there or not. */
export function preparedPath(source: string): string {
  const place = Bun.hash.wyhash(realpathSync(source)).toString(16).padStart(16, "0");
  return join(preparedFolder(), `${basename(resolve(source)).replace(/\.gguf$/i, "")}-${place}.tinyai`);
}

function preparedFolder(): string {
  return join(homeFolder(), "prepared");
}

/** A model file as it was found: `stamp` is there if it is not prepared, `preparation` says how its copy stands. */
export interface FoundModel {
  readonly file: ModelFile;
  readonly stamp?: Stamp;
  readonly preparation: Preparation;
}

/**
 * Opens a model file or folder, or its copy in the cache if `prepared`. A file without a copy is read before this returns its promise.
 * @param inside where the prepared model is, if `path` is a program that has it inside.
 * @throws {ModelFileError} if it is missing, damaged, or of a kind that is not supported.
 */
export async function findModel(
  path: string,
  prepared: boolean,
  read: () => Promise<ReadHead>,
  inside?: BytePlace,
): Promise<FoundModel> {
  if (inside || isPrepared(path)) {
    return { file: openCopy(path, await read(), inside), preparation: { state: "used", path } };
  }
  const stamp = stampOf(path);
  const none = (reason: string): FoundModel => {
    return { file: openSource(path), ...(stamp && { stamp }), preparation: { state: "none", reason } };
  };
  if (!prepared) return none("it was not asked for");
  if (!stamp || stamp.bytes < worthPreparingBytes) return none("the model is so small that it is packed in a moment");
  const copyPath = preparedPath(path);
  if (isPrepared(copyPath)) {
    const copy = await findPrepared(path, stamp, await read());
    if (copy) return { file: copy, preparation: { state: "used", path: copyPath } };
  }
  return { file: openSource(path), stamp, preparation: { state: "making", path: copyPath } };
}

/** The making of a copy in the background. */
export interface Preparing {
  readonly state: Preparation;
  /** Settles when it has ended, never with an error: a copy that could not be made is not missed. */
  readonly done: Promise<void>;
}

/** Makes the copy of a model that was just opened, while it is being used. */
export function startPreparing(path: string, model: PackedModel, signal: AbortSignal | undefined): Preparing {
  const preparing: { state: Preparation; done: Promise<void> } = {
    state: { state: "making", path },
    done: Promise.resolve(),
  };
  preparing.done = import("./prepare.ts")
    .then(({ writePrepared }) => writePrepared(path, model, { signal }))
    .then(
      (reason) => {
        preparing.state = reason === undefined ? { state: "made", path } : { state: "none", reason };
      },
      (error: unknown) => {
        preparing.state = { state: "none", reason: error instanceof Error ? error.message : String(error) };
      },
    );
  return preparing;
}

/** Opens a model file of any kind. @throws {ModelFileError} */
export function openModelFile(path: string): ModelFile {
  return isPrepared(path) ? openCopy(path, readHead) : openSource(path);
}

/** Opens a model that is not prepared: a GGUF file, or a folder. @throws {ModelFileError} */
export function openSource(path: string): ModelFile {
  if (!statSync(path, { throwIfNoEntry: false })?.isDirectory()) return openGguf(path);
  const { openSentenceTransformers }: typeof foldersModule = require("./model/sentence-transformers.ts");
  return openSentenceTransformers(path);
}

/** Opens a prepared file whose tensors are of the sizes that the engine and the architectures will read. @throws {ModelFileError} */
function openCopy(path: string, read: ReadHead, inside?: BytePlace): PreparedFile {
  const file = openPrepared(path, read, inside);
  const { offset = 0 } = file.packedWeights ?? {};
  for (const { name, dtype, shape, byteOffset, byteLength } of file.tensors.values()) {
    const [columns = 0, rows = 1] = shape;
    const { weight, scales } = packedBytes(dtype, rows, columns);
    const values = shape.reduce((product, size) => product * size, 1);
    const plainBytes = (values / dtypeBlocks[dtype].columns) * dtypeBlocks[dtype].bytes;
    if (byteLength === (byteOffset >= offset ? weight + scales : plainBytes)) continue;
    throw new ModelFileError(path, `tensor ${name}`, "is not where or as long as its shape says; make the file anew");
  }
  return file;
}

/**
 * The copy of `source` in the cache, if it is there and whole, and `source` is what it was made from: by its size and times,
 * else by its content.
 */
export async function findPrepared(source: string, stamp: Stamp, read: ReadHead): Promise<PreparedFile | undefined> {
  let copy: PreparedFile;
  try {
    copy = openCopy(preparedPath(source), read);
  } catch {
    return undefined;
  }
  const made = copy.source;
  if (made.bytes !== stamp.bytes) return undefined;
  if (made.modifiedNs === stamp.modifiedNs && made.changedNs === stamp.changedNs) return copy;
  if ((await hashModel(source)) !== made.sha256) return undefined;
  restampPrepared(copy.path, { ...stamp, sha256: made.sha256 });
  return copy;
}

/**
 * The SHA-256 of the model file that `file` is, or was made from, which a prepared copy knows; others are read.
 * @throws {ModelFileError} if it cannot be read any more.
 */
export async function sourceHash(file: ModelFile): Promise<string> {
  if (isCopy(file)) return file.source.sha256;
  try {
    return await hashModel(file.path);
  } catch (cause) {
    throw new ModelFileError(file.path, "file", `cannot be read any more: ${(cause as Error).message}`, { cause });
  }
}

/** Whether it is a prepared file, which knows what it was made from. */
export function isCopy(file: ModelFile): file is PreparedFile {
  return file.format === "tinyai";
}

/** SHA-256 of a model file, or of a folder's files with their names, in lower-case hexadecimal. */
export async function hashModel(path: string, signal?: AbortSignal): Promise<string> {
  const hasher = new Bun.CryptoHasher("sha256");
  if (!statSync(path).isDirectory()) {
    await hashInto(hasher, path, signal);
    return hasher.digest("hex");
  }
  for (const { name, size } of folderFiles(path)) {
    hasher.update(`${name} ${size}\n`);
    await hashInto(hasher, join(path, name), signal);
  }
  return hasher.digest("hex");
}

async function hashInto(hasher: Bun.CryptoHasher, path: string, signal: AbortSignal | undefined): Promise<void> {
  const buffer = new Uint8Array(pieceBytes);
  const handle = await open(path, "r");
  try {
    for (;;) {
      signal?.throwIfAborted();
      const { bytesRead } = await handle.read(buffer, 0, buffer.length, null);
      if (bytesRead === 0) return;
      hasher.update(buffer.subarray(0, bytesRead));
    }
  } finally {
    await handle.close();
  }
}
