// Where TinyAI keeps what it downloads. Nothing here creates a folder.

import { homedir } from "node:os";
import { join, resolve } from "node:path";

/** TinyAI's folder: `$TINYAI_HOME`, else `tinyai` in the user's cache folder as the system names it. */
export function homeFolder(): string {
  const chosen = process.env["TINYAI_HOME"];
  if (chosen) return resolve(chosen);
  switch (process.platform) {
    case "darwin":
      return join(homedir(), "Library", "Caches", "tinyai");
    case "win32":
      return join(process.env["LOCALAPPDATA"] || join(homedir(), "AppData", "Local"), "tinyai");
    default:
      return join(process.env["XDG_CACHE_HOME"] || join(homedir(), ".cache"), "tinyai");
  }
}

/** The folder of pulled models. */
export function modelsFolder(): string {
  return join(homeFolder(), "models");
}
