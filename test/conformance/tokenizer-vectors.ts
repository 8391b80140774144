// Gets llama.cpp's tokenizer vocabularies and vectors for the conformance test: from llama-cpp-python's source package on
// PyPI, by pip, once, into .cache/conformance. It builds nothing and compares nothing.

import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { root } from "../../src/setup/checkout.ts";
import { findPython, pipEnvironment, pipProblem, runProgram } from "../../src/setup/python.ts";

const version = "0.3.36";

/** Takes from the package's archive (argument 1) only the vocabularies and vectors, into the folder of argument 2. */
const extraction = `
import os, sys, tarfile
with tarfile.open(sys.argv[1]) as archive:
    for member in archive:
        name = os.path.basename(member.name)
        if member.isfile() and "/vendor/llama.cpp/models/ggml-vocab-" in member.name:
            with open(os.path.join(sys.argv[2], name), "wb") as file:
                file.write(archive.extractfile(member).read())
`;

/**
 * The folder of ggml-vocab-NAME.gguf with their .inp and .out.
 * @throws {Error} saying what pip said, if the package cannot be got.
 */
export async function vectorsFolder(): Promise<string> {
  const cache = join(root, ".cache", "conformance");
  // The name is the stamp: the folder gets it when it is whole.
  const folder = join(cache, `tokenizer-vectors-${version}`);
  if (existsSync(folder)) return folder;
  const work = join(cache, `tokenizer-vectors.${process.pid}.tmp`);
  const [backend, download, vectors] = ["backend", "download", "vectors"].map((name) => join(work, name)) as [
    string,
    string,
    string,
  ];
  try {
    for (const path of [backend, download, vectors]) mkdirSync(path, { recursive: true });
    const python = await findPython();
    const environment = pipEnvironment(work);
    const run = async (command: readonly string[], env: NodeJS.ProcessEnv): Promise<void> => {
      const finished = await runProgram([...python, ...command], { env });
      if (finished.status !== 0) {
        throw new Error(`llama-cpp-python ${version} from PyPI, for the tokenizer vectors: ${pipProblem(finished)}`);
      }
    };
    // pip asks a source package for its metadata, so the package's build tool must be there, though nothing is built.
    await run(["-m", "pip", "install", "--quiet", "--target", backend, "scikit-build-core"], environment);
    const withBackend = { ...environment, PYTHONPATH: backend };
    const options = ["--quiet", "--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--dest", download];
    await run(["-m", "pip", "download", ...options, `llama-cpp-python==${version}`], withBackend);
    const archive = readdirSync(download).find((name) => name.endsWith(".tar.gz"));
    if (archive === undefined) throw new Error(`pip left no source package of llama-cpp-python ${version}`);
    await run(["-c", extraction, join(download, archive), vectors], environment);
    renameSync(vectors, folder);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  return folder;
}

/** A vocabulary's vectors: texts and the ids that they must give, without special tokens added or read. */
export interface Vectors {
  readonly model: string;
  readonly texts: readonly string[];
  readonly ids: readonly (readonly number[])[];
}

/** Reads the vectors of the vocabulary `name` from `folder`. */
export function readVectors(folder: string, name: string): Vectors {
  const model = join(folder, `ggml-vocab-${name}.gguf`);
  const texts = readFileSync(`${model}.inp`, "utf8").split("\n__ggml_vocab_test__\n");
  const lines = readFileSync(`${model}.out`, "utf8").split("\n").slice(0, texts.length);
  const ids = lines.map((line) =>
    line
      .split(" ")
      .filter((word) => word !== "")
      .map(Number),
  );
  return { model, texts, ids };
}
