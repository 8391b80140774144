// Installs what TinyAI is compared with, once, under .cache/peers, which git ignores: llama.cpp built from source for this CPU
// through the Python package llama-cpp-python, node-llama-cpp from npm, and for embeddings sentence-transformers with PyTorch. It
// measures nothing.

import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { startProgress } from "../../src/cli/progress.ts";
import { cpu } from "../../src/engine/cpu.ts";
import { isAlive, root, SetupError } from "../../src/setup/checkout.ts";
import { type Finished, findPython, pipEnvironment, pipProblem, runProgram } from "../../src/setup/python.ts";

export const peersFolder = join(root, ".cache", "peers");

const llamaVersion = "0.3.36";
const nodeLlamaVersion = "3.22.1";
const sentenceVersion = "6.2.0";
const torchVersion = "2.15.0";
/** What writes the random-weight models. */
const ggufVersion = "0.19.0";
/** GCC 12 otherwise drops stores that llama.cpp's AMX tile configuration needs; the program then dies of an illegal instruction. */
const cmakeArguments = "-DCMAKE_CXX_FLAGS='-fno-tree-dse -fno-dse'";

/** The packages of node-llama-cpp's prebuilt libraries without a GPU's, by system. */
const prebuilt: ReadonlyMap<string, string> = new Map([
  ["linux-x64", "linux-x64"],
  ["linux-arm64", "linux-arm64"],
  ["darwin-x64", "mac-x64"],
]);

/** How to start a Python that has llama_cpp, gguf and numpy. */
export interface PeerPython {
  readonly command: readonly string[];
  readonly environment: NodeJS.ProcessEnv;
  /** As the installed packages say themselves. */
  readonly llamaVersion: string;
  readonly pythonVersion: string;
}

/** Where node-llama-cpp lies, for a script in that folder to import. */
export interface PeerNode {
  readonly folder: string;
  readonly version: string;
}

/**
 * The Python named by `TINYAI_PEERS_PYTHON`, else the machine's own with packages built on first use, which takes minutes.
 * @throws {SetupError} if a compiler, cmake or Python is missing, or the build fails.
 */
export async function ensureLlama(): Promise<PeerPython> {
  const { TINYAI_PEERS_PYTHON: given } = process.env;
  if (given !== undefined && given !== "") {
    const python = { command: [given], environment: process.env };
    return { ...python, ...(await askVersions(python, "TINYAI_PEERS_PYTHON names this Python; ")) };
  }
  const command = await findPython().catch((error: Error) => {
    throw new SetupError(`llama.cpp: ${error.message}`);
  });
  const about = await runProgram([...command, "-c", "import sys, platform; print(sys.version, platform.machine())"]);
  // The build is for this CPU: a cache that came with another machine must not be used.
  const flags = existsSync("/proc/cpuinfo")
    ? /^(?:flags|Features)\s*:(.*)$/m.exec(readFileSync("/proc/cpuinfo", "utf8"))
    : null;
  const made = [llamaVersion, ggufVersion, cmakeArguments, about.stdout, cpu.model, flags?.[1]?.trim()];
  const folder = join(peersFolder, `python-${hashOf(made.join("\n"))}`);
  const python = { command, environment: { ...process.env, PYTHONPATH: folder, PYTHONDONTWRITEBYTECODE: "1" } };
  if (!existsSync(folder)) {
    requireBuildTools();
    await install(folder, `llama.cpp ${llamaVersion}, built for this CPU`, (packages, temporary, signal) => {
      // pip's cache knows nothing of the CPU and the flags that a package was built for.
      const pip = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-cache-dir",
        "--target",
        packages,
        "--no-binary",
        "llama-cpp-python",
      ];
      const wanted = [`llama-cpp-python==${llamaVersion}`, `gguf==${ggufVersion}`, "numpy>=2.0,<3"];
      const env = {
        ...pipEnvironment(temporary),
        CMAKE_ARGS: cmakeArguments,
        CMAKE_BUILD_PARALLEL_LEVEL: String(cpu.cores),
      };
      return runProgram([...command, ...pip, ...wanted], { env, signal });
    });
  }
  return { ...python, ...(await askVersions(python, `remove ${folder} and run this again; `)) };
}

/** How to start a Python that has sentence_transformers, and the versions of it and of PyTorch. */
export interface SentencePython extends Pick<PeerPython, "command" | "environment"> {
  readonly versions: string;
}

/**
 * The Python named by `TINYAI_EMBED_PYTHON`, else the machine's own with packages that are downloaded on first use: PyTorch as pip
 * has it, which on Linux comes with 3 GB of libraries for GPUs.
 * @throws {SetupError} if there is no Python, or the packages cannot be installed or imported.
 */
export async function ensureSentenceTransformers(): Promise<SentencePython> {
  const { TINYAI_EMBED_PYTHON: given } = process.env;
  if (given !== undefined && given !== "") {
    return await askSentence({ command: [given], environment: process.env }, "TINYAI_EMBED_PYTHON names this Python; ");
  }
  const command = await findPython().catch((error: Error) => {
    throw new SetupError(`sentence-transformers: ${error.message}`);
  });
  const about = await runProgram([...command, "-c", "import sys, platform; print(sys.version, platform.machine())"]);
  const wanted = [`sentence-transformers==${sentenceVersion}`, `torch==${torchVersion}`];
  const folder = join(peersFolder, `sentence-${hashOf([...wanted, about.stdout].join("\n"))}`);
  if (!existsSync(folder)) {
    await install(folder, `sentence-transformers ${sentenceVersion}`, (packages, temporary, signal) => {
      const pip = ["-m", "pip", "install", "--quiet", "--no-cache-dir", "--only-binary", ":all:", "--target", packages];
      return runProgram([...command, ...pip, ...wanted], { env: pipEnvironment(temporary), signal });
    });
  }
  const environment = { ...process.env, PYTHONPATH: folder, PYTHONDONTWRITEBYTECODE: "1" };
  return await askSentence({ command, environment }, `remove ${folder} and run this again; `);
}

