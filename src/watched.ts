// Which models this process has open, and who wants to hear of them: what watches all models at once (profiling/analysis.ts) is loaded
// only when it is used, and models know nothing of it.

import type { Model } from "./load.ts";

export interface ModelWatcher {
  readonly opened: (model: Model) => void;
  /** Called before the model's memory is freed, which waits for it. */
  readonly closing: (model: Model) => Promise<void>;
}

const open = new Set<Model>();
const watchers = new Set<ModelWatcher>();

export function modelOpened(model: Model): void {
  open.add(model);
  for (const watcher of watchers) watcher.opened(model);
}

export async function modelClosing(model: Model): Promise<void> {
  if (!open.delete(model)) return;
  for (const watcher of watchers) await watcher.closing(model);
}

/** Hears of the models that are open now, and of all later ones, until what it returns is called. */
export function watchModels(watcher: ModelWatcher): () => void {
  for (const model of open) watcher.opened(model);
  watchers.add(watcher);
  return () => watchers.delete(watcher);
}
