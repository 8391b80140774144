// From what a user calls a model to its file or folder: a path, or a name of the catalogue. Nothing here opens or downloads it.

import { existsSync } from "node:fs";
import { describe } from "../check.ts";
import { DownloadError, OptionError } from "../errors.ts";
import { catalogue, pulledPath } from "./catalogue.ts";

/**
 * A name of the catalogue, unless a file of that path exists. `option` is what the model was given as.
 * @throws {OptionError} if it is neither.
 * @throws {DownloadError} if the model of that name was not pulled.
 */
export function resolveModel(model: string, option = "model"): string {
  if (existsSync(model)) return model;
  const entry = catalogue.find(({ name }) => name === model);
  if (!entry) {
    if (/[/\\.]/.test(model)) return model;
    const names = catalogue.map(({ name }) => name).join(", ");
    throw new OptionError(
      option,
      `there is no file and no model named ${describe(model)}; models with a name are ${names}`,
    );
  }
  const path = pulledPath(entry);
  if (!existsSync(path)) {
    throw new DownloadError(`${model} is not on this machine yet; run \`tinyai pull ${model}\``);
  }
  return path;
}
