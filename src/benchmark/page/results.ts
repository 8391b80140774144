// What the page of one file of results shows.

import type { Fact, Page } from "../../../profiler/page/model.ts";
import { count, plain } from "../../../profiler/words.ts";
import { comparableMetrics } from "../comparable.ts";
import type { BenchmarkResults } from "../results.ts";
import { footerOf, samplesSections, section, warningsSection } from "./comparison.ts";
import { environmentTable, figuresTable } from "./tables.ts";
import { metricText, numberText } from "./words.ts";

export function resultsPageOf(results: BenchmarkResults, name: string, sentences: readonly string[]): Page {
  const { model, type, timestamp, methodology = [], warnings = [], interrupted } = results.benchmark_info;
  const compared = [{ name, results }];
  const amiss = interrupted
    ? ["It was interrupted; the figures are of what was measured until then.", ...warnings]
    : warnings;
  return {
    title: `${plain(type === "system" ? "This machine" : model)} – TinyAI benchmark`,
    subtitle: `type ${type}, measured ${plain(timestamp)}, ${plain(name)}`,
    facts: factsOf(results),
    findingsTitle: "What they say",
    findings: sentences.map((text) => ({ severity: "note", text: plain(text), evidence: "", knob: "" })),
    noFindings: "The figures are below.",
    sections: [
      warningsSection(amiss),
      ...samplesSections(compared, "iteration"),
      section("environment", "Machine and settings", [], [environmentTable(compared)]),
      section(
        "methodology",
        "How it was measured",
        methodology.length > 0 ? methodology : ["The file does not say."],
        [],
      ),
      section("figures", "Figures", ["“save as JSON” above gives every sample."], figuresTable(compared)),
    ],
    footer: footerOf(compared),
    fileName: `${plain(name)
      .replaceAll(/[^\w.-]+/g, "_")
      .replace(/\.json$/i, "")}.json`,
  };
}

/** The first figures, at most so many. */
const factsMax = 8;

function factsOf(results: BenchmarkResults): Fact[] {
  const main = comparableMetrics(results).filter(({ part }) => part === null);
  const several = new Set(main.map(({ batchSize }) => batchSize)).size > 1;
  return main.slice(0, factsMax).map(({ name, batchSize, figure, unit, samples }) => ({
    name: metricText(name, batchSize, several),
    figure: numberText(figure),
    unit,
    note: samples === null ? "mean; no samples" : `mean of ${count(samples.length, "sample")}`,
  }));
}
