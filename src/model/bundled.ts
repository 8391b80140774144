// The models inside this program's own executable, where `tinyai bundle` has put them. They are prepared files, each somewhere in
// the middle of it. Nothing here reads them: openPrepared does, which also checks that one is there.

import type { BytePlace } from "./file.ts";

/** A model inside the executable, as `tinyai bundle` notes it. */
export interface BundledModel {
  /** What it may be called: as the user named it, and as its file is called, with its ending and without. */
  readonly names: readonly string[];
  /** Where it begins, in decimal digits: always as many, so that the program is as long wherever its models come to lie. */
  readonly offset: string;
  readonly bytes: number;
}

/** Where a model inside the executable is. */
export interface BundledPlace extends BytePlace {
  /** The executable. */
  readonly path: string;
}

/** Defined by `tinyai bundle`, for the bundler; in every other program there is no such name. */
declare const TINYAI_BUNDLED: readonly BundledModel[];

/** The model inside this program that is called so, if there is one. */
export function findBundled(model: string): BundledPlace | undefined {
  const models = typeof TINYAI_BUNDLED === "undefined" ? [] : TINYAI_BUNDLED;
  const found = models.find(({ names }) => names.includes(model));
  return found && { path: process.execPath, byteOffset: Number(found.offset), byteLength: found.bytes };
}
