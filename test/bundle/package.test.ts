// The npm packages, as `bun run pack` makes them: installed from a registry into an empty project, typed, run, compiled.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import manifest from "../../package.json" with { type: "json" };
import { hostSystem, systems } from "../../src/bundle/target.ts";
import { openLibrary } from "../../src/engine/library.ts";
import { loadModel } from "../../src/index.ts";
import { root } from "../../src/setup/checkout.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyModel } from "../support/tiny-model.ts";
import { installProject, type Project } from "./project.ts";
import { compileProgram, generatingProgram, generation, loading, runIn } from "./support.ts";

setDefaultTimeout(120_000);

const folder = temporaryFolder();
const model = folder.file("model.gguf");
let project: Project;

const bun = (...flags: string[]) => project.run([process.execPath, ...flags]);

beforeAll(async () => {
  writeTinyModel(model);
  project = await installProject(folder);
  writeFileSync(join(project.path, "app.ts"), generatingProgram([model], "tinyai"));
});

afterAll(() => project.close());

async function expectedOutput(): Promise<string> {
  await using loaded = await loadModel(model, loading);
  const tokens = [...(await loaded.generate("once upon", generation)).tokens];
  return `${JSON.stringify({ main: true, results: [{ path: model, tokens }] })}\n`;
}

test("installing brings the library of this system and no other", () => {
  expect(project.installedSystems()).toEqual([hostSystem]);
});

test("a program runs with it", async () => {
  const { stdout, stderr } = await bun("app.ts");
  expect(stderr).toBe("");
  expect(stdout).toBe(await expectedOutput());
});

test("a program is compiled with the library inside", async () => {
  await compileProgram(join(project.path, "app.ts"), folder.file("app"));
  const { stdout, stderr } = await runIn(project.packages, [folder.file("app")]);
  expect(stderr).toBe("");
  expect(stdout).toBe(await expectedOutput());
});

test("the command is installed, and bundles", async () => {
  expect((await bun("x", "tinyai", "--version")).stdout).toBe(`${manifest.version}\n`);
  const bundled = folder.file("bundled");
  const { status, stderr } = await bun("x", "tinyai", "bundle", "app.ts", "--model", model, "--outfile", bundled);
  expect(status, stderr).toBe(0);
  const [expected] = JSON.parse(await expectedOutput()).results;
  const { stdout } = await runIn(project.packages, [bundled]);
  expect(JSON.parse(stdout).results).toEqual([{ ...expected, path: bundled }]);
});

test.each(["preserve", "nodenext"])(
  "its types hold in a project that checks libraries too and has modules of kind %s",
  async (module) => {
    writeFileSync(
      join(project.path, "typed.ts"),
      `import { loadModel, type GenerateResult } from "tinyai";
import { prometheusText } from "tinyai/metrics";
import "tinyai/test";
await using model = await loadModel("gemma3-270m");
const result: GenerateResult = await model.generate("Once upon a time", { maxLength: 10 });
console.log(result.text, prometheusText(model.monitor()));
// @ts-expect-error: there is no such option.
await model.generate("Once upon a time", { length: 10 });
`,
    );
    const compilerOptions = { module, target: "esnext", lib: ["esnext"], types: ["bun"], strict: true, noEmit: true };
    const config = { compilerOptions: { ...compilerOptions, skipLibCheck: false }, files: ["typed.ts"] };
    writeFileSync(join(project.path, "tsconfig.json"), JSON.stringify(config));
    const { stdout } = await project.run([join(root, "node_modules", ".bin", "tsc"), "--project", "tsconfig.json"]);
    expect(stdout).toBe("");
  },
);

test.skipIf(Bun.which("node") === null)("Node is told in one line that it cannot run it", async () => {
  const app = `import { loadModel } from "tinyai";\nimport { prometheusText } from "tinyai/metrics";\nloadModel(prometheusText);\n`;
  writeFileSync(join(project.path, "app.mjs"), app);
  writeFileSync(join(project.path, "app.cjs"), 'const { loadModel } = require("tinyai");\nloadModel("gemma3-270m");\n');
  for (const file of ["app.mjs", "app.cjs"]) {
    const { status, stdout, stderr } = await project.run(["node", file]);
    expect({ file, status, stdout }).toEqual({ file, status: 1, stdout: "" });
    expect(stderr).toMatch(/^tinyai runs in Bun[^\n]*`bun`[^\n]*\n$/);
  }
});

test("every package says what it is, where it runs and under which licence", async () => {
  for (const name of readdirSync(project.packages)) {
    const archive = new Bun.Archive(readFileSync(join(project.packages, name)));
    const files = await archive.files();
    const packed = await files.get("package/package.json")?.json();
    expect(packed).toMatchObject({ version: manifest.version, license: "MIT", publishConfig: { provenance: true } });
    expect(packed.private).toBeUndefined();
    expect(await files.get("package/LICENSE")?.text()).toContain("MIT License");
    expect([...files.keys()].filter((path) => path.includes("test/") && !path.includes("src/test/"))).toEqual([]);
    if (packed.name === "tinyai") {
      const expected = Object.keys(systems).map((system) => [`@tinyai/${system}`, manifest.version]);
      expect(packed.optionalDependencies).toEqual(Object.fromEntries(expected));
    } else expect(`@tinyai/${packed.os[0]}-${packed.cpu[0]}`).toBe(packed.name);
  }
});

// Executables of one platform are made alike, whatever the architecture.
const foreign = { "linux-x64": "linux-arm64", "darwin-arm64": "darwin-x64" }[hostSystem];

test.skipIf(foreign === undefined)(
  "another system's executable gets that system's library, once it is installed",
  async () => {
    const output = folder.file("foreign");
    const flags = ["--model", model, "--outfile", output, "--target", `bun-${foreign}`];
    // No other Bun is fetched for it: this one says that it would do.
    const further = ["--", "--compile-executable-path", process.execPath];
    const bundle = () => bun("x", "tinyai", "bundle", "app.ts", ...flags, ...further);
    const refused = await bundle();
    expect(refused.status).toBe(1);
    expect(refused.stderr).toContain(`no native library for ${foreign}`);
    expect(refused.stderr).toContain("bun install --os=* --cpu=*");
    expect(existsSync(output)).toBe(false);

    const installed = await bun("install", "--os=*", "--cpu=*");
    expect(installed.status, installed.stderr).toBe(0);
    expect(project.installedSystems()).toEqual(Object.keys(systems).sort());
    const made = await bundle();
    expect(made.status, made.stderr).toBe(0);
    const executable = readFileSync(output);
    const { path } = await openLibrary();
    expect(executable.includes(project.otherLibrary)).toBe(true);
    expect(executable.includes(readFileSync(path).subarray(0, 1000))).toBe(false);
    expect(executable.indexOf("TinyAI\x1a\n") % (2 << 20)).toBe(0);
  },
);
