// `model.monitor`: its options, and what a monitor needs of a model.

import { checkBoolean, checkInteger, checkKeys, describe } from "../check.ts";
import { nativeMemory } from "../engine/allocations.ts";
import { OptionError } from "../errors.ts";
import type { ModelParts } from "../loaded-model.ts";
import { openLiveCaches } from "../profiling/live-caches.ts";
import { checkInterval, Monitor, type MonitorOptions } from "../profiling/monitor.ts";
import type { RecordedModel } from "../profiling/recording.ts";
import { levelsInWords } from "./simd.ts";

export { checkInterval };

const known = ["intervalMs", "executionTime", "cacheUsage", "signal", "windowMs", "windows", "name"] as const;

/** @throws {OptionError} if an option is out of its bounds, or caches cannot be watched. */
export function openMonitor(
  parts: ModelParts,
  model: RecordedModel,
  options: MonitorOptions,
  onClose: (monitor: Monitor) => void,
): Monitor {
  const { engine, library, batchSize } = parts;
  const { executionTime, cacheUsage, signal, name } = checkMonitorOptions(options);
  signal?.throwIfAborted();
  const { run, ops } = model;
  const { architecture, version } = run;
  const watched = {
    engine,
    ops,
    batchSize,
    // Levels and threads are those of the time when somebody looks.
    model: {
      model: name ?? run.model,
      architecture,
      version,
      get level() {
        return levelsInWords(parts);
      },
      get threads() {
        return engine.threadCount;
      },
    },
    nativeBytes: () => nativeMemory(library).liveBytes,
    caches: cacheUsage ? openLiveCaches(model, executionTime) : undefined,
  };
  const monitor: Monitor = new Monitor(watched, options, () => onClose(monitor));
  return monitor;
}

function checkMonitorOptions(options: MonitorOptions) {
  checkKeys("options", options, known);
  const { intervalMs, windowMs, windows, name, signal, executionTime = true, cacheUsage = false } = options;
  if (intervalMs !== undefined) checkInterval("intervalMs", intervalMs);
  if (windowMs !== undefined) checkInteger("windowMs", windowMs, 100, 86_400_000);
  if (windows !== undefined) checkInteger("windows", windows, 1, 10_000);
  if (name !== undefined && (typeof name !== "string" || name === "")) {
    throw new OptionError("name", `is ${describe(name)}; a text of at least one character is expected`);
  }
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw new OptionError("signal", `is ${describe(signal)}; an AbortSignal is expected`);
  }
  checkBoolean("executionTime", executionTime);
  checkBoolean("cacheUsage", cacheUsage);
  return { executionTime, cacheUsage, signal, name };
}
