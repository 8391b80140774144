// A process that pulls what its first argument describes and prints the result or the error as JSON: tests start it with
// an environment of their own, kill it, and run several at once. It is not a test.

import { pullEntry } from "../../src/cli/pull.ts";
import { TinyAIError } from "../../src/errors.ts";

const { entry, path, verify } = JSON.parse(process.argv[2] ?? "{}");
try {
  process.stdout.write(JSON.stringify(await pullEntry(entry, path, { verify })));
} catch (error) {
  if (!(error instanceof TinyAIError)) throw error;
  process.stdout.write(JSON.stringify({ code: error.code, message: error.message }));
  process.exitCode = 1;
}
