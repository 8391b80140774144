// The places of a checkout that set-up deals with. Only Bun and node modules may be imported by anything in src/setup at
// its start: the packages may not be there yet.

import { existsSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";

/** The checkout's root folder. */
export const root = resolve(import.meta.dir, "..", "..");

/** What set-up fetches for this checkout; git ignores it. */
export const toolchainFolder = join(root, ".toolchain");

/** A fault of the machine or the checkout that the message explains; set-up prints it without a stack. */
export class SetupError extends Error {}

/** Makes a fresh folder below `.toolchain` for the time that `action` runs. */
export async function withTemporaryFolder<Result>(
  name: string,
  action: (folder: string) => Promise<Result>,
): Promise<Result> {
  const folder = join(toolchainFolder, `${name}.${process.pid}.tmp`);
  removeAbandoned(name);
  try {
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder, { recursive: true });
  } catch (error) {
    throw new SetupError(`${folder}: ${(error as Error).message}: the checkout's folder must be writable`);
  }
  try {
    return await action(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

// What a killed process left behind; some of it is large.
function removeAbandoned(name: string): void {
  const pattern = new RegExp(`^${name}\\.(\\d+)\\.tmp$`);
  for (const entry of existsSync(toolchainFolder) ? readdirSync(toolchainFolder) : []) {
    const owner = pattern.exec(entry)?.[1];
    if (owner !== undefined && !isAlive(Number(owner)))
      rmSync(join(toolchainFolder, entry), { recursive: true, force: true });
  }
}

/** Whether a process with that id runs on this machine, whoever owns it. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

/** Runs a set-up program: `main` gives the exit status; a SetupError becomes one line on stderr and status 1. */
export async function runSetup(main: () => Promise<number>): Promise<void> {
  try {
    process.exitCode = await main();
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    process.stderr.write(`${error.message}\n`);
    process.exitCode = 1;
  }
}
