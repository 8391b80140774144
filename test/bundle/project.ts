// An empty project into which the packages are installed from a registry on this machine. It is not a test.

import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { hostSystem, systems } from "../../src/bundle/target.ts";
import { openLibrary } from "../../src/engine/library.ts";
import { packTarballs } from "../../src/setup/pack.ts";
import { type Finished, runProgram } from "../../src/setup/python.ts";
import type { TemporaryFolder } from "../support/folder.ts";
import { Random } from "../support/random.ts";
import { startRegistry } from "../support/registry.ts";

export interface Project {
  readonly path: string;
  /** The folder of the tarballs. */
  readonly packages: string;
  /** What is in the place of the libraries that this machine cannot run. */
  readonly otherLibrary: Uint8Array;
  /** Runs a command in the project. */
  run(command: readonly string[]): Promise<Finished>;
  /** The systems whose library is installed. */
  installedSystems(): string[];
  close(): void;
}

/** Packs everything, starts the registry and installs TinyAI and what its types need, all below `folder`. */
export async function installProject(folder: TemporaryFolder): Promise<Project> {
  const [path, packages, cache] = [folder.file("project"), folder.file("packages"), folder.file("cache")];
  const env = { ...process.env, BUN_INSTALL_CACHE_DIR: cache, TINYAI_HOME: folder.file("home") };
  const run = (command: readonly string[]) => runProgram(command, { cwd: path, env });
  const own = await openLibrary();
  const otherLibrary = new Random(3).bytes(1000);
  const other = folder.write("other", otherLibrary);
  const libraries = Object.keys(systems).map((system) => ({ system, path: system === hostSystem ? own.path : other }));
  const registry = await startRegistry(await packTarballs(libraries, packages));
  mkdirSync(path);
  writeFileSync(join(path, "package.json"), '{ "name": "project", "type": "module" }');
  writeFileSync(join(path, "bunfig.toml"), `[install]\nregistry = "${registry.address}"\n`);
  const wanted = ["tinyai", "@types/bun", "prom-client", "@opentelemetry/api"];
  const { status, stderr } = await run([process.execPath, "add", ...wanted]);
  if (status !== 0) throw new Error(stderr);
  return {
    path,
    packages,
    otherLibrary,
    run,
    installedSystems: () => readdirSync(join(path, "node_modules", "@tinyai")).sort(),
    close: () => registry[Symbol.dispose](),
  };
}
