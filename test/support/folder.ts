// A temporary folder for a test file, removed when its tests are done.

import { afterAll } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface TemporaryFolder {
  readonly path: string;
  /** Writes `bytes` to the file `name` in the folder and gives its path. */
  write(name: string, bytes: Uint8Array | string): string;
  /** The path of `name` in the folder. */
  file(name: string): string;
}

export function temporaryFolder(): TemporaryFolder {
  const path = mkdtempSync(join(tmpdir(), "tinyai-test-"));
  afterAll(() => rmSync(path, { recursive: true, force: true }));
  const file = (name: string): string => join(path, name);
  return {
    path,
    file,
    write(name, bytes) {
      writeFileSync(file(name), bytes);
      return file(name);
    },
  };
}
