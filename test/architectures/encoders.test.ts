// Encoders from every form of file: each gives the vectors of a forward pass in double precision, and all the same bits.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync } from "node:fs";
import { loadModel, prepareModel } from "../../src/index.ts";
import { preparedPath } from "../../src/prepared.ts";
import { embed, openEngine } from "../support/engine.ts";
import { temporaryFolder } from "../support/folder.ts";
import { cosine, pooled, referenceEncoder } from "../support/reference-encoder.ts";
import { safetensorsBytes, safetensorsParts } from "../support/safetensors-writer.ts";
import {
  type TinyEncoderOptions,
  tinyEncoderFolder,
  tinyFolderTensors,
  writeFolder,
  writeTinyEncoder,
  writeTinyEncoderFolder,
} from "../support/tiny-encoder.ts";
import { keepVariables } from "../support/variables.ts";

// Preparing takes its time on a loaded machine.
setDefaultTimeout(60_000);

const folder = temporaryFolder();
keepVariables("TINYAI_HOME");
process.env["TINYAI_HOME"] = folder.file("home");

const texts = ["", "hello", "Once upon a time, in the world of cats & dogs; search the text!", "日本 hello ☃ émigré"];

/** A folder whose weights lie in three files. */
function writeSharded(path: string, options: TinyEncoderOptions): string {
  const files = tinyEncoderFolder(options);
  files.delete("model.safetensors");
  const index: Record<string, string> = {};
  const shards = Map.groupBy([...tinyFolderTensors(options)].entries(), ([number]) => `part-${number % 3}.safetensors`);
  for (const [name, entries] of shards) {
    const tensors = new Map(entries.map(([, entry]) => entry));
    files.set(name, safetensorsBytes(safetensorsParts(tensors)));
    for (const tensor of tensors.keys()) index[tensor] = name;
  }
  return writeFolder(path, files.set("model.safetensors.index.json", JSON.stringify({ weight_map: index })));
}

const families: readonly TinyEncoderOptions[] = [
  { architecture: "bert", pooling: "first" },
  { architecture: "bert", dtype: "F16", width: 96, heads: 3, layers: 3 },
  { architecture: "nomic-bert" },
];

describe.each(families)("$architecture, %#", (options) => {
  const name = `${options.architecture}-${options.width ?? 64}`;
  const apart = folder.file(`${name}-apart.gguf`);
  writeTinyEncoder(apart, { ...options, fused: false });

  async function vectors(path: string): Promise<Float32Array[]> {
    const { engine, tokenizer } = await openEngine(path);
    try {
      return await Promise.all(
        texts.map((text) => embed(engine, tokenizer.encode(text), { pooling: options.pooling ?? "mean" })),
      );
    } finally {
      await engine.close();
    }
  }

  test("gives the vectors of a forward pass in double precision", async () => {
    const { engine, tokenizer } = await openEngine(apart);
    const tokens = texts.map((text) => tokenizer.encode(text));
    await engine.close();
    const reference = referenceEncoder(options, options.dtype !== "F16");
    for (const [index, vector] of (await vectors(apart)).entries()) {
      const rows = reference.hidden(tokens[index] ?? new Uint32Array(0));
      expect(cosine(vector, pooled(rows, options.pooling ?? "mean", true))).toBeGreaterThan(1 - 1e-5);
    }
  });

  test("is the same from a fused GGUF file, a folder, a folder of several files, and prepared from each", async () => {
    const expected = await vectors(apart);
    const fused = folder.file(`${name}-fused.gguf`);
    writeTinyEncoder(fused, { ...options, fused: true });
    const whole = writeTinyEncoderFolder(folder.file(`${name}-folder`), options);
    const sharded = writeSharded(folder.file(`${name}-sharded`), options);
    for (const source of [fused, whole, sharded]) {
      expect(await vectors(source)).toEqual(expected);
      const prepared = `${source}.tinyai`;
      expect((await prepareModel(source, { output: prepared })).path).toBe(prepared);
      expect(await vectors(prepared)).toEqual(expected);
    }
  });
});

test("a folder's copy in the cache is used while the folder is as it was", async () => {
  mkdirSync(folder.file("home"), { recursive: true });
  const files = tinyEncoderFolder({ width: 512, heads: 8 });
  const path = writeFolder(folder.file("large"), files);
  const state = async () => {
    await using model = await loadModel(`${path}/`);
    return model.preparation;
  };
  expect(await state()).toEqual({ state: "making", path: preparedPath(path) });
  expect(await state()).toEqual({ state: "used", path: preparedPath(path) });
  // Written anew, and the same.
  writeFolder(path, files);
  expect((await state()).state).toBe("used");
  // One of the small files has changed.
  const pooling = { word_embedding_dimension: 512, pooling_mode_cls_token: true };
  writeFolder(path, new Map([["1_Pooling/config.json", JSON.stringify(pooling)]]));
  expect((await state()).state).toBe("making");
  expect((await prepareModel(path)).made).toBe(false);
});
