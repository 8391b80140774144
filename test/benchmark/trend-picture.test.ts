// Trends as files: the picture's points, bands and lines lie where the figures say, its words are there, and the page tells of points.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { pathToFileURL } from "node:url";
import { writeTrends } from "../../src/benchmark/trend-file.ts";
import { type Trends, trendsOf } from "../../src/benchmark/trends.ts";
import { OptionError } from "../../src/errors.ts";
import { Browser, browserMissing } from "../support/browser.ts";
import { temporaryFolder } from "../support/folder.ts";
import { testOutput } from "../support/output.ts";
import { readPng } from "../support/png.ts";
import { dailyFiles } from "../support/trend-files.ts";

setDefaultTimeout(60_000);

const folder = temporaryFolder();
/** The page's first colour, of the first series. */
const blue = [0x2f, 0x6f, 0xdb] as const;
const red = "#b3261e";

function hex(color: readonly number[]): string {
  return `#${color.map((part) => part.toString(16).padStart(2, "0")).join("")}`;
}

/** Two days: 10 ms, interval 8 to 12, then 20 ms, interval 18 to 22; or intervals from so much below to so much above. */
function twoDays(below = 2, above = 2, count = 2): Trends {
  const files = dailyFiles(count, () => 1);
  return trendsOf(
    files.map(({ file, results }, day) => {
      const { latency } = results.results;
      if (!latency) throw new Error("there is no latency");
      const mean = 10 + 10 * day;
      const interval = { level: 0.95, low: mean - below, high: mean + above };
      return { file, results: { ...results, results: { latency: { ...latency, mean, interval } } } };
    }),
  );
}

async function picture(trends: Trends, name = "trends.png") {
  const path = folder.file(name);
  await writeTrends(path, trends);
  return readPng(await Bun.file(path).bytes());
}

test("bands go from point to point, as high as the intervals and as far apart as the figures", async () => {
  const shown = await picture(twoDays());
  expect([shown.width, shown.height]).toEqual([1280, 720]);
  const band = hex(blue.map((part) => Math.round(255 + (part - 255) * 0.22)));
  const { left, right, count } = shown.find(band);
  expect(count).toBeGreaterThan(5000);
  const [colors] = [new Set([band, hex(blue)])];
  /** Where the band begins and ends in a column; grid lines, seen through it, and smoothed edges do not count. */
  const endsAt = (x: number) => {
    const rows = Array.from({ length: shown.height }, (_, y) => y).filter((y) => colors.has(shown.colorAt(x, y)));
    return { top: rows[0] ?? 0, bottom: (rows.at(-1) ?? 0) + 1 };
  };
  const [first, second] = [endsAt(left + 2), endsAt(right - 3)];
  const [height, other] = [first.bottom - first.top, second.bottom - second.top];
  expect(Math.abs(height - other)).toBeLessThanOrEqual(3);
  const middle = ({ top, bottom }: typeof first) => (top + bottom) / 2;
  // 10 ms lie between the points, and 4 ms in each band.
  expect((middle(first) - middle(second)) / height).toBeCloseTo(2.5, 0);
  expect(Math.abs(middle(first) - middle(second) - 2.5 * height)).toBeLessThan(12);
});

test("intervals far wider than what happened are cut, and those beside their figures do not stop a picture", async () => {
  const band = hex(blue.map((part) => Math.round(255 + (part - 255) * 0.22)));
  for (const days of [1, 2]) expect((await picture(twoDays(80, 900, days))).find(band).count).toBeGreaterThan(5000);
  expect((await picture(twoDays(-80, 100))).find(hex(blue)).count).toBeGreaterThan(50);
});

test("a regression is a red line from bottom to top before its first file, with its size at the top and in words", async () => {
  const trends = trendsOf(dailyFiles(40, (place) => (place < 20 ? 15 : 16.5)));
  const shown = await picture(trends);
  const blues = shown.find(hex(blue));
  // The line is the column with the most red; the words and the first point of the new level are beside it.
  const columns = Array.from({ length: shown.width }, (_, x) => {
    let count = 0;
    for (let y = 0; y < shown.height; y++) if (shown.colorAt(x, y) === red) count++;
    return { x, count };
  });
  const line = columns.reduce((most, column) => (column.count > most.count ? column : most));
  expect(line.count).toBeGreaterThan(300);
  const spacing = (blues.right - blues.left) / 39.3;
  expect(Math.abs(line.x - (blues.left + 19.6 * spacing))).toBeLessThan(spacing / 2);

  const path = folder.file("trends.svg");
  await writeTrends(path, trends);
  const svg = await Bun.file(path).text();
  const { sentence } = trends.series[0]?.changes[0] ?? { sentence: "none" };
  for (const words of [
    ">Mean latency of model.gguf</text>",
    ">mean latency, ms</text>",
    ">files in the order of their time (UTC)</text>",
    "40 files",
    "bands: 95 % intervals",
    "lower is better",
    ">2026-01-01</text>",
    `>${sentence.replace(/ \(.*/, "")}</text>`,
    `regression: ${sentence} since results_020.json`,
  ]) {
    expect(svg).toContain(words);
  }
});

