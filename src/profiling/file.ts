// Reports as files: the ending says which format. Formats are loaded when they are written.

import type { Report, TraceData } from "../../profiler/report.ts";
import { OptionError } from "../errors.ts";
import { replaceFile } from "../files.ts";

/** Endings that name a format; of two that fit, the longer comes first. */
export const reportEndings = [".trace.json", ".speedscope.json", ".html", ".txt", ".json", ".folded", ".prom"] as const;

type Ending = (typeof reportEndings)[number];

/**
 * Writes a report: a page for a browser (.html), plain text (.txt), data (.json), a trace for Perfetto (.trace.json), profiles for
 * speedscope (.speedscope.json), stacks for flame graphs (.folded), or metrics for Prometheus (.prom). The file is whole or not
 * there.
 * @throws {OptionError} if the ending names no format.
 */
export async function writeReport(path: string, report: Report, trace: TraceData): Promise<void> {
  const ending = endingOf(path);
  const pieces = await piecesOf(ending, report, trace);
  const encoder = new TextEncoder();
  await replaceFile(path, async (append) => {
    for (const piece of pieces) await append(encoder.encode(piece));
  });
}

/** @throws {OptionError} if the path's ending names no format. */
export function endingOf(path: string): Ending {
  const ending = reportEndings.find((known) => path.endsWith(known));
  if (ending !== undefined) return ending;
  throw new OptionError("path", `${path} has no ending that names a format; there are ${reportEndings.join(", ")}`);
}

async function piecesOf(ending: Ending, report: Report, trace: TraceData): Promise<Iterable<string>> {
  switch (ending) {
    case ".html":
      return [(await import("../../profiler/page/index.ts")).reportPage(report, trace)];
    case ".txt":
      return [(await import("../../profiler/text.ts")).reportText(report)];
    case ".json":
      return [`${JSON.stringify(report, null, 2)}\n`];
    case ".trace.json":
      return (await import("../../profiler/traces.ts")).chromeTrace(report, trace);
    case ".speedscope.json":
      return (await import("../../profiler/traces.ts")).speedscope(report, trace);
    case ".folded":
      return [(await import("../../profiler/traces.ts")).foldedStacks(report, trace)];
    case ".prom":
      return [(await import("../metrics/index.ts")).prometheusText(report)];
  }
}
