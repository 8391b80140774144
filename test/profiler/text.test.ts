// A report in the terminal and as plain text: that flame bars are to scale, that nothing is wider than it may be, and that what
// is missing is said, not shown as zeros.

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { phaseParts } from "../../profiler/parts.ts";
import type { Report } from "../../profiler/report.ts";
import { formatReport } from "../../profiler/terminal.ts";
import { reportText } from "../../profiler/text.ts";
import { amount, bar, bytes } from "../../profiler/words.ts";
import { bareReport, changed, emptyReport, madeUpReport } from "../support/report.ts";

const { report } = madeUpReport();
const plainOptions = { width: 100, color: false } as const;

/** Lines of a text without its line breaks, for words that may have been wrapped. */
function unwrapped(text: string): string {
  return text.replaceAll(/\s+/g, " ");
}

describe("words", () => {
  test("write bytes and counts with three digits", () => {
    expect([0, 999, 1_000, 12_345, 253_000_000, 1.5e12].map(bytes)).toEqual([
      "0 B",
      "999 B",
      "1.00 KB",
      "12.3 KB",
      "253 MB",
      "1.50 TB",
    ]);
    expect([0, 12, 1_234_567].map(amount)).toEqual(["0", "12", "1.23 M"]);
  });

  test("draw bars to an eighth of a column, and something above nothing always", () => {
    expect(bar(0, 8)).toBe("");
    expect(bar(1e-9, 8)).toBe("▏");
    expect(bar(0.5, 8)).toBe("████");
    expect(bar(1, 8)).toBe("████████");
    expect(bar(7, 8)).toBe("████████");
    expect(bar(Number.NaN, 8)).toBe("");
    const eighths = (text: string): number =>
      [...text].reduce((sum, character) => sum + 8 - "█▉▊▋▌▍▎▏".indexOf(character), 0);
    fc.assert(
      fc.property(fc.double({ min: 0, max: 1, noNaN: true }), fc.integer({ min: 1, max: 80 }), (share, size) => {
        expect(Math.abs(eighths(bar(share, size)) - share * size * 8)).toBeLessThanOrEqual(1);
      }),
    );
  });
});

describe("the parts of a phase", () => {
  test("add up to the phase, and both phases to the steps", () => {
    const phases = phaseParts(report);
    expect(phases.map(({ phase }) => phase)).toEqual(["prompt", "generation"]);
    for (const { ops, rest, totalNs } of phases) {
      const sum = [...ops, ...rest].reduce((total, { ns }) => total + ns, 0);
      expect(sum).toBeCloseTo(totalNs, 0);
    }
    expect(phases.reduce((sum, { totalNs }) => sum + totalNs, 0)).toBe(report.steps.totalNs);
  });

  test("stay together where nothing tells the phases' ops apart, exactly", () => {
    const [all, ...others] = phaseParts({ ...report, roofline: null });
    expect(others).toEqual([]);
    expect(all?.phase).toBe("all steps");
    const sum = [...(all?.ops ?? []), ...(all?.rest ?? [])].reduce((total, { ns }) => total + ns, 0);
    expect(sum).toBe(report.steps.totalNs);
  });
});

