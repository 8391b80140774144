// Trends as files: the ending says which format. What draws is loaded when it is needed.

import { OptionError } from "../errors.ts";
import { checkFilePath, writeFile } from "../profiling/file.ts";
import type { Trends } from "./trends.ts";

const endings = [".png", ".svg", ".html", ".json"] as const;

/**
 * Writes trends: a picture (.png, .svg), a page for a browser (.html) or data (.json). The file is whole or not there.
 * @throws {OptionError} if the ending names no format, or there can be no file of that path.
 * @throws {TinyAIError} with the code `file` if the system refuses to write it.
 */
export async function writeTrends(path: string, trends: Trends): Promise<void> {
  await writeFile(path, [await contentOf(checkTrendPath(path), trends)]);
}

/**
 * The ending of a path that trends may be written to.
 * @throws {OptionError} if the ending names no format, or there can be no file of that path.
 */
export function checkTrendPath(path: string, option = "path"): (typeof endings)[number] {
  checkFilePath(option, path);
  const ending = endings.find((each) => path.toLowerCase().endsWith(each));
  if (ending !== undefined) return ending;
  throw new OptionError(option, `${path} has no ending that names a format; there are ${endings.join(", ")}`);
}

async function contentOf(ending: (typeof endings)[number], trends: Trends): Promise<string | Uint8Array> {
  if (ending === ".json") return `${JSON.stringify(trends, null, 2)}\n`;
  const { trendPage, trendPng, trendSvg } = await import("./trend-drawing.js");
  if (ending === ".html") return trendPage(trends);
  return ending === ".svg" ? trendSvg(trends) : await trendPng(trends);
}
