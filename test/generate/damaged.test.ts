// Weights that are not numbers: what they make is no text.

import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { loadModel } from "../../src/index.ts";
import { openGguf } from "../../src/model/gguf.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyModel } from "../support/gguf-writer.ts";

const folder = temporaryFolder();

/** A tiny model whose output head is all ones in binary: not a number in every float format. */
function damaged(): string {
  const whole = folder.file("whole.gguf");
  writeTinyModel(whole, { architecture: "llama", dtype: "F32", embeddingDtype: "F32", tied: false });
  const head = openGguf(whole).tensors.get("output.weight");
  if (!head) throw new Error("the tiny model has no head of its own");
  const bytes = readFileSync(whole);
  bytes.fill(0xff, head.byteOffset, head.byteOffset + head.byteLength);
  return folder.write("damaged.gguf", bytes);
}

describe("a model whose output is not a number", () => {
  test("ends generating and scoring with an error that names the file", async () => {
    const path = damaged();
    await using model = await loadModel(path, { batchSize: 2 });
    await expect(model.generate("a", { maxLength: 3 })).rejects.toThrow(
      `${path}: the model's output is not a finite number`,
    );
    await expect(model.generate("a", { maxLength: 3, temperature: 0 })).rejects.toThrow("not a finite number");
    await expect(model.score("some text")).rejects.toThrow("not a finite number");
    // Both again at once: the slots were given back.
    const again = await Promise.allSettled([model.generate("a", { maxLength: 3 }), model.score("text")]);
    expect(again.map(({ status }) => status)).toEqual(["rejected", "rejected"]);
  });
});
