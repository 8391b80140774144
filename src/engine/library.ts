// Opens the native library: the only file that imports bun:ffi, and the one list of the symbols in it (zig/tinyai.zig). It
// checks that the library was built from the same structs. It interprets nothing. Libraries of the system's are opened here too.

import {
  ptr as addressOf,
  CString,
  dlopen,
  type FFIFunction,
  FFIType,
  type Library as Opened,
  type Pointer,
  toArrayBuffer,
} from "bun:ffi";
import { existsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { LibraryError } from "../errors.ts";
import { layoutHash } from "../plan/layout.ts";

const { u32, u64, ptr } = FFIType;

const symbolTable = {
  tinyai_layout_hash: { args: [], returns: u64 },
  tinyai_clock_now: { args: [], returns: FFIType.f64 },
  tinyai_thread_cpu: { args: [], returns: FFIType.f64 },
  tinyai_allocations_read: { args: [ptr], returns: FFIType.void },
  tinyai_allocations_watch: { args: [u32], returns: FFIType.void },
  tinyai_allocations_drain: { args: [ptr, u32], returns: u32 },
  tinyai_collections_take: { args: [], returns: ptr },
  tinyai_collections_counter: { args: [], returns: ptr },
  tinyai_counters_open: { args: [ptr, u32, ptr, u32, ptr], returns: ptr },
  tinyai_counters_given: { args: [ptr], returns: u32 },
  tinyai_counters_read: { args: [ptr, ptr], returns: FFIType.void },
  tinyai_counters_close: { args: [ptr], returns: FFIType.void },
  tinyai_cpu_features: { args: [], returns: u64 },
  tinyai_level_count: { args: [], returns: u32 },
  tinyai_level_name: { args: [u32], returns: ptr },
  tinyai_level_supported: { args: [u32], returns: u32 },
  tinyai_packed_bytes: { args: [u32, u32, u32, ptr], returns: u32 },
  tinyai_mapping_open: { args: [ptr, u64, u64], returns: ptr },
  tinyai_mapping_bytes: { args: [ptr], returns: ptr },
  tinyai_mapping_await: { args: [ptr], returns: FFIType.void },
  tinyai_mapping_release: { args: [ptr], returns: FFIType.void },
  tinyai_mapping_close: { args: [ptr], returns: FFIType.void },
  tinyai_mapping_closer: { args: [], returns: ptr },
  tinyai_pipe_open: { args: [ptr], returns: u32 },
  tinyai_pipe_ring: { args: [FFIType.i32], returns: FFIType.void },
  tinyai_engine_create: { args: [ptr, u64, ptr, ptr, ptr, ptr, ptr], returns: ptr },
  tinyai_engine_configure: { args: [ptr, ptr], returns: u32 },
  tinyai_engine_memory: { args: [ptr, ptr, ptr], returns: FFIType.void },
  tinyai_program_memory: { args: [ptr, u64, u32, u32, ptr], returns: u32 },
  tinyai_engine_limit_kv: { args: [ptr, u64], returns: FFIType.void },
  tinyai_engine_usage: { args: [ptr, ptr], returns: FFIType.void },
  tinyai_engine_ended: { args: [ptr], returns: u32 },
  tinyai_engine_stop: { args: [ptr], returns: FFIType.void },
  tinyai_engine_destroy: { args: [ptr], returns: FFIType.void },
  tinyai_engine_weights: { args: [ptr], returns: ptr },
  tinyai_engine_thread_id: { args: [ptr, u32], returns: u32 },
  tinyai_engine_packed_bytes: { args: [ptr], returns: u64 },
  tinyai_engine_submit: { args: [ptr, u32, ptr, ptr, u32], returns: u32 },
  tinyai_engine_cancel: { args: [ptr, u32, u32], returns: FFIType.void },
  tinyai_engine_copy_page: { args: [ptr, u32, u32, u32, u32, ptr, u64, u32], returns: u32 },
  tinyai_engine_commit: { args: [ptr, u32, u32], returns: u32 },
  tinyai_engine_drain_records: { args: [ptr, ptr, u32], returns: u32 },
  tinyai_engine_drain_events: { args: [ptr, u32, ptr, u32, u32], returns: u32 },
  tinyai_engine_events_waiting: { args: [ptr], returns: u32 },
  tinyai_engine_events_lost: { args: [ptr], returns: u64 },
  tinyai_engine_set_events: { args: [ptr, u32], returns: FFIType.void },
  tinyai_engine_read_pages: { args: [ptr, u32, ptr], returns: u32 },
  tinyai_engine_read_logits: { args: [ptr, u32, u32, ptr, u32], returns: u32 },
  tinyai_engine_read_embedding: { args: [ptr, u32, ptr, u32], returns: u32 },
  tinyai_converter_create: { args: [ptr, u32, ptr, ptr, u32, u32, FFIType.i32, ptr], returns: ptr },
  tinyai_converter_stop: { args: [ptr], returns: FFIType.void },
  tinyai_converter_done: { args: [ptr], returns: u64 },
  tinyai_converter_ended: { args: [ptr], returns: u32 },
  tinyai_converter_failure: { args: [ptr], returns: u64 },
  tinyai_converter_destroy: { args: [ptr], returns: FFIType.void },
  tinyai_tracer_create: { args: [ptr, ptr, ptr], returns: ptr },
  tinyai_tracer_begin: { args: [ptr, ptr, u32, ptr], returns: u32 },
  tinyai_tracer_run: { args: [ptr, u32, u32, u32, ptr], returns: u32 },
  tinyai_tracer_forget: { args: [ptr], returns: FFIType.void },
  tinyai_tracer_destroy: { args: [ptr], returns: FFIType.void },
  tinyai_bandwidth_create: { args: [u64, u32, u32], returns: ptr },
  tinyai_bandwidth_measure: { args: [ptr, u32, u64, u64, ptr], returns: u32 },
  tinyai_bandwidth_destroy: { args: [ptr], returns: FFIType.void },
  tinyai_stand_create: { args: [ptr, u32, u32, ptr], returns: ptr },
  tinyai_stand_tune: { args: [ptr, ptr], returns: u32 },
  tinyai_stand_run: { args: [ptr, u32], returns: u64 },
  tinyai_stand_counted: { args: [ptr], returns: u64 },
  tinyai_stand_destroy: { args: [ptr], returns: FFIType.void },
  tinyai_vectors_create: { args: [u64, u32, ptr, u64, ptr], returns: ptr },
  tinyai_vectors_rows: { args: [ptr], returns: ptr },
  tinyai_vectors_destroy: { args: [ptr], returns: FFIType.void },
  tinyai_search_create: { args: [ptr, ptr, u32, u32, u32, u32, FFIType.i32, ptr], returns: ptr },
  tinyai_search_stop: { args: [ptr], returns: FFIType.void },
  tinyai_search_ended: { args: [ptr], returns: u32 },
  tinyai_search_read: { args: [ptr, ptr, ptr], returns: FFIType.void },
  tinyai_search_destroy: { args: [ptr], returns: FFIType.void },
} as const;

function open(path: string) {
  return dlopen(path, symbolTable).symbols;
}

export type Symbols = ReturnType<typeof open>;
export type { Pointer };

/** The opened library. */
export interface Library {
  /** Where it was opened from. */
  readonly path: string;
  readonly symbols: Symbols;
  /** The instruction-set levels inside, narrowest first, and whether each may run on this CPU. */
  readonly levels: readonly { readonly name: string; readonly supported: boolean }[];
  /** CPU features as bits, in the order of src/engine/cpu.ts. */
  readonly features: bigint;
}

/** Bun's declarations leave out the last two arguments: what frees the memory when nobody holds it any more. */
const adoptMemory: (address: Pointer, offset: number, bytes: number, context: Pointer, free: Pointer) => ArrayBuffer =
  toArrayBuffer;

/** Memory of the library's that JavaScript holds no longer than its own: `free(address, context)` is called when nobody holds it. */
export function lendMemory(address: Pointer, bytes: number, context: Pointer, free: Pointer): Uint8Array {
  return new Uint8Array(adoptMemory(address, 0, bytes, context, free));
}

/** A model file's first bytes in memory. */
export interface MappedHead {
  /** Read-only: writing to them ends the process. They are given back when nobody holds them any more. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Takes them out of this process's memory until they are read again; call it while `bytes` is held. */
  release(): void;
}

/**
 * Maps `bytes` of a file from `offset` on, a multiple of 64, at a fraction of the cost of reading them; undefined if the system
 * refuses it.
 */
export function mapHead({ symbols }: Library, path: string, bytes: number, offset: number): MappedHead | undefined {
  const mapping = symbols.tinyai_mapping_open(Buffer.from(`${path}\0`), offset, bytes);
  const closer = symbols.tinyai_mapping_closer();
  if (!mapping || typeof mapping === "bigint" || !closer || typeof closer === "bigint") return undefined;
  const address = symbols.tinyai_mapping_bytes(mapping);
  if (!address || typeof address === "bigint") return undefined;
  symbols.tinyai_mapping_await(mapping);
  return {
    bytes: new Uint8Array(adoptMemory(address, 0, bytes, mapping, closer)),
    release: () => symbols.tinyai_mapping_release(mapping),
  };
}

/** Packed weights being brought into memory, until an engine takes them. */
export interface MappedWeights {
  readonly handle: Pointer;
  /** Gives them back if no engine has taken them. */
  close(): void;
}

/** Maps packed weights and begins to bring them into memory; undefined if the system refuses it. */
export function mapWeights(
  { symbols }: Library,
  path: string,
  offset: number,
  bytes: number,
): MappedWeights | undefined {
  const handle = symbols.tinyai_mapping_open(Buffer.from(`${path}\0`), offset, bytes);
  if (!handle || typeof handle === "bigint") return undefined;
  return { handle, close: () => symbols.tinyai_mapping_close(handle) };
}

/** Memory of the library's as bytes, without a copy. It must not be touched after the library has freed it. */
export function viewMemory(address: Pointer, bytes: number): Uint8Array {
  return new Uint8Array(toArrayBuffer(address, 0, bytes));
}

/** New memory of JavaScript's whose address is a multiple of `alignment`, a power of two, as direct I/O needs it. */
export function alignedBytes(bytes: number, alignment: number): Uint8Array<ArrayBuffer> {
  const memory = new ArrayBuffer(bytes + alignment);
  const over = addressOf(memory) % alignment;
  return new Uint8Array(memory, over === 0 ? 0 : alignment - over, bytes);
}

/**
 * Opens another shared library, by its path or by a name that the system looks for; undefined if it is not there or lacks a symbol.
 * Its symbols must not be called after it was closed.
 */
export function openForeign<const Table extends Readonly<Record<string, FFIFunction>>>(
  path: string,
  table: Table,
): Opened<Table> | undefined {
  try {
    return dlopen(path, table);
  } catch {
    return undefined;
  }
}

let opened: Library | undefined;

/**
 * The library, opened on first use: the file that `TINYAI_LIBRARY` names, else the one that was built or installed with this
 * source, or is inside a compiled program.
 * @throws {LibraryError} if there is none, it cannot be opened, or it was built from other structs than this TypeScript.
 */
export function openLibrary(): Library {
  if (opened) return opened;
  const path = findLibrary();
  let symbols: Symbols;
  try {
    symbols = open(path);
  } catch (cause) {
    const remedy = isInside(path)
      ? `a compiled program unpacks its library into the temporary folder, ${process.env["BUN_TMPDIR"] || tmpdir()}: let it be written and executed there, choose another (TMPDIR), or name a library with TINYAI_LIBRARY`
      : `${isCheckout() ? "build it with `bun run build`" : "on Linux it needs glibc 2.28 or later"}, or name another with TINYAI_LIBRARY`;
    throw new LibraryError(`${path}: cannot be opened: ${(cause as Error).message}; ${remedy}`, { cause });
  }
  const expected = layoutHash();
  const actual = BigInt(symbols.tinyai_layout_hash());
  if (actual !== expected) {
    const hex = (value: bigint) => `0x${value.toString(16)}`;
    throw new LibraryError(
      `${path}: was built from another version: its layout hash is ${hex(actual)}, this program's is ${hex(expected)}; ${isCheckout() ? "run `bun run build`" : "install the same version of both"}`,
    );
  }
  const levels = Array.from({ length: symbols.tinyai_level_count() }, (_, level) => {
    const name = symbols.tinyai_level_name(level);
    return { name: name ? new CString(name).toString() : "", supported: symbols.tinyai_level_supported(level) === 1 };
  });
  opened = { path, symbols, levels, features: BigInt(symbols.tinyai_cpu_features()) };
  return opened;
}

function findLibrary(): string {
  const named = process.env["TINYAI_LIBRARY"];
  if (named) return named;
  let path: string | undefined;
  try {
    // package.json's `imports` say where each system's library is: in zig-out, or in the package for that system. Literals inside
    // this `try`, behind conditions that the bundler knows, let `bun build --compile` embed the target's and leave the others out:
    // there, a file that is no source is its own path.
    if (process.platform === "linux" && process.arch === "x64") {
      path = inPlace("#native/linux-x64") ?? require("#native/linux-x64");
    } else if (process.platform === "linux" && process.arch === "arm64") {
      path = inPlace("#native/linux-arm64") ?? require("#native/linux-arm64");
    } else if (process.platform === "darwin" && process.arch === "x64") {
      path = inPlace("#native/darwin-x64") ?? require("#native/darwin-x64");
    } else if (process.platform === "darwin" && process.arch === "arm64") {
      path = inPlace("#native/darwin-arm64") ?? require("#native/darwin-arm64");
    } else if (process.platform === "win32" && process.arch === "x64") {
      path = inPlace("#native/win32-x64") ?? require("#native/win32-x64");
    }
  } catch (cause) {
    throw new LibraryError(`the native library ${missing()}, or name one with TINYAI_LIBRARY`, { cause });
  }
  if (path === undefined) {
    const systems = "Linux and macOS on x64 and arm64, and Windows on x64, have one";
    throw new LibraryError(`there is no library for ${process.platform} on ${process.arch}; ${systems}`);
  }
  // In a bundle the path is relative to the bundle, wherever the program was started.
  return resolve(import.meta.dir, path);
}

/** Where the library is while the source runs as it is, in no bundle. */
function inPlace(name: string): string | undefined {
  try {
    return Bun.resolveSync(name, import.meta.dir);
  } catch {
    return undefined;
  }
}

/** Why there is no library, and what to do. */
function missing(): string {
  if (isInside(import.meta.dir))
    return "was missing when this program was compiled: install it, compile the program again";
  if (isCheckout()) return "is not built: run `bun run build`";
  return `is not installed: run \`bun add @tinyai/${process.platform}-${process.arch}\``;
}

/** Whether this source is in a checkout, where the library is built, and not in an installed package. */
function isCheckout(): boolean {
  return existsSync(join(import.meta.dir, "../../build.zig"));
}

/** Whether a path is of a file inside a compiled program. */
function isInside(path: string): boolean {
  return path.startsWith("/$bunfs/") || path.includes("~BUN");
}
