// What an engine takes of memory, by what it is for: of a program before there is an engine, and of one that runs (zig/footprint.zig).

import { EngineError } from "../errors.ts";
import type { Library, Pointer } from "./library.ts";

/**
 * What memory is for. `pages` and `pageLists` are what is known of pages of keys and values, `candidates` what draws sort, `events` what
 * profiles are made of, `records` what JavaScript is told.
 */
export type MemoryPart =
  | "weights"
  | "constants"
  | "screen"
  | "program"
  | "activations"
  | "tokens"
  | "keysAndValues"
  | "pages"
  | "pageLists"
  | "scratch"
  | "candidates"
  | "events"
  | "records"
  | "engine";

/** In zig/footprint.zig's order. */
export const memoryParts: readonly MemoryPart[] = [
  "weights",
  "constants",
  "screen",
  "program",
  "activations",
  "tokens",
  "keysAndValues",
  "pages",
  "pageLists",
  "scratch",
  "candidates",
  "events",
  "records",
  "engine",
];

/** Bytes by what they are for. */
export type MemoryByPart = Readonly<Record<MemoryPart, number>>;

/** An engine's memory. */
export interface EngineMemory {
  /** What it has set aside. Much of it costs nothing until it is written. */
  readonly taken: MemoryByPart;
  /** What of it is in memory; the same as `taken` where the system does not tell. */
  readonly resident: MemoryByPart;
}

/** What an engine would set aside for a program. @throws {EngineError} if it is none. */
export function programMemory(
  { symbols }: Library,
  program: Uint8Array,
  threadCount: number,
  eventCapacity: number,
): MemoryByPart {
  const taken = new BigUint64Array(memoryParts.length);
  if (symbols.tinyai_program_memory(program, program.length, threadCount, eventCapacity, taken) === 0) {
    throw new EngineError("the library refused a program, or the memory to look at it");
  }
  return byPart(taken);
}

/** What a loaded engine has set aside, and what of it is in memory. */
export function engineMemory({ symbols }: Library, engine: Pointer): EngineMemory {
  const taken = new BigUint64Array(memoryParts.length);
  const resident = new BigUint64Array(memoryParts.length);
  symbols.tinyai_engine_memory(engine, taken, resident);
  return { taken: byPart(taken), resident: byPart(resident) };
}

export function totalMemory(memory: MemoryByPart): number {
  return memoryParts.reduce((sum, part) => sum + memory[part], 0);
}

function byPart(words: BigUint64Array): MemoryByPart {
  const entries = memoryParts.map((part, index) => [part, Number(words[index] ?? 0n)] as const);
  return Object.fromEntries(entries) as Record<MemoryPart, number>;
}
