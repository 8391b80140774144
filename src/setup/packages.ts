// Installs the packages that package.json and bun.lock name, when they are not installed yet.

import { accessSync, constants, existsSync, readFileSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { startProgress } from "../cli/progress.ts";
import { root, SetupError, toolchainFolder } from "./checkout.ts";
import { runProgram } from "./python.ts";

const stamp = join(root, "node_modules", ".tinyai-lock");

/** Makes `node_modules` what bun.lock says. Takes a millisecond when it is already. */
export async function ensurePackages(): Promise<void> {
  const wanted = readFileSync(join(root, "bun.lock"), "utf8") + readFileSync(join(root, "package.json"), "utf8");
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === wanted) return;
  const progress = startProgress({ label: "packages", unit: "seconds" });
  const install = await runProgram([process.execPath, "install", "--frozen-lockfile"], {
    cwd: root,
    env: environment(),
  });
  if (install.status !== 0) {
    progress.failed();
    throw new SetupError(
      `bun install --frozen-lockfile failed:\n${install.stderr.trim()}\nCheck the network (the registry npm uses must answer) and run the same command again.`,
    );
  }
  writeFileSync(stamp, wanted);
  progress.done();
}

// Bun keeps its cache in the home folder; where that cannot be written, the checkout has to do.
function environment(): NodeJS.ProcessEnv {
  try {
    accessSync(homedir(), constants.W_OK);
    return process.env;
  } catch {
    return { ...process.env, BUN_INSTALL_CACHE_DIR: join(toolchainFolder, "bun-cache") };
  }
}
