// `tinyai bundle`: a program, the library and models in one executable, which needs nothing else.

import { beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { copyFileSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { placeParts } from "../../src/bundle/bundle.ts";
import { loadModel, prepareModel } from "../../src/index.ts";
import { runProgram } from "../../src/setup/python.ts";
import { temporaryFolder } from "../support/folder.ts";
import { Random } from "../support/random.ts";
import { writeTinyModel } from "../support/tiny-model.ts";
import { filesOpened, generatingProgram, generation, loading, runIn, unpackedLibrary } from "./support.ts";

setDefaultTimeout(120_000);

const main = join(import.meta.dir, "..", "..", "src", "cli", "main.ts");
const folder = temporaryFolder();
const env = { ...process.env, TINYAI_HOME: folder.file("home"), TINYAI_TUNING: "off" };
const [llama, qwen] = [folder.file("llama.gguf"), folder.file("qwen.tinyai")];
const program = folder.write(
  "program.ts",
  `${generatingProgram(["llama", qwen, "llama.gguf"])}declare const WORD: string;\nconsole.error(WORD);\n`,
);
/** Where the executable is moved to; there is nothing else in it. */
const empty = folder.file("empty");
const moved = join(empty, "moved");

function bundle(...flags: string[]): ReturnType<typeof runProgram> {
  return runProgram([process.execPath, main, "bundle", ...flags], { env });
}

const tokens: number[][] = [];

beforeAll(async () => {
  mkdirSync(empty);
  writeTinyModel(llama);
  const source = folder.file("source.gguf");
  writeTinyModel(source, { architecture: "qwen2" });
  await prepareModel(source, { output: qwen });
  for (const path of [llama, qwen]) {
    await using model = await loadModel(path, loading);
    tokens.push([...(await model.generate("once upon", generation)).tokens]);
  }
  const output = folder.file("out/program");
  const further = ["--", "--minify", "--define", 'WORD="defined"'];
  const made = await bundle(program, "--model", llama, "--model", qwen, "--outfile", output, "--json", ...further);
  expect(made.status, made.stderr).toBe(0);
  const { models, ...rest } = JSON.parse(made.stdout);
  expect(rest).toEqual({ path: output, bytes: Bun.file(output).size });
  expect(models.map(({ names }: { names: string[] }) => names)).toEqual([
    [llama, "llama.gguf", "llama"],
    [qwen, "qwen.tinyai", "qwen"],
  ]);
  expect(readdirSync(folder.file("out"))).toEqual(["program"]);
  renameSync(output, moved);
  // Nothing of what went in is there any more.
  for (const path of [llama, qwen, program, source]) renameSync(path, `${path}.gone`);
});

test("the program finds its models inside itself, by the names they were given and by their files'", async () => {
  const { status, stdout, stderr } = await runIn(empty, [moved]);
  // What `bun build` was given behind --.
  expect(stderr).toBe("defined\n");
  expect(status).toBe(0);
  const [first = [], second = []] = tokens;
  const results = [first, second, first].map((expected) => ({ path: moved, tokens: expected }));
  expect(JSON.parse(stdout)).toEqual({ main: true, results });
});

test.skipIf(Bun.which("strace") === null)(
  "the program opens nothing but itself, what the system is and the library where Bun unpacks it",
  async () => {
    expect((await filesOpened(empty, moved, folder.file("trace"))).sort()).toEqual([unpackedLibrary, moved].sort());
  },
);

test("a model that is damaged inside the executable is refused, and not another read in its place", async () => {
  const bytes = readFileSync(moved);
  const at = bytes.indexOf("TinyAI\x1a\n");
  bytes[at + 200] = (bytes[at + 200] ?? 0) ^ 1;
  const damaged = folder.file("damaged");
  copyFileSync(moved, damaged);
  writeFileSync(damaged, bytes);
  const { status, stderr } = await runIn(empty, [damaged]);
  expect(status).toBe(1);
  expect(stderr).toContain(`ModelFileError: ${damaged}: header.checksum: does not match`);
  expect(stderr).toContain("bundle the program anew");
});

test("Ctrl-C ends bundling with status 130 and leaves nothing half-written", async () => {
  const out = folder.file("interrupted");
  mkdirSync(out);
  const [source, model] = [`${program}.gone.ts`, `${qwen}.gone`];
  copyFileSync(`${program}.gone`, source);
  const command = [process.execPath, main, "bundle", source, "--model", model, "--outfile", join(out, "program")];
  const child = Bun.spawn(command, { env, stdio: ["ignore", "ignore", "pipe"] });
  const begun = () =>
    readdirSync(out, { recursive: true, encoding: "utf8" }).some((name) => name.includes("bun-build"));
  while (!begun() && child.exitCode === null) await Bun.sleep(1);
  child.kill("SIGINT");
  expect(await child.exited).toBe(130);
  expect(await child.stderr.text()).not.toContain("    at ");
  expect(readdirSync(out)).toEqual([]);
});

test("what cannot be bundled is refused with a reason, and nothing is written", async () => {
  const [source, model, out] = [`${program}.gone.ts`, `${qwen}.gone`, folder.file("refused")];
  mkdirSync(out);
  copyFileSync(`${program}.gone`, source);
  const output = join(out, "program");
  const plain = folder.write("plain.ts", "console.log(1);");
  const broken = folder.write("broken.ts", "import {");
  const foreign = `bun-${process.platform === "darwin" ? "linux-x64" : "darwin-arm64"}-musl`;
  const cases: [flags: string[], status: number, reason: string][] = [
    [[folder.file("none.ts"), "--model", model], 2, "there is no file"],
    [[source, "--model", "no-such-model"], 2, "no model named"],
    [[source, "--model", plain], 1, "plain.ts"],
    [[plain, "--model", model], 2, "does not import tinyai"],
    [[broken, "--model", model], 1, "cannot be compiled"],
    [[source, "--model", model, "--target", foreign], 2, "--target"],
  ];
  for (const [flags, status, reason] of cases) {
    const refused = await bundle("--outfile", output, ...flags);
    expect({ flags, status: refused.status, stdout: refused.stdout }).toEqual({ flags, status, stdout: "" });
    expect(refused.stderr).toContain(reason);
  }
  mkdirSync(folder.file("encoder"));
  mkdirSync(folder.file("other"));
  const part = folder.write("encoder/config.json", "{}");
  const namesake = folder.write("other/qwen.tinyai.gone", "another model");
  const taken: [flags: string[], reason: string][] = [
    [["--model", model, "--outfile", source], `${source} is the program itself`],
    [["--model", model, "--outfile", model], `${model} is the model itself`],
    [["--model", model, folder.file("encoder"), "--outfile", part], `${part} is a file of the model`],
    [
      ["--model", model, namesake, "--outfile", output],
      "both of which would be called qwen.tinyai.gone in the program",
    ],
  ];
  for (const [flags, reason] of taken) {
    const refused = await bundle(source, ...flags);
    expect({ flags, status: refused.status }).toEqual({ flags, status: 2 });
    expect(refused.stderr).toContain(reason);
  }
  expect(readdirSync(out)).toEqual([]);
});

describe("models' places", () => {
  /** Where models begin if each lies behind its padding, a byte of Bun's between any two. */
  function layOut(start: number, parts: readonly { padding: { bytes: number }; bytes: number }[]): number[] {
    let end = start;
    return parts.map(({ padding, bytes }) => {
      const begin = end + 1 + padding.bytes + 1;
      end = begin + bytes;
      return begin;
    });
  }

  test("are aligned and right after one look at what Bun made, with less than 2 MiB of padding before each", () => {
    const random = new Random(7);
    for (let round = 0; round < 200; round++) {
      const start = random.below(2 ** 28);
      const parts = Array.from({ length: 1 + (round % 4) }, () => ({
        padding: { path: "", bytes: 1 },
        bytes: 1 + random.below(2 ** 24),
        offset: 0,
      }));
      placeParts(parts, layOut(start, parts));
      expect(parts.map(({ offset }) => offset)).toEqual(layOut(start, parts));
      for (const { offset, padding } of parts) {
        expect(offset % (2 << 20)).toBe(0);
        expect(padding.bytes).toBeGreaterThan(0);
        expect(padding.bytes).toBeLessThanOrEqual(2 << 20);
      }
    }
  });
});
