// A session's file: its tokens, and the keys and values that its next position looks at, as they lie in the engine's pages.
//
//   16 bytes   "TinyAIKV", the description's length as u32, 0 as u32
//              the description as JSON, padded with spaces to a multiple of 64 bytes from the file's start
//              the tokens as u32, padded with zeros to a multiple of 64
//              group by group the pages, each group's from the first that is needed
//   32 bytes   SHA-256 of all before
//
// Numbers are little-endian. Pages are bound to the model, to the instruction-set level (levels differ in the last bits), and
// to the order of keys and values in a page (zig/kernels/table.zig); `version` is raised when that changes.

import { type FileHandle, open, stat } from "node:fs/promises";
import { heldPages } from "../engine/held.ts";
import { SessionFileError } from "../errors.ts";
import { isSystemError, replaceFile } from "../files.ts";
import { alignUp } from "../plan/layout.ts";
import type { KvGroupPlan } from "../plan/plan.ts";

const version = 2;
const magic = new TextEncoder().encode("TinyAIKV");
const alignment = 64;
const prologueBytes = 16;
const descriptionBytesMax = 1 << 20;
const checksumBytes = 32;

/** What a session's pages are bound to. */
export interface SessionBinding {
  /** SHA-256 of the model file. */
  readonly model: string;
  /** The instruction-set level, and operations with another one. */
  readonly level: string;
  readonly groups: readonly KvGroupPlan[];
}

interface Description {
  readonly version: number;
  readonly tokens: number;
  readonly model: string;
  readonly level: string;
  readonly groups: readonly {
    readonly window: number;
    readonly layers: readonly number[];
    readonly dtype: string;
    readonly pageBytes: number;
  }[];
}

function describe({ model, level, groups }: SessionBinding, tokens: number): Description {
  const places = groups.map(({ window, layers, dtype, pageBytes }) => ({ window, layers, dtype, pageBytes }));
  return { version, tokens, model, level, groups: places };
}

type CopyPage = (group: number, block: number, bytes: Uint8Array) => void;

/** Every page of a session in the order of the file; `bytes` is used again for the next. */
function* pagesOf(groups: readonly KvGroupPlan[], tokens: number) {
  for (const [group, plan] of groups.entries()) {
    const bytes = new Uint8Array(plan.pageBytes);
    const { first, end } = heldPages(plan, tokens);
    for (let block = first; block < end; block++) yield { group, block, bytes };
  }
}

function pagesBytes(groups: readonly KvGroupPlan[], tokens: number): number {
  return groups.reduce((sum, plan) => {
    const { first, end } = heldPages(plan, tokens);
    return sum + (end - first) * plan.pageBytes;
  }, 0);
}

/**
 * Writes a session to `path`: to a temporary file beside it, which takes its place once it is on the disk.
 * @throws {SessionFileError} if it cannot be written; a file that was there stays.
 */
export async function writeSession(
  path: string,
  binding: SessionBinding,
  tokens: Uint32Array,
  copyPage: CopyPage,
): Promise<void> {
  const hash = new Bun.CryptoHasher("sha256");
  const write = async (append: (bytes: Uint8Array) => Promise<void>) => {
    const hashed = async (bytes: Uint8Array) => {
      hash.update(bytes);
      await append(bytes);
    };
    await hashed(encodeHead(describe(binding, tokens.length), tokens));
    for (const { group, block, bytes } of pagesOf(binding.groups, tokens.length)) {
      copyPage(group, block, bytes);
      await hashed(bytes);
    }
    await append(hash.digest());
  };
  try {
    await replaceFile(path, write, 0o600);
  } catch (cause) {
    if (!isSystemError(cause)) throw cause;
    throw new SessionFileError(path, `cannot be written: ${cause.message}`, { cause });
  }
}

function encodeHead(description: Description, tokens: Uint32Array): Uint8Array {
  const text = new TextEncoder().encode(JSON.stringify(description));
  const tokensOffset = alignUp(prologueBytes + text.length, alignment);
  const head = new Uint8Array(alignUp(tokensOffset + tokens.length * 4, alignment));
  head.fill(0x20, prologueBytes, tokensOffset);
  head.set(magic);
  const view = new DataView(head.buffer);
  view.setUint32(magic.length, tokensOffset - prologueBytes, true);
  head.set(text, prologueBytes);
  tokens.forEach((token, index) => {
    view.setUint32(tokensOffset + index * 4, token, true);
  });
  return head;
}

/** What takes a session's pages in: nothing counts until it is committed. */
export interface PageSink {
  copyPage: CopyPage;
  commit(): Promise<void>;
  release(): Promise<void>;
}

/**
 * Reads a session. `open` is called with its tokens once the file's head is known to fit.
 * @throws {SessionFileError} if it cannot be read, is damaged or cut short, or is bound to something else.
 */
