// An index's file: its vectors as the search reads them, so that they can be mapped, and what they are called.
//
//     0  magic, 8 bytes             28  whether there are ids, u32    48  checksum of the vectors, u64
//     8  version, u32               32  bytes of the model's          56  checksum of all else before it
//    12  metric, u32                    name, u32                         and after the vectors, u64
//    16  vectors, u64               36  zero, u32                     64  the vectors
//    24  values of a vector, u32    40  bytes of the ids' texts, u64
//
// then the model's name, zeros up to a multiple of 4, and the ids: offsets as u32, one more than there are ids, and texts. A
// vector is float32 values and zeros up to a multiple of 64 bytes. Numbers are little-endian, texts UTF-8, checksums wyhash,
// the vectors' taken piece by piece.

import { type FileHandle, open, stat } from "node:fs/promises";
import { columnsMax, rowStride, rowsMax, type Vectors } from "../engine/search.ts";
import { IndexFileError } from "../errors.ts";
import { isSystemError, replaceFile } from "../files.ts";
import { alignUp } from "../plan/layout.ts";
import { IdTable } from "./ids.ts";

/** How near a vector is to a query: by the cosine of their angle, or by their product. */
export type Metric = "cosine" | "dot";

const metrics: readonly Metric[] = ["cosine", "dot"];
const version = 1;
const magic = new TextEncoder().encode("TinyAIVX");
/** Where vectors begin. */
export const headBytes = 64;
const checkedHeadBytes = 56;
/** Bytes that are worked on before others have their turn. */
const pieceBytes = 4 << 20;
export const modelNameBytesMax = 4096;
const idBytesMax = 2 ** 30;

/** What a file says beside its vectors. */
export interface IndexDescription {
  readonly metric: Metric;
  readonly count: number;
  readonly dimensions: number;
  /** What the vectors were made with; empty if that was not said. */
  readonly model: string;
  readonly ids: IdTable | undefined;
}

/** The head of a file that was opened, and what its vectors must give. */
export interface IndexHead extends IndexDescription {
  readonly checksum: bigint;
}

/** The rows that are worked on in one turn, piece by piece. */
export function* pieces(count: number, dimensions: number): Generator<{ first: number; count: number }> {
  const rows = Math.max(1, Math.floor(pieceBytes / (rowStride(dimensions) * 4)));
  for (let first = 0; first < count; first += rows) yield { first, count: Math.min(rows, count - first) };
}

/** Lets others have their turn. */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** The checksum of all vectors. */
export async function sumVectors(vectors: Vectors, dimensions: number, signal?: AbortSignal): Promise<bigint> {
  let sum = 0n;
  for (const piece of pieces(vectors.rowCount, dimensions)) {
    sum = Bun.hash.wyhash(vectors.view(piece.first, piece.count), sum);
    await nextTurn();
    signal?.throwIfAborted();
  }
  return sum;
}

/**
 * Writes an index to `path`: to a temporary file beside it, which takes its place once it is on the disk.
 * @throws {IndexFileError} if it cannot be written; a file that was there stays.
 */
export async function writeIndex(path: string, description: IndexDescription, vectors: Vectors): Promise<void> {
  const { count, dimensions } = description;
  const tail = encodeTail(description);
  const head = encodeHead(description, await sumVectors(vectors, dimensions), tail);
  const write = async (append: (bytes: Uint8Array) => Promise<void>) => {
    await append(head);
    for (const piece of pieces(count, dimensions)) {
      const { buffer, byteOffset, byteLength } = vectors.view(piece.first, piece.count);
      await append(new Uint8Array(buffer, byteOffset, byteLength));
    }
    await append(tail);
  };
  try {
    await replaceFile(path, write);
  } catch (cause) {
    if (!isSystemError(cause)) throw cause;
    throw new IndexFileError(path, `cannot be written: ${cause.message}`, { cause });
  }
}

function encodeTail({ model, ids }: IndexDescription): Uint8Array {
  const name = new TextEncoder().encode(model);
  const offsetsAt = alignUp(name.length, 4);
  const tail = new Uint8Array(offsetsAt + (ids ? ids.offsets.byteLength + ids.bytes.length : 0));
  tail.set(name);
  if (!ids) return tail;
  tail.set(new Uint8Array(ids.offsets.buffer, ids.offsets.byteOffset, ids.offsets.byteLength), offsetsAt);
  tail.set(ids.bytes, offsetsAt + ids.offsets.byteLength);
  return tail;
}

