// Builds the native library with `zig build`, unless the one that is there was built from the same sources.
// As a program: `bun run build [options of zig build]`.

import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { startProgress } from "../cli/progress.ts";
import { root, runSetup, SetupError } from "./checkout.ts";
import { runProgram } from "./python.ts";
import { ensureZig, zigEnvironment, zigJobs, zigVersion } from "./toolchain.ts";

const libraryName = { win32: "tinyai.dll", darwin: "libtinyai.dylib" }[process.platform as string] ?? "libtinyai.so";

/** What is built; tests give their own. */
export interface BuildOptions {
  /** The folder with `build.zig` and `zig/`. Default this checkout. */
  readonly folder?: string;
  /** The Zig to build with. Default the one that `ensureZig` finds or gets. */
  readonly zig?: string;
}

/**
 * Makes sure that the library is there and up to date, and gives its path. Takes a few milliseconds when it is.
 * @throws {SetupError} with what Zig said, if it cannot be built.
 */
export async function ensureLibrary({ folder = root, zig }: BuildOptions = {}): Promise<string> {
  // On Windows, `zig build` counts a DLL among the programs.
  const library = join(folder, "zig-out", process.platform === "win32" ? "bin" : "lib", libraryName);
  const stamp = `${library}.sources`;
  const sources = sourcesHash(folder);
  if (existsSync(library) && existsSync(stamp) && readFileSync(stamp, "utf8") === stampOf(library, sources))
    return library;
  const compiler = zig ?? (await ensureZig());
  const progress = startProgress({ label: "native library", unit: "seconds" });
  // Zig's own tree of steps is for people who work on the kernels; here only its errors matter.
  const built = await runProgram([compiler, "build", zigJobs], { cwd: folder, env: zigEnvironment() });
  if (built.status !== 0 || !existsSync(library)) {
    progress.failed();
    if (built.status === 0) throw new SetupError(`${compiler} build succeeded but left no ${library}`);
    throw new SetupError(`${compiler} build failed:\n${built.stderr.trim()}`);
  }
  const temporary = `${stamp}.${process.pid}.tmp`;
  writeFileSync(temporary, stampOf(library, sources));
  renameSync(temporary, stamp);
  progress.done();
  return library;
}

/** A hash over all that the library is made of. */
function sourcesHash(folder: string): string {
  const hash = createHash("sha256").update(`${zigVersion} ${process.platform} ${process.arch}`);
  const files = readdirSync(join(folder, "zig"), { recursive: true, encoding: "utf8" });
  const names = files.filter((name) => name.endsWith(".zig")).map((name) => join("zig", name));
  for (const name of ["build.zig", ...names.sort()]) {
    hash.update(`\0${name}\0`).update(readFileSync(join(folder, name)));
  }
  return hash.digest("hex");
}

// The stamp names the very file that it speaks of: one that `zig build -Dlevels=...` put there since is another.
function stampOf(library: string, sources: string): string {
  const file = statSync(library);
  return JSON.stringify({ sources, bytes: file.size, modified_ms: file.mtimeMs });
}

if (import.meta.main) {
  await runSetup(async () => {
    const options = process.argv.slice(2);
    if (options.length === 0) {
      process.stdout.write(`${await ensureLibrary()}\n`);
      return 0;
    }
    const zig = await ensureZig();
    const child = Bun.spawn([zig, "build", zigJobs, ...options], {
      cwd: root,
      env: zigEnvironment(),
      stdio: ["inherit", "inherit", "inherit"],
    });
    return await child.exited;
  });
}
