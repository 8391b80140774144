// Everything that profiling a model needs, loaded when it is first asked for.

import type { Report, TraceData } from "../../profiler/report.ts";
import type { ReportEnding } from "./file.ts";

export { nativeMemory } from "../engine/allocations.ts";
export { opSignatures } from "../plan/signature.ts";
export { findRoofs, machineRoofs } from "../roofs.ts";
export type { ReportEnding } from "./file.ts";
export { Monitor, type MonitorOptions } from "./monitor.ts";
export { countedOps, type ProfileOptions, Recorded, Recording, referenceCaches } from "./recording.ts";

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
}

/** The report as JSON has it, and beside that what writes it. */
export function profiledRun(report: Report, trace: TraceData): ProfiledRun {
  const write: ProfiledRun["write"] = async (path, format) => {
    const { writeReport } = await import("./file.ts");
    await writeReport(path, report, trace, format);
  };
  return Object.defineProperty({ ...report } as ProfiledRun, "write", { value: write, enumerable: false });
}
