// What a folder tells of the work that was done on a model: reports of its runs, results of its benchmarks, and what its programs call.
// It reads no more than a bounded number of files, and none that is large; what cannot be read or is something else is passed over.

import { lstatSync, readdirSync, readFileSync } from "node:fs";
import { extname, join, relative } from "node:path";
import type { OptimizationImpact } from "../../profiler/impact.ts";
import { isRecord } from "../check.ts";
import type { BenchmarkResults } from "./results.ts";
import { parseResults } from "./results-file.ts";

/** A report of a run of the model. */
export interface FoundReport {
  /** In the folder. */
  readonly path: string;
  /** ISO 8601. */
  readonly startedAt: string;
  /** The kind of work that took the most of the steps' time, and its part. */
  readonly most: { readonly name: string; readonly share: number } | undefined;
  /** What the report says of it, the first finding. */
  readonly finding: string | undefined;
}

/** What one optimisation after the other contributes, as `tinyai benchmark impact` found it. */
export interface FoundImpact {
  readonly path: string;
  readonly impact: Pick<OptimizationImpact, "measuredAt" | "effects">;
}

/** Results of a benchmark of the model. */
export interface FoundResults {
  readonly path: string;
  readonly results: BenchmarkResults;
}

/** What programs in the folder call, as "app.ts:12", at most a few of each. */
export interface FoundUses {
  readonly monitoring: readonly string[];
  readonly profiling: readonly string[];
  readonly tests: readonly string[];
  readonly limits: readonly string[];
}

export interface FolderEvidence {
  /** The newest first, each. */
  readonly reports: readonly FoundReport[];
  readonly impacts: readonly FoundImpact[];
  readonly results: readonly FoundResults[];
  readonly uses: FoundUses;
  /** Whether the folder had more files than are looked at. */
  readonly cut: boolean;
}

const filesMax = 2000;
/** Of all files together that are read. */
const bytesMax = 500e6;
const reportBytesMax = 32e6;
const sourceBytesMax = 1e6;
const depthMax = 6;
const placesMax = 3;
const sourceEndings: ReadonlySet<string> = new Set([".ts", ".tsx", ".mts", ".js", ".jsx", ".mjs", ".py"]);

