// Makes the prepared copy of a model file. A copy is written to a temporary name and renamed, and only ever replaced as a whole:
// those who have mapped an old one keep it.

import { mkdirSync, readdirSync, renameSync, rmSync, statfsSync } from "node:fs";
import { open } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { EngineError } from "./errors.ts";
import { isSystemError, syncFolder, writeAll } from "./files.ts";
import { type MetadataEntry, type ModelFile, readBytes, type StringBytes, type TensorEntry } from "./model/file.ts";
import { encodePrepared } from "./model/prepared.ts";
import type { Plan } from "./plan/plan.ts";
import { hashModel, type Stamp, stampOf } from "./prepared.ts";
import { isAlive } from "./setup/checkout.ts";
import { readMerges } from "./tokenizer/byte-pair.ts";
import { keys, readAttributes, readTexts } from "./tokenizer/vocabulary.ts";

/** Bytes written at a time, whole huge pages each: the page cache then holds such. Others get a turn in between. */
const pieceBytes = 4 << 20;
/** What a disk keeps free beside a copy. */
const freeBytesMin = 256e6;

/** A model that was opened from row-major tensors, and its packed weights in memory. */
export interface PackedModel {
  readonly file: ModelFile;
  /** Of the file, from before it was opened. */
  readonly stamp: Stamp;
  readonly plan: Plan;
  readonly weights: Uint8Array;
}

export interface WriteOptions {
  /** Called with bytes written and in all. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Writes the prepared copy of a model to `path`, under a temporary name until it is whole. The event loop is never held for
 * longer than a piece of 4 MB takes.
 * @returns why it was not written, if another process is at it.
 * @throws {EngineError} if the disk is full or refuses it, or the model file has changed meanwhile.
 */
export async function writePrepared(
  path: string,
  model: PackedModel,
  options: WriteOptions = {},
): Promise<string | undefined> {
  const { file, plan, weights } = model;
  const { signal, onProgress } = options;
  const temporary = `${path}.${process.pid}.tmp`;
  const remove = () => rmSync(temporary, { force: true });
  try {
    mkdirSync(dirname(path), { recursive: true });
    const busy = removeTemporaries(path);
    if (busy !== undefined) return `process ${busy} is making it`;
    const { bavail, bsize } = statfsSync(dirname(path));
    if (bavail * bsize < file.byteLength * 1.1 + freeBytesMin) return `there is too little room in ${dirname(path)}`;
    const sha256 = await hashModel(file.path, signal);
    const now = stampOf(file.path);
    const { stamp } = model;
    if (now?.bytes !== stamp.bytes || now.modifiedNs !== stamp.modifiedNs || now.changedNs !== stamp.changedNs) {
      throw new EngineError(`${file.path}: was changed while it was being prepared`);
    }
    const prefix = encodePrepared({
      source: { ...stamp, sha256 },
      ...partMetadata(file),
      ...partTensors(file, plan),
      weightsBytes: weights.length,
    });
    const total = prefix.length + weights.length;
    process.once("exit", remove);
    const handle = await open(temporary, "wx");
    try {
      await writeAll(handle, prefix);
      for (let done = 0; done < weights.length; done += pieceBytes) {
        signal?.throwIfAborted();
        onProgress?.(prefix.length + done, total);
        await writeAll(handle, weights.subarray(done, done + pieceBytes));
      }
      await handle.sync();
    } finally {
      await handle.close();
    }
    signal?.throwIfAborted();
    renameSync(temporary, path);
    syncFolder(dirname(path));
    onProgress?.(total, total);
    return undefined;
  } catch (cause) {
    remove();
    if (!isSystemError(cause)) throw cause;
    throw new EngineError(`${path}: cannot be written: ${cause.message}`, { cause });
  } finally {
    process.removeListener("exit", remove);
  }
}

/** Removes what killed processes left of a copy; the process that is making it now, if there is one. */
function removeTemporaries(path: string): number | undefined {
  const start = `${basename(path)}.`;
  for (const name of readdirSync(dirname(path))) {
    const [, owner] = name.startsWith(start) ? (/^(\d+)\.tmp$/.exec(name.slice(start.length)) ?? []) : [];
    if (owner === undefined) continue;
    if (isAlive(Number(owner))) return Number(owner);
    rmSync(join(dirname(path), name), { force: true });
  }
  return undefined;
}

/** A file's metadata as a prepared one has it: the tokenizer's texts with hash tables, its tokens' types as checked. */
function partMetadata({ metadata }: ModelFile) {
  const texts = readTexts(metadata);
  const strings = new Map<string, StringBytes>([[keys.tokens, texts]]);
  if (metadata.has(keys.merges)) strings.set(keys.merges, readMerges(metadata));
  const kept: [string, MetadataEntry][] = [
    [keys.attributes, { type: "uint8", isArray: true, value: readAttributes(metadata, texts) }],
  ];
  for (const key of metadata.keys()) {
    const entry = metadata.entry(key);
    if (entry && key !== keys.types) kept.push([key, entry]);
  }
  return { metadata: kept, strings };
}

/** A file's tensors as a prepared one has them: matrices as they are packed, at their place in the weights, the others with their bytes. */
function partTensors(file: ModelFile, plan: Plan) {
  const matrices: TensorEntry[] = plan.matrices.map(({ name, dtype, rows, columns, offset, bytes }) => ({
    name,
    dtype,
    shape: [columns, rows],
    byteOffset: offset,
    byteLength: bytes,
  }));
  // A tensor may hold several matrices, the first where it begins.
  const packed = new Set(plan.matrices.map(({ sourceOffset }) => sourceOffset));
  const others = [...file.tensors.values()].filter(({ byteOffset }) => !packed.has(byteOffset));
  const vectors = others.map((entry) => ({ entry, bytes: readBytes(file, entry, `tensor ${entry.name}`) }));
  return { matrices, vectors };
}
