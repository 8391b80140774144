// What those who write files check of their paths before they do anything else.

import { readdirSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { OptionError } from "./errors.ts";
import { resolveModel } from "./model/resolve.ts";
import { preparedPath } from "./prepared.ts";
import { checkFilePath } from "./profiling/file.ts";

/** A file that no output may take the place of: its path, and what it is, as in "model.gguf is the model itself". */
export type InputFile = readonly [path: string, what: string];

/** Names that files of a model's folder have. Others there may well be results of earlier runs. */
const partNames = /^(.*config|tokenizer|modules|.*\.index|special_tokens_map)\.json$|^vocab\.txt$|\.safetensors$/;

/** The files of a model. One that is not there is told of by who opens it, and has none. */
export function modelFiles(model: string): InputFile[] {
  try {
    const source = resolveModel(model);
    return [
      [source, "the model itself"],
      [preparedPath(source), "the model's prepared copy"],
      ...partsOf(source).map((path): InputFile => [path, "a file of the model"]),
    ];
  } catch {
    return [];
  }
}

/** Of a folder and those in it: modules of sentence-transformers have one each. */
function partsOf(source: string): string[] {
  if (!statSync(source).isDirectory()) return [];
  const partsIn = (folder: string, names: readonly string[]): string[] =>
    names.filter((name) => partNames.test(name)).map((name) => join(folder, name));
  const names = readdirSync(source);
  return [
    ...partsIn(source, names),
    ...names.flatMap((name) => partsIn(join(source, name), namesIn(join(source, name)))),
  ];
}

/** Of what is no folder, or may not be read, none. */
function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

/**
 * @throws {OptionError} if there can be no file of that path, or it would take the place of one that is read, links included.
 * @param option the flag that names it.
 */
export function checkOutput(option: string, path: string, inputs: Iterable<InputFile>): void {
  checkFilePath(option, path);
  const own = identity(path);
  for (const [input, what] of inputs) {
    if (identity(input) === own) throw new OptionError(option, `${path} is ${what}; name another file`);
  }
}

/** What is the same for two paths of one file, links included, whether it is there or not. */
export function identity(path: string): string {
  const at = statSync(path, { throwIfNoEntry: false });
  if (at) return `${at.dev}:${at.ino}`;
  const folder = statSync(dirname(path), { throwIfNoEntry: false });
  return `${folder?.dev}:${folder?.ino}/${basename(path)}`;
}
