// What verbs of `tinyai benchmark` write: never in the place of what they read, links included; and whole, whatever standard output takes.

import { expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, linkSync, mkdirSync, readdirSync, readFileSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { OptionError } from "../src/errors.ts";
import { checkOutput, modelFiles } from "../src/output.ts";
import { runProgram } from "../src/setup/python.ts";
import { inferenceResults } from "./support/benchmark-results.ts";
import { temporaryFolder } from "./support/folder.ts";
import { writeTinyModel } from "./support/tiny-model.ts";

setDefaultTimeout(60_000);

const folder = temporaryFolder();
const main = join(import.meta.dir, "../src/cli/main.ts");
writeTinyModel(folder.file("tiny.gguf"));

test("an output in the place of a model, a configuration or results is refused with 2, and all stays as it was", async () => {
  writeTinyModel(folder.file("model.gguf"));
  // A model by its content, whatever its ending.
  writeTinyModel(folder.file("model.html"));
  symlinkSync("model.gguf", folder.file("link.json"));
  linkSync(folder.file("model.gguf"), folder.file("hard.json"));
  folder.write("results.html", JSON.stringify(inferenceResults()));
  folder.write("other.json", JSON.stringify(inferenceResults()));
  symlinkSync("results.html", folder.file("link.html"));
  folder.write("config.json", '{ "iterations": 1 }');
  mkdirSync(folder.file("saved"));
  symlinkSync("../model.gguf", folder.file("saved/results_2_model.html.json"));
  const model = ["--model", "model.gguf"];
  const results = ["--results", "results.html"];
  const models = ["--models", "model.gguf", "model.html"];
  const wrong: readonly (readonly [words: readonly string[], output: string, problem: string])[] = [
    [["run", ...model], "link.json", "is the model itself"],
    [["run", ...model, "--config", "config.json"], "config.json", "is the configuration itself"],
    [["impact", ...model], "link.json", "is the model itself"],
    [["impact", ...model], "hard.json", "is the model itself"],
    [["compare", ...models], "model.html", "is the model itself"],
    [["compare", ...results, "other.json"], "link.html", "is a file of results that is compared"],
    [["analyze", ...results], "link.html", "is the file of results itself"],
    [["trends", ...results, "other.json"], "link.html", "is one of the files of results"],
  ];
  const contents = () => readdirSync(folder.path).map((name) => name !== "saved" && readFileSync(folder.file(name)));
  const before = contents();
  const refused = async (words: readonly string[], message: string) => {
    const command = [process.execPath, main, "benchmark", ...words];
    const env = { ...process.env, TINYAI_HOME: folder.file("home") };
    const { status, stdout, stderr } = await runProgram(command, { cwd: folder.path, env });
    expect({ words, status, stdout, stderr }).toEqual({ words, status: 2, stdout: "", stderr: message });
  };
  await Promise.all([
    ...wrong.map(([words, output, problem]) =>
      refused([...words, "--output", output], `tinyai: --output: ${output} ${problem}; name another file\n`),
    ),
    refused(
      ["compare", ...models, "--save", "saved"],
      `tinyai: --save: ${join("saved", "results_2_model.html.json")} is the model itself; name another file\n`,
    ),
  ]);
  expect(contents()).toEqual(before);
});

test("of a model's folder its parts are refused, and results that lie beside them are not", () => {
  mkdirSync(folder.file("network/1_Pooling"), { recursive: true });
  const parts = ["config.json", "tokenizer.json", "model.safetensors", "1_Pooling/config.json"];
  for (const name of [...parts, "results.json"]) folder.write(`network/${name}`, "");
  symlinkSync("nowhere", folder.file("network/lost"));
  symlinkSync("round", folder.file("network/round"));
  const inputs = modelFiles(folder.file("network"));
  for (const name of parts) {
    expect(() => checkOutput("--output", folder.file(`network/${name}`), inputs)).toThrow(OptionError);
  }
  checkOutput("--output", folder.file("network/results.json"), inputs);
  expect(modelFiles("no-such-model")).toEqual([]);
});

test.skipIf(!existsSync("/dev/full"))(
  "a full standard output is told in a line with 1, and costs no file",
  async () => {
    folder.write("drawn.json", JSON.stringify(inferenceResults()));
    await Promise.all(
      [
        ["run", "--model", "tiny.gguf", "--iterations", "3", "--output", "full.json"],
        ["analyze", "--results", "drawn.json", "--output", "page.html"],
      ].map(async (words) => {
        const env = { ...process.env, TINYAI_HOME: folder.file("home") };
        const command = ["sh", "-c", '"$0" "$@" >/dev/full', process.execPath, main, "benchmark", ...words];
        const { status, stderr } = await runProgram(command, { cwd: folder.path, env });
        const output = words.at(-1) ?? "";
        expect({ words, status }).toEqual({ words, status: 1 });
        expect(stderr).toEndWith(
          `wrote ${output}\ntinyai: standard output cannot be written: ENOSPC: no space left on device; print elsewhere\n`,
        );
        expect(readFileSync(folder.file(output)).length).toBeGreaterThan(1000);
      }),
    );
    expect(readdirSync(folder.path).filter((name) => name.endsWith(".tmp"))).toEqual([]);
  },
);
