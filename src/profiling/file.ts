// Reports as files: the ending says which format. Formats are loaded when they are written.

import { accessSync, constants, type Stats, statSync } from "node:fs";
import { dirname } from "node:path";
import type { Report, TraceData } from "../../profiler/report.ts";
import { describe } from "../check.ts";
import { OptionError, TinyAIError } from "../errors.ts";
import { isSystemError, replaceFile } from "../files.ts";

/** Endings that name a format, in any case; of two that fit, the longer comes first. */
export const reportEndings = [".trace.json", ".speedscope.json", ".html", ".txt", ".json", ".folded", ".prom"] as const;

export type ReportEnding = (typeof reportEndings)[number];

/**
 * Writes a report: a page for a browser (.html), plain text (.txt), data (.json), a trace for Perfetto (.trace.json), profiles for
 * speedscope (.speedscope.json), stacks for flame graphs (.folded), or metrics for Prometheus (.prom). The file is whole or not
 * there.
 * @param format an ending that stands for the path's own.
 * @throws {OptionError} if no ending names the format, or there can be no file of that path.
 * @throws {TinyAIError} with the code `file` if the system refuses to write it, as where the disk is full.
 */
export async function writeReport(
  path: string,
  report: Report,
  trace: TraceData,
  format?: ReportEnding,
): Promise<void> {
  const ending = checkReportPath(path, format);
  await writeFile(path, await piecesOf(ending, report, trace));
}

/**
 * Writes a file that is whole or not there.
 * @throws {TinyAIError} with the code `file` if the system refuses to write it, as where the disk is full.
 */
export async function writeFile(
  path: string,
  pieces: Iterable<string | Uint8Array> | AsyncIterable<Uint8Array>,
): Promise<void> {
  const encoder = new TextEncoder();
  try {
    await replaceFile(path, async (append) => {
      for await (const piece of pieces) await append(typeof piece === "string" ? encoder.encode(piece) : piece);
    });
  } catch (cause) {
    if (!isSystemError(cause)) throw cause;
    // What follows the comma is of another name that the file has until it is whole.
    const [problem] = cause.message.split(",");
    throw new TinyAIError("file", `${path}: cannot be written: ${problem}; name another file`, { cause });
  }
}

/**
 * The ending of a report's path, which names its format, or the one that stands for it.
 * @throws {OptionError} if there is none that names a format, or there can be no file of that path.
 */
export function checkReportPath(path: string, format?: ReportEnding): ReportEnding {
  checkFilePath("path", path);
  if (format !== undefined && !reportEndings.includes(format)) {
    throw new OptionError("format", `is ${describe(format)}; there are ${reportEndings.join(", ")}`);
  }
  const ending = format ?? reportEnding(path);
  if (ending !== undefined) return ending;
  throw new OptionError("path", `${path} has no ending that names a format; there are ${reportEndings.join(", ")}`);
}

/** The format that a path's ending names, if it does. */
export function reportEnding(path: string): ReportEnding | undefined {
  const lower = path.toLowerCase();
  return reportEndings.find((known) => lower.endsWith(known));
}

/** @throws {OptionError} if there can be no file of that path: it is no text, its folder is not there or not to be written to. */
export function checkFilePath(option: string, path: unknown): asserts path is string {
  if (path instanceof URL) throw new OptionError(option, "is a URL; give a path: Bun.fileURLToPath(url)");
  if (typeof path !== "string" || path === "" || path.includes("\0")) {
    throw new OptionError(option, `is ${describe(path)}; the path of a file is expected`);
  }
  const folder = dirname(path);
  if (!statsOf(folder)?.isDirectory()) {
    throw new OptionError(option, `there is no folder ${folder} for ${path}; make it first`);
  }
  const there = statsOf(path);
  if (there?.isDirectory()) throw new OptionError(option, `${path} is a folder; name a file`);
  // A device or a FIFO is written straight into.
  if (there && !there.isFile()) return;
  try {
    accessSync(folder, constants.W_OK);
  } catch (cause) {
    throw new OptionError(option, `the folder ${folder} must not be written to; name a file elsewhere`, { cause });
  }
}

/** What the system refuses to say is said when the file is written. */
function statsOf(path: string): Stats | undefined {
  try {
    return statSync(path);
  } catch {
    return undefined;
  }
}

async function piecesOf(ending: ReportEnding, report: Report, trace: TraceData): Promise<Iterable<string>> {
  switch (ending) {
    case ".html":
      return [(await import("../../profiler/page/entry.js")).reportPage(report, trace)];
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
