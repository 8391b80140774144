// `bun run build:binary`: the `tinyai` command as one executable, zig-out/bin/tinyai, that needs neither Bun nor this checkout.
// Further arguments go to `bun build`.

import { mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { ensureLibrary } from "./build.ts";
import { root, runSetup, SetupError } from "./checkout.ts";
import { ensurePackages } from "./packages.ts";
import { runProgram } from "./python.ts";

/**
 * What the command is compiled with. Bytecode lets `--version` answer in 20 ms instead of 75; a bunfig.toml or .env of the
 * folder that it is started in is not the command's.
 */
const options = ["--bytecode", "--format=esm", "--no-compile-autoload-dotenv", "--no-compile-autoload-bunfig"];

/**
 * Compiles the command into the file `output`.
 * @throws {SetupError} with what Bun said, if it cannot be compiled.
 */
export async function buildBinary(output: string, further: readonly string[] = []): Promise<void> {
  mkdirSync(dirname(output), { recursive: true });
  const entry = join(root, "src", "cli", "main.ts");
  const command = [process.execPath, "build", "--compile", entry, "--outfile", output, ...options, ...further];
  const { status, stderr } = await runProgram(command, { cwd: root });
  if (status !== 0) throw new SetupError(`bun build failed:\n${stderr.trim()}`);
}

if (import.meta.main) {
  await runSetup(async () => {
    await ensurePackages();
    await ensureLibrary();
    const output = join(root, "zig-out", "bin", "tinyai");
    await buildBinary(output, process.argv.slice(2));
    process.stdout.write(`${output}\n`);
    return 0;
  });
}
