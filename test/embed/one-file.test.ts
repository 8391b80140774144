// Search by meaning in one file: a program with an index, compiled, and bundled with the model inside, alone in an empty folder and
// without any environment.

import { beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, readdirSync, renameSync } from "node:fs";
import { join } from "node:path";
import { createIndex, loadModel, type SearchHit } from "../../src/index.ts";
import { runProgram } from "../../src/setup/python.ts";
import { compileProgram, entry, filesOpened, loading, runIn, unpackedLibrary } from "../bundle/support.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyEncoder } from "../support/tiny-encoder.ts";

setDefaultTimeout(120_000);

const main = join(import.meta.dir, "..", "..", "src", "cli", "main.ts");
const folder = temporaryFolder();
const model = folder.file("encoder.gguf");
const texts = ["the cat and the dog", "hello world", "once upon a time", ""];
const query = "hello there";
const { tuning } = loading;
const expected: { vectors: number[][]; hits: SearchHit[] } = { vectors: [], hits: [] };

const program = folder.write(
  "search.ts",
  `import { createIndex, loadModel } from ${JSON.stringify(entry)};
await using embedder = await loadModel(${JSON.stringify(model)}, { tuning: ${JSON.stringify(tuning)} });
const vectors = await embedder.embed(${JSON.stringify(texts)});
using index = await createIndex(vectors);
const hits = await index.search(await embedder.embed(${JSON.stringify(query)}), { count: 2 });
console.log(JSON.stringify({ vectors: vectors.map((vector) => [...vector]), hits }));
`,
);

beforeAll(async () => {
  writeTinyEncoder(model, { heads: 2 });
  await using embedder = await loadModel(model, { tuning });
  const vectors = await embedder.embed(texts);
  using index = await createIndex(vectors);
  expected.vectors.push(...vectors.map((vector) => [...vector]));
  expected.hits.push(...(await index.search(await embedder.embed(query), { count: 2 })));
});

/** Moves an executable into an empty folder. */
function moveAlone(executable: string): { empty: string; moved: string } {
  const empty = `${executable}-alone`;
  mkdirSync(empty);
  const moved = join(empty, "search");
  renameSync(executable, moved);
  return { empty, moved };
}

test("a compiled program finds what it finds uncompiled, with the same vectors", async () => {
  const output = folder.file("compiled");
  await compileProgram(program, output);
  const { empty, moved } = moveAlone(output);
  const { stdout, stderr } = await runIn(empty, [moved]);
  expect(stderr).toBe("");
  expect(JSON.parse(stdout)).toEqual(expected);
});

test("so does one with the model inside, which opens nothing but itself and the unpacked library", async () => {
  const output = folder.file("bundled");
  const command = [process.execPath, main, "bundle", program, "--model", model, "--outfile", output];
  const made = await runProgram(command, { env: { ...process.env, TINYAI_TUNING: "off" } });
  expect(made.status, made.stderr).toBe(0);
  renameSync(model, `${model}.gone`);
  const { empty, moved } = moveAlone(output);
  const { stdout, stderr } = await runIn(empty, [moved]);
  expect(stderr).toBe("");
  expect(JSON.parse(stdout)).toEqual(expected);
  if (Bun.which("strace") !== null) {
    expect((await filesOpened(empty, moved, folder.file("trace"))).sort()).toEqual([unpackedLibrary, moved].sort());
  }
  expect(readdirSync(empty)).toEqual(["search"]);
});
