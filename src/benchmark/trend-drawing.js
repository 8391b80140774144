// What draws trends, for callers that load it when they write a file.

import { renderPng, renderSvg } from "./picture.ts";
import { trendPicture } from "./trend-picture.ts";

export { trendPage } from "./trend-page.ts";

export function trendSvg(trends) {
  const { option, size } = trendPicture(trends);
  return renderSvg(option, size);
}

export async function trendPng(trends) {
  const { option, size } = trendPicture(trends);
  return await renderPng(option, size);
}
