// `bun run pack`: the npm packages as tarballs, in zig-out/packages: `tinyai`, and one a system that holds its native library, which
// npm and Bun install where it fits. Each is ready for `npm publish`. `--system linux-x64` packs only that system's, and `--output`
// names another folder.

import { cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import manifest from "../../package.json" with { type: "json" };
import { hostSystem, systems } from "../bundle/target.ts";
import { startProgress } from "../cli/progress.ts";
import { ensureLibrary } from "./build.ts";
import { root, runSetup, SetupError, withTemporaryFolder } from "./checkout.ts";
import { ensurePackages } from "./packages.ts";
import { runProgram } from "./python.ts";
import { ensureZig, zigEnvironment, zigJobs } from "./toolchain.ts";

/** What the packages have in common. */
const common = {
  version: manifest.version,
  license: manifest.license,
  publishConfig: { access: "public", provenance: true },
};

/** A native library to be packed, and its system, a key of `systems`. */
export interface PackedLibrary {
  readonly system: string;
  readonly path: string;
}

/**
 * Writes the tarballs of `tinyai` and of the libraries' packages into the folder `output`, and gives their paths.
 * @throws {SetupError} with what went wrong, if the types cannot be made or the folder not be written.
 */
export async function packTarballs(libraries: readonly PackedLibrary[], output: string): Promise<readonly string[]> {
  mkdirSync(output, { recursive: true });
  return await withTemporaryFolder("pack", async (folder) => {
    const staged = [await stageMain(join(folder, "tinyai"))];
    for (const library of libraries) staged.push(stageLibrary(join(folder, library.system), library));
    const tarballs: string[] = [];
    for (const package_ of staged) {
      const packed = await run([process.execPath, "pm", "pack", "--quiet", "--destination", resolve(output)], package_);
      tarballs.push(resolve(output, packed.trim().split("\n").at(-1) ?? ""));
    }
    return tarballs;
  });
}

/** The folder of the package `tinyai`: the sources as they are, their types, and a stand-in for Node. */
async function stageMain(folder: string): Promise<string> {
  for (const name of ["src", "profiler", "docs", "README.md", "LICENSE"]) {
    cpSync(join(root, name), join(folder, name), { recursive: true });
  }
  await writeTypes(join(folder, "types"));
  writeFileSync(join(folder, "node.cjs"), nodeStandIn());
  const { private: _private, scripts: _scripts, devDependencies: _development, ...kept } = manifest;
  const native = Object.entries(systems);
  writeManifest(folder, {
    ...kept,
    ...common,
    files: ["src", "profiler", "docs", "types", "node.cjs"],
    imports: Object.fromEntries(native.map(([system, file]) => [`#native/${system}`, `@tinyai/${system}/${file}`])),
    exports: {
      ...manifest.exports,
      ...Object.fromEntries(entries().map(([name, source]) => [name, conditionsOf(source)])),
    },
    types: typesOf(manifest.exports["."]),
    optionalDependencies: Object.fromEntries(native.map(([system]) => [`@tinyai/${system}`, manifest.version])),
    peerDependencies: { ...manifest.peerDependencies, "@types/bun": `>=${manifest.devDependencies["@types/bun"]}` },
    peerDependenciesMeta: { ...manifest.peerDependenciesMeta, "@types/bun": { optional: true } },
  });
  return folder;
}

/** The folder of a system's package. */
function stageLibrary(folder: string, { system, path }: PackedLibrary): string {
  const [os = "", cpu = ""] = system.split("-");
  mkdirSync(folder, { recursive: true });
  const file = systems[system] ?? "";
  cpSync(path, join(folder, file));
  cpSync(join(root, "LICENSE"), join(folder, "LICENSE"));
  writeFileSync(
    join(folder, "README.md"),
    `The native library of [tinyai](https://www.npmjs.com/package/tinyai) for ${system}.\n`,
  );
  writeManifest(folder, {
    name: `@tinyai/${system}`,
    description: `The native library of tinyai for ${system}`,
    ...common,
    os: [os],
    cpu: [cpu],
    ...(os === "linux" && { libc: ["glibc"] }),
    files: [file],
  });
  return folder;
}

function writeManifest(folder: string, content: object): void {
  writeFileSync(join(folder, "package.json"), `${JSON.stringify(content, null, 2)}\n`);
}

/** The entries that are programs, and their sources. */
function entries(): [name: string, source: string][] {
  return Object.entries(manifest.exports).filter(([, path]) => path.endsWith(".ts"));
}

function typesOf(source: string): string {
  return source.replace("./", "./types/").replace(/\.ts$/, ".d.ts");
}

/** Bun runs the sources; Node, which Bun also takes itself for, is told that it cannot. */
function conditionsOf(source: string) {
  return { types: typesOf(source), bun: source, node: "./node.cjs", default: source };
}

/** What Node loads for every entry. A program's imports are looked for before anything runs, so that each has to be there. */
function nodeStandIn(): string {
  const names = entries().flatMap(([, source]) => {
    return new Bun.Transpiler({ loader: "ts" }).scan(readFileSync(join(root, source), "utf8")).exports;
  });
  const message =
    "tinyai runs in Bun (https://bun.sh) and not in Node: start this program with `bun` instead of `node`\n";
  return `process.stderr.write(${JSON.stringify(message)});
process.exit(1);
${names.map((name) => `exports.${name} = `).join("")}undefined;
`;
}

/** Writes the entries' types, and those of what they import, and beside them those that were written by hand. */
async function writeTypes(folder: string): Promise<void> {
  const flags =
    "--ignoreConfig --strict --skipLibCheck --target esnext --lib esnext --types bun --module preserve --resolveJsonModule " +
    "--allowImportingTsExtensions --declaration --emitDeclarationOnly --rootDir . --outDir";
  const sources = entries().map(([, source]) => source);
  await run([join(root, "node_modules", ".bin", "tsc"), ...flags.split(" "), folder, ...sources], root);
  const byHand = join("profiler", "page");
  for (const name of readdirSync(join(root, byHand)).filter((file) => file.endsWith(".d.ts"))) {
    cpSync(join(root, byHand, name), join(folder, byHand, name));
  }
}

/** What a program prints. */
async function run(command: readonly string[], cwd: string): Promise<string> {
  const { status, stdout, stderr } = await runProgram(command, { cwd });
  if (status !== 0) throw new SetupError(`${command.slice(0, 3).join(" ")} failed:\n${stdout}${stderr}`.trim());
  return stdout;
}

/** Builds the libraries of the systems, this one's as for use in the checkout. */
async function buildLibraries(wanted: readonly string[]): Promise<PackedLibrary[]> {
  if (wanted.every((system) => system === hostSystem)) {
    const path = await ensureLibrary();
    return wanted.map((system) => ({ system, path }));
  }
  const zig = await ensureZig();
  const progress = startProgress({ label: "native libraries", unit: "seconds" });
  const { status, stderr } = await runProgram([zig, "build", "-Dall", zigJobs], { cwd: root, env: zigEnvironment() });
  if (status !== 0) {
    progress.failed();
    throw new SetupError(`${zig} build -Dall failed:\n${stderr.trim()}`);
  }
  progress.done();
  return wanted.map((system) => ({ system, path: join(root, "zig-out", system, systems[system] ?? "") }));
}

if (import.meta.main) {
  await runSetup(async () => {
    const { values } = parseArgs({
      options: { system: { type: "string", multiple: true }, output: { type: "string" } },
    });
    const wanted = values.system ?? Object.keys(systems);
    for (const system of wanted) {
      if (!Object.hasOwn(systems, system))
        throw new SetupError(`${system}: is none of ${Object.keys(systems).join(", ")}`);
    }
    await ensurePackages();
    const libraries = await buildLibraries(wanted);
    const tarballs = await packTarballs(libraries, values.output ?? join(root, "zig-out", "packages"));
    process.stdout.write(`${tarballs.join("\n")}\n`);
    return 0;
  });
}
