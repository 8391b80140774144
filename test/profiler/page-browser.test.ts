// report.html in a real browser: it draws itself without an error and without the network, its figures are the report's, and it
// answers to pointer and keyboard.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { reportPage } from "../../profiler/page/index.ts";
import type { Report, TraceData } from "../../profiler/report.ts";
import { Browser, type BrowserPage, browserMissing, type Looks } from "../support/browser.ts";
import { temporaryFolder } from "../support/folder.ts";
import { bareReport, changed, emptyReport, LAYERS, madeUpReport } from "../support/report.ts";

setDefaultTimeout(60_000);
if (browserMissing !== undefined) process.stderr.write(`report.html: not looked at in a browser, ${browserMissing}\n`);

const folder = temporaryFolder();
const { report, trace } = madeUpReport();
const wantedCharts = [
  ...[
    "threads",
    "first-tokens",
    "between-tokens",
    "steps-prompt",
    "steps-generation",
    "request-parts",
    "roofline-points",
  ],
  ...[
    "sweep",
    "regions",
    "hit-rates",
    "misses",
    "timeline",
    "allocation-sizes",
    "allocation-lifetimes",
    "javascript-rows",
  ],
];

/** Durations, bytes, counts and shares as the page words them, and half of the last digit. */
function parsed(text: string): { readonly value: number; readonly half: number } {
  const units: Readonly<Record<string, number>> = {
    ...{ ns: 1, µs: 1e3, ms: 1e6, s: 1e9, "%": 0.01, "": 1 },
    ...{ B: 1, KB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12, k: 1e3, M: 1e6, G: 1e9 },
  };
  const [figure = "", unit = ""] = text.split(" ");
  const size = units[unit];
  if (size === undefined) throw new Error(`what is ${text}?`);
  const decimals = figure.split(".")[1]?.length ?? 0;
  return { value: Number(figure.replaceAll(",", "")) * size, half: (size * 10 ** -decimals) / 2 };
}

function expectSame(text: string, value: number): void {
  const { value: shown, half } = parsed(text);
  expect(Math.abs(shown - value), `${text} for ${value}`).toBeLessThanOrEqual(half * 1.0001);
}

