// Changes an engine's levels or threads together with the tuning that was found for them. Loading finds the same.

import type { Engine } from "../engine/engine.ts";
import type { Library } from "../engine/library.ts";
import type { EngineSettings } from "../engine/settings.ts";
import type { ModelFile } from "../model/file.ts";
import { findSettings } from "../model-tuning.ts";
import { type CacheState, tunedTo } from "./cache.ts";

/** What of a model it looks at. */
export interface TunedModel {
  readonly library: Library;
  readonly file: ModelFile;
  readonly engine: Engine;
  readonly cache: CacheState;
}

/**
 * Resolves once they hold. What is configured meanwhile builds on them.
 * @throws {OptionError} if what was asked of the caches does not go with the tuning. @throws as `Engine.configure`. Nothing is changed then.
 */
export async function retune(
  { library, file, engine, cache }: TunedModel,
  changes: Partial<Pick<EngineSettings, "levels" | "threadCount">>,
): Promise<void> {
  const find = ({ levels, threadCount }: Pick<EngineSettings, "levels" | "threadCount">) =>
    findSettings(library, levels.matmul, file, { threadCount, threadsGiven: true, tuning: cache.choice }).found;
  const found = find({ ...engine.settings, ...changes });
  const tuning = tunedTo(found.tuning, cache.given);
  cache.found = found;
  try {
    await engine.configure({ ...changes, tuning });
  } catch (error) {
    // What was found before may have been refused as well.
    if (cache.found === found) cache.found = find(engine.settings);
    throw error;
  }
}
