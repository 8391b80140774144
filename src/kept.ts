// What is measured once on a machine and kept: one file a kind, instruction-set level and thread count. A file that is damaged, or
// of another machine or version, is as if it were not there.

import { mkdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { cpu } from "./engine/cpu.ts";
import type { Library } from "./engine/library.ts";
import { EngineError } from "./errors.ts";
import { isSystemError, replaceFile } from "./files.ts";
import { homeFolder } from "./model/folders.ts";
import { layoutHash } from "./plan/layout.ts";

/** A file that is larger is none. */
const keptBytesMax = 64 << 10;

/** What something was measured on, and for. */
export interface MachineKey {
  readonly version: number;
  /** Of the library's structs. */
  readonly layout: string;
  readonly cpu: string;
  readonly features: string;
  /** Sizes of the first CPU's caches, as the system writes them; empty where it does not. */
  readonly caches: readonly string[];
  readonly level: string;
  readonly threads: number;
}

/** A kind of measurement. */
export interface KeptKind<T> {
  /** Its folder in TinyAI's. */
  readonly folder: string;
  /** What a file calls it. */
  readonly field: string;
  /** Changes whenever what was measured no longer holds. */
  readonly version: number;
  /** Whether what a file holds is whole and within bounds. */
  readonly check: (value: unknown) => value is T;
}

export function machineKey(kind: KeptKind<unknown>, library: Library, level: number, threads: number): MachineKey {
  return {
    version: kind.version,
    layout: layoutHash().toString(16),
    cpu: cpu.model,
    features: library.features.toString(16),
    caches: cacheSizes(),
    level: library.levels[level]?.name ?? "",
    threads,
  };
}

function cacheSizes(): string[] {
  const sizes: string[] = [];
  try {
    for (let index = 0; index < 8; index++) {
      sizes.push(readFileSync(`/sys/devices/system/cpu/cpu0/cache/index${index}/size`, "utf8").trim());
    }
  } catch {}
  return sizes;
}

/** The file of a key, whether it is there or not. */
export function keptPath(kind: KeptKind<unknown>, key: MachineKey): string {
  const name = Bun.hash.wyhash(JSON.stringify(key)).toString(16).padStart(16, "0");
  return join(homeFolder(), kind.folder, `${key.level}-${key.threads}-${name}.json`);
}

/** What a file keeps; undefined if there is none, or it is damaged, out of bounds, or of another key. */
export function readKept<T>(kind: KeptKind<T>, path: string, key: MachineKey): T | undefined {
  try {
    // Asked before it is opened: opening a FIFO waits.
    const stats = statSync(path);
    if (!stats.isFile() || stats.size > keptBytesMax) return undefined;
    const stored: unknown = JSON.parse(readFileSync(path, "utf8"));
    if (typeof stored !== "object" || stored === null) return undefined;
    const fields = stored as Readonly<Record<string, unknown>>;
    const value = fields[kind.field];
    return Bun.deepEquals(fields["key"], key) && kind.check(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Keeps a measurement, under a temporary name until it is whole.
 * @throws {EngineError} if it cannot be written.
 */
export async function storeKept<T>(kind: KeptKind<T>, path: string, key: MachineKey, value: T): Promise<void> {
  try {
    mkdirSync(dirname(path), { recursive: true });
    const text = `${JSON.stringify({ key, [kind.field]: value }, null, 2)}\n`;
    await replaceFile(path, (append) => append(Buffer.from(text)));
  } catch (cause) {
    if (!isSystemError(cause)) throw cause;
    throw new EngineError(`${path}: cannot be written: ${cause.message}; name another folder (TINYAI_HOME)`, { cause });
  }
}
