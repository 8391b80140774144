// `tinyai generate --screening`: the text of a run without, and no log-probabilities that nobody knows.

import { expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { runProgram } from "../../src/setup/python.ts";
import { writeTinyModel } from "../support/tiny-model.ts";
import { temporaryFolder } from "./support.ts";

setDefaultTimeout(120_000);

const main = join(import.meta.dir, "..", "..", "src", "cli", "main.ts");

test("--screening gives the same text without log-probabilities, and is refused where the head has no screen", async () => {
  using folder = temporaryFolder();
  const generate = (path: string, ...more: string[]) => {
    const flags = [
      "--model",
      path,
      "--prompt",
      "once upon a time",
      "--max-length",
      "30",
      "--seed",
      "3",
      "--ignore-eos",
    ];
    return runProgram([process.execPath, main, "generate", ...flags, "--json", ...more], { env: process.env });
  };
  const path = join(folder.path, "tiny.gguf");
  writeTinyModel(path, { dtype: "Q8_0", vocabulary: 2000 });
  const plain = JSON.parse((await generate(path)).stdout);
  const screened = JSON.parse((await generate(path, "--screening")).stdout);
  expect([screened.text, screened.tokens]).toEqual([plain.text, plain.tokens]);
  expect([screened.logprobs.length, plain.logprobs.length]).toEqual([0, 30]);

  const other = join(folder.path, "float.gguf");
  writeTinyModel(other, { dtype: "F16" });
  const { status, stdout, stderr } = await generate(other, "--screening");
  expect({ status, stdout }).toEqual({ status: 2, stdout: "" });
  expect(stderr).toContain("the output head is in F16");
});
