// Pictures of charts: real PNGs, with the letters that figures need, and what is drawn where it belongs.

import { expect, test } from "bun:test";
import type { EChartsOption } from "echarts";
import { pictureOption, renderPng, renderSvg } from "../../src/benchmark/picture.ts";
import { readPng } from "../support/png.ts";

/** A chart whose plot lies from (50, 40) to (250, 140): a horizontal line in its middle, and an area above it up to the top. */
const option: EChartsOption = {
  grid: { left: 50, right: 50, top: 40, bottom: 60 },
  xAxis: { type: "value", min: 0, max: 10, show: false },
  yAxis: { type: "value", min: 0, max: 10, show: false },
  series: [
    {
      type: "line",
      symbol: "none",
      lineStyle: { color: "#ff0000", width: 4 },
      data: [
        [0, 5],
        [10, 5],
      ],
    },
    {
      type: "line",
      symbol: "none",
      lineStyle: { opacity: 0 },
      areaStyle: { color: "#00ff00", opacity: 1, origin: 7 },
      data: [
        [5, 10],
        [10, 10],
      ],
    },
  ],
};

test("a picture is a PNG of the size that was asked for, with everything where the axes say", async () => {
  for (const scale of [1, 2]) {
    const png = await renderPng(option, { width: 300, height: 200, scale });
    const picture = readPng(png);
    expect([picture.width, picture.height]).toEqual([300 * scale, 200 * scale]);
    for (const [x, y, color] of [
      [10, 10, "#ffffff"],
      [60, 90, "#ff0000"],
      [240, 90, "#ff0000"],
      [60, 50, "#ffffff"],
      [200, 45, "#00ff00"],
      [240, 65, "#00ff00"],
      [200, 75, "#ffffff"],
      [270, 90, "#ffffff"],
    ] as const) {
      expect({ x, y, color: picture.colorAt(x * scale, y * scale) }).toEqual({ x, y, color });
    }
    const line = picture.find("#ff0000");
    expect([line.left, line.right].map((x) => Math.round(x / scale))).toEqual([50, 250]);
  }
});

test("every letter that figures and names of Europe need has a shape of its own", async () => {
  const drawn = async (text: string) =>
    Buffer.from(
      await renderPng({ title: { text, textStyle: { fontWeight: "normal" } } }, { width: 100, height: 50 }),
    ).toString("base64");
  const missing = await drawn("\u{10ffff}");
  const shapes = new Set([missing, await drawn(" ")]);
  const letters = [..."µ±–×·…%éßłΩжя"];
  for (const letter of letters) shapes.add(await drawn(letter));
  expect(shapes.size).toBe(letters.length + 2);
  // Titles are bold.
  const bold = await renderPng({ title: { text: "µ" } }, { width: 100, height: 50 });
  expect(Buffer.from(bold).toString("base64")).not.toBe(await drawn("µ"));
});

test("names are text, whatever they are", async () => {
  const name = `<script>&"'</text>`;
  const svg = renderSvg({ title: { text: name } }, { width: 200, height: 50 });
  expect(svg).not.toContain("<script>");
  expect(svg).toContain("&lt;script&gt;");
  expect(readPng(await renderPng({ title: { text: name } }, { width: 200, height: 50 })).width).toBe(200);
});

test("a page's chart has the page's colours of paper, and its ticks their words", () => {
  const made = pictureOption({
    type: "chart",
    id: "a",
    title: "",
    note: "",
    half: false,
    height: 100,
    option: {
      xAxis: { type: "value", min: 0, max: 2, axisLabel: { customValues: [0, 1, 2] } },
      yAxis: { type: "value" },
      series: [{ type: "line", lineStyle: { color: "var(--c0)" }, data: [[0, 1]] }],
    },
    ticks: { x: [{ at: 1, text: "the middle" }] },
  });
  const svg = renderSvg(made, { width: 300, height: 200 });
  expect(svg).toContain(">the middle</text>");
  expect(svg).toContain('stroke="#2f6fdb"');
  expect(svg).not.toContain("var(--");
});
