// Unpacks what the file holds and builds the page.

import { chartView, drawCharts } from "./charts.js";
import { element } from "./dom.js";
import { heatView } from "./heat.js";
import { icicleView } from "./icicle.js";
import { tableView } from "./tables.js";
import { floatingTip } from "./tip.js";

/** @typedef {import("../model.ts").Page} Page */
/** @typedef {import("../model.ts").Block} Block */

/**
 * The text that an element of the file holds, compressed.
 * @param {string} id
 * @returns {Promise<string>}
 */
async function unpack(id) {
  const packed = atob(document.getElementById(id)?.textContent ?? "");
  const bytes = Uint8Array.from(packed, (character) => character.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

/** @param {Block} block */
function blockView(block) {
  switch (block.type) {
    case "chart":
      return chartView(block);
    case "table":
      return tableView(block);
    case "icicle":
      return icicleView(block);
    case "heat":
      return heatView(block);
  }
}

/** @param {Page["sections"][number]} section */
function sectionView({ id, title, words, missing, blocks }) {
  return element("section", { class: "section", id }, [
    element("h2", {}, [title]),
    ...(missing === null ? [] : [element("p", { class: "missing" }, [missing])]),
    ...words.map((sentence) => element("p", {}, [sentence])),
    element("div", { class: "blocks" }, blocks.map(blockView)),
  ]);
}

/** @param {Page} page */
function findingsView({ findingsTitle, findings, noFindings }) {
  const items = findings.map(({ severity, text, evidence, knob }) =>
    element("li", { class: severity }, [
      element("p", {}, [element("b", {}, [severity]), text]),
      ...(evidence === "" ? [] : [element("p", { class: "note" }, [evidence])]),
      ...(knob === "" ? [] : [element("p", { class: "knob" }, ["to turn: ", element("code", {}, [knob])])]),
    ]),
  );
  return element("section", { id: "findings" }, [
    element("h2", {}, [findingsTitle]),
    items.length > 0 ? element("ul", {}, items) : element("p", {}, [noFindings]),
  ]);
}

/** @param {string} fileName */
function downloadView(fileName) {
  const button = element("button", { type: "button", id: "download" }, ["save as JSON"]);
  button.addEventListener("click", async () => {
    const json = `${JSON.stringify(JSON.parse(await unpack("report-data")), null, 2)}\n`;
    const href = URL.createObjectURL(new Blob([json], { type: "application/json" }));
    element("a", { href, download: fileName }).click();
    setTimeout(() => URL.revokeObjectURL(href), 60_000);
  });
  return button;
}

/** @param {Page} page */
function show(page) {
  const links = [{ id: "findings", title: page.findingsTitle }, ...page.sections].map(({ id, title }) =>
    element("a", { href: `#${id}` }, [title]),
  );
  const facts = page.facts.map(({ name, figure, unit, note }) =>
    element("div", {}, [
      element("dt", {}, [name]),
      element("dd", {}, unit === "" ? [figure] : [figure, " ", element("small", {}, [unit])]),
      element("dd", { class: "note" }, [note]),
    ]),
  );
  document.body.replaceChildren(
    element("nav", { "aria-label": "sections" }, [...links, downloadView(page.fileName)]),
    element("main", {}, [
      element("header", {}, [element("h1", {}, [page.title]), element("p", {}, [page.subtitle])]),
      element("dl", { class: "facts" }, facts),
      findingsView(page),
      ...page.sections.map(sectionView),
    ]),
    element("footer", {}, [page.footer]),
    floatingTip.box,
  );
  drawCharts(page.sections.flatMap(({ blocks }) => blocks.filter((block) => block.type === "chart")));
}

try {
  document.head.append(element("script", {}, [await unpack("echarts-script")]));
  show(JSON.parse(await unpack("page-data")));
} catch (error) {
  const words = `This page could not be drawn (${error}). It needs a browser of 2023 or later.`;
  document.body.replaceChildren(element("p", { class: "missing" }, [words]));
  throw error;
}