describe("the terminal's report", () => {
  test("draws each bar as long as its share of the phase", () => {
    const lines = formatReport(report, plainOptions).split("\n");
    const first = lines.findIndex((line) => line.startsWith("generation:"));
    const bars = lines.slice(first + 1, lines.indexOf("", first)).filter((line) => line.includes(" %"));
    expect(bars.length).toBeGreaterThan(4);
    const measured = bars.map((line) => {
      const [, blocks = "", share = ""] = /([█▉▊▋▌▍▎▏]+) +([\d.]+) %/.exec(line) ?? [];
      return { columns: blocks.length, share: Number(share) };
    });
    const largest = measured.reduce((a, b) => (b.share > a.share ? b : a));
    for (const { columns, share } of measured) {
      expect(Math.abs(columns - (largest.columns * share) / largest.share)).toBeLessThanOrEqual(1.5);
    }
    expect(bars[0]).toContain("matmul");
    expect(bars[1]).toContain("token_embd");
  });

  test("never is wider than the terminal", () => {
    const reports = [report, bareReport(), emptyReport()];
    fc.assert(
      fc.property(fc.integer({ min: 40, max: 160 }), fc.constantFrom(...reports), (width, shown) => {
        for (const line of formatReport(shown, { width, color: false }).split("\n")) {
          expect(Bun.stringWidth(line)).toBeLessThanOrEqual(width);
        }
      }),
      { numRuns: 60 },
    );
  });

  test("says in words what is missing, and shows no zeros for it", () => {
    const text = unwrapped(formatReport(bareReport(), plainOptions));
    for (const what of ["Loads and stores were not counted", "Cache accesses were not followed"])
      expect(text).toContain(what);
    for (const what of ["JavaScript's thread was not watched", "Memory, faults and allocations were not watched"]) {
      expect(text).toContain(what);
    }
    expect(text).toContain("at most was not measured");
    expect(text).not.toMatch(/\b0 (loads|stores|B)\b/);
    expect(text).not.toContain("NaN");
  });

  test("says that what a prefetcher brought came from memory without a miss, and sizes of caches in one unit", () => {
    const { cache } = report;
    if (!cache) throw new Error("there are no caches");
    const words = "what a prefetcher brought before it was missed included";
    const fetched = { ...report, cache: { ...cache, prefetcher: true } };
    const alone = { ...report, cache: { ...cache, prefetcher: false } };
    for (const form of [(of: Report) => formatReport(of, plainOptions), reportText]) {
      expect(unwrapped(form(fetched))).toContain(`came from memory, ${words}.`);
      expect(unwrapped(form(alone))).toContain("came from memory; no prefetcher was modelled.");
      expect(unwrapped(form(report))).toContain("the last cache holds 30 MiB in effect");
    }
  });

  test("tells apart that no step ran, and that steps were not recorded", () => {
    const recorded = { ...emptyReport(), javascript: report.javascript };
    const untimed = "Steps were not recorded, with { time: false }.";
    for (const form of [(of: Report) => formatReport(of, plainOptions), reportText]) {
      const idle = unwrapped(form(recorded));
      expect(idle).toContain("Loads and stores were not counted. No step ran while it was watched.");
      expect(idle).not.toContain(untimed);
      const unrecorded = unwrapped(form(emptyReport()));
      expect(unrecorded).toContain(`Loads and stores were not counted. ${untimed}`);
      expect(unrecorded).not.toContain("No step ran");
      for (const text of [idle, unrecorded]) expect(text).not.toContain("counted: the profile did not ask");
    }
  });

  test("is short, and shows tables when asked to", () => {
    const short = formatReport(report, plainOptions);
    expect(short.split("\n").length).toBeLessThan(70);
    expect(short).not.toContain("GFLOP/s");
    expect(formatReport(report, { ...plainOptions, by: ["layer"] })).toContain("GFLOP/s");
  });

  test("is plain text unless colour is asked for, which adds ANSI sequences and nothing else", () => {
    const plain = formatReport(report, plainOptions);
    const colored = formatReport(report, { ...plainOptions, color: true });
    expect(plain).not.toContain("\u001b");
    expect(colored).toContain("\u001b[36m");
    expect(Bun.stripANSI(colored)).toBe(plain);
  });

  test("shows findings with their evidence and what to turn", () => {
    const text = unwrapped(formatReport(report, plainOptions));
    expect(text).toContain(
      "The output head takes most of a token. share of the steps: 60.0 % to turn: screening: true (--screening)",
    );
  });

  test("lets no control character of a model's name through", () => {
    const named = changed(report, { run: { model: "a\u001b[2J\nb\u202e.gguf" } });
    for (const text of [formatReport(named, plainOptions), reportText(named)]) {
      expect(text).not.toContain("\u001b");
      expect(text).not.toContain("\u202e");
      expect(text).toContain("a�[2J�b�.gguf");
    }
  });
});

describe("the plain text", () => {
  const text = reportText(report);

  test("is 100 columns wide at most", () => {
    for (const shown of [text, reportText(bareReport()), reportText(emptyReport())]) {
      for (const line of shown.split("\n")) expect(Bun.stringWidth(line)).toBeLessThanOrEqual(100);
      expect(shown).not.toMatch(/NaN|undefined|null|Infinity/);
      expect(shown).not.toContain("\u001b");
    }
  });

  test("has a section for every part, and every op in its tables", () => {
    const titles = ["Findings", "What ran", "Time", "Latency", "Requests", "Memory operations", "Caches", "Roofline"];
    for (const title of [...titles, "JavaScript's share", "System"]) expect(text).toContain(`\n${title}\n──`);
    const ops = text.slice(text.indexOf("\nOps:\n"), text.indexOf("\nThreads:\n"));
    for (const { name } of report.byOp) {
      // A long name may be cut, never below what tells two ops apart.
      expect(ops).toContain(name.slice(0, 12));
    }
    expect(ops.split("\n").length).toBeGreaterThan(report.byOp.length);
  });

  test("goes on in a second table with the columns that do not fit, and loses none", () => {
    const requests = text.slice(text.indexOf("\nRequests\n"), text.indexOf("\nMemory operations\n"));
    for (const column of ["tokenizing", "queue", "steps", "between", "delivery", "JavaScript", "unattributed"]) {
      expect(requests).toMatch(new RegExp(`^request .*\\b${column}\\b`, "m"));
    }
  });

  test("says what is missing in every part", () => {
    const bare = unwrapped(reportText(bareReport()));
    expect(bare.match(/the profile did not ask for/g)).toHaveLength(3);
    expect(bare).toContain("No request ended while it was watched.");
    expect(bare).toContain("Nothing stood out");
  });
});
