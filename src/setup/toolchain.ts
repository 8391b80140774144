// Finds Zig in exactly the version that the sources are written for, or gets it: a `zig` on PATH, else the one in the
// checkout's `.toolchain`, else PyPI's `ziglang` package, which carries the whole compiler, put there by pip.

import { existsSync, mkdirSync, renameSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { startProgress } from "../cli/progress.ts";
import { root, SetupError, toolchainFolder, withTemporaryFolder } from "./checkout.ts";
import { findPython, folderBytes, type PythonCommand, pipEnvironment, pipProblem, runProgram } from "./python.ts";

/** The version of Zig; others have another standard library, and 0.17 takes ten times as long for a first build. */
export const zigVersion = "0.16.0";

/** Roughly what the installed package takes, in bytes, for the progress bar only (Linux x64, 0.16.0, `du -sb`). */
const installedSize_bytes = 360_000_000;

/** How far a look for Zig goes; tests give their own. */
export interface ZigSearch {
  /** Where pip puts it. Default `.toolchain/zig` in the checkout. */
  readonly folder?: string;
  /** The PATH to look in. Default the process's own. */
  readonly path?: string;
}

function installedZig(folder: string): string {
  return join(folder, "ziglang", process.platform === "win32" ? "zig.exe" : "zig");
}

/** The path of a usable Zig that is on this machine already, or undefined. */
export async function findZig(search: ZigSearch = {}): Promise<string | undefined> {
  const onPath = Bun.which("zig", search.path === undefined ? {} : { PATH: search.path });
  for (const candidate of [onPath, installedZig(search.folder ?? join(toolchainFolder, "zig"))]) {
    if (candidate === null || !existsSync(candidate)) continue;
    const { status, stdout } = await runProgram([candidate, "version"], { env: zigEnvironment() });
    if (status === 0 && stdout.trim() === zigVersion) return candidate;
  }
  return undefined;
}

/**
 * The path of Zig, which pip fetches if it is not on this machine.
 * @throws {SetupError} saying what to install, if that cannot be done.
 */
export async function ensureZig(search: ZigSearch = {}): Promise<string> {
  const found = await findZig(search);
  if (found !== undefined) return found;
  const folder = search.folder ?? join(toolchainFolder, "zig");
  const byHand = `or put zig ${zigVersion} on PATH yourself`;
  let python: PythonCommand;
  try {
    python = await findPython();
  } catch (error) {
    throw new SetupError(`Zig ${zigVersion} comes through pip, but there is ${(error as Error).message}, ${byHand}`);
  }
  await withTemporaryFolder("zig", (temporary) => install(python, temporary, folder, byHand));
  const installed = await findZig(search);
  if (installed === undefined) {
    throw new SetupError(
      `${installedZig(folder)} does not run on this machine: install zig ${zigVersion} for it and put it on PATH`,
    );
  }
  return installed;
}

async function install(python: PythonCommand, temporary: string, folder: string, byHand: string): Promise<void> {
  const progress = startProgress({ label: `Zig ${zigVersion}`, unit: "bytes", total: installedSize_bytes });
  const watch = setInterval(() => progress.update(Math.min(folderBytes(temporary), installedSize_bytes)), 500);
  const target = join(temporary, "zig");
  // With --target, pip does not touch the system's own packages, and so does not refuse where those are managed by a distribution.
  const options = ["--no-deps", "--only-binary", ":all:", "--no-compile", "--no-cache-dir", "--progress-bar", "off"];
  const command = [...python, "-m", "pip", "install", ...options, "--target", target, `ziglang==${zigVersion}`];
  const pip = await runProgram(command, { cwd: temporary, env: pipEnvironment(temporary) });
  clearInterval(watch);
  if (pip.status !== 0) {
    progress.failed();
    throw new SetupError(
      `pip install ziglang==${zigVersion}: ${pipProblem(pip)}: check the network and run the same command again, ${byHand}`,
    );
  }
  progress.update(folderBytes(target));
  progress.done();
  mkdirSync(join(folder, ".."), { recursive: true });
  if (existsSync(folder)) renameSync(folder, join(temporary, "old"));
  try {
    renameSync(target, folder);
  } catch (error) {
    // Another process was faster; what it put there is as good.
    if (!existsSync(installedZig(folder))) throw error;
  }
}

/** The option of `zig build` that lets as many jobs run as there are CPUs. By default it runs one fewer: of two CPUs one would idle. */
export const zigJobs = `-j${availableParallelism()}`;

/** The environment to run Zig in: its caches stay in the checkout, so that the home folder may be missing or read-only. */
export function zigEnvironment(): NodeJS.ProcessEnv {
  return {
    ...process.env,
    ZIG_GLOBAL_CACHE_DIR: join(toolchainFolder, "zig-cache"),
    ZIG_LOCAL_CACHE_DIR: join(root, ".zig-cache"),
  };
}
