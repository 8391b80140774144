// `tinyai generate --session`: turns of one text, each in a process of its own.

import { expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { loadModel } from "../../src/index.ts";
import { runProgram } from "../../src/setup/python.ts";
import { writeTinyModel } from "../support/tiny-model.ts";
import { temporaryFolder } from "./support.ts";

setDefaultTimeout(120_000);

const main = join(import.meta.dir, "..", "..", "src", "cli", "main.ts");

test("a session's file takes a text from process to process, and what is no session is refused and stays", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "tiny.gguf");
  writeTinyModel(path, { architecture: "gemma3", layers: 6 });
  const file = join(folder.path, "story.session");
  const generate = async (prompt: string, session: string) => {
    const flags = ["--model", path, "--prompt", prompt, "--session", session];
    const options = ["--max-length", "30", "--temperature", "0", "--ignore-eos", "--json"];
    return runProgram([process.execPath, main, "generate", ...flags, ...options], { env: process.env });
  };

  await using model = await loadModel(path);
  const session = await model.session();
  let before = 0;
  for (const prompt of ["once upon a time", " and then", " the end"]) {
    const { status, stdout, stderr } = await generate(prompt, file);
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    const result = JSON.parse(stdout);
    const expected = await session.generate(prompt, { maxLength: 30, temperature: 0, ignoreEos: true });
    expect(result.tokens).toEqual(expected.tokens);
    expect(result.prompt_tokens).toBe(expected.promptTokens);
    expect(result.reused_tokens).toBe(before % 64 === 1 ? before - 1 : before);
    before = session.tokens.length;
  }

  const other = join(folder.path, "notes.txt");
  writeFileSync(other, "not a session, but somebody's notes");
  const { status, stdout, stderr } = await generate("hello", other);
  expect({ status, stdout }).toEqual({ status: 1, stdout: "" });
  expect(stderr).toContain("is no session");
  expect(await Bun.file(other).text()).toBe("not a session, but somebody's notes");
  expect(readdirSync(folder.path).sort()).toEqual(["notes.txt", "story.session", "tiny.gguf"]);
  expect((await generate("hello", "")).status).toBe(2);
});
