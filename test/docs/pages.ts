// The pages under docs/ and the README, and how their examples are run. A fence's info string says what becomes of it:
//
//   ```ts                  a program; it is type-checked and run in a folder of the page's own, after those above it
//   ```ts file=server.ts   type-checked and written there, for later blocks to run or import
//   ```ts unrun            type-checked only
//   ```sh                  run by a shell in the page's folder
//   ```sh background       the same, until the page has ended; `localhost:3000` is a free port in all of the page's blocks
//   ```sh unrun            not run
//   ```python unrun        not run: tests of the Python package run such programs
//   ```text output         what the block above it printed: on stdout, or on stderr if it failed. An … stands for anything.
//   ```text output real    the same, where the models are the real ones
//
// `status=2` beside the others is the exit status of a block that fails. It is not a test.

import { chmodSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { dirname, join } from "node:path";
import { root } from "../../src/setup/checkout.ts";
import { runProgram } from "../../src/setup/python.ts";
import { writeTinyModel } from "../support/tiny-model.ts";

/** What pages call `model.gguf` is a chat model. */
const chatTemplate =
  "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}";

export interface Block {
  readonly language: string;
  /** What follows the language. */
  readonly words: readonly string[];
  readonly text: string;
  /** The line of its fence, from 1. */
  readonly line: number;
}

export interface Page {
  /** Relative to the checkout. */
  readonly path: string;
  readonly text: string;
  readonly blocks: readonly Block[];
}

/** Where examples are run. */
export interface Stage {
  /** `path` is a page's; the folder is made. */
  readonly folder: (path: string) => string;
  /** TINYAI_HOME of the examples. */
  readonly home: string;
  /** Whether the models in it are the real ones. */
  readonly real: boolean;
  readonly bin: string;
}

/** A block that did not do what its page says. */
export interface Failure {
  /** Such as `docs/system.md:12`. */
  readonly at: string;
  readonly problem: string;
}

/** Languages and words that a fence may have; anything else is a slip that would let an example go unrun. */
const fences =
  /^(ts( unrun| file=[\w.-]+)?( status=\d+)?|sh( unrun| background)?( status=\d+)?|text( output( real)?)?|json|python unrun|)$/;

export function readPages(): Page[] {
  const documents = readdirSync(join(root, "docs"), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".md"))
    .map((name) => join("docs", name));
  return ["README.md", ...documents.sort()].map(readPage);
}

export function readPage(path: string): Page {
  const text = readFileSync(join(root, path), "utf8");
  const blocks: Block[] = [];
  for (const match of text.matchAll(/^```(.*)\n([\s\S]*?)^```$/gm)) {
    const [, info = "", body = ""] = match;
    const [language = "", ...words] = info.split(" ");
    blocks.push({ language, words, text: body, line: text.slice(0, match.index).split("\n").length });
  }
  return { path, text, blocks };
}

/** Fences that say something unknown, and outputs that follow no example. */
export function strayFences({ path, blocks }: Page): Failure[] {
  return blocks.flatMap(({ language, words, line }, index) => {
    const info = [language, ...words].join(" ");
    const at = `${path}:${line}`;
    if (!fences.test(info)) return [{ at, problem: `an unknown fence: ${info}` }];
    const before = blocks[index - 1];
    if (words.includes("output") && !(before && isRun(before))) return [{ at, problem: "an output of nothing" }];
    return [];
  });
}

function isRun({ language, words }: Block): boolean {
  return (language === "ts" || language === "sh") && !words.includes("unrun") && fileOf(words) === undefined;
}

function fileOf(words: readonly string[]): string | undefined {
  return words.find((word) => word.startsWith("file="))?.slice("file=".length);
}

/** The file that a TypeScript block is written to. */
function nameOf({ words, line }: Block): string {
  return fileOf(words) ?? `example-${line}.ts`;
}

/** A stage in `folder`, in which `tinyai` is this checkout, as in a project that depends on it. */
export function makeStage(folder: string, home: string, real: boolean): Stage {
  const modules = join(folder, "node_modules");
  const bin = join(folder, "bin");
  for (const path of [modules, bin]) mkdirSync(path, { recursive: true });
  symlinkSync(root, join(modules, "tinyai"));
  for (const name of ["@types", "@opentelemetry", "bun-types", "prom-client"])
    symlinkSync(join(root, "node_modules", name), join(modules, name));
  symlinkSync(process.execPath, join(bin, "bun"));
  const command = join(bin, "tinyai");
  writeFileSync(command, `#!/bin/sh\nexec "${process.execPath}" "${join(root, "src", "cli", "main.ts")}" "$@"\n`);
  chmodSync(command, 0o755);
  return {
    home,
    real,
    bin,
    folder(path) {
      const place = join(folder, "pages", path.replace(/\.md$/, ""));
      mkdirSync(place, { recursive: true });
      writeTinyModel(join(place, "model.gguf"), { chatTemplate, context: 4096 });
      return place;
    },
  };
}

