// Builds the native library with `zig build`, unless the one that is there was built from the same sources.
// As a program: `bun run build [options of zig build]`.

import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { startProgress } from "../cli/progress.ts";
import { root, runSetup, SetupError } from "./checkout.ts";
import { runProgram } from "./python.ts";
import { ensureZig, zigEnvironment, zigVersion } from "./toolchain.ts";

const libraryName = { win32: "tinyai.dll", darwin: "libtinyai.dylib" }[process.platform as string] ?? "libtinyai.so";

/** Where `zig build` puts this machine's library. On Windows it counts a DLL among the programs. */
export const libraryPath = join(root, "zig-out", process.platform === "win32" ? "bin" : "lib", libraryName);

const stampPath = `${libraryPath}.sources`;

/** Makes sure that the library is there and up to date. Takes a few milliseconds when it is. */
export async function ensureLibrary(): Promise<void> {
  const sources = sourcesHash();
  if (isCurrent(sources)) return;
  const zig = await ensureZig();
  const progress = startProgress({ label: "native library", unit: "seconds" });
  // Zig's own tree of steps is for people who work on the kernels; here only its errors matter.
  const built = await runProgram([zig, "build"], { cwd: root, env: zigEnvironment() });
  if (built.status !== 0) {
    progress.failed();
    throw new SetupError(`${zig} build failed:\n${built.stderr.trim()}`);
  }
  if (!existsSync(libraryPath)) {
    progress.failed();
    throw new SetupError(`${zig} build succeeded but left no ${libraryPath}`);
  }
  writeStamp(sources);
  progress.done();
}

/** A hash over all that the library is made of. */
function sourcesHash(): string {
  const hash = createHash("sha256").update(`${zigVersion} ${process.platform} ${process.arch}`);
  const files = readdirSync(join(root, "zig"), { recursive: true, encoding: "utf8" }).filter((name) =>
    name.endsWith(".zig"),
  );
  for (const name of ["build.zig", ...files.sort().map((file) => join("zig", file))]) {
    hash.update(`\0${name}\0`).update(readFileSync(join(root, name)));
  }
  return hash.digest("hex");
}

// The stamp names the very file that it speaks of: one that `zig build -Dlevels=...` put there since is another.
function stampOf(sources: string): string {
  const library = statSync(libraryPath);
  return JSON.stringify({ sources, bytes: library.size, modified_ms: library.mtimeMs });
}

function isCurrent(sources: string): boolean {
  return existsSync(libraryPath) && existsSync(stampPath) && readFileSync(stampPath, "utf8") === stampOf(sources);
}

function writeStamp(sources: string): void {
  const temporary = `${stampPath}.${process.pid}.tmp`;
  mkdirSync(join(stampPath, ".."), { recursive: true });
  writeFileSync(temporary, stampOf(sources));
  renameSync(temporary, stampPath);
}

if (import.meta.main) {
  await runSetup(async () => {
    const options = process.argv.slice(2);
    if (options.length === 0) {
      await ensureLibrary();
      process.stdout.write(`${libraryPath}\n`);
      return 0;
    }
    const zig = await ensureZig();
    const child = Bun.spawn([zig, "build", ...options], {
      cwd: root,
      env: zigEnvironment(),
      stdio: ["inherit", "inherit", "inherit"],
    });
    return await child.exited;
  });
}
