// What results say of the model that was measured.

import { type Model, partsOf } from "../loaded-model.ts";
import { dtypeBlocks } from "../model/file.ts";
import { isCopy, sourceHash } from "../prepared.ts";
import type { ModelDetails } from "./results.ts";

/**
 * What a loaded model is. Size and hash are those of the model file, of a prepared copy those of the file that it was made from.
 * @throws {ModelFileError} if it cannot be read any more.
 */
export async function modelDetails(model: Model): Promise<ModelDetails> {
  const { file, plan, run } = partsOf(model);
  const { architecture, level } = run();
  const formats: Record<string, number> = {};
  let parameters = 0;
  // Sizes as the formats have them: a prepared file has its tensors padded.
  for (const { dtype, shape } of file.tensors.values()) {
    const values = shape.reduce((product, size) => product * size, 1);
    const { columns, bytes } = dtypeBlocks[dtype];
    parameters += values;
    formats[dtype] = (formats[dtype] ?? 0) + (values / columns) * bytes;
  }
  return {
    path: model.path,
    bytes: isCopy(file) ? file.source.bytes : file.byteLength,
    sha256: await sourceHash(file),
    architecture,
    parameters,
    formats,
    layers: 1 + Math.max(-1, ...plan.ops.map(({ layer }) => layer)),
    context: model.contextLength,
    simd: level,
    threads: model.threadCount,
  };
}
