// What the tests of compiled programs share: a program that loads a model and prints what came of it. It is not a test.

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
