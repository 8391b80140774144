// A made-up tree of the files in which Linux tells of itself.

import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";

/** Writes files below a new folder in `parent`, and gives its path, for functions that take a root. */
export function systemTree(parent: string, files: Readonly<Record<string, string>>): string {
  const root = mkdtempSync(join(parent, "tree-"));
  writeTree(root, files);
  return root;
}

/** Writes files below `root`, in the place of those that are there. */
export function writeTree(root: string, files: Readonly<Record<string, string>>): void {
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }
}
