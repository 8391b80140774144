// Runs test files of a user's in `bun test` processes of their own, as a user would. It is not a test.

import { join, resolve } from "node:path";
import type { Report } from "../../profiler/report.ts";
import { runProgram } from "../../src/setup/python.ts";
import type { TemporaryFolder } from "../support/folder.ts";

const matchers = join(resolve(import.meta.dir, "..", ".."), "src", "test", "index.ts");

export interface TestRun {
  readonly status: number | null;
  /** What `bun test` printed. */
  readonly output: string;
}

/**
 * Runs one test whose body is `body`, with `run` being `report` as JSON gives it.
 * @param environment beside this process's own, without CI.
 */
export async function runTest(
  folder: TemporaryFolder,
  report: Report | readonly Report[],
  body: string,
  { environment = {}, flags = [] }: { environment?: Record<string, string>; flags?: readonly string[] } = {},
): Promise<TestRun> {
  folder.write("run.json", JSON.stringify(report));
  folder.write(
    "model.test.ts",
    `import { expect, test } from "bun:test";
import ${JSON.stringify(matchers)};
const run = await Bun.file(${JSON.stringify(folder.file("run.json"))}).json();
test("the model", async () => {
${body}
});
`,
  );
  const { CI, TINYAI_UPDATE_BASELINES, ...inherited } = process.env;
  const command = [process.execPath, "test", ...flags, "model.test.ts"];
  const { status, stdout, stderr } = await runProgram(command, {
    cwd: folder.path,
    env: { ...inherited, NO_COLOR: "1", ...environment },
  });
  return { status, output: stdout + stderr };
}
