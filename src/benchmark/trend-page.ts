// Trends as a page: the chart, whose points tell of themselves, what changed, and a table of all the files.

import manifest from "../../package.json" with { type: "json" };
import { pageHtml } from "../../profiler/page/index.ts";
import type { Block, Cell, Fact, FindingText, Page, TableBlock } from "../../profiler/page/model.ts";
import { plain } from "../../profiler/words.ts";
import { trendChart } from "./trend-chart.ts";
import {
  betterText,
  figureText,
  markText,
  periodText,
  pText,
  quantityText,
  timeText,
  titleText,
  tooFewText,
} from "./trend-words.ts";
import type { Trends } from "./trends.ts";

/** Trends as one HTML file that needs nothing else. */
export function trendPage(trends: Trends): string {
  return pageHtml(pageOf(trends), trends);
}

function pageOf(trends: Trends): Page {
  const { metric, files, marks, warnings } = trends;
  const name = plain(titleText(trends));
  const chart: Block = {
    ...trendChart(trends, { fontSize: 12, width: 1100, top: 4, left: 0, bottom: 0, zoom: true }),
    note: "Each point is a file; bands are intervals. Red and green lines are changes of level, dashed ones what else changed, by its number.",
  };
  return {
    title: `${name} – TinyAI trends`,
    subtitle: `${files.length} file${files.length === 1 ? "" : "s"}, ${periodText(trends)}${metric.better === null ? "" : `; ${betterText(metric.better)} is better`}`,
    facts: factsOf(trends),
    findingsTitle: "Changes of level",
    findings: findingsOf(trends),
    noFindings: tooFewText(trends) ?? "No change of level could be shown.",
    sections: [
      { id: "over-time", title: "Over time", words: warnings.map(plain), missing: null, blocks: [chart] },
      {
        id: "what-else",
        title: "What else changed",
        words: marks.map((mark, index) => plain(`${index + 1}. ${markText(mark)}`)),
        missing:
          marks.length > 0 ? null : "As far as the files say, nothing else changed: neither the machine nor TinyAI.",
        blocks: [],
      },
      { id: "files", title: "Files", words: [], missing: null, blocks: [tableOf(trends)] },
    ],
    footer: `Written by TinyAI ${manifest.version}. Charts are drawn by Apache ECharts, under the Apache License 2.0.`,
    fileName: `${name.replaceAll(/[^\w.-]+/g, "_")}.trends.json`,
  };
}

/** The newest figure of each series, beside its first. */
function factsOf({ series, metric }: Trends): Fact[] {
  return series.map(({ name, points }): Fact => {
    const [first, newest] = [points[0]?.value ?? 0, points.at(-1)?.value ?? 0];
    return {
      name: plain(name),
      figure: figureText(newest),
      unit: metric.unit,
      note:
        points.length === 1 ? "the only file" : `the newest of ${points.length}; the first was ${figureText(first)}`,
    };
  });
}

const severities = { regression: "worse", improvement: "better", change: "note" } as const;

function findingsOf({ series, metric }: Trends): FindingText[] {
  const all = series.flatMap(({ name, changes, last_good }) => changes.map((change) => ({ name, change, last_good })));
  all.sort((a, b) => b.change.place - a.change.place);
  return all.map(({ name, change, last_good }): FindingText => {
    const { kind, sentence, file, timestamp, before, after, p_value, together_with, last_before } = change;
    const levels = `${figureText(before)} to ${quantityText(after, metric.unit)}, p ${pText(p_value)}`;
    const together = together_with.length === 0 ? "" : `; there also changed ${together_with.join("; ")}`;
    return {
      severity: severities[kind],
      text: plain(`${series.length > 1 ? `${name}: ` : ""}${sentence} since ${file} (${timeText(timestamp)})`),
      evidence: plain(`${levels}${together}${last_good === last_before ? `; last known good: ${last_good}` : ""}`),
      knob: "",
    };
  });
}

function tableOf({ series, metric }: Trends): TableBlock {
  const rows = series.flatMap(({ name, points, changes }) =>
    points.map((point): Cell[] => {
      const { file, timestamp, value, interval, samples } = point;
      const change = changes.find(({ place }) => place === point.place);
      return [
        plain(file),
        plain(name),
        [Date.parse(timestamp), timeText(timestamp)],
        [value, quantityText(value, metric.unit)],
        [interval?.low ?? null, interval ? `${figureText(interval.low)} to ${figureText(interval.high)}` : "–"],
        [samples, samples === null ? "–" : `${samples}`],
        [change?.change ?? null, change ? change.sentence.replace(/ \(.*/, "") : "–"],
      ];
    }),
  );
  return {
    type: "table",
    half: false,
    id: "points",
    title: "Each file",
    note: "",
    columns: ["file", "series", "time (UTC)", metric.title, "interval", "samples", "change"],
    textColumns: 2,
    rows,
    interactive: { sortedBy: 2, shareColumn: -1, shown: 25, none: "no file has this name" },
    folded: false,
  };
}
