// Reads the small JSON files of a model's folder, with errors that name the file.

import { existsSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { isRecord } from "../check.ts";
import { ModelFileError } from "../errors.ts";
import { Metadata, type MetadataEntry } from "./file.ts";
import { reason } from "./regular-file.ts";

/** The longest of them is a tokenizer's: 17 MB for a vocabulary of 250,000. */
const bytesMax = 64 * 1024 * 1024;

/**
 * The path of the file `name` in `folder`. `use` says what the model needs it for.
 * @throws {ModelFileError} if it is not there.
 */
export function requireFile(folder: string, name: string, use: string): string {
  const path = join(folder, name);
  if (existsSync(path)) return path;
  throw new ModelFileError(folder, name, `is missing: ${use}; copy it from where the model comes from`);
}

/** The text of a file. @throws {ModelFileError} if it cannot be read, or is no such small file. */
export function readTextFile(path: string): string {
  try {
    // Asked before it is opened: opening a FIFO waits.
    const stats = statSync(path);
    if (!stats.isFile()) throw new ModelFileError(path, "file", "is not a regular file");
    if (stats.size > bytesMax)
      throw new ModelFileError(path, "file", `has ${stats.size} bytes; at most ${bytesMax} are expected`);
    return readFileSync(path, "utf8");
  } catch (cause) {
    if (cause instanceof ModelFileError) throw cause;
    throw new ModelFileError(path, "file", `cannot be read: ${reason(cause)}`, { cause });
  }
}

/** What a JSON file holds. @throws {ModelFileError} */
export function readJson(path: string): unknown {
  const text = readTextFile(path);
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new ModelFileError(path, "file", "is not JSON: it is damaged; get it again", { cause });
  }
}

/** The object that a JSON file holds. @throws {ModelFileError} */
export function readObject(path: string): Readonly<Record<string, unknown>> {
  const value = readJson(path);
  if (!isRecord(value)) throw new ModelFileError(path, "file", "is not a JSON object");
  return value;
}

/** An object's texts, numbers and booleans behind typed getters. What is null or a structure is as if it were not there. */
export function settingsOf(path: string, object: Readonly<Record<string, unknown>>): Metadata {
  const entries = new Map<string, MetadataEntry>();
  for (const [key, value] of Object.entries(object)) {
    if (typeof value === "string") entries.set(key, { type: "string", isArray: false, value });
    else if (typeof value === "number") entries.set(key, { type: "float64", isArray: false, value });
    else if (typeof value === "boolean") entries.set(key, { type: "bool", isArray: false, value });
  }
  return new Metadata(path, entries);
}

/** The settings in a file that a folder may have; none if it has not. @throws {ModelFileError} */
export function optionalSettings(path: string): Metadata {
  return settingsOf(path, existsSync(path) ? readObject(path) : {});
}
