// Where tests leave what a person may want to look at: pictures of pages and charts, in build/test/, which git ignores.

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { root } from "../../src/setup/checkout.ts";

/** The path for such a file, in a folder that is there. */
export function testOutput(name: string): string {
  const folder = join(root, "build", "test");
  mkdirSync(folder, { recursive: true });
  return join(folder, name);
}