describe.skipIf(browserMissing !== undefined)("report.html in a browser", () => {
  let browser: Browser;
  beforeAll(async () => {
    browser = await Browser.start();
  });
  afterAll(() => browser?.close());

  const pages: BrowserPage[] = [];
  async function open(of: Report, traceOf?: TraceData, looks?: Looks): Promise<BrowserPage> {
    const file = folder.write(`report-${pages.length}.html`, reportPage(of, traceOf));
    const page = await browser.open(pathToFileURL(file).href, looks);
    pages.push(page);
    await page.until("document.querySelector('footer') !== null");
    return page;
  }

  /** The cells of a table's body as they are read, row by row. */
  function cells(page: BrowserPage, id: string): Promise<string[][]> {
    return page.evaluate(
      `[...document.querySelectorAll("#${id} tbody tr")].map((row) => [...row.children].map((cell) => cell.textContent))`,
    );
  }

  /** Text of the tip that is shown; "" when there is none. */
  function tip(page: BrowserPage): Promise<string> {
    return page.evaluate(`[...document.querySelectorAll(".tip")]
      .filter((each) => each.checkVisibility({ visibilityProperty: true, opacityProperty: true }))
      .map((each) => each.innerText.replaceAll(/\\s+/g, " ")).join("")`);
  }

  /** Points at an item of a chart's series, by the series' name and its place there. */
  async function pointAtItem(page: BrowserPage, chart: string, series: string, place: number): Promise<void> {
    await page.middleOf(`#${chart} .chart`);
    const { x, y } = await page.evaluate<{ x: number; y: number }>(`(() => {
      const dom = document.querySelector("#${chart} .chart");
      const chart = echarts.getInstanceByDom(dom);
      const found = chart.getModel().getSeriesByName(${JSON.stringify(series)})[0] ?? chart.getModel().getSeriesByIndex(0);
      const layout = found.getData().getItemLayout(${place});
      const at = Array.isArray(layout) ? layout
        : layout ? [layout.x + layout.width / 2, layout.y + layout.height / 2]
        : found.getData().getLayout("points").slice(${2 * place}, ${2 * place + 2});
      const { left, top } = dom.getBoundingClientRect();
      return { x: left + at[0], y: top + at[1] };
    })()`);
    await page.pointAt(x, y);
  }

  test("draws every chart, in light and dark, wide and narrow, without an error or a request", async () => {
    for (const scheme of ["light", "dark"] as const) {
      for (const width of [800, 1600]) {
        const page = await open(report, trace, { width, scheme });
        const drawn = await page.evaluate<Record<string, number>>(`Object.fromEntries(
          [...document.querySelectorAll(".chart")].map((chart) => [
            chart.closest(".block").id,
            chart.getBoundingClientRect().height > 50 ? chart.querySelectorAll("svg path, svg text").length : 0,
          ]))`);
        expect(Object.keys(drawn).sort()).toEqual([...wantedCharts].sort());
        for (const [chart, marks] of Object.entries(drawn)) expect(marks, chart).toBeGreaterThan(8);
        expect(await page.evaluate<number>("document.querySelectorAll('#icicle .piece').length")).toBeGreaterThan(20);
        expect(await page.evaluate<number>("document.querySelectorAll('#heat td').length")).toBe(12 * LAYERS);
        expect(await page.evaluate<boolean>("document.documentElement.scrollWidth <= innerWidth")).toBe(true);
        const dark = await page.evaluate<string>("getComputedStyle(document.body).backgroundColor");
        expect(dark).toBe(scheme === "dark" ? "rgb(17, 21, 28)" : "rgb(246, 247, 249)");
        expect(page.errors).toEqual([]);
        expect(page.requests.map((url) => url.split(":")[0])).toEqual(["file"]);
        await page.close();
      }
    }
  });

  test("changes its charts' colours with the system's", async () => {
    const page = await open(report);
    const color = () =>
      page.evaluate<string>(
        `document.querySelector("#threads svg text").getAttribute("fill") ?? document.querySelector("#threads svg text").style.fill`,
      );
    const light = await color();
    await page.look({ scheme: "dark" });
    await page.until(`getComputedStyle(document.body).backgroundColor === "rgb(17, 21, 28)"`);
    expect(await color()).not.toBe(light);
    await page.close();
  });

  test("is printed in light colours, no wider than paper, and is afterwards as it was", async () => {
    const page = await open(report, trace, { width: 1600, scheme: "dark" });
    const state = `({
      dark: getComputedStyle(document.body).getPropertyValue("--page") === "#11151c",
      widest: Math.max(...[...document.querySelectorAll(".chart svg")].map((each) => each.getBoundingClientRect().width)),
    })`;
    const before = await page.evaluate<{ dark: boolean; widest: number }>(state);
    await page.evaluate(`addEventListener("beforeprint", () => { window.printed = ${state}; })`);
    await page.send("Page.printToPDF");
    const printed = await page.evaluate<typeof before>("window.printed");
    expect(before.dark).toBe(true);
    expect(printed.dark).toBe(false);
    expect(printed.widest).toBeLessThanOrEqual(680);
    await page.until(`document.querySelector("#timeline svg").getBoundingClientRect().width > 1000`);
    expect(await page.evaluate<typeof before>(state)).toEqual(before);
    expect(page.errors).toEqual([]);
    await page.close();
  });

  test("has the report's figures in its table of ops, sorts them and finds them", async () => {
    const page = await open(report);
    await page.click("#ops .controls button");
    const rows = await cells(page, "ops");
    const others = rows.filter((row) => row[1] === "no op").map((row) => row[0]);
    expect(others).toContain("waiting at barriers");
    expect(others).toContain("sampling");
    expect(rows.length).toBe(report.byOp.length + others.length);
    const reads = new Map(report.memory?.byOp.map((row) => [row.index, row.bytesRead]));
    const misses = new Map(report.cache?.byOp.map((row) => [row.index, row.levels.at(-1)?.misses]));
    for (const op of report.byOp) {
      const row = rows.find(([name]) => name === op.name) ?? [];
      const [, kernel = "", layer, share = "", total = "", p50 = "", p99 = "", max = "", wait = "", rate = ""] = row;
      expect([kernel, layer]).toEqual([op.kernel, op.layer < 0 ? "–" : `${op.layer}`]);
      expectSame(share, op.share);
      for (const [text, ns] of [
        [total, op.totalNs],
        [p50, op.p50Ns],
        [p99, op.p99Ns],
        [max, op.maxNs],
        [wait, op.waitNs],
      ] as const)
        expectSame(text, ns);
      expectSame(rate, op.gigabytesPerSecond ?? 0);
      expectSame(row.at(-2) ?? "", reads.get(op.index) ?? -1);
      expectSame(row.at(-1) ?? "", misses.get(op.index) ?? -1);
    }
    const waiting = rows.find(([name]) => name === "waiting at barriers") ?? [];
    expectSame(waiting[4] ?? "", report.waiting.totalNs);

    const byTotal = [...report.byOp].sort((a, b) => b.totalNs - a.totalNs).map(({ name }) => name);
    expect(rows.map(([name]) => name).filter((name) => byTotal.includes(name ?? ""))).toEqual(byTotal);
    const names = async () => (await cells(page, "ops")).filter((row) => row[1] !== "no op").map(([name]) => name);
    const rate = (name: string | undefined) => report.byOp.find((op) => op.name === name)?.gigabytesPerSecond ?? 0;
    const ascending = (values: readonly number[]) =>
      values.every((value, place) => value >= (values[place - 1] ?? value));
    await page.click("#ops thead th:nth-child(10) button");
    expect(ascending((await names()).map(rate).reverse())).toBe(true);
    await page.click("#ops thead th:nth-child(10) button");
    expect(ascending((await names()).map(rate))).toBe(true);
    expect(await page.evaluate<string>(`document.querySelector("#ops [aria-sort=ascending]").textContent`)).toBe(
      "GB/s",
    );

    await page.click("#ops input");
    await page.type("ffn_gate Q5");
    const found = await names();
    expect(found.length).toBe(LAYERS);
    expect(found.every((name) => name?.includes("ffn_gate"))).toBe(true);
    expect(page.errors).toEqual([]);
    await page.close();
  });

  test("keeps the widths of the table of ops, all of which fit 1,280 px, and says where no op has a name", async () => {
    const long = {
      ...report,
      byOp: report.byOp.map((op, place) => (place === 30 ? { ...op, name: "n".repeat(80) } : op)),
    };
    const page = await open(long, trace, { width: 1280 });
    const widths = () =>
      page.evaluate<number[]>(
        `[...document.querySelectorAll("#ops thead th")].map((head) => head.getBoundingClientRect().width)`,
      );
    const cut = () =>
      page.evaluate<string[]>(`[...document.querySelectorAll("#ops :is(td:not(.words), thead th, .scroll)")]
        .filter((each) => each.scrollWidth > each.clientWidth).map((each) => each.textContent)`);
    const first = await widths();
    expect(first.length).toBe(15);
    expect(Math.min(...first)).toBeGreaterThan(30);
    expect(first[0]).toBeGreaterThan(100);
    expect(await cut()).toEqual([]);
    await page.click("#ops .controls button");
    await page.click("#ops thead th:last-child button");
    expect(await widths()).toEqual(first);
    expect(await cut()).toEqual([]);
    const titles = `[...document.querySelectorAll("#ops tbody th")].map((name) => name.title)`;
    expect(await page.evaluate<string[]>(titles)).toContain("n".repeat(80));

    const rows = (await cells(page, "ops")).length;
    await page.click("#ops input");
    await page.type("there is no such op");
    expect(await cells(page, "ops")).toEqual([["no op has this name"]]);
    const status = await page.evaluate<string>(`document.querySelector("#ops .controls .note").textContent`);
    expect(status).toBe(`0 of ${rows} rows`);
    expect(await widths()).toEqual(first);
    expect(page.errors).toEqual([]);
    await page.close();
  });

  test("says that it is being drawn until it is, and what to do where scripts may not run", async () => {
    const drawn = await open(report);
    expect(await drawn.evaluate<unknown>("document.getElementById('loading')")).toBeNull();
    await drawn.close();
    const html = reportPage(report);
    const shown = (page: BrowserPage) => page.evaluate<string>("document.body.innerText.trim()");
    // A policy from outside forbids all scripts, as that of a server that shows files of others.
    const forbidden = html.replace(/script-src [^;]*;/, "script-src 'none';");
    const page = await browser.open(pathToFileURL(folder.write("forbidden.html", forbidden)).href);
    expect(await shown(page)).toStartWith(
      "This page is being drawn by the scripts that it holds. If it stays like this",
    );
    await page.close();
    const without = await browser.open("about:blank");
    await without.send("Emulation.setScriptExecutionDisabled", { value: true });
    await without.load(pathToFileURL(folder.write("without.html", html)).href, {});
    expect(await shown(without)).toBe(
      "This page draws itself with the scripts that it holds: allow JavaScript for it.",
    );
    await without.close();
  });

  test("goes into a piece of the time and back, by pointer and by keyboard", async () => {
    const page = await open(report, trace);
    const way = () => page.evaluate<string>(`document.querySelector("#icicle .controls .note").textContent`);
    const widthOf = (name: string) =>
      page.evaluate<number>(`(() => {
        const area = document.querySelector("#icicle .icicle").getBoundingClientRect().width;
        const piece = [...document.querySelectorAll("#icicle .piece")].find((each) => each.getAttribute("aria-label").startsWith("${name}"));
        return piece.getBoundingClientRect().width / area;
      })()`);
    const generation = report.phases.find(({ phase }) => phase === "generation");
    expect(await widthOf("generation")).toBeCloseTo(generation?.share ?? 0, 2);
    await page.click('#icicle .piece[aria-label^="generation"]');
    expect(await way()).toBe("all steps › generation");
    expect(await widthOf("generation")).toBeCloseTo(1, 2);
    await page.click('#icicle .piece[aria-label^="matmul"]');
    expect(await way()).toBe("all steps › generation › matmul");
    await page.click("#icicle .controls button");
    expect(await way()).toBe("all steps › generation");
    // Down to the largest kind, into it, out again, and out once more.
    await page.press("ArrowDown");
    expect(await page.evaluate<string>("document.activeElement.getAttribute('aria-label')")).toMatch(/^matmul /);
    await page.press("Enter");
    expect(await way()).toBe("all steps › generation › matmul");
    await page.press("Escape");
    await page.press("Escape");
    expect(await way()).toBe("all steps");
    expect(page.errors).toEqual([]);
    await page.close();
  });

  test("shows in the heat map what is chosen", async () => {
    const page = await open(report);
    const cellOf = (layer: number) =>
      page.evaluate<string>(`[...document.querySelectorAll("#heat tbody tr")]
        .find((row) => row.firstChild.textContent === "ffn_down").children[${layer + 1}].textContent`);
    const op = report.byOp.find(({ name }) => name === "blk.3.ffn_down");
    expectSame(await cellOf(3), op?.totalNs ?? -1);
    await page.click("#heat label:nth-child(2) input");
    expectSame(await cellOf(3), op?.p50Ns ?? -1);
    await page.click("#heat label:nth-child(3) input");
    expectSame(await cellOf(3), report.memory?.byOp.find(({ index }) => index === op?.index)?.bytesRead ?? -1);
    await page.click("#heat label:nth-child(4) input");
    const misses = report.cache?.byOp.find(({ index }) => index === op?.index)?.levels.at(-1)?.misses ?? -1;
    expectSame(await cellOf(3), misses);
    await page.hover("#heat tbody tr:nth-child(12) td:nth-child(5)");
    expect(await tip(page)).toContain("ffn_down, layer 3");
    await page.close();
  });

  test("tells of what the pointer is at", async () => {
    const page = await open(report);
    // Points overlap; whichever is on top, the figures are those of the op that it names.
    await pointAtItem(page, "roofline-points", "matmul", 40);
    await page.until("document.querySelector('.tip-content') !== null");
    const shown = await tip(page);
    const [, name, phase] = /^(\S+) phase (\S+) /.exec(shown) ?? [];
    const row = report.roofline?.byOp.find((each) => each.name === name && each.phase === phase);
    if (row === undefined) throw new Error(`no op is called so: ${shown}`);
    expect(shown).toContain(`reached ${row.achieved.toFixed(1)} ${row.unit}`);
    expect(shown).toContain(`of the roof ${(row.share * 100).toFixed(1)} %`);
    expect(shown).toContain(`intensity ${row.intensity.toFixed(2)} operations a byte`);

    const thread = report.threads[1];
    await pointAtItem(page, "threads", "working", 1);
    await page.until(
      `[...document.querySelectorAll(".tip-content")].some((each) => each.innerText.includes("thread 1"))`,
    );
    expect(await tip(page)).toContain(`working ${((thread?.busyShare ?? 0) * 100).toFixed(1)} %`);

    const sample = report.system?.samples[2];
    await pointAtItem(page, "timeline", "resident", 2);
    await page.until(
      `[...document.querySelectorAll(".tip-content")].some((each) => each.innerText.includes("resident"))`,
    );
    expect(await tip(page)).toContain(`resident ${Math.round((sample?.residentBytes ?? 0) / 1e6)} MB`);

    // Of all the bars of a histogram, the counts are the report's.
    const { steps, all } = await page.evaluate<{ steps: number; all: string[] }>(`(() => {
      const chart = echarts.getInstanceByDom(document.querySelector("#steps-generation .chart"));
      const data = chart.getOption().series[0].data;
      return { steps: data.reduce((sum, each) => sum + each.value[1], 0), all: data.map((each) => each.tip.title) };
    })()`);
    const generation = report.phases.find(({ phase }) => phase === "generation");
    expect(steps).toBe(generation?.count ?? -1);
    expect(all.length).toBeGreaterThan(3);

    await page.hover('#icicle .piece[aria-label^="waiting at barriers"], #icicle .piece[aria-label^="matmul"]');
    expect(await tip(page)).toMatch(/matmul|waiting/);
    expect(page.errors).toEqual([]);
    await page.close();
  });

  test("draws percentiles and the last cache's size where they lie", async () => {
    const page = await open(report);
    const generation = report.phases.find(({ phase }) => phase === "generation");
    const wanted: Readonly<Record<string, readonly number[]>> = {
      "steps-generation": [generation?.p50Ns, generation?.p90Ns, generation?.maxNs].map((ns) => ns ?? 0),
      sweep: [report.roofline?.machine.lastLevelBytes ?? 0],
    };
    for (const [chart, values] of Object.entries(wanted)) {
      const { lines, expected } = await page.evaluate<{ lines: number[]; expected: number[] }>(`(() => {
        const dom = document.querySelector("#${chart} .chart");
        const dashed = [...dom.querySelectorAll("path[stroke-dasharray]")];
        const at = (value) => echarts.getInstanceByDom(dom).convertToPixel({ xAxisIndex: 0 }, Math.log10(value));
        return {
          lines: dashed.map((path) => Number(/^M([\\d.]+)/.exec(path.getAttribute("d"))[1])),
          expected: ${JSON.stringify(values)}.map(at),
        };
      })()`);
      // Lines are put on whole pixels.
      for (const x of expected) expect(Math.min(...lines.map((line) => Math.abs(line - x)))).toBeLessThanOrEqual(1);
    }
    await page.close();
  });

  test("says what was not recorded, and is whole without it", async () => {
    for (const of of [bareReport(), emptyReport()]) {
      const page = await open(of);
      const missing = await page.evaluate<string[]>(
        `[...document.querySelectorAll(".missing")].map((each) => each.closest(".section").id)`,
      );
      for (const id of ["roofline", "memory", "cache", "system", "javascript"]) expect(missing).toContain(id);
      expect(missing.includes("time")).toBe(of.steps.count === 0);
      expect(page.errors).toEqual([]);
      await page.close();
    }
  });

  test("takes names for text, whatever they are", async () => {
    const evil = `</script><script>window.hacked = 1</script><img src="x" onerror="window.hacked = 1"> {a} var(--c0)`;
    const named = <T extends { readonly name: string }>(rows: readonly T[]): T[] =>
      rows.map((row) => ({ ...row, name: `${row.name}${evil}`, kernel: evil }));
    const kinds = <T extends { readonly kind: string }>(rows: readonly T[]): T[] =>
      rows.map((row) => ({ ...row, kind: row.kind + evil }));
    const { memory, cache, roofline } = report;
    if (!memory || !cache || !roofline) throw new Error("parts are missing");
    const hostile: Report = {
      ...changed(report, {
        run: { model: evil, level: evil, architecture: evil, version: evil },
        machine: { cpu: evil },
      }),
      byOp: kinds(named(report.byOp)),
      byKind: kinds(report.byKind),
      memory: { ...memory, byOp: kinds(named(memory.byOp)) },
      cache: { ...cache, description: evil },
      roofline: { ...roofline, byOp: kinds(named(roofline.byOp)), byKind: kinds(named(roofline.byKind)) },
      findings: [
        {
          severity: "warning",
          text: evil,
          evidence: [{ label: evil, value: 1, unit: evil }],
          knob: { option: evil, flag: evil },
        },
      ],
    };
    const page = await open(hostile, trace);
    await page.evaluate(`[...document.querySelectorAll("details")].forEach((each) => { each.open = true; })`);
    await page.click("#ops .controls button");
    await pointAtItem(page, "roofline-points", `${roofline.byOp[0]?.kind}${evil}`, 0);
    await page.until(
      `[...document.querySelectorAll(".tip-content")].some((each) => each.innerText.includes("held by"))`,
    );
    expect(await tip(page)).toContain("</script><script>window.hacked");
    expect(await page.evaluate<string>("document.querySelector('h1').textContent")).toContain(evil);
    expect(await page.evaluate<number>("document.querySelectorAll('img').length")).toBe(0);
    expect(await page.evaluate<unknown>("window.hacked ?? null")).toBeNull();
    expect(page.errors).toEqual([]);
    await page.close();
  });

  test("shows thousands of ops and many layers", async () => {
    const layers = 64;
    const row = <T extends { readonly index: number }>(rows: readonly T[], index: number) => {
      const from = rows[index % rows.length];
      return (
        from && {
          ...from,
          index,
          name: `blk.${index % layers}.a_rather_long_role_that_goes_on_and_on_${Math.floor(index / layers)}`,
          layer: index % layers,
        }
      );
    };
    const many = <T extends { readonly index: number }>(rows: readonly T[]): T[] =>
      Array.from({ length: 2000 }, (_, index) => row(rows, index)).filter((each) => each !== undefined);
    const { memory, cache, roofline } = report;
    if (!memory || !cache || !roofline) throw new Error("parts are missing");
    const large: Report = {
      ...report,
      byOp: many(report.byOp),
      memory: { ...memory, byOp: many(memory.byOp) },
      cache: { ...cache, byOp: many(cache.byOp) },
      roofline: { ...roofline, byOp: many(roofline.byOp) },
      requests: Array.from({ length: 500 }, (_, id) => ({ ...(report.requests[0] as Report["requests"][number]), id })),
    };
    const page = await open(large, undefined, { width: 1280 });
    await page.click("#ops .controls button");
    expect(await page.evaluate<number>("document.querySelectorAll('#ops tbody tr').length")).toBeGreaterThan(2000);
    expect(await page.evaluate<number>("document.querySelectorAll('#heat thead th').length")).toBe(layers + 1);
    expect(await page.evaluate<boolean>("document.documentElement.scrollWidth <= innerWidth")).toBe(true);
    expect(page.errors).toEqual([]);
    await page.close();
  });

  test("gives the report's JSON at a click", async () => {
    const page = await open(report);
    await browser.send("Browser.setDownloadBehavior", { behavior: "allow", downloadPath: folder.path });
    await page.click("#download");
    const file = folder.file("made-up-270m.gguf.report.json");
    for (let tries = 0; !existsSync(file) && tries < 500; tries++) await Bun.sleep(20);
    expect(readFileSync(file, "utf8")).toBe(`${JSON.stringify(report, null, 2)}\n`);
    expect(page.requests.every((url) => /^(file|blob):/.test(url))).toBe(true);
    expect(page.errors).toEqual([]);
    await page.close();
  });

  test("could not reach a server if it tried", async () => {
    let asked = 0;
    await using server = Bun.serve({
      port: 0,
      fetch() {
        asked++;
        return new Response("");
      },
    });
    const page = await open(report);
    const outcome = await page.evaluate<string>(`(async () => {
      document.body.append(Object.assign(new Image(), { src: "${server.url}picture" }));
      return await fetch("${server.url}").then(() => "answered", () => "refused");
    })()`);
    expect(outcome).toBe("refused");
    await page.evaluate(
      `document.body.append(Object.assign(document.createElement("script"), { textContent: "window.ran = 1" }))`,
    );
    expect(await page.evaluate<unknown>("window.ran ?? null")).toBeNull();
    expect(asked).toBe(0);
    await page.close();
  });
});
