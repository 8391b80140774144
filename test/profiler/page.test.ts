// What report.html holds, without a browser: that its data comes out whole, that no name becomes markup, and that histograms,
// axes and pieces say what the report says. That it works in a browser is page-browser.test.ts's affair.

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { decimalSteps, tickDuration, tickNumber } from "../../profiler/page/axes.ts";
import { reportPage } from "../../profiler/page/index.ts";
import { binned } from "../../profiler/page/latency.ts";
import type { Page, Piece } from "../../profiler/page/model.ts";
import { pageOf } from "../../profiler/page/sections.ts";
import { bareReport, changed, emptyReport, madeUpReport } from "../support/report.ts";

const { report, trace } = madeUpReport();

/** A compressed text of the page, taken out as a reader of HTML would. */
async function unpacked(html: string, id: string): Promise<string> {
  let packed = "";
  await new HTMLRewriter()
    .on(`script#${id}`, {
      text: (chunk) => {
        packed += chunk.text;
      },
    })
    .transform(new Response(html))
    .text();
  return new TextDecoder().decode(Bun.gunzipSync(Uint8Array.fromBase64(packed)));
}

describe("the file", () => {
  test("holds the report's JSON as it is", async () => {
    const json = JSON.parse(await unpacked(reportPage(report, trace), "report-data"));
    expect(json).toEqual(JSON.parse(JSON.stringify(report)));
  });

  test("names no address, and allows its own two scripts and nothing from elsewhere", async () => {
    const html = reportPage(report);
    const echarts = await unpacked(html, "echarts-script");
    const [own = ""] = /(?<=<script type="module">)[\s\S]*?(?=<\/script>)/.exec(html) ?? [];
    const [policy = ""] = /(?<=Content-Security-Policy" content=")[^"]*/.exec(html) ?? [];
    const hashes = [own, echarts].map((text) => new Bun.CryptoHasher("sha256").update(text).digest("base64"));
    expect(policy.split("; ")).toContain("default-src 'none'");
    expect(policy.split("; ")).toContain(`script-src ${hashes.map((hash) => `'sha256-${hash}'`).join(" ")}`);
    expect(html.replace(own, "")).not.toMatch(/https?:|src=|href=|url\(/);
    expect(own).not.toMatch(/^(import|export) /m);
  });

  test("has no markup from names, whatever they are", async () => {
    const evil = `</script></title><script>alert(1)</script><img src=x onerror="alert(1)">`;
    const tags = async (html: string): Promise<number> => {
      let count = 0;
      await new HTMLRewriter()
        .on("*", {
          element: () => {
            count++;
          },
        })
        .transform(new Response(html))
        .text();
      return count;
    };
    const hostile = reportPage(changed(report, { run: { model: evil, level: evil }, machine: { cpu: evil } }));
    expect(await tags(hostile)).toBe(await tags(reportPage(report)));
    const page: Page = JSON.parse(await unpacked(hostile, "page-data"));
    expect(page.title).toContain(evil);
  });
});

describe("a histogram's bars", () => {
  test("hold every duration once, where it lies, between two empty ones", () => {
    const durations = fc.array(fc.integer({ min: 1, max: 10 ** 12 }), { minLength: 1, maxLength: 50 });
    fc.assert(
      fc.property(durations, (values) => {
        const sorted = [...new Set(values)].sort((a, b) => a - b);
        const bins = binned(sorted.map((value) => ({ value, count: value % 7 })));
        expect(bins[0]?.count).toBe(0);
        expect(bins.at(-1)?.count).toBe(0);
        for (const { from, to, count } of bins) {
          // A duration at a border, up to what logarithms are rounded by, may be on either side.
          const sum = (low: number, high: number) =>
            sorted.reduce(
              (all, value) => all + (Math.log10(value) >= low && Math.log10(value) < high ? value % 7 : 0),
              0,
            );
          expect(count).toBeGreaterThanOrEqual(sum(from + 1e-6, to - 1e-6));
          expect(count).toBeLessThanOrEqual(sum(from - 1e-6, to + 1e-6));
        }
        expect(bins.reduce((all, { count }) => all + count, 0)).toBe(
          sorted.reduce((all, value) => all + (value % 7), 0),
        );
      }),
    );
  });
});

describe("an axis", () => {
  test("has round numbers, a few of them, wherever it begins", () => {
    const begin = fc.double({ min: 1e-3, max: 1e9, noNaN: true });
    fc.assert(
      fc.property(begin, fc.double({ min: 1.5, max: 1e6, noNaN: true }), (min, factor) => {
        const steps = decimalSteps(min, min * factor).filter((step) => step >= min && step <= min * factor);
        expect(steps.length).toBeLessThanOrEqual(12);
        if (factor > 10) expect(steps.length).toBeGreaterThan(0);
        for (const step of steps)
          expect(`${step}`.replace(/e.*/, "").replaceAll(/[.0]/g, "").length).toBeLessThanOrEqual(4);
      }),
    );
  });

  test("words its numbers with the digits that they have", () => {
    expect([0.01, 0.5, 1, 1.5, 20, 1_000, 25_000].map(tickNumber)).toEqual([
      "0.01",
      "0.5",
      "1",
      "1.5",
      "20",
      "1,000",
      "25,000",
    ]);
    expect([500, 1_000, 1_500, 2e6, 22.5e6, 3e9].map(tickDuration)).toEqual([
      "500 ns",
      "1 µs",
      "1.5 µs",
      "2 ms",
      "22.5 ms",
      "3 s",
    ]);
  });
});

describe("the page", () => {
  const blocks = (page: Page) => page.sections.flatMap((section) => section.blocks);

  test("takes the steps' time apart without losing any of it", () => {
    const icicle = blocks(pageOf(report, trace)).find((block) => block.type === "icicle");
    if (icicle?.type !== "icicle") throw new Error("there is no icicle");
    expect(icicle.root.ns).toBe(report.steps.totalNs);
    const check = (piece: Piece): void => {
      if (piece.parts.length === 0) return;
      const sum = piece.parts.reduce((all, part) => all + part.ns, 0);
      expect(sum).toBeCloseTo(piece.ns, -1);
      piece.parts.forEach(check);
    };
    check(icicle.root);
  });

  test("gives every block a name of its own", () => {
    const ids = [...blocks(pageOf(report, trace)), ...pageOf(report).sections].map(({ id }) => id);
    expect(new Set(ids).size).toBe(ids.length);
  });

  test("says of every missing part that it is, and how to record it", () => {
    const missing = pageOf(bareReport()).sections.filter((section) => section.missing !== null);
    const without = ["requests", "roofline", "memory", "cache", "system", "javascript"];
    expect(missing.map(({ id }) => id)).toEqual(without);
    for (const section of missing) {
      expect(section.missing).toMatch(/^Not recorded\..*model\.profile\(\)/);
      expect(section.blocks).toEqual([]);
    }
    const empty = pageOf(emptyReport());
    expect(empty.sections.filter((section) => section.missing === null).map(({ id }) => id)).toEqual(["run"]);
    expect(empty.facts.map(({ figure }) => figure)).toEqual(new Array(7).fill("–"));
  });
});
