// The page of a comparison: its words and charts say what the comparison says, and in a real browser it draws itself in light and dark, on
// a phone's width and on paper, without an error and without the network.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { pathToFileURL } from "node:url";
import type { ChartBlock, TableBlock } from "../../profiler/page/model.ts";
import { compareResults } from "../../src/benchmark/compare.ts";
import { stepsOf, thinnedOf } from "../../src/benchmark/page/charts.ts";
import { comparisonPageOf } from "../../src/benchmark/page/comparison.ts";
import { numberText } from "../../src/benchmark/page/words.ts";
import { comparisonPage, resultsPage } from "../../src/benchmark/report.ts";
import { guideResults } from "../support/benchmark-results.ts";
import { Browser, type BrowserPage, browserMissing, type Looks } from "../support/browser.ts";
import { temporaryFolder } from "../support/folder.ts";
import { testOutput } from "../support/output.ts";
import { drawnLatencies, madeResults } from "../support/results.ts";

setDefaultTimeout(60_000);
if (browserMissing !== undefined) process.stderr.write(`comparison: not looked at in a browser, ${browserMissing}\n`);

const folder = temporaryFolder();
const base = drawnLatencies(12, 60, 1);
const report = compareResults([
  { name: "results_v1", results: madeResults({ 1: base, 8: drawnLatencies(40, 60, 2) }) },
  {
    name: "results_v2",
    results: madeResults({ 1: base.map((ms) => ms * 0.9), 8: drawnLatencies(40, 60, 3) }, { tinyai: "0.2.0" }),
  },
  { name: "results_v3", results: madeResults({ 1: base.map((ms) => ms * 1.1), 8: drawnLatencies(44, 60, 4) }) },
]);
const page = comparisonPageOf(report);
const blocks = page.sections.flatMap((section) => section.blocks);
const chart = (id: string) => blocks.find((block): block is ChartBlock => block.type === "chart" && block.id === id);
const table = (id: string) => blocks.find((block): block is TableBlock => block.type === "table" && block.id === id);

describe("what the page says", () => {
  test("are the verdicts, in the comparison's own sentences", () => {
    expect(page.findingsTitle).toBe("Verdicts");
    const main = report.comparisons.filter(({ metric }) => !/ p\d/.test(metric));
    expect(page.findings.length).toBe(main.length);
    for (const [place, { sentence, comparison, batchSize }] of main.entries()) {
      const found = page.findings[place];
      expect(found?.text).toEndWith(`, batch size ${batchSize}: ${sentence}`);
      const severity = { faster: "better", slower: "worse", undecided: "undecided" }[
        comparison?.verdict ?? "undecided"
      ];
      expect(found?.severity).toBe(severity as "better");
    }
    expect(page.findings[0]?.text).toStartWith("results_v2, latency, batch size 1: faster by 10.0 %");
  });

  test("are all changes and their intervals, in a chart for each of those compared, and in a table", () => {
    for (const other of [1, 2]) {
      const drawn = chart(`changes-${other}`);
      const series = drawn?.option.series as { data: { value: [number | null, number] }[] }[];
      const points = series.flatMap(({ data }) => data.map(({ value }) => value)).filter(([x]) => x !== null);
      const wanted = report.comparisons.filter((each) => each.other === other && each.comparison?.interval);
      expect(points.length).toBe(3 * wanted.length);
      for (const [row, { comparison }] of wanted.entries()) {
        const { change = 0, interval } = comparison ?? {};
        const of = points.filter(([, y]) => y === row).map(([x]) => x);
        expect(of).toEqual([interval?.low, change, interval?.high].map((part) => 100 * (part ?? 0)));
      }
    }
    const rows = table("verdicts")?.rows ?? [];
    expect(rows.length).toBe(report.comparisons.length);
    expect(rows[0]?.slice(0, 3)).toEqual(["latency, batch size 1", "results_v2", "faster"]);
    expect(rows[0]?.[5]).toBe("+10.0 %");
  });

  test("is of which level the intervals are", () => {
    const noteOf = (level: number) => {
      const { sections } = comparisonPageOf(compareResults(report.compared, { level }));
      const found = sections.flatMap((section) => section.blocks).find((block) => block.id === "changes-1");
      return found?.type === "chart" ? found.note : undefined;
    };
    expect(noteOf(0.95)).toContain("its 95 % interval");
    expect(noteOf(0.9)).toContain("its 90 % interval");
  });

  test("are the machines, the settings, the warnings and the figures of each", () => {
    const environment = table("environment-table")?.rows.map((cells) => cells.slice(0, 3)) ?? [];
    expect(environment).toContainEqual(["CPU", "Intel Xeon E5-2680", "Intel Xeon E5-2680"]);
    expect(environment).toContainEqual(["TinyAI", "0.1.0", "0.2.0"]);
    expect(environment).toContainEqual(["prompt tokens", "32", "32"]);
    const words = page.sections.flatMap((section) => section.words);
    expect(words.some((sentence) => sentence.includes("differ in TinyAI's version (0.2.0 and 0.1.0)"))).toBe(true);
    expect(words).toContain("An iteration is one call.");
    const mean = base.reduce((sum, ms) => sum + ms, 0) / base.length;
    const [low, high] = [Math.min(...base), Math.max(...base)].map(numberText);
    expect(table("figures-0")?.rows[0]?.slice(0, 2)).toEqual(["latency", `${numberText(mean)} ms (${low} to ${high})`]);
  });

  test("where there are no samples, is that there are none", () => {
    const bare = { name: "guide", results: guideResults };
    const { sections, facts } = comparisonPageOf(compareResults([bare, { ...bare, name: "other" }]));
    expect(sections.find(({ id }) => id === "distributions")?.missing).toContain("No samples");
    expect(facts.find(({ name }) => name === "no verdict")?.figure).toBe("7");
  });
});