/** Type-checks every TypeScript block of the pages as the strictest project would, without running any. */
export async function checkTypes(pages: readonly Page[], folder: string): Promise<Failure[]> {
  const stage = makeStage(folder, folder, false);
  const places = new Map<string, string>();
  for (const { path, blocks } of pages) {
    for (const block of blocks.filter(({ language }) => language === "ts")) {
      const file = join(stage.folder(path), nameOf(block));
      writeFileSync(file, block.text);
      places.set(file, `${path}:${block.line}`);
    }
  }
  const settings = {
    extends: join(root, "tsconfig.json"),
    compilerOptions: { paths: {}, typeRoots: [join(root, "node_modules", "@types")] },
    include: ["pages/**/*.ts"],
  };
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify(settings));
  const tsc = await runProgram(
    [join(root, "node_modules", ".bin", "tsc"), "--noEmit", "--pretty", "false", "-p", "."],
    {
      cwd: folder,
    },
  );
  const problems = tsc.stdout.split("\n").filter((line) => line.includes("error TS"));
  return problems.map((problem) => {
    const file = problem.slice(0, problem.indexOf("("));
    return { at: places.get(join(folder, file)) ?? file, problem };
  });
}

/** Runs a page's blocks in their order. */
export async function runPage({ path, blocks }: Page, stage: Stage): Promise<Failure[]> {
  const folder = stage.folder(path);
  const port = String(await freePort());
  const own = (text: string): string => text.replaceAll("localhost:3000", `localhost:${port}`);
  const env = environment(stage, port);
  const failures: Failure[] = [];
  const background: Bun.Subprocess[] = [];
  try {
    for (const [index, block] of blocks.entries()) {
      if (block.language === "ts") writeFileSync(join(folder, nameOf(block)), own(block.text));
      if (!isRun(block)) continue;
      const command = block.language === "ts" ? [process.execPath, nameOf(block)] : ["/bin/sh", "-ec", own(block.text)];
      if (block.words.includes("background")) {
        background.push(Bun.spawn(command, { cwd: folder, env, stdio: ["ignore", "ignore", "ignore"] }));
        await answers(port);
        continue;
      }
      const problem = judge(block, blocks[index + 1], stage.real, await runProgram(command, { cwd: folder, env }), own);
      if (problem !== undefined) failures.push({ at: `${path}:${block.line}`, problem });
    }
  } finally {
    for (const child of background) child.kill();
    await Promise.all(background.map((child) => child.exited));
  }
  return failures;
}

function judge(
  { words }: Block,
  next: Block | undefined,
  real: boolean,
  { status, stdout, stderr }: Awaited<ReturnType<typeof runProgram>>,
  own: (text: string) => string,
): string | undefined {
  const wanted = Number(words.find((word) => word.startsWith("status="))?.slice("status=".length) ?? 0);
  const printed = wanted === 0 ? stdout : stderr;
  if (status !== wanted) return `ended with status ${status}, not ${wanted}:\n${stdout}${stderr}`;
  if (!next?.words.includes("output") || (next.words.includes("real") && !real)) return undefined;
  return outputPattern(own(next.text)).test(printed.trim())
    ? undefined
    : `printed:\n${printed}instead of:\n${next.text}`;
}

/** Matches the output that a page shows. */
function outputPattern(shown: string): RegExp {
  const literal = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  return new RegExp(`^${shown.trim().split("…").map(literal).join("[\\s\\S]*?")}$`);
}

/** What examples see of this process's environment: what a test run or a developer sets must not change them. */
function environment({ home, bin }: Stage, port: string): NodeJS.ProcessEnv {
  const env: NodeJS.ProcessEnv = { ...process.env, TINYAI_HOME: home, TINYAI_TUNING: "off", PORT: port };
  for (const name of ["CI", "TINYAI_SIMD", "TINYAI_DEBUG", "TINYAI_HUB", "TINYAI_LIBRARY", "BUN_PORT"])
    delete env[name];
  env["PATH"] = `${bin}:${process.env["PATH"] ?? ""}`;
  return env;
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((done) => server.listen(0, done));
  const address = server.address();
  await new Promise((done) => server.close(done));
  if (address === null || typeof address === "string") throw new Error("a server without a port");
  return address.port;
}

async function answers(port: string): Promise<void> {
  for (let tries = 0; tries < 400; tries++) {
    try {
      await fetch(`http://localhost:${port}/`);
      return;
    } catch {
      await Bun.sleep(50);
    }
  }
  throw new Error("the example's server does not answer");
}

/** Relative links of a page that lead nowhere: to no file, or to no heading of it. */
export function deadLinks({ path, text }: Page): Failure[] {
  const prose = text.replace(/^```[\s\S]*?^```$/gm, (block) => block.replace(/[^\n]/g, " ")).replace(/`[^`\n]*`/g, "");
  const failures: Failure[] = [];
  for (const match of prose.matchAll(/\]\(([^)\s]+)\)/g)) {
    const [, link = ""] = match;
    if (/^[a-z]+:/.test(link)) continue;
    const [file = "", anchor] = link.split("#");
    const target = join(dirname(path), file);
    const at = `${path}:${text.slice(0, match.index).split("\n").length}`;
    if (!leads(file === "" ? path : target, anchor)) failures.push({ at, problem: `a dead link: ${link}` });
  }
  return failures;
}

function leads(path: string, anchor: string | undefined): boolean {
  try {
    const text = path.endsWith(".md") || anchor !== undefined ? readFileSync(join(root, path), "utf8") : "";
    if (text === "") return readdirSync(join(root, dirname(path))).includes(path.split("/").at(-1) ?? "");
    return anchor === undefined || headings(text).includes(anchor);
  } catch {
    return false;
  }
}

/** As GitHub makes anchors of headings. */
function headings(text: string): string[] {
  return [...text.matchAll(/^#+ (.+)$/gm)].map(([, heading = ""]) =>
    heading
      .toLowerCase()
      .replace(/[^\p{L}\p{N}\s_-]/gu, "")
      .replaceAll(" ", "-"),
  );
}
