// Runs the tests of the Python package: its packages are installed once into .toolchain, the package itself from its folder, as a user
// installs it, for every run. The machine's Python stays as it is.

import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync } from "node:fs";
import { delimiter, join } from "node:path";
import { root, SetupError, toolchainFolder, withTemporaryFolder } from "./checkout.ts";
import { countJunit, type RunnerResult } from "./count.ts";
import { findPython, type PythonCommand, pipEnvironment, pipProblem, runProgram } from "./python.ts";

const folder = join(root, "python");
const requirements = join(folder, "tests", "requirements.txt");

/** Further arguments go to pytest. @throws {SetupError} if there is no Python, or a package cannot be installed. */
export async function runPytest(options: readonly string[]): Promise<RunnerResult> {
  const python = await findPython().catch((error: Error) => {
    throw new SetupError(`the tests of the Python package: ${error.message}`);
  });
  const packages = await ensureTestPackages(python);
  return await withTemporaryFolder("pytest", async (temporary) => {
    const own = join(temporary, "tinyai");
    const environment = {
      ...pipEnvironment(temporary),
      PYTHONPATH: [own, packages].join(delimiter),
      PYTHONDONTWRITEBYTECODE: "1",
      PYTEST_DISABLE_PLUGIN_AUTOLOAD: "1",
      // Quoted, for a path may have spaces.
      TINYAI_PROGRAM: [process.execPath, join(root, "src", "cli", "main.ts")].map((path) => `'${path}'`).join(" "),
    };
    // What builds the package is there already, so that nothing is fetched.
    await install(python, ["--no-deps", "--no-index", "--no-build-isolation", folder], own, environment);
    const report = join(temporary, "report.xml");
    const command = [...python, "-m", "pytest", "--quiet", "-rfE", `--junitxml=${report}`, ...options];
    const child = Bun.spawn(command, { cwd: folder, env: environment, stdio: ["ignore", "inherit", "inherit"] });
    const status = await child.exited;
    const counts = existsSync(report) ? countJunit(readFileSync(report, "utf8")) : undefined;
    return { name: "pytest", counts, status };
  });
}

/** The folder with pytest and what the tests import beside it. */
async function ensureTestPackages(python: PythonCommand): Promise<string> {
  const version = await runProgram([...python, "-c", "import sys, platform; print(sys.version, platform.machine())"]);
  const wanted = createHash("sha256").update(readFileSync(requirements)).update(version.stdout).digest("hex");
  const packages = join(toolchainFolder, `python-${wanted.slice(0, 16)}`);
  if (existsSync(packages)) return packages;
  await withTemporaryFolder("python-packages", async (temporary) => {
    const target = join(temporary, "packages");
    await install(python, ["--only-binary", ":all:", "-r", requirements], target, pipEnvironment(temporary));
    mkdirSync(toolchainFolder, { recursive: true });
    renameSync(target, packages);
  });
  return packages;
}

async function install(
  python: PythonCommand,
  what: readonly string[],
  target: string,
  env: NodeJS.ProcessEnv,
): Promise<void> {
  const command = [...python, "-m", "pip", "install", "--quiet", "--no-compile", "--target", target, ...what];
  const finished = await runProgram(command, { env });
  if (finished.status !== 0) throw new SetupError(`pip install ${what.join(" ")}: ${pipProblem(finished)}`);
}
