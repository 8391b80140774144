// The types of entry.js. Any type checker that reads this package stops here: ECharts' types, which the page's parts use, are of
// browsers, and a program that has the package need not know those.

import type { Report, TraceData } from "../report.ts";

/** As in index.ts. */
export function reportPage(report: Report, trace?: TraceData): string;
