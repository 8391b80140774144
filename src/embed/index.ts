// Making and opening indexes, for programs of which most do neither: all that it takes is loaded when one is first asked for.

import type { Matrix } from "./matrix.ts";
import type { CreateIndexOptions, OpenIndexOptions, VectorIndex } from "./vector-index.ts";

/**
 * Makes an index of vectors, which are copied.
 * @param vectors all of one length, 1 to 65,536 values. They must not be changed before the index is there.
 * @throws {OptionError} if an option or a vector is out of its bounds.
 * @throws {EngineError} if the system refuses the memory.
 * @example
 * const texts = ["The cat sleeps.", "Stocks fell on Monday."];
 * using index = await createIndex(await model.embed(texts), { ids: texts });
 * console.log(await index.search(await model.embed("a kitten"), { count: 1 }));
 */
export async function createIndex(
  vectors: readonly Float32Array[] | Matrix,
  options: CreateIndexOptions = {},
): Promise<VectorIndex> {
  const module = await import("./vector-index.ts");
  return module.createIndex(vectors, options);
}

/**
 * Opens an index that was saved. Its vectors are mapped, and shared with other processes; the file must not be written to
 * meanwhile, which `save` never does.
 * @throws {IndexFileError} if it cannot be read, is no index, is damaged or cut short.
 * @throws {OptionError} if an option is out of its bounds.
 * @example
 * using index = await openIndex("notes.index");
 */
export async function openIndex(path: string, options: OpenIndexOptions = {}): Promise<VectorIndex> {
  const module = await import("./vector-index.ts");
  return module.openIndex(path, options);
}
