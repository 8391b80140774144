// Everything that profiling a model needs, loaded when it is first asked for.

import type { OptimizationImpact } from "../../profiler/impact.ts";
import type { Report, TraceData } from "../../profiler/report.ts";
import type { ReportEnding } from "./file.ts";

export { opSignatures } from "../plan/signature.ts";
export { findRoofs, machineRoofs } from "../roofs.ts";
export type { ReportEnding } from "./file.ts";
export type { CacheUsage } from "./live-caches.ts";
export { Monitor, type MonitorEvents, type MonitorOptions } from "./monitor.ts";
export {
  countedOps,
  type ProfileOptions,
  Recorded,
  type RecordedModel,
  Recording,
  referenceCaches,
} from "./recording.ts";
export type { MonitorSample } from "./sampling.ts";

/** A report that can write itself to a file. */
export interface ProfiledRun extends Report {
  /**
   * Writes it in the format that the file's ending names: .html (one file with charts, which needs no network), .trace.json
   * (Perfetto), .speedscope.json, .txt, .json, .folded (stacks for flame graphs), .prom (metrics for Prometheus, in
   * text format 0.0.4), or that `format` names, whatever the file is called. A device or a FIFO is written straight into.
   * @throws {OptionError} if no ending names the format, or there can be no file of that path.
   * @throws {TinyAIError} with the code `file` if the system refuses to write it.
   */
  readonly write: (path: string, format?: ReportEnding) => Promise<void>;
  /**
   * Events, and spans of JavaScript, that are in the report but came too late for its traces: of what takes place, 32 MB are kept.
   * 0: traces are whole.
   */
  readonly untraced: number;
}

/** The report as JSON has it, and beside that what writes it, and what it cannot write. */
export function profiledRun(report: Report, trace: TraceData): ProfiledRun {
  const write: ProfiledRun["write"] = async (path, format) => {
    const { writeReport } = await import("./file.ts");
    await writeReport(path, run, trace, format);
  };
  const run = Object.defineProperties({ ...report } as ProfiledRun, {
    write: { value: write, enumerable: false },
    untraced: { value: trace.dropped + trace.spansDropped, enumerable: false },
  });
  return run;
}

/** Puts what each optimisation contributes into a run's report, and into what it writes. */
export function addImpact(run: ProfiledRun, impact: OptimizationImpact): ProfiledRun {
  return Object.assign(run, { impact });
}
