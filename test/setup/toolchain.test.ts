import { expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { runProgram } from "../../src/setup/python.ts";
import { findZig, zigVersion } from "../../src/setup/toolchain.ts";
import { offline, temporaryFolder, writeWheels } from "../cli/support.ts";

// Processes and pip take their time on a loaded machine.
setDefaultTimeout(120_000);

// What stands in for Zig is a shell script.
const posix = test.skipIf(process.platform === "win32");

function writeFakeZig(folder: string, version: string): string {
  mkdirSync(folder, { recursive: true });
  const path = join(folder, "zig");
  writeFileSync(path, `#!/bin/sh\necho ${version}\n`);
  chmodSync(path, 0o755);
  return path;
}

/** Runs `ensureZig` in a process of its own, for an environment of its own. */
function ensureInChild(folder: string, env: NodeJS.ProcessEnv) {
  const script = `
    const { ensureZig } = await import(${JSON.stringify(join(import.meta.dir, "../../src/setup/toolchain.ts"))});
    try { console.log(await ensureZig({ folder: ${JSON.stringify(folder)} })); }
    catch (error) { console.log(error.message); process.exitCode = 1; }`;
  return runProgram([process.execPath, "-e", script], { env });
}

posix("a zig on PATH of exactly the wanted version is used", async () => {
  using folder = temporaryFolder();
  const zig = writeFakeZig(join(folder.path, "bin"), zigVersion);
  expect(await findZig({ path: join(folder.path, "bin"), folder: join(folder.path, "none") })).toBe(zig);
});

posix("a zig on PATH of another version is passed over for the one in the checkout", async () => {
  using folder = temporaryFolder();
  for (const version of ["0.15.2", "0.16.1", `${zigVersion}-dev.1`]) {
    writeFakeZig(join(folder.path, "bin"), version);
    expect(await findZig({ path: join(folder.path, "bin"), folder: join(folder.path, "none") })).toBeUndefined();
  }
  const own = writeFakeZig(join(folder.path, "own", "ziglang"), zigVersion);
  expect(await findZig({ path: join(folder.path, "bin"), folder: join(folder.path, "own") })).toBe(own);
});

posix("without a usable zig, pip puts one into the folder, whole or not at all", async () => {
  using folder = temporaryFolder();
  const bin = join(folder.path, "bin");
  writeFakeZig(bin, "0.15.2");
  const script = writeFakeZig(join(folder.path, "source"), zigVersion);
  await writeWheels(join(folder.path, "wheels"), [
    { name: "ziglang", version: zigVersion, members: { "ziglang/zig": script } },
  ]);
  const path = `${bin}:${process.env["PATH"]}`;
  const target = join(folder.path, "toolchain", "zig");
  const none = await ensureInChild(target, { ...offline(undefined), PATH: path });
  expect(none.status).toBe(1);
  expect(none.stdout).toContain(`ziglang==${zigVersion}`);
  expect(existsSync(target)).toBe(false);

  const { status, stdout } = await ensureInChild(target, { ...offline(join(folder.path, "wheels")), PATH: path });
  expect(stdout.trim()).toBe(join(target, "ziglang", "zig"));
  expect(status).toBe(0);
});

posix("without Python the error says what to install", async () => {
  using folder = temporaryFolder();
  const { status, stdout } = await ensureInChild(join(folder.path, "zig"), { ...process.env, PATH: folder.path });
  expect(status).toBe(1);
  expect(stdout).toContain("no Python 3 on PATH");
  expect(stdout).toContain("python3-pip");
});

posix("a Python without pip is named, and how it gets pip", async () => {
  using folder = temporaryFolder();
  const python = join(folder.path, "python3");
  writeFileSync(python, `#!/bin/sh\nif [ "$1" = -c ]; then echo 3; else echo "No module named pip" >&2; exit 1; fi\n`);
  chmodSync(python, 0o755);
  const { status, stdout } = await ensureInChild(join(folder.path, "zig"), { ...process.env, PATH: folder.path });
  expect(status).toBe(1);
  expect(stdout).toContain("python3 has no pip");
});