export async function readSession(
  path: string,
  binding: SessionBinding,
  limits: { readonly vocabulary: number; readonly contextLength: number },
  openSink: (tokens: Uint32Array) => Promise<PageSink>,
): Promise<Uint32Array> {
  let handle: FileHandle;
  try {
    // Asked before it is opened: opening a FIFO waits.
    if (!(await stat(path)).isFile()) throw new Error("it is no regular file; name another file");
    handle = await open(path, "r");
  } catch (cause) {
    throw new SessionFileError(path, `cannot be read: ${(cause as Error).message}`, { cause });
  }
  try {
    const reader = new Reader(path, handle);
    const { size } = await handle.stat();
    const { description, tokens } = await readHead(reader, path, size);
    checkBinding(path, description, binding);
    checkTokens(path, tokens, limits);
    const expected = reader.position + pagesBytes(binding.groups, tokens.length) + checksumBytes;
    if (size !== expected) {
      throw new SessionFileError(path, `has ${size} bytes instead of ${expected}: it was cut short; delete it`);
    }
    const sink = await openSink(tokens);
    try {
      for (const { group, block, bytes } of pagesOf(binding.groups, tokens.length)) {
        await reader.fill(bytes);
        sink.copyPage(group, block, bytes);
      }
      await reader.checkSum();
      await sink.commit();
    } finally {
      await sink.release();
    }
    return tokens;
  } catch (cause) {
    if (!isSystemError(cause)) throw cause;
    throw new SessionFileError(path, `cannot be read: ${cause.message}`, { cause });
  } finally {
    await handle.close();
  }
}

/** Reads a file from its start to its end and sums it up. */
class Reader {
  position = 0;
  readonly #hash = new Bun.CryptoHasher("sha256");
  readonly #path: string;
  readonly #handle: FileHandle;

  constructor(path: string, handle: FileHandle) {
    this.#path = path;
    this.#handle = handle;
  }

  async fill(bytes: Uint8Array): Promise<void> {
    await this.#read(bytes);
    this.#hash.update(bytes);
  }

  async checkSum(): Promise<void> {
    const stored = new Uint8Array(checksumBytes);
    await this.#read(stored);
    if (Buffer.compare(stored, this.#hash.digest()) !== 0) throw damaged(this.#path, "its checksum does not fit");
  }

  async #read(bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.length; ) {
      const { bytesRead } = await this.#handle.read(bytes, done, bytes.length - done, this.position);
      if (bytesRead === 0) throw damaged(this.#path, `it ends at byte ${this.position}`);
      this.position += bytesRead;
      done += bytesRead;
    }
  }
}

function damaged(path: string, how: string, cause?: unknown): SessionFileError {
  return new SessionFileError(path, `is damaged: ${how}; delete it`, { cause });
}

async function readHead(reader: Reader, path: string, size: number) {
  if (size < prologueBytes) throw new SessionFileError(path, "is no session: it is too short; name another file");
  const prologue = new Uint8Array(prologueBytes);
  await reader.fill(prologue);
  if (Buffer.compare(prologue.subarray(0, magic.length), magic) !== 0) {
    throw new SessionFileError(path, "is no session: it does not begin like one; name another file");
  }
  const length = new DataView(prologue.buffer).getUint32(magic.length, true);
  if (length === 0 || length > Math.min(descriptionBytesMax, size - prologueBytes)) {
    throw damaged(path, `its description has ${length} bytes`);
  }
  const text = new Uint8Array(length);
  await reader.fill(text);
  const description = parseDescription(path, text);
  const { tokens: count } = description;
  const tokenBytes = alignUp(reader.position + count * 4, alignment) - reader.position;
  if (tokenBytes > size - reader.position) throw damaged(path, `it ends before its ${count} tokens do`);
  const bytes = new Uint8Array(tokenBytes);
  await reader.fill(bytes);
  const view = new DataView(bytes.buffer);
  const tokens = Uint32Array.from({ length: count }, (_, index) => view.getUint32(index * 4, true));
  return { description, tokens };
}

function parseDescription(path: string, text: Uint8Array): Description {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(text));
  } catch (cause) {
    throw damaged(path, "its description cannot be read", cause);
  }
  const description = value as Description;
  if (typeof value !== "object" || value === null || !Number.isSafeInteger(description.version)) {
    throw damaged(path, "its description is not one");
  }
  if (description.version !== version) {
    throw new SessionFileError(path, `is of version ${description.version}, not ${version}; begin a new session`);
  }
  const { tokens } = description;
  if (!Number.isSafeInteger(tokens) || tokens < 1 || tokens > 1 << 24) throw damaged(path, `it has ${tokens} tokens`);
  return description;
}

function checkBinding(path: string, found: Description, binding: SessionBinding): void {
  const expected = describe(binding, found.tokens);
  if (found.model !== expected.model) {
    throw new SessionFileError(path, "belongs to another model; load that one, or begin a new session");
  }
  if (found.level !== expected.level) {
    const problem = `was saved at the instruction-set level ${found.level}, and this is ${expected.level}`;
    throw new SessionFileError(
      path,
      `${problem}: choose that one (simd, enableSimd, TINYAI_SIMD), or begin a new session`,
    );
  }
  if (JSON.stringify(found.groups) !== JSON.stringify(expected.groups)) {
    const problem = "was saved with another layout of keys and values, as other context lengths and cache formats have";
    throw new SessionFileError(path, `${problem}; use the same contextLength and kvCache, or begin a new session`);
  }
}

function checkTokens(
  path: string,
  tokens: Uint32Array,
  { vocabulary, contextLength }: { readonly vocabulary: number; readonly contextLength: number },
): void {
  if (tokens.length > contextLength) {
    const problem = `has ${tokens.length} tokens and the context ${contextLength} positions`;
    throw new SessionFileError(path, `${problem}; load the model with a longer context (contextLength, --context)`);
  }
  const outside = tokens.find((token) => token >= vocabulary);
  if (outside !== undefined) throw damaged(path, `it has token ${outside}; the vocabulary has ${vocabulary}`);
}