/** Calls by which programs do each. */
const calls: Readonly<Record<keyof FoundUses, RegExp>> = {
  monitoring: /\.monitor\(|\.setMonitoringInterval\(|["']tinyai\/metrics["']/,
  profiling: /\.profile\(|\.startProfiling\(|\.performanceMetrics\(|\bcreatePerformanceAnalysis\(/,
  tests: /["']tinyai\/test["']/,
  limits: /\b(cpuPercent|memoryPercent)\s*:|\.set(Cpu|Memory)Limit\(/,
};

/** @param model its file's name or the name it was pulled by; other files of the same name count, whatever their ending. */
export function readFolder(folder: string, model: string): FolderEvidence {
  const stem = stemOf(model);
  const reports: FoundReport[] = [];
  const impacts: FoundImpact[] = [];
  const results: FoundResults[] = [];
  const uses: Record<keyof FoundUses, string[]> = { monitoring: [], profiling: [], tests: [], limits: [] };
  const left = { files: filesMax, bytes: bytesMax };
  for (const file of filesIn(folder, 0)) {
    left.files--;
    if (left.files < 0 || left.bytes < 0) break;
    const path = relative(folder, file.path);
    const ending = extname(path).toLowerCase();
    const isSource = sourceEndings.has(ending) && file.bytes <= sourceBytesMax;
    const isReport = [".json", ".html"].includes(ending) && file.bytes <= reportBytesMax;
    if (isSource || isReport) left.bytes -= file.bytes;
    if (isSource) addUses(uses, path, textOf(file.path));
    if (!isReport) continue;
    const value = contentOf(textOf(file.path), ending);
    if (!isRecord(value)) continue;
    const found = resultsIn(value, path);
    if (found && stemOf(found.benchmark_info.model) === stem) results.push({ path, results: found });
    const report = reportIn(value, path, stem);
    if (report) reports.push(report);
    for (const impact of [value, value["impact"]]) {
      if (isImpact(impact) && stemOf(impact.model) === stem) impacts.push({ path, impact });
    }
  }
  const newest = <T>(list: T[], timeOf: (item: T) => string) => list.sort((a, b) => (timeOf(a) < timeOf(b) ? 1 : -1));
  return {
    reports: newest(reports, ({ startedAt }) => startedAt),
    impacts: newest(impacts, ({ impact }) => impact.measuredAt),
    results: newest(results, (found) => found.results.benchmark_info.timestamp),
    uses,
    cut: left.files < 0 || left.bytes < 0,
  };
}

function stemOf(model: string): string {
  return model.replace(/\.(gguf|tinyai)$/i, "");
}

/** Files of a folder and those in it, without what is hidden or was installed. Links are not followed: they may lead round. */
function* filesIn(folder: string, depth: number): Generator<{ readonly path: string; readonly bytes: number }> {
  const folders: string[] = [];
  for (const name of namesIn(folder)) {
    const path = join(folder, name);
    const stats = lstatSync(path, { throwIfNoEntry: false });
    if (stats?.isFile()) yield { path, bytes: stats.size };
    else if (stats?.isDirectory() && depth < depthMax) folders.push(path);
  }
  for (const path of folders) yield* filesIn(path, depth + 1);
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder)
      .filter((name) => !name.startsWith(".") && name !== "node_modules")
      .sort();
  } catch {
    return [];
  }
}

function textOf(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

/** The JSON that a file holds; of a report's page, the data inside. */
function contentOf(text: string, ending: string): unknown {
  try {
    if (ending === ".json") return JSON.parse(text);
    const packed = /id="report-data">([A-Za-z0-9+/=]*)</.exec(text)?.[1];
    return packed === undefined ? undefined : JSON.parse(unpacked(packed));
  } catch {
    return undefined;
  }
}

function unpacked(base64: string): string {
  return new TextDecoder().decode(Bun.gunzipSync(Uint8Array.fromBase64(base64)));
}

function resultsIn(value: unknown, path: string): BenchmarkResults | undefined {
  try {
    return parseResults(value, path);
  } catch {
    return undefined;
  }
}

function reportIn(value: Readonly<Record<string, unknown>>, path: string, stem: string): FoundReport | undefined {
  const { run, byKind, findings } = value;
  if (!isRecord(run) || !Array.isArray(byKind)) return undefined;
  const { model, startedAt } = run;
  if (typeof model !== "string" || typeof startedAt !== "string" || stemOf(model) !== stem) return undefined;
  const kinds = byKind.flatMap((row: unknown) => {
    if (!isRecord(row)) return [];
    const { kind, share } = row;
    return typeof kind === "string" && typeof share === "number" ? [{ name: kind, share }] : [];
  });
  const first: unknown = Array.isArray(findings) ? findings[0] : undefined;
  const finding = isRecord(first) && typeof first["text"] === "string" ? first["text"] : undefined;
  return { path, startedAt, most: kinds.sort((a, b) => b.share - a.share)[0], finding };
}

function isImpact(value: unknown): value is FoundImpact["impact"] & { readonly model: string } {
  if (!isRecord(value)) return false;
  const { model, measuredAt, effects } = value;
  return (
    typeof model === "string" &&
    typeof measuredAt === "string" &&
    Array.isArray(effects) &&
    effects.every((effect) => isRecord(effect) && Array.isArray(effect["besideAll"]))
  );
}

/** Lines that call something, of programs that name TinyAI. */
function addUses(uses: Record<keyof FoundUses, string[]>, path: string, text: string): void {
  if (!text.includes("tinyai")) return;
  for (const [index, line] of text.split("\n").entries()) {
    for (const name of Object.keys(calls) as (keyof FoundUses)[]) {
      if (uses[name].length < placesMax && calls[name].test(line)) uses[name].push(`${path}:${index + 1}`);
    }
  }
}
