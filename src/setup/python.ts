// Finds a Python that has pip, and runs pip so that it never asks, never installs for the user, and reports its error in
// one line. It decides nothing about what is downloaded.

import { spawn } from "node:child_process";
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";

/** The command that starts Python: a program and its first arguments. */
export type PythonCommand = readonly [program: string, ...leading: string[]];

/** What a finished program left. */
export interface Finished {
  /** The exit status; null when it could not be started or was ended by a signal. */
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** How `runProgram` runs a program. */
export interface RunOptions {
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** Ends the program when aborted. */
  readonly signal?: AbortSignal;
}

/** Runs a program without a shell and without input, and collects what it prints. */
export function runProgram(command: readonly string[], options: RunOptions = {}): Promise<Finished> {
  const [program = "", ...rest] = command;
  return new Promise((done) => {
    let stdout = "";
    let stderr = "";
    const child = spawn(program, rest, {
      stdio: ["ignore", "pipe", "pipe"],
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      ...(options.env === undefined ? {} : { env: options.env }),
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    });
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      stdout += text;
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      stderr += text;
    });
    child.on("error", (error) => done({ status: null, stdout, stderr: stderr || error.message }));
    child.on("close", (status) => done({ status, stdout, stderr }));
  });
}

/**
 * A Python 3 whose pip runs.
 * @throws {Error} saying what was tried and how to get pip, for the caller to put its purpose in front.
 */
export async function findPython(): Promise<PythonCommand> {
  const candidates: PythonCommand[] = [["python3"], ["python"]];
  if (process.platform === "win32") candidates.unshift(["py", "-3"]);
  let withoutPip: string | undefined;
  for (const candidate of candidates) {
    const python = await runProgram([...candidate, "-c", "import sys; print(sys.version_info[0])"]);
    if (python.status !== 0 || python.stdout.trim() !== "3") continue;
    const pip = await runProgram([...candidate, "-m", "pip", "--version"]);
    if (pip.status === 0) return candidate;
    withoutPip ??= candidate.join(" ");
  }
  if (withoutPip === undefined)
    throw new Error("no Python 3 on PATH: install python3 with pip (Debian: apt-get install python3-pip)");
  throw new Error(
    `${withoutPip} has no pip: install it (Debian: apt-get install python3-pip; elsewhere: ${withoutPip} -m ensurepip)`,
  );
}

/** The environment for pip: quiet about itself, and unpacking in `temporaryFolder` rather than in a small /tmp. */
export function pipEnvironment(temporaryFolder: string): NodeJS.ProcessEnv {
  return {
    ...process.env,
    TMPDIR: temporaryFolder,
    TEMP: temporaryFolder,
    PIP_DISABLE_PIP_VERSION_CHECK: "1",
    PIP_NO_INPUT: "1",
    PIP_ROOT_USER_ACTION: "ignore",
    // A user's own defaults that do not go together with a folder as the target.
    PIP_USER: "0",
    PIP_REQUIRE_VIRTUALENV: "0",
  };
}

/** The line of pip's output that says what went wrong. */
export function pipProblem(finished: Finished): string {
  const lines = `${finished.stdout}\n${finished.stderr}`.split("\n").map((line) => line.trim());
  if (lines.some((line) => line.includes("No space left on device"))) return "no space left on the device";
  const errors = lines.filter((line) => line.startsWith("ERROR:")).map((line) => line.slice("ERROR:".length).trim());
  return errors.at(-1) ?? lines.filter((line) => line !== "").at(-1) ?? `pip ended with status ${finished.status}`;
}

/** The bytes of all files below a folder, for showing how far a download is; files that vanish meanwhile count nothing. */
export function folderBytes(folder: string): number {
  let bytes = 0;
  try {
    for (const name of readdirSync(folder, { recursive: true, encoding: "utf8" })) {
      const entry = statSync(join(folder, name), { throwIfNoEntry: false });
      if (entry?.isFile()) bytes += entry.size;
    }
  } catch {}
  return bytes;
}