function encodeHead(description: IndexDescription, checksum: bigint, tail: Uint8Array): Uint8Array {
  const head = new Uint8Array(headBytes);
  const view = new DataView(head.buffer);
  const { metric, count, dimensions, model, ids } = description;
  head.set(magic);
  view.setUint32(8, version, true);
  view.setUint32(12, metrics.indexOf(metric), true);
  view.setBigUint64(16, BigInt(count), true);
  view.setUint32(24, dimensions, true);
  view.setUint32(28, ids ? 1 : 0, true);
  view.setUint32(32, Buffer.byteLength(model), true);
  view.setBigUint64(40, BigInt(ids?.bytes.length ?? 0), true);
  view.setBigUint64(48, checksum, true);
  view.setBigUint64(checkedHeadBytes, sumRest(head, tail), true);
  return head;
}

function sumRest(head: Uint8Array, tail: Uint8Array): bigint {
  return Bun.hash.wyhash(tail, Bun.hash.wyhash(head.subarray(0, checkedHeadBytes)));
}

/**
 * Reads all of an index's file but its vectors.
 * @throws {IndexFileError} if it cannot be read, is no index or one of another version, is damaged or cut short.
 */
export async function readIndexHead(path: string): Promise<IndexHead> {
  let handle: FileHandle;
  try {
    // Asked before it is opened: opening a FIFO waits.
    if (!(await stat(path)).isFile()) throw new Error("it is no regular file; name another file");
    handle = await open(path, "r");
  } catch (cause) {
    throw new IndexFileError(path, `cannot be read: ${(cause as Error).message}`, { cause });
  }
  try {
    const { size } = await handle.stat();
    const head = new Uint8Array(headBytes);
    if (size >= headBytes) await fill(path, handle, head, 0);
    if (Buffer.compare(head.subarray(0, magic.length), magic) !== 0) {
      throw new IndexFileError(path, "is no index: it does not begin like one; name another file");
    }
    return await readRest(path, handle, size, head);
  } catch (cause) {
    if (!isSystemError(cause)) throw cause;
    throw new IndexFileError(path, `cannot be read: ${cause.message}`, { cause });
  } finally {
    await handle.close();
  }
}

async function readRest(path: string, handle: FileHandle, size: number, head: Uint8Array): Promise<IndexHead> {
  const view = new DataView(head.buffer);
  const found = view.getUint32(8, true);
  if (found !== version) {
    throw new IndexFileError(path, `is of version ${found}; this TinyAI reads ${version}: make it anew`);
  }
  const metric = metrics[view.getUint32(12, true)];
  const count = Number(view.getBigUint64(16, true));
  const dimensions = view.getUint32(24, true);
  const hasIds = view.getUint32(28, true);
  const nameBytes = view.getUint32(32, true);
  const idBytes = Number(view.getBigUint64(40, true));
  const inBounds = count >= 1 && count <= rowsMax && dimensions >= 1 && dimensions <= columnsMax && hasIds <= 1;
  if (metric === undefined || !inBounds || nameBytes > modelNameBytesMax || idBytes > idBytesMax) {
    throw damaged(path, "its head is out of bounds");
  }
  const tailBegin = headBytes + count * rowStride(dimensions) * 4;
  const offsetsBytes = hasIds * (count + 1) * 4;
  const tailBytes = alignUp(nameBytes, 4) + offsetsBytes + hasIds * idBytes;
  if (size !== tailBegin + tailBytes) {
    const problem = `has ${size} bytes instead of ${tailBegin + tailBytes}: it was cut short or damaged; make it anew`;
    throw new IndexFileError(path, problem);
  }
  const tail = new Uint8Array(tailBytes);
  await fill(path, handle, tail, tailBegin);
  if (sumRest(head, tail) !== view.getBigUint64(checkedHeadBytes, true)) {
    throw damaged(path, "its checksum does not fit");
  }
  const model = new TextDecoder().decode(tail.subarray(0, nameBytes));
  const checksum = view.getBigUint64(48, true);
  const offsetsAt = alignUp(nameBytes, 4);
  const offsets = new Uint32Array(tail.buffer, offsetsAt, offsetsBytes / 4);
  const ids = hasIds ? new IdTable(offsets, tail.subarray(offsetsAt + offsetsBytes)) : undefined;
  return { metric, count, dimensions, model, ids, checksum };
}

async function fill(path: string, handle: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesRead } = await handle.read(bytes, done, bytes.length - done, position + done);
    if (bytesRead === 0) throw damaged(path, `it ends at byte ${position + done}`);
    done += bytesRead;
  }
}

export function damaged(path: string, how: string): IndexFileError {
  return new IndexFileError(path, `is damaged: ${how}; make it anew`);
}
