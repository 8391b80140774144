// Files in which Linux tells of itself, read below a root that tests choose. What is not there is nothing, and not an error.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** Trimmed; "" where there is no such file, or it cannot be read. */
export function readText(root: string, path: string): string {
  try {
    return readFileSync(join(root, path), "utf8").trim();
  } catch {
    return "";
  }
}

/** The number that a file holds; null where it holds none. */
export function readNumber(root: string, path: string): number | null {
  const text = readText(root, path);
  const value = Number(text);
  return text === "" || !Number.isFinite(value) ? null : value;
}

/** Names in a folder, sorted; none where there is no such folder. */
export function listFolder(root: string, path: string): readonly string[] {
  try {
    return readdirSync(join(root, path)).sort();
  } catch {
    return [];
  }
}

/** Lines of a name and a number, as /proc/meminfo, /proc/vmstat and a control group's cpu.stat have them. */
export function readFields(root: string, path: string): ReadonlyMap<string, number> {
  const fields = new Map<string, number>();
  for (const [, name = "", value] of readText(root, path).matchAll(/^([\w()]+):?\s+(\d+)/gm))
    fields.set(name, Number(value));
  return fields;
}
