// What the page of a comparison shows: the verdicts in words, the changes with their intervals, how the samples are distributed and
// followed each other, where and how they were measured, and the figures.

import type { Block, Fact, FindingText, Page, PageSection, TableBlock } from "../../../profiler/page/model.ts";
import { count, plain } from "../../../profiler/words.ts";
import { type Compared, type ComparedMetric, comparableMetrics } from "../comparable.ts";
import type { ComparisonReport, MetricComparison } from "../compare.ts";
import { type Change, changesChart, distributionChart, type Sampled, timeChart } from "./charts.ts";
import { environmentTable, figuresTable } from "./tables.ts";
import { changeText, figureText, metricText, percentText, pValueText } from "./words.ts";

export function comparisonPageOf(report: ComparisonReport): Page {
  const { compared, paired } = report;
  const names = compared.map(({ name }) => plain(name));
  const title = `${names.slice(1).join(", ")} beside ${names[0]}`;
  const { timestamp } = compared[0]?.results.benchmark_info ?? {};
  return {
    title: `${title} – TinyAI comparison`,
    subtitle: `type ${report.type}, ${paired ? "measured in turns" : "files of results"}, base measured ${plain(timestamp ?? "")}`,
    facts: factsOf(report),
    findingsTitle: "Verdicts",
    findings: report.comparisons.filter(isMain).map((each) => findingOf(report, each)),
    noFindings: "Nothing was compared.",
    sections: [
      warningsSection(report.warnings),
      section(
        "changes",
        "Changes",
        [`Every change is a part of the figure of ${names[0]}; above 0 is better.`],
        [...changeBlocks(report), verdictTable(report)],
      ),
      ...samplesSections(compared, paired ? "round" : "iteration"),
      section("environment", "Machines and settings", [], [environmentTable(compared)]),
      section("methodology", "How it was measured and judged", methodologyOf(report), []),
      section("figures", "Figures", ["Means; “save as JSON” above gives every sample."], figuresTable(compared)),
    ],
    footer: footerOf(compared),
    fileName: "comparison.json",
  };
}

export function footerOf(compared: readonly Compared[]): string {
  const versions = new Set(compared.map(({ results }) => plain(results.benchmark_info.tinyai ?? "of unknown version")));
  return `Measured by TinyAI ${[...versions].join(", ")}. Charts are drawn by Apache ECharts, under the Apache License 2.0.`;
}

export function section(id: string, title: string, words: readonly string[], blocks: readonly Block[]): PageSection {
  return { id, title, words: words.map(plain), missing: null, blocks };
}

export function warningsSection(warnings: readonly string[]): PageSection {
  return section("warnings", "Warnings", warnings.length > 0 ? warnings : ["Nothing was amiss."], []);
}

/** Percentiles stand in the table and the chart. */
function isMain({ metric }: MetricComparison): boolean {
  return !/ p\d+$/.test(metric);
}

function factsOf({ compared, comparisons, paired }: ComparisonReport): Fact[] {
  const fact = (name: string, figure: string, note: string): Fact => ({ name, figure, unit: "", note });
  const of = (verdict: string) => comparisons.filter(({ comparison }) => comparison?.verdict === verdict).length;
  const without = comparisons.filter(({ comparison }) => comparison === null).length;
  const samples = compared.map(({ results }) => comparableMetrics(results)[0]?.samples?.length);
  const judged = `of ${count(comparisons.length, "comparison")}`;
  return [
    fact("better", `${of("faster")}`, judged),
    fact("worse", `${of("slower")}`, judged),
    fact("undecided", `${of("undecided")}`, judged),
    ...(without > 0 ? [fact("no verdict", `${without}`, "no samples to judge by")] : []),
    fact(
      paired ? "rounds" : "samples",
      paired ? `${samples[0] ?? "–"}` : samples.map((each) => each ?? "–").join(" / "),
      "of the first metric",
    ),
    fact("measured", paired ? "in turns" : "one by one", paired ? "compared in pairs" : "compared as groups"),
  ];
}

function findingOf(report: ComparisonReport, each: MetricComparison): FindingText {
  const { compared, comparisons } = report;
  const { metric, unit, batchSize, other, statistic, base, figure, comparison, sentence } = each;
  const severity = { faster: "better", slower: "worse", undecided: "undecided" } as const;
  const subject = compared.length > 2 ? `${plain(compared[other]?.name ?? "")}, ` : "";
  const evidence = [`${statistic} ${figureText(figure, unit)} beside ${figureText(base, unit)}`];
  if (comparison?.interval) {
    evidence.push(
      `p ${pValueText(comparison.pValue)} after correction`,
      `Cliff's delta ${comparison.effect.toFixed(2)}`,
    );
  }
  return {
    severity: comparison === null ? "note" : severity[comparison.verdict],
    text: `${subject}${metricText(metric, batchSize, severalSizes(comparisons))}: ${sentence}`,
    evidence: evidence.join("; "),
    knob: "",
  };
}

