// `createPerformanceAnalysis`: its options, and what it gives. What does the watching is loaded when it is called.

import type { OptimizationImpact } from "../profiler/impact.ts";
import type { SystemSample } from "../profiler/report.ts";
import { checkBoolean, checkInteger, checkKeys } from "./check.ts";
import { OptionError } from "./errors.ts";
import type { ImpactOptions } from "./impact.ts";
import type * as analysisModule from "./profiling/analysis.ts";

/** Options of `createPerformanceAnalysis`. */
export interface AnalysisOptions {
  /** Whether it is recorded where time goes: by op, layer, step and request. Default true; false: only the system is watched. */
  readonly trackExecutionTime?: boolean | undefined;
  /** Whether cache statistics are made, of the steps that were recorded. Default false. */
  readonly trackCacheUsage?: boolean | undefined;
  /** Between two samples of the system, ms, 10 to 60,000. Default 0: samples are those that `takeSample` takes. */
  readonly sampleIntervalMs?: number | undefined;
}

/** Watches all models of the process until it is closed. */
export interface PerformanceAnalysis extends AsyncDisposable {
  /**
   * Takes a sample of the system now (memory, CPU, page faults), which reports have too.
   * @throws {EngineError} after `close`.
   */
  readonly takeSample: () => SystemSample;
  /**
   * Measures what each optimisation contributes to the models that are open now, one after the other: as the function of that name,
   * each with the options' budget. Their reports have it from then on. The open models stay as they are; they should have nothing to do.
   * @throws {EngineError} if no model is open, or after `close`. @throws as the function.
   */
  readonly analyzeOptimizationImpact: (options?: ImpactOptions) => Promise<readonly OptimizationImpact[]>;
  /**
   * Writes what happened since the analysis, or its last report, began, in the format that the ending names, as a profiled run's
   * `write`. Of several models that worked in that time each has a file of its own, named before the ending:
   * `report.gemma.txt` and `report.qwen.txt` for `report.txt`; a model whose name is taken has a number behind it. Ops are placed on
   * the machine's roofline if that was measured before. What could not be written is in the next report.
   * @returns the paths of the files.
   * @throws {OptionError} if the ending names no format, or there can be no file of that path; nothing is lost then.
   * @throws {TinyAIError} with the code `file` if a file cannot be written.
   * @throws {EngineError} if no model was open, or after `close`.
   */
  readonly generateReport: (path: string) => Promise<readonly string[]>;
  /** Ends watching. Without a report, what was recorded is gone. */
  readonly close: () => Promise<void>;
}

/**
 * Watches all models of the process from now on, those that are loaded later and closed before the report as well. Each may be
 * profiled by itself meanwhile. There is one analysis at a time.
 * @throws {OptionError} if an option is out of its bounds. @throws {EngineError} if there is an analysis already.
 * @example
 * await using analysis = createPerformanceAnalysis({ trackCacheUsage: true, sampleIntervalMs: 100 });
 * await using model = await loadModel("gemma3-270m");
 * await model.generate("Once upon a time");
 * await analysis.generateReport("performance_report.txt");
 */
export function createPerformanceAnalysis(options: AnalysisOptions = {}): PerformanceAnalysis {
  checkKeys("options", options, ["trackExecutionTime", "trackCacheUsage", "sampleIntervalMs"]);
  const { trackExecutionTime = true, trackCacheUsage = false, sampleIntervalMs = 0 } = options;
  const time = checkBoolean("trackExecutionTime", trackExecutionTime);
  const cache = checkBoolean("trackCacheUsage", trackCacheUsage);
  if (cache && !time) {
    throw new OptionError(
      "trackCacheUsage",
      "is true, but steps that are not recorded have no cache statistics; let trackExecutionTime be true",
    );
  }
  if (sampleIntervalMs !== 0) checkInteger("sampleIntervalMs", sampleIntervalMs, 10, 60_000);
  const { Analysis }: typeof analysisModule = require("./profiling/analysis.ts");
  return new Analysis({ time, cache, sampleIntervalMs });
}
