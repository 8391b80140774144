// The systems that have a native library, by the names of npm's platform packages and of Bun's compile targets.

import { describe } from "../check.ts";
import { OptionError } from "../errors.ts";

/** A system, as Node's `process.platform` and `process.arch` name it, and its library's file. */
export const systems: Readonly<Record<string, string>> = {
  "linux-x64": "libtinyai.so",
  "linux-arm64": "libtinyai.so",
  "darwin-x64": "libtinyai.dylib",
  "darwin-arm64": "libtinyai.dylib",
  "win32-x64": "tinyai.dll",
};

/** What an executable is made for. */
export interface Target {
  /** A key of `systems`. */
  readonly system: string;
  /** As Bun's bundler takes it; undefined for the system and the Bun that this is. */
  readonly bun: string | undefined;
}

/** This system. */
export const hostSystem = `${process.platform}-${process.arch}`;

/**
 * The target of that name as Bun has it, such as `bun-linux-x64` or `bun-linux-x64-baseline`; without a name, this system.
 * @throws {OptionError} if there is no library for it.
 */
export function findTarget(name: string | undefined): Target {
  const [, platform = "", arch = ""] = /^bun-(linux|darwin|windows)-(x64|arm64)(?!.*musl)/.exec(name ?? "") ?? [];
  const system = name === undefined ? hostSystem : `${platform === "windows" ? "win32" : platform}-${arch}`;
  if (Object.hasOwn(systems, system)) return { system, bun: name };
  const names = Object.keys(systems).map((known) => `bun-${known.replace("win32", "windows")}`);
  throw new OptionError("--target", `is ${describe(name ?? system)}; there is a library for ${names.join(", ")}`);
}
