// A page as one HTML file that needs no network: what it shows (of a report, sections.ts), the data behind it, ECharts, and the scripts and
// the style of browser/. All but the latter two are compressed, so that a file of 0.5 MB holds 2 MB; and what is compressed is
// base64, in which no name from a model's file can end an element.

import type { Report, TraceData } from "../report.ts";
import type { Page } from "./model.ts";
import { pageOf } from "./sections.ts";
import { echarts, modules, style } from "./texts.js";

/** The page's modules as one script, without their imports and exports. Their names do not collide. */
const script = modules
  .map((module) => module.replaceAll(/^import [^;]*;\n/gm, "").replaceAll(/^export /gm, ""))
  .join("\n");

/**
 * A profile's page.
 * @param trace of the same run: tells the ops of prompts and generation apart.
 */
export function reportPage(report: Report, trace?: TraceData): string {
  return pageHtml(pageOf(report, trace), report);
}

/**
 * A page. It holds everything that it shows and may load nothing else.
 * @param data what it gives as JSON where it is asked to.
 */
export function pageHtml(page: Page, data: unknown): string {
  // Nothing but these two scripts may run, whatever a name holds.
  const scripts = [script, echarts].map((text) => `'sha256-${hash(text)}'`).join(" ");
  const policy = `default-src 'none'; script-src ${scripts}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${Bun.escapeHTML(page.title)}</title>
<style>
${style}</style>
${packed("page-data", JSON.stringify(page))}
${packed("report-data", JSON.stringify(data))}
${packed("echarts-script", echarts)}
</head>
<body>
<p class="missing" id="loading">This page is being drawn by the scripts that it holds. If it stays like this, they may not run where it is shown: save the file, and open it in a browser.</p>
<noscript><style>#loading { display: none; }</style><p class="missing">This page draws itself with the scripts that it holds: allow JavaScript for it.</p></noscript>
<script type="module">${script}</script>
</body>
</html>
`;
}

/** An element that no browser shows or runs, with a text in it, compressed. */
function packed(id: string, text: string): string {
  return `<script type="text/plain" id="${id}">${Bun.gzipSync(text, { level: 9 }).toBase64()}</script>`;
}

function hash(text: string): string {
  return new Bun.CryptoHasher("sha256").update(text).digest("base64");
}
