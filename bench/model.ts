// Which model the benchmarks run: the one named, else Gemma where it was pulled, else a small random one made on the spot,
// whose figures say nothing of real models and which is therefore named with every figure.

import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { modelsFolder } from "../src/model/folders.ts";
import { writeTinyModel } from "../test/support/gguf-writer.ts";

export interface BenchModel {
  readonly name: string;
  readonly path: string;
  /** Removes what was made for the benchmark. */
  remove(): void;
}

const pulled = "gemma3-270m";

export function chooseModel(named: string | undefined): BenchModel {
  if (named !== undefined) {
    const known = join(modelsFolder(), `${named}.gguf`);
    return { name: named, path: existsSync(named) ? named : known, remove() {} };
  }
  const path = join(modelsFolder(), `${pulled}.gguf`);
  if (existsSync(path)) return { name: pulled, path, remove() {} };
  const folder = mkdtempSync(join(tmpdir(), "tinyai-bench-"));
  const tiny = join(folder, "tiny.gguf");
  writeTinyModel(tiny, { architecture: "gemma3", dtype: "Q8_0", layers: 6, width: 256, context: 2048 });
  return {
    name: `a tiny random model (run \`bun run tinyai pull ${pulled}\` for a real one)`,
    path: tiny,
    remove: () => rmSync(folder, { recursive: true, force: true }),
  };
}