async function askSentence(
  python: Pick<PeerPython, "command" | "environment">,
  advice: string,
): Promise<SentencePython> {
  const program =
    "import sentence_transformers, torch; print(f'sentence-transformers {sentence_transformers.__version__}, PyTorch {torch.__version__}')";
  const asked = await runProgram([...python.command, "-c", program], { env: python.environment });
  if (asked.status === 0) return { ...python, versions: asked.stdout.trim() };
  const said = asked.stderr.trim().split("\n").at(-1);
  throw new SetupError(`${python.command.join(" ")}: cannot import sentence_transformers: ${advice}it says: ${said}`);
}

/** @throws {SetupError} naming what is missing. */
function requireBuildTools(): void {
  const { CXX: compiler } = process.env;
  const missing: string[] = [];
  if (![compiler ?? "", "c++", "g++", "clang++"].some((name) => name !== "" && Bun.which(name) !== null)) {
    missing.push("a C++ compiler");
  }
  if (Bun.which("cmake") === null) missing.push("cmake");
  if (missing.length === 0) return;
  const how =
    "Debian: apt-get install g++ cmake; or TINYAI_PEERS_PYTHON names a Python that has llama_cpp, gguf and numpy";
  throw new SetupError(`llama.cpp is built from source and needs ${missing.join(" and ")} (${how})`);
}

async function askVersions(
  python: Pick<PeerPython, "command" | "environment">,
  advice: string,
): Promise<Pick<PeerPython, "llamaVersion" | "pythonVersion">> {
  const program = "import gguf, numpy, llama_cpp, platform; print(llama_cpp.__version__, platform.python_version())";
  const asked = await runProgram([...python.command, "-c", program], { env: python.environment });
  const [llama, version] = asked.stdout.trim().split(" ");
  if (asked.status === 0 && llama !== undefined && version !== undefined) {
    return { llamaVersion: llama, pythonVersion: version };
  }
  const said = asked.stderr.trim().split("\n").at(-1);
  throw new SetupError(
    `${python.command.join(" ")}: cannot import llama_cpp, gguf and numpy: ${advice}it says: ${said}`,
  );
}

/**
 * node-llama-cpp with its prebuilt library for this system; none of its install scripts run.
 * @throws {SetupError} if it cannot be had for this system or installed.
 */
export async function ensureNodeLlama(): Promise<PeerNode> {
  const system = prebuilt.get(`${process.platform}-${process.arch}`);
  if (system === undefined)
    throw new SetupError(`node-llama-cpp: no prebuilt library for ${process.platform} ${process.arch}`);
  const folder = join(peersFolder, `node-llama-cpp-${nodeLlamaVersion}-${system}`);
  if (!existsSync(folder)) {
    await install(folder, `node-llama-cpp ${nodeLlamaVersion}`, (packages, _, signal) => {
      mkdirSync(packages);
      const dependencies = { "node-llama-cpp": nodeLlamaVersion, [`@node-llama-cpp/${system}`]: nodeLlamaVersion };
      writeFileSync(join(packages, "package.json"), JSON.stringify({ private: true, dependencies }));
      // The optional packages are the libraries for other systems and for GPUs: 600 MB that are of no use here.
      return runProgram([process.execPath, "install", "--ignore-scripts", "--omit=optional"], {
        cwd: packages,
        signal,
      });
    });
  }
  return { folder, version: nodeLlamaVersion };
}

/** Installs into a temporary folder that gets its name when it is whole, and is removed when it fails or is interrupted. */
async function install(
  folder: string,
  label: string,
  work: (packages: string, temporary: string, signal: AbortSignal) => Promise<Finished>,
): Promise<void> {
  const temporary = `${folder}.${process.pid}.tmp`;
  removeAbandoned();
  const progress = startProgress({ label, unit: "seconds" });
  const interruption = new AbortController();
  const interrupt = () => interruption.abort();
  for (const name of ["SIGINT", "SIGTERM"] as const) process.on(name, interrupt);
  try {
    mkdirSync(temporary, { recursive: true });
    const packages = join(temporary, "packages");
    const finished = await work(packages, temporary, interruption.signal);
    if (interruption.signal.aborted) throw new SetupError(`${label}: interrupted; nothing is left of it`);
    if (finished.status !== 0) throw new SetupError(`${label}: ${pipProblem(finished)}`);
    renameSync(packages, folder);
    progress.done();
  } catch (error) {
    progress.failed();
    throw error;
  } finally {
    for (const name of ["SIGINT", "SIGTERM"] as const) process.off(name, interrupt);
    // What pip has started may write a moment longer.
    rmSync(temporary, { recursive: true, force: true, maxRetries: 20 });
  }
}

// What a killed run left; some of it is large.
function removeAbandoned(): void {
  for (const name of existsSync(peersFolder) ? readdirSync(peersFolder) : []) {
    const owner = /\.(\d+)\.tmp$/.exec(name)?.[1];
    if (owner !== undefined && !isAlive(Number(owner)))
      rmSync(join(peersFolder, name), { recursive: true, force: true });
  }
}

/** Sixteen hexadecimal digits that stand for `text`. */
export function hashOf(text: string): string {
  return createHash("sha256").update(text).digest("hex").slice(0, 16);
}