test("a distribution's steps are the shares at or below, whatever the order", () => {
  expect(stepsOf([3, 1, 2, 2])).toEqual([
    [1, 0],
    [1, 0.25],
    [2, 0.5],
    [2, 0.75],
    [3, 1],
  ]);
  const many = Array.from({ length: 1000 }, (_, at) => at);
  for (const [value, part] of stepsOf(many).slice(1)) expect(part).toBe((value + 1) / 1000);
});

test("of many samples those that are drawn have the furthest of all", () => {
  const samples = drawnLatencies(10, 5000, 3);
  samples[1234] = 99;
  samples[4321] = 1;
  const drawn = thinnedOf(samples);
  expect(drawn.length).toBeLessThanOrEqual(1000);
  expect(drawn).toContain(1234);
  expect(drawn).toContain(4321);
  expect(drawn).toEqual([...drawn].sort((a, b) => a - b));
  expect(thinnedOf([5, 4])).toEqual([0, 1]);
});

test("figures have four digits", () => {
  expect([0, 0.012345, 0.5, 12.3456, 123.456, 1234.56, 123456.7].map(numberText)).toEqual([
    ...["0.000", "0.01235", "0.500", "12.35", "123.5", "1,235", "123,457"],
  ]);
});

describe.skipIf(browserMissing !== undefined)("the page in a browser", () => {
  let browser: Browser;
  beforeAll(async () => {
    browser = await Browser.start();
  });
  afterAll(() => browser?.close());

  async function open(html: string, looks: Looks): Promise<BrowserPage> {
    const opened = await browser.open(pathToFileURL(folder.write("page.html", html)).href, looks);
    await opened.until("document.querySelector('footer') !== null");
    return opened;
  }

  /** A picture of all of it, for people. */
  async function picture(opened: BrowserPage, name: string, looks: Looks): Promise<void> {
    const height = await opened.evaluate<number>("document.documentElement.scrollHeight");
    await opened.look({ ...looks, height });
    await Bun.sleep(100);
    await Bun.write(testOutput(`${name}.png`), await opened.screenshot());
  }

  const html = comparisonPage(report);
  const charts = blocks.filter(({ type }) => type === "chart").map(({ id }) => id);

  for (const [name, looks] of Object.entries({
    light: { width: 1280 },
    dark: { width: 1280, scheme: "dark" },
    narrow: { width: 400 },
  } satisfies Record<string, Looks>)) {
    test(`draws every chart: ${name}`, async () => {
      const opened = await open(html, looks);
      const drawn = await opened.evaluate<Record<string, number>>(`Object.fromEntries(
        [...document.querySelectorAll(".chart")].map((each) =>
          [each.closest(".block").id, each.querySelectorAll("svg path, svg text").length]))`);
      expect(Object.keys(drawn).sort()).toEqual([...charts].sort());
      for (const [id, marks] of Object.entries(drawn)) expect(marks, id).toBeGreaterThan(8);
      expect(await opened.evaluate<boolean>("document.documentElement.scrollWidth <= innerWidth")).toBe(true);
      expect(await opened.evaluate<string>("document.querySelector('#findings li').className")).toBe("better");
      await picture(opened, `comparison-${name}`, looks);
      expect(opened.errors).toEqual([]);
      expect(opened.requests.map((url) => url.split(":")[0])).toEqual(["file"]);
      await opened.close();
    });
  }

  test("can be printed, in light colours", async () => {
    const opened = await open(html, { width: 1280, scheme: "dark" });
    await opened.evaluate(`addEventListener("beforeprint", () => {
      window.printed = getComputedStyle(document.body).getPropertyValue("--page");
    })`);
    const { data } = await opened.send("Page.printToPDF", { printBackground: true });
    expect(await opened.evaluate<string>("window.printed")).toBe("#f6f7f9");
    const pdf = Uint8Array.fromBase64(data);
    expect(new TextDecoder().decode(pdf.subarray(0, 5))).toBe("%PDF-");
    await Bun.write(testOutput("comparison.pdf"), pdf);
    expect(opened.errors).toEqual([]);
    await opened.close();
  });

  test("takes names for text, whatever they are, and results alone have a page too", async () => {
    const evil = `</script><script>window.hacked = 1</script><img src="x" onerror="window.hacked = 1">`;
    const results = madeResults({ 1: base }, { model: evil, warnings: [evil], methodology: [evil] });
    const opened = await open(resultsPage(results, evil, [evil]), {});
    expect(await opened.evaluate<string>("document.querySelector('h1').textContent")).toContain(evil);
    expect(await opened.evaluate<unknown>("window.hacked ?? null")).toBeNull();
    expect(await opened.evaluate<number>("document.querySelectorAll('img').length")).toBe(0);
    expect(opened.errors).toEqual([]);
    await opened.close();
  });
});
