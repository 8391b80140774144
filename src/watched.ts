// Which models this process has open, and who wants to hear of them: what watches all models at once (profiling/analysis.ts) is loaded
// only when it is used, and models know no more of it than that it records them.

import type { SystemSample } from "../profiler/report.ts";
import type { Model } from "./loaded-model.ts";
import type { ProfiledRun, ProfileOptions } from "./profiling/index.ts";

/** A model to who watches all of them. It is recorded here beside what its own methods record. */
export interface WatchedModel {
  /** What `loadModel` finds it by. */
  readonly source: () => string;
  readonly model: () => Model;
  readonly start: (options: ProfileOptions) => void;
  /** Takes a sample of the system now, which what is recorded has too: with JavaScript's heap added up anew, unless that is false. */
  readonly sample: (anew?: boolean) => SystemSample;
  /** Ends recording now, and gives what was recorded. */
  readonly finish: () => Promise<ProfiledRun>;
  /** Ends recording without a report. */
  readonly cancel: () => void;
}

export interface ModelWatcher {
  readonly opened: (model: WatchedModel) => void;
  /** Called before the model's memory is freed, which waits for it. */
  readonly closing: (model: WatchedModel) => Promise<void>;
}

const open = new Set<WatchedModel>();
const watchers = new Set<ModelWatcher>();

export function modelOpened(model: WatchedModel): void {
  open.add(model);
  for (const watcher of watchers) watcher.opened(model);
}

export async function modelClosing(model: WatchedModel): Promise<void> {
  if (!open.delete(model)) return;
  for (const watcher of watchers) await watcher.closing(model);
}

/** Hears of the models that are open now, and of all later ones, until what it returns is called. */
export function watchModels(watcher: ModelWatcher): () => void {
  for (const model of open) watcher.opened(model);
  watchers.add(watcher);
  return () => watchers.delete(watcher);
}
