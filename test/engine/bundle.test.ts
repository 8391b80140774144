// A program that imports TinyAI as one file: compiled with the library inside, and bundled beside it.

import { expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyModel } from "../support/gguf-writer.ts";

const folder = temporaryFolder();

const entry = join(import.meta.dir, "../../src/index.ts");
const program = join(folder.path, "program.ts");
const model = join(folder.path, "model.gguf");
writeTinyModel(model, { architecture: "llama" });
writeFileSync(
  program,
  `import { loadModel } from ${JSON.stringify(entry)};
await using model = await loadModel(${JSON.stringify(model)}, { batchSize: 1 });
const { tokens } = await model.generate("a", { maxLength: 3, temperature: 0, ignoreEos: true });
console.log(tokens.length);
`,
);
const elsewhere = join(folder.path, "elsewhere");
mkdirSync(elsewhere);

function run(command: readonly string[], cwd: string) {
  const { exitCode, stdout, stderr } = Bun.spawnSync([...command], { cwd });
  return { exitCode, stdout: stdout.toString().trim(), stderr: stderr.toString() };
}

test("a compiled program has the library inside and runs from another folder", () => {
  const binary = join(folder.path, "program");
  const built = run([process.execPath, "build", "--compile", program, "--outfile", binary], folder.path);
  expect(built.exitCode, built.stderr).toBe(0);
  expect(run([binary], elsewhere)).toMatchObject({ exitCode: 0, stdout: "3" });
});

test("a bundle finds the library beside it, wherever it is started", () => {
  const out = join(folder.path, "out");
  const built = run([process.execPath, "build", "--target=bun", program, "--outdir", out], folder.path);
  expect(built.exitCode, built.stderr).toBe(0);
  expect(run([process.execPath, join(out, "program.js")], elsewhere)).toMatchObject({ exitCode: 0, stdout: "3" });
});
