// `bun run check`: formatters and linters in check mode, and the type checker. It changes no file.

import { join } from "node:path";
import { root, runSetup } from "./checkout.ts";
import { ensurePackages } from "./packages.ts";
import { ensureZig, zigEnvironment } from "./toolchain.ts";

await runSetup(async () => {
  await ensurePackages();
  const zig = await ensureZig();
  const binaries = join(root, "node_modules", ".bin");
  const checks: readonly (readonly [name: string, ...command: string[]])[] = [
    ["Biome", join(binaries, "biome"), "check", "--error-on-warnings", "."],
    ["zig fmt", zig, "fmt", "--check", "build.zig", "zig"],
    ["tsc", join(binaries, "tsc"), "--noEmit"],
    // What runs in a browser knows other globals.
    ["tsc of the page", join(binaries, "tsc"), "--noEmit", "-p", join("profiler", "page", "browser")],
  ];
  const failed: string[] = [];
  for (const [name, ...command] of checks) {
    const child = Bun.spawn(command, { cwd: root, env: zigEnvironment(), stdio: ["ignore", "inherit", "inherit"] });
    if ((await child.exited) !== 0) failed.push(name);
  }
  process.stdout.write(failed.length === 0 ? "checks passed\n" : `checks failed: ${failed.join(", ")}\n`);
  return failed.length === 0 ? 0 : 1;
});
