// Scripts that run in a process of their own, for what must not happen to the tests': limits, exits, crashes.

import { join } from "node:path";
import type { TemporaryFolder } from "../support/folder.ts";

export interface ScriptResult {
  readonly code: number | null;
  /** The signal that ended it; null if it ended by itself. */
  readonly signal: string | number | null;
  readonly output: string;
  readonly errors: string;
}

const root = join(import.meta.dir, "../..");
let scripts = 0;

/** Runs `source`, which may use `loadModel` and `path`, with the modules of the checkout. It is killed after 20 s. */
export async function runScript(
  folder: TemporaryFolder,
  path: string,
  source: string,
  environment: Record<string, string> = {},
): Promise<ScriptResult> {
  const header = `import { loadModel } from ${JSON.stringify(join(root, "src/index.ts"))};\nconst path = ${JSON.stringify(path)};\n`;
  const script = folder.write(`script${scripts++}.ts`, header + source);
  const child = Bun.spawn([process.execPath, script], {
    env: { ...process.env, ...environment },
    stdout: "pipe",
    stderr: "pipe",
    timeout: 20_000,
    killSignal: "SIGKILL",
  });
  const [output, errors, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return { code: child.signalCode ? null : code, signal: child.signalCode, output, errors };
}
