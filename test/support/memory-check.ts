// The program that runs one kernel for tools that watch memory (zig/memory_check.zig), and whether valgrind is there to watch it.

import { join } from "node:path";
import { root } from "../../src/setup/checkout.ts";
import { ensureZig, zigEnvironment, zigJobs } from "../../src/setup/toolchain.ts";

/** Where `buildMemoryCheck` puts it. */
export const memoryCheck = join(root, "zig-out", "bin", "memory_check");

/** Builds it, which takes a minute or two the first time. */
export async function buildMemoryCheck(): Promise<void> {
  const child = Bun.spawnSync([await ensureZig(), "build", "memory-check", zigJobs], {
    cwd: root,
    env: zigEnvironment(),
    stdio: ["ignore", "inherit", "inherit"],
  });
  if (!child.success) throw new Error("zig build memory-check failed");
}

/** Why what `what` names cannot be compared with valgrind here, which is said on stderr; undefined: it can. */
export function missingForValgrind(what: string, architectures: readonly string[]): string | undefined {
  const missing =
    process.platform !== "linux" || !architectures.includes(process.arch)
      ? `needs Linux on ${architectures.join(" or ")}`
      : Bun.which("valgrind") === null
        ? "valgrind is not installed (Debian: apt-get install valgrind)"
        : undefined;
  if (missing !== undefined) process.stderr.write(`${what}, ${missing}\n`);
  return missing;
}
