// Trends as a picture: the chart with a title above, and below it what the lines across it mean.

import type { EChartsOption, TitleComponentOption } from "echarts";
import { plain } from "../../profiler/words.ts";
import { type PictureSize, pictureOption } from "./picture.ts";
import { trendChart } from "./trend-chart.ts";
import { betterText, changeText, dateText, periodText, shortened, titleText, tooFewText } from "./trend-words.ts";
import type { Trends } from "./trends.ts";

const width = 1280;
const height = 720;
const fontSize = 14;
const titleSize = 24;
/** Of the lines below the chart. */
const lineHeight = 21;
const linesMax = 7;
/** Letters that a line below the chart has room for. */
const lineLetters = 160;
const titleLetters = 84;
const margin = 24;

interface Line {
  readonly text: string;
  readonly color: string;
}

export function trendPicture(trends: Trends): { readonly option: EChartsOption; readonly size: PictureSize } {
  const lines = linesOf(trends);
  const bottom = lines.length * lineHeight + 20;
  const block = trendChart(trends, { fontSize, width, top: 88, left: margin, bottom, zoom: false });
  const texts: TitleComponentOption[] = [
    {
      text: shortened(plain(titleText(trends)), titleLetters),
      left: margin,
      top: 18,
      textStyle: { fontSize: titleSize, fontWeight: 600, color: "var(--text)" },
    },
    {
      text: subtitleOf(trends),
      left: margin,
      top: 54,
      textStyle: { fontSize: 15, fontWeight: "normal", color: "var(--dim)" },
    },
    ...lines.map(
      ({ text, color }, place): TitleComponentOption => ({
        text: shortened(text, lineLetters),
        left: margin,
        top: height - bottom + place * lineHeight,
        textStyle: { fontSize, fontWeight: "normal", color },
      }),
    ),
  ];
  return { option: pictureOption({ ...block, option: { ...block.option, title: texts } }), size: { width, height } };
}

function subtitleOf(trends: Trends): string {
  const { files, series, metric } = trends;
  const interval = series.flatMap(({ points }) => points).find((point) => point.interval)?.interval;
  return [
    files.length === 1 ? "one file" : `${files.length} files`,
    periodText(trends),
    ...(interval ? [`bands: ${Math.round(interval.level * 100)} % intervals`] : []),
    ...(metric.better === null ? [] : [`${betterText(metric.better)} is better`]),
  ].join("  ·  ");
}

/** The changes of level first, the newest of them on top; then what else changed, by its number. */
function linesOf(trends: Trends): Line[] {
  const { series, marks } = trends;
  const few = tooFewText(trends);
  const changes = series
    .flatMap(({ name, changes }) => changes.map((change) => ({ name, change })))
    .sort((a, b) => b.change.place - a.change.place)
    .map(({ name, change }): Line => {
      const color = { regression: "var(--warning)", improvement: "var(--better)", change: "var(--text)" }[change.kind];
      return { text: plain(`${series.length > 1 ? `${name}: ` : ""}${changeText(change)}`), color };
    });
  const others = marks.map(
    ({ changes, timestamp }, index): Line => ({
      text: plain(`${index + 1}  ${changes.join("; ")} (${dateText(timestamp)})`),
      color: "var(--dim)",
    }),
  );
  const none = few ?? (changes.length === 0 ? "No change of level could be shown." : undefined);
  const all = [...(none === undefined ? [] : [{ text: none, color: "var(--dim)" }]), ...changes, ...others];
  if (all.length <= linesMax) return all;
  const left = all.length - linesMax + 1;
  return [...all.slice(0, linesMax - 1), { text: `… and ${left} more`, color: "var(--dim)" }];
}