test("pictures are drawn of one file, of hundreds, of tiny and of huge figures, and of names that are markup", async () => {
  const svgOf = async (trends: Trends) => {
    await writeTrends(folder.file("any.svg"), trends);
    return await Bun.file(folder.file("any.svg")).text();
  };
  const series = (count: number, mean: number, model = "a.gguf") =>
    trendsOf(
      dailyFiles(
        count,
        () => mean,
        () => ({ model }),
      ),
    );
  for (const [trends, tick] of [
    [series(1, 15), "15"],
    [series(500, 15), "15"],
    [series(6, 4e-7), "0.0000004"],
    [series(6, 4e11), "400,000,000,000"],
    [series(6, 0), "0"],
  ] as const) {
    const svg = await svgOf(trends);
    expect([...svg.matchAll(/>([^<]+)<\/text>/g)].map(([, text]) => text)).toContain(tick);
    expect(svg.includes("NaN")).toBe(false);
    const points = svg.match(new RegExp(`<path [^>]*fill="${hex(blue)}"`, "g"))?.length ?? 0;
    expect(points).toBeGreaterThanOrEqual(trends.files.length);
  }
  const levels = [0.001, 1, 1000];
  const wide = await svgOf(
    trendsOf(
      dailyFiles(
        9,
        (place) => levels[place % 3] ?? 0,
        (place) => ({ model: `${place % 3}` }),
      ),
    ),
  );
  for (const tick of levels) expect(wide).toContain(`>${tick === 1000 ? "1,000" : tick}</text>`);
  const name = "<script>&{a|b}";
  expect(await svgOf(series(2, 15, name))).toContain("&lt;script&gt;&amp;{a|b}");
  const noXml = "a\ufffeb\u0001\ud800🙂";
  expect(await svgOf(series(2, 15, noXml))).toContain("a\ufffdb\ufffd\ufffd🙂");
  for (const model of [name, "x".repeat(300), noXml]) expect((await picture(series(2, 15, model))).width).toBe(1280);
});

test("the ending says how, and what names no format is refused", async () => {
  const trends = twoDays();
  await writeTrends(folder.file("trends.json"), trends);
  expect(await Bun.file(folder.file("trends.json")).json()).toEqual(trends);
  for (const name of ["trends.pdf", "trends"]) {
    expect(await writeTrends(folder.file(name), trends).catch((error: unknown) => error)).toBeInstanceOf(OptionError);
  }
});

describe.skipIf(browserMissing !== undefined)("the page in a browser", () => {
  let browser: Browser;
  beforeAll(async () => {
    browser = await Browser.start();
  });
  afterAll(() => browser?.close());

  test("shows the chart, tells of a point, lists the changes and loads nothing", async () => {
    const trends = trendsOf(
      dailyFiles(
        60,
        (place) => (place < 30 ? 15 : 16.5),
        (place) => ({ tinyai: place < 30 ? "0.1.0" : "0.2.0" }),
      ),
    );
    const path = folder.file("trends.html");
    await writeTrends(path, trends);
    for (const scheme of ["light", "dark"] as const) {
      const page = await browser.open(pathToFileURL(path).href, { scheme });
      await page.until("document.querySelector('footer') !== null");
      const findings = await page.evaluate<string>("document.querySelector('#findings').innerText");
      expect(findings).toContain(trends.series[0]?.changes[0]?.sentence ?? "none");
      expect(findings).toContain("last known good: results_029.json");
      await page.middleOf("#trend .chart");
      const point = await page.evaluate<{ x: number; y: number }>(`(() => {
        const dom = document.querySelector("#trend .chart");
        const at = echarts.getInstanceByDom(dom).convertToPixel({ seriesName: "model.gguf" }, [30, ${trends.series[0]?.points[30]?.value}]);
        const { left, top } = dom.getBoundingClientRect();
        return { x: left + at[0], y: top + at[1] };
      })()`);
      await page.pointAt(point.x, point.y);
      await page.until("document.querySelector('.tip-content') !== null");
      const tip = await page.evaluate<string>("document.querySelector('.tip-content').innerText");
      expect(tip).toContain("results_030.json");
      expect(tip).toContain("95 % interval");
      expect(await page.evaluate<string>("document.querySelector('#what-else').innerText")).toContain(
        "1. TinyAI: 0.1.0 to 0.2.0",
      );
      expect(page.errors).toEqual([]);
      expect(page.requests.every((url) => url.startsWith("file:"))).toBe(true);
      await Bun.write(testOutput(`trends-${scheme}.png`), await page.screenshot());
      await page.close();
    }
  });
});
