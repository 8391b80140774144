// What the tests of compiled programs share: a program that loads a model and prints what came of it. It is not a test.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type Finished, runProgram } from "../../src/setup/python.ts";

/** The public entry, as a program imports it that has no package installed. */
export const entry = join(import.meta.dir, "../../src/index.ts");

/** Deterministic, and the machine's tuning, which lies in TinyAI's folder, is left alone. */
export const loading = { batchSize: 1, tuning: "fixed" } as const;
export const generation = { maxLength: 6, temperature: 0, ignoreEos: true } as const;

/** A program that prints, as JSON, the path of each model and the tokens that it gives. */
export function generatingProgram(models: readonly string[], from = entry): string {
  return `import { loadModel } from ${JSON.stringify(from)};
const results: { path: string; tokens: number[] }[] = [];
for (const name of ${JSON.stringify(models)}) {
  await using model = await loadModel(name, ${JSON.stringify(loading)});
  const { tokens } = await model.generate("once upon", ${JSON.stringify(generation)});
  results.push({ path: model.path, tokens: [...tokens] });
}
console.log(JSON.stringify({ main: import.meta.main, results }));
`;
}

/** Compiles a program with nothing but `bun build --compile`. */
export async function compileProgram(program: string, output: string): Promise<void> {
  const built = await runProgram([process.execPath, "build", "--compile", program, "--outfile", output]);
  if (built.status !== 0) throw new Error(built.stderr);
}

/** Runs a command in `cwd`, by default without any environment. */
export function runIn(cwd: string, command: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Finished> {
  return runProgram(command, { cwd, env });
}

/**
 * The files that a program opens, run as by `runIn`, but for those that make up the system; strace must be there. What differs from
 * one time to the next in the name of a library that Bun unpacks is `*`.
 */
export async function filesOpened(cwd: string, program: string, trace: string): Promise<string[]> {
  const command = ["strace", "-f", "-qq", "-e", "trace=open,openat,openat2", "-o", trace, program];
  const { status, stderr } = await runIn(cwd, command);
  if (status !== 0) throw new Error(stderr);
  const opened = readFileSync(trace, "utf8")
    .split("\n")
    .filter((line) => /open(at2?)?\(/.test(line) && !line.includes(" = -1 ") && !line.includes("O_DIRECTORY"))
    .map((line) => /"([^"]*)"/.exec(line)?.[1] ?? line);
  const system = /^\/(proc|sys|dev|etc|lib|lib64|usr\/lib|usr\/lib64|usr\/share\/zoneinfo)\//;
  return [...new Set(opened.filter((path) => !system.test(path)).map((path) => path.replace(/-[0-9a-f]{16}/, "-*")))];
}

/** Where Bun unpacks the library when there is no environment that says otherwise. */
export const unpackedLibrary = `/tmp/.bun-${process.getuid?.()}-*.so`;
