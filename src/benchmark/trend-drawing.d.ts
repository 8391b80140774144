// The types of trend-drawing.js. Any type checker that reads this package stops here: ECharts' types, which drawing uses, are of
// browsers, and a program that has the package need not know those.

import type { Trends } from "./trends.ts";

/** As one HTML file that needs nothing else. */
export function trendPage(trends: Trends): string;
/** As a picture, 1,280 by 720. */
export function trendSvg(trends: Trends): string;
export function trendPng(trends: Trends): Promise<Uint8Array>;
