// A program that imports TinyAI as one file: compiled with the library inside, and bundled beside it.

import { beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { openLibrary } from "../../src/engine/library.ts";
import { loadModel } from "../../src/index.ts";
import { runProgram } from "../../src/setup/python.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyModel } from "../support/tiny-model.ts";
import { compileProgram, entry, generatingProgram, generation, loading, runIn } from "./support.ts";

setDefaultTimeout(120_000);

const folder = temporaryFolder();
const model = folder.file("model.gguf");
const program = folder.write("program.ts", generatingProgram([model]));
const binary = folder.file("program");
const elsewhere = folder.file("elsewhere");

beforeAll(async () => {
  mkdirSync(elsewhere);
  writeTinyModel(model, { chatTemplate: "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}" });
  await compileProgram(program, binary);
});

async function expectedTokens(): Promise<number[]> {
  await using loaded = await loadModel(model, loading);
  return [...(await loaded.generate("once upon", generation)).tokens];
}

test("a compiled program has the library inside and needs no environment", async () => {
  const { status, stdout, stderr } = await runIn(elsewhere, [binary]);
  expect(stderr).toBe("");
  expect(status).toBe(0);
  expect(JSON.parse(stdout)).toEqual({ main: true, results: [{ path: model, tokens: await expectedTokens() }] });
});

test("a bundle finds the library beside it, wherever it is started", async () => {
  const out = folder.file("out");
  const built = await runProgram([process.execPath, "build", "--target=bun", program, "--outdir", out]);
  expect(built.status, built.stderr).toBe(0);
  const { stdout } = await runIn(elsewhere, [process.execPath, join(out, "program.js")]);
  expect(JSON.parse(stdout).results[0].tokens).toEqual(await expectedTokens());
});

test("what is loaded only when it is used is in a compiled program too", async () => {
  const source = `import { createPerformanceAnalysis, loadModel } from ${JSON.stringify(entry)};
import { prometheusText } from ${JSON.stringify(join(entry, "../metrics/index.ts"))};
const analysis = createPerformanceAnalysis();
const watched = await loadModel(${JSON.stringify(model)}, ${JSON.stringify(loading)});
await watched.generate([{ role: "user", content: "hello" }], ${JSON.stringify(generation)});
await analysis.generateReport("analysis.txt");
analysis.close();
const monitor = watched.monitor();
const run = await watched.profile(() => watched.generate("hello", ${JSON.stringify(generation)}), { roofline: false });
for (const ending of ["html", "txt", "json", "trace.json", "speedscope.json", "folded", "prom"]) await run.write("report." + ending);
await Bun.write("monitor.prom", prometheusText(monitor));
const session = await watched.session();
await session.generate("hello", ${JSON.stringify(generation)});
await session.save("a.session");
await watched.close();
`;
  await compileProgram(folder.write("lazy.ts", source), folder.file("lazy"));
  const there = folder.file("there");
  mkdirSync(there);
  const { status, stderr } = await runIn(there, [folder.file("lazy")]);
  expect(stderr).toBe("");
  expect(status).toBe(0);
  const names = ["html", "txt", "json", "trace.json", "speedscope.json", "folded", "prom"];
  const reports = names.map((ending) => `report.${ending}`);
  expect(readdirSync(there).sort()).toEqual([...reports, "a.session", "analysis.txt", "monitor.prom"].sort());
  expect(readFileSync(join(there, "report.html"), "utf8")).toContain("</html>");
});

test.skipIf(process.platform !== "linux")(
  "where the library cannot be unpacked, the error names the folder and the ways out, of which one is to name a library",
  async () => {
    const nowhere = { TMPDIR: "/dev/null/nowhere" };
    const refused = await runIn(elsewhere, [binary], nowhere);
    expect(refused.status).toBe(1);
    expect(refused.stderr).toContain("LibraryError");
    for (const word of [nowhere.TMPDIR, "TMPDIR", "TINYAI_LIBRARY"]) expect(refused.stderr).toContain(word);
    const { path } = await openLibrary();
    const named = await runIn(elsewhere, [binary], { ...nowhere, TINYAI_LIBRARY: path });
    expect(named.stderr).toBe("");
    expect(named.status).toBe(0);
  },
);