function severalSizes(comparisons: readonly { readonly batchSize: number | null }[]): boolean {
  return new Set(comparisons.map(({ batchSize }) => batchSize)).size > 1;
}

function changeBlocks({ compared, comparisons }: ComparisonReport): Block[] {
  const several = severalSizes(comparisons);
  return compared.flatMap(({ name }, other) => {
    const changes = comparisons.flatMap((each): Change[] => {
      const { comparison, metric, batchSize, unit } = each;
      if (each.other !== other || !comparison?.interval) return [];
      const title = metricText(metric, batchSize, several);
      const { verdict, change, interval, pValue } = comparison;
      return [
        {
          name: several && batchSize !== null ? `${metric} ×${batchSize}` : metric,
          verdict,
          change,
          low: interval.low,
          high: interval.high,
          tip: {
            title,
            lines: [
              ["change", changeText(change)],
              ["interval", `${changeText(interval.low)} to ${changeText(interval.high)}`],
              [plain(compared[0]?.name ?? ""), figureText(each.base, unit)],
              [plain(name), figureText(each.figure, unit)],
              ["p, corrected", pValueText(pValue)],
            ],
          },
        },
      ];
    });
    // All are of one level.
    const level = comparisons.find(({ comparison }) => comparison?.interval)?.comparison?.interval?.level;
    return level === undefined || changes.length === 0
      ? []
      : [changesChart(`changes-${other}`, plain(name), changes, level)];
  });
}

function verdictTable({ compared, comparisons }: ComparisonReport): TableBlock {
  const several = severalSizes(comparisons);
  const rows = comparisons.map(({ metric, unit, batchSize, other, base, figure, comparison }) => [
    metricText(metric, batchSize, several),
    plain(compared[other]?.name ?? ""),
    comparison?.verdict ?? "no verdict",
    figureText(base, unit),
    figureText(figure, unit),
    comparison === null ? "–" : changeText(comparison.change),
    comparison?.interval ? `${changeText(comparison.interval.low)} to ${changeText(comparison.interval.high)}` : "–",
    typeof comparison?.detectable === "number" ? percentText(comparison.detectable) : "–",
    comparison?.interval ? pValueText(comparison.pValue) : "–",
    comparison === null ? "–" : comparison.effect.toFixed(2),
  ]);
  return {
    type: "table",
    id: "verdicts",
    title: "All comparisons",
    note: "Base and figure: the median of the samples, or the percentile that is named; without samples, as the file states. Detectable: the least change that would have been shown four times in five. p: after correction. Effect: Cliff's delta, above 0 is better.",
    half: false,
    columns: ["metric", "of", "verdict", "base", "figure", "change", "interval", "detectable", "p", "effect"],
    textColumns: 3,
    rows,
    interactive: null,
    folded: false,
  };
}

/** Distributions and courses of every metric that has samples, by batch size. */
export function samplesSections(compared: readonly Compared[], of: "iteration" | "round"): PageSection[] {
  const metrics = compared.map(({ results }) => comparableMetrics(results).filter(({ part }) => part === null));
  const all = metrics.flat().filter(({ samples }) => samples !== null);
  const keyOf = ({ name, batchSize }: ComparedMetric) => `${name}, batch size ${batchSize}`;
  const several = severalSizes(all);
  const charts = [...new Map(all.map((metric) => [keyOf(metric), metric]))].map(([key, metric], place) => {
    const sampled = compared.flatMap(({ name }, which): Sampled[] => {
      const { samples } = metrics[which]?.find((each) => keyOf(each) === key) ?? {};
      return samples ? [{ name: plain(name), samples }] : [];
    });
    const title = metricText(metric.name, metric.batchSize, several);
    const note = sampled.map(({ name, samples }) => `${name}: ${count(samples.length, "sample")}`).join("; ");
    return {
      distribution: distributionChart(`distribution-${place}`, title, metric.unit, sampled, `${note}.`),
      time: timeChart(`time-${place}`, title, metric.unit, sampled, of),
    };
  });
  if (charts.length === 0) {
    const missing = "No samples: what was compared holds figures alone.";
    return [{ id: "distributions", title: "Distributions", words: [], missing, blocks: [] }];
  }
  return [
    section(
      "distributions",
      "Distributions",
      [],
      charts.map(({ distribution }) => distribution),
    ),
    section(
      "time",
      "Over time",
      [],
      charts.map(({ time }) => time),
    ),
  ];
}

function methodologyOf({ compared, methodology }: ComparisonReport): string[] {
  const own = compared.flatMap(({ results }) => results.benchmark_info.methodology ?? []);
  return [...methodology, ...new Set(own)];
}
