// The `tinyai` command as one executable, as `bun run build:binary` makes it.

import { beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import manifest from "../../package.json" with { type: "json" };
import { buildBinary } from "../../src/setup/binary.ts";
import { compileProgram, runIn } from "../bundle/support.ts";
import { temporaryFolder } from "../support/folder.ts";
import { writeTinyEncoderFolder } from "../support/tiny-encoder.ts";
import { writeTinyModel } from "../support/tiny-model.ts";
import { dailyFiles } from "../support/trend-files.ts";

setDefaultTimeout(120_000);

/** Beyond a compiled program with nothing in it. */
const bytesMax = 25e6;

const folder = temporaryFolder();
const binary = folder.file("tinyai");
const elsewhere = folder.file("elsewhere");
const model = folder.file("model.gguf");
const large = folder.file("large.gguf");
const encoder = folder.file("encoder");
const env = { PATH: process.env["PATH"], TINYAI_HOME: folder.file("home"), TINYAI_TUNING: "off", TINYAI_HUB: "none" };

const tinyai = (...flags: string[]) => runIn(elsewhere, [binary, ...flags], env);

beforeAll(async () => {
  mkdirSync(elsewhere);
  writeTinyModel(model, { chatTemplate: "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}" });
  writeTinyEncoderFolder(encoder, { heads: 2 });
  mkdirSync(folder.file("texts"));
  folder.write("texts/a.txt", "once upon a time there was a word");
  writeTinyModel(large, { dtype: "F16", width: 256 });
  await buildBinary(binary);
});

test("it tells its version and adds at most 25 MB to an empty program", async () => {
  expect(await tinyai("--version")).toEqual({ status: 0, stdout: `${manifest.version}\n`, stderr: "" });
  const empty = folder.file("empty");
  await compileProgram(folder.write("empty.ts", ""), empty);
  expect(statSync(binary).size - statSync(empty).size).toBeLessThan(bytesMax);
});

test("it takes neither settings nor a .env from the folder that it is started in", async () => {
  const there = folder.file("there");
  mkdirSync(there);
  await Bun.write(join(there, "bunfig.toml"), 'preload = ["./preload.ts"]\n');
  await Bun.write(join(there, "preload.ts"), 'console.log("preloaded");\n');
  await Bun.write(join(there, ".env"), "TINYAI_SIMD=none-such\n");
  const { status, stdout } = await runIn(there, [binary, "inspect", model, "--json"], env);
  expect(status).toBe(0);
  expect(JSON.parse(stdout).architecture).toBe("llama");
  expect((await runIn(there, [binary, "doctor"], env)).stdout).not.toContain("none-such");
});

test("every verb works in it, but that nothing is pulled from a hub whose address is none", async () => {
  const words = folder.write("words.txt", "once upon a time there was a word and another word and one more word");
  const ordinary = ["--model", model, "--temperature", "0", "--max-length", "4"];
  const program = folder.write(
    "program.ts",
    `import { loadModel } from ${JSON.stringify(join(import.meta.dir, "../../src/index.ts"))};
await using model = await loadModel("model");
console.log((await model.generate("once", { maxLength: 3, ignoreEos: true })).tokens.length);`,
  );
  const verbs: Readonly<Record<string, readonly string[]>> = {
    generate: ["--prompt", "once", ...ordinary],
    chat: ["--message", "hello", ...ordinary],
    profile: ["--prompt", "once", ...ordinary, "--no-roofline", "--report", "report.html", "--trace", "trace.json"],
    pull: ["gemma3-270m"],
    prepare: [model, "--output", "model.tinyai"],
    inspect: [model],
    quantize: [large, "small.gguf", "--type", "Q8_0"],
    bundle: [program, "--model", model, "--outfile", "bundled"],
    perplexity: ["--model", model, "--file", words, "--context", "16"],
    score: ["--model", model, "--file", words],
    embed: ["once upon a time", "--model", encoder, "--json"],
    search: ["once upon", "--folder", folder.file("texts"), "--model", encoder],
    tune: ["--threads", "1"],
    benchmark: ["system"],
    doctor: [],
    pipe: [],
  };
  const { stdout } = await tinyai("--help");
  const listed = [...(stdout.split("Commands:")[1]?.split("\n\n")[0] ?? "").matchAll(/^ {2}([a-z]+) /gm)].map(
    ([, verb]) => verb ?? "",
  );
  expect(listed.filter((verb) => verb !== "help" && !Object.hasOwn(verbs, verb))).toEqual([]);
  for (const [verb, flags] of Object.entries(verbs)) {
    const { status, stderr } = await tinyai(verb, ...flags);
    if (verb === "pull") expect(stderr).toContain("TINYAI_HUB");
    else expect({ verb, status, stderr: status === 0 ? "" : stderr }).toEqual({ verb, status: 0, stderr: "" });
  }
  expect(readFileSync(join(elsewhere, "report.html"), "utf8")).toContain("</html>");
  for (const file of ["model.tinyai", "small.gguf", "trace.json"]) expect(existsSync(join(elsewhere, file))).toBe(true);
  // An executable that the command has made has the command's own runtime, and not the command.
  expect((await runIn(elsewhere, [join(elsewhere, "bundled")])).stdout).toBe("3\n");
});

test("every benchmark verb works in it", async () => {
  const few = ["--iterations", "10", "--generated-tokens", "2"];
  const verbs: Readonly<Record<string, readonly string[]>> = {
    system: ["--specs"],
    verify: ["--model", model],
    prepare: ["--model", model, "--output", "benchmarked.tinyai"],
    run: ["--model", "benchmarked.tinyai", ...few],
    compare: ["--models", model, "benchmarked.tinyai", ...few],
    analyze: ["--results", "benchmark_results.json"],
    trends: ["--results", "benchmark_results.json", "--metric", "latency"],
    checklist: ["--model", model],
    impact: ["--model", model, "--only", "speculation", "--budget", "0"],
  };
  const { stdout } = await tinyai("benchmark", "--help");
  const listed = [...(stdout.split("Commands:")[1]?.split("\n\n")[0] ?? "").matchAll(/^ {2}([a-z]+) /gm)];
  expect(listed.map(([, verb]) => verb).filter((verb) => verb !== "help")).toEqual(Object.keys(verbs));
  for (const [verb, flags] of Object.entries(verbs)) {
    const { status, stderr } = await tinyai("benchmark", verb, ...flags);
    expect({ verb, status, stderr: status === 0 ? "" : stderr }).toEqual({ verb, status: 0, stderr: "" });
  }
  for (const file of ["benchmark_results.json", "comparison_report.html", "trends.png"]) {
    expect(existsSync(join(elsewhere, file))).toBe(true);
  }
});

test("a picture of trends is the same as outside of it", async () => {
  const files = dailyFiles(8, () => 15).map(({ file, results }) => folder.write(file, JSON.stringify(results)));
  const flags = ["benchmark", "trends", "--results", ...files, "--output"];
  const { status, stdout } = await tinyai(...flags, "inside.png");
  expect(status).toBe(0);
  const main = join(import.meta.dir, "../../src/cli/main.ts");
  expect(await runIn(elsewhere, [process.execPath, main, ...flags, "outside.png"], env)).toMatchObject({
    status,
    stdout,
  });
  const [inside, outside] = ["inside.png", "outside.png"].map((name) => readFileSync(join(elsewhere, name)));
  expect(inside?.subarray(1, 4).toString()).toBe("PNG");
  expect(outside && inside?.equals(outside)).toBe(true);
});
