// Charts as pictures, without a browser: ECharts draws them as SVG, resvg makes pixels of it. It knows nothing of what is shown.

import { initWasm, Resvg } from "@resvg/resvg-wasm";
import type * as ECharts from "echarts";
import type { EChartsOption } from "echarts";
import type { ChartBlock, Tick } from "../../profiler/page/model.ts";
import { echarts, style } from "../../profiler/page/texts.js";
import { fonts, resvg } from "./picture-files.js";

/** The pages' own copy of ECharts, which a compiled program holds anyway. */
const { init, setPlatformAPI } = evaluated<typeof ECharts>(echarts);

/** What a script gives that is a module of CommonJS. */
function evaluated<Exports>(script: string): Exports {
  const module = { exports: {} };
  new Function("module", "exports", script)(module, module.exports);
  return module.exports as Exports;
}

/** How wide the typeface's letters are about, as a part of their size; the first kind that fits counts. */
const letterWidths: readonly (readonly [letters: RegExp, width: number])[] = [
  [/[ijlftrI|!'.,:;()/\- ]/, 0.33],
  [/[mwMW@%…]/, 0.89],
  [/[\u2e80-\uffff]|[\ud800-\udfff]/, 1.05],
  [/[\dA-Z]/, 0.65],
];
const letterWidth = 0.58;

// ECharts asks a browser how wide a text is, and without one takes a narrower typeface's widths.
setPlatformAPI({
  measureText(text, font = "") {
    const size = Number(/([\d.]+)px/.exec(font)?.[1] ?? 12);
    let width = 0;
    for (const letter of text ?? "") {
      width += size * (letterWidths.find(([letters]) => letters.test(letter))?.[1] ?? letterWidth);
    }
    return { width };
  },
});

/** How large a picture is. */
export interface PictureSize {
  /** CSS pixels, to which the sizes in the option refer. */
  readonly width: number;
  readonly height: number;
  /** Pixels of the PNG for each of them; by default 1. */
  readonly scale?: number;
}

const typeface = "Inter";

/** What XML does not allow, not even escaped; a name may hold it. */
const noXml = /[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu;

/** The option drawn as SVG, on white. */
export function renderSvg(option: EChartsOption, { width, height }: PictureSize): string {
  const chart = init(null, null, { renderer: "svg", ssr: true, width, height });
  try {
    chart.setOption({
      animation: false,
      backgroundColor: "#ffffff",
      ...option,
      textStyle: { fontFamily: `${typeface}, Arial, sans-serif`, ...option.textStyle },
    });
    return chart.renderToSVGString().replace(noXml, "\ufffd");
  } finally {
    // Without it the process would not end.
    chart.dispose();
  }
}

let drawing: Promise<readonly Uint8Array[]> | undefined;

/** Starts resvg, once, and gives the typeface's files. */
function startDrawing(): Promise<readonly Uint8Array[]> {
  drawing ??= (async () => {
    await initWasm(await Bun.file(resvg).arrayBuffer());
    return await Promise.all(fonts.map((font) => Bun.file(font).bytes()));
  })();
  return drawing;
}

/** The option drawn as PNG, on white. It looks the same on every machine: its letters are those of a typeface that comes along. */
export async function renderPng(option: EChartsOption, size: PictureSize): Promise<Uint8Array> {
  const fontBuffers = [...(await startDrawing())];
  const picture = new Resvg(renderSvg(option, size), {
    font: { fontBuffers, defaultFontFamily: typeface },
    fitTo: { mode: "zoom", value: size.scale ?? 1 },
  });
  const image = picture.render();
  const png = image.asPng();
  // What failed is not freed: resvg holds it still, and its own error would hide the first.
  image.free();
  picture.free();
  return png;
}

/** The page's colours on paper, by name. */
const colors = new Map(
  [...(/:root \{([^}]*)\}/.exec(style)?.[1] ?? "").matchAll(/(--\w+): (#\w+);/g)].map(([, name = "", color = ""]) => [
    name,
    color,
  ]),
);

/** The option of a page's chart as a picture has it: with colours for their names, and its ticks' words. */
export function pictureOption({ option, ticks }: ChartBlock): EChartsOption {
  const colored = JSON.parse(JSON.stringify(option), (_, value: unknown) => {
    const name = typeof value === "string" ? /^var\((--\w+)\)$/.exec(value)?.[1] : undefined;
    return name === undefined ? value : colors.get(name);
  });
  for (const [axis, words] of [
    [colored.xAxis, ticks.x],
    [colored.yAxis, ticks.y],
  ]) {
    if (words === undefined) continue;
    axis.axisLabel.formatter = (value: number) => words.find(({ at }: Tick) => Math.abs(at - value) < 1e-6)?.text ?? "";
  }
  return colored;
}
