// What reports say of the impact of optimisations: a section where it was measured and none elsewhere, ratios with their intervals,
// no ratio where the rounds carry none.

import { describe, expect, test } from "bun:test";
import { impactSection, ratioOf } from "../../profiler/impact.ts";
import { pageOf } from "../../profiler/page/sections.ts";
import { sectionsOf } from "../../profiler/sections.ts";
import { formatReport } from "../../profiler/terminal.ts";
import { reportText } from "../../profiler/text.ts";
import { madeUpImpact, madeUpReport } from "../support/report.ts";

const { report } = madeUpReport();
const impact = madeUpImpact();
const measured = { ...report, impact };

describe("the impact of optimisations", () => {
  test("is a section of reports that have it, in every form, and of no others", () => {
    const title = "Impact of optimisations";
    expect(sectionsOf(measured).filter((section) => section.title === title)).toHaveLength(1);
    expect(sectionsOf(report).filter((section) => section.title === title)).toEqual([]);
    for (const write of [reportText, (each: typeof measured) => formatReport(each, { width: 100, color: false })]) {
      expect(write(measured)).toContain(title);
      expect(write(report as typeof measured)).not.toContain(title);
    }
    const page = pageOf(measured).sections.find(({ id }) => id === "impact");
    expect(page?.blocks.map((block) => ("title" in block ? block.title : ""))).toEqual([
      "What was switched",
      "Switched off alone, all others on",
      "Switched on alone, all others off",
      "Figures",
    ]);
    expect(pageOf(report).sections.some(({ id }) => id === "impact")).toBe(false);
  });

  test("shows a ratio with its interval, none where no difference could be shown, and says where rounds were few", () => {
    const figures = impact.effects.flatMap(({ besideAll, alone }) => [...besideAll, ...alone]);
    const shown = figures.map(ratioOf);
    expect(shown).toContain("2.00 (1.90 to 2.10)");
    expect(shown).toContain("– (0.98 to 1.02)");
    expect(shown).toContain("2.00 (few rounds)");
    const { tables } = impactSection(impact);
    expect(tables[1]?.rows).toContainEqual(["keys and values", "", "– (0.98 to 1.02)", "0.97 (0.96 to 0.98)"]);
  });

  test("says how it was measured, how many differences chance shows, what changed the text, and what was not switched", () => {
    const words = impactSection(impact).words.join("\n");
    expect(words).toContain("9 rounds in 81.00 s");
    expect(words).toContain("a prompt of 256 tokens and 64 tokens of greedy text");
    expect(words).toContain("One in twenty intervals of 95 % shows one by chance; there are 6.");
    expect(impactSection(impact).tables[0]?.rows).toContainEqual(["keys and values", "on", "off", "another"]);
    expect(words).toContain("Not measured: prepared: it has none");
    expect(impactSection({ ...impact, interrupted: true }).words[0]).toContain("interrupted");
  });

  test("is a line for each optimisation in the terminal", () => {
    const text = formatReport(measured, { width: 100, color: false });
    expect(text).toContain("SIMD level: generation speed 2.00 (1.90 to 2.10), prompt speed 20.00 (18.00 to 21.00).");
    expect(text).toContain("head screening: no difference could be shown.");
  });
});
