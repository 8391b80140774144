// The prepared copy of a model file: where it is kept, and whether it still is its source's. Opening a model looks here first.
// How a copy is made is prepare.ts's, which is not loaded until one is.

import { realpathSync, statSync } from "node:fs";
import { open } from "node:fs/promises";
import { basename, join } from "node:path";
import { ModelFileError } from "./errors.ts";
import type { BytePlace, ModelFile } from "./model/file.ts";
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

/** What tells that a file was changed, without reading it. */
export type Stamp = Omit<PreparedSource, "sha256">;

/** The file's stamp; undefined if it has none, which opening it will explain. */
export function stampOf(path: string): Stamp | undefined {
  const stats = statSync(path, { bigint: true, throwIfNoEntry: false });
  if (!stats?.isFile()) return undefined;
  return { bytes: Number(stats.size), modifiedNs: stats.mtimeNs, changedNs: stats.ctimeNs };
}

/** Where the prepared copy of the model file `source` is kept, whether it is there or not. */
export function preparedPath(source: string): string {
  const place = Bun.hash.wyhash(realpathSync(source)).toString(16).padStart(16, "0");
  return join(preparedFolder(), `${basename(source).replace(/\.gguf$/i, "")}-${place}.tinyai`);
}

function preparedFolder(): string {
  return join(homeFolder(), "prepared");
}

/** A model file as it was found: `stamp` is there if a copy of it is to be made, `preparation` says how its copy stands. */
export interface FoundModel {
  readonly file: ModelFile;
  readonly stamp?: Stamp;
  readonly preparation: Preparation;
}

/**
 * Opens a model file, or its copy in the cache if `prepared`. A file without a copy is read before this returns its promise.
 * @param inside where the prepared model is, if `path` is a program that has it inside.
 * @throws {ModelFileError} if it is missing, damaged, or of a kind that is not supported.
 */
export async function findModel(
  path: string,
  prepared: boolean,
  read: () => Promise<ReadHead>,
  inside?: BytePlace,
): Promise<FoundModel> {
  const none = (reason: string): FoundModel => ({ file: openGguf(path), preparation: { state: "none", reason } });
  if (inside || isPrepared(path)) {
    return { file: openCopy(path, await read(), inside), preparation: { state: "used", path } };
  }
  if (!prepared) return none("it was not asked for");
  const stamp = stampOf(path);
  if (!stamp || stamp.bytes < worthPreparingBytes) return none("the model is so small that it is packed in a moment");
  const copyPath = preparedPath(path);
  if (isPrepared(copyPath)) {
    const copy = await findPrepared(path, stamp, await read());
    if (copy) return { file: copy, preparation: { state: "used", path: copyPath } };
  }
  return { file: openGguf(path), stamp, preparation: { state: "making", path: copyPath } };
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

/** Opens a model file of either kind. @throws {ModelFileError} */
export function openModelFile(path: string): ModelFile {
  return isPrepared(path) ? openCopy(path, readHead) : openGguf(path);
}

/** Opens a prepared file whose matrices are of the sizes that the engine will read. @throws {ModelFileError} */
function openCopy(path: string, read: ReadHead, inside?: BytePlace): PreparedFile {
  const file = openPrepared(path, read, inside);
  const { offset = 0 } = file.packedWeights ?? {};
  for (const { name, dtype, shape, byteOffset, byteLength } of file.tensors.values()) {
    const [columns = 0, rows = 1] = shape;
    const { weight, scales } = packedBytes(dtype, rows, columns);
    const isMatrix = rows > 1 || byteOffset >= offset;
    if (!isMatrix || (byteOffset >= offset && byteLength === weight + scales)) continue;
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
  if ((await hashFile(source)) !== made.sha256) return undefined;
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
    return await hashFile(file.path);
  } catch (cause) {
    throw new ModelFileError(file.path, "file", `cannot be read any more: ${(cause as Error).message}`, { cause });
  }
}

function isCopy(file: ModelFile): file is PreparedFile {
  return file.format === "tinyai";
}

/** SHA-256 of a file, in lower-case hexadecimal. */
export async function hashFile(path: string, signal?: AbortSignal): Promise<string> {
  const hasher = new Bun.CryptoHasher("sha256");
  const buffer = new Uint8Array(pieceBytes);
  const handle = await open(path, "r");
  try {
    for (;;) {
      signal?.throwIfAborted();
      const { bytesRead } = await handle.read(buffer, 0, buffer.length, null);
      if (bytesRead === 0) return hasher.digest("hex");
      hasher.update(buffer.subarray(0, bytesRead));
    }
  } finally {
    await handle.close();
  }
}
