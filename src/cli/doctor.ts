// `tinyai doctor`: looks at everything TinyAI needs from this machine and says what to do about what is missing. It changes
// nothing.

import { accessSync, constants, existsSync, statfsSync } from "node:fs";
import { freemem, tmpdir, totalmem } from "node:os";
import { dirname } from "node:path";
import type { Command } from "commander";
import manifest from "../../package.json" with { type: "json" };
import { chooseLevel, cpu } from "../engine/cpu.ts";
import { type Library, openLibrary } from "../engine/library.ts";
import { defaultThreads } from "../knobs/threads.ts";
import { modelsFolder } from "../model/folders.ts";
import { findPython } from "../setup/python.ts";
import { findZig, zigVersion } from "../setup/toolchain.ts";
import { formatBytes } from "../text-table.ts";
import { chooseTuning, findTuning } from "../tuning.ts";
import { listModels } from "./pull.ts";

/** One thing looked at. */
export interface Finding {
  /** What was looked at, such as `cache folder`. */
  readonly name: string;
  /** `broken`: nothing can run; `missing`: something particular cannot. */
  readonly state: "ok" | "missing" | "broken";
  /** What was found, for people. */
  readonly found: string;
  /** What to do about it, unless it is ok or `found` says so. */
  readonly remedy?: string;
}

/** Looks at the machine, the library and the folders. */
export async function examine(): Promise<readonly Finding[]> {
  const library = await examineLibrary();
  return [
    examineBun(),
    ...library,
    { name: "CPU", state: "ok", found: `${cpu.model}, ${cpu.cores} usable ${cpu.cores === 1 ? "core" : "cores"}` },
    examineMemory(),
    examineFolder("cache folder", modelsFolder(), "allow it or set TINYAI_HOME to another folder"),
    examineFolder(
      "temporary folder",
      tmpdir(),
      "allow it or set TMPDIR to another folder: a compiled program unpacks its library there",
    ),
    ...examineModels(),
    await examinePip(),
    await examineZig(),
  ];
}

function examineBun(): Finding {
  const wanted = manifest.engines.bun.replace(">=", "");
  if (Bun.version === wanted) return { name: "Bun", state: "ok", found: Bun.version };
  return {
    name: "Bun",
    state: Bun.semver.order(Bun.version, wanted) < 0 ? "broken" : "missing",
    found: `${Bun.version}; TinyAI is tested with ${wanted}`,
    remedy: `run it with npx bun@${wanted}`,
  };
}

async function examineLibrary(): Promise<Finding[]> {
  let library: Library;
  try {
    library = await openLibrary();
  } catch (error) {
    return [{ name: "native library", state: "broken", found: messageOf(error) }];
  }
  const findings: Finding[] = [{ name: "native library", state: "ok", found: `${library.path}, its layout matches` }];
  const levels = library.levels.map((level) => (level.supported ? level.name : `(${level.name})`)).join(" ");
  try {
    const chosen = chooseLevel(library, undefined);
    findings.push({
      name: "instructions",
      state: "ok",
      found: `${chosen.name}: ${chosen.reason}; in the library, those in brackets not on this CPU: ${levels}`,
    });
    findings.push(examineTuning(library, chosen.index));
  } catch (error) {
    findings.push({
      name: "instructions",
      state: "broken",
      found: messageOf(error),
      remedy: "set TINYAI_SIMD and TINYAI_TUNING to something that there is, or unset them",
    });
  }
  return findings;
}

function examineTuning(library: Library, level: number): Finding {
  const choice = chooseTuning(undefined);
  const { source, path } = findTuning(library, level, defaultThreads(), choice);
  const reason = choice === "fixed" ? "TINYAI_TUNING is off" : "this machine is not measured: tinyai tune does it";
  const found = source === "measured" ? `measured on this machine: ${path}` : `a table: ${reason}`;
  return { name: "tuning", state: "ok", found };
}

function examineMemory(): Finding {
  const limit = process.constrainedMemory();
  const total = limit > 0 && limit < totalmem() ? limit : totalmem();
  return {
    name: "memory",
    state: "ok",
    found: `${formatBytes(total)}, ${formatBytes(Math.min(freemem(), total))} free`,
  };
}

// A folder that does not exist yet is as good as the nearest one above it that does.
function examineFolder(name: string, folder: string, remedy: string): Finding {
  let existing = folder;
  while (!existsSync(existing) && dirname(existing) !== existing) existing = dirname(existing);
  try {
    accessSync(existing, constants.W_OK | constants.X_OK);
    const system = statfsSync(existing);
    return { name, state: "ok", found: `${folder}, ${formatBytes(system.bavail * system.bsize)} free` };
  } catch (error) {
    return { name, state: "broken", found: `${folder} cannot be written (${messageOf(error)})`, remedy };
  }
}

function examineModels(): Finding[] {
  return listModels().map(({ name, path, present }) =>
    present
      ? { name: `model ${name}`, state: "ok", found: path }
      : { name: `model ${name}`, state: "missing", found: "not here", remedy: `tinyai pull ${name}` },
  );
}

async function examinePip(): Promise<Finding> {
  try {
    const python = await findPython();
    return { name: "pip", state: "ok", found: `${python.join(" ")} -m pip` };
  } catch (error) {
    return {
      name: "pip",
      state: "missing",
      found: messageOf(error),
      remedy: "needed only to pull models and to get Zig; TINYAI_HUB names a model hub instead",
    };
  }
}

async function examineZig(): Promise<Finding> {
  const zig = await findZig();
  if (zig !== undefined) return { name: "Zig", state: "ok", found: `${zig}, ${zigVersion}` };
  return {
    name: "Zig",
    state: "missing",
    found: `no zig ${zigVersion}`,
    remedy: "needed only to build the library: bun run build gets it",
  };
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Adds `tinyai doctor`. */
export function registerDoctor(program: Command): void {
  program
    .command("doctor")
    .description("check what this machine has and say what to do about what is missing")
    .option("--json", "print the findings as JSON")
    .addHelpText(
      "after",
      `
Examples:
  tinyai doctor
  tinyai doctor --json
  TINYAI_SIMD=avx2 tinyai doctor

Ends with status 1 if something is broken, so that nothing can run.`,
    )
    .action(async (options: { json?: boolean }) => {
      const findings = await examine();
      const broken = findings.some((finding) => finding.state === "broken");
      if (options.json) process.stdout.write(`${JSON.stringify({ ok: !broken, findings })}\n`);
      else process.stdout.write(findings.map(formatFinding).join(""));
      if (broken) process.exitCode = 1;
    });
}

function formatFinding({ name, state, found, remedy }: Finding): string {
  const line = `${state.padEnd(8)}${name.padEnd(20)}${found}\n`;
  return remedy === undefined ? line : `${line}${" ".repeat(28)}${remedy}\n`;
}
