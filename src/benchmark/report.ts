// Benchmarks as pages: one HTML file each, in the way of a profile's, that needs no network and can be printed.

import { pageHtml } from "../../profiler/page/index.ts";
import { type ComparisonReport, comparisonJson } from "./compare.ts";
import { comparisonPageOf } from "./page/comparison.ts";
import { resultsPageOf } from "./page/results.ts";
import type { BenchmarkResults } from "./results.ts";

/** The page of a comparison; it gives the comparison's JSON, with every sample. */
export function comparisonPage(report: ComparisonReport): string {
  return pageHtml(comparisonPageOf(report), comparisonJson(report));
}

/**
 * The page of results alone; it gives the results' JSON.
 * @param name what they are called, such as their file.
 * @param sentences what is said of them first.
 */
export function resultsPage(results: BenchmarkResults, name: string, sentences: readonly string[] = []): string {
  return pageHtml(resultsPageOf(results, name, sentences), results);
}
