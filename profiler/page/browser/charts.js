// Charts by ECharts, in the page's colours: they are drawn again when the colours or the room change, and in light colours on paper.

import { element, frame } from "./dom.js";
import { tipContent } from "./tip.js";

/** @type {{ readonly chart: import("echarts").ECharts, readonly block: import("../model.ts").ChartBlock }[]} */
const drawn = [];
/** CSS pixels that a chart is given on paper, so that all of it fits A4 and letter. */
const PAPER_WIDTH = 680;

/**
 * @param {import("../model.ts").ChartBlock} block
 * @returns {HTMLElement}
 */
export function chartView(block) {
  const place = element("div", { class: "chart", role: "img", "aria-label": `${block.title}. ${block.note}` });
  place.style.height = `${block.height}px`;
  return frame(block, [place]);
}

/**
 * Draws the charts that are on the page by now.
 * @param {readonly import("../model.ts").ChartBlock[]} blocks
 */
export function drawCharts(blocks) {
  /** @type {typeof import("echarts")} */
  // @ts-expect-error: ECharts' script has put it there.
  const echarts = globalThis.echarts;
  const resized = new ResizeObserver((entries) => {
    for (const { target } of entries) if (target instanceof HTMLElement) echarts.getInstanceByDom(target)?.resize();
  });
  for (const block of blocks) {
    const place = document.querySelector(`#${CSS.escape(block.id)} .chart`);
    if (!(place instanceof HTMLElement)) continue;
    const chart = echarts.init(place, null, { renderer: "svg" });
    drawn.push({ chart, block });
    resized.observe(place);
  }
  colorCharts();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", colorCharts);
  addEventListener("beforeprint", () => {
    document.documentElement.classList.add("paper");
    for (const { chart } of drawn) chart.resize({ width: Math.min(chart.getWidth(), PAPER_WIDTH) });
    colorCharts();
  });
  addEventListener("afterprint", () => {
    document.documentElement.classList.remove("paper");
    for (const { chart } of drawn) chart.resize({ width: "auto" });
    colorCharts();
  });
}

/** Gives every chart its option, in the colours that the page has now. */
function colorCharts() {
  for (const { chart, block } of drawn) chart.setOption(withWords(colored(block.option), block));
}

/**
 * The option with `var(--name)` replaced by the colour that it has.
 * @param {import("echarts").EChartsOption} option
 * @returns {any}
 */
function colored(option) {
  const style = getComputedStyle(document.documentElement);
  return JSON.parse(JSON.stringify(option), (_, value) => {
    const name = typeof value === "string" ? /^var\((--\w+)\)$/.exec(value)?.[1] : undefined;
    return name === undefined ? value : style.getPropertyValue(name).trim();
  });
}

/**
 * Adds what all charts have, and what cannot be data: the words of ticks and tips.
 * @param {any} option
 * @param {import("../model.ts").ChartBlock} block
 */
function withWords(option, { ticks }) {
  const style = getComputedStyle(document.documentElement);
  const color = (/** @type {string} */ name) => style.getPropertyValue(name).trim();
  for (const [axis, words] of [
    [option.xAxis, ticks.x],
    [option.yAxis, ticks.y],
  ]) {
    if (words === undefined) continue;
    axis.axisLabel.formatter = (/** @type {number} */ value) =>
      words.find((/** @type {import("../model.ts").Tick} */ { at }) => Math.abs(at - value) < 1e-6)?.text ?? "";
  }
  if (option.legend) {
    option.legend = { top: 0, left: 0, icon: "roundRect", itemWidth: 12, itemHeight: 12, ...option.legend };
    option.legend.textStyle = { color: color("--text"), fontSize: 12 };
    option.legend.pageTextStyle = { color: color("--dim") };
    option.legend.inactiveColor = color("--line");
  }
  for (const zoom of option.dataZoom ?? []) {
    if (zoom.type !== "slider") continue;
    Object.assign(zoom, { brushSelect: false, showDetail: false, borderColor: color("--line") });
    Object.assign(zoom, { fillerColor: color("--zoom"), textStyle: { color: color("--dim") } });
    zoom.dataBackground = { lineStyle: { color: color("--line") }, areaStyle: { color: color("--line") } };
  }
  option.tooltip = {
    trigger: "item",
    confine: true,
    className: "tip",
    padding: 0,
    borderWidth: 0,
    backgroundColor: "transparent",
    extraCssText: "box-shadow: none",
    transitionDuration: 0,
    axisPointer: { lineStyle: { color: color("--dim"), type: "solid" }, label: { show: false } },
    ...option.tooltip,
    formatter: (/** @type {any} */ hovered) => {
      const { tip } = [hovered].flat().find(({ data }) => data?.tip)?.data ?? {};
      return tip ? tipContent(tip) : "";
    },
  };
  return {
    animation: false,
    backgroundColor: "transparent",
    textStyle: { fontFamily: style.fontFamily, color: color("--text") },
    ...option,
  };
}
